"""fr.sensitivity: one node at a time, beside float32."""

import numpy as np
import pytest

import fastrnn as fr
from fastrnn.model import Model, Node, Value
from fastrnn.runtime.sensitivity import Cost, Sensitivity

RANDOM = np.random.default_rng(0)
WEIGHTS = {
    name: RANDOM.uniform(-0.1, 0.1, shape).astype(np.float32)
    for name, shape in (("W", (1, 384, 64)), ("R", (1, 384, 128)), ("head", (128, 100)), ("few", (100, 3)))
}


def model(spoiled: float = 1.0) -> Model:
    """A GRU and two dense layers, the second too small for int8; both dense ones are outputs. spoiled: one weight of the first, in a row of small others."""
    weights = {name: a.copy() for name, a in WEIGHTS.items()}
    weights["head"][0, 0] *= spoiled
    nodes = (
        Node("GRU", "gru", ("x", "W", "R"), ("g", "h_n"), {"hidden_size": 128, "linear_before_reset": 1}),
        Node("Squeeze", "squeeze", ("g", "axes"), ("s",), {}),
        Node("MatMul", "head", ("s", "head"), ("y",), {}),
        Node("MatMul", "few", ("y", "few"), ("z",), {}),
    )
    return Model((Value("x", "float32", ("T", "B", 64)),), ("y", "z"), nodes, {**weights, "axes": np.array([1])})


def x(T=9, B=2):
    return np.random.default_rng(1).standard_normal((T, B, 64)).astype(np.float32)


def test_rows_are_what_compiling_one_node_so_gives():
    net, inputs = model(), {"x": x()}
    found, exact = fr.sensitivity(net, inputs), fr.compile(net).run(inputs)
    assert {c.node: (c.op, c.weights, c.bytes_saved) for c in found} == {
        "gru": ("GRU", 73_728, 4 * 73_728 - 73_728 - 2 * 4 * 384),
        "head": ("Gemm", 12_800, 4 * 12_800 - 12_800 - 400),
    }
    assert [c.error for c in found] == sorted((c.error for c in found), reverse=True)
    for cost in found:
        alone = fr.compile(net, precision={cost.node: "int8"}).run(inputs)
        for name, a in exact.items():
            assert cost.errors[name] == pytest.approx(np.abs(alone[name].astype(np.float64) - a).max() / np.abs(a).max(), rel=1e-6)
    together = fr.compile(net, precision="int8").run(inputs)
    assert found.together["z"] == pytest.approx(np.abs(together["z"].astype(np.float64) - exact["z"]).max() / np.abs(exact["z"]).max(), rel=1e-6)


def test_the_node_that_spoils_it_stands_first():
    """One large weight leaves its row's others hardly any of 8 bits."""
    found = fr.sensitivity(model(1000.0), {"x": x()})
    assert found[0].node == "head" and found[0].error > 2 * found[1].error
    kept = fr.sensitivity(model(1000.0), {"x": x()}, {"default": "int8", "head": "float32"})
    assert [c.node for c in kept] == ["gru"]


def test_other_precisions_by_name_and_by_node():
    found = fr.sensitivity(model(), {"x": x()}, "bfloat16")
    assert {c.node for c in found} == {"gru", "head", "few"} and all(c.bytes_saved == 2 * c.weights and c.precision == "bfloat16" for c in found)
    mixed = fr.sensitivity(model(), {"x": x()}, {"default": "int8", "few": "bfloat16"})
    assert {c.node: c.precision for c in mixed} == {"gru": "int8", "head": "int8", "few": "bfloat16"}
    with pytest.raises(fr.UnsupportedModelError, match="float32"):
        fr.sensitivity(model(), {"x": x()}, "float32")
    with pytest.raises(fr.UnsupportedModelError, match="no node 'nothing'"):
        fr.sensitivity(model(), {"x": x()}, {"nothing": "int8"})
    with pytest.raises(fr.ShapeError, match="'x'"):
        fr.sensitivity(model(), {"x": np.zeros((3, 2, 5), np.float32)})


def test_of_layers_and_over_streams():
    layer = fr.LSTM(64, 96, num_layers=2, seed=0)
    whole = fr.sensitivity(layer, {"x": x(20, 3)})
    pushed = fr.sensitivity(layer, {"x": x(20, 3)}, stream_batch=3)
    assert len(whole) == len(pushed) == 2 and {c.node for c in whole} == {c.node for c in pushed}
    assert all(a.errors["y"] == b.errors["y"] for a, b in zip(whole, pushed, strict=True)) and set(pushed[0].errors) == {
        "y"
    }  # states are no outputs of a stream


def test_states_and_constants_as_compile_takes_them():
    nodes = (
        Node("Mul", "scaled", ("x", "gain"), ("v",), {}),
        Node("GRU", "gru", ("v", "W", "R", "", "", "h"), ("y", "after"), {"hidden_size": 128, "linear_before_reset": 1}),
    )
    net = Model(
        (Value("x", "float32", (1, "B", 64)), Value("h", "float32", (1, "B", 128)), Value("gain", "float32", ())),
        ("y", "after"),
        nodes,
        {name: WEIGHTS[name] for name in "WR"},
    )
    frames = x(12)[:, None]
    found = fr.sensitivity(net, {"x": frames}, states={"h": "after"}, constants={"gain": np.float32(0.5)}, stream_batch=2)
    exact, small = (
        fr.compile(net, precision=p, states={"h": "after"}, constants={"gain": np.float32(0.5)}).stream(2).push(frames) for p in ("float32", "int8")
    )
    assert [c.node for c in found] == ["gru"] and found[0].errors == pytest.approx({"y": np.abs(small - exact).max() / np.abs(exact).max()}, rel=1e-6)


def test_texts():
    found = fr.sensitivity(model(), {"x": x()})
    lines = repr(found).splitlines()
    assert (
        lines[0].split() == ["op", "node", "precision", "weights", "bytes", "saved", "error", "y", "z"]
        and len(lines) == 4
        and "all of them" in lines[-1]
        and "86,528" in lines[-1]
    )
    assert len({len(line) for line in lines}) == 1 and "<pre>" in found._repr_html_() and "together" in found._repr_html_()
    none = fr.sensitivity(fr.GRU(3, 4, seed=0), {"x": np.zeros((2, 1, 3), np.float32)})
    assert len(none) == 0 and "reaches no node" in repr(none) and "reaches no node" in none._repr_html_()
    nan = Cost("Gemm", "n", "int8", 1, 3, {"a": 0.5, "b": np.nan})
    assert np.isnan(nan.error) and "nan" in repr(Sensitivity((nan,), {"a": 0.5, "b": np.nan}))


def test_progress_is_shown_where_asked_for(capsys):
    fr.sensitivity(model(), {"x": x()}, progress=True)
    assert "head" in (err := capsys.readouterr().err) or "sensitivity" in err
    fr.sensitivity(model(), {"x": x()})
    assert not capsys.readouterr().err
