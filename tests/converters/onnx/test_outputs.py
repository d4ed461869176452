"""from_onnx(outputs=...): the part of a file that some of its outputs need, where another part cannot be read."""

import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import fastrnn as fr
from fastrnn.cli import main


def policy(inside=None):
    """A game agent: an LSTM, a value, and an action that is drawn; inside: what wraps the draw, "If" or None."""
    rng = np.random.default_rng(0)
    weights = {
        "W": rng.standard_normal((1, 20, 3)),
        "R": rng.standard_normal((1, 20, 5)),
        "V": rng.standard_normal((5, 1)),
        "A": rng.standard_normal((5, 4)),
    }
    draw = helper.make_node("Multinomial", ["logits"], ["action"], "draw", sample_size=1, dtype=TensorProto.INT64)
    if inside == "If":
        then = helper.make_graph(
            [helper.make_node("Multinomial", ["logits"], ["drawn"], "draw", dtype=TensorProto.INT64)],
            "then",
            [],
            [helper.make_tensor_value_info("drawn", TensorProto.INT64, [None, 1])],
        )
        other = helper.make_graph(
            [helper.make_node("ArgMax", ["logits"], ["best"], "best", axis=1)],
            "else",
            [],
            [helper.make_tensor_value_info("best", TensorProto.INT64, [None, 1])],
        )
        draw = helper.make_node("If", ["explore"], ["action"], "choose", then_branch=then, else_branch=other)
    nodes = [
        helper.make_node("LSTM", ["x", "W", "R"], ["", "h"], "lstm", hidden_size=5),
        helper.make_node("Squeeze", ["h", "first"], ["s"], "squeeze"),
        helper.make_node("MatMul", ["s", "V"], ["value"], "value"),
        helper.make_node("MatMul", ["s", "A"], ["logits"], "logits"),
        draw,
    ]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["T", "B", 3])]
    inputs += [helper.make_tensor_value_info("explore", TensorProto.BOOL, [])] if inside == "If" else []
    outputs = [
        helper.make_tensor_value_info(n, t, ["B", k])
        for n, t, k in (("value", TensorProto.FLOAT, 1), ("logits", TensorProto.FLOAT, 4), ("action", TensorProto.INT64, 1))
    ]
    stored = [numpy_helper.from_array(a.astype("f4"), n) for n, a in weights.items()] + [numpy_helper.from_array(np.array([0]), "first")]
    return helper.make_model(helper.make_graph(nodes, "policy", inputs, outputs, stored), opset_imports=[helper.make_opsetid("", 17)])


@pytest.mark.parametrize("inside", [None, "If"])
def test_the_refusal_says_which_outputs_go_without(inside):
    with pytest.raises(
        fr.UnsupportedModelError,
        match=r"Multinomial.*draws random numbers.*outputs 'value', 'logits'.*from_onnx\(\.\.\., outputs=\['value', 'logits'\]\).*--output-names",
    ):
        fr.from_onnx(policy(inside))


@pytest.mark.parametrize("inside", [None, "If"])
@pytest.mark.parametrize("wanted", [["value"], ["logits", "value"]])
def test_what_feeds_no_wanted_output_is_left_out(wanted, inside):
    onnxruntime = pytest.importorskip("onnxruntime")
    file = policy(inside)
    model = fr.from_onnx(file, outputs=wanted)
    assert list(model.output_names) == wanted and model.input_names == ("x",) and ("A" in model.weights) == ("logits" in wanted)
    x = np.random.default_rng(1).standard_normal((6, 3, 3)).astype("f4")
    given = {"x": x} | ({"explore": np.array(False)} if inside else {})
    theirs = onnxruntime.InferenceSession(file.SerializeToString()).run(wanted, given)
    for mine, want in zip(fr.compile(model).run({"x": x}).values(), theirs, strict=True):
        assert np.abs(mine - want).max() < 1e-5


def test_names_that_are_no_outputs_are_refused():
    for wanted, message in (
        (["h"], "'h' is no output; there are value, logits, action"),
        (["value", "value"], "stands there twice"),
        ([], "list of names"),
        ("value", "list of names"),
    ):
        with pytest.raises(fr.UnsupportedModelError, match=message):
            fr.from_onnx(policy(), outputs=wanted)
    with pytest.raises(fr.UnsupportedModelError, match="Multinomial.*random numbers$"):
        fr.from_onnx(policy(), outputs=["action"])


def test_an_input_that_nothing_reads_stays():
    file = policy()
    file.graph.input.append(helper.make_tensor_value_info("spare", TensorProto.FLOAT, [1]))
    assert fr.from_onnx(file, outputs=["value"]).input_names == ("x", "spare")


def test_convert_takes_names_of_outputs(tmp_path, capsys):
    onnx.save(policy(), tmp_path / "policy.onnx")
    assert (
        main(["convert", str(tmp_path / "policy.onnx"), "-o", str(tmp_path / "a.safetensors")]) == 3 and "--output-names" in capsys.readouterr().err
    )
    assert main(["convert", str(tmp_path / "policy.onnx"), "-o", str(tmp_path / "a.safetensors"), "--output-names", "value,logits", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["nodes"] > 0 and fr.load(tmp_path / "a.safetensors").output_names == ("value", "logits")
    with pytest.raises(fr.UnsupportedModelError, match=r"outputs are chosen of \.onnx files alone"):
        fr.load(tmp_path / "a.safetensors", outputs=["value"])
