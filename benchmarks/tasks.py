"""What trained networks are for, with a figure of how well they do it: for small weights, whose price is not an error of entries but an answer that changes."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import cases
import numpy as np

import fastrnn as fr
from fastrnn.cli.audio import read_wav
from fastrnn.cli.running import frames_of
from fastrnn.model import Model, Node, Value
from fastrnn.model.stack import stack_model

EXAMPLES = Path(__file__).parents[1] / "examples"
RECORDING = cases.SHARED / "gtcrn/mix.wav"
FRAME, HOP = 512, 256  # of gtcrn's transform
WINDOW = np.sqrt(np.hanning(FRAME + 1)[:FRAME])
EPOCHS = 60  # that the music model learns


@dataclass(frozen=True)
class Task:
    """answers: what a session gives over the task's data. figure: of answers and float32's. call: what is timed. data: files without which there is no task."""

    name: str
    unit: str
    data: tuple[Path, ...]
    model: Callable[[], Model]
    answers: Callable[[fr.Session], np.ndarray]
    figure: Callable[[np.ndarray, np.ndarray], float | tuple[float, ...]]
    call: Callable[[fr.Session], Callable[[], object]]
    quick: bool = False

    def __str__(self) -> str:
        return self.name


def bound(case: cases.ModelCase) -> Model:
    """A model of the benchmarks, its states tied and inputs fixed."""
    from fastrnn.runtime.session import bound as tied

    return tied(fr.load(case.path), case.states, case.constants)


def steps(session: fr.Session, x: np.ndarray) -> Callable[[], object]:
    """A step of a stream."""
    return partial(session.stream().step, x)


STARTS = range(0, 512, 32)  # a recording may begin anywhere in a frame


def voice(start: int = 0) -> np.ndarray:
    """silero's frames of the recording (n, 1, 576), cut from a sample on."""
    return frames_of(read_wav(RECORDING)[0][start:], 512, 64)[:, None]


def probabilities(session) -> np.ndarray:
    """silero's, of as many frames of the recording cut at each of STARTS."""
    fewest = min(len(voice(start)) for start in STARTS)
    return np.stack([session.stream().push(voice(start))[:fewest, 0, 0] for start in STARTS])


def spectra() -> np.ndarray:
    """gtcrn's frames of the recording (n, 1, 257, 1, 2): the ends mirrored, square roots of Hann windows."""
    samples = np.pad(read_wav(RECORDING)[0], HOP, mode="reflect")
    bins = np.fft.rfft(np.lib.stride_tricks.sliding_window_view(samples, FRAME)[::HOP] * WINDOW)
    return np.stack([bins.real, bins.imag], -1).astype(np.float32)[:, None, :, None]


def audio(frames: np.ndarray) -> np.ndarray:
    """Samples of spectra (n, 257, 2), overlapping halves added."""
    parts = np.fft.irfft(frames[..., 0] + 1j * frames[..., 1]) * WINDOW
    halves = np.zeros((len(parts) + 1, HOP))
    halves[:-1] += parts[:, :HOP]
    halves[1:] += parts[:, HOP:]
    return halves[1:-1].ravel()


def differences(got: np.ndarray, wanted: np.ndarray) -> tuple[float, float]:
    """Root of the mean square over rows, and the geometric mean of each row's largest: that of one row is a draw. (Of silero's 16, int8's is 0.86 to 1.38 of its floor's.)"""
    apart = np.abs(got.astype(np.float64) - wanted)
    return float(np.sqrt((apart**2).mean())), float(np.exp(np.log(np.maximum(apart.max(axis=-1), 1e-300)).mean()))


def decibels(got: np.ndarray, wanted: np.ndarray) -> float:
    """Signal to difference."""
    return float(10 * np.log10((wanted**2).sum() / ((got - wanted) ** 2).sum()))


def g2pm() -> Model:
    """Tokens (T, B), lengths (B,) and which row of the T B is asked about (B,) -> logits (B, 876)."""
    state = dict(np.load(cases.SHARED / "g2pm/state_dict.npz"))
    layer = fr.from_state_dict(state)["lstm"]
    stack = stack_model(layer.options, layer.state_dict(), "g2pm", with_lengths=True)
    dense = {name: state[f"logit_layer.{name}"] for name in ("0.weight", "0.bias", "2.weight", "2.bias")}
    nodes = (
        Node("Gather", "embedding", ("embedding.weight", "tokens"), ("x",)),
        *stack.nodes,
        Node("Reshape", "rows", ("y", "flat"), ("all",)),
        Node("Gather", "asked", ("all", "row"), ("one",)),
        Node("Gemm", "hidden", ("one", "0.weight", "0.bias"), ("hidden",), {"transB": 1}),
        Node("Relu", "relu", ("hidden",), ("positive",)),
        Node("Gemm", "logits", ("positive", "2.weight", "2.bias"), ("logits",), {"transB": 1}),
    )
    others = (replace(v, optional=v.name != "lengths") for v in stack.inputs if v.name != "x")
    return Model(
        (Value("tokens", "int64", ("T", "B")), *others, Value("row", "int64", ("B",))),
        ("logits",),
        nodes,
        {**stack.weights, **dense, "embedding.weight": state["embedding.weight"], "flat": np.array([-1, 64])},
        name="g2pm",
    )


def sentences(rows: int = 512) -> list[dict[str, np.ndarray]]:
    """Batches of g2pm's 10,254, ready to run, with their labels."""
    data, batches = np.load(cases.SHARED / "g2pm/test.npz"), []
    for start in range(0, len(data["tokens"]), rows):
        tokens, lengths, target, label = (data[name][start : start + rows].astype(np.int64) for name in ("tokens", "lengths", "target", "label"))
        batches.append(
            {"tokens": np.ascontiguousarray(tokens.T), "lengths": lengths, "row": target * len(target) + np.arange(len(target)), "label": label}
        )
    return batches


def right(session: fr.Session) -> np.ndarray:
    """Which of g2pm's answers are right (10,254,)."""
    return np.concatenate(
        [session.run({k: a for k, a in batch.items() if k != "label"})["logits"].argmax(1) == batch["label"] for batch in sentences()]
    )


def text() -> np.ndarray:
    """50,000 characters that the character model has not read, as tokens (n, 1)."""
    sys.path.insert(0, str(EXAMPLES / "characters"))
    from text import encode, library_sources

    return encode(next(path for path in library_sources() if path.name == "contextlib.py").read_text(encoding="utf-8"))[:50_000, None]


def bits(session: fr.Session) -> np.ndarray:
    """Of each character but the first, by what stands before it."""
    tokens = text()
    logits = session.stream().push(tokens[:-1])[:, 0].astype(np.float64)
    logits -= logits.max(1, keepdims=True)
    return (np.log(np.exp(logits).sum(1)) - logits[np.arange(len(logits)), tokens[1:, 0]]) / np.log(2)


def chorales(part: str) -> list[np.ndarray]:
    """JSB's piano rolls, each (T, 88)."""
    sys.path.insert(0, str(EXAMPLES / "music"))
    from rolls import read

    return read("jsb_chorales", cases.SHARED.parent / "data")[part]


def music() -> Model:
    """The GRU of examples/music, which learns for some seconds."""
    import fastrnn.training as tr

    net = tr.Sequential(tr.GRU(88, 46, reset_after=False), tr.Linear(46, 88), seed=0)
    train, valid = (
        tr.Sequences([roll[:-1] for roll in chorales(part)], [roll[1:] for roll in chorales(part)], bucket=True) for part in ("train", "valid")
    )
    tr.fit(
        net,
        partial(tr.binary_cross_entropy, over="steps"),
        train,
        valid,
        optimiser=tr.Adam(net, lr=4e-3),
        epochs=EPOCHS,
        clip_norm=1.0,
        seed=0,
        progress=False,
    )
    return net.to_model()


def losses(session: fr.Session) -> np.ndarray:
    """Binary cross-entropy over the keys, of each step that is predicted."""
    name, found = session.model.input_names[0], []
    for roll in chorales("test"):
        logits = session.run({name: np.ascontiguousarray(roll[:-1, None])})[session.model.output_names[0]][:, 0].astype(np.float64)
        found.append((np.logaddexp(0, logits) - logits * roll[1:]).sum(1))
    return np.concatenate(found)


def _mean(got: np.ndarray, _) -> float:
    return float(got.mean())


def _whole(session: fr.Session, inputs: Callable[[], dict]) -> Callable[[], object]:
    return partial(session.run, inputs())


_MODELS = {case.name: case for case in cases.MODELS}
_SILERO, _GTCRN = _MODELS["silero frame, sr fixed"], _MODELS["gtcrn frame"]
TASKS = [
    Task("silero, mix.wav", "difference of a probability, rms / largest", (_SILERO.path, RECORDING), partial(bound, _SILERO), probabilities,
         differences, lambda s: steps(s, voice()[100])),
    Task("gtcrn, mix.wav", "signal to difference, dB", (_GTCRN.path, RECORDING), partial(bound, _GTCRN), lambda s: audio(s.stream().push(spectra())[:, 0, :, 0]),
         decibels, lambda s: steps(s, spectra()[100])),
    Task("g2pm, 10,254 sentences", "right", (cases.SHARED / "g2pm/test.npz",), g2pm, right, lambda got, _: int(got.sum()),
         lambda s: _whole(s, lambda: {k: a for k, a in sentences(32)[0].items() if k != "label"})),
    Task("characters, 50,000 of contextlib.py", "bits a character", (), lambda: replace(fr.load(EXAMPLES / "characters/char_gru.safetensors")), bits, _mean,
         lambda s: steps(s, text()[0]), quick=True),
    Task("music, JSB's test pieces", "loss a step", (cases.SHARED.parent / "data/jsb_chorales.npz",), music, losses, _mean,
         lambda s: _whole(s, lambda: {s.model.input_names[0]: np.ascontiguousarray(chorales("test")[0][:-1, None])})),
]  # fmt: skip
