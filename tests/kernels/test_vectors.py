"""Vectors that others computed, driven straight into the layers: ONNX's node cases, ONNX Runtime's, onnx2c's."""

import functools
import json
import warnings

import numpy as np
import pytest

import fastrnn as fr
from fastrnn.cells.activations import with_parameters
from fastrnn.cells.builtin import DEFAULT_ACTIVATIONS
from fastrnn.cells.gate_order import permute, permute_peepholes
from fastrnn.testing import LAYERS

INPUTS = ("X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P")


def run_node(op, attributes, given):
    """Y, Y_h, Y_c of an ONNX recurrent node, through a layer. given: arrays by INPUTS name."""
    kind, x, w = op.lower(), given["X"], given["W"]
    H, I, directions = given["R"].shape[2], w.shape[2], w.shape[0]
    layout, direction = attributes.get("layout", 0), attributes.get("direction", "forward")
    options = {"batch_first": layout == 1, "bidirectional": direction == "bidirectional", "reverse": direction == "reverse", "bias": "B" in given}
    if "clip" in attributes:
        options["clip"] = attributes["clip"]
    if "activations" in attributes:
        parsed = with_parameters(attributes["activations"], attributes.get("activation_alpha", ()), attributes.get("activation_beta", ()))
        n = len(DEFAULT_ACTIVATIONS[kind])
        options["activations"] = tuple(parsed[:n]) if directions == 1 else (tuple(parsed[:n]), tuple(parsed[n:]))
    if kind == "gru":
        options["reset_after"] = bool(attributes.get("linear_before_reset", 0))
    if kind == "lstm":
        options |= {"input_forget": bool(attributes.get("input_forget", 0)), "peepholes": "P" in given}
    layer, parameters = LAYERS[kind](I, H, **options), {}
    for d, suffix in enumerate(("l0", "l0_reverse")[:directions]):
        parameters |= {
            f"weight_ih_{suffix}": permute(w[d], kind, "onnx", "torch"),
            f"weight_hh_{suffix}": permute(given["R"][d], kind, "onnx", "torch"),
        }
        if "B" in given:
            over_x, over_h = np.split(given["B"][d], 2)
            parameters |= {f"bias_ih_{suffix}": permute(over_x, kind, "onnx", "torch"), f"bias_hh_{suffix}": permute(over_h, kind, "onnx", "torch")}
        if "P" in given:
            peepholes = np.split(permute_peepholes(given["P"][d], "onnx", "torch"), 3)
            parameters |= {f"weight_p{gate}_{suffix}": p for gate, p in zip("ifo", peepholes)}
    layer.load_state_dict(parameters)
    B, shape = x.shape[0 if layout else 1], (directions, x.shape[0 if layout else 1], H)
    states = [given.get(name) for name in ("initial_h", "initial_c")[: 2 if kind == "lstm" else 1]]
    states = [np.zeros(shape, np.float32) if s is None else np.ascontiguousarray(s.swapaxes(0, 1) if layout else s) for s in states]
    y, final = layer(x, tuple(states) if kind == "lstm" else states[0], given.get("sequence_lens"))
    T = x.shape[1 if layout else 0]
    y = y.reshape(B, T, directions, H) if layout else y.reshape(T, B, directions, H).transpose(0, 2, 1, 3)
    final = final if isinstance(final, tuple) else (final,)
    return [y, *(s.swapaxes(0, 1) if layout else s for s in final)]


@functools.cache
def node_cases():
    """(name, node, (inputs, outputs)) of the onnx package's RNN, LSTM and GRU cases; collecting makes all ops' cases once."""
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # other ops' cases divide by zero on purpose
        everything = collect_testcases(None)
    return [(c.name, c.model.graph.node[0], c.data_sets[0]) for c in everything if c.model.graph.node[0].op_type in ("RNN", "LSTM", "GRU")]


def attributes_of(onnx, node):
    """A node's attributes as Python values."""
    values = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    return {k: v.decode() if isinstance(v, bytes) else [s.decode() for s in v] if k == "activations" else v for k, v in values.items()}


def test_all_node_cases_of_onnx(each_backend):
    onnx = pytest.importorskip("onnx")
    cases = node_cases()
    assert len(cases) == 18
    for name, node, (inputs, outputs) in cases:
        attributes = attributes_of(onnx, node)
        names = [INPUTS[k] for k, value in enumerate(node.input) if value]
        got = run_node(node.op_type, attributes, dict(zip(names, inputs, strict=True)))
        wanted = [k for k, value in enumerate(node.output) if value]
        for k, expected in zip(wanted, outputs, strict=True):
            assert got[k].shape == expected.shape, name
            np.testing.assert_allclose(got[k], expected, rtol=1e-5, atol=1e-6, err_msg=name)


def test_all_vectors_of_onnxruntime(shared, each_backend):
    cases = json.loads((shared / "vectors/ort_rnn_vectors.json").read_text(encoding="utf-8"))["cases"]
    assert len(cases) == 63

    def array(entry, dtype=np.float32):
        return np.array(entry["data"], dtype).reshape(entry["shape"])

    for case in cases:
        given = {k: array(v, np.int32 if k == "sequence_lens" else np.float32) for k, v in case["inputs"].items()}
        got = dict(zip(("Y", "Y_h", "Y_c"), run_node(case["op"], case["attrs"], given)))
        for key, entry in case["outputs"].items():
            expected = array(entry)
            close = np.isclose(got[key].reshape(expected.shape), expected, rtol=0, atol=case["suggested_atol"])
            # the two cases marked known_bad print one wrong number each
            assert (~close).sum() <= (1 if case.get("known_bad") else 0), f"{case['name']} {key}"


def test_all_vectors_of_onnx2c(shared):
    onnx = pytest.importorskip("onnx")
    folders = sorted((shared / "vectors/onnx2c-lstm").glob("test_*"))
    assert len(folders) == 11
    for folder in folders:
        graph = onnx.load(folder / "model.onnx").graph
        node = next(n for n in graph.node if n.op_type == "LSTM")
        attributes = attributes_of(onnx, node)

        def tensor(path):
            return onnx.numpy_helper.to_array(onnx.load_tensor(str(path)))

        known = {t.name: onnx.numpy_helper.to_array(t) for t in graph.initializer}
        known |= {v.name: tensor(folder / f"test_data_set_0/input_{k}.pb") for k, v in enumerate(v for v in graph.input if v.name not in known)}
        got = run_node("LSTM", attributes, {INPUTS[k]: known[name] for k, name in enumerate(node.input) if name})
        results = {name: got[k] for k, name in enumerate(node.output) if name}
        for k, value in enumerate(graph.output):
            expected = tensor(folder / f"test_data_set_0/output_{k}.pb")
            np.testing.assert_allclose(results[value.name].reshape(expected.shape), expected, rtol=1e-5, atol=1e-6, err_msg=folder.name)


def test_wrong_weights_are_refused_by_name():
    """Weights that do not match hidden_size have been read past their end by other engines."""
    lstm = fr.LSTM(3, 4)
    state = lstm.state_dict()
    with pytest.raises(fr.ShapeError, match=r"weight_hh_l0 must have shape \(16, 4\), got \(16, 5\)"):
        lstm.load_state_dict({**state, "weight_hh_l0": np.zeros((16, 5), np.float32)})
    with pytest.raises(fr.ShapeError, match="transposed"):
        lstm.load_state_dict({**state, "weight_ih_l0": np.zeros((3, 16), np.float32)})
    assert all(np.array_equal(state[name], array) for name, array in lstm.state_dict().items())
