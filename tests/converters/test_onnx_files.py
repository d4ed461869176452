"""Damaged and hostile ONNX files: each is refused with a typed error, by name, in under a second and in bounded memory."""

import resource
import time
import warnings

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import fastrnn as fr

REFUSALS = (fr.InvalidModelError, fr.UnsupportedModelError)


def value(name, *dims, dtype=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, dtype, list(dims))


def build(nodes, inputs=None, outputs=None, weights=(), opset=13, **fields):
    tensors = [numpy_helper.from_array(np.asarray(a), n) for n, a in dict(weights).items()]
    graph = helper.make_graph(nodes, "g", [value("x", "B", 3)] if inputs is None else inputs, [value("y", "B", None)] if outputs is None else outputs, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8, **fields)


def small():
    """A GRU behind a transposition, with an If at its end: what truncations and flips start from."""
    random = np.random.default_rng(0)
    weights = {"w": random.standard_normal((1, 6, 3)).astype(np.float32), "r": random.standard_normal((1, 6, 2)).astype(np.float32), "axes": np.array([1]), "flag": np.array(True)}
    branch = lambda op: helper.make_graph([helper.make_node(op, ["s"], [f"{op}.out"])], op, [], [value(f"{op}.out")])
    nodes = [helper.make_node("GRU", ["x", "w", "r"], ["h", ""], "gru", hidden_size=2, linear_before_reset=1),
             helper.make_node("Squeeze", ["h", "axes"], ["s"], "squeeze"),
             helper.make_node("If", ["flag"], ["y"], "choice", then_branch=branch("Relu"), else_branch=branch("Tanh"))]
    return build(nodes, [value("x", "T", "B", 3)], [value("y", "T", "B", 2)], weights)


def refused(source, message=""):
    """The source is refused in time, naming what `message` says; compile may be what finds a shape that only folding knows."""
    started = time.perf_counter()
    with pytest.raises(REFUSALS, match=message or "."):
        fr.compile(fr.from_onnx(source))
    assert time.perf_counter() - started < 1.0


def test_the_small_model_itself_is_good():
    x = np.random.default_rng(1).standard_normal((4, 2, 3)).astype(np.float32)
    assert fr.compile(fr.from_onnx(small()))(x).shape == (4, 2, 2)


def test_every_truncation():
    data = small().SerializeToString()
    for cut in range(len(data)):
        started = time.perf_counter()
        try:
            fr.compile(fr.from_onnx(data[:cut]))
            raise AssertionError(f"cut at {cut} of {len(data)} was taken")
        except REFUSALS:
            assert time.perf_counter() - started < 1.0


def test_flipped_bits_are_refused_or_leave_a_model_that_runs():
    data, x, runs = small().SerializeToString(), np.zeros((2, 1, 3), np.float32), 0
    for bit in range(0, len(data) * 8, 3):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        started = time.perf_counter()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                session = fr.compile(fr.from_onnx(bytes(damaged)))
                session.run({v.name: x for v in session.model.inputs})
            runs += 1  # a weight's bit, or a name used once
        except fr.FastRNNError:
            pass
        assert time.perf_counter() - started < 1.0
    assert runs > 10


def test_a_truncated_file_on_disk_and_one_that_is_no_onnx(tmp_path):
    path = tmp_path / "m.onnx"
    for data in (b"", b"\0" * 100, b"PK\x03\x04" + b"x" * 50, small().SerializeToString()[:-40], b"\x08\x08"):
        path.write_bytes(data)
        refused(path)
    with pytest.raises(FileNotFoundError):
        fr.from_onnx(tmp_path / "nothing.onnx")


def edited(change):
    model = small()
    change(model.graph)
    return model


def nested(depth):
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["r"])], "leaf", [], [value("r")])
    for k in range(depth):
        node = helper.make_node("If", ["c"], [f"o{k}"], then_branch=graph, else_branch=graph)
        graph = helper.make_graph([node], "level", [], [value(f"o{k}")])
    return graph


HOSTILE = {
    "cycle": (lambda: build([helper.make_node("Add", ["x", "b"], ["a"]), helper.make_node("Relu", ["a"], ["b"]),
                             helper.make_node("Relu", ["b"], ["y"])]), "cycle"),
    "missing_input": (lambda: edited(lambda g: g.node[0].input.__setitem__(0, "nothing")), "'nothing' is not defined"),
    "missing_weight": (lambda: edited(lambda g: g.initializer.__delitem__(0)), "'w' is not defined"),
    "missing_output": (lambda: edited(lambda g: g.output.append(value("nowhere"))), "'nowhere' is not defined"),
    "missing_branch_value": (lambda: edited(lambda g: g.node[2].attribute[0].g.node[0].input.__setitem__(0, "nothing")), "nothing"),
    "no_outputs": (lambda: edited(lambda g: g.output.__delitem__(0)), "no graph with outputs"),
    "duplicate_value": (lambda: edited(lambda g: g.node[1].output.__setitem__(0, "h")), "'h' is defined twice"),
    "duplicate_input": (lambda: edited(lambda g: g.input.append(value("x", 1))), "'x' is defined twice"),
    "duplicate_weight": (lambda: edited(lambda g: g.initializer.append(g.initializer[0])), "'w' is defined twice"),
    "duplicate_output": (lambda: edited(lambda g: g.output.append(g.output[0])), "twice"),
    "node_makes_a_weight": (lambda: edited(lambda g: g.node[1].output.__setitem__(0, "w")), "'w' is defined twice"),
    "wrong_rank": (lambda: edited(lambda g: g.input[0].CopyFrom(value("x", "B", 3))), "X must have shape"),
    "wrong_dim": (lambda: edited(lambda g: g.input[0].CopyFrom(value("x", "T", "B", 4))), "is it transposed"),
    "wrong_hidden_size": (lambda: edited(lambda g: g.node[0].attribute[0].__setattr__("i", 1 << 40)), "R must have shape"),
    "negative_hidden_size": (lambda: edited(lambda g: g.node[0].attribute[0].__setattr__("i", -2)), "R must have shape"),
    "weight_of_another_rank": (lambda: edited(lambda g: g.initializer[0].dims.append(1)), "W must have shape"),
    "negative_dims": (lambda: edited(lambda g: g.initializer[0].dims.__setitem__(0, -1)), "dims"),
    "dims_larger_than_data": (lambda: edited(lambda g: g.initializer[0].dims.__setitem__(0, 1 << 40)), "do not fit"),
    "dims_that_overflow": (lambda: edited(lambda g: g.initializer[0].dims.extend([1 << 62, 1 << 62])), "do not fit"),
    "data_shorter": (lambda: edited(lambda g: g.initializer[0].__setattr__("raw_data", g.initializer[0].raw_data[:-1])), "do not fit"),
    "unknown_dtype": (lambda: edited(lambda g: g.initializer[0].__setattr__("data_type", 99)), "dtype 99"),
    "text": (lambda: edited(lambda g: g.initializer[0].__setattr__("data_type", TensorProto.STRING)), "STRING"),
    "complex_input": (lambda: edited(lambda g: g.input[0].CopyFrom(value("x", 1, dtype=TensorProto.COMPLEX64))), "COMPLEX64"),
    "sequence_input": (lambda: build([helper.make_node("Relu", ["x"], ["y"])], [helper.make_tensor_sequence_value_info("x", TensorProto.FLOAT, [1])]), "only tensors"),
    "no_rank": (lambda: build([helper.make_node("Relu", ["x"], ["y"])], [value("x")] and [helper.make_tensor_value_info("x", TensorProto.FLOAT, None)]), "rank"),
    "negative_input_dim": (lambda: edited(lambda g: g.input[0].type.tensor_type.shape.dim[2].__setattr__("dim_value", -7)), "-7"),
    "too_many_inputs": (lambda: edited(lambda g: g.node[1].input.extend(["x"] * 9)), "'squeeze'.*inputs"),
    "too_many_outputs": (lambda: edited(lambda g: g.node[1].output.extend(["p", "q"])), "'squeeze'.*outputs"),
    "foreign_domain": (lambda: edited(lambda g: g.node[1].__setattr__("domain", "com.evil")), "com.evil"),
    "unknown_op": (lambda: edited(lambda g: g.node[1].__setattr__("op_type", "Evil")), "'squeeze'.*Evil"),
    "attribute_of_another_type": (lambda: edited(lambda g: g.node[0].attribute[0].CopyFrom(helper.make_attribute("hidden_size", "two"))), "hidden_size"),
    "branch_is_no_graph": (lambda: edited(lambda g: g.node[2].attribute[0].CopyFrom(helper.make_attribute("then_branch", 1))), "then_branch"),
    "branch_is_missing": (lambda: edited(lambda g: g.node[2].attribute.__delitem__(0)), "_branch"),
    "branch_without_outputs": (lambda: edited(lambda g: g.node[2].attribute[0].g.output.__delitem__(0)), "'choice'.*outputs"),
    "condition_of_another_dtype": (lambda: edited(lambda g: g.node[2].input.__setitem__(0, "axes")), "condition"),
    "deep_nesting": (lambda: build([helper.make_node("If", ["c"], ["y"], then_branch=nested(6), else_branch=nested(6))] and list(nested(7).node), weights={"c": np.array(True)},
                                   outputs=[value("o6")]), None),
    "old_opset": (lambda: build([helper.make_node("Relu", ["x"], ["y"])], opset=6), "opset 6"),
    "future_opset": (lambda: build([helper.make_node("Relu", ["x"], ["y"])], opset=99), "opset 99"),
    "huge_constant_of_shape": (lambda: build([helper.make_node("ConstantOfShape", ["n"], ["y"])], weights={"n": np.array([1 << 30, 1 << 30])}), "elements"),
    "reshape_to_nonsense": (lambda: build([helper.make_node("Reshape", ["w", "n"], ["y"], "r")], weights={"w": np.ones(6, np.float32), "n": np.array([4, -1])}), "'r'"),
    "index_past_the_end": (lambda: build([helper.make_node("Gather", ["w", "n"], ["y"], "r")], weights={"w": np.ones((6, 2), np.float32), "n": np.array([6])}), "'r'.*outside"),
    "too_many_axes": (lambda: build([helper.make_node("Reshape", ["w", "n"], ["y"], "r")], weights={"w": np.ones(1, np.float32), "n": np.ones(9, np.int64)}), "9 dimensions"),
}


@pytest.mark.parametrize("name", [n for n in HOSTILE if HOSTILE[n][1] is not None])
def test_hostile_files(name):
    make, message = HOSTILE[name]
    refused(make().SerializeToString(), message)


def test_nesting_has_a_limit_and_costs_no_more_than_its_size():
    shallow = fr.from_onnx(HOSTILE["deep_nesting"][0]())
    assert fr.compile(shallow)(np.float32([[-1, 0, 2]])).tolist() == [[0, 0, 2]]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["r"])], "leaf", [], [value("r")])
    for k in range(20):
        node = helper.make_node("If", ["c"], [f"o{k}"], then_branch=graph, else_branch=helper.make_graph([helper.make_node("Relu", ["x"], ["e"])], "leaf", [], [value("e")]))
        graph = helper.make_graph([node], "level", [], [value(f"o{k}")])
    refused(build(list(graph.node), weights={"c": np.array(True)}, outputs=[value("o19")]).SerializeToString(), "nested")


def test_refusing_needs_little_memory():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for name in ("dims_larger_than_data", "dims_that_overflow", "huge_constant_of_shape", "wrong_hidden_size"):
        refused(HOSTILE[name][0]().SerializeToString())
    data = build([helper.make_node("Expand", ["w", "n"], ["a"]),
                  helper.make_node("ReduceSum", ["a"], ["y"], keepdims=0)], weights={"w": np.ones(1, np.float32), "n": np.array([1 << 20, 1 << 14])})
    fr.compile(fr.from_onnx(data))  # 64 GB if it were folded
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024


def test_nodes_out_of_order_unused_domains_and_weights_that_are_inputs():
    nodes = [helper.make_node("Relu", ["a"], ["y"]), helper.make_node("Add", ["x", "w"], ["a"])]
    model = build(nodes, [value("x", "B", 3), value("w", 3)], weights={"w": np.ones(3, np.float32)})
    model.opset_import.append(helper.make_opsetid("ai.onnx.ml", 2))
    imported = fr.from_onnx(model.SerializeToString())
    assert imported.input_names == ("x",) and [n.op for n in imported.nodes] == ["Add", "Relu"]
    assert fr.compile(imported)(np.float32([[-2, 0, 1]])).tolist() == [[0, 1, 2]]


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


def test_external_data_comes_from_inside_the_folder_only(tmp_path):
    path = external(tmp_path, "w.bin", offset=4, length=12)
    (path.parent / "w.bin").write_bytes(b"\0\0\0\0" + np.float32([1, 2, 3]).tobytes())
    assert fr.compile(fr.load(path))(np.zeros((1, 3), np.float32)).tolist() == [[1, 2, 3]]
    with pytest.raises(fr.UnsupportedModelError, match="external_data"):
        fr.from_onnx(path, external_data=False)
    with pytest.raises(fr.UnsupportedModelError, match="path"):
        fr.from_onnx(path.read_bytes())
    (tmp_path / "secret.bin").write_bytes(b"\0" * 64)
    (path.parent / "link.bin").symlink_to(tmp_path / "secret.bin")
    for location, entries in (("../secret.bin", {}), (str(tmp_path / "secret.bin"), {}), ("link.bin", {}), ("none.bin", {}), ("", {}),
                              ("w.bin", {"offset": 8}),
                              ("w.bin", {"offset": -4}), ("w.bin", {"length": 99}), ("w.bin", {"offset": "x"}), ("w.bin", {"offset": 1 << 62})):
        refused(external(tmp_path, location, **entries), "data")


def test_many_tensors_over_one_data_file_are_no_way_to_fill_memory(tmp_path):
    (tmp_path / "w.bin").write_bytes(bytes(1 << 20))
    model = build([helper.make_node("Relu", ["x"], ["y"])])
    for k in range(100):
        tensor = model.graph.initializer.add(name=f"w{k}", data_type=TensorProto.FLOAT, dims=[1 << 18], data_location=TensorProto.EXTERNAL)
        tensor.external_data.add(key="location", value="w.bin")
    onnx.save(model, tmp_path / "m.onnx")
    refused(tmp_path / "m.onnx", "overlap")


def test_thousands_of_nodes_of_one_name_take_no_longer():
    nodes = [helper.make_node("Relu", ["x" if k == 0 else f"v{k}"], [f"v{k + 1}"], "same") for k in range(4_000)]
    started = time.perf_counter()
    model = fr.from_onnx(build(nodes, outputs=[value("v4000", "B", 3)]))
    assert len({n.name for n in model.nodes}) == 4_000 and time.perf_counter() - started < 1.0


def test_a_branch_may_use_the_name_of_a_later_value():
    """Inside z is the branch's own; the outer z is made of the If's result."""
    branch = lambda op: helper.make_graph([helper.make_node(op, ["x"], ["z"])], op, [], [value("z")])
    nodes = [helper.make_node("If", ["c"], ["r"], then_branch=branch("Relu"), else_branch=branch("Neg")), helper.make_node("Exp", ["r"], ["z"]),
             helper.make_node("Identity", ["z"], ["y"])]
    model = fr.from_onnx(build(nodes, weights={"c": np.array(True)}))
    assert np.allclose(fr.compile(model)(np.float32([[0, -1, 1]])), np.exp([[0, 0, 1]]))


def test_dimensions_named_with_a_question_mark_are_not_one_size():
    model = fr.from_onnx(build([helper.make_node("ReduceSum", ["x"], ["y"], keepdims=0)], [value("x", "?", "?")], [value("y")]))
    assert fr.compile(model)(np.ones((2, 3), np.float32)) == 6


def test_a_declared_dtype_must_be_the_one_there_is():
    refused(build([helper.make_node("Shape", ["x"], ["y"])]), "'y' is declared as float32, but is int64")


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
