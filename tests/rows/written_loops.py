"""Loop and Scan nodes as ONNX files hold them, by name, with what to feed them."""

import numpy as np
from onnx import TensorProto, helper, numpy_helper

RANDOM = np.random.default_rng(0)
FLOAT, INT, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL


def rand(*shape):
    return RANDOM.standard_normal(shape).astype(np.float32)


def value(name, dtype=FLOAT, shape=None):
    return helper.make_tensor_value_info(name, dtype, shape)


def graph(nodes, inputs, outputs, weights=()):
    tensors = [numpy_helper.from_array(np.asarray(a), n) for n, a in dict(weights).items()]
    return helper.make_graph(nodes, "g", inputs, outputs, tensors)


def model(nodes, inputs, outputs, weights=(), opset=17):
    return helper.make_model(graph(nodes, inputs, outputs, weights), opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def scan(body_nodes, states, slices, results, **attributes):
    """A node Scan: states by name in and out, slices, results; the body's values are named s_*, x_*, and *_out."""
    return {
        "body": graph(
            body_nodes, [value(s) for s in states] + [value(x) for x in slices], [value(f"{s}_out") for s in states] + [value(r) for r in results]
        ),
        "num_scan_inputs": len(slices),
        **attributes,
    }


def loop_body(nodes, carried, results, weights=(), go_on="go", dtypes=None):
    dtypes = dtypes or {}
    return graph(
        nodes,
        [value("i", INT, []), value("go", BOOL, [])] + [value(c, dtypes.get(c, FLOAT)) for c in carried],
        [value(go_on, BOOL, [])] + [value(f"{c}_out", dtypes.get(c, FLOAT)) for c in carried] + [value(r) for r in results],
        weights,
    )


def node(op, inputs, outputs, **attributes):
    return helper.make_node(op, inputs.split(), outputs.split(), **attributes)


RUNNING = [node("Mul", "s d", "decayed"), node("Add", "decayed x", "s_out"), node("Tanh", "s_out", "y")]


def scans():
    """Running sums over an axis: forwards, backwards, other axes; two inputs; a state that no step changes."""
    for axis, back, out_axis, out_back in ((0, 0, 0, 0), (0, 1, 0, 1), (1, 0, 1, 0), (1, 1, 0, 0), (-1, 0, -1, 1), (2, 0, 2, 0)):
        shape = {0: (6, 2, 3), 1: (2, 6, 3), 2: (2, 3, 6), -1: (2, 3, 6)}[axis]
        attributes = {
            "scan_input_axes": [axis],
            "scan_input_directions": [back],
            "scan_output_axes": [out_axis],
            "scan_output_directions": [out_back],
        }
        whole = node("Scan", "s0 xs", "last ys", **scan(RUNNING, ["s"], ["x"], ["y"], **attributes))
        yield (
            f"axis{axis}_{back}_{out_axis}_{out_back}",
            model([whole], [value("s0", shape=[2, 3]), value("xs", shape=list("abc"))], [value("last"), value("ys")], {"d": np.float32(0.5)}),
            {"s0": rand(2, 3), "xs": rand(*shape)},
        )
    both = node(
        "Scan",
        "s0 k xs zs",
        "last kept ys",
        **scan(
            [*RUNNING[:2], node("Mul", "y z", "s_2"), node("Identity", "k", "k_out"), node("Sub", "s_out k", "y")],
            ["s", "k"],
            ["x", "z"],
            ["y"],
            scan_input_directions=[0, 1],
        ),
    )
    both.attribute[0].g.node[2].CopyFrom(node("Mul", "s_out z", "unused"))
    yield (
        "two",
        model(
            [both],
            [value(n, shape=[2]) for n in ("s0", "k")] + [value(n, shape=["T", 2]) for n in ("xs", "zs")],
            [value("last"), value("kept"), value("ys")],
            {"d": np.float32(0.9)},
        ),
        {"s0": rand(2), "k": rand(2), "xs": rand(5, 2), "zs": rand(5, 2)},
    )
    swap = node(
        "Scan",
        "a0 b0 xs",
        "a1 b1 ys",
        **scan([node("Add", "b x", "a_out"), node("Identity", "a", "b_out"), node("Transpose", "a", "y")], ["a", "b"], ["x"], ["y"]),
    )
    yield (
        "swap",
        model([swap], [value(n, shape=[3, 3]) for n in ("a0", "b0")] + [value("xs", shape=["T", 3, 3])], [value("a1"), value("b1"), value("ys")]),
        {"a0": rand(3, 3), "b0": rand(3, 3), "xs": rand(4, 3, 3)},
    )
    turn = node("Scan", "a0 xs", "a1 ys", **scan([node("Transpose", "a", "a_out"), node("Add", "a x", "y")], ["a"], ["x"], ["y"]))
    yield (
        "turn",
        model([turn], [value("a0", shape=[3, 3]), value("xs", shape=["T", 3, 3])], [value("a1"), value("ys")]),
        {"a0": rand(3, 3), "xs": rand(5, 3, 3)},
    )


def loops():
    """Trip counts that are constants, shapes and data; conditions; values from around; nothing done; growing; nested; by its own number."""
    accumulate = [node("Gather", "xs i", "x"), node("Add", "s x", "s_out"), node("Mul", "s_out s_out", "y")]
    ends = [value("s1"), value("ys")]
    x = {"xs": rand(7, 3), "s0": rand(3)}
    inputs = [value("xs", shape=["T", 3]), value("s0", shape=[3])]
    body = loop_body(accumulate, ["s"], ["y"])
    yield "constant", model([node("Loop", "n go0 s0", "s1 ys", body=body)], inputs, ends, {"n": np.array(5), "go0": np.array(True)}), x
    yield "no_condition", model([helper.make_node("Loop", ["n", "", "s0"], ["s1", "ys"], body=body)], inputs, ends, {"n": np.array([4])}), x
    yield "none", model([node("Loop", "n go0 s0", "s1 ys", body=body)], inputs, ends, {"n": np.array(0), "go0": np.array(True)}), x
    yield "never", model([node("Loop", "n go0 s0", "s1 ys", body=body)], inputs, ends, {"n": np.array(3), "go0": np.array(False)}), x
    length = [node("Shape", "xs", "sizes"), node("Gather", "sizes zero", "n")]
    yield "length", model([*length, node("Loop", "n go0 s0", "s1 ys", body=body)], inputs, ends, {"zero": np.array(0), "go0": np.array(True)}), x
    only = loop_body(accumulate[:2], ["s"], [])
    yield (
        "data",
        model([node("Loop", "n go0 s0", "s1", body=only)], [*inputs, value("n", INT, []), value("go0", BOOL, [])], ends[:1]),
        {**x, "n": np.array(6), "go0": np.array(True)},
    )
    until = loop_body([*accumulate[:2], node("ReduceMax", "s_out", "top", keepdims=0), node("Less", "top limit", "more")], ["s"], [], go_on="more")
    for limit in (-9.0, 1.5, 9.0):
        yield (
            f"until{limit}",
            model(
                [node("Loop", "n go0 s0", "s1", body=until)], inputs, ends[:1], {"n": np.array(7), "go0": np.array(True), "limit": np.float32(limit)}
            ),
            x,
        )
    yield (
        "endless",
        model(
            [
                helper.make_node(
                    "Loop",
                    ["", "go0", "s0"],
                    ["s1"],
                    body=loop_body(
                        [node("Add", "s one", "s_out"), node("ReduceMax", "s_out", "top", keepdims=0), node("Less", "top limit", "more")],
                        ["s"],
                        [],
                        go_on="more",
                    ),
                )
            ],
            inputs[1:],
            ends[:1],
            {"go0": np.array(True), "limit": np.float32(20), "one": np.float32(0.75)},
        ),
        {"s0": x["s0"]},
    )
    grow = loop_body(
        [node("Gather", "xs i", "x"), node("Unsqueeze", "x axes", "row"), node("Concat", "s row", "s_out", axis=0)],
        ["s"],
        [],
        {"axes": np.array([0])},
    )
    yield (
        "growing",
        model(
            [*length, node("Loop", "n go0 start", "s1", body=grow)],
            inputs[:1],
            ends[:1],
            {"zero": np.array(0), "go0": np.array(True), "start": np.zeros((0, 3), np.float32)},
        ),
        {"xs": x["xs"]},
    )
    window = loop_body([node("Add", "i two", "end"), node("Unsqueeze", "i axes", "from"), node("Unsqueeze", "end axes", "to"), node("Slice", "xs from to", "cut"),
                        node("ReduceSum", "cut axes", "x", keepdims=0), node("Add", "s x", "s_out"), node("Identity", "x", "y")], ["s"], ["y"], {"axes": np.array([0]), "two": np.array(2)})  # fmt: skip
    yield "windows", model([node("Loop", "n go0 s0", "s1 ys", body=window)], inputs, ends, {"n": np.array(6), "go0": np.array(True)}), x
    inner = loop_body([node("Mul", "r half", "r_out"), node("Identity", "r_out", "z")], ["r"], ["z"], {"half": np.float32(0.5)})
    for name in ("i", "go"):
        for k, v in enumerate(inner.input):
            if v.name == name:
                inner.input[k].name = f"{name}2"
    inner.output[0].name = "go2"
    nested = loop_body([node("Gather", "xs i", "x"), node("Add", "s x", "start"), node("Loop", "three go start", "s_out zs", body=inner), node("ReduceSum", "zs axes", "y", keepdims=0)],
                       ["s"], ["y"], {"three": np.array(3), "axes": np.array([0])})  # fmt: skip
    yield "nested", model([node("Loop", "n go0 s0", "s1 ys", body=nested)], inputs, ends, {"n": np.array(4), "go0": np.array(True)}), x
    add, sub = (graph([node(op, "s x", f"{op}_s")], [], [value(f"{op}_s")]) for op in ("Add", "Sub"))
    choosing = loop_body([node("Gather", "xs i", "x"), node("ReduceSum", "x", "total", keepdims=0), node("Greater", "total none", "up"),
                          node("If", "up", "s_out", then_branch=add, else_branch=sub), node("Tanh", "s_out", "y")], ["s"], ["y"], {"none": np.float32(0)})  # fmt: skip
    chosen = model([node("Loop", "n go0 s0", "s1 ys", body=choosing)], inputs, ends, {"n": np.array(7), "go0": np.array(True)})
    yield "choosing", chosen, x
    other = graph([node("Neg", "s0", "neg"), node("Mul", "xs xs", "sq")], [], [value("neg"), value("sq")])
    branch = graph([node("Loop", "n go0 s0", "s1 ys", body=choosing)], [], ends)
    yield (
        "chosen",
        model(
            [node("If", "flag", "last all", then_branch=branch, else_branch=other)],
            [*inputs, value("flag", BOOL, [])],
            [value("last"), value("all")],
            {"n": np.array(7), "go0": np.array(True)},
        ),
        {**x, "flag": np.array(True)},
    )
    counting = loop_body(
        [node("Add", "k one", "k_out"), node("Less", "k_out five", "more")], ["k"], [], {"one": np.array(1), "five": np.array(5)}, "more", {"k": INT}
    )
    steps = [
        helper.make_node("Loop", ["", "go0", "k0"], ["k1"], body=counting),
        node("Unsqueeze", "k1 axes", "count"),
        node("Slice", "xs zeros count", "s1"),
    ]
    yield (
        "counted",
        model(steps, inputs[:1], ends[:1], {"go0": np.array(True), "k0": np.array(0), "axes": np.array([0]), "zeros": np.array([0])}),
        {"xs": x["xs"]},
    )


CASES = {name: rest for make in (scans, loops) for name, *rest in make()}
