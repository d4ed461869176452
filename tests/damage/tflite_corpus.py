"""Damaged and hostile .tflite files: offsets, counts, tensors, operators and subgraphs that make no sense, and what would take memory or time without end."""

import struct

import numpy as np
from case import file_case
from tflite_files import Writer, condition_of, quantized_file, rnn_file, while_file, write

X = np.arange(12, dtype="f4").reshape(3, 4)


def model(kind, inputs, options=None, gives=(((1,),),), change=lambda w: None):
    """One operator over a constant and what else there is."""
    w = Writer()
    made = w.add(kind, [w.input(X.shape), *(a if isinstance(a, int) else w.constant(a) for a in inputs)], *gives, options=options)
    w.outputs = made if isinstance(made, list) else [made]
    change(w)
    return write(w)


def patched(data: bytes, at: int, form: str, *numbers) -> bytes:
    """Numbers written over a place."""
    return data[:at] + struct.pack("<" + form, *numbers) + data[at + struct.calcsize("<" + form) :]


def root(data: bytes) -> int:
    return struct.unpack_from("<I", data)[0]


def vtable(data: bytes) -> int:
    return root(data) - struct.unpack_from("<i", data, root(data))[0]


def field(data: bytes, k: int) -> int:
    """Where a field of the root lies."""
    return root(data) + struct.unpack_from("<H", data, vtable(data) + 4 + 2 * k)[0]


def vector(data: bytes, k: int) -> int:
    """Where the vector behind a field of the root starts."""
    return field(data, k) + struct.unpack_from("<I", data, field(data, k))[0]


def at_root(*numbers):
    return lambda data: patched(data, 0, "I", *numbers)


PATCHES = {
    "root_past_the_end": (at_root(1 << 31), "byte"), "root_at_the_end": (lambda d: patched(d, 0, "I", len(d) - 2), "byte"), "root_inside_the_identifier": (at_root(4), "table|byte|version"),
    "other_identifier": (lambda d: patched(d, 4, "4s", b"TFL9"), "TFL3"), "vtable_far_in_front": (lambda d: patched(d, root(d), "i", 1 << 30), "byte"),
    "vtable_behind_the_end": (lambda d: patched(d, root(d), "i", -(1 << 30)), "byte"), "vtable_of_no_size": (lambda d: patched(d, vtable(d), "H", 0), "table"),
    "vtable_past_the_end": (lambda d: patched(d, vtable(d), "H", 65535), "table"), "table_past_the_end": (lambda d: patched(d, vtable(d) + 2, "H", 65535), "table"),
    "field_past_its_table": (lambda d: patched(d, vtable(d) + 4 + 4, "H", 65000), "field 2"), "field_in_its_vtable_offset": (lambda d: patched(d, vtable(d) + 4 + 4, "H", 2), "field 2"),
    "version_of_tomorrow": (lambda d: patched(d, field(d, 0), "I", 4), "version 4"), "subgraphs_without_end": (lambda d: patched(d, vector(d, 2), "I", 1 << 28), "vector"),
    "buffers_of_2_to_the_32": (lambda d: patched(d, vector(d, 4), "I", (1 << 32) - 1), "vector"), "no_subgraphs": (lambda d: patched(d, vector(d, 2), "I", 0), "no subgraph"),
    "no_operator_codes": (lambda d: patched(d, vector(d, 1), "I", 0), "of kind"), "no_buffers": (lambda d: patched(d, vector(d, 4), "I", 0), "buffer"),
    "a_subgraph_that_is_the_root": (lambda d: patched(d, vector(d, 2) + 4, "I", (root(d) - vector(d, 2) - 4) % (1 << 32)), "byte|table|field|vector|fit|more"),
    "empty": (lambda d: b"", "TFL3"), "eight_bytes": (lambda d: d[:8], "byte"), "zeros": (lambda d: bytes(len(d)), "TFL3"), "text": (lambda d: b"\0\0\0\0TFL3 hello world", "byte|table"),
    "ones": (lambda d: b"\xff" * 4 + b"TFL3" + b"\xff" * 99, "byte"),
}  # fmt: skip


def changes(**fields):
    """Tensor `which` with other fields, in the order of Writer.tensors."""
    names = "name dtype shape array scale zero axis variable signature".split()

    def change(w, which=0):
        w.tensors[which] = tuple(fields.get(n, v) for n, v in zip(names, w.tensors[which]))

    return change


def ends(**which):
    def change(w):
        for name, value in which.items():
            setattr(w, name, value)

    return change


MODELS = {
    "input_of_text": (lambda: model("TANH", [], change=changes(dtype="string")), "STRING"),
    "negative_shape": (lambda: model("TANH", [], change=changes(shape=(3, -4))), "shape"),
    "signature_of_another_rank": (lambda: model("TANH", [], change=changes(signature=[-1])), "shape"),
    "nine_axes": (lambda: model("TANH", [], change=changes(shape=(1,) * 9)), "dimensions|rank|axes"),
    "scale_of_zero": (lambda: model("TANH", [], change=changes(dtype="int8", scale=0.0)), "scales"),
    "scale_of_nan": (lambda: model("TANH", [], change=changes(dtype="int8", scale=np.nan)), "scales"),
    "scales_of_another_size": (lambda: model("TANH", [], change=changes(dtype="int8", scale=[0.1, 0.2])), "scales"),
    "zero_point_outside": (lambda: model("TANH", [], change=changes(dtype="int8", scale=0.1, zero=1 << 40)), "zero point"),
    "data_of_another_size": (lambda: model("ADD", [X], change=lambda w: changes(shape=(300, 400))(w, 1)), "does not fit"),
    "constant_of_a_terabyte": (lambda: model("ADD", [X], change=lambda w: changes(shape=(1 << 20, 1 << 18))(w, 1)), "does not fit"),
    "operator_without_inputs": (lambda: model("ADD", [], change=lambda w: w.operators[0][1].clear()), "missing"),
    "operator_without_outputs": (lambda: model("TANH", [], change=lambda w: (w.operators[0][2].clear(), ends(outputs=[0])(w))), "outputs"),
    "input_of_a_tensor_that_is_none": (lambda: model("ADD", [99]), "tensor 99"),
    "output_of_a_tensor_that_is_none": (lambda: model("TANH", [], change=ends(outputs=[99])), "tensor 99"),
    "output_that_nothing_makes": (lambda: model("TANH", [], change=lambda w: w.outputs.append(w.tensor("float32", (2,)))), "not made"),
    "input_that_nothing_makes": (lambda: model("ADD", [1]), "no value yet"),
    "no_outputs": (lambda: model("TANH", [], change=ends(outputs=[])), "no outputs"),
    "inputs_left_out": (lambda: model("TANH", [], change=ends(inputs=[])), "no value yet"),
    "unknown_operator": (lambda: model("Evil", []), "Evil"),
    "reshape_to_another_size": (lambda: model("RESHAPE", [np.int32([5, 5])]), "reshape|fit|elements"),
    "reshape_to_a_terabyte": (lambda: model("FILL", [np.float32(1)]), "int|whole|float32"),
    "fill_of_a_terabyte": (lambda: write(_fill()), "elements|memory|memory|bytes"),
    "tile_of_a_terabyte": (lambda: model("TILE", [np.int32([1 << 28, 1 << 28])]), "elements|memory|dim"),
    "pad_of_a_terabyte": (lambda: model("PAD", [np.int32([[1 << 29, 1 << 29], [1 << 29, 0]])]), "elements|memory"),
    "pad_of_odd_widths": (lambda: model("PAD", [np.int32([1, 2, 3])]), "widths"),
    "transpose_by_nonsense": (lambda: model("TRANSPOSE", [np.int32([0, 5])]), "perm"),
    "slice_before_the_start": (lambda: model("SLICE", [np.int32([-1, 0]), np.int32([1, 1])]), "make no sense"),
    "strided_slice_of_too_many_axes": (
        lambda: model("STRIDED_SLICE", [np.int32([0] * 9)] * 2 + [np.int32([1] * 9)], {k: ("i", 0) for k in range(5)}),
        "axes",
    ),
    "strided_slice_by_zero": (
        lambda: model("STRIDED_SLICE", [np.int32([0, 0]), np.int32([2, 2]), np.int32([0, 0])], {k: ("i", 0) for k in range(5)}),
        "step",
    ),
    "strided_slice_of_two_ellipses": (
        lambda: model("STRIDED_SLICE", [np.int32([0, 0])] * 3, {**{k: ("i", 0) for k in range(5)}, 2: ("i", 3)}),
        "starts",
    ),
    "gather_past_the_end": (lambda: model("GATHER", [np.int32([99])], {0: ("i", 0), 1: ("i", 0)}), "99|outside|index"),
    "axis_past_the_rank": (lambda: model("GATHER", [np.int32([0])], {0: ("i", 9), 1: ("i", 0)}), "axis"),
    "matrix_that_does_not_fit": (lambda: model("FULLY_CONNECTED", [np.ones((5, 7), "f4"), -1], {0: ("b", 0)}), "reshape|fit|divide|whole"),
    "matrix_of_three_axes": (lambda: model("FULLY_CONNECTED", [np.ones((5, 2, 2), "f4"), -1], {0: ("b", 0)}), "weights must be"),
    "unknown_activation": (lambda: model("ADD", [X], {0: ("b", 77)}), "activation 77"),
    "convolution_of_a_matrix": (lambda: model("CONV_2D", [np.ones((1, 1, 1, 1), "f4"), -1], {}), "N, H, W, C"),
    "lstm_that_is_recurrent_in_its_input": (lambda: model("UNIDIRECTIONAL_SEQUENCE_LSTM", [0] * 19, {}), "must be constants"),
    "while_of_itself": (lambda: write(*condition_of("WHILE", 0)), "subgraph 0"),
    "while_in_a_circle": (lambda: write(*condition_of("WHILE", 1)), "nested"),
    "while_of_no_subgraph": (lambda: write(*condition_of("WHILE", 9)), "subgraph 9"),
    "if_in_a_circle": (lambda: write(*condition_of("IF", 1)), "nested|other numbers"),
}


def _fill() -> Writer:
    w = Writer()
    x = w.input(())
    w.outputs = [w.add("FILL", [w.constant(np.int32([1 << 30, 1 << 30])), x], ((1,),))]
    return w


def _cases():
    for seed, data in (("lstm", rnn_file), ("while", while_file), ("quantized", quantized_file)):
        for name, (patch, message) in PATCHES.items():
            yield file_case(f"tflite_{seed}_{name}", ".tflite", lambda data=data, patch=patch: patch(data()), message, "model")
    for name, (make, message) in MODELS.items():
        yield file_case(f"tflite_{name}", ".tflite", make, message, "model")


CORPUS = list(_cases())
