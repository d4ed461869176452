"""TensorFlow Lite files -> Model. Neither TensorFlow nor LiteRT is needed.

    flatbuffer.py   the file's format, every offset checked
    schema.py       its tables as plain data
    network.py      subgraphs, operator by operator
    call.py         an operator as its converter sees it: inputs as stored, or as the real numbers that they stand for
    registry.py     the table of converters; ops/: each operator's nodes

To add an operator, see registry.py.
"""

from __future__ import annotations

from os import PathLike
from pathlib import Path

from fastrnn.converters.tflite_import import ops  # noqa: F401  (fills the registry)
from fastrnn.converters.tflite_import.network import build_model
from fastrnn.errors import FastRNNError, InvalidModelError, ShapeError
from fastrnn.model import Model


def load_tflite(path: str | PathLike[str]) -> Model:
    """A Model from a .tflite file: its first subgraph, inputs and outputs by the names of its signature, axes as they are there.

    Integers with a scale are what is stored at inputs and outputs, as in the file; in between each operator computes in float32 on the numbers that they stand for, and its result is rounded
    to the file's integers. So a result may be one step of its scale from TFLite's own arithmetic; an integer LSTM, and the products of floats with integer weights, are computed with the
    weights that the integers stand for. States of recurrent operators are inputs NAME.h0 (and c0), that may be left out, and outputs NAME.h_n, tied as states: calls start from zeros
    where they are left out, streams carry them.

    Raises UnsupportedModelError naming the operator that stands in the way, InvalidModelError for a damaged file.
    """
    try:
        return build_model(Path(path))
    except (InvalidModelError, ShapeError) as error:  # shapes in a file that do not fit are a fault of the file
        raise InvalidModelError(f"{path}: {error}") from error
    except (ValueError, TypeError, KeyError, IndexError, OverflowError, RecursionError, MemoryError) as error:
        if isinstance(error, FastRNNError):
            raise
        raise InvalidModelError(f"{path}: a damaged TFLite file: {type(error).__name__}: {error}") from error
