from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fastrnn.plan.program import Program

def thread_limit() -> int: ...
def set_thread_limit(n: int) -> None: ...

class Runner:
    program: Program
    def __init__(self, program: Program, states: Mapping[tuple[str, str], np.ndarray], commits: Sequence[tuple[np.ndarray, np.ndarray]],
                 release_ns: float, work: np.ndarray | None = None) -> None: ...
    def call(self, given: Any, out: Any) -> np.ndarray | tuple[np.ndarray, ...]: ...
