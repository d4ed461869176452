"""One engine a file, one tiny interface: ``prepare(case) -> (run, result)``.

run() does the work once with everything prepared; result() gives y (T, B, H) of a first call. ``any_size(case) -> call`` and ``opener(case) -> open`` are
for use as it comes: call(x, lengths) gives y (T, B, H) for whatever batch and length, open() a function of x (1, I) that carries a new stream's state from call to call. All engines get the same weights and
inputs from the case (cases.py) and use one thread; results are compared before anything is timed. What an engine cannot do it
refuses by raising Refused. To add an engine: a module with NAME and prepare, listed in ENGINES.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

import numpy as np

from fastrnn.testing import TOLERANCES

ENGINES = ("fastrnn_engine", "onnxruntime_engine", "openvino_engine", "torch_engine", "numpy_engine")
NAMES = tuple(name.removesuffix("_engine") for name in ENGINES)
PEERS = (*NAMES[1:], "onnxruntime_bound")
CARRIED = (*ENGINES, "onnxruntime_bound_engine")  # steps and chunks of a stream are small enough for the way of calling to count


class Refused(Exception):
    """What the engine cannot do."""


ANY_SIZE = ENGINES[:-1]  # NumPy's loops are no way to serve anybody


def each(maker: str, case, engines=ANY_SIZE) -> tuple[dict[str, Callable], dict[str, str]]:
    """What a maker of each engine, any_size or opener, makes of the case, and why the others do not take part."""
    made, refused = {}, {}
    for name in engines:
        try:
            module = import_module(f"contenders.{name}")
            made[module.NAME] = getattr(module, maker)(case)
        except (Refused, ModuleNotFoundError) as error:
            refused[name.removesuffix("_engine")] = str(error)
    return made, refused


def alike(results: dict[str, np.ndarray], case) -> None:
    """Raises AssertionError where an engine's result is not fastrnn's, within the tolerance of engines."""
    expected = results["fastrnn"]
    for name, y in results.items():
        error = np.abs(y - expected).max() / np.abs(expected).max() if y.shape == expected.shape else np.inf
        if not error < TOLERANCES["engine"]:
            raise AssertionError(f"{case}: {name} gives {y.shape} and differs from fastrnn by {error:.1e}")


def prepared(case) -> tuple[dict[str, Callable[[], object]], dict[str, str]]:
    """run of each engine, results compared, and why the others do not take part."""
    runs, refused, expected = {}, {}, None
    for name in CARRIED if case.carried else ENGINES:
        try:
            module = import_module(f"contenders.{name}")
            runs[module.NAME], result = module.prepare(case)
        except (Refused, ModuleNotFoundError) as error:
            refused[name.removesuffix("_engine")] = str(error)
            continue
        y = np.asarray(result())
        expected = y if expected is None else expected
        error = np.abs(y - expected).max() / np.abs(expected).max()
        if y.shape != (case.T, case.B, case.H) or not error < TOLERANCES["engine"]:
            raise AssertionError(f"{case}: {module.NAME} gives {y.shape} and differs from fastrnn by {error:.1e}")
    return runs, refused
