"""fastrnn: recurrent networks on the CPU with little latency and the same bits everywhere. See README.md."""

from typing import TYPE_CHECKING

from fastrnn.errors import (
    BusyError,
    ConversionError,
    DTypeError,
    FastRNNError,
    InvalidModelError,
    MissingDependencyError,
    NotStreamableError,
    PoolFullError,
    ShapeError,
    StateError,
    UnsupportedModelError,
)
from fastrnn.model import Model
from fastrnn.runtime.layers import GRU, LSTM, RNN
from fastrnn.runtime.session import Session, compile
from fastrnn.runtime.stream import Stream

if TYPE_CHECKING:
    from fastrnn.converters import from_onnx, from_state_dict, from_torch, load

__version__ = "0.1.0"
__all__ = [
    "GRU", "LSTM", "RNN", "BusyError", "ConversionError", "DTypeError", "FastRNNError", "InvalidModelError", "MissingDependencyError", "Model", "NotStreamableError",
    "PoolFullError", "Session", "ShapeError", "StateError", "Stream", "UnsupportedModelError", "compile", "from_onnx", "from_state_dict", "from_torch", "load",
]


def __getattr__(name: str):
    """Converters load on first use, and with them the packages they need."""
    if name in ("from_onnx", "from_state_dict", "from_torch", "load"):
        from fastrnn import converters

        return getattr(converters, name)
    raise AttributeError(f"module 'fastrnn' has no attribute {name!r}")
