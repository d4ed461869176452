"""Damaged and hostile ONNX files: tensors, external data, inputs of recurrent nodes, and constants that ops cannot use."""

from pathlib import Path

import numpy as np
import onnx
from case import Case, file_case
from onnx import TensorProto, helper, numpy_helper
from onnx_corpus import edited
from onnx_graphs import build, draw, value

node = helper.make_node
HUGE, MOST = 1 << 62, (1 << 63) - 1


def tensor(**fields):
    """A weight w of a small Add, made by hand."""
    model = build([node("Add", ["x", "w"], ["y"])], [value("x", "B", 3)], weights={"w": np.zeros(3, np.float32)})
    proto = model.graph.initializer[0]
    proto.ClearField("raw_data")
    for name, content in fields.items():
        if isinstance(content, (list, tuple)):
            proto.ClearField(name)
            getattr(proto, name).extend(content)
        else:
            setattr(proto, name, content)
    return model


TENSORS = {
    "negative_dims": (lambda: edited(lambda g: g.initializer[0].dims.__setitem__(0, -1)), "'w'.*dims"),
    "dims_larger_than_data": (lambda: edited(lambda g: g.initializer[0].dims.__setitem__(0, 1 << 40)), "'w'.*do not fit"),
    "dims_whose_product_overflows": (lambda: edited(lambda g: g.initializer[0].dims.extend([HUGE, HUGE])), "'w'.*do not fit"),
    "dims_whose_product_overflows_to_what_is_there": (lambda: tensor(dims=[1 << 32, 1 << 32, 3], raw_data=bytes(12)), "'w'.*do not fit"),
    "dims_whose_bytes_overflow": (lambda: tensor(dims=[HUGE + 3], raw_data=bytes(12)), "'w'.*do not fit"),
    "dims_of_2_to_the_63": (lambda: tensor(dims=[MOST], raw_data=bytes(12)), "'w'.*do not fit"),
    "dims_of_minus_2_to_the_63": (lambda: tensor(dims=[-MOST - 1], raw_data=bytes(12)), "'w'.*dims"),
    "two_negative_dims": (lambda: tensor(dims=[-3, -1], raw_data=bytes(12)), "'w'.*dims"),
    "dims_of_zero_and_huge": (lambda: tensor(dims=[0, HUGE, HUGE], raw_data=b""), "'w'|'y'|Add|elements"),
    "forty_dims": (lambda: tensor(dims=[1] * 40 + [3], raw_data=bytes(12)), "'w'.*41 dimensions"),
    "a_hundred_thousand_dims": (lambda: tensor(dims=[1] * 100_000 + [3], raw_data=bytes(12)), "'w'.*dimension"),
    "weight_of_another_rank": (lambda: edited(lambda g: g.initializer[0].dims.append(1)), "W must have shape"),
    "raw_data_one_byte_short": (lambda: tensor(raw_data=bytes(11)), "'w'.*do not fit"),
    "raw_data_one_byte_long": (lambda: tensor(raw_data=bytes(13)), "'w'.*do not fit"),
    "raw_data_empty": (lambda: tensor(raw_data=b""), "'w'.*do not fit"),
    "no_data": (lambda: tensor(), "'w'.*do not fit"),
    "too_few_floats": (lambda: tensor(float_data=[1, 2]), "'w'.*do not fit"),
    "too_many_floats": (lambda: tensor(float_data=[1, 2, 3, 4]), "'w'.*do not fit"),
    "floats_in_the_wrong_field": (lambda: tensor(int64_data=[1, 2, 3]), "'w'"),
    "doubles_in_the_wrong_field": (lambda: tensor(double_data=[1, 2, 3]), "'w'"),
    "floats_over_two_fields": (lambda: tensor(float_data=[1, 2], int32_data=[3]), "'w'"),
    "raw_and_typed_data": (lambda: tensor(raw_data=bytes(12), float_data=[1, 2, 3]), "'w'.*twice"),
    "a_segment": (lambda: edited(lambda g: g.initializer[0].segment.__setattr__("begin", 1)), "'w'.*segment"),
    "text_data": (lambda: tensor(data_type=TensorProto.STRING, string_data=[b"a", b"b", b"c"]), "STRING"),
    "bool_data_out_of_range": (
        lambda: (
            edited(lambda g: g.initializer[3].CopyFrom(helper.make_tensor("flag", TensorProto.BOOL, [], [7])))
            and edited(lambda g: g.initializer[3].CopyFrom(TensorProto(name="flag", data_type=9, int32_data=[7, 1])))
        ),
        "'flag'.*do not fit",
    ),
    "int8_data_out_of_range": (lambda: tensor(data_type=TensorProto.INT8, int32_data=[1, 300, 3]), "'w'|Add"),
    "a_million_tensors_of_nothing": (
        lambda: edited(lambda g: [g.initializer.add(name=f"w{k}", data_type=99) for k in range(20_000)]),
        "'w0'.*dtype 99",
    ),
    **{
        f"dtype_{dtype}": (lambda dtype=dtype: tensor(data_type=dtype, raw_data=bytes(12)), "'w'.*dtype|'w'.*fit")
        for dtype in (0, 8, 10, 14, 15, 16, 17, 20, 21, 22, 23, 99, -1)
    },
}


def recurrent_node(op, change):
    """A recurrent node over whole inputs, of which `change` damages some: a dict by input name."""
    gates = {"RNN": 1, "GRU": 3, "LSTM": 4}[op]
    weights = {
        "W": draw(1, gates * 4, 3),
        "R": draw(1, gates * 4, 4),
        "B": draw(1, gates * 8),
        "lens": np.array([2, 1], np.int32),
        "h0": draw(1, 2, 4),
    }
    names = ["x", "W", "R", "B", "lens", "h0"]
    if op == "LSTM":
        weights |= {"c0": draw(1, 2, 4), "P": draw(1, 12)}
        names += ["c0", "P"]
    change(weights)
    return build([node(op, names, ["y"], op.lower(), hidden_size=4)], [value("x", 3, 2, 3)], [value("y", 3, 1, 2, 4)], weights)


def _resized(weights, name, axis, by):
    a = weights[name]
    weights[name] = np.zeros([n + by * (k == axis) for k, n in enumerate(a.shape)], a.dtype)


def recurrent_cases():
    """Every constant input of every recurrent op with an axis too long, too short, too many, too few, or of another dtype."""
    ranks = {"W": 3, "R": 3, "B": 2, "lens": 1, "h0": 3, "c0": 3, "P": 2}
    for op in ("RNN", "GRU", "LSTM"):
        for name, rank in ranks.items():
            if name in ("c0", "P") and op != "LSTM":
                continue
            axes = [(axis, by) for axis in range(rank) for by in (-1, 1)] if op == "LSTM" or name in ("W", "R") else [(rank - 1, 1)]
            for axis, by in axes:
                yield f"{op}_{name}_axis_{axis}_{'longer' if by > 0 else 'shorter'}", op, lambda w, n=name, a=axis, b=by: _resized(w, n, a, b)
            yield f"{op}_{name}_of_another_rank", op, lambda w, n=name: w.update({n: w[n][..., None]})
            yield f"{op}_{name}_of_another_dtype", op, lambda w, n=name: w.update({n: w[n].astype(np.float64)})
    yield "LSTM_lengths_past_the_end", "LSTM", lambda w: w.update(lens=np.array([2, 9], np.int32))
    yield "LSTM_lengths_below_0", "LSTM", lambda w: w.update(lens=np.array([2, -1], np.int32))


def op(name, *inputs, outputs=("y",), opset=13, x=("B", 3), **attributes):
    """One node named n over x and constants c0, c1, ..; None omits an input."""
    weights = {f"c{k}": np.asarray(c) for k, c in enumerate(inputs) if c is not None}
    names = ["x", *(f"c{k}" if c is not None else "" for k, c in enumerate(inputs))]
    return build([node(name, names, list(outputs), "n", **attributes)], [value("x", *x)], [value(outputs[0])], weights, opset)


def constant_op(name, *inputs, opset=13, **attributes):
    """The same over constants alone."""
    return build(
        [node(name, [f"c{k}" for k in range(len(inputs))], ["y"], "n", **attributes)],
        weights={f"c{k}": np.asarray(c) for k, c in enumerate(inputs)},
        opset=opset,
    )


OPS = {
    "reshape_to_another_size": lambda: op("Reshape", [4, -1], x=(2, 3)),
    "reshape_to_two_unknowns": lambda: op("Reshape", [-1, -1]),
    "reshape_to_minus_2": lambda: op("Reshape", [-2, 3]),
    "reshape_by_floats": lambda: op("Reshape", np.float32([2, 3])),
    "reshape_to_2_to_the_62_squared": lambda: op("Reshape", [HUGE, HUGE]),
    "reshape_to_9_axes": lambda: constant_op("Reshape", np.float32([1]), [1] * 9),
    "reshape_by_a_matrix": lambda: op("Reshape", [[2, 3]], x=(2, 3)),
    "expand_to_another_size": lambda: op("Expand", [2, 2], x=(2, 3)),
    "expand_to_negative": lambda: op("Expand", [-1, 3]),
    "tile_by_negative": lambda: op("Tile", [-1, 1]),
    "tile_of_another_rank": lambda: op("Tile", [1]),
    "squeeze_a_long_axis": lambda: op("Squeeze", [1]),
    "squeeze_an_axis_there_is_not": lambda: op("Squeeze", [7]),
    "squeeze_twice": lambda: op("Squeeze", [0, 0], x=(1, 3)),
    "unsqueeze_an_axis_there_is_not": lambda: op("Unsqueeze", [9]),
    "unsqueeze_without_axes": lambda: op("Unsqueeze"),
    "unsqueeze_by_text": lambda: op("Unsqueeze", opset=9, axes="x"),
    "unsqueeze_to_9_axes": lambda: op("Unsqueeze", list(range(9))),
    "transpose_twice_the_same_axis": lambda: op("Transpose", perm=[0, 0]),
    "transpose_past_the_rank": lambda: op("Transpose", perm=[0, 5]),
    "transpose_of_another_rank": lambda: op("Transpose", perm=[0]),
    "concat_along_an_axis_there_is_not": lambda: op("Concat", np.float32([[1]]), axis=5),
    "concat_without_axis": lambda: op("Concat", np.float32([[1]])),
    "concat_of_different_dtypes": lambda: op("Concat", [[1]], axis=1),
    "concat_of_different_ranks": lambda: op("Concat", np.float32([1]), axis=1),
    "concat_of_different_sizes": lambda: op("Concat", np.float32([[1, 2]]), axis=0),
    "gather_past_the_end": lambda: op("Gather", [3], axis=1),
    "gather_before_the_start": lambda: op("Gather", [-4], axis=1),
    "gather_far_past_the_end_by_many": lambda: op("Gather", np.arange(2_000) * 1_000, axis=1),
    "gather_by_floats": lambda: op("Gather", np.float32([0]), axis=1),
    "gather_along_an_axis_there_is_not": lambda: op("Gather", [0], axis=2),
    "slice_by_step_0": lambda: op("Slice", [0], [2], [1], [0]),
    "slice_along_an_axis_there_is_not": lambda: op("Slice", [0], [2], [5]),
    "slice_twice_along_an_axis": lambda: op("Slice", [0, 0], [2, 2], [1, 1]),
    "slice_of_different_lengths": lambda: op("Slice", [0, 0], [2], [1]),
    "slice_by_a_scalar_axis": lambda: op("Slice", [0], [2], 1),
    "slice_by_floats": lambda: op("Slice", np.float32([0]), [2], [1]),
    "slice_without_bounds": lambda: op("Slice"),
    "split_into_a_wrong_sum": lambda: op("Split", [2, 2], outputs=("y", "z"), axis=1),
    "split_into_negative": lambda: op("Split", [4, -1], outputs=("y", "z"), axis=1),
    "split_into_more_than_there_is": lambda: op("Split", outputs=tuple("yabcdefgh"), axis=1),
    "split_along_an_axis_there_is_not": lambda: op("Split", outputs=("y", "z"), axis=7),
    "pad_by_few_numbers": lambda: op("Pad", [1, 1]),
    "pad_beyond_memory": lambda: op("Pad", [0, HUGE, 0, HUGE]),
    "pad_below_0": lambda: op("Pad", [0, -3, 0, -3]),
    "pad_in_an_unknown_mode": lambda: op("Pad", [0] * 4, mode="sideways"),
    "pad_by_another_dtype": lambda: op("Pad", [0] * 4, 1.5),
    "constant_of_huge_shape": lambda: constant_op("ConstantOfShape", [1 << 30, 1 << 30]),
    "constant_of_negative_shape": lambda: constant_op("ConstantOfShape", [-1]),
    "constant_of_text_value": lambda: constant_op("ConstantOfShape", [2], value="x"),
    "constant_of_two_values": lambda: constant_op("ConstantOfShape", [2], value=numpy_helper.from_array(np.float32([1, 2]))),
    "range_without_end": lambda: constant_op("Range", 0, MOST, 1),
    "range_by_step_0": lambda: constant_op("Range", 0, 3, 0),
    "range_of_different_dtypes": lambda: constant_op("Range", 0, 3, np.float32(1)),
    "constant_without_value": lambda: constant_op("Constant"),
    "constant_of_two_kinds": lambda: constant_op("Constant", value_int=1, value_float=1.0),
    "constant_of_text": lambda: constant_op("Constant", value_string="x"),
    "constant_whose_value_is_a_number": lambda: constant_op("Constant", value=3),
    "constant_whose_number_is_text": lambda: constant_op("Constant", value_int="x"),
    "cast_to_an_unknown_dtype": lambda: op("Cast", to=99),
    "cast_without_dtype": lambda: op("Cast"),
    "cast_to_text": lambda: op("Cast", to=TensorProto.STRING),
    "matmul_of_different_sizes": lambda: op("MatMul", draw(4, 2)),
    "matmul_by_a_number": lambda: op("MatMul", np.float32(2)),
    "matmul_of_different_dtypes": lambda: op("MatMul", np.ones((3, 2))),
    "gemm_of_a_cube": lambda: op("Gemm", draw(1, 3, 2)),
    "gemm_of_different_sizes": lambda: op("Gemm", draw(2, 2)),
    "gemm_with_a_wrong_bias": lambda: op("Gemm", draw(3, 2), draw(7)),
    "gemm_transposed_by_2": lambda: op("Gemm", draw(3, 2), transB=2),
    "gemm_scaled_by_infinity": lambda: op("Gemm", draw(3, 2), alpha=float("inf")),
    "conv_of_different_channels": lambda: op("Conv", draw(4, 9, 3), x=("B", 2, 8)),
    "conv_of_a_wrong_rank": lambda: op("Conv", draw(4, 2), x=("B", 2, 8)),
    "conv_by_another_kernel_shape": lambda: op("Conv", draw(4, 2, 3), x=("B", 2, 8), kernel_shape=[5]),
    "conv_by_strides_of_0": lambda: op("Conv", draw(4, 2, 3), x=("B", 2, 8), strides=[0]),
    "conv_by_huge_pads": lambda: op("Conv", draw(4, 2, 3), x=("B", 2, 8), pads=[HUGE, HUGE]),
    "conv_by_negative_dilations": lambda: op("Conv", draw(4, 2, 3), x=("B", 2, 8), dilations=[-1]),
    "conv_in_groups_that_do_not_divide": lambda: op("Conv", draw(4, 2, 3), x=("B", 2, 8), group=3),
    "conv_in_0_groups": lambda: op("Conv", draw(4, 2, 3), x=("B", 2, 8), group=0),
    "conv_longer_than_its_input": lambda: op("Conv", draw(4, 2, 9), x=("B", 2, 3)),
    "conv_with_a_wrong_bias": lambda: op("Conv", draw(4, 2, 3), draw(5), x=("B", 2, 8)),
    "conv_padded_in_an_unknown_way": lambda: op("Conv", draw(4, 2, 3), x=("B", 2, 8), auto_pad="SIDEWAYS"),
    "conv_by_pads_of_another_rank": lambda: op("Conv", draw(4, 2, 3), x=("B", 2, 8), pads=[1]),
    "transposed_conv_of_different_channels": lambda: op("ConvTranspose", draw(4, 2, 3), x=("B", 2, 8)),
    "transposed_conv_cut_to_nothing": lambda: op("ConvTranspose", draw(2, 2, 3), x=("B", 2, 8), pads=[9, 9]),
    "batch_norm_of_different_sizes": lambda: op("BatchNormalization", *(draw(5) for _ in range(4))),
    "batch_norm_in_training": lambda: op("BatchNormalization", *(draw(3) for _ in range(4)), opset=15, training_mode=1),
    "softmax_along_an_axis_there_is_not": lambda: op("Softmax", axis=5),
    "softmax_of_text_axis": lambda: op("Softmax", axis="x"),
    "reduce_along_an_axis_there_is_not": lambda: op("ReduceSum", [5]),
    "reduce_of_text_axes": lambda: op("ReduceMean", axes="x"),
    "reduce_keeping_2": lambda: op("ReduceMean", axes=[1], keepdims=2),
    "flatten_past_the_rank": lambda: op("Flatten", axis=9),
    "add_of_different_sizes": lambda: op("Add", draw(2, 4)),
    "add_of_different_dtypes": lambda: op("Add", [1, 2, 3]),
    "where_of_numbers": lambda: op("Where", draw(3), draw(3)),
    "not_of_numbers": lambda: op("Not"),
    "prelu_of_a_wrong_slope": lambda: op("PRelu", draw(2, 5)),
    "clip_by_vectors": lambda: op("Clip", draw(3), draw(3)),
    "scatter_past_the_end": lambda: op("ScatterND", [[5]], draw(1, 3), x=(2, 3)),
    "scatter_before_the_start": lambda: op("ScatterND", [[-3]], draw(1, 3), x=(2, 3)),
    "scatter_of_a_wrong_update": lambda: op("ScatterND", [[1]], draw(1, 4), x=(2, 3)),
    "scatter_in_an_unknown_way": lambda: op("ScatterND", [[1]], draw(1, 3), x=(2, 3), opset=16, reduction="x"),
    "relu_with_an_attribute": lambda: op("Relu", evil=1),
    "relu_of_two": lambda: op("Relu", draw(3)),
    "layer_norm_of_a_wrong_scale": lambda: op("LayerNormalization", draw(4), opset=17),
    "elu_by_text": lambda: op("Elu", alpha="x"),
    "leaky_relu_by_nan": lambda: op("LeakyRelu", alpha=float("nan")),
}


def external(location, data=bytes(12), prepare=None, **entries):
    """Writes a model whose weight lies in another file, w.bin beside it."""

    def write(folder: Path) -> Path:
        inside = folder / "inside"
        inside.mkdir()
        (inside / "w.bin").write_bytes(data)
        (folder / "secret.bin").write_bytes(bytes(64))
        if prepare:
            prepare(inside)
        model = tensor(data_location=TensorProto.EXTERNAL)
        for key, entry in {"location": location(inside) if callable(location) else location, **entries}.items():
            if entry is not None:
                model.graph.initializer[0].external_data.add(key=key, value=str(entry))
        onnx.save(model, inside / "m.onnx")
        return inside / "m.onnx"

    return write


def many_over_one_file(folder: Path) -> Path:
    """A hundred tensors that are the same megabyte."""
    (folder / "w.bin").write_bytes(bytes(1 << 20))
    model = build([node("Relu", ["x"], ["y"])])
    for k in range(100):
        tensor = model.graph.initializer.add(name=f"w{k}", data_type=TensorProto.FLOAT, dims=[1 << 18], data_location=TensorProto.EXTERNAL)
        tensor.external_data.add(key="location", value="w.bin")
    onnx.save(model, folder / "m.onnx")
    return folder / "m.onnx"


EXTERNAL = {
    "parent": external("../secret.bin"),
    "parent_by_a_detour": external("x/../../secret.bin"),
    "absolute": external(lambda inside: str(inside.parent / "secret.bin")),
    "link_to_outside": external("link.bin", prepare=lambda inside: (inside / "link.bin").symlink_to(inside.parent / "secret.bin")),
    "folder_linked_to_outside": external("link/secret.bin", prepare=lambda inside: (inside / "link").symlink_to(inside.parent)),
    "link_to_itself": external("loop.bin", prepare=lambda inside: (inside / "loop.bin").symlink_to(inside / "loop.bin")),
    "missing_file": external("none.bin"),
    "empty_location": external(""),
    "no_location": external(None),
    "folder": external("."),
    "device": external("/dev/zero"),
    "process": external("/proc/self/mem"),
    "name_with_a_null_byte": external("w\0.bin"),
    "huge_name": external("w" * 100_000),
    "url": external("file:///etc/passwd"),
    "offset_past_the_end": external("w.bin", offset=8),
    "offset_negative": external("w.bin", offset=-4),
    "offset_huge": external("w.bin", offset=HUGE),
    "offset_of_text": external("w.bin", offset="x"),
    "offset_of_5000_digits": external("w.bin", offset="9" * 5_000),
    "length_too_long": external("w.bin", length=99),
    "length_too_short": external("w.bin", length=8),
    "length_negative": external("w.bin", length=-12),
    "length_of_text": external("w.bin", length="x"),
    "file_too_short": external("w.bin", data=bytes(11)),
    "file_empty": external("w.bin", data=b""),
    "many_tensors_over_one_file": many_over_one_file,
}

CORPUS = [file_case(name, ".onnx", lambda make=make: make().SerializeToString(), message, "model") for name, (make, message) in TENSORS.items()]
CORPUS += [
    file_case(name, ".onnx", lambda op=op, change=change: recurrent_node(op, change).SerializeToString(), f"'{op.lower()}'", "model")
    for name, op, change in recurrent_cases()
]
CORPUS += [file_case(name, ".onnx", lambda make=make: make().SerializeToString(), r"node 'n'", "model") for name, make in OPS.items()]
CORPUS += [Case(f"external_{name}", write, r"'w\d*'.*data|data.*'w\d*'", "model") for name, write in EXTERNAL.items()]
