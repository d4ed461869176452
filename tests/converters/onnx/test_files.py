"""What ONNX files may look like: order, names, external data. Damaged ones are in tests/damage."""

import time
import warnings

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx_graphs import build, value

import fastrnn as fr


def test_nodes_out_of_order_unused_domains_and_weights_that_are_inputs():
    nodes = [helper.make_node("Relu", ["a"], ["y"]), helper.make_node("Add", ["x", "w"], ["a"])]
    model = build(nodes, [value("x", "B", 3), value("w", 3)], weights={"w": np.ones(3, np.float32)})
    model.opset_import.append(helper.make_opsetid("ai.onnx.ml", 2))
    imported = fr.from_onnx(model.SerializeToString())
    assert imported.input_names == ("x",) and [n.op for n in imported.nodes] == ["Add", "Relu"]
    assert fr.compile(imported)(np.float32([[-2, 0, 1]])).tolist() == [[0, 1, 2]]


@pytest.mark.parametrize("name", [b"first node", b"hidden"])
def test_names_that_are_no_text_are_refused(name):
    """Bytes that are no UTF-8, in a node's name or a value's: such a model could neither be explained nor saved."""
    whole = build([helper.make_node("Relu", ["x"], ["hidden"], "first node"), helper.make_node("Neg", ["hidden"], ["y"])]).SerializeToString()
    fr.from_onnx(whole)
    with pytest.raises(fr.InvalidModelError, match="text"):
        fr.from_onnx(whole.replace(name, b"\xff" + name[1:]))


def external(tmp_path, location, **entries):
    """A model whose weight lies in another file."""
    model = build([helper.make_node("Add", ["x", "w"], ["y"])], weights={"w": np.arange(3, dtype=np.float32)})
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, entry in {"location": location, **entries}.items():
        tensor.external_data.add(key=key, value=str(entry))
    path = tmp_path / "inside" / "m.onnx"
    path.parent.mkdir(exist_ok=True)
    onnx.save(model, path)
    return path


def test_external_data_is_read_from_beside_a_path(tmp_path):
    path = external(tmp_path, "w.bin", offset=4, length=12)
    (path.parent / "w.bin").write_bytes(b"\0\0\0\0" + np.float32([1, 2, 3]).tobytes())
    assert fr.compile(fr.load(path))(np.zeros((1, 3), np.float32)).tolist() == [[1, 2, 3]]
    with pytest.raises(fr.UnsupportedModelError, match="external_data"):
        fr.from_onnx(path, external_data=False)
    with pytest.raises(fr.UnsupportedModelError, match="path"):
        fr.from_onnx(path.read_bytes())


def test_thousands_of_nodes_of_one_name_take_no_longer():
    nodes = [helper.make_node("Relu", ["x" if k == 0 else f"v{k}"], [f"v{k + 1}"], "same") for k in range(4_000)]
    started = time.process_time()
    model = fr.from_onnx(build(nodes, outputs=[value("v4000", "B", 3)]))
    assert len({n.name for n in model.nodes}) == 4_000 and time.process_time() - started < 1.0


def test_a_branch_may_use_the_name_of_a_later_value():
    """Inside z is the branch's own; the outer z is made of the If's result."""
    branch = lambda op: helper.make_graph([helper.make_node(op, ["x"], ["z"])], op, [], [value("z")])
    nodes = [
        helper.make_node("If", ["c"], ["r"], then_branch=branch("Relu"), else_branch=branch("Neg")),
        helper.make_node("Exp", ["r"], ["z"]),
        helper.make_node("Identity", ["z"], ["y"]),
    ]
    model = fr.from_onnx(build(nodes, weights={"c": np.array(True)}))
    assert np.allclose(fr.compile(model)(np.float32([[0, -1, 1]])), np.exp([[0, 0, 1]]))


def test_dimensions_named_with_a_question_mark_are_not_one_size():
    model = fr.from_onnx(build([helper.make_node("ReduceSum", ["x"], ["y"], keepdims=0)], [value("x", "?", "?")], [value("y")]))
    assert fr.compile(model)(np.ones((2, 3), np.float32)) == 6


def test_a_gru_that_pytorch_wrote_with_reset_before_is_reported():
    random = np.random.default_rng(0)
    weights = {"w": random.standard_normal((1, 6, 3)).astype(np.float32), "r": random.standard_normal((1, 6, 2)).astype(np.float32)}
    node = helper.make_node("GRU", ["x", "w", "r"], ["y"], "gru", hidden_size=2)
    model = build([node], [value("x", "T", "B", 3)], weights=weights, producer_name="pytorch")
    with pytest.warns(UserWarning, match="'gru'.*linear_before_reset=0"):
        fr.from_onnx(model)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fr.from_onnx(build([node], [value("x", "T", "B", 3)], weights=weights, producer_name="keras2onnx"))
