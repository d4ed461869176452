"""PyTorch modules and exported programs to Models, by way of torch.export's graph of ATen operators.

subject.py, kept.py the module as something to call: on copies, in eval mode, put back as it was after every run
capture.py          nn.Module -> ExportedProgram, dimensions left open
recurrent_leaf.py   while that runs: recurrent layers kept whole, packed sequences as lengths
value_leaf.py       and functions that look into tensors, spelled out
cell_leaf.py        and modules that the caller says are layers of a custom cell
program.py          ExportedProgram -> Model: parameters, outputs, names of dimensions
apart.py            operators that torch leaves whole, taken apart
importer.py         the nodes; what only constants make is computed
carried.py          modules that write their buffers: states
registry.py, site.py, ops/    one overload, one short function
guards.py           relations between sizes that the capture took for granted, as nodes
check.py            module and Model compared, as part of converting, on drawn.py's inputs; subject.py and kept.py leave the module as it was
pt2.py              .pt2 files, read without unpickling
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import torch

from fastrnn.converters.torch_export.capture import arguments, axes_of, capture, enlarged, given_names, narrowed, open_dimensions
from fastrnn.converters.torch_export.cell_leaf import find_leaves, forget
from fastrnn.converters.torch_export.check import TOLERANCE, ShortRowsDifferError, SizeOneDiffersError, check
from fastrnn.converters.torch_export.program import import_program
from fastrnn.converters.torch_export.site import OpenSizesError
from fastrnn.converters.torch_export.subject import Subject, evaluating
from fastrnn.errors import ConversionError, UnsupportedModelError
from fastrnn.model import Model

__all__ = ["TOLERANCE", "convert_module", "convert_program"]

REFUSED = (UnsupportedModelError, ConversionError)  # one way of capturing, where another may do


def convert_module(module: torch.nn.Module, example_inputs, dynamic_shapes, tolerance: float | None = None, cells: Mapping | None = None) -> Model:
    """from_torch of a module with example inputs."""
    args, kwargs = arguments(example_inputs)
    with evaluating(module):
        job = _Job(Subject(module), args, kwargs, TOLERANCE if tolerance is None else tolerance)
        try:
            job.leaves = find_leaves(module, args, kwargs, cells) if cells else []
            job.subject.restore()
            job.subject.refuse_memory(args, kwargs)
            return job.captured(dynamic_shapes, bounded=True) if dynamic_shapes is not None else job.converted()
        finally:
            forget(job.leaves)
            job.subject.restore()


class _Job:
    """One conversion: the module, what it is compared on and how closely, and the modules in it that are leaves."""

    def __init__(self, subject: Subject, args: tuple, kwargs: dict, tolerance: float):
        self.subject, self.args, self.kwargs, self.tolerance, self.leaves = subject, args, kwargs, tolerance, []

    def converted(self) -> Model:
        """With as many sizes open as can be: of the example enlarged, else of the example, else none."""
        first = None
        for example in (enlarged(self.subject, self.args, self.kwargs), (self.args, self.kwargs)):
            try:
                model = None if example is None else self.opened(example)
            except REFUSED as error:
                first = error
                continue
            if model is not None:
                return model
        try:
            model = self.captured({})
        except REFUSED:
            raise first from None  # for another reason than sizes that vary
        warnings.warn(f"{self.subject.name}: converted for the example's sizes alone, since with others {first}", stacklevel=5)
        return model

    def opened(self, example: tuple[tuple, dict]) -> Model:
        """Captured with every size open but those that an operator must have fixed, which are then the example's own."""
        fixed: set[tuple[int, int]] = set()
        reasons: list[str] = []
        while True:
            try:
                model = self.captured(open_dimensions(self.subject.module, *example, fixed), example)
            except _FixedError as error:
                if not error.axes - fixed:
                    raise error.reason from None
                fixed |= error.axes
                reasons.append(str(error.reason))
                example = narrowed(example, (self.args, self.kwargs), fixed)
                continue
            if reasons:
                warnings.warn(f"{self.subject.name}: some sizes are the example's alone: {reasons[0]}", stacklevel=6)
            return model

    def captured(self, dynamic_shapes, example: tuple[tuple, dict] | None = None, bounded: bool = False) -> Model:
        """example: what the module is captured with, where that is not what it is compared on."""
        module = self.subject.module
        try:
            program = capture(module, *(example or (self.args, self.kwargs)), dynamic_shapes, self.leaves)  # type: ignore[call-arg]  # as many as it takes
        finally:
            self.subject.restore()
        names = given_names(module, self.args, self.kwargs, dynamic_shapes, program)
        try:
            return _checked(program, self.subject.name.lower(), names, self.subject, self.args, self.kwargs, self.tolerance, bounded)
        except OpenSizesError as error:
            if example is None:
                raise
            raise _FixedError(error, axes_of(program, error.symbols)) from error


class _FixedError(Exception):
    """An operator that needs sizes fixed: where they stand among the inputs."""

    def __init__(self, reason: UnsupportedModelError, axes: set[tuple[int, int]]):
        super().__init__(str(reason))
        self.reason, self.axes = reason, axes


def _checked(program, name: str, dim_names, subject: Subject, args, kwargs, tolerance: float, bounded: bool = True, from_file: bool = False) -> Model:
    """The program's model, compared; for sizes from 2 on, where one row or one step is something else to the module, and for rows of which one reaches the last step,
    where it matters how far they are padded."""
    least: frozenset[str] = frozenset()
    longest = False
    while True:
        model = import_program(program, name, dim_names, least, bounded, from_file, longest)
        try:
            check(subject, model, args, kwargs, tolerance, least)
        except SizeOneDiffersError as error:
            least |= error.dims
        except ShortRowsDifferError:
            if longest:
                raise ConversionError(f"{name}: with rows that all end before the last step the module computes something else") from None
            longest = True
        else:
            return model


def convert_program(program, example_inputs, name: str, tolerance: float | None = None, from_file: bool = False) -> Model:
    """from_torch of an exported program, which is compared on its own example inputs or those given. from_file: whether it may be damaged."""
    given = arguments(example_inputs) if example_inputs is not None else program.example_inputs
    if given is None:
        return import_program(program, name, from_file=from_file)
    if any(str(node.target) == "fastrnn.recurrent.default" for node in program.graph.nodes):
        raise UnsupportedModelError("a program captured by fastrnn cannot be run by torch to compare; give the module")
    subject = Subject(program.module(check_guards=False))
    return _checked(program, name, {}, subject, *given, TOLERANCE if tolerance is None else tolerance, from_file=from_file)  # type: ignore[call-arg]  # as many as it takes
