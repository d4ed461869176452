"""Damaged and hostile ONNX files: graphs, names, subgraphs, opsets."""

import numpy as np
from case import file_case
from onnx import TensorProto, helper
from onnx_graphs import branch, build, small, value

node = helper.make_node
HUGE = 1 << 62


def edited(change, make=small):
    """A good model, its graph changed."""
    model = make()
    change(model.graph)
    return model


def changed(change, make=small):
    """A good model, changed."""
    model = make()
    change(model)
    return model


def relu(**fields):
    """One Relu."""
    return build([node("Relu", ["x"], ["y"])], **fields)


def old(change):
    """One Relu of opset 6, changed."""
    proto = relu(opset=6)
    change(proto.graph)
    return proto


def nested(depth, other=None):
    """If inside If, so deep; o{depth - 1} is the outermost result."""
    graph = helper.make_graph([node("Relu", ["x"], ["r"])], "leaf", [], [value("r")])
    for k in range(depth):
        graph = helper.make_graph([node("If", ["c"], [f"o{k}"], then_branch=graph, else_branch=other or graph)], "level", [], [value(f"o{k}")])
    return graph


def deep(depth):
    """Nested branches, each level once: as many bytes as levels."""
    leaf = helper.make_graph([node("Relu", ["x"], ["e"])], "leaf", [], [value("e")])
    return build(list(nested(depth, leaf).node), weights={"c": np.array(True)}, outputs=[value(f"o{depth - 1}")])


def doubling(depth):
    """Nested branches, each level twice, built bottom up."""
    return build(list(nested(depth).node), weights={"c": np.array(True)}, outputs=[value(f"o{depth - 1}")])


def raw_nesting(depth):
    """Attributes inside graphs inside attributes, by the bytes: protobuf's own depth is not enough for it to be written by the library."""

    def field(number, data):
        size, head = len(data), bytearray([number << 3 | 2])
        while size > 127:
            head.append(size & 127 | 128)
            size >>= 7
        return bytes([*head, size]) + data

    graph = field(1, field(4, b"If"))
    for _ in range(depth):
        graph = field(1, field(4, b"If") + field(5, field(1, b"then_branch") + field(6, graph) + b"\xa0\x01\x05"))
    return field(7, graph + field(12, field(1, b"y"))) + field(8, b"\x10\x0d")


def functions(count, calls):
    """Model functions of which each calls another: by itself, or in a ring."""
    made = [
        helper.make_function("f", f"f{k}", ["a"], ["b"], [node(f"f{(k + calls) % count}", ["a"], ["b"], domain="f")], [helper.make_opsetid("f", 1)])
        for k in range(count)
    ]
    model = build([node("f0", ["x"], ["y"], domain="f")], functions=made)
    model.opset_import.append(helper.make_opsetid("f", 1))
    return model


def uncalled_functions(*names):
    """Functions that nothing calls: each calls itself, one name may stand twice."""
    made = [helper.make_function("f", name, ["a"], ["b"], [node(name, ["a"], ["b"], domain="f")], [helper.make_opsetid("f", 1)]) for name in names]
    model = build([node("Relu", ["x"], ["y"])], functions=made)
    model.opset_import.append(helper.make_opsetid("f", 1))
    return model


def opsets(*entries):
    """One Relu under these (domain, version)."""

    def change(model):
        del model.opset_import[:]
        model.opset_import.extend(helper.make_opsetid(*entry) for entry in entries)

    return changed(change, relu)


def choice(then, other, outputs=("y",), condition="c", **fields):
    """An If over two graphs."""
    return build(
        [node("If", [condition], list(outputs), "choice", then_branch=then, else_branch=other)],
        [value("x", "B", 3), value("c", dtype=TensorProto.BOOL)],
        **fields,
    )


def choice_by_data(then, other):
    """An If over two graphs whose condition follows from numbers."""
    before = [node("ReduceMax", ["x"], ["top"], keepdims=0), node("Greater", ["top", "zero"], ["positive"])]
    return build(
        [*before, node("If", ["positive"], ["y"], "choice", then_branch=then, else_branch=other)],
        [value("x", "B", 3)],
        weights={"zero": np.array(0, np.float32)},
    )


def graph_of(*nodes, outputs=("o",), inputs=(), **fields):
    """A branch."""
    return helper.make_graph(list(nodes), "branch", list(inputs), [value(name) for name in outputs], **fields)


def body(*nodes, inputs=(), outputs=()):
    """A body of a Loop or Scan."""
    return helper.make_graph(list(nodes), "body", list(inputs), list(outputs))


def loops():
    """Broken Loops and Scans: whether or not the op itself is known, each is refused by name."""
    flag, count, state = value("flag_in", dtype=TensorProto.BOOL), value("i", dtype=TensorProto.INT64), value("v")
    keep, kept = node("Identity", ["flag_in"], ["flag"]), value("flag", dtype=TensorProto.BOOL)
    good = body(keep, node("Relu", ["v"], ["w"]), inputs=[count, flag, state], outputs=[kept, value("w")])

    def loop(inputs=("n", "t", "x"), outputs=("y",), **attributes):
        return build([node("Loop", list(inputs), list(outputs), "loop", **attributes)], weights={"n": np.array(2), "t": np.array(True)})

    yield "loop_without_body", loop()
    yield "loop_body_is_a_number", loop(body=3)
    yield "loop_body_with_few_inputs", loop(body=body(keep, inputs=[count, flag], outputs=[kept]))
    yield "loop_body_with_few_outputs", loop(body=body(keep, inputs=[count, flag, state], outputs=[kept]))
    nothing = node("Relu", ["nothing"], ["w"])
    yield "loop_body_reads_nothing_there_is", loop(body=body(keep, nothing, inputs=[count, flag, state], outputs=[kept, value("w")]))
    yield "loop_count_is_text", loop(["x", "t", "x"], body=good)
    yield "loop_with_too_many_outputs", loop(outputs=["y", "p", "q"], body=good)
    yield "loop_that_holds_itself", loop(["n", "t", "y"], body=good)

    adds = body(node("Add", ["s", "e"], ["s2"]), node("Identity", ["s2"], ["z"]), inputs=[value("s"), value("e")], outputs=[value("s2"), value("z")])

    def scan(**attributes):
        return build([node("Scan", ["x", "x"], ["p", "y"], "scan", **attributes)])

    yield "scan_without_body", scan(num_scan_inputs=1)
    yield "scan_without_count", scan(body=adds)
    yield "scan_of_negative_count", scan(body=adds, num_scan_inputs=-1)
    yield "scan_of_more_inputs_than_there_are", scan(body=adds, num_scan_inputs=9)
    yield "scan_along_an_axis_there_is_not", scan(body=adds, num_scan_inputs=1, scan_input_axes=[7])
    yield "scan_in_an_unknown_direction", scan(body=adds, num_scan_inputs=1, scan_input_directions=[5])


def first(g):
    """The recurrent node's hidden_size."""
    return g.node[0].attribute[0]


GRAPHS = {
    "cycle": (lambda: build([node("Add", ["x", "b"], ["a"]), node("Relu", ["a"], ["b"]), node("Relu", ["b"], ["y"])]), "cycle"),
    "cycle_of_one": (lambda: build([node("Add", ["x", "y"], ["y"], "self")]), "cycle"),
    "cycle_through_a_branch": (
        lambda: build(
            [node("If", ["c"], ["y"], "choice", then_branch=branch("Relu", "z"), else_branch=branch("Neg", "x")), node("Exp", ["y"], ["z"])],
            weights={"c": np.array(True)},
        ),
        "cycle",
    ),
    "missing_input": (lambda: edited(lambda g: g.node[0].input.__setitem__(0, "nothing")), "'nothing' is not defined"),
    "missing_weight": (lambda: edited(lambda g: g.initializer.__delitem__(0)), "'w' is not defined"),
    "missing_output": (lambda: edited(lambda g: g.output.append(value("nowhere"))), "'nowhere' is not defined"),
    "missing_branch_value": (lambda: edited(lambda g: g.node[2].attribute[0].g.node[0].input.__setitem__(0, "nothing")), "nothing"),
    "missing_graph": (lambda: changed(lambda m: m.ClearField("graph")), "no graph"),
    "empty_graph": (lambda: edited(lambda g: g.Clear()), "no graph"),
    "no_outputs": (lambda: edited(lambda g: g.output.__delitem__(0)), "no graph with outputs"),
    "no_nodes": (lambda: edited(lambda g: g.ClearField("node")), "'y' is not defined"),
    "no_inputs": (lambda: edited(lambda g: g.ClearField("input")), "'x' is not defined"),
    "duplicate_value": (lambda: edited(lambda g: g.node[1].output.__setitem__(0, "h")), "'h' is defined twice"),
    "duplicate_input": (lambda: edited(lambda g: g.input.append(value("x", 1))), "'x' is defined twice"),
    "duplicate_weight": (lambda: edited(lambda g: g.initializer.append(g.initializer[0])), "'w' is defined twice"),
    "duplicate_output_of_a_node": (lambda: edited(lambda g: g.node[0].output.__setitem__(1, "h")), "'h' is defined twice"),
    "duplicate_attribute": (lambda: edited(lambda g: g.node[0].attribute.append(g.node[0].attribute[0])), "'gru'.*stands twice.*hidden_size"),
    "node_makes_a_weight": (lambda: edited(lambda g: g.node[1].output.__setitem__(0, "w")), "'w' is defined twice"),
    "node_makes_an_input": (lambda: edited(lambda g: g.node[1].output.__setitem__(0, "x")), "'x' is defined twice"),
    "node_without_outputs": (lambda: edited(lambda g: g.node[1].ClearField("output")), "'squeeze'|'s' is not defined"),
    "node_with_an_empty_output": (
        lambda: build([node("Relu", ["x"], ["y"]), node("Relu", ["x"], [""], "silent")], opset=13) and build([node("Relu", ["x"], [""], "silent")]),
        "'y' is not defined",
    ),
    "node_without_inputs": (lambda: edited(lambda g: g.node[1].ClearField("input")), "'squeeze'.*inputs"),
    "node_with_an_empty_input": (lambda: edited(lambda g: g.node[1].input.__setitem__(0, "")), "'squeeze'.*input 0 is missing"),
    "input_without_a_name": (lambda: edited(lambda g: g.input.append(value("", 1))), "input has no name"),
    "output_without_a_name": (lambda: edited(lambda g: g.output.append(value(""))), "'' is not defined"),
    "weight_without_a_name": (lambda: edited(lambda g: g.initializer[0].ClearField("name")), "initializer has no name"),
    "node_without_an_op": (lambda: edited(lambda g: g.node[1].ClearField("op_type")), "op '' is not supported"),
    "too_many_inputs": (lambda: edited(lambda g: g.node[1].input.extend(["x"] * 9)), "'squeeze'.*inputs"),
    "a_million_inputs": (lambda: edited(lambda g: g.node[1].input.extend(["x"] * 200_000)), "'squeeze'.*inputs"),
    "too_many_outputs": (lambda: edited(lambda g: g.node[1].output.extend(["p", "q"])), "'squeeze'.*outputs"),
    "foreign_domain": (lambda: edited(lambda g: g.node[1].__setattr__("domain", "com.evil")), "com.evil"),
    "unknown_op": (lambda: edited(lambda g: g.node[1].__setattr__("op_type", "Evil")), "'squeeze'.*Evil"),
    "op_of_a_huge_name": (lambda: edited(lambda g: g.node[1].__setattr__("op_type", "E" * 3_000_000)), "'squeeze'.*EEE"),
    "node_of_a_huge_name": (
        lambda: edited(lambda g: (g.node[1].__setattr__("name", "n" * 3_000_000), g.node[1].__setattr__("op_type", "Evil"))),
        "Evil",
    ),
    "wrong_rank": (lambda: edited(lambda g: g.input[0].CopyFrom(value("x", "B", 3))), "'gru'.*X must have shape"),
    "wrong_dim": (lambda: edited(lambda g: g.input[0].CopyFrom(value("x", "T", "B", 4))), "'gru'.*is it transposed"),
    "unknown_input_dtype": (lambda: edited(lambda g: g.input[0].type.tensor_type.__setattr__("elem_type", 99)), "input 'x': dtype 99"),
    "undefined_input_dtype": (lambda: edited(lambda g: g.input[0].type.tensor_type.__setattr__("elem_type", 0)), "input 'x': dtype UNDEFINED"),
    "complex_input": (lambda: edited(lambda g: g.input[0].CopyFrom(value("x", 1, dtype=TensorProto.COMPLEX64))), "COMPLEX64"),
    "text_input": (lambda: edited(lambda g: g.input[0].CopyFrom(value("x", 1, dtype=TensorProto.STRING))), "STRING"),
    "sequence_input": (lambda: relu(inputs=[helper.make_tensor_sequence_value_info("x", TensorProto.FLOAT, [1])]), "only tensors"),
    "sparse_input": (lambda: relu(inputs=[helper.make_sparse_tensor_value_info("x", TensorProto.FLOAT, [1])]), "only tensors"),
    "untyped_input": (lambda: edited(lambda g: g.input[0].ClearField("type")), "only tensors"),
    "sequence_output": (
        lambda: edited(lambda g: g.output[0].CopyFrom(helper.make_tensor_sequence_value_info("y", TensorProto.FLOAT, [1]))),
        "output 'y'.*only tensors",
    ),
    "no_rank": (lambda: relu(inputs=[helper.make_tensor_value_info("x", TensorProto.FLOAT, None)]), "'x'.*rank"),
    "negative_input_dim": (lambda: edited(lambda g: g.input[0].type.tensor_type.shape.dim[2].__setattr__("dim_value", -7)), "-7"),
    "huge_input_dim": (lambda: relu(inputs=[value("x", HUGE, HUGE)]), "x.*elements|elements"),
    "many_input_dims": (lambda: relu(inputs=[value("x", *[1] * 40)], outputs=[value("y", *[1] * 40)]), "input 'x' has 40 dimensions"),
    "an_output_of_another_dtype": (lambda: build([node("Shape", ["x"], ["y"])]), "'y' is declared as float32, but is int64"),
}

BRANCHES = {
    "branch_is_no_graph": (lambda: edited(lambda g: g.node[2].attribute[0].CopyFrom(helper.make_attribute("then_branch", 1))), "then_branch"),
    "branch_is_missing": (lambda: edited(lambda g: g.node[2].attribute.__delitem__(0)), "'choice'.*_branch"),
    "branch_is_empty": (lambda: edited(lambda g: g.node[2].attribute[0].g.Clear()), "'choice'.*outputs"),
    "branch_without_outputs": (lambda: edited(lambda g: g.node[2].attribute[0].g.output.__delitem__(0)), "'choice'.*outputs"),
    "branch_with_more_outputs": (lambda: edited(lambda g: g.node[2].attribute[0].g.output.append(value("s"))), "'choice'.*outputs"),
    "branch_with_inputs": (lambda: edited(lambda g: g.node[2].attribute[0].g.input.append(value("z", 1))), "takes inputs"),
    "branch_that_gives_what_is_not_there": (lambda: edited(lambda g: g.node[2].attribute[0].g.output[0].__setattr__("name", "nothing")), "nothing"),
    "branch_that_makes_a_value_twice": (
        lambda: choice(graph_of(node("Relu", ["x"], ["o"]), node("Neg", ["x"], ["o"])), branch("Neg", "x")),
        "'o' is defined twice",
    ),
    "branch_with_a_cycle": (lambda: choice(graph_of(node("Add", ["x", "b"], ["o"]), node("Neg", ["o"], ["b"])), branch("Neg", "x")), "cycle"),
    "branch_with_a_sparse_weight": (lambda: edited(lambda g: g.node[2].attribute[0].g.sparse_initializer.add()), "sparse"),
    "branches_of_different_dtypes": (lambda: choice(graph_of(node("Shape", ["x"], ["o"])), branch("Neg", "x")), "'choice'"),
    "branches_of_different_ranks": (lambda: choice_by_data(graph_of(node("ReduceSum", ["x"], ["o"], keepdims=0)), branch("Neg", "x")), "'choice'"),
    "branches_that_give_different_numbers": (
        lambda: choice(graph_of(node("Neg", ["x"], ["o"]), outputs=("o", "x")), branch("Neg", "x"), ("y", "z")),
        "'choice'.*outputs",
    ),
    "branch_of_an_unknown_op": (lambda: edited(lambda g: g.node[2].attribute[0].g.node[0].__setattr__("op_type", "Evil")), "Evil"),
    "condition_of_another_dtype": (lambda: edited(lambda g: g.node[2].input.__setitem__(0, "axes")), "'choice'.*condition"),
    "condition_of_many_elements": (
        lambda: choice(branch("Relu", "x"), branch("Neg", "x"), condition="m", weights={"m": np.array([True, False])}),
        "'choice'.*condition",
    ),
    "condition_is_missing": (lambda: edited(lambda g: g.node[2].input.__setitem__(0, "")), "'choice'.*takes 1 to 1 inputs, got 0"),
    "branches_nested_20_deep": (lambda: deep(20), "nested"),
    "branches_nested_beyond_protobuf": (lambda: raw_nesting(400), "damaged|nested"),
    "branches_nested_thousands_deep": (lambda: raw_nesting(5_000), "damaged|nested"),
    "branches_that_double_at_each_level": (
        lambda: doubling(9) and changed(lambda m: m.graph.output[0].__setattr__("name", "nowhere"), lambda: doubling(9)),
        "nowhere",
    ),
}

MODELS = {
    "old_opset_of_an_unknown_op": (lambda: old(lambda g: setattr(g.node[0], "op_type", "Evil")), "opset 6.*checker"),
    "old_opset_of_an_attribute_of_another": (lambda: old(lambda g: g.node[0].attribute.append(helper.make_attribute("evil", 1))), "opset 6.*checker"),
    "old_opset_in_a_cycle": (lambda: old(lambda g: g.node[0].input.__setitem__(0, g.node[0].output[0])), "opset 6.*checker"),
    "old_opset_without_inputs": (lambda: old(lambda g: g.node[0].ClearField("input")), "opset 6.*checker"),
    "opset_0": (lambda: opsets(("", 0)), "opset 0"),
    "opset_999": (lambda: opsets(("", 999)), "opset 999"),
    "opset_negative": (lambda: opsets(("", -1)), "opset -1"),
    "opset_2_to_the_63": (lambda: opsets(("", (1 << 63) - 1)), "opset 9223372036854775807"),
    "opset_missing": (lambda: opsets(), "no opset"),
    "opset_of_other_domains_only": (lambda: opsets(("ai.onnx.ml", 3)), "no opset|none of the default"),
    "opset_twice": (lambda: opsets(("", 13), ("", 9)), "opset.*twice"),
    "opset_twice_by_its_other_name": (lambda: opsets(("", 13), ("ai.onnx", 9)), "opset.*twice"),
    "a_function_that_calls_itself": (lambda: functions(1, 0), "function|'f'|f0"),
    "a_function_twice": (lambda: uncalled_functions("f", "f"), "functions cannot be put in place"),
    "a_function_in_a_circle_that_nothing_calls": (lambda: uncalled_functions("f"), "functions cannot be put in place"),
    "functions_in_a_ring": (lambda: functions(9, 1), "function|'f'|f0"),
    "a_local_op_without_its_function": (lambda: build([node("Evil", ["x"], ["y"], "n", domain="local")]), "local"),
    "a_sparse_weight": (lambda: edited(lambda g: g.sparse_initializer.add()), "sparse"),
    "hidden_size_huge": (lambda: edited(lambda g: first(g).__setattr__("i", 1 << 40)), "'gru'.*R must have shape"),
    "hidden_size_negative": (lambda: edited(lambda g: first(g).__setattr__("i", -2)), "'gru'.*R must have shape"),
    "hidden_size_0": (lambda: edited(lambda g: first(g).__setattr__("i", 0)), "'gru'.*R must have shape"),
    "hidden_size_2_to_the_63": (lambda: edited(lambda g: first(g).__setattr__("i", (1 << 63) - 1)), "'gru'.*R must have shape"),
    "hidden_size_is_text": (lambda: edited(lambda g: first(g).CopyFrom(helper.make_attribute("hidden_size", "two"))), "'gru'.*hidden_size"),
    "hidden_size_is_a_graph": (
        lambda: edited(lambda g: first(g).CopyFrom(helper.make_attribute("hidden_size", branch("Relu", "x")))),
        "'gru'.*hidden_size",
    ),
    "hidden_size_is_a_tensor": (
        lambda: edited(lambda g: first(g).CopyFrom(helper.make_attribute("hidden_size", helper.make_tensor("t", 7, [1], [2])))),
        "'gru'.*hidden_size",
    ),
    "hidden_size_refers_to_a_function": (lambda: edited(lambda g: first(g).__setattr__("ref_attr_name", "n")), "'gru'.*hidden_size"),
    "attribute_of_no_type": (lambda: edited(lambda g: first(g).__setattr__("type", 0)), "'gru'.*hidden_size"),
    "attribute_of_the_wrong_type": (lambda: edited(lambda g: first(g).__setattr__("type", 1)), "'gru'.*hidden_size"),
    "attribute_of_an_unknown_type": (lambda: edited(lambda g: first(g).__setattr__("type", 14)), "'gru'.*hidden_size"),
    "attribute_that_the_op_has_not": (lambda: edited(lambda g: g.node[0].attribute.append(helper.make_attribute("evil", 1))), "'gru'.*evil"),
    "attribute_without_a_name": (lambda: edited(lambda g: g.node[0].attribute.append(helper.make_attribute("", 1))), "'gru'.*attribute ''"),
    "attribute_of_a_huge_name": (lambda: edited(lambda g: g.node[0].attribute.append(helper.make_attribute("e" * 3_000_000, 1))), "'gru'.*eee"),
    "attribute_of_huge_text": (
        lambda: edited(lambda g: g.node[0].attribute.append(helper.make_attribute("direction", "e" * 3_000_000))),
        "'gru'.*direction",
    ),
    "linear_before_reset_2": (lambda: edited(lambda g: g.node[0].attribute[1].__setattr__("i", 2)), "'gru'.*linear_before_reset"),
    "activations_of_the_wrong_kind": (
        lambda: edited(lambda g: g.node[0].attribute.append(helper.make_attribute("activations", [1, 2]))),
        "'gru'.*activation",
    ),
    "an_unknown_activation": (
        lambda: edited(lambda g: g.node[0].attribute.append(helper.make_attribute("activations", ["Swish", "Tanh"]))),
        "'gru'.*wish",
    ),
    "too_few_activations": (
        lambda: edited(lambda g: g.node[0].attribute.append(helper.make_attribute("activations", ["Tanh"]))),
        "'gru'.*activations",
    ),
    "activation_parameters_of_text": (
        lambda: edited(lambda g: g.node[0].attribute.append(helper.make_attribute("activation_alpha", "x"))),
        "'gru'.*lpha",
    ),
}

CORPUS = [
    file_case(name, ".onnx", lambda make=make: data if isinstance(data := make(), bytes) else data.SerializeToString(), message, "model")
    for name, (make, message) in {**GRAPHS, **BRANCHES, **MODELS}.items()
]
CORPUS += [file_case(name, ".onnx", model.SerializeToString, "'loop'|'scan'|cycle|nothing", "model") for name, model in loops()]
