"""What is measured: every list of cases, in one place. A case with quick=True also belongs to a quick run."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from fastrnn.cells import GATES
from fastrnn.kernels.roofline import Work, recurrent_work
from fastrnn.model.stack import StackOptions

SHARED = Path(os.environ.get("FASTRNN_SHARED") or Path(__file__).parents[2] / "shared") / "models"


@dataclass(frozen=True)
class Case:
    """One layer over x (T, B, I), its first state zero. carried: each call goes on from the states of the call before, as a stream's
    step (T = 1) or push does. ragged: row lengths drawn uniformly from 1..T."""

    kind: str
    I: int
    H: int
    T: int = 1
    B: int = 1
    carried: bool = False
    ragged: bool = False
    quick: bool = False

    @property
    def options(self) -> StackOptions:
        """The layer's sizes as fastrnn's graphs take them."""
        return StackOptions(self.kind, self.I, self.H)

    @cached_property
    def parameters(self) -> dict[str, np.ndarray]:
        """Under torch's names, drawn from U(-1/sqrt(H), 1/sqrt(H))."""
        random, bound = np.random.default_rng(0), self.H**-0.5
        return {name: random.uniform(-bound, bound, shape).astype(np.float32) for name, shape in self.options.shapes().items()}

    @property
    def weight_bytes(self) -> int:
        """Of all parameters."""
        return sum(a.nbytes for a in self.parameters.values())

    @cached_property
    def x(self) -> np.ndarray:
        """(T, B, I)."""
        return np.random.default_rng(1).standard_normal((self.T, self.B, self.I)).astype(np.float32)

    @cached_property
    def lengths(self) -> np.ndarray | None:
        """(B,) int64, None where all rows have T steps."""
        return np.random.default_rng(2).integers(1, self.T + 1, self.B) if self.ragged else None

    @property
    def states(self) -> tuple[str, ...]:
        """h, and c of an LSTM."""
        return ("h", "c") if self.kind == "lstm" else ("h",)

    @property
    def work(self) -> Work:
        """What the roofline counts."""
        rows = self.T * self.B if self.lengths is None else int(self.lengths.sum())
        return recurrent_work(GATES[self.kind], self.I, self.H, rows, self.T)

    @property
    def layer(self) -> str:
        """The layer alone."""
        return f"{self.kind.upper()} " + (f"H={self.H}" if self.I == self.H else f"I={self.I} H={self.H}")

    def __str__(self) -> str:
        if self.carried:
            return f"{self.layer} " + ("step" if self.T == 1 else f"push of {self.T}")
        return f"{self.layer} T={self.T} B={self.B}" + (" ragged" if self.ragged else "")


def _square(kind: str, H: int, **sizes) -> Case:
    return Case(kind, H, H, **sizes)


STEPS = [
    Case("lstm", 1, 16, carried=True, quick=True),
    Case("gru", 32, 24, carried=True),
    Case("lstm", 40, 64, carried=True, quick=True),
    *(_square("lstm", H, carried=True, quick=H in (128, 256)) for H in (128, 256, 512, 1024)),
]
SEQUENCES = [
    _square("lstm", 64, T=100, quick=True),
    _square("lstm", 256, T=100),
    _square("lstm", 512, T=100),
    _square("gru", 256, T=100),
    _square("rnn", 256, T=100),
]
BATCHES = [
    *(_square("lstm", 256, T=50, B=B, quick=B == 8) for B in (1, 2, 4, 8, 16, 32, 64)),
    _square("lstm", 512, T=50, B=16),
    _square("lstm", 1024, T=20, B=64),
    _square("gru", 256, T=50, B=32),
    _square("rnn", 256, T=50, B=32),
]
RAGGED = [_square("lstm", 256, T=100, B=32, ragged=True, quick=True)]
PUSHES = [Case(kind, I, H, T=64, carried=True, quick=I == 40) for kind, I, H in (("lstm", 1, 16), ("lstm", 1, 40), ("lstm", 40, 64), ("gru", 1, 24))]
PLOTTED = [
    *STEPS,
    *SEQUENCES,
    *(case for case in BATCHES if case.B in (8, 64) or (case.kind, case.H) != ("lstm", 256)),
    *RAGGED,
    *PUSHES,
]  # against the peers
LOADS = [_square("lstm", H, quick=H == 256) for H in (64, 256, 1024)]
MEMORY = [_square("lstm", H, quick=H == 256) for H in (256, 1024)]
POOLS = [Case("lstm", 40, 64, quick=True), Case("gru", 1, 16)]
SHARED_POOLS = [POOLS[0], Case("lstm", 128, 256)]  # by two threads
READY = [(1, 7), (20, 99), (200, 599), (2000, 2000)]  # streams of a pool that step at once, drawn between
THREADS = [_square("lstm", 512, carried=True), _square("lstm", 1024, carried=True), _square("lstm", 256, T=100), _square("lstm", 512, T=100, quick=True),
           _square("lstm", 256, T=50, B=32), _square("lstm", 256, T=50, B=2), _square("lstm", 128, T=100), _square("lstm", 64, T=100), _square("gru", 256, T=100),
           _square("rnn", 256, T=100), _square("lstm", 64, T=100, B=4), _square("lstm", 32, T=50, B=8), _square("lstm", 16, T=100), Case("lstm", 40, 64, carried=True)]  # fmt: skip
GROWTH = {  # with the hidden size in a step, with the batch, with the time; the first two are cases that stand above
    "hidden size, LSTM step": ("H", [case for case in STEPS if case.I == case.H]),
    "batch, LSTM H=256 T=50": ("B", [case for case in BATCHES if case.kind == "lstm" and case.H == 256]),
    "time, LSTM H=64 B=1": ("T", [_square("lstm", 64, T=T) for T in (1, 10, 100, 1000)]),
    "time, LSTM H=256 B=1": ("T", [_square("lstm", 256, T=T) for T in (1, 10, 100, 1000)]),
}
TIMES = [case for letter, cases in GROWTH.values() if letter == "T" for case in cases if case.T != 100]
RATES = {"kinds": ("rnn", "lstm", "gru"), "H": (64, 128, 256, 512), "B": (4, 5, 8, 16, 32), "T": 50}  # GFLOP/s of batches
COMPILED = {"layers": [(kind, I, H) for kind in ("lstm", "gru", "rnn") for I, H in ((1, 16), (40, 64), (256, 256))], "B": (1, 4, 32), "T": (1, 100)}
LOOPS = [(64, 100, 1), (16, 100, 1), (256, 50, 1), (64, 50, 16), (256, 20, 32)]  # hidden size, time, batch
PER_FLOP = [(64, 1), (64, 32), (256, 8)]
TRAINING = [
    Case("lstm", 88, 36, T=100, B=16, quick=True),
    Case("gru", 88, 46, T=100, B=16),
    Case("rnn", 88, 100, T=100, B=16),
    Case("lstm", 64, 128, T=50, B=32),
    Case("lstm", 88, 36, T=100, B=16, ragged=True),
    Case("gru", 88, 46, T=100, B=16, ragged=True),
]
CELL_TRAINING = [(64, 100, 1), (32, 100, 16), (64, 100, 16)]  # hidden size, time, batch
CALLS = 16  # of sizes drawn anew, that are timed as one


@dataclass(frozen=True)
class Drawn:
    """Calls of one layer, each with another batch and length, or other lengths of its rows where the layer's are ragged. The layer's T and B are the most, least are the least."""

    layer: Case
    least_T: int | None = None
    least_B: int | None = None
    quick: bool = False

    def sizes(self, random: np.random.Generator) -> list[tuple[int, int]]:
        """(T, B) of a block of calls: even over the bounds, one draw from each of as many parts of them, so that blocks are about as much work as one another."""
        draws = []
        for least, most in ((self.least_T, self.layer.T), (self.least_B, self.layer.B)):
            places = (random.permutation(CALLS) + random.random(CALLS)) / CALLS
            draws.append([most] * CALLS if least is None else [int(least + p * (most + 1 - least)) for p in places])
        return list(zip(*draws))

    def __str__(self) -> str:
        T, B = (f"{most}" if least is None else f"{least} to {most}" for least, most in ((self.least_T, self.layer.T), (self.least_B, self.layer.B)))
        return f"{self.layer.layer} T={T} B={B}" + (", rows of lengths drawn" if self.layer.ragged else "")


DRAWN = [
    Drawn(_square("lstm", 64, T=400), least_T=10, quick=True),
    Drawn(_square("lstm", 256, T=100), least_T=5),
    Drawn(_square("lstm", 256, T=50, B=32), least_B=1),
    Drawn(_square("gru", 128, T=100, B=16), least_T=5, least_B=1),
    Drawn(_square("lstm", 128, T=100, B=32, ragged=True)),
]
OPENED = [Case("lstm", 40, 64, carried=True, quick=True), Case("gru", 32, 128, carried=True)]  # streams, one after the other
LIVES = (1, 60)  # steps of a stream, drawn between
CROWD = {"capacity": 1024, "open": 512, "leave": 16, "ready": 128}  # streams of a pool: how many are open, come and go between two steps, and step
LENGTHS = [_square(kind, 128, T=100, B=32) for kind in ("rnn", "lstm", "gru")]  # what the option costs


@dataclass(frozen=True)
class ModelCase:
    """An .onnx file among the shared models, and how it is called."""

    name: str
    file: str
    states: dict | None = None
    constants: dict | None = None
    sizes: dict | None = None
    quick: bool = False
    batch: int = 1

    @property
    def path(self) -> Path:
        """Where it lies."""
        return SHARED / self.file

    def __str__(self) -> str:
        return self.name


def _halves(output: str) -> dict:
    """The four states of half of dtln, slices of one output."""
    return {name: (output, k) for k, name in enumerate(("h1_in", "c1_in", "h2_in", "c2_in"))}


_SILERO = ModelCase(
    "silero frame, sr fixed", "silero-vad/silero_vad_16k_op15.onnx", {"state": "stateN"}, {"sr": np.array(16_000)}, {"sequence": 576}, quick=True
)
MODELS = [
    _SILERO,
    replace(_SILERO, name="silero frame, sr an input", constants=None, quick=False),
    ModelCase("dtln p1 frame", "dtln-pytorch/model_p1.onnx", _halves("out_state1")),
    ModelCase("dtln p2 frame", "dtln-pytorch/model_p2.onnx", _halves("out_state2")),
    ModelCase("dtln keras frame", "dtln/model_1.onnx", {"input_3": "tf_op_layer_stack_2"}),
    ModelCase("gtcrn frame", "gtcrn/gtcrn_simple.onnx", {name: f"{name}_out" for name in ("conv_cache", "tra_cache", "inter_cache")}, quick=True),
    ModelCase("cmapss T=30", "cmapss-lstm/lstm_model.onnx"),
    ModelCase("pose T=100", "pose-gru/gru_model.onnx", sizes={"sequence_length": 100}),
    ModelCase("sentence splitter T=200", "tract-bidi-lstm/model.onnx", sizes={"length": 200}),
]
CONVOLUTIONS = [
    ModelCase("speech quality, 900 frames", "speechmos/Run_1663829550_Stage_0.onnx", sizes={"frames": 900}),
    ModelCase("speech quality, 100 frames", "speechmos/Run_1663829550_Stage_0.onnx", sizes={"frames": 100}, quick=True),
    ModelCase("text line 32 x 320", "ppocr/ch_PP-OCRv2_rec_infer.onnx", sizes={"x_dim_2": 32, "x_dim_3": 320}),
    ModelCase("text line 32 x 100", "ppocr/ch_PP-OCRv2_rec_infer.onnx", sizes={"x_dim_2": 32, "x_dim_3": 100}),
    ModelCase("text lines 32 x 320, 4 of them", "ppocr/ch_PP-OCRv2_rec_infer.onnx", sizes={"x_dim_2": 32, "x_dim_3": 320}, batch=4),
]
