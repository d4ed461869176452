"""Recurrent layers in the configurations of OpenVINO's own tests, with weights that are inputs or computed: LSTMSequence, GRUSequence, RNNSequence and their cells, which in ONNX
are sequences of one step. The sizes, activations, clips and lengths are those of src/plugins/intel_cpu/tests/functional in github.com/openvinotoolkit/openvino."""

from __future__ import annotations

import functools
import itertools
import random
from dataclasses import dataclass

import numpy as np
import onnx
import openvino
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

import fastrnn as fr
from fastrnn.kernels.reference import evaluate

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
ACTIVATIONS = {
    "LSTM": [("Relu", "Sigmoid", "Tanh"), ("Sigmoid", "Tanh", "Tanh"), ("Tanh", "Relu", "Sigmoid"), ("Sigmoid",) * 3, ("Tanh",) * 3, ("Relu",) * 3],
    "GRU": [("Relu", "Tanh"), ("Tanh", "Sigmoid"), ("Sigmoid", "Tanh"), ("Tanh", "Relu")],
    "RNN": [("Relu",), ("Sigmoid",), ("Tanh",)],
}
DEFAULTS = {"LSTM": ("Sigmoid", "Tanh", "Tanh"), "GRU": ("Sigmoid", "Tanh"), "RNN": ("Tanh",)}
DIRECTIONS = ("forward", "reverse", "bidirectional")
LENGTHS = ("none", "longest", "constant", "input")  # given as constants but for the last
SOURCES = ("constant", "input", "computed")
MANY = 40  # of each of six kinds of layers: 240
# Of an output's largest entry: float32 sums of at most 41 terms over 20 steps, where Relu may double what rounding has left at each.
TOLERANCE = 2e-5


@dataclass(frozen=True)
class Configuration:
    """sources: of W, R and B, among SOURCES. clip: 0 for none."""

    op: str
    T: int
    B: int
    I: int
    H: int
    activations: tuple[str, ...]
    clip: float
    direction: str
    lengths: str
    sources: tuple[str, str, str]
    linear_before_reset: int = 0

    def __str__(self):
        sizes = "x".join(map(str, (self.T, self.B, self.I, self.H)))
        return "-".join(
            (self.op, sizes, *self.activations, f"clip{self.clip:g}", self.direction, self.lengths, *self.sources, str(self.linear_before_reset))
        )

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of what the layer takes, by name."""
        D, G, H = 2 if self.direction == "bidirectional" else 1, GATES[self.op], self.H
        shapes = {"x": (self.T, self.B, self.I), "w": (D, G * H, self.I), "r": (D, G * H, H), "b": (D, 2 * G * H), "h0": (D, self.B, H)}
        return shapes | ({"c0": (D, self.B, H)} if self.op == "LSTM" else {})

    def arrays(self) -> dict[str, np.ndarray]:
        """Drawn; weights of a network's size, so that no activation is lost in saturation."""
        r = np.random.default_rng(0)
        arrays = {name: r.standard_normal(shape).astype("f4") for name, shape in self.shapes.items()}
        arrays |= {name: arrays[name] / np.float32(np.sqrt(arrays[name].shape[-1] + 1)) for name in "wr"}
        return arrays | {"lengths": r.integers(1, self.T + 1, self.B).astype("i4") if self.lengths != "longest" else np.full(self.B, self.T, "i4")}

    def model(self, arrays, sources) -> onnx.ModelProto:
        """The layer alone, with all its outputs. What is computed is half of itself twice over."""
        values, stored, nodes, names = [], [], [], {}
        given = dict(zip("wrb", sources)) | {"lengths": {"none": "", "input": "input"}.get(self.lengths, "constant")}
        for name, array in arrays.items():
            source = given.get(name, "input")
            names[name] = name if source else ""
            if source == "constant":
                stored.append(numpy_helper.from_array(array, name))
            elif source:
                names[name] = f"{name}.made" if source == "computed" else name
                nodes += [helper.make_node("Add", [name, name], [names[name]])] if source == "computed" else []
                values.append(helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape))
        attributes = {
            "hidden_size": self.H,
            "direction": self.direction,
            "activations": self.activations * (2 if self.direction == "bidirectional" else 1),
        }
        attributes |= ({"clip": self.clip} if self.clip else {}) | ({"linear_before_reset": self.linear_before_reset} if self.op == "GRU" else {})
        outputs = ["y", "hn", "cn"][: 3 if self.op == "LSTM" else 2]
        nodes.append(
            helper.make_node(self.op, [names[n] for n in ("x", "w", "r", "b", "lengths", "h0", "c0") if n in names], outputs, "layer", **attributes)
        )
        last = self.shapes["h0"]
        ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, (self.T, *last) if n == "y" else last) for n in outputs]
        return helper.make_model(helper.make_graph(nodes, "g", values, ends, stored), opset_imports=[helper.make_opsetid("", 17)], ir_version=8)

    def feed(self, arrays, sources) -> dict[str, np.ndarray]:
        """The inputs of that model."""
        halves = {
            name: array / np.float32(2) if source == "computed" else array for (name, array), source in zip(((n, arrays[n]) for n in "wrb"), sources)
        }
        kept = (
            {n for n, source in zip("wrb", sources) if source != "constant"} | {"x", "h0", "c0"} | ({"lengths"} if self.lengths == "input" else set())
        )
        return {name: array for name, array in (arrays | halves).items() if name in kept}


def _sequences(op: str, steps, batches, inputs, linear=(0,)):
    given = [s for s in itertools.product(("input", "computed"), repeat=3) if len(set(s)) == 1]
    for (T, clip), B, I, H, a, direction, lengths, l, s in itertools.product(
        steps, batches, inputs, (1, 10), ACTIVATIONS[op], DIRECTIONS, LENGTHS, linear, given
    ):
        yield Configuration(op, T, B, I, H, a, clip, direction, lengths, s, l)


def _cells(op: str, batches, linear=(0,)):
    given = [s for s in itertools.product(("constant", "input"), repeat=3) if "input" in s]
    for B, I, H, a, clip, l, s in itertools.product(batches, (1, 30), (1, 10), ACTIVATIONS[op], (0, 0.7), linear, given):
        yield Configuration(op, 1, B, I, H, a, clip, "forward", "none", s, l)


def configurations() -> list[list[Configuration]]:
    """All of them, by kind of layer."""
    short = ((2, 0), (20, 0.7))  # clips, where there are many steps
    kinds = [
        _sequences("LSTM", short, (10,), (10,)),
        _sequences("GRU", short, (10,), (1, 10), (1, 0)),
        _sequences("RNN", ((10, 0), (20, 0.7)), (1, 10), (10,)),
        _cells("LSTM", (5,)),
        _cells("GRU", (5,), (1, 0)),
        _cells("RNN", (1, 5)),
    ]
    return [list(kind) for kind in kinds]


CHOSEN = [c for kind in configurations() for c in random.Random(0).sample(kind, MANY)]


@functools.cache
def _core():
    core = openvino.Core()
    core.set_property("CPU", {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"})
    return core


def others(c: Configuration, proto: onnx.ModelProto, feed) -> dict[str, list[np.ndarray | None]]:
    """What other engines give, those that have the configuration; None for an output that they compute in another way."""
    results = {}
    if c.activations == DEFAULTS[c.op] and not c.clip and c.lengths in ("none", "longest"):  # which is all that onnx's reference looks at
        results["onnx"] = ReferenceEvaluator(proto).run(None, feed)
    compiled = _core().compile_model(_core().read_model(proto.SerializeToString()), "CPU")
    given = compiled(feed)
    results["openvino"] = [given[name] for name in ("y", "hn", "cn")[: len(proto.graph.output)]]
    if (
        c.op == "LSTM" and c.clip
    ):  # where it leaves out the clip of the cell state on its way to the output: after one step that state alone is the same
        results["openvino"] = [None, None, results["openvino"][2] if c.T == 1 else None]
    return results


def check(c: Configuration) -> None:
    """Compiled, the bits of the same weights as constants, and what the float64 reference and other engines give."""
    arrays = c.arrays()
    proto, feed = c.model(arrays, c.sources), c.feed(arrays, c.sources)
    session = fr.compile(fr.from_onnx(proto))
    got = session.run(feed)
    assert "NumPy" not in session.explain({name: a.shape for name, a in feed.items()})
    stored = c.model(arrays, ("constant",) * 3)
    for name, want in fr.compile(fr.from_onnx(stored)).run(c.feed(arrays, ("constant",) * 3)).items():
        assert np.array_equal(got[name], want), name
    results = {"reference": list(evaluate(fr.from_onnx(proto), feed).values())} | others(c, proto, feed)
    for engine, wanted in results.items():
        for name, want in zip(got, wanted, strict=True):
            if want is None:
                continue
            assert got[name].shape == want.shape, (engine, name)
            error = np.abs(got[name] - want).max(initial=0) / max(1, np.abs(want).max(initial=0))
            assert error <= TOLERANCE, (engine, name, error)


@pytest.mark.parametrize("configuration", CHOSEN, ids=str)
def test_weights_that_are_inputs_or_computed(configuration):
    check(configuration)


@pytest.mark.slow
def test_every_configuration():
    every = list(itertools.chain(*configurations()))
    for c in every:
        check(c)
    print(f"{len(every)} configurations")


@pytest.mark.parametrize("clip,error", [(-1.0, fr.InvalidModelError), (float("-inf"), fr.InvalidModelError), (float("nan"), fr.InvalidModelError)])
def test_clips_that_bound_nothing_are_refused(clip, error):
    """OpenVINO takes these for none, as it does infinity."""
    c = Configuration("GRU", 2, 10, 1, 1, ("Sigmoid", "Tanh"), clip, "forward", "none", ("constant",) * 3, 1)
    with pytest.raises(error, match="'layer'.*clip"):
        fr.from_onnx(c.model(c.arrays(), c.sources))
