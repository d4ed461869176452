"""Protobuf messages to plain data: dtypes, shapes, tensors; external data only from inside the model's folder."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto, numpy_helper

from fastrnn.errors import InvalidModelError, UnsupportedModelError
from fastrnn.model.ops import ANY_DIM, DTYPES

_DTYPE = {
    TensorProto.DataType.Value(name): dtype
    for name, dtype in (
        ("FLOAT", "float32"),
        ("DOUBLE", "float64"),
        ("INT8", "int8"),
        ("INT16", "int16"),
        ("INT32", "int32"),
        ("INT64", "int64"),
        ("UINT8", "uint8"),
        ("UINT16", "uint16"),
        ("UINT32", "uint32"),
        ("UINT64", "uint64"),
        ("BOOL", "bool"),
    )
}
assert set(_DTYPE.values()) == set(DTYPES)
# Floats of 16 bits are taken as the float32 that they are: what is computed, given and asked for in them is float32 here.
WIDENED = (TensorProto.FLOAT16, TensorProto.BFLOAT16)
_DTYPE |= dict.fromkeys(WIDENED, "float32")
# Bits of numbers that inputs and weights may have, and the dtype that they are taken as; computed with, they would round as none here does.
NARROW = {
    TensorProto.DataType.Value(name): (bits, dtype)
    for name, bits, dtype in (
        *((f"FLOAT8{kind}", 8, "float32") for kind in ("E4M3FN", "E4M3FNUZ", "E5M2", "E5M2FNUZ", "E8M0")),
        ("FLOAT4E2M1", 4, "float32"),
        *((f"{sign}INT{bits}", bits, f"{sign.lower()}int8") for sign in ("", "U") for bits in (4, 2)),
    )
    if name in set(TensorProto.DataType.keys())
}
MOST_NODES = 1 << 16  # of a model whose functions are put in place
_TYPED_FIELDS = ("float_data", "int32_data", "int64_data", "double_data", "uint64_data")


class Folder:
    """Where external data may lie, and how much of each file was read: no more than it holds, however many tensors point there."""

    def __init__(self, path: Path):
        self.path, self._taken = path, {}

    def read(self, where: str, location: str, offset: int, nbytes: int) -> bytes:
        """Bytes of a file inside the folder, links resolved; raises InvalidModelError for anything else."""
        try:
            path = (self.path / location).resolve()
            inside = path.is_relative_to(self.path) and path.is_file()
        except (OSError, RuntimeError, ValueError) as error:  # links in a ring, names that no system has
            raise InvalidModelError(f"{where}: its data file {location[:200]!r} cannot be found: {str(error)[:200]}") from error
        if not inside:
            raise InvalidModelError(f"{where}: its data file {location[:200]!r} is not a file inside the model's folder")
        size = path.stat().st_size
        self._taken[path] = self._taken.get(path, 0) + nbytes
        if offset < 0 or offset + nbytes > size or self._taken[path] > size:
            raise InvalidModelError(f"{where}: {nbytes} bytes at {offset} do not fit its data file, or overlap other tensors'")
        with open(path, "rb") as file:
            file.seek(offset)
            return file.read(nbytes)


def parse(source) -> tuple[onnx.ModelProto, Folder | None]:
    """The message behind a path, bytes or a ModelProto, and the folder of external data, None where there is none."""
    if isinstance(source, onnx.ModelProto):
        return source, None
    folder, place = None, ""
    if not isinstance(source, (bytes, bytearray, memoryview)):
        folder, place = Folder(Path(source).resolve().parent), f"{source}: "
        source = Path(source).read_bytes()
    try:
        model = onnx.ModelProto.FromString(bytes(source))
    except (DecodeError, RuntimeError) as error:
        raise InvalidModelError(f"{place}not an ONNX file, or a damaged one: {error}") from error
    if not model.HasField("graph") or not model.graph.output:
        raise InvalidModelError(f"{place}not an ONNX file, or a damaged one: it holds no graph with outputs")
    return model, folder


def without_functions(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with the functions that it brings along put in place of their calls. Raises UnsupportedModelError for more nodes than MOST_NODES,
    InvalidModelError for functions that call themselves."""
    if not model.functions:
        return model
    from onnx import inliner

    bodies = {(f.domain, f.name): f.node for f in model.functions}
    sizes: dict[tuple[str, str], int] = {}

    def size(nodes, calls: tuple) -> int:
        total = 0
        for node in nodes:
            key = node.domain, node.op_type
            if key in calls:
                raise InvalidModelError(f"function {node.op_type!r} calls itself")
            if key in bodies and key not in sizes:
                sizes[key] = size(bodies[key], (*calls, key))
            total += 1 + sizes.get(key, 0) + sum(size(a.g.node, calls) for a in node.attribute if a.HasField("g"))
        return total

    if (total := size(model.graph.node, ())) > MOST_NODES:
        raise UnsupportedModelError(f"its functions make {total:,} nodes; at most {MOST_NODES:,} are supported")
    try:
        return inliner.inline_local_functions(model)
    except (
        RuntimeError,
        onnx.checker.ValidationError,
    ) as error:  # calls with other counts of inputs, functions twice of a name or never called in a circle
        raise InvalidModelError(f"its functions cannot be put in place of their calls: {str(error).splitlines()[0]}") from error


def dtype_name(elem_type: int, where: str, narrow: bool = False) -> str:
    """The dtype of an element type, of those in NARROW where asked for; raises UnsupportedModelError for others."""
    if narrow and elem_type in NARROW:
        return NARROW[elem_type][1]
    if elem_type not in _DTYPE:
        known = elem_type in TensorProto.DataType.values()
        raise UnsupportedModelError(f"{where}: dtype {TensorProto.DataType.Name(elem_type) if known else elem_type} is not supported")
    return _DTYPE[elem_type]


def spec_of(value: onnx.ValueInfoProto, where: str, narrow: bool = False) -> tuple[str, tuple[int | str, ...] | None]:
    """dtype and shape of a declared value; unnamed dimensions get a name, a shape that is not declared is None."""
    if not value.type.HasField("tensor_type"):
        raise UnsupportedModelError(f"{where} {value.name!r}: only tensors are supported, got {value.type.WhichOneof('value')}")
    tensor, dims = value.type.tensor_type, []
    dtype = dtype_name(tensor.elem_type, f"{where} {value.name!r}", narrow)
    if not tensor.HasField("shape"):
        return dtype, None
    for k, dim in enumerate(tensor.shape.dim):
        if dim.HasField("dim_value") and dim.dim_value < -1:
            raise InvalidModelError(f"{where} {value.name!r}: dimension {k} is {dim.dim_value}")
        known = dim.HasField("dim_value") and dim.dim_value >= 0
        name = dim.dim_param if dim.dim_param != ANY_DIM else ""  # "?" is no name: two of them are not one size
        dims.append(int(dim.dim_value) if known else name or f"{value.name}_dim_{k}")
    return dtype, tuple(dims)


def array_of(tensor: TensorProto, where: str, folder: Folder | None, narrow: bool = False) -> np.ndarray:
    """A tensor's content; its size is checked against the bytes that are there before anything is allocated."""
    where = f"{where} {tensor.name!r}"
    dtype = np.dtype(dtype_name(tensor.data_type, where, narrow))
    few = tensor.data_type in NARROW
    bits = NARROW[tensor.data_type][0] if few else 16 if tensor.data_type in WIDENED else 8 * dtype.itemsize
    if any(d < 0 for d in tensor.dims):
        raise InvalidModelError(f"{where}: dims {list(tensor.dims)}")
    nbytes = -(-math.prod(tensor.dims) * bits // 8)
    if tensor.data_location == TensorProto.EXTERNAL:
        raw = _external(tensor, where, folder, nbytes)
        if bits != 8 * dtype.itemsize:
            tensor = TensorProto(data_type=tensor.data_type, dims=tensor.dims, raw_data=raw)
            return numpy_helper.to_array(tensor).astype(dtype)
        return np.frombuffer(raw, dtype.newbyteorder("<")).astype(dtype, copy=False).reshape(tensor.dims)
    typed = sum(len(getattr(tensor, name)) for name in _TYPED_FIELDS)
    if tensor.HasField("raw_data") and typed:
        raise InvalidModelError(f"{where}: its data is there twice, raw and typed")
    if (
        tensor.HasField("raw_data")
        and len(tensor.raw_data) != nbytes
        or not tensor.HasField("raw_data")
        and typed != (nbytes if few else math.prod(tensor.dims))
    ):
        raise InvalidModelError(f"{where}: dims {list(tensor.dims)} of {dtype} do not fit its data")
    try:
        return np.array(numpy_helper.to_array(tensor), dtype)
    except (ValueError, TypeError) as error:
        raise InvalidModelError(f"{where}: {error}") from error


def _external(tensor: TensorProto, where: str, folder: Folder | None, nbytes: int) -> bytes:
    if folder is None:
        raise UnsupportedModelError(f"{where}: its data lies in another file; load the model from its path, with external_data=True")
    entries = {entry.key: entry.value for entry in tensor.external_data}
    try:
        offset, length = int(entries.get("offset", 0)), int(entries.get("length", nbytes))
    except ValueError as error:
        raise InvalidModelError(f"{where}: offset or length of its data is no number") from error
    if length != nbytes:
        raise InvalidModelError(f"{where}: {length} bytes of data for {nbytes}")
    return folder.read(where, entries.get("location", ""), offset, nbytes)
