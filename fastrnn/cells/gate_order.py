"""THE table of gate orders. Every conversion between frameworks goes through `permute`.

Letters: LSTM i input, f forget, g cell candidate, o output. GRU r reset, z update, n new.
fastrnn's layers and kernels use torch's order; recurrent nodes of a graph have ONNX's meaning and so ONNX's order.
"""

from __future__ import annotations

import numpy as np

GATE_ORDER: dict[str, dict[str, str]] = {
    "rnn": {"torch": "a", "onnx": "a", "keras": "a", "onednn": "a"},
    "lstm": {"torch": "ifgo", "onnx": "iofg", "keras": "ifgo", "onednn": "ifgo"},
    "gru": {"torch": "rzn", "onnx": "zrn", "keras": "zrn", "onednn": "zrn"},
}
PEEPHOLE_ORDER: dict[str, str] = {"torch": "ifo", "onnx": "iof"}


def _blocks(a: np.ndarray, source: str, target: str, axis: int) -> list[np.ndarray]:
    parts = np.split(a, len(source), axis=axis)
    return [parts[source.index(gate)] for gate in target]


def _reorder(a: np.ndarray, source: str, target: str, axis: int) -> np.ndarray:
    return a if source == target else np.concatenate(_blocks(a, source, target, axis), axis=axis)


def gate_blocks(a: np.ndarray, kind: str, source: str, target: str) -> list[np.ndarray]:
    """The gates of `a`, stacked along axis 0 in framework `source`'s order, in `target`'s: views, nothing is copied."""
    return _blocks(a, GATE_ORDER[kind][source], GATE_ORDER[kind][target], 0)


def permute(a: np.ndarray, kind: str, source: str, target: str, axis: int = 0) -> np.ndarray:
    """Gate blocks of `a` along `axis` moved from framework `source`'s order to `target`'s; kind: rnn, lstm or gru."""
    return _reorder(a, GATE_ORDER[kind][source], GATE_ORDER[kind][target], axis)


def peephole_blocks(a: np.ndarray, source: str, target: str) -> list[np.ndarray]:
    """The same views of an LSTM's peephole vectors, stacked along axis 0."""
    return _blocks(a, PEEPHOLE_ORDER[source], PEEPHOLE_ORDER[target], 0)


def permute_peepholes(a: np.ndarray, source: str, target: str, axis: int = 0) -> np.ndarray:
    """As `permute`, for an LSTM's peephole vectors."""
    return _reorder(a, PEEPHOLE_ORDER[source], PEEPHOLE_ORDER[target], axis)
