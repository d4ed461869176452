"""The door: what a caller may pass, and the typed error for everything else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from fastrnn.errors import BusyError, DTypeError, FastRNNError, ShapeError, StateError, UnknownStreamError
from fastrnn.model import Value
from fastrnn.model.ops import ANY_DIM

if TYPE_CHECKING:
    from fastrnn.typing import Array, ArrayLike


def as_array(value: Any, name: str) -> np.ndarray:
    """An ndarray over anything with the buffer protocol, __array__ or __dlpack__, without copying where NumPy can."""
    if isinstance(value, np.ma.MaskedArray):
        raise DTypeError(f"input {name!r} is a masked array; its mask would be ignored")
    if isinstance(value, np.ndarray):
        return value
    try:
        value = value.detach() if hasattr(value, "detach") else value  # a tensor that takes part in training
        if hasattr(value, "__array__") or not hasattr(value, "__dlpack__"):
            return np.asarray(value)
        return np.from_dlpack(value)
    except (TypeError, ValueError, RuntimeError, BufferError) as error:
        raise DTypeError(f"input {name!r}: {type(value).__name__} cannot be seen as an array: {error}") from error


def check_dtype(a: Array, name: str, dtype: np.dtype[Any]) -> None:
    """Raises DTypeError for another dtype or byte order."""
    if a.dtype != dtype or not a.dtype.isnative:
        raise DTypeError(f"{name} must be {dtype} in native byte order, got {a.dtype.str}; nothing is converted unasked: write .astype('{dtype}')")


def as_input(value: Any, name: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Array:
    """A C-contiguous array of this dtype and shape; strided ones are copied. Raises DTypeError or ShapeError."""
    a = as_array(value, name)
    check_dtype(a, f"input {name!r}", dtype)
    if a.shape != tuple(shape):
        raise ShapeError(f"input {name!r} must have shape {tuple(shape)}, got {a.shape}")
    return np.require(a, requirements=["C", "A"])


def refuse_out(out: object, name: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
    """Raises the error that says why `out` cannot take output `name`."""
    if not isinstance(out, np.ndarray):
        raise DTypeError(f"out for {name!r} must be a NumPy array, got {type(out).__name__}")
    check_dtype(out, f"out for {name!r}", dtype)
    if out.shape != tuple(shape):
        raise ShapeError(f"out for {name!r} must have shape {tuple(shape)}, got {out.shape}")
    raise ShapeError(f"out for {name!r} must be C-contiguous, aligned and writable")


def overlap(name: str, other: str) -> ShapeError:
    """The error for an `out` that shares memory."""
    return ShapeError(f"out for {name!r} overlaps the memory of {other!r}")


def out_of_range(name: str, index: int, low: int, high: int) -> ShapeError:
    """The error for an integer that is no index or length."""
    return ShapeError(f"input {name!r}: {index} is outside {low}..{high}")


def index_outside(node: str, index: int, low: int, high: int) -> ShapeError:
    """The error for an integer that a graph computed and that is no index or length."""
    return ShapeError(f"node {node!r}: index {index} is outside {low}..{high}")


def count_mismatch(what: str, wanted: int, given: object) -> ShapeError:
    """The error for a wrong number of arrays."""
    return ShapeError(f"{what} must be a tuple of {wanted} arrays, got {type(given).__name__}")


def as_mapping(value: object, what: str, error: type[FastRNNError] = ShapeError) -> Mapping[str, Any]:
    """The value, if it is a mapping with text as keys; else the error."""
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise error(f"{what} must be a dict by name, got {type(value).__name__}")
    return value


def by_name(x: object, names: Iterable[str], what: str) -> dict[str, np.ndarray]:
    """The arrays of all these inputs, from a dict, or from the only one's."""
    names = list(names)
    given = as_mapping(x if isinstance(x, dict) or len(names) != 1 else {names[0]: x}, what)
    same_names(given, names)
    return {name: as_array(value, name) for name, value in given.items()}


def common_steps(arrays: Mapping[str, np.ndarray]) -> int:
    """How many steps stand in front of every array of a chunk."""
    lengths = {len(a) if a.ndim else -1 for a in arrays.values()}
    if len(lengths) != 1 or -1 in lengths:
        raise ShapeError(f"a chunk needs the same number of steps in front of every input, got {sorted(lengths)}")
    return lengths.pop()


def needs_dict(names: Iterable[str]) -> ShapeError:
    """The error for one array where several inputs are wanted."""
    return ShapeError(f"pass a dict of the inputs {', '.join(map(repr, names))}")


def same_names(given: Mapping[str, object], names: Iterable[str]) -> None:
    """Raises unless exactly these inputs are given."""
    names = list(names)
    for name in names:
        if name not in given:
            raise ShapeError(f"input {name!r} is missing; inputs are {', '.join(map(repr, names))}")
    known_names(given, names)


def known_names(given: Mapping[str, object], names: Iterable[str]) -> None:
    """Raises where something else than these inputs is given."""
    names = list(names)
    for name in given:
        if name not in names:
            raise ShapeError(f"unknown input {name!r}; inputs are {', '.join(map(repr, names))}")


def busy(what: str = "stream") -> BusyError:
    """The error for a second concurrent call."""
    return BusyError(f"this {what} is running a call already; a {what} belongs to one thread at a time")


def as_handle(value: object) -> int:
    """A handle that is no plain int, as one. Raises TypeError."""
    if isinstance(value, (bool, np.timedelta64)) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"a handle is the int that open() gave, got {type(value).__name__}")
    return int(value) if 0 < value < 1 << 63 else 0


def as_handles(value: object) -> np.ndarray:
    """Handles of a pool's streams as int64, in C order."""
    if isinstance(value, (str, bytes)) or not isinstance(value, (Sequence, np.ndarray)) or isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"handles are a sequence of ints, or an int64 array, got {type(value).__name__}")
    a = value if isinstance(value, np.ndarray) else np.array([as_handle(handle) for handle in value], object)
    if a.dtype == object and all(isinstance(handle, (int, np.integer)) and not isinstance(handle, bool) for handle in a.ravel()):
        unknown = next((handle for handle in a.ravel() if not 0 < handle < 1 << 63), None)
        if unknown is not None:
            raise UnknownStreamError(f"no stream of this pool has the handle {unknown}")
        a = a.astype(np.int64)
    if a.ndim != 1 or a.dtype != np.int64 and a.size:
        raise ShapeError(f"handles are a sequence of ints, or an int64 array of one dimension, got {a.dtype} of shape {a.shape}")
    return np.ascontiguousarray(a, np.int64)


def closed() -> StateError:
    """The error for a call of a stream that was closed."""
    return StateError("this stream is closed")


@overload
def as_resets(value: None, steps: int, rows: int) -> None: ...


@overload
def as_resets(value: ArrayLike, steps: int, rows: int) -> np.ndarray: ...


def as_resets(value: ArrayLike | None, steps: int, rows: int) -> np.ndarray | None:
    """A mask (steps, rows) of bools, or None. Raises DTypeError or ShapeError."""
    if value is None:
        return None
    a = as_array(value, "resets")
    if a.dtype != np.bool_:
        raise DTypeError(f"resets must be bool, got {a.dtype.str}")
    if a.shape != (steps, rows):
        raise ShapeError(f"resets must have shape ({steps}, {rows}), one for each step and row, got {a.shape}")
    return a.copy()  # it is read between pieces, and an output might lie over it


def chunk_outputs(steps: int, outputs: Mapping[str, tuple[np.dtype[Any], tuple[int, ...]]], arrays: Mapping[str, Array], out: object) -> list[Array]:
    """Arrays for the outputs of so many calls, given dtype and shape of one call's by name: new, or the caller's, apart from the inputs and from each other."""
    if out is None:
        return [np.empty((steps, *shape), dtype) for dtype, shape in outputs.values()]
    results, taken = [out] if len(outputs) == 1 else out, dict(arrays)
    if not isinstance(results, (tuple, list)) or len(results) != len(outputs):
        raise count_mismatch("out", len(outputs), out)
    for result, (name, (dtype, shape)) in zip(results, outputs.items()):
        if not isinstance(result, np.ndarray) or result.shape != (steps, *shape) or result.dtype != dtype or not result.flags.carray:
            refuse_out(result, name, dtype, (steps, *shape))
        for other_name, other in taken.items():
            if np.may_share_memory(result, other):
                raise overlap(name, other_name)
        taken[name] = result
    return list(results)


def bind_shapes(
    values: Iterable[Value], arrays: Mapping[str, np.ndarray], sizes: Mapping[str, int] = MappingProxyType({})
) -> dict[str, tuple[int, ...]]:
    """Shapes of the given inputs, checked against what is declared, dtypes too; a symbol must mean the same size everywhere. sizes: of symbols
    that are known."""
    symbols: dict[str, tuple[int, str]] = {symbol: (size, "") for symbol, size in sizes.items()}
    shapes = {}
    for value in values:
        if value.name not in arrays:
            if not value.optional:
                raise ShapeError(f"input {value.name!r} is missing")
            continue
        check_dtype(arrays[value.name], f"input {value.name!r}", np.dtype(value.dtype))
        shape = arrays[value.name].shape
        declared = f"({', '.join(map(str, value.shape))})"
        if len(shape) != len(value.shape):
            raise ShapeError(f"input {value.name!r} must have shape {declared}, got {shape}")
        for axis, (dim, size) in enumerate(zip(value.shape, shape)):
            if dim == ANY_DIM:
                continue
            wanted, source = symbols.setdefault(dim, (size, value.name)) if isinstance(dim, str) else (dim, "")
            if size != wanted:
                reason = f" ({dim} = {wanted} in {source!r})" if source else ""
                raise ShapeError(f"input {value.name!r} must have shape {declared}, got {shape}: axis {axis} is not {wanted}{reason}")
        shapes[value.name] = shape
    return shapes
