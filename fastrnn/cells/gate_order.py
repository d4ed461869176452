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


def _reorder(a: np.ndarray, source: str, target: str, axis: int) -> np.ndarray:
    if source == target:
        return a
    blocks = np.split(a, len(source), axis=axis)
    return np.concatenate([blocks[source.index(gate)] for gate in target], axis=axis)


def permute(a: np.ndarray, kind: str, source: str, target: str, axis: int = 0) -> np.ndarray:
    """Gate blocks of `a` along `axis` moved from framework `source`'s order to `target`'s; kind: rnn, lstm or gru."""
    return _reorder(a, GATE_ORDER[kind][source], GATE_ORDER[kind][target], axis)


def permute_peepholes(a: np.ndarray, source: str, target: str, axis: int = 0) -> np.ndarray:
    """The same for an LSTM's peephole vectors."""
    return _reorder(a, PEEPHOLE_ORDER[source], PEEPHOLE_ORDER[target], axis)
