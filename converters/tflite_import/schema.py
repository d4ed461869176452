"""A .tflite file as plain data, by the places that its public schema gives to fields (tensorflow/lite/schema/schema.fbs, version 3)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from fastrnn.converters.tflite_import.flatbuffer import File, Table
from fastrnn.errors import InvalidModelError, UnsupportedModelError

IDENTIFIER, VERSION = b"TFL3", 3
DTYPES = {0: "float32", 1: "float16", 2: "int32", 3: "uint8", 4: "int64", 6: "bool", 7: "int16", 9: "int8", 10: "float64", 12: "uint64", 15: "uint32", 16: "uint16"}  # fmt: skip
OTHERS = {5: "STRING", 8: "COMPLEX64", 11: "COMPLEX128", 13: "RESOURCE", 14: "VARIANT", 17: "INT4", 18: "BFLOAT16", 19: "INT2", 20: "UINT4"}
VARIANT = "VARIANT"
# Operators by code; those that ops/ has no converter for are named so in messages.
BUILTIN = dict(
    enumerate(
        "ADD AVERAGE_POOL_2D CONCATENATION CONV_2D DEPTHWISE_CONV_2D DEPTH_TO_SPACE DEQUANTIZE EMBEDDING_LOOKUP FLOOR FULLY_CONNECTED HASHTABLE_LOOKUP L2_NORMALIZATION L2_POOL_2D "
        "LOCAL_RESPONSE_NORMALIZATION LOGISTIC LSH_PROJECTION LSTM MAX_POOL_2D MUL RELU RELU_N1_TO_1 RELU6 RESHAPE RESIZE_BILINEAR RNN SOFTMAX SPACE_TO_DEPTH SVDF TANH CONCAT_EMBEDDINGS "
        "SKIP_GRAM CALL CUSTOM EMBEDDING_LOOKUP_SPARSE PAD UNIDIRECTIONAL_SEQUENCE_RNN GATHER BATCH_TO_SPACE_ND SPACE_TO_BATCH_ND TRANSPOSE MEAN SUB DIV SQUEEZE UNIDIRECTIONAL_SEQUENCE_LSTM "
        "STRIDED_SLICE BIDIRECTIONAL_SEQUENCE_RNN EXP TOPK_V2 SPLIT LOG_SOFTMAX DELEGATE BIDIRECTIONAL_SEQUENCE_LSTM CAST PRELU MAXIMUM ARG_MAX MINIMUM LESS NEG PADV2 GREATER GREATER_EQUAL "
        "LESS_EQUAL SELECT SLICE SIN TRANSPOSE_CONV SPARSE_TO_DENSE TILE EXPAND_DIMS EQUAL NOT_EQUAL LOG SUM SQRT RSQRT SHAPE POW ARG_MIN FAKE_QUANT REDUCE_PROD REDUCE_MAX PACK LOGICAL_OR "
        "ONE_HOT LOGICAL_AND LOGICAL_NOT UNPACK REDUCE_MIN FLOOR_DIV REDUCE_ANY SQUARE ZEROS_LIKE FILL FLOOR_MOD RANGE RESIZE_NEAREST_NEIGHBOR LEAKY_RELU SQUARED_DIFFERENCE MIRROR_PAD ABS "
        "SPLIT_V UNIQUE CEIL REVERSE_V2 ADD_N GATHER_ND COS WHERE RANK ELU REVERSE_SEQUENCE MATRIX_DIAG QUANTIZE MATRIX_SET_DIAG ROUND HARD_SWISH IF WHILE NON_MAX_SUPPRESSION_V4 "
        "NON_MAX_SUPPRESSION_V5 SCATTER_ND SELECT_V2 DENSIFY SEGMENT_SUM BATCH_MATMUL PLACEHOLDER CUMSUM CALL_ONCE BROADCAST_TO RFFT2D CONV_3D IMAG REAL COMPLEX_ABS HASHTABLE HASHTABLE_FIND "
        "HASHTABLE_IMPORT HASHTABLE_SIZE REDUCE_ALL CONV_3D_TRANSPOSE VAR_HANDLE READ_VARIABLE ASSIGN_VARIABLE BROADCAST_ARGS RANDOM_STANDARD_NORMAL BUCKETIZE RANDOM_UNIFORM MULTINOMIAL GELU "
        "DYNAMIC_UPDATE_SLICE RELU_0_TO_1 UNSORTED_SEGMENT_PROD UNSORTED_SEGMENT_MAX UNSORTED_SEGMENT_SUM ATAN2 UNSORTED_SEGMENT_MIN SIGN".split()
    )
)
_PLACEHOLDER, _CUSTOM = 127, 32


@dataclass(frozen=True)
class Quantization:
    """real = (stored - zero_point) scale; one of each, or one for each place of an axis."""

    scale: np.ndarray
    zero_point: np.ndarray
    axis: int


@dataclass(frozen=True)
class TensorInfo:
    """dtype: NumPy's, or the schema's name of one that NumPy lacks. shape: None in the place of what a call may change. array: a constant's content."""

    name: str
    dtype: str
    shape: tuple[int | None, ...]
    array: np.ndarray | None
    quantization: Quantization | None
    variable: bool


@dataclass(frozen=True)
class Operator:
    """kind: the schema's name, or that of a custom operator. -1 among inputs: left out. options: a table, None where there is none."""

    kind: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: Table | None


@dataclass(frozen=True)
class Subgraph:
    """Tensors, and operators in order."""

    tensors: tuple[TensorInfo, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    operators: tuple[Operator, ...]


@dataclass(frozen=True)
class TfliteModel:
    """names: of the first subgraph's inputs and outputs by tensor, as its signature has them."""

    subgraphs: tuple[Subgraph, ...]
    names: tuple[dict[int, str], dict[int, str]]


def read(data: bytes) -> TfliteModel:
    """The file's content, checked."""
    file = File(data, IDENTIFIER)
    root = file.root()
    if (version := root.number(0, "I")) != VERSION:
        raise UnsupportedModelError(f"version {version} of the schema is not supported, only {VERSION}")
    codes, reader = [_code(t) for t in root.tables(1)], _Reader(root.tables(4), len(data))
    subgraphs = tuple(_subgraph(t, codes, reader) for t in root.tables(2))
    if not subgraphs:
        raise InvalidModelError("it has no subgraph")
    for signature in root.tables(7):
        if signature.number(4, "I") == 0:
            return TfliteModel(subgraphs, (_names(signature.tables(0)), _names(signature.tables(1))))
    return TfliteModel(subgraphs, ({}, {}))


def _names(maps: list[Table]) -> dict[int, str]:
    return {t.number(1, "I"): t.text(0) for t in maps if t.text(0)}


def _code(table: Table) -> str:
    """The newer field holds codes from 127 on, and the older one those below."""
    code = max(table.number(0, "b"), table.number(3, "i"))
    if code == _CUSTOM:
        return table.text(1) or "CUSTOM"
    return BUILTIN.get(code, f"operator {code}")


class _Reader:
    """Reads tensors. Several may share a buffer, and all together hold no more than a few times the file."""

    def __init__(self, buffers: list[Table], nbytes: int):
        self._buffers, self._room = buffers, 4 * nbytes

    def tensor(self, table: Table) -> TensorInfo:
        """One of a subgraph's."""
        name, code, index = table.text(3), table.number(1, "b"), table.number(2, "I")
        dtype = DTYPES.get(code) or OTHERS.get(code)
        if dtype is None:
            raise UnsupportedModelError(f"tensor {name!r}: type {code} is not supported")
        fixed, signature = (table.array(k, np.int32) for k in (0, 7))
        dims = tuple(int(d) for d in (fixed if fixed is not None else ()))
        if any(d < 0 for d in dims) or signature is not None and len(signature) and len(signature) != len(dims):
            raise InvalidModelError(f"tensor {name!r}: shape {dims} makes no sense")
        open_ = tuple(None if d < 0 else n for n, d in zip(dims, signature)) if signature is not None and len(signature) else dims
        if index >= len(self._buffers):
            raise InvalidModelError(f"tensor {name!r}: buffer {index} of {len(self._buffers)}")
        if table.table(6) is not None:
            raise UnsupportedModelError(f"tensor {name!r}: sparse tensors are not supported")
        return TensorInfo(name, dtype, open_, self._content(name, dtype, dims, index), _quantization(name, table.table(4), dims), table.flag(5))

    def _content(self, name: str, dtype: str, dims: tuple[int, ...], index: int) -> np.ndarray | None:
        """A constant; None for what is computed."""
        buffer = self._buffers[index]
        if buffer.number(1, "Q") > 1:
            raise UnsupportedModelError(f"tensor {name!r}: its data lies behind the model's table")
        stored = buffer.array(0, np.uint8) if index else None
        if stored is None or not len(stored) and math.prod(dims):
            return None
        if dtype in OTHERS.values():
            raise UnsupportedModelError(f"tensor {name!r}: constants of {dtype} are not supported")
        if math.prod(dims) * np.dtype(dtype).itemsize != len(stored):
            raise InvalidModelError(f"tensor {name!r}: {dtype} {dims} does not fit {len(stored)} bytes")
        self._room -= len(stored)
        if self._room < 0:
            raise InvalidModelError("its tensors share more data than the file holds")
        return stored.view(np.dtype(dtype).newbyteorder("<")).reshape(dims).astype(dtype)


def _quantization(name: str, table: Table | None, dims: tuple[int, ...]) -> Quantization | None:
    """None where there is no scale."""
    scale = None if table is None else table.array(2, np.float32)
    if scale is None or not len(scale):
        return None
    if table.number(4, "B"):
        raise UnsupportedModelError(f"tensor {name!r}: quantization of its own kind is not supported")
    zero, axis = table.array(3, np.int64), table.number(6, "i")
    zero = np.zeros(len(scale), np.int64) if zero is None or not len(zero) else zero
    if (
        not (np.isfinite(scale).all() and (scale > 0).all())
        or len(zero) not in (1, len(scale))
        or len(scale) > 1
        and not (0 <= axis < len(dims) and dims[axis] == len(scale))
    ):
        raise InvalidModelError(f"tensor {name!r}: scales {scale.shape} and zero points {zero.shape} along axis {axis} do not fit {dims}")
    return Quantization(scale.astype(np.float32), zero.astype(np.int64), axis)


def _subgraph(table: Table, codes: list[str], reader: _Reader) -> Subgraph:
    tensors = tuple(reader.tensor(t) for t in table.tables(0))

    def indices(array, what: str, least: int = 0) -> tuple[int, ...]:
        found = tuple(int(k) for k in (array if array is not None else ()))
        if any(not least <= k < len(tensors) for k in found):
            raise InvalidModelError(f"{what} names tensor {next(k for k in found if not least <= k < len(tensors))} of {len(tensors)}")
        return found

    operators = []
    for k, t in enumerate(table.tables(3)):
        if (code := t.number(0, "I")) >= len(codes):
            raise InvalidModelError(f"operator {k} is of kind {code} of {len(codes)}")
        operators.append(
            Operator(codes[code], indices(t.array(1, np.int32), f"operator {k}", -1), indices(t.array(2, np.int32), f"operator {k}"), t.table(4))
        )
    return Subgraph(tensors, indices(table.array(1, np.int32), "the inputs"), indices(table.array(2, np.int32), "the outputs"), tuple(operators))
