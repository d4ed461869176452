"""Operators that only move entries, and those that make shapes and constants."""

from __future__ import annotations

import numpy as np

from fastrnn.converters.keras_import.site import LAST, Tensor
from fastrnn.converters.tflite_import.call import Call
from fastrnn.converters.tflite_import.registry import operator


@operator("RESHAPE")
def reshape(call: Call) -> None:
    """To a shape that is an input, or among the options."""
    if call.has(1):
        shape = call.cast(call.tensor(1), "int64")
    else:
        options = call.operator.options
        sizes = None if options is None else options.array(0, np.int32)
        if sizes is None:
            raise call.refuse("it names no shape")
        shape = call.ints(*map(int, sizes))
    call.moved(lambda x: call.emit("Reshape", x, shape, allowzero=1), 0)


@operator("TRANSPOSE")
def transpose(call: Call) -> None:
    """Axes in another order."""
    perm = call.wholes(1, "the order of axes")
    call.moved(lambda x: call.transpose(x, *perm), 0)


@operator("SQUEEZE")
def squeeze(call: Call) -> None:
    """Without axes of size 1: some, or all."""
    options = call.operator.options
    axes = None if options is None else options.array(0, np.int32)
    call.moved(lambda x: call.emit("Squeeze", x, call.ints(*map(int, axes)) if axes is not None and len(axes) else None), 0)


@operator("EXPAND_DIMS")
def expand_dims(call: Call) -> None:
    """With one more axis of size 1."""
    axes = call.ints(*call.wholes(1, "the axis"))
    call.moved(lambda x: call.emit("Unsqueeze", x, axes), 0)


@operator("SHAPE")
def shape(call: Call) -> None:
    """The dimensions."""
    call.give_stored(call.cast(call.emit("Shape", call.tensor(0)), call.out().dtype))


@operator("RANK")
def rank(call: Call) -> None:
    """How many axes."""
    call.give_stored(call.network.named_constant(call.out().name, np.array(call.tensor(0).rank, call.out().dtype)))


@operator("FILL")
def fill(call: Call) -> None:
    """One number in every place."""
    call.give(call.emit("Expand", call.real(1), call.cast(call.tensor(0), "int64")))


@operator("ZEROS_LIKE")
def zeros_like(call: Call) -> None:
    """Zeros of its shape."""
    x = call.tensor(0)
    call.give_stored(call.emit("Expand", call.network.constant(0, x.spec.dtype), call.emit("Shape", x)))


@operator("BROADCAST_TO")
def broadcast_to(call: Call) -> None:
    """To a shape."""
    shape = call.cast(call.tensor(1), "int64")
    call.moved(lambda x: call.emit("Expand", x, shape), 0)


@operator("RANGE")
def range_(call: Call) -> None:
    """From, up to, by."""
    call.give_stored(call.emit("Range", *(call.tensor(k) for k in range(3))))


@operator("CONCATENATION")
def concatenation(call: Call) -> None:
    """Along an axis."""
    axis = call.option(0, "i")
    call.moved(lambda *xs: call.activated(call.emit("Concat", *xs, axis=axis), call.option(1, "b")), *range(len(call)))


@operator("PACK")
def pack(call: Call) -> None:
    """Along a new axis."""
    axis = call.option(1, "i")
    call.moved(lambda *xs: call.emit("Concat", *(call.emit("Unsqueeze", x, call.ints(axis)) for x in xs), axis=axis), *range(len(call)))


@operator("UNPACK")
def unpack(call: Call) -> None:
    """The entries of an axis."""
    axis, x = call.option(1, "i"), call.tensor(0)
    for k in range(len(call.operator.outputs)):
        call.give_stored(call.emit("Gather", x, call.network.constant(k, "int64"), axis=axis), k)


@operator("SPLIT")
def split(call: Call) -> None:
    """In equal parts."""
    (axis,) = call.wholes(0, "the axis")
    n = len(call.operator.outputs)
    for k, part in enumerate(call.emit_all("Split", n, call.tensor(1), axis=axis, num_outputs=n)):
        call.give_stored(part, k)


@operator("SPLIT_V")
def split_v(call: Call) -> None:
    """In parts of these sizes, of which one may be what is left."""
    (axis,) = call.wholes(2, "the axis")
    x, sizes = call.tensor(0), call.wholes(1, "the sizes")
    if -1 in sizes:
        whole = x.shape[axis]
        if isinstance(whole, str) or sizes.count(-1) > 1:
            raise call.refuse(f"sizes {sizes} of an axis of size {whole} are not supported")
        sizes[sizes.index(-1)] = whole - sum(sizes) - 1
    for k, part in enumerate(call.emit_all("Split", len(sizes), x, call.ints(*sizes), axis=axis)):
        call.give_stored(part, k)


@operator("GATHER")
def gather(call: Call) -> None:
    """Entries of an axis by index."""
    if call.option(1, "i"):
        raise call.refuse("batch_dims are not supported")
    index = call.tensor(1)
    call.moved(lambda x: call.emit("Gather", x, index, axis=call.option(0, "i")), 0)


@operator("EMBEDDING_LOOKUP")
def embedding_lookup(call: Call) -> None:
    """Rows of a table."""
    call.give(call.emit("Gather", call.real(1), call.tensor(0), axis=0))


@operator("TILE")
def tile(call: Call) -> None:
    """Repeated."""
    repeats = call.cast(call.tensor(1), "int64")
    call.moved(lambda x: call.emit("Tile", x, repeats), 0)


@operator("REVERSE_V2")
def reverse(call: Call) -> None:
    """Axes backwards."""
    axes = call.wholes(1, "the axes")
    n = len(axes)
    call.moved(lambda x: call.emit("Slice", x, call.ints(*[-1] * n), call.ints(*[-LAST] * n), call.ints(*axes), call.ints(*[-1] * n)), 0)


@operator("PAD", "PADV2", "MIRROR_PAD")
def pad(call: Call) -> None:
    """With zeros, one number, or what lies next to it."""
    widths = call.array(1, "the widths")
    if widths.ndim != 2 or widths.shape[1] != 2:
        raise call.invalid(f"widths must be (rank, 2), got {widths.shape}")
    if call.kind == "MIRROR_PAD" and call.option(0, "b"):
        raise call.refuse("symmetric padding is not supported")
    value = call.real(2) if call.kind == "PADV2" else None
    mode = "reflect" if call.kind == "MIRROR_PAD" else "constant"
    call.give(call.emit("Pad", call.real(0), call.ints(*map(int, widths.T.ravel())), value, mode=mode))


@operator("SLICE")
def slice_(call: Call) -> None:
    """From these places, so many; -1: to the end."""
    starts, sizes = call.wholes(1, "the starts"), call.wholes(2, "the sizes")
    if any(s < 0 for s in starts) or any(n < -1 for n in sizes) or len(starts) != len(sizes):
        raise call.invalid(f"starts {starts} and sizes {sizes} make no sense")
    ends = [LAST if n < 0 else s + n for s, n in zip(starts, sizes)]
    call.moved(lambda x: call.emit("Slice", x, call.ints(*starts), call.ints(*ends), call.ints(*range(len(starts)))), 0)


@operator("STRIDED_SLICE")
def strided_slice(call: Call) -> None:
    """As NumPy writes it: bounds and steps, entries, new axes and an ellipsis."""
    starts, ends, steps = (call.wholes(k, what) for k, what in ((1, "the starts"), (2, "the ends"), (3, "the steps")))
    begin, end, ellipsis, new, shrink = (call.option(k, "i") for k in range(5))
    if call.flag(5):
        ends = [s + e for s, e in zip(starts, ends)]
    x = call.tensor(0)
    if not len(starts) == len(ends) == len(steps) or ellipsis.bit_count() > 1:
        raise call.invalid(f"{len(starts)} starts, {len(ends)} ends, {len(steps)} steps")
    own = sum(not (new | ellipsis) >> k & 1 for k in range(len(starts)))  # places that take an axis of x
    cuts, entries, added, axis, place = [], [], [], 0, 0
    for k, (s, e, step) in enumerate(zip(starts, ends, steps)):
        if ellipsis >> k & 1:
            axis, place = axis + x.rank - own, place + x.rank - own
        elif new >> k & 1:
            added.append(place)
            place += 1
        elif shrink >> k & 1:
            entries.append((axis, s))
            axis += 1
        else:
            s, e = (LAST if step < 0 else 0) if begin >> k & 1 else s, (-LAST if step < 0 else LAST) if end >> k & 1 else e
            if (s, e, step) != (0, LAST, 1):
                cuts.append((s, e, axis, step))
            axis, place = axis + 1, place + 1
    if own > x.rank:
        raise call.invalid(f"it takes {own} axes of {x.rank}")

    def taken(x: Tensor) -> Tensor:
        if cuts:
            x = call.emit("Slice", x, *(call.ints(*column) for column in zip(*cuts)))
        for axis, index in reversed(entries):
            x = call.emit("Gather", x, call.network.constant(index, "int64"), axis=axis)
        return call.emit("Unsqueeze", x, call.ints(*added)) if added else x

    call.moved(taken, 0)
