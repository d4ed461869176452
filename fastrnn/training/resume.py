"""What a run of fit goes on from: flat dicts of arrays, which np.savez and safetensors can keep."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from fastrnn.errors import ShapeError, UnsupportedModelError
from fastrnn.runtime.checks import as_mapping
from fastrnn.training.base import same_names

LOSSES = ("train", "valid", "metric", "lr", "seconds")
PARTS = ("net", "best", "optimiser", "schedule", "order", "drop", "history")


def joined(parts: Mapping[str, Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """One dict of all parts, their names in front."""
    return {f"{part}.{name}": array for part, state in parts.items() for name, array in state.items()}


def parted(state) -> dict[str, dict[str, np.ndarray]]:
    """And back; ShapeError for names that joined does not make."""
    parts: dict[str, dict[str, np.ndarray]] = {part: {} for part in PARTS}
    for key, array in as_mapping(state, "resume").items():
        part, dot, name = key.partition(".")
        if part not in parts or not dot:
            raise ShapeError(f"resume: {key!r} is none of what History.state_dict gives")
        parts[part][name] = np.asarray(array)
    return parts


def generator_state(generator: np.random.Generator) -> dict[str, np.ndarray]:
    """Where a PCG64 stands: its 128-bit numbers in halves, and the half of a draw that it holds back."""
    state = generator.bit_generator.state
    halves = [state["state"][name] >> shift & (1 << 64) - 1 for name in ("state", "inc") for shift in (0, 64)]
    return {"pcg64": np.array([*halves, state["has_uint32"], state["uinteger"]], np.uint64)}


def load_generator(generator: np.random.Generator, given: Mapping[str, np.ndarray]) -> None:
    """Goes on from there. UnsupportedModelError where the generator is not of the same seed."""
    same_names(given, ("pcg64",), "resume: a generator")
    if given["pcg64"].shape != (6,) or given["pcg64"].dtype != np.uint64:
        raise ShapeError("resume: a generator's state must be 6 numbers of uint64")
    low, high, inc_low, inc_high, held, half = (int(v) for v in given["pcg64"])
    here, inc = generator.bit_generator.state, inc_high << 64 | inc_low
    if here["state"]["inc"] != inc:
        raise UnsupportedModelError("resume: the run was begun with another seed")
    generator.bit_generator.state = here | {"state": {"state": high << 64 | low, "inc": inc}, "has_uint32": held, "uinteger": half}
