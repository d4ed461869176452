"""Graphs that are legal and odd, and constants that make no sense: each once gave a wrong answer, read past an array, or a bare exception."""

import numpy as np
import pytest

import fastrnn as fr
from fastrnn.kernels.reference import evaluate
from fastrnn.model import Graph, Model, Node, State, Value
from fastrnn.model.ops import Spec

RANDOM = np.random.default_rng(0)


def noise(*shape):
    return RANDOM.standard_normal(shape).astype(np.float32)


def whole(*values):
    return np.array(values, np.int64)


def model(inputs, outputs, nodes, weights=None, states=()):
    return Model(
        tuple(Value(n, "float32" if len(rest) == 1 else rest[1], rest[0]) for n, *rest in inputs),
        tuple(outputs),
        tuple(Node(op, name, tuple(i), tuple(o), dict(*a)) for op, name, i, o, *a in nodes),
        weights or {},
        states,
    )


def agrees(graph, inputs):
    """Native and NumPy against float64; integers exactly."""
    wanted = evaluate(graph, inputs)
    for backend in ("native", "reference"):
        got = fr.compile(graph, backend=backend).run(inputs)
        for name, want in wanted.items():
            assert got[name].dtype.kind == want.dtype.kind and got[name].shape == want.shape
            np.testing.assert_allclose(got[name], want, rtol=1e-5, atol=1e-5)


X = ("x", ("A", "B"))


@pytest.mark.parametrize("rank", [9, 12, 16, 40])
def test_no_value_has_more_axes_than_the_executor_holds(rank):
    relu = [("Relu", "r", ["x"], ["y"])]
    for build in (lambda: model([X], ["y", "w"], relu, {"w": np.ones((1,) * rank, np.float32)}), lambda: model([("x", ("N",) * rank)], ["y"], relu)):
        with pytest.raises(fr.UnsupportedModelError, match=f"{rank} dimensions"):
            build()


def test_a_convolution_whose_windows_and_results_do_not_walk_together():
    agrees(
        model(
            [("x", ("N", 3, "H", "W")), ("z", ("N", 1, 1, "V"))],
            ["y"],
            [("Conv", "c", ["x", "w"], ["t"], {"strides": [1, 2]}), ("Concat", "cc", ["t", "z"], ["y"], {"axis": 2})],
            {"w": noise(1, 3, 1, 1)},
        ),
        {"x": noise(2, 3, 4, 5), "z": noise(2, 1, 1, 3)},
    )
    agrees(
        model(
            [("x", ("N", 3, "H", "W")), ("z", ("N", "P", "V", 4))],
            ["y"],
            [
                ("Conv", "c", ["x", "w"], ["t"], {"strides": [1, 2]}),
                ("Transpose", "n", ["t"], ["s"], {"perm": [0, 2, 3, 1]}),
                ("Concat", "cc", ["s", "z"], ["y"], {"axis": 1}),
            ],
            {"w": noise(4, 3, 2, 1)},
        ),
        {"x": noise(2, 3, 4, 5), "z": noise(2, 1, 3, 4)},
    )


def test_products_and_lookups_whose_rows_do_not_walk_together():
    agrees(
        model(
            [("x", (2, 3, 4, 5))],
            ["y"],
            [
                ("Slice", "s", ["x", "zero", "three", "two"], ["t"]),
                ("MatMul", "m", ["t", "w"], ["p"]),
                ("Concat", "c", ["p", "k"], ["y"], {"axis": 1}),
            ],
            {"zero": whole(0), "three": whole(3), "two": whole(2), "w": noise(5, 3), "k": noise(2, 1, 3, 3)},
        ),
        {"x": noise(2, 3, 4, 5)},
    )
    agrees(
        model(
            [("i", ("A", "B", "C"), "int64")],
            ["y"],
            [("Transpose", "t", ["i"], ["j"], {"perm": [1, 0, 2]}), ("Gather", "g", ["w", "j"], ["y"])],
            {"w": noise(6, 3)},
        ),
        {"i": RANDOM.integers(0, 6, (2, 3, 4))},
    )
    agrees(
        model(
            [("x", (4, 3, 0))], ["y"], [("Transpose", "t", ["x"], ["s"], {"perm": [1, 0, 2]}), ("MatMul", "m", ["s", "w"], ["y"])], {"w": noise(0, 5)}
        ),
        {"x": noise(4, 3, 0)},
    )
    agrees(
        model(
            [("x", (2, 0, 4, 5))],
            ["y"],
            [("Transpose", "t", ["x"], ["s"], {"perm": [2, 1, 0, 3]}), ("MatMul", "m", ["s", "w"], ["y"])],
            {"w": noise(5, 3)},
        ),
        {"x": noise(2, 0, 4, 5)},
    )


def test_a_reflection_sees_what_a_cut_left():
    graph = model([("x", ("N",))], ["y"], [("Relu", "r", ["x"], ["t"]), ("Pad", "p", ["t", "k"], ["y"], {"mode": "reflect"})], {"k": whole(-3, 3)})
    with pytest.raises(fr.ShapeError, match="reflect cannot make 3 from an axis of 2"):
        fr.compile(graph)(noise(5))
    agrees(graph, {"x": noise(9)})
    with pytest.raises(fr.ShapeError, match="cutting"):
        fr.compile(model([("x", ("N",))], ["y"], [("Pad", "p", ["x", "k"], ["y"])], {"k": whole(-5, 4)}))(noise(3))


@pytest.mark.parametrize("mode", ["reflect", "edge", "wrap", "constant"])
def test_an_empty_axis_that_is_not_padded(mode):
    graph = model([("x", ("N", 4))], ["y"], [("Pad", "p", ["x", "k"], ["y"], {"mode": mode})], {"k": whole(0, 1, 0, 2)})
    assert fr.compile(graph)(noise(0, 4)).shape == (0, 7)
    agrees(graph, {"x": noise(3, 4)})
    if mode != "constant":
        with pytest.raises(fr.ShapeError, match="cannot make 1 from an axis of 0"):
            fr.compile(model([("x", ("N",))], ["y"], [("Pad", "p", ["x", "k"], ["y"], {"mode": mode})], {"k": whole(1, 0)}))(noise(0))


def test_a_bias_behind_a_scaled_gemm_is_not_scaled():
    for factors in ({"beta": 0.5}, {"alpha": 2.0}, {}):
        agrees(
            model([X], ["y"], [("Gemm", "g", ["x", "w"], ["t"], factors), ("Add", "a", ["t", "b"], ["y"])], {"w": noise(3, 4), "b": noise(4)}),
            {"x": noise(2, 3)},
        )


def test_an_unread_identity_fills_no_omitted_input():
    agrees(
        model(
            [X],
            ["y"],
            [("Identity", "i", ["x"], [""]), ("Cast", "k", ["x"], [""], {"to": "float32"}), ("Gemm", "c", ["x", "w", ""], ["y"])],
            {"w": noise(3, 3)},
        ),
        {"x": noise(2, 3)},
    )


def test_an_unread_output_of_an_if_is_no_weight():
    """The If's second output is read by nobody; the layer omits its bias."""
    branches = {
        key: Graph((Node("Neg", f"{key}.a", ("x",), (f"{key}.y",)), Node("Relu", f"{key}.b", ("x",), (f"{key}.z",))), (f"{key}.y", f"{key}.z"))
        for key in ("then_branch", "else_branch")
    }
    graph = model(
        [("x", (5, 2, 3)), ("c", (), "bool"), ("h0", (1, 2, 8))],
        ["y", "h"],
        [("If", "i", ["c"], ["y", "z"], branches), ("LSTM", "l", ["x", "w", "r", "", "", "h0"], ["", "h"])],
        {"w": noise(1, 32, 3), "r": noise(1, 32, 8) / 4},
    )
    agrees(graph, {"x": noise(5, 2, 3), "c": np.array(True), "h0": noise(1, 2, 8)})


def test_symbols_go_through_casts_without_changing_dtype():
    first = [("Shape", "s", ["x"], ["n"])]
    for dtype, last in (("float32", ("Mul", "m", ["k", "half"], ["y"])), ("int32", ("Identity", "m", ["k"], ["y"]))):
        agrees(
            model(
                [("x", ("B", 5))],
                ["y"],
                [*first, ("Cast", "c", ["n"], ["f"], {"to": dtype}), ("Gather", "g", ["f", "one"], ["k"]), last],
                {"one": whole(1), "half": np.float32([0.5])},
            ),
            {"x": noise(2, 5)},
        )
    agrees(model([("x", ("B", "C"))], ["y"], [*first, ("Gather", "g", ["t", "n"], ["y"])], {"t": whole(9, 8, 7, 6)}), {"x": noise(2, 3)})


def test_large_integers_fill_exactly():
    agrees(
        model(
            [("i", (1,), "int64")],
            ["a", "b"],
            [("Pad", "p", ["i", "k", "u"], ["a"]), ("Pad", "q", ["i", "k", "v"], ["b"])],
            {"k": whole(1, 0), "u": np.array(2**53), "v": np.array(2**53 + 1)},
        ),
        {"i": whole(1)},
    )


def test_an_index_binds_only_the_part_of_an_input_that_is_one():
    graph = model([("i", (2, "N"), "int64")], ["a", "b"], [("Gather", "g0", ["i", "zero"], ["i0"]), ("Gather", "g1", ["i", "one"], ["i1"]),
                                                           ("Gather", "ga", ["ta", "i0"], ["a"]),
                                                           ("Gather", "gb", ["tb", "i1"], ["b"])], {"zero": np.array(0), "one": np.array(1), "ta": noise(100, 3), "tb": noise(2, 3)})  # fmt: skip
    agrees(graph, {"i": np.array([[50, 7], [1, 0]])})
    with pytest.raises(fr.ShapeError, match="'gb'.*7 is outside -2..1"):
        fr.compile(graph).run({"i": np.array([[1, 0], [50, 7]])[:, ::1]} | {"i": np.array([[1, 0], [0, 7]])})


def test_norm_parameters_of_another_dtype():
    parameters = {
        "s": RANDOM.uniform(1, 2, 3),
        "b": RANDOM.uniform(1, 2, 3),
        "m": RANDOM.uniform(1, 2, 3),
        "v": RANDOM.uniform(1, 2, 3),
        "w": noise(3, 3, 2),
    }
    for first in ([], [("Conv", "c", ["x", "w"], ["t"])]):
        agrees(
            model(
                [("x", ("N", 3, "L"))], ["y"], [*first, ("BatchNormalization", "n", ["t" if first else "x", "s", "b", "m", "v"], ["y"])], parameters
            ),
            {"x": noise(2, 3, 4)},
        )


def test_a_transposed_convolution_of_nothing():
    graph = model([("x", (1, 1, "L"))], ["y"], [("ConvTranspose", "c", ["x", "w"], ["y"], {"pads": [1, 2], "dilations": [3]})], {"w": noise(1, 2, 4)})
    agrees(graph, {"x": noise(1, 1, 0)})
    agrees(graph, {"x": noise(1, 1, 3)})


LSTM = ("LSTM", "l", ["x", "w", "r"], ["Y"], {"torch_form": 1})


def test_streams_refuse_what_sets_time_against_another_axis():
    """A sum whose operands have time at different places, and a Reshape that moves elements between steps."""
    weights = {"w": noise(1, 16, 3), "r": noise(1, 16, 4)}
    crossed = model([("x", ("T", "B", 3)), ("m", ("T", 4))], ["o"], [LSTM, ("Add", "a", ["Y", "m"], ["o"])], weights)
    with pytest.raises(fr.NotStreamableError, match="'a'"):
        fr.compile(crossed).stream(3)
    moved = model([("x", ("T", "B", 3))], ["o"], [("Transpose", "t", ["x"], ["b"], {"perm": [1, 0, 2]}),
                                                  ("LSTM", "l", ["b", "w", "r"], ["Y"], {"torch_form": 1, "layout": 1}),
                                                  ("Reshape", "s", ["Y", "k"], ["o"])], weights | {"k": whole(4, 0, -1)})  # fmt: skip
    with pytest.raises(fr.NotStreamableError, match="'s'"):
        fr.compile(moved).stream(1)
    kept = model([("x", ("T", "B", 3))], ["o"], [LSTM, ("Reshape", "s", ["Y", "k"], ["o"])], weights | {"k": whole(0, -1, 2)})
    x, session = noise(5, 2, 3), fr.compile(kept)
    stream = session.stream(2)
    assert np.array_equal(np.stack([stream.step(t) for t in x]), session(x))


def test_a_failed_first_step_leaves_a_stream_that_works():
    graph = model(
        [("x", ("B", "F")), ("a", ("B", 2)), ("b", ("B", 8))],
        ["y", "a2", "b2"],
        [("Neg", "n", ["x"], ["y"]), ("Relu", "r", ["a"], ["a2"]), ("Add", "p", ["x", "one"], ["b2"])],
        {"one": np.float32([1])},
        (State("a", "a2"), State("b", "b2")),
    )
    stream = fr.compile(graph).stream()
    with pytest.raises(fr.NotStreamableError):
        stream.step(noise(1, 5))
    x = noise(1, 8)
    assert np.array_equal(stream.step(x), -x) and np.array_equal(stream.state["b"], x + 1)


NONSENSE = {  # nodes over x (A, B) with constants k and w
    "split_into_too_many": ([("Split", "n", ["x"], ["y"], {"num_outputs": 2**40})], {}),
    "scale_missing": ([("LayerNormalization", "n", ["x", ""], ["y"])], {}),
    "starts_missing": ([("Slice", "n", ["x", "", "k"], ["y"])], {"k": whole(1)}),
    "pad_with_no_value": ([("Pad", "n", ["x", "k", "e"], ["y"])], {"k": whole(1, 1, 1, 1), "e": np.zeros(0, np.float32)}),
    "identity_of_nothing": ([("Identity", "n", [""], ["y"])], {}),
    "constant_of_shape_dtype": ([("ConstantOfShape", "n", ["k"], ["y"], {"dtype": "complex64"})], {"k": whole(1)}),
    **{f"{op}_scalar": ([(op, "n", ["x", "k"], ["y"])], {"k": np.array(1)}) for op in ("Tile", "Pad", "Expand", "Split")},
    **{f"{op}_matrix": ([(op, "n", ["x", "k"], ["y"])], {"k": whole([[0, 1]]).reshape(1, 2)}) for op in ("Squeeze", "Unsqueeze", "Reshape")},
    "slice_scalars": ([("Slice", "n", ["x", "k", "k"], ["y"])], {"k": np.array(1)}),
    "shape_scalar": ([("ConstantOfShape", "n", ["k"], ["y"])], {"k": np.array(1)}),
    "range_vectors": ([("Range", "n", ["k", "k", "k"], ["y"])], {"k": whole(1, 2)}),
    # behind a Squeeze without axes nothing is known of x: weights must not be packed before they are checked
    **{
        f"{op}_{shape}".replace(" ", ""): (
            [("Squeeze", "q", ["x"], ["u"]), (op, "n", ["u", "w", *more], ["y"], attributes)],
            {"w": noise(*shape), "r": noise(1, 4, 1), "b": noise(3)},
        )
        for op, shape, more, attributes in (
            ("LSTM", (4,), ["r"], {}),
            ("LSTM", (1, 7, 3), ["r"], {}),
            ("Gemm", (4,), [], {}),
            ("Gemm", (4,), ["b"], {}),
            ("Conv", (4, 1, 2), [], {"group": 3}),
            ("Conv", (4, 1, 2), [], {"group": 0}),
        )
    },
    "norm_of_two_lengths": (
        [("Squeeze", "q", ["x"], ["u"]), ("BatchNormalization", "n", ["u", "w", "b", "w", "w"], ["y"])],
        {"w": noise(4), "b": noise(3)},
    ),
}


@pytest.mark.parametrize("name", NONSENSE)
@pytest.mark.parametrize("backend", ["native", "reference"])
def test_nonsense_is_refused_with_a_typed_error(name, backend):
    nodes, weights = NONSENSE[name]
    with pytest.raises(fr.FastRNNError):
        fr.compile(model([X], ["y"], nodes, weights), backend=backend).run({"x": noise(2, 3)})


def test_a_branch_that_cannot_fit_is_left_alone_until_it_matters():
    fits = Graph((Node("Tanh", "t", ("x",), ("e",)),), ("e",))
    unfit = Graph((Node("Add", "a", ("x", "w5"), ("a0",)), Node("Pow", "p", ("a0", "two"), ("p0",))), ("p0",))
    nodes = Node("Greater", "above", ("level", "zero"), ("c",)), Node("If", "i", ("c",), ("y",), {"then_branch": unfit, "else_branch": fits})
    graph = Model(
        (Value("x", "float32", ("A", 4)), Value("level", "float32", ())),
        ("y",),
        nodes,
        {"w5": noise(5), "two": np.float32([2]), "zero": np.float32(0)},
    )
    with pytest.raises(fr.UnsupportedModelError, match="'i'.*constants="):
        fr.compile(graph).run({"x": noise(2, 4), "level": np.float32(-1)})
    x = noise(2, 4)
    np.testing.assert_allclose(fr.compile(graph, constants={"level": np.array(-1, np.float32)})(x), np.tanh(x), rtol=1e-6)


def test_models_that_cannot_be_stated():
    relu = [("Relu", "r", ["x"], ["y"])]
    for dims in ((None, 2), (-1, 2), (2.5,), (True,)):
        with pytest.raises(fr.InvalidModelError, match="dimension"):
            model([("x", dims)], ["y"], relu)
    with pytest.raises(fr.InvalidModelError, match="without a shape"):
        Model((Value("x", "float32", (2,)),), ("y",), (Node("Relu", "r", ("x",), ("y",)),), {}, declared={"y": Spec("float32", None)})
    with pytest.raises(fr.ShapeError, match="left out"):
        graph = Model((Value("x", "float32", (2,)), Value("o", "float32", (2,), optional=True), Value("c", "bool", ())), ("y",),
                      (Node("If", "i", ("c",), ("y",), {"then_branch": Graph((Node("Identity", "a", ("o",), ("p",)),),
                                                                             ("p",)), "else_branch": Graph((Node("Relu", "b", ("x",), ("q",)),),
                                                                                                           ("q",))}),), {})  # fmt: skip
        fr.compile(graph).run({"x": noise(2), "c": np.array(True)})


@pytest.mark.parametrize("name", ["__metadata__", "\ud800"])
def test_names_that_a_file_cannot_hold(name, tmp_path):
    graph = model([("x", (2,))], ["y"], [("Add", "a", ["x", name], ["y"])], {name: noise(2)})
    with pytest.raises(fr.UnsupportedModelError, match="name"):
        graph.save(tmp_path / "m.safetensors")
    assert not list(tmp_path.iterdir())
