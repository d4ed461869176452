"""ONNX models that tests start from: helpers to write them, and small ones that are right."""

import numpy as np
from onnx import TensorProto, helper, numpy_helper


def value(name, *dims, dtype=TensorProto.FLOAT):
    """A declared value; no dims: a scalar."""
    return helper.make_tensor_value_info(name, dtype, list(dims))


def build(nodes, inputs=None, outputs=None, weights=(), opset=13, **fields):
    """A model; x (B, 3) -> y (B, ?) unless said."""
    tensors = [numpy_helper.from_array(np.asarray(a), n) for n, a in dict(weights).items()]
    graph = helper.make_graph(
        nodes, "g", [value("x", "B", 3)] if inputs is None else inputs, [value("y", "B", None)] if outputs is None else outputs, tensors
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8, **fields)


def branch(op, source="s"):
    """A branch of one node."""
    return helper.make_graph([helper.make_node(op, [source], [f"{op}.out"])], op, [], [value(f"{op}.out")])


def draw(*shape):
    """Float32 numbers, the same every time."""
    return np.random.default_rng(len(shape) + sum(shape)).standard_normal(shape).astype(np.float32)


def small():
    """A GRU behind a transposition, with an If at its end: what truncations and flips start from."""
    weights = {"w": draw(1, 6, 3), "r": draw(1, 6, 2), "axes": np.array([1]), "flag": np.array(True)}
    nodes = [
        helper.make_node("GRU", ["x", "w", "r"], ["h", ""], "gru", hidden_size=2, linear_before_reset=1),
        helper.make_node("Squeeze", ["h", "axes"], ["s"], "squeeze"),
        helper.make_node("If", ["flag"], ["y"], "choice", then_branch=branch("Relu"), else_branch=branch("Tanh")),
    ]
    return build(nodes, [value("x", "T", "B", 3)], [value("y", "T", "B", 2)], weights)


def recurrent():
    """An LSTM with every attribute and input, and an RNN behind it."""
    weights = {
        "w": draw(2, 16, 3),
        "r": draw(2, 16, 4),
        "b": draw(2, 32),
        "p": draw(2, 12),
        "w2": draw(1, 5, 8),
        "r2": draw(1, 5, 5),
        "shape": np.array([0, 0, 8]),
    }
    names = ["Sigmoid", "Tanh", "HardSigmoid"] * 2
    nodes = [
        helper.make_node(
            "LSTM",
            ["x", "w", "r", "b", "", "h0", "c0", "p"],
            ["a", "h", "c"],
            "lstm",
            hidden_size=4,
            direction="bidirectional",
            clip=2.0,
            activations=names,
            activation_alpha=[0.3, 0.3],
            activation_beta=[0.4, 0.4],
            input_forget=1,
        ),
        helper.make_node("Transpose", ["a"], ["t"], perm=[0, 2, 1, 3]),
        helper.make_node("Reshape", ["t", "shape"], ["f"], "reshape"),
        helper.make_node("RNN", ["f", "w2", "r2"], ["", "y"], "rnn", hidden_size=5, activations=["Relu"], direction="reverse"),
    ]
    return build(
        nodes, [value("x", "T", "B", 3), value("h0", 2, "B", 4), value("c0", 2, "B", 4)], [value("y", 1, "B", 5), value("h", 2, "B", 4)], weights
    )


def shapes():
    """Ops that work on shapes and indices, and a decision on data."""
    weights = {
        "k": draw(4, 2, 3),
        "kb": draw(4),
        "m": draw(4, 2),
        "one": np.array([1]),
        "zero": np.array([0]),
        "two": np.array([2]),
        "i": np.array([1, 0]),
        "pads": np.array([0, 0, 1, 0, 0, 1]),
        "minus": np.array([-1]),
    }
    nodes = [
        helper.make_node("Pad", ["x", "pads"], ["p"], mode="edge"),
        helper.make_node("Conv", ["p", "k", "kb"], ["c"], "conv", kernel_shape=[3]),
        helper.make_node("Transpose", ["c"], ["t"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["t", "m"], ["d"], "matmul"),
        helper.make_node("Slice", ["d", "zero", "two", "one"], ["s"], "slice"),
        helper.make_node("Gather", ["s", "i"], ["g"], "gather", axis=2),
        helper.make_node("Shape", ["g"], ["n"]),
        helper.make_node("Gather", ["n", "zero"], ["b"], axis=0),
        helper.make_node("Concat", ["b", "minus"], ["to"], axis=0),
        helper.make_node("Reshape", ["g", "to"], ["f"], "reshape"),
        helper.make_node("Split", ["f"], ["q", "r"], "split", axis=1),
        helper.make_node("ReduceSum", ["q"], ["sum"], keepdims=0),
        helper.make_node("Less", ["sum", "kb0"], ["flag"]),
        helper.make_node("If", ["flag"], ["y"], "choice", then_branch=branch("Exp", "q"), else_branch=branch("Neg", "r")),
    ]
    return build(nodes, [value("x", "B", 2, 5)], [value("y", "B", 2)], {**weights, "kb0": np.float32(0.5)})


def attributes():
    """Opset 9, where axes are attributes; constants, a softmax and a normalisation."""
    constant = helper.make_node("Constant", [], ["k"], value=numpy_helper.from_array(draw(3), "k"))
    fill = helper.make_node("ConstantOfShape", ["n"], ["ones"], value=numpy_helper.from_array(np.float32([1])))
    nodes = [
        constant,
        helper.make_node("Mul", ["x", "k"], ["a"]),
        helper.make_node("Unsqueeze", ["a"], ["u"], axes=[1]),
        helper.make_node("Squeeze", ["u"], ["v"], axes=[1]),
        helper.make_node("Slice", ["v"], ["s"], starts=[0], ends=[2], axes=[1]),
        helper.make_node("BatchNormalization", ["s", "g", "o", "m", "v2"], ["n0"], epsilon=1e-3),
        fill,
        helper.make_node("Add", ["n0", "ones"], ["e"]),
        helper.make_node("Gemm", ["e", "w", "b"], ["z"], alpha=0.5, beta=2.0, transB=1),
        helper.make_node("Clip", ["z"], ["l"], min=-1.0, max=1.0),
        helper.make_node("Softmax", ["l"], ["y"], axis=1),
    ]
    two = {name: np.abs(draw(2)) for name in ("g", "o", "m", "v2")}
    return build(nodes, weights={**two, "w": draw(4, 2), "b": draw(4), "n": np.array([2])}, opset=9)


GOOD = {"small": small, "recurrent": recurrent, "shapes": shapes, "attributes": attributes}
