"""PyTorch modules and exported programs to Models, by way of torch.export's graph of ATen operators.

    capture.py          nn.Module -> ExportedProgram, in eval mode, dimensions left open
    recurrent_leaf.py   while that runs: recurrent layers kept whole, packed sequences as lengths
    cell_leaf.py        and modules that the caller says are layers of a custom cell
    program.py          ExportedProgram -> Model: parameters, outputs, names of dimensions
    importer.py         the nodes; what only constants make is computed
    carried.py          modules that write their buffers: states
    registry.py, site.py, ops/    one overload, one short function
    guards.py           relations between sizes that the capture took for granted, as nodes
    check.py            module and Model compared, as part of converting
    pt2.py              .pt2 files, read without unpickling
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Mapping

import torch
from fastrnn.converters.torch_export.capture import arguments, capture, enlarged, evaluating, given_names, open_dimensions
from fastrnn.converters.torch_export.cell_leaf import find_leaves, forget
from fastrnn.converters.torch_export.check import TOLERANCE, SizeOneDiffersError, check
from fastrnn.converters.torch_export.program import import_program

from fastrnn.errors import ConversionError, UnsupportedModelError
from fastrnn.model import Model

__all__ = ["TOLERANCE", "convert_module", "convert_program"]


def convert_module(module: torch.nn.Module, example_inputs, dynamic_shapes, tolerance: float | None = None, cells: Mapping | None = None) -> Model:
    """from_torch of a module with example inputs."""
    args, kwargs = arguments(example_inputs)
    with evaluating(module):
        leaves = find_leaves(module, args, kwargs, cells) if cells else []
    try:
        return _converted(module, args, kwargs, dynamic_shapes, tolerance, leaves)
    finally:
        forget(leaves)


def _converted(module, args, kwargs, dynamic_shapes, tolerance: float | None, leaves) -> Model:
    if dynamic_shapes is not None:
        return _captured(module, args, kwargs, dynamic_shapes, tolerance, leaves, bounded=True)
    example = enlarged(module, args, kwargs)
    if example is not None:
        with contextlib.suppress(UnsupportedModelError, ConversionError):
            return _captured(module, args, kwargs, open_dimensions(module, *example), tolerance, leaves, example)
    try:
        return _captured(module, args, kwargs, open_dimensions(module, args, kwargs), tolerance, leaves)
    except UnsupportedModelError as error:
        try:
            model = _captured(module, args, kwargs, {}, tolerance, leaves)
        except UnsupportedModelError:
            raise error from None  # for another reason than sizes that vary
        warnings.warn(f"{type(module).__name__}: converted for the example's sizes alone, since with others {error}", stacklevel=4)
        return model


def _captured(module, args, kwargs, dynamic_shapes, tolerance: float | None, leaves, example: tuple[tuple, dict] | None = None,
              bounded: bool = False) -> Model:
    """example: what the module is captured with, where that is not what it is compared on."""
    program = capture(module, *(example or (args, kwargs)), dynamic_shapes, leaves)
    names = given_names(module, args, kwargs, dynamic_shapes, program)
    with evaluating(module):
        return _checked(program, type(module).__name__.lower(), names, module, args, kwargs, tolerance, bounded)


def _checked(program, name: str, dim_names, module, args, kwargs, tolerance: float | None, bounded: bool = True) -> Model:
    """The program's model, compared; for sizes from 2 on, where one row or one step is something else to the module."""
    model, tolerance = import_program(program, name, dim_names, bounded=bounded), TOLERANCE if tolerance is None else tolerance
    try:
        check(module, model, args, kwargs, tolerance)
    except SizeOneDiffersError:
        model = import_program(program, name, dim_names, 2, bounded)
        check(module, model, args, kwargs, tolerance, least=2)
    return model


def convert_program(program, example_inputs, name: str, tolerance: float | None = None) -> Model:
    """from_torch of an exported program, which is compared on its own example inputs or those given."""
    given = arguments(example_inputs) if example_inputs is not None else program.example_inputs
    if given is None:
        return import_program(program, name)
    if any(str(node.target) == "fastrnn.recurrent.default" for node in program.graph.nodes):
        raise UnsupportedModelError("a program captured by fastrnn cannot be run by torch to compare; give the module")
    return _checked(program, name, {}, program.module(check_guards=False), *given, tolerance)
