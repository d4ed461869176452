"""PyTorch modules and exported programs to Models, by way of torch.export's graph of ATen operators.

    capture.py          nn.Module -> ExportedProgram, in eval mode, dimensions left open
    recurrent_leaf.py   while that runs: recurrent layers kept whole, packed sequences as lengths
    program.py          ExportedProgram -> Model: parameters, outputs, names of dimensions
    importer.py         the nodes; what only constants make is computed
    registry.py, site.py, ops/    one overload, one short function
    check.py            module and Model compared, as part of converting
    archive.py          .pt2 files, read without unpickling
"""

from __future__ import annotations

import torch
from fastrnn.converters.torch_export.capture import arguments, capture, evaluating, given_names
from fastrnn.converters.torch_export.check import TOLERANCE, check
from fastrnn.converters.torch_export.program import import_program

from fastrnn.errors import UnsupportedModelError
from fastrnn.model import Model

__all__ = ["TOLERANCE", "convert_module", "convert_program"]


def convert_module(module: torch.nn.Module, example_inputs, dynamic_shapes, tolerance: float | None = None) -> Model:
    """from_torch of a module with example inputs."""
    args, kwargs = arguments(example_inputs)
    program = capture(module, args, kwargs, dynamic_shapes)
    names = given_names(module, args, kwargs, dynamic_shapes, program) if dynamic_shapes is not None else {}
    model = import_program(program, type(module).__name__.lower(), names)
    with evaluating(module):
        check(module, model, args, kwargs, TOLERANCE if tolerance is None else tolerance)
    return model


def convert_program(program, example_inputs, name: str, tolerance: float | None = None) -> Model:
    """from_torch of an exported program, which is compared on its own example inputs or those given."""
    model = import_program(program, name)
    given = arguments(example_inputs) if example_inputs is not None else program.example_inputs
    if given is not None:
        if any(str(node.target) == "fastrnn.recurrent.default" for node in program.graph.nodes):
            raise UnsupportedModelError("a program captured by fastrnn cannot be run by torch to compare; give the module")
        check(program.module(check_guards=False), model, *given, TOLERANCE if tolerance is None else tolerance)
    return model
