"""fastrnn: recurrent networks on the CPU with little latency and the same bits everywhere. See README.md.

    errors.py    every error and warning
    typing.py    types for annotations
    log.py       the logger `fastrnn`
    cells/       what a recurrent cell is
    model/       a network as plain data
    kernels/     functions that compute, for each instruction set
    plan/        from a Model to a program
    runtime/     running programs: sessions, streams, layers
    converters/  from other people's files and modules
    training/    training small networks
    serving/     many callers, gathered into steps of one pool
    cli/         the command line; __main__.py: as python -m fastrnn
    testing.py   what tests and benchmarks share

Each may import those above it; ARCHITECTURE.md says why things are as they are.

Names load on first use, and with them the packages they need: a bare import costs errors and the check that kernels are there.
"""

import sys
from importlib import import_module
from typing import TYPE_CHECKING

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
    OverloadedError,
    PoolFullError,
    ShapeError,
    StateError,
    SuspectModelWarning,
    UnknownStreamError,
    UnsupportedModelError,
)
from fastrnn.kernels import native  # noqa: F401  (which says what to do where nothing is compiled)

if TYPE_CHECKING:
    from fastrnn.cells import Gate, cell
    from fastrnn.cells.maths import abs, exp, maximum, minimum, relu, sigmoid, sqrt, tanh, where
    from fastrnn.converters import from_keras, from_onnx, from_state_dict, from_torch
    from fastrnn.converters.load import load
    from fastrnn.model import Model
    from fastrnn.plan.graph.narrow import round_weights
    from fastrnn.plan.streams.guess import Guess, guess_states
    from fastrnn.runtime.layers import GRU, LSTM, RNN, Recurrent
    from fastrnn.runtime.pools.pool import Pool
    from fastrnn.runtime.sensitivity import Sensitivity, sensitivity
    from fastrnn.runtime.session import Session, compile
    from fastrnn.runtime.streams.stream import Stream

__version__ = "0.1.0"
__all__ = [
    "GRU", "LSTM", "RNN", "BusyError", "ConversionError", "DTypeError", "DivergedError", "FastRNNError", "Gate", "Guess", "InvalidModelError",
    "MissingDependencyError", "Model", "NotStreamableError", "OutOfMemoryError", "OverloadedError", "Pool", "PoolFullError", "Recurrent", "Sensitivity", "Session", "ShapeError", "StateError", "Stream",
    "SuspectModelWarning", "UnknownStreamError", "UnsupportedModelError", "abs", "cell", "compile", "exp", "from_keras", "from_onnx", "from_state_dict", "from_torch", "guess_states",
    "load", "maximum", "minimum", "relu", "round_weights", "sensitivity", "sigmoid", "sqrt", "tanh", "where",
]  # fmt: skip

# Module of each name that is not here yet.
_HOME = {
    name: module
    for module, names in {
        "cells": ("Gate", "cell"),
        "cells.maths": ("abs", "exp", "maximum", "minimum", "relu", "sigmoid", "sqrt", "tanh", "where"),
        "converters": ("from_keras", "from_onnx", "from_state_dict", "from_torch"),
        "converters.load": ("load",),
        "model": ("Model",),
        "plan.graph.narrow": ("round_weights",),
        "plan.streams.guess": ("Guess", "guess_states"),
        "runtime.layers": ("GRU", "LSTM", "RNN", "Recurrent"),
        "runtime.pools.pool": ("Pool",),
        "runtime.sensitivity": ("Sensitivity", "sensitivity"),
        "runtime.session": ("Session", "compile"),
        "runtime.streams.stream": ("Stream",),
    }.items()
    for name in names
}

if "threadpoolctl" in sys.modules:  # then it may limit the pool from here on
    import_module("fastrnn.runtime")


if not TYPE_CHECKING:  # to which every name would be one of the module's

    def __getattr__(name: str):
        if name not in _HOME:
            raise AttributeError(f"module 'fastrnn' has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(f"fastrnn.{_HOME[name]}"), name)
        return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
