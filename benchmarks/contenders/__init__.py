"""One engine a file, one tiny interface: ``prepare(work) -> (run, result)``.

run() does the work once with everything prepared; result() gives y (T, H) of the last run. All engines get the same
weights and inputs from the Work; results are compared before anything is timed. To add an engine: a module with
NAME and prepare, listed in ENGINES.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from importlib import import_module

import numpy as np

from fastrnn.testing import LAYERS

ENGINES = ("fastrnn_engine", "onnxruntime_engine", "torch_engine")


@dataclass(frozen=True)
class Work:
    """One layer over one sequence at batch 1; T = 1 is a step with its state carried by the engine or its caller."""

    kind: str
    I: int
    H: int
    T: int = 1

    @cached_property
    def layer(self):
        """The weights, as a fastrnn layer."""
        return LAYERS[self.kind](self.I, self.H, seed=0)

    @cached_property
    def x(self) -> np.ndarray:
        """(T, 1, I)."""
        return np.random.default_rng(1).standard_normal((self.T, 1, self.I)).astype(np.float32)

    def __str__(self) -> str:
        return f"{self.kind.upper()} I={self.I} H={self.H} " + ("step" if self.T == 1 else f"T={self.T} B=1")


def engines(names=ENGINES):
    """The modules of the engines that are installed."""
    return [import_module(f"contenders.{name}") for name in names]
