"""Complex numbers inside of a program, as two tensors: their real and imaginary parts. Inputs, outputs and weights are real."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch

from fastrnn.converters.torch_export.ops.functions import atan2, hypot
from fastrnn.converters.torch_export.registry import CONVERTERS, Complex, Tensor, bind, settled
from fastrnn.converters.torch_export.site import Site, dtype_name

COMPLEX: dict[str, Callable] = {}
# What is done to both parts alike, by the converter of real numbers: linear operators, and those that move entries.
ALIKE = frozenset(
    f"aten.{name}"
    for name in (
        "view.default",
        "reshape.default",
        "_unsafe_view.default",
        "permute.default",
        "transpose.int",
        "t.default",
        "mT.default",
        "unsqueeze.default",
        "squeeze.dim",
        "squeeze.dims",
        "squeeze.default",
        "expand.default",
        "slice.Tensor",
        "select.int",
        "narrow.default",
        "flip.default",
        "roll.default",
        "cat.default",
        "stack.default",
        "split.Tensor",
        "split_with_sizes.default",
        "chunk.default",
        "unbind.int",
        "index_select.default",
        "index.Tensor",
        "constant_pad_nd.default",
        "unfold.default",
        "repeat.default",
        "clone.default",
        "sum.default",
        "sum.dim_IntList",
        "mean.default",
        "mean.dim",
        "cumsum.default",
        "neg.default",
        "_neg_view.default",
        "diagonal.default",
        "tril.default",
        "triu.default",
        "movedim.int",
        "contiguous.default",
        "detach.default",
        "alias.default",
        "lift_fresh_copy.default",
    )
)


def of_complex(*names: str):
    """Registers a converter for operators on complex numbers, or that give them. It returns the names of both parts, or of a real result."""

    def register(function):
        for name in names:
            COMPLEX[f"aten.{name}"] = function
        return function

    return register


def convert(site: Site, args, kwargs):
    """The result of an operator that takes or gives complex numbers: names, in pairs for complex ones."""
    schema = site.node.target._schema
    if site.target in COMPLEX:
        arguments, left = bind(COMPLEX[site.target], schema, args, kwargs)
        if left:
            raise site.refuse(f"{', '.join(left)} of complex numbers is not supported")
        return COMPLEX[site.target](site, **arguments)
    if site.target not in ALIKE or site.target not in CONVERTERS:
        raise site.refuse("of complex numbers this operator is not supported")
    found = []
    for part in ("re", "im"):
        g = copy.copy(site)
        g.dtype = _real(site)
        given = torch.utils._pytree.tree_map(
            lambda a, part=part: getattr(a, part) if isinstance(a, Complex) else a, (args, kwargs), is_leaf=lambda a: isinstance(a, Complex)
        )
        arguments, left = bind(CONVERTERS[site.target], schema, *given)
        if left:
            raise site.refuse(f"{', '.join(left)} is not supported")
        found.append(CONVERTERS[site.target](g, **arguments))
    return list(zip(*found)) if isinstance(found[0], list) else tuple(found)


def _real(g: Site) -> str:
    """The dtype of the parts of the result."""
    return {"complex64": "float32", "complex128": "float64"}.get(g.dtype, g.dtype)


def complex_value(names: tuple[str, str], fake: torch.Tensor) -> Complex:
    """A value by the names of its parts."""
    shape, dtype = tuple(map(settled, fake.shape)), dtype_name(fake.real.dtype)
    return Complex(*(Tensor(name, shape, dtype, fake.real) for name in names))


def _pair(g: Site, x) -> tuple[str, str]:
    """The parts of an operand, a number among them, in the result's dtype."""
    dtype = _real(g)
    if isinstance(x, Complex):
        return g.cast(x.re, dtype), g.cast(x.im, dtype)
    if isinstance(x, complex):
        return g.constant(x.real, dtype), g.constant(x.imag, dtype)
    return g.cast(x, dtype), g.constant(0, dtype)


@of_complex("view_as_real.default")
def view_as_real(g: Site, x):
    """Both parts along a new last axis."""
    return g.emit("Concat", *(g.emit("Unsqueeze", part, g.ints(x.re.rank)) for part in (x.re, x.im)), axis=x.re.rank)


@of_complex("view_as_complex.default")
def view_as_complex(g: Site, x):
    """From a last axis of two."""
    return tuple(g.emit("Gather", x, g.constant(k, "int64"), axis=x.rank - 1) for k in (0, 1))


@of_complex("complex.default", "polar.default")
def from_parts(g: Site, real=None, imag=None, abs=None, angle=None):  # the schema's names
    """From parts, or from a size and an angle; one may be broadcast."""
    if real is None:
        return g.emit("Mul", abs, g.emit("Cos", angle)), g.emit("Mul", abs, g.emit("Sin", angle))
    zero = g.constant(0, _real(g))
    return g.emit("Add", real, g.emit("Mul", imag, zero)) if real.shape != imag.shape else real.name, g.emit(
        "Add", imag, g.emit("Mul", real, zero)
    ) if real.shape != imag.shape else imag.name


@of_complex("real.default", "imag.default")
def part(g: Site, x):
    """One part."""
    return x.re.name if "real" in g.target else x.im.name


@of_complex("_to_copy.default", "to.dtype")
def to(g: Site, x, dtype=None):
    """Real numbers have no imaginary part; the other way torch drops it, with a warning."""
    if not g.dtype.startswith("complex"):
        return g.cast(x.re, g.dtype)
    re, im = _pair(g, x)
    return re, im if isinstance(x, Complex) else g.emit("Mul", re, im)


@of_complex("_conj.default", "conj.default", "conj_physical.default", "_conj_physical.default", "resolve_conj.default", "resolve_neg.default")
def conjugate(g: Site, x):
    """The imaginary part with the other sign."""
    if "resolve" in g.target:
        return x.re.name, x.im.name
    return x.re.name, g.emit("Neg", x.im)


@of_complex("add.Tensor", "sub.Tensor")
def add(g: Site, x, other, alpha=1):
    """Part by part."""
    op = "Add" if "add" in g.target else "Sub"
    factor = None if alpha == 1 else g.constant(alpha, _real(g))
    return tuple(g.emit(op, a, b if factor is None else g.emit("Mul", b, factor)) for a, b in zip(_pair(g, x), _pair(g, other)))


@of_complex("mul.Tensor")
def mul(g: Site, x, other):
    """(a + bi)(c + di); times a real number part by part."""
    if not isinstance(other, Complex | complex):
        return tuple(g.emit("Mul", a, g.cast(other, _real(g))) for a in _pair(g, x))
    if not isinstance(x, Complex | complex):
        return mul(g, other, x)
    (a, b), (c, d) = _pair(g, x), _pair(g, other)
    return g.emit("Sub", g.emit("Mul", a, c), g.emit("Mul", b, d)), g.emit("Add", g.emit("Mul", a, d), g.emit("Mul", b, c))


@of_complex("div.Tensor", "reciprocal.default")
def div(g: Site, x, other=None):
    """Times the conjugate, over the square of the size."""
    if other is None:
        x, other = 1, x
    if not isinstance(other, Complex | complex):
        return tuple(g.emit("Div", a, g.cast(other, _real(g))) for a in _pair(g, x))
    (a, b), (c, d) = _pair(g, x), _pair(g, other)
    size = g.emit("Add", g.emit("Mul", c, c), g.emit("Mul", d, d))
    re = g.emit("Add", g.emit("Mul", a, c), g.emit("Mul", b, d))
    return g.emit("Div", re, size), g.emit("Div", g.emit("Sub", g.emit("Mul", b, c), g.emit("Mul", a, d)), size)


@of_complex("abs.default", "angle.default")
def polar(g: Site, x):
    """The size, or the angle."""
    return hypot(g, x.re, x.im) if "abs" in g.target else atan2(g, x.im, x.re)


@of_complex("exp.default")
def exp(g: Site, x):
    """exp(a) (cos b + i sin b)."""
    size = g.emit("Exp", x.re)
    return g.emit("Mul", size, g.emit("Cos", x.im)), g.emit("Mul", size, g.emit("Sin", x.im))


@of_complex("matmul.default", "mm.default", "bmm.default")
def matmul(g: Site, x, other=None, mat2=None):
    """Four products."""
    (a, b), (c, d) = _pair(g, x), _pair(g, mat2 if other is None else other)
    return g.emit("Sub", g.emit("MatMul", a, c), g.emit("MatMul", b, d)), g.emit("Add", g.emit("MatMul", a, d), g.emit("MatMul", b, c))


def _scaled(g: Site, parts: tuple[str, ...], counts: list, mode: int) -> tuple[str, ...]:
    """Not at all, over the root of the number of entries, or over that number (torch's norm 0, 1 and 2)."""
    if mode == 0:
        return parts
    n = g.product(counts)
    size = g.constant(n, _real(g)) if isinstance(n, int) else g.cast(n, _real(g))
    return tuple(g.emit("Div", part, g.emit("Sqrt", size) if mode == 1 else size) for part in parts)


@of_complex("_fft_r2c.default", "_fft_c2c.default")
def fft(g: Site, x, dim, normalization, onesided=False, forward=True):
    """One axis after the other, the last one of real numbers."""
    first = x.re if isinstance(x, Complex) else x
    axes, sizes = [first.axis(d) for d in dim], [g.size(first, d) for d in dim]
    parts = (x.re.name, x.im.name) if isinstance(x, Complex) else (x.name,)
    for axis in reversed(axes):
        parts = g.emit(
            "FourierTransform",
            *parts,
            outputs=2,
            axis=axis,
            direction="forward" if forward else "reverse",
            mode="half" if onesided and len(parts) == 1 else "full",
        )
    return _scaled(g, tuple(parts), sizes, normalization)


@of_complex("_fft_c2r.default")
def inverse_real_fft(g: Site, x, dim, normalization, last_dim_size):
    """Back to real numbers, along the last axis at last."""
    if not isinstance(last_dim_size, int):
        raise g.refuse("to a size that varies", last_dim_size if isinstance(last_dim_size, torch.SymInt) else x.re.fake.shape[dim[-1]])
    axes, parts = [x.re.axis(d) for d in dim], [x.re.name, x.im.name]
    for axis in axes[:-1]:
        parts = g.emit("FourierTransform", *parts, outputs=2, axis=axis, direction="reverse")
    y = g.emit("HermitianTransform", *parts, axis=axes[-1], size=last_dim_size)
    return _scaled(g, (y,), [*(g.size(x.re, a) for a in axes[:-1]), last_dim_size], normalization)[0]
