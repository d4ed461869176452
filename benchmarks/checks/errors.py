"""How far fastrnn and PyTorch are from float64, over the whole networks of the tests and the models in ../shared: the same weights and inputs, in float32.

    python benchmarks/checks/errors.py      # two minutes

Networks of tests/nets run in torch as themselves, in float32 and in float64. Of files the reference is fastrnn's NumPy form in float64, and torch runs the graph op by op.
An error is relative to an output's largest entry; of a network it is the mean square root over outputs, sizes and seeds, and the largest. Writes benchmarks/results/errors.md.
"""

from __future__ import annotations

import argparse
import copy
import platform
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

import fastrnn as fr
from fastrnn.converters.engines import engine_for
from fastrnn.converters.samples import random_inputs
from fastrnn.kernels import isa
from fastrnn.kernels.reference.evaluate import evaluate

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[2] / "tests" / "nets")]
from cases import SHARED
from nets import NETS
from torch.utils import _pytree as pytree

RESULTS = Path(__file__).resolve().parents[1] / "results" / "errors.md"
SEEDS = 4
FILES = {  # sizes of dimensions and values of inputs
    "silero-vad/silero_vad_16k_op15.onnx": ({"sequence": 576}, {"sr": np.array(16_000)}), "dtln/model_1.onnx": ({}, {}), "dtln-pytorch/model_p1.onnx": ({}, {}),
    "dtln-pytorch/model_p2.onnx": ({}, {}), "gtcrn/gtcrn_simple.onnx": ({}, {}), "pose-gru/gru_model.onnx": ({"sequence_length": 60}, {}),
    "tract-bidi-lstm/model.onnx": ({"length": 60}, {}), "cmapss-lstm/lstm_model.onnx": ({}, {}), "earthpulse/lstm_model.onnx": ({}, {}),
    "speechmos/Run_1663829550_Stage_0.onnx": ({"frames": 900}, {}), "ppocr/ch_PP-OCRv2_rec_infer.onnx": ({"x_dim_2": 32, "x_dim_3": 100}, {}),
    "sleepecg/ws-gru-mesa.keras": ({}, {}), "sleepecg/wrn-gru-mesa.keras": ({}, {}), "sleepecg/wrn-gru-mesa-weighted.keras": ({}, {}),
    "tflm-mnist/trained_lstm.tflite": ({}, {}),
}  # fmt: skip


@dataclass
class Errors:
    """Of one network: what each entry is off by, relative to its output's largest, from both sides."""

    ours: list[np.ndarray] = field(default_factory=list)
    theirs: list[np.ndarray] = field(default_factory=list)

    def add(self, exact, ours, theirs) -> None:
        """One output of one call; those that are no floats, or all zero, say nothing."""
        scale = np.abs(exact).max(initial=0) if np.asarray(ours).dtype.kind == "f" else 0
        if scale > 0 and np.isfinite(exact).all():
            self.ours.append(np.abs(ours.astype(np.float64) - exact).ravel() / scale)
            self.theirs.append(np.abs(theirs.astype(np.float64) - exact).ravel() / scale)

    def figures(self) -> tuple[float, float, float, float]:
        """Root of the mean square, ours and theirs, and the largest."""
        ours, theirs = np.concatenate(self.ours), np.concatenate(self.theirs)
        return np.sqrt(np.mean(ours**2)), np.sqrt(np.mean(theirs**2)), ours.max(), theirs.max()


def leaves(tree) -> list[np.ndarray]:
    """The tensors of a result."""
    return [t.numpy() for t in pytree.tree_leaves(tree) if isinstance(t, torch.Tensor)]


def wide(tree):
    """Floats in float64."""
    return pytree.tree_map(lambda t: t.double() if isinstance(t, torch.Tensor) and t.is_floating_point() else t, tree)


def network(name: str) -> Errors:
    """One of tests/nets."""
    net, errors = NETS[name], Errors()
    module = net.module()
    double = copy.deepcopy(module).double()
    session = fr.compile(fr.from_torch(module, tuple(net.draw(*net.example).values())))
    for batch, steps in net.sizes():
        for seed in range(SEEDS):
            inputs = net.draw(batch, steps, seed)
            try:
                ours = session.run(dict(zip(session.model.input_names, leaves(inputs), strict=True))).values()
            except fr.ShapeError:
                continue  # captured for the example's sizes
            with torch.no_grad():
                theirs = leaves(module(**inputs))
                torch.set_default_dtype(torch.float64)
                try:
                    exact = leaves(double(**wide(inputs)))
                finally:
                    torch.set_default_dtype(torch.float32)
            for one in zip(exact, ours, theirs, strict=True):
                errors.add(*one)
    return errors


def file(name: str) -> Errors:
    """One of the shared models."""
    sizes, constants = FILES[name]
    model, errors = fr.load(SHARED / name), Errors()
    session, engine = fr.compile(model), engine_for(SHARED / name, model, "torch")
    for seed in range(SEEDS):
        for batch in (1, 3):
            inputs = random_inputs(model, batch, sizes, constants, np.random.default_rng(seed))
            ours, theirs, exact = session.run(inputs), engine.bind(inputs).run(), evaluate(model, inputs)
            for output, other in zip(model.output_names, theirs, strict=True):
                errors.add(np.asarray(exact[output]), ours[output], np.asarray(other))
    return errors


def all_of_them(only: str) -> Iterator[tuple[str, Errors]]:
    """Each network and what it is off by."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for names, measure in ((sorted(NETS), network), (FILES, file)):
            for name in (n for n in names if only in n):
                try:
                    yield name, measure(name)
                except (fr.FastRNNError, RuntimeError) as error:
                    print(f"left out: {name}: {str(error)[:120]}", file=sys.stderr)


def main() -> int:
    """Measures, prints, writes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="networks whose name has this in it; nothing is written")
    only = parser.parse_args().only
    torch.set_num_threads(1)
    rows, ratios = [], []
    for name, errors in all_of_them(only):
        if not errors.ours:
            continue
        ours, theirs, most, their_most = errors.figures()
        if theirs > 0 and ours > 0:  # what only moves entries is exact on both sides
            rows.append(
                (
                    ours / theirs,
                    f"| {name} | {ours:.2e} | {theirs:.2e} | {ours / theirs:.2f} | {most:.2e} | {their_most:.2e} | {most / their_most:.2f} |",
                )
            )
            ratios.append((ours / theirs, most / their_most))
    mean, largest = np.exp(np.log(ratios).mean(0)), np.max(ratios, 0)
    lines = ["# Float errors of whole networks", "", f"Written by `python benchmarks/checks/errors.py`: {len(rows)} networks, {isa.chosen()} ({platform.machine()}), torch {torch.__version__}. Distance to "
             f"float64, relative to an output's largest entry; the root of its mean square, and the largest, over sizes and {SEEDS} seeds.", "",
             f"**Of torch's, geometric mean: {mean[0]:.2f} (root mean square), {mean[1]:.2f} (largest). Worst: {largest[0]:.2f}, {largest[1]:.2f}.**", "",
             "| network | fastrnn | torch | of torch's | fastrnn, largest | torch, largest | of torch's |", "|---|---|---|---|---|---|---|", *(line for _, line in sorted(rows, reverse=True))]  # fmt: skip
    text = "\n".join(lines) + "\n"
    print(text)
    if not only:
        RESULTS.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
