"""Real ONNX models beside ONNX Runtime, one thread: medians and p99 from one interleaved run.

    python benchmarks/bench_models.py             # a minute; writes benchmarks/results/models.md

Reads the folder of shared models (FASTRNN_SHARED, or ../shared). A streamed model runs a step, its states carried; others a whole call.
Both engines get the same inputs, and results are compared before anything is timed.
"""

from __future__ import annotations

import os
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
from bench_recurrent import ROUNDS, interleave
from fastrnn.converters.verify import TOLERANCE, onnxruntime_engine, random_inputs

import fastrnn as fr
from fastrnn.cli.info import cpu_name
from fastrnn.kernels import isa

SHARED = Path(os.environ.get("FASTRNN_SHARED") or Path(__file__).parents[2] / "shared") / "models"
RESULTS = Path(__file__).parent / "results" / "models.md"


def halves(output: str) -> dict:
    """The four states of half of dtln, slices of one output."""
    return {name: (output, k) for k, name in enumerate(("h1_in", "c1_in", "h2_in", "c2_in"))}


# name: file, states, constants, sizes of symbolic dimensions
MODELS = {
    "silero frame, sr fixed": ("silero-vad/silero_vad_16k_op15.onnx", {"state": "stateN"}, {"sr": np.array(16_000)}, {"sequence": 576}),
    "silero frame, sr an input": ("silero-vad/silero_vad_16k_op15.onnx", {"state": "stateN"}, {}, {"sequence": 576}),
    "dtln p1 frame": ("dtln-pytorch/model_p1.onnx", halves("out_state1"), {}, {}),
    "dtln p2 frame": ("dtln-pytorch/model_p2.onnx", halves("out_state2"), {}, {}),
    "dtln keras frame": ("dtln/model_1.onnx", {"input_3": "tf_op_layer_stack_2"}, {}, {}),
    "gtcrn frame": ("gtcrn/gtcrn_simple.onnx", {name: f"{name}_out" for name in ("conv_cache", "tra_cache", "inter_cache")}, {}, {}),
    "cmapss T=30": ("cmapss-lstm/lstm_model.onnx", {}, {}, {}),
    "pose T=100": ("pose-gru/gru_model.onnx", {}, {}, {"sequence_length": 100}),
    "sentence splitter T=200": ("tract-bidi-lstm/model.onnx", {}, {}, {"length": 200}),
}


def contenders(file: str, states, constants, sizes) -> dict:
    """A call or a step of each engine, ready to be repeated; raises where their results differ."""
    model = fr.from_onnx(SHARED / file)
    session, other = fr.compile(model, states=states or None, constants=constants or None), onnxruntime_engine(SHARED / file, model)
    inputs = random_inputs(session.model, 1, sizes, {}, np.random.default_rng(0))
    carried = {s.input: np.zeros_like(inputs[s.input]) for s in session.model.states}
    step = {name: a for name, a in inputs.items() if name not in carried}

    def theirs():
        outputs = other({**step, **constants, **carried})
        for state in session.model.states:
            carried[state.input] = state.part(outputs[state.output], carried[state.input].ndim)
        return outputs[model.output_names[0]]

    if states:
        stream = session.stream()
        given = step if len(step) > 1 else next(iter(step.values()))
        mine = lambda: stream.step(given)
    else:
        mine = lambda: session(*step.values())
    for _ in range(20):
        got, want = mine(), theirs()
    if np.abs(got - want).max() > TOLERANCE * np.abs(want).max():
        raise SystemExit(f"{file}: results differ by {np.abs(got - want).max():.1e}")
    return {"fastrnn": mine, "onnxruntime": theirs}


def main() -> None:
    """Runs everything and writes the table."""
    about = (f"{cpu_name()}, ISA {isa.chosen()}; fastrnn {version('fastrnn')}, onnxruntime {version('onnxruntime')}, numpy {version('numpy')}. Microseconds a call from "
             f"Python, median of {ROUNDS} interleaved rounds (p99 in brackets). A ratio above 1 means that fastrnn is faster.")
    lines = ["# Real models, batch 1, one thread", "", about, "", "| work | fastrnn | onnxruntime | onnxruntime / fastrnn |", "|---|---|---|---|"]
    for name, case in MODELS.items():
        times = interleave(contenders(*case))
        cells = [f"{np.median(times[e]):.4g} ({np.percentile(times[e], 99):.4g})" for e in ("fastrnn", "onnxruntime")]
        lines.append(f"| {name} | {' | '.join(cells)} | {np.median(times['onnxruntime']) / np.median(times['fastrnn']):.2f} |")
        print(lines[-1], file=sys.stderr, flush=True)
    RESULTS.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
