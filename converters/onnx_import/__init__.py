"""ONNX files to Models.

    importer.py   the graph: order, names, subgraphs
    wanted.py     the part of a graph that some of its outputs need
    older.py      opsets 1 to 6, brought to 7 before
    proto.py      messages to plain data: dtypes, shapes, tensors, external data
    registry.py   Given, a node as importers see it, and the table of importers
    ops/          an importer for each op: older forms become the newest one, which the model's vocabulary has

To add an op: one decorated function in ops/, one row in tests/rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from typing import TYPE_CHECKING

from fastrnn.errors import FastRNNError, InvalidModelError, MissingDependencyError, ShapeError
from fastrnn.model import Model

if TYPE_CHECKING:
    from onnx import ModelProto


def from_onnx(source: str | PathLike[str] | bytes | ModelProto, *, external_data: bool = True, outputs: Sequence[str] | None = None) -> Model:
    """A Model from an ONNX file: a path, its bytes, or a ModelProto. Opsets 1 to 28 of the default domain, those under 7 by
    onnx's version converter.

    Floats of 16 bits become float32, inputs and outputs among them, of which it warns; ops that only the onnx package has a meaning for run
    by its reference implementation (see Session.explain).
    outputs: those that the model is to have, in this order; None: the file's. What feeds none of them is left out, inputs included, so that a file
    whose other outputs need what fastrnn lacks can be read.
    external_data: whether weights may be read from other files inside the model's folder; only for a path.
    Raises InvalidModelError for a damaged file, and UnsupportedModelError naming the node for an op, attribute or dtype that
    fastrnn lacks. Warns of GRUs that PyTorch's exporter is known to have written wrongly. Not for concurrent use of one ModelProto.
    """
    try:
        import onnx  # noqa: F401
    except ModuleNotFoundError as error:
        raise MissingDependencyError("onnx", "onnx", "from_onnx") from error
    from fastrnn.converters.onnx_import.importer import import_model

    try:
        return import_model(source, external_data, outputs)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, RecursionError, MemoryError) as error:
        if isinstance(error, ShapeError):  # shapes in a file that do not fit are a fault of the file
            raise InvalidModelError(str(error)) from error
        if isinstance(error, FastRNNError):
            raise
        raise InvalidModelError(f"a damaged ONNX file: {type(error).__name__}: {error}") from error
