"""Peers that serve many streams: their batched step, the states of those that are ready gathered and scattered with NumPy by whoever calls."""

import numpy as np

from contenders import onnx_layer, onnxruntime_engine, torch_engine


class Gathered:
    """A peer's batched step. run: from x (n, I) and states (1, n, H) to y (n, H) and new states."""

    def __init__(self, run, case, chunk: int, streams: int):
        self.run, self.chunk, self.H = run, chunk, case.H
        self.states = [np.zeros((1, streams, case.H), np.float32) for _ in case.states]

    def reset(self, rows: np.ndarray) -> None:
        """Streams that start anew in these places."""
        for s in self.states:
            s[:, rows] = 0

    def step(self, ready: np.ndarray, x: np.ndarray) -> np.ndarray:
        """(n,) places, x (n, I) -> (n, H)."""
        out = np.empty((len(ready), self.H), np.float32)
        for first in range(0, len(ready), self.chunk):
            rows = ready[first : first + self.chunk]
            y, new = self.run(x[first : first + self.chunk], [s[:, rows] for s in self.states])
            out[first : first + self.chunk] = y
            for s, after in zip(self.states, new):
                s[:, rows] = after
        return out


def peers(case):
    """How each runs a batch, by name: (x (n, I), states (1, n, H)) -> y (n, H), new states."""
    session, layer = onnxruntime_engine.session(onnx_layer.graph(case, free_batch=True)), torch_engine.module(case)
    import torch

    def ort(x, states):
        y, *new = session.run(None, {"x": x[None], **dict(zip((f"{s}0" for s in case.states), states))})
        return y[0, 0], new

    def eager(x, states):
        with torch.inference_mode():
            given = tuple(torch.from_numpy(s) for s in states)
            y, new = layer(torch.from_numpy(x)[None], given if len(given) > 1 else given[0])
            return y[0].numpy(), [s.numpy() for s in (new if isinstance(new, tuple) else (new,))]

    return {"onnxruntime": ort, "torch": eager}
