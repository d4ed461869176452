"""Dtypes of ONNX files, weights in other forms, and files as exporters write them."""

import dataclasses
import warnings

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from oracles import ort_is_exact
from row import agree, ort

import fastrnn as fr
from fastrnn.cli.main import main

RANDOM = np.random.default_rng(0)
H, I = 5, 4


def weight(*shape):
    return RANDOM.uniform(-0.5, 0.5, shape).astype(np.float32)


def value(name, dtype, *shape):
    return helper.make_tensor_value_info(name, dtype, shape)


def build(nodes, inputs, outputs, weights=(), opset=17, **fields):
    tensors = [w if isinstance(w, TensorProto) else numpy_helper.from_array(np.asarray(w), n) for n, w in dict(weights).items()]
    return helper.make_model(
        helper.make_graph(nodes, "g", inputs, outputs, tensors), opset_imports=[helper.make_opsetid("", opset)], ir_version=8, **fields
    )


def stored(name, array, kind):
    """A tensor in 16 bits, and the float32 that it stands for."""
    tensor = helper.make_tensor(name, kind, array.shape, array.ravel())
    return tensor, numpy_helper.to_array(tensor).astype(np.float32)


def lstm_in_16_bits(kind, whole):
    """An LSTM whose weights have 16 bits: cast to float32, or (whole) everything in 16 bits. And the model in float32."""
    arrays = {"W": weight(1, 4 * H, I), "R": weight(1, 4 * H, H), "B": weight(1, 8 * H)}
    tensors = {name: stored(name, a, kind) for name, a in arrays.items()}
    dtype = kind if whole else TensorProto.FLOAT
    ends = [value("x", dtype, "T", "B", I)], [value("y", dtype, "T", 1, "B", H)]
    cast = [] if whole else [helper.make_node("Cast", [n], [f"{n}32"], to=TensorProto.FLOAT) for n in arrays]
    names = list(arrays) if whole else [f"{n}32" for n in arrays]
    node = helper.make_node("LSTM", ["x", *names], ["y"], "lstm", hidden_size=H)
    small = build([*cast, node], *ends, {n: t for n, (t, _) in tensors.items()})
    plain = build(
        [helper.make_node("LSTM", ["x", *arrays], ["y"], "lstm", hidden_size=H)],
        [value("x", TensorProto.FLOAT, "T", "B", I)],
        [value("y", TensorProto.FLOAT, "T", 1, "B", H)],
        {n: a for n, (_, a) in tensors.items()},
    )
    return small, plain


@pytest.mark.parametrize("kind", [TensorProto.FLOAT16, TensorProto.BFLOAT16])
@pytest.mark.parametrize("whole", [False, True])
def test_floats_of_16_bits_are_widened_exactly(kind, whole, tmp_path, capsys):
    small, plain = lstm_in_16_bits(kind, whole)
    x = RANDOM.standard_normal((6, 3, I)).astype(np.float32)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        model = fr.from_onnx(small)
    assert bool(said) == whole and all("'x', 'y'" in str(w.message) for w in said)
    assert np.array_equal(fr.compile(model)(x), fr.compile(fr.from_onnx(plain))(x)) and model.inputs[0].dtype == "float32"
    agree([fr.compile(model)(x)], ort(plain, {"x": x}), 2e-6)
    onnx.save(small, tmp_path / "m.onnx")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert main(["inspect", str(tmp_path / "m.onnx")]) == 0
    shown = capsys.readouterr().out
    assert "float32" in shown and "float16" not in shown


def test_floats_of_16_bits_in_another_file(tmp_path):
    small, plain = lstm_in_16_bits(TensorProto.FLOAT16, False)
    onnx.save(small, tmp_path / "m.onnx", save_as_external_data=True, size_threshold=0, location="w.bin")
    x = RANDOM.standard_normal((6, 3, I)).astype(np.float32)
    assert np.array_equal(fr.compile(fr.load(tmp_path / "m.onnx"))(x), fr.compile(fr.from_onnx(plain))(x))


def test_doubles_stay_doubles_but_for_recurrent_layers():
    names = ["x", "w"]
    model = build(
        [helper.make_node("MatMul", names, ["p"]), helper.make_node("Tanh", ["p"], ["y"])],
        [value("x", TensorProto.DOUBLE, "B", 3)],
        [value("y", TensorProto.DOUBLE, "B", 2)],
        {"w": RANDOM.standard_normal((3, 2))},
    )
    x = RANDOM.standard_normal((4, 3))
    got = fr.compile(fr.from_onnx(model))(x)
    assert got.dtype == np.float64
    np.testing.assert_allclose(got, ort(model, {"x": x})[0], rtol=1e-12)
    weights = {"W": weight(1, 3 * H, I).astype(np.float64), "R": weight(1, 3 * H, H).astype(np.float64)}
    gru = build(
        [helper.make_node("GRU", ["x", "W", "R"], ["y"], "gru", hidden_size=H)],
        [value("x", TensorProto.DOUBLE, "T", "B", I)],
        [value("y", TensorProto.DOUBLE, "T", 1, "B", H)],
        weights,
    )
    with pytest.raises(fr.UnsupportedModelError, match="'gru'.*float32, got float64"):
        fr.from_onnx(gru)


def test_integers_bytes_and_bools_beside_floats():
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["e"]),
        helper.make_node("Cast", ["bytes"], ["b"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["e", "b"], ["s"]),
        helper.make_node("Where", ["mask", "s", "e"], ["y"]),
        helper.make_node("Identity", ["ids"], ["same"]),
    ]
    model = build(
        nodes,
        [value("ids", TensorProto.INT64, "B"), value("bytes", TensorProto.UINT8, "B", 3), value("mask", TensorProto.BOOL, "B", 1)],
        [value("y", TensorProto.FLOAT, "B", 3), value("same", TensorProto.INT64, "B")],
        {"table": weight(6, 3)},
    )
    feed = {"ids": np.array([5, 0]), "bytes": np.array([[1, 2, 3], [255, 0, 9]], np.uint8), "mask": np.array([[True], [False]])}
    agree(fr.compile(fr.from_onnx(model)).run(feed).values(), ort(model, feed))


@pytest.mark.parametrize("cut", [2, 3])
def test_weights_cut_and_joined_inside_a_branch(cut):
    """As torch writes layers within a branch: gates in another order, joined from slices, the branch taken by a constant or by data."""
    source = {"w": weight(1, 3 * H, I), "r": weight(1, 3 * H, H), "b": weight(1, 6 * H)}
    bounds = {f"n{k}": np.array([k * H]) for k in range(7)} | {"axis": np.array([1])}
    slices = lambda name, *order: [helper.make_node("Slice", [name, f"n{k}", f"n{k + 1}", "axis"], [f"{name}.{k}"]) for k in order]
    joined = lambda name, *order: [*slices(name, *order), helper.make_node("Concat", [f"{name}.{k}" for k in order], [f"{name}.all"], axis=1)]
    layer = helper.make_node("GRU", ["x", "w.all", "r.all", "b.all", "", "h0"], ["ys", "h"], "gru", hidden_size=H, linear_before_reset=1)
    zeros = helper.make_node("ConstantOfShape", ["sizes"], ["h0"])
    branch = helper.make_graph(
        [*joined("w", 1, 0, 2), *joined("r", 1, 0, 2), *joined("b", 1, 0, 2, 4, 3, 5), layer], "then", [], [value("h", TensorProto.FLOAT, 1, "B", H)]
    )
    other = helper.make_graph([helper.make_node("Neg", ["h0"], ["n"])], "else", [], [value("n", TensorProto.FLOAT, 1, "B", H)])
    choice = helper.make_node("If", ["flag"], ["y"], then_branch=branch, else_branch=other)
    inputs = [value("x", TensorProto.FLOAT, "T", cut, I), *([] if cut == 2 else [value("flag", TensorProto.BOOL)])]
    model = build(
        [choice, zeros],
        inputs,
        [value("y", TensorProto.FLOAT, 1, cut, H)],
        {**source, **bounds, "sizes": np.array([1, cut, H]), **({"flag": np.array(True)} if cut == 2 else {})},
    )
    ordered = build(
        [zeros, choice], inputs, [value("y", TensorProto.FLOAT, 1, cut, H)], {i.name: numpy_helper.to_array(i) for i in model.graph.initializer}
    )
    x = RANDOM.standard_normal((4, cut, I)).astype(np.float32)
    for flag in (True,) if cut == 2 else (True, False):
        feed = {"x": x} | ({} if cut == 2 else {"flag": np.array(flag)})
        agree(fr.compile(fr.from_onnx(model)).run(feed).values(), ort(ordered, feed))


@pytest.mark.parametrize("weights", ["signed", "signed of 7 bits", "unsigned"])
@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
def test_lstms_with_bytes_for_weights(tmp_path, direction, weights):
    """As ONNX Runtime's quantizer writes them. X, all of a call, and H, all rows of a step, are rounded to bytes as DynamicQuantizeLinear does, and sums are exact:
    written out here, and ONNX Runtime's own where its products are exact."""
    from onnxruntime.quantization import quantize_dynamic

    D = 2 if direction == "bidirectional" else 1
    arrays = {"W": weight(D, 4 * H, I), "R": weight(D, 4 * H, H), "B": weight(D, 8 * H)}
    model = build(
        [helper.make_node("LSTM", ["x", *arrays], ["y", "h", "c"], "lstm", hidden_size=H, direction=direction)],
        [value("x", TensorProto.FLOAT, "T", "B", I)],
        [value("y", TensorProto.FLOAT, "T", D, "B", H), value("h", TensorProto.FLOAT, D, "B", H), value("c", TensorProto.FLOAT, D, "B", H)],
        arrays,
    )
    onnx.save(model, tmp_path / "float.onnx")
    quantize_dynamic(tmp_path / "float.onnx", tmp_path / "bytes.onnx", op_types_to_quantize=["LSTM"], reduce_range="7 bits" in weights)
    proto = onnx.load(tmp_path / "bytes.onnx")
    node = next(n for n in proto.graph.node if n.op_type == "DynamicQuantizeLSTM")
    tensors = {t.name: t for t in proto.graph.initializer}
    if weights == "unsigned":  # the quantizer writes signed bytes whatever it is asked for; the same numbers with 128 as their zero
        for at in (1, 2, 9, 11):
            shifted = (numpy_helper.to_array(tensors[node.input[at]]).astype(np.int16) + 128).astype(np.uint8)
            tensors[node.input[at]].CopyFrom(numpy_helper.from_array(shifted, node.input[at]))
        onnx.save(proto, tmp_path / "bytes.onnx")
    whole, scales = {}, {}
    for name, k, scale in (("W", 1, 8), ("R", 2, 10)):
        w, step, zero = (numpy_helper.to_array(tensors[node.input[at]]) for at in (k, scale, scale + 1))
        whole[name], scales[name] = w.astype(np.int64) - zero.astype(np.int64).reshape(D, 1, -1), np.broadcast_to(step.reshape(D, -1), (D, 4 * H))
    x = RANDOM.standard_normal((7, 2, I)).astype(np.float32)
    wanted = [written_out(x if d == 0 else x[::-1], whole["W"][d], scales["W"][d], whole["R"][d], scales["R"][d], arrays["B"][d]) for d in range(D)]
    y = np.stack([y if d == 0 else y[::-1] for d, (y, _, _) in enumerate(wanted)], 1)
    session = fr.compile(fr.load(tmp_path / "bytes.onnx"))
    got = list(session.run({"x": x}).values())
    agree(got, [y, np.stack([h for _, h, _ in wanted]), np.stack([c for _, _, c in wanted])], 2e-5)
    assert "bytes over the whole batch" in session.explain()
    if all(ort_is_exact(numpy_helper.to_array(tensors[node.input[k]])) for k in (1, 2)):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1  # threads share out the rows of a step, and each rounds its own together
        agree(got, onnxruntime.InferenceSession(str(tmp_path / "bytes.onnx"), options, providers=["CPUExecutionProvider"]).run(None, {"x": x}), 2e-5)
    if D == 1:  # a stream rounds each row and step by itself, so its rows are as alone, in any pieces
        session = fr.compile(dataclasses.replace(fr.load(tmp_path / "bytes.onnx"), output_names=("y",)))
        stream, alone, pieces = session.stream(batch=2), session.stream(batch=1), session.stream(batch=1)
        steps = np.stack([stream.step(row) for row in x])
        assert np.array_equal(steps[..., :1, :], np.stack([alone.step(row[:1]) for row in x]))
        assert np.array_equal(steps[..., :1, :], np.concatenate([pieces.push(x[:3, :1]), pieces.push(x[3:, :1])]))


def rounded_to_bytes(x):
    """Numbers as DynamicQuantizeLinear has them, less the zero point, and the scale."""
    low, high = min(x.min(), np.float32(0)), max(x.max(), np.float32(0))
    scale = (high - low) / np.float32(255) or np.float32(1)
    zero = np.clip(np.rint(-low / scale), 0, 255)
    return (np.clip(np.rint(x / scale) + zero, 0, 255) - zero).astype(np.int64), scale


def written_out(x, w, w_scale, r, r_scale, b):
    """y (T, B, H), h and c of one direction, gates in ONNX's order i o f c; sums in whole numbers."""
    q, scale = rounded_to_bytes(x)
    over_x = (q @ w).astype(np.float32) * (scale * w_scale) + b[: 4 * H] + b[4 * H :]
    h = c = np.zeros((x.shape[1], H), np.float32)
    y = []
    for row in over_x:
        q, scale = rounded_to_bytes(h)
        i, o, f, g = np.split(row + (q @ r).astype(np.float32) * (scale * r_scale), 4, axis=-1)
        i, o, f = (1 / (1 + np.exp(-a)) for a in (i, o, f))
        c = f * c + i * np.tanh(g)
        h = o * np.tanh(c)
        y.append(h)
    return np.stack(y), h, c


def test_functions_that_a_file_brings_along():
    body = [helper.make_node("Mul", ["a", "a"], ["sq"]), helper.make_node("Elu", ["sq"], ["out"])]
    body[1].attribute.append(onnx.AttributeProto(name="alpha", ref_attr_name="slope", type=onnx.AttributeProto.FLOAT))
    inner = helper.make_function("own", "Squared", ["a"], ["out"], body, [helper.make_opsetid("", 17)], ["slope"])
    model = build(
        [helper.make_node("Squared", ["x"], ["y"], domain="own", slope=0.5)],
        [value("x", TensorProto.FLOAT, "B", 3)],
        [value("y", TensorProto.FLOAT, "B", 3)],
        functions=[inner],
    )
    model.opset_import.append(helper.make_opsetid("own", 1))
    x = RANDOM.standard_normal((2, 3)).astype(np.float32)
    agree([fr.compile(fr.from_onnx(model))(x)], ort(model, {"x": x}))


def test_functions_cannot_be_used_to_fill_memory():
    chain = [
        helper.make_function(
            "own",
            f"f{k}",
            ["a"],
            ["b"],
            [
                helper.make_node(f"f{k - 1}" if k else "Relu", ["a"], ["m"], domain="own" if k else ""),
                helper.make_node(f"f{k - 1}" if k else "Relu", ["m"], ["b"], domain="own" if k else ""),
            ],
            [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)],
        )
        for k in range(40)
    ]
    model = build(
        [helper.make_node("f39", ["x"], ["y"], domain="own")],
        [value("x", TensorProto.FLOAT, "B", 3)],
        [value("y", TensorProto.FLOAT, "B", 3)],
        functions=chain,
    )
    model.opset_import.append(helper.make_opsetid("own", 1))
    with pytest.raises(fr.UnsupportedModelError, match="functions make"):
        fr.from_onnx(model)
    model.functions[0].node[0].op_type, model.functions[0].node[0].domain = "f39", "own"
    with pytest.raises(fr.InvalidModelError, match="calls itself"):
        fr.from_onnx(model)


def test_what_torch_writes_by_itself(tmp_path):
    """Its newer exporter with weights in a file beside, as it does unless told otherwise: two layers, which it spells out step by step."""
    torch = pytest.importorskip("torch")

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn, self.out = torch.nn.LSTM(I, 8, 2, batch_first=True), torch.nn.Linear(8, 3)

        def forward(self, x):
            return self.out(self.rnn(x)[0])

    torch.manual_seed(0)
    net, x = Net().eval(), torch.randn(2, 6, I)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(net, (x,), tmp_path / "net.onnx", dynamo=True, external_data=True, verbose=False)
    assert (tmp_path / "net.onnx.data").exists()
    session = fr.compile(fr.load(tmp_path / "net.onnx"))
    with torch.no_grad():
        agree([session(x.numpy())], [net(x).numpy()], 2e-6)
    assert sum(node.op == "LSTM" for node in session.plan.model.nodes) == 2


FEW = ["INT4", "UINT4", "INT2", "UINT2", "FLOAT8E4M3FN", "FLOAT8E4M3FNUZ", "FLOAT8E5M2", "FLOAT8E5M2FNUZ", "FLOAT4E2M1"]


def few_bits(kind, n=7):
    """n numbers of few bits, the tensor that stores them and what they are."""
    kind = getattr(TensorProto, kind)
    to = onnx.helper.tensor_dtype_to_np_dtype(kind)
    array = np.round(RANDOM.uniform(0 if "U" in TensorProto.DataType.Name(kind)[:1] else -2, 2, n)).clip(-2, 1).astype(to)
    return numpy_helper.from_array(array, "few"), array.astype(np.float32)


@pytest.mark.parametrize("read", ["Cast", "CastLike", "DequantizeLinear"])
@pytest.mark.parametrize("kind", [k for k in FEW if k in set(TensorProto.DataType.keys())])
def test_numbers_of_few_bits_are_read(kind, read, tmp_path):
    """As weights, in the file and beside it, as constants, and as an input, which is taken in a dtype that holds them all."""
    tensor, wanted = few_bits(kind)
    node = {
        "Cast": helper.make_node("Cast", ["few"], ["f"], to=TensorProto.FLOAT),
        "CastLike": helper.make_node("CastLike", ["few", "x"], ["f"]),
        "DequantizeLinear": helper.make_node("DequantizeLinear", ["few", "scale"], ["f"]),
    }[read]
    nodes, ends = [node, helper.make_node("Add", ["f", "x"], ["y"])], [value("y", TensorProto.FLOAT, 7)]
    x, free, weights = RANDOM.standard_normal(7).astype(np.float32), [value("x", TensorProto.FLOAT, 7)], {"scale": np.float32(0.5)}
    wanted = wanted * (0.5 if read == "DequantizeLinear" else 1) + x
    stored = build(nodes, free, ends, {**weights, "few": tensor}, opset=25)
    constant = build([helper.make_node("Constant", [], ["few"], value=tensor), *nodes], free, ends, weights, opset=25)
    onnx.save(onnx.ModelProto.FromString(stored.SerializeToString()), tmp_path / "beside.onnx", save_as_external_data=True, size_threshold=0)
    for model in (fr.from_onnx(stored), fr.from_onnx(constant), fr.load(tmp_path / "beside.onnx")):
        assert np.array_equal(fr.compile(model)(x), wanted)
    given = build(nodes, [*free, value("few", tensor.data_type, 7)], ends, weights, opset=25)
    with pytest.warns(UserWarning, match="'few' as"):
        model = fr.from_onnx(given)
    array = numpy_helper.to_array(tensor).astype(model.inputs[1].dtype)
    assert np.array_equal(fr.compile(model).run({"x": x, "few": array})["y"], wanted)
    if not kind.startswith("FLOAT"):
        short = onnx.ModelProto.FromString(stored.SerializeToString())
        next(t for t in short.graph.initializer if t.name == "few").dims[0] = 12
        with pytest.raises(fr.InvalidModelError, match="'few'.*do not fit"):
            fr.from_onnx(short)


@pytest.mark.parametrize(
    "nodes,message",
    [
        (
            [helper.make_node("QuantizeLinear", ["x", "scale", "few"], ["q"]), helper.make_node("DequantizeLinear", ["q", "scale"], ["y"])],
            "QuantizeLinear.*'few' is of INT4",
        ),
        ([helper.make_node("Identity", ["few"], ["i"]), helper.make_node("Cast", ["i"], ["y"], to=TensorProto.FLOAT)], "Identity.*'few' is of INT4"),
        (
            [helper.make_node("CastLike", ["x", "few"], ["c"]), helper.make_node("Cast", ["c"], ["y"], to=TensorProto.FLOAT)],
            "CastLike.*'few' is of INT4",
        ),
        (
            [
                helper.make_node(
                    "If",
                    ["yes"],
                    ["i"],
                    then_branch=helper.make_graph([], "a", [], [value("few", TensorProto.INT4, 3)]),
                    else_branch=helper.make_graph([], "b", [], [value("few", TensorProto.INT4, 3)]),
                ),
                helper.make_node("Cast", ["i"], ["y"], to=TensorProto.FLOAT),
            ],
            "subgraph 'a'.*INT4",
        ),
    ],
)
def test_nothing_computes_in_few_bits(nodes, message):
    tensor, _ = few_bits("INT4", 3)
    model = build(
        nodes,
        [value("x", TensorProto.FLOAT, 3)],
        [value("y", TensorProto.FLOAT, 3)],
        {"scale": np.float32(1), "yes": np.array(True), "few": tensor},
        opset=21,
    )
    with pytest.raises(fr.UnsupportedModelError, match=message):
        fr.from_onnx(model)
