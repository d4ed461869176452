"""fastrnn: recurrent networks on the CPU with little latency and the same bits everywhere. See README.md."""

from typing import TYPE_CHECKING

from fastrnn.cells import Gate, cell
from fastrnn.cells.maths import abs, exp, maximum, minimum, relu, sigmoid, sqrt, tanh, where
from fastrnn.errors import (
    BusyError,
    ConversionError,
    DivergedError,
    DTypeError,
    FastRNNError,
    InvalidModelError,
    MissingDependencyError,
    NotStreamableError,
    OutOfMemoryError,
    PoolFullError,
    ShapeError,
    StateError,
    SuspectModelWarning,
    UnsupportedModelError,
)
from fastrnn.model import Model
from fastrnn.plan.guess import Guess, guess_states
from fastrnn.runtime.layers import GRU, LSTM, RNN, Recurrent
from fastrnn.runtime.session import Session, compile
from fastrnn.runtime.stream import Stream

if TYPE_CHECKING:
    from fastrnn.converters import from_keras, from_onnx, from_state_dict, from_torch, load

__version__ = "0.1.0"
__all__ = [
    "GRU", "LSTM", "RNN", "BusyError", "ConversionError", "DTypeError", "DivergedError", "FastRNNError", "Gate", "Guess", "InvalidModelError",
    "MissingDependencyError", "Model", "NotStreamableError", "OutOfMemoryError", "PoolFullError", "Recurrent", "Session", "ShapeError", "StateError", "Stream",
    "SuspectModelWarning", "UnsupportedModelError", "abs", "cell", "compile", "exp", "from_keras", "from_onnx", "from_state_dict", "from_torch", "guess_states",
    "load", "maximum", "minimum", "relu", "sigmoid", "sqrt", "tanh", "where",
]


def __getattr__(name: str):
    """Converters load on first use, and with them the packages they need."""
    if name in ("from_keras", "from_onnx", "from_state_dict", "from_torch", "load"):
        from fastrnn import converters

        return getattr(converters, name)
    raise AttributeError(f"module 'fastrnn' has no attribute {name!r}")
