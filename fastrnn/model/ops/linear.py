"""Matrix products and convolutions."""

from __future__ import annotations

import math
from dataclasses import dataclass
from string import ascii_letters

import numpy as np

from fastrnn.errors import InvalidModelError, ShapeError, UnsupportedModelError
from fastrnn.model.ops.elementwise import FLOATS
from fastrnn.model.ops.registry import ANY_DIM, MANY, Spec, broadcast, check_x_bits, meaning, op, require, rows, same_dim, want_weights, where
from fastrnn.model.small import UNBOUNDED, product, restored

AUTO_PADS = ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER")


def _same_dtype(node, *specs: Spec) -> None:
    if len({s.dtype for s in specs}) > 1:
        raise InvalidModelError(f"{where(node)}: dtypes {', '.join(s.dtype for s in specs)} differ")


@op("Gemm", inputs=(2, 4), alpha=1.0, beta=1.0, transA=0, transB=0, x_bits=UNBOUNDED, apart=rows)
def gemm(node, inputs):
    """Y = alpha A B + beta C, with A or B transposed; + A may carry leading axes where it is not transposed; + B may be of any precision (small.py), then with transB
    and alpha 1, of int8 with its scales as a fourth input."""
    a, b = require(node, inputs[0], "A", FLOATS), require(node, inputs[1], "B", (*FLOATS, "uint16", "int8"))
    _check_small(node, b, inputs[3:])
    if b.dtype not in FLOATS and not (node.get("transB") and node.get("alpha") == 1):
        raise InvalidModelError(f"{where(node)}: B of {b.dtype} takes transB=1 and alpha=1")
    if a.rank < 1 or b.rank != 2 or node.get("transA") and a.rank != 2:
        raise ShapeError(f"{where(node)}: A {a.shape} and B {b.shape} must be matrices")
    leading, k = ((a.shape[1],), a.shape[0]) if node.get("transA") else (a.shape[:-1], a.shape[-1])
    inner, n = (b.shape[1], b.shape[0]) if node.get("transB") else b.shape
    if not same_dim(inner, k):
        raise ShapeError(f"{where(node)}: B {b.shape} does not fit A {a.shape}; is it transposed?")
    shape = (*leading, n)
    if len(inputs) > 2 and inputs[2] is not None:
        c = require(node, inputs[2], "C")
        _same_dtype(node, a, c)
        if len(broadcast(node, c.shape, shape)) != len(shape) or any(
            x != 1 and not same_dim(x, y) for x, y in zip(reversed(c.shape), reversed(shape))
        ):
            raise ShapeError(f"{where(node)}: C {c.shape} does not broadcast to {shape}")
    if b.dtype in FLOATS:
        _same_dtype(node, a, b)
    return [Spec(a.dtype, shape)]


def _check_small(node, w: Spec, scale: list) -> None:
    """Raises where weights of a product do not fit their precision."""
    check_x_bits(node)
    if w.dtype not in FLOATS or scale:
        want_weights(node, w, "W", w.shape, scale[0] if scale else None, 1)


@meaning("Gemm")
def gemm_meaning(node, inputs):
    """NumPy's product."""
    a, b, c, scale = [*inputs, None, None][:4]
    if b.dtype.kind in "iu":
        start = np.zeros((), a.dtype) if c is None else c if node.get("beta") == 1 else c * a.dtype.type(node.get("beta"))
        return [product(a.T if node.get("transA") else a, b, scale, node.get("x_bits"), start).astype(a.dtype)]
    y = (a.T if node.get("transA") else a) @ (b.T if node.get("transB") else b).astype(a.dtype, copy=False)
    y = y if node.get("alpha") == 1 else y * a.dtype.type(node.get("alpha"))
    return [y if c is None else (y + (c if node.get("beta") == 1 else c * a.dtype.type(node.get("beta")))).astype(a.dtype)]


def _matmul_apart(node, specs, axes) -> bool:
    """Time among the rows of A, or among the batch axes of both."""
    a, b = axes
    if a is not None and b is not None:
        return a < specs[0].rank - 2 and a - specs[0].rank == b - specs[1].rank
    return (a is None or a != specs[0].rank - 1) and (b is None or b < specs[1].rank - 2)


@op("MatMul", inputs=(2, 2), apart=_matmul_apart)
def matmul(node, inputs):
    """NumPy's matmul: the last two axes, the others broadcast."""
    a, b = (require(node, s, what, FLOATS) for s, what in zip(inputs, "AB"))
    _same_dtype(node, a, b)
    if not a.rank or not b.rank:
        raise ShapeError(f"{where(node)}: a scalar cannot be multiplied")
    left = a.shape if a.rank > 1 else (1, *a.shape)
    right = b.shape if b.rank > 1 else (*b.shape, 1)
    if not same_dim(left[-1], right[-2]):
        raise ShapeError(f"{where(node)}: A {a.shape} and B {b.shape} do not fit")
    shape = broadcast(node, left[:-2], right[:-2])
    return [Spec(a.dtype, (*shape, *((left[-2],) if a.rank > 1 else ()), *((right[-1],) if b.rank > 1 else ())))]


@meaning("MatMul")
def matmul_meaning(node, inputs):
    """NumPy's matmul."""
    return [np.matmul(*inputs)]


@op("Einsum", inputs=(1, MANY), equation=None)
def einsum(node, inputs):
    """Sums of products by index letters; "..." stands for axes that broadcast."""
    specs = [require(node, s, f"input {k}", (*FLOATS, "int32", "int64")) for k, s in enumerate(inputs)]
    _same_dtype(node, *specs)
    terms, result = _letters(node, [s.rank for s in specs])
    sizes: dict[str, list] = {}
    for term, spec in zip(terms, specs):
        for letter, dim in zip(term, spec.shape, strict=True):
            sizes.setdefault(letter, []).append(dim)
    for letter, dims in sizes.items():
        numbers = [d for d in dims if not isinstance(d, str) and d != 1]
        if any(d != numbers[0] for d in numbers[1:]):
            raise ShapeError(f"{where(node)}: index {letter!r} of {node.get('equation')!r} has sizes {dims}")
    return [Spec(specs[0].dtype, tuple(broadcast(node, *((d,) for d in sizes[letter]))[0] for letter in result))]


def _letters(node, ranks: list[int]) -> tuple[list[str], str]:
    """The letters of each operand's axes, and of the result's; axes behind "..." are numbers, counted from the end."""
    equation = (node.get("equation") or "").replace(" ", "")
    left, arrow, right = equation.partition("->")
    terms = left.split(",")
    if len(terms) != len(ranks) or not set(equation) <= set(ascii_letters + ".,->"):
        raise InvalidModelError(f"{where(node)}: equation {node.get('equation')!r} does not fit {len(ranks)} inputs")
    spread, most = [], 0
    for term, rank in zip(terms, ranks):
        extra = rank - len(term.replace("...", ""))
        if extra < 0 or extra and "..." not in term:
            raise ShapeError(f"{where(node)}: {term!r} of {node.get('equation')!r} does not fit {rank} axes")
        most = max(most, extra)
        spread.append(term.replace("...", "".join(map(str, reversed(range(extra))))))
    dots = "".join(map(str, reversed(range(most))))
    every = [letter for letter in "".join(terms) if letter.isalpha()]
    result = right.replace("...", dots) if arrow else dots + "".join(sorted(a for a in set(every) if every.count(a) == 1))
    if len(set(result)) < len(result) or not set(result) <= set("".join(spread)):
        raise InvalidModelError(f"{where(node)}: the result of {node.get('equation')!r} names an index twice, or one that no input has")
    return spread, result


@meaning("Einsum")
def einsum_meaning(node, inputs):
    """NumPy's."""
    return [np.asarray(np.einsum(node.get("equation").replace(" ", ""), *inputs), inputs[0].dtype)]


@dataclass(frozen=True)
class Window:
    """What a convolution does along its spatial axes; sizes: of the input there, None where not known."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]

    def length(self, axis: int, size) -> int | str:
        """Size of a Conv's output along a spatial axis."""
        if isinstance(size, str):
            kept = self.strides[axis] == 1 and self.before[axis] + self.after[axis] == self.span(axis) - 1 and self.kernel[axis] == 1
            return size if kept else ANY_DIM
        return (size + self.before[axis] + self.after[axis] - self.span(axis)) // self.strides[axis] + 1

    def span(self, axis: int) -> int:
        """Inputs from the first to the last that an output sees."""
        return (self.kernel[axis] - 1) * self.dilations[axis] + 1


def window_of(node, kernel, sizes) -> Window:
    """The window of a Conv or ConvTranspose, attributes checked, auto_pad resolved."""
    n = len(kernel)

    def listed(name: str, default: int, length: int = n, least: int = 1):
        given = node.get(name)
        given = [default] * length if given is None else list(given)
        if len(given) != length or min(given, default=least) < least:
            raise InvalidModelError(f"{where(node)}: {name} must be {length} numbers from {least}, got {given}")
        return tuple(given)

    if node.get("kernel_shape") is not None and tuple(node.get("kernel_shape")) != tuple(kernel):
        raise InvalidModelError(f"{where(node)}: kernel_shape {list(node.get('kernel_shape'))} differs from W's {list(kernel)}")
    strides, dilations, pads = listed("strides", 1), listed("dilations", 1), listed("pads", 0, 2 * n, 0)
    auto = node.get("auto_pad")
    if auto not in AUTO_PADS:
        raise InvalidModelError(f"{where(node)}: auto_pad {auto!r} is unknown")
    window = Window(tuple(kernel), strides, dilations, pads[:n], pads[n:])
    if auto == "NOTSET":
        return window
    totals = [0] * n
    if auto != "VALID":
        totals = [0 if isinstance(s, str) else max(0, (-(-s // strides[k]) - 1) * strides[k] + window.span(k) - s) for k, s in enumerate(sizes)]
    less, more = tuple(t // 2 for t in totals), tuple(t - t // 2 for t in totals)
    return Window(tuple(kernel), strides, dilations, *((more, less) if auto == "SAME_LOWER" else (less, more)))


def taps_of(window: Window, axis: int) -> list[list[int]]:
    """Of a ConvTranspose, the taps of its flipped kernel that meet an input, for outputs of each residue by the stride."""
    step = window.strides[axis]
    return [[t for t in range(window.kernel[axis]) if (r + t * window.dilations[axis]) % step == 0] for r in range(step)]


def _conv_inputs(node, inputs):
    x, w = require(node, inputs[0], "X", FLOATS), require(node, inputs[1], "W", (*FLOATS, "uint16", "int8"))
    if w.dtype in FLOATS:
        _same_dtype(node, x, w)
    if x.rank < 3 or w.rank != x.rank:
        raise ShapeError(f"{where(node)}: X {x.shape} and W {w.shape} must have one rank of at least 3")
    return x, w


def _unknown_weights(x: Spec, w: Spec) -> list[Spec] | None:
    """What is known of the result where W's sizes are not."""
    return [Spec(x.dtype, (x.shape[0], *(ANY_DIM,) * (x.rank - 1)))] if any(isinstance(d, str) for d in w.shape) else None


def _conv_bias(node, inputs, units: int) -> None:
    if len(inputs) > 2 and inputs[2] is not None and (inputs[2].rank != 1 or not same_dim(inputs[2].shape[0], units)):
        raise ShapeError(f"{where(node)}: B must have shape ({units},), got {inputs[2].shape}")


def conv_apart(node, specs, axes) -> bool:
    """Time as the batch, or along an axis whose window is one step."""
    if axes[0] is None or axes[0] == 1 or any(a is not None for a in axes[1:]):
        return False
    if axes[0] == 0:
        return True
    k, window = axes[0] - 2, window_of(node, specs[1].shape[2:], specs[0].shape[2:])
    return (window.kernel[k], window.strides[k], window.before[k], window.after[k]) == (1, 1, 0, 0)


@op("Conv", inputs=(2, 4), x_bits=UNBOUNDED, kernel_shape=None, strides=None, dilations=None, pads=None, group=1, auto_pad="NOTSET", apart=conv_apart)
def conv(node, inputs):
    """X (N, C, sizes...), W (M, C / group, kernel...), B (M,) -> (N, M, sizes...); + W of any precision (small.py), of int8 with its scales (M,) as a fourth input."""
    x, w = _conv_inputs(node, inputs)
    if node.op == "Conv":
        _check_small(node, w, inputs[3:])
        if w.dtype == "int8" and 1 < node.get("group") == w.shape[0]:
            raise UnsupportedModelError(f"{where(node)}: a depthwise convolution takes no int8 weights")
    if unknown := _unknown_weights(x, w):
        return unknown
    group, units = node.get("group"), w.shape[0]
    if group < 1 or units % group or not same_dim(x.shape[1], w.shape[1] * group):
        raise ShapeError(f"{where(node)}: X {x.shape} and W {w.shape} do not fit group={group}")
    _conv_bias(node, inputs, units)
    window = window_of(node, w.shape[2:], x.shape[2:])
    sizes = tuple(window.length(k, s) for k, s in enumerate(x.shape[2:]))
    if any(not isinstance(s, str) and s < 0 for s in sizes):
        raise ShapeError(f"{where(node)}: the window is larger than X {x.shape} with its padding")
    return [Spec(x.dtype, (x.shape[0], units, *sizes))]


@meaning("Conv")
def conv_meaning(node, inputs):
    """Windows as a strided view, times the kernel."""
    x, w, b, scale = [*inputs, None, None][:4]
    n, group = w.ndim - 2, node.get("group")
    w = w if w.dtype == np.int8 and scale is not None else restored(w)
    window = window_of(node, w.shape[2:], x.shape[2:])
    padded = np.pad(x, [(0, 0), (0, 0), *zip(window.before, window.after)])
    sizes = tuple(window.length(k, s) for k, s in enumerate(x.shape[2:]))
    step = padded.strides[2:]
    view = np.lib.stride_tricks.as_strided(
        padded, (x.shape[0], group, x.shape[1] // group, *sizes, *window.kernel),
        (padded.strides[0], padded.strides[1] * (x.shape[1] // group), padded.strides[1], *(s * t for s, t in zip(step, window.strides)),
         *(s * d for s, d in zip(step, window.dilations))), writeable=False)  # fmt: skip
    if scale is not None:
        rows = np.moveaxis(view, 2, 2 + n)  # (N, group, sizes..., C / group, kernel...)
        rows = rows.reshape(*rows.shape[: 2 + n], math.prod(rows.shape[2 + n :]))
        parts = [
            product(rows[:, g], kernel.reshape(len(kernel), -1), s, node.get("x_bits"), 0 if c is None else c)
            for g, (kernel, s, c) in enumerate(zip(np.split(w, group), np.split(scale, group), [None] * group if b is None else np.split(b, group)))
        ]
        return [np.ascontiguousarray(np.moveaxis(np.concatenate(parts, axis=-1), -1, 1), dtype=x.dtype)]
    contracted = (2, *range(3 + n, 3 + 2 * n))
    parts = [
        np.tensordot(view[:, g : g + 1].transpose(0, 1, *range(2, view.ndim)), kernel, (contracted, range(1, w.ndim)))
        for g, kernel in enumerate(np.split(w, group))
    ]
    y = np.moveaxis(np.concatenate(parts, axis=-1)[:, 0], -1, 1)
    return [np.ascontiguousarray(y if b is None else y + b.reshape(-1, *(1,) * n), dtype=x.dtype)]


def transposed_padding(node, window: Window, sizes) -> tuple[list, list, list]:
    """before, after, output sizes of a ConvTranspose along its spatial axes."""
    n = len(window.kernel)
    extra = node.get("output_padding") or [0] * n
    if len(extra) != n or min(extra, default=0) < 0:
        raise InvalidModelError(f"{where(node)}: output_padding must be {n} numbers from 0, got {list(extra)}")
    whole = [s if isinstance(s, str) else (s - 1) * window.strides[k] + extra[k] + window.span(k) for k, s in enumerate(sizes)]
    before, after, wanted = list(window.before), list(window.after), node.get("output_shape")
    same = node.get("auto_pad") in ("SAME_UPPER", "SAME_LOWER")
    if wanted is None and same:
        wanted = [s if isinstance(s, str) else s * window.strides[k] for k, s in enumerate(sizes)]
    if wanted is not None:
        if len(wanted) != n:
            raise InvalidModelError(f"{where(node)}: output_shape must have {n} sizes, got {list(wanted)}")
        totals = [0 if isinstance(w, str) else w - o for w, o in zip(whole, wanted)]
        half = [t // 2 for t in totals]
        before, after = half, [t - h for t, h in zip(totals, half)]
        if node.get("auto_pad") == "SAME_LOWER" or wanted is node.get("output_shape") and node.get("auto_pad") != "SAME_UPPER":
            before, after = after, before
    return before, after, [w if isinstance(w, str) else w - b - a for w, b, a in zip(whole, before, after)]


@op(
    "ConvTranspose",
    inputs=(2, 3),
    kernel_shape=None,
    strides=None,
    dilations=None,
    pads=None,
    group=1,
    auto_pad="NOTSET",
    output_padding=None,
    output_shape=None,
)
def conv_transpose(node, inputs):
    """X (N, C, sizes...), W (C, M / group, kernel...), B (M,) -> (N, M, sizes...)."""
    x, w = _conv_inputs(node, inputs)
    if unknown := _unknown_weights(x, w):
        return unknown
    group = node.get("group")
    if group < 1 or w.shape[0] % group or not same_dim(x.shape[1], w.shape[0]):
        raise ShapeError(f"{where(node)}: X {x.shape} and W {w.shape} do not fit group={group}")
    _conv_bias(node, inputs, w.shape[1] * group)
    window = window_of(node, w.shape[2:], ("",) * (x.rank - 2) if node.get("auto_pad") == "NOTSET" else (1,) * (x.rank - 2))
    sizes = [ANY_DIM if isinstance(s, str) else s for s in transposed_padding(node, window, x.shape[2:])[2]]
    if any(not isinstance(s, str) and s < 0 for s in sizes):
        raise ShapeError(f"{where(node)}: the padding is larger than the output of X {x.shape}")
    return [Spec(x.dtype, (x.shape[0], w.shape[1] * group, *sizes))]


@meaning("ConvTranspose")
def conv_transpose_meaning(node, inputs):
    """Each input adds its kernel where its window lies."""
    x, w, b = inputs[0], restored(inputs[1]), [*inputs, None][2]  # of bfloat16, if of anything small
    n, group, units = w.ndim - 2, node.get("group"), w.shape[1] * node.get("group")
    window = window_of(node, w.shape[2:], (1,) * n)
    before, _, sizes = transposed_padding(node, window, x.shape[2:])
    extra = node.get("output_padding") or [0] * n
    whole = [max(0, (size - 1) * window.strides[k] + extra[k] + window.span(k)) for k, size in enumerate(x.shape[2:])]
    y = np.zeros((x.shape[0], units, *whole), x.dtype)
    for g, (part, kernel) in enumerate(zip(np.split(x, group, axis=1), np.split(w, group))):
        target = y[:, g * w.shape[1] : (g + 1) * w.shape[1]]
        for at in np.ndindex(*window.kernel):
            cut = tuple(
                slice(a * d, a * d + (s - 1) * t + 1, t) if s else slice(0, 0)
                for a, d, s, t in zip(at, window.dilations, x.shape[2:], window.strides)
            )
            target[(slice(None), slice(None), *cut)] += np.moveaxis(np.tensordot(part, kernel[(slice(None), slice(None), *at)], (1, 0)), -1, 1)
    # negative padding grows the output; what lies past the reach of every window stays zero
    y = np.pad(y, [(0, 0), (0, 0), *((max(0, -p), max(0, p) + size) for p, size in zip(before, sizes))])
    y = y[(slice(None), slice(None), *(slice(max(0, p), max(0, p) + size) for p, size in zip(before, sizes)))]
    return [np.ascontiguousarray(y if b is None else y + b.reshape(-1, *(1,) * n), dtype=x.dtype)]
