"""Complex numbers inside of a program, as two tensors: their real and imaginary parts. Inputs and outputs hold the pairs side by side, as everybody does."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from fastrnn.converters.torch_export.ops.functions import atan2, hypot
from fastrnn.converters.torch_export.registry import CONVERTERS, Complex, Tensor, bind, settled
from fastrnn.converters.torch_export.site import Site, dtype_name
from fastrnn.model.ops import COMPLEX as PAIRED

if TYPE_CHECKING:
    from fastrnn.converters.torch_export.importer import GraphImporter

Pair = tuple[str, str]  # names of a real and an imaginary part
COMPLEX: dict[str, Callable] = {}
# What is done to both parts alike, by the converter of real numbers: linear operators, and those that move entries.
ALIKE = frozenset(
    f"aten.{name}"
    for name in """
        view.default reshape.default _unsafe_view.default view_copy.default view_as.default permute.default permute_copy.default transpose.int transpose_copy.int t.default t_copy.default
        mT.default numpy_T.default unsqueeze.default unsqueeze_copy.default squeeze.dim squeeze.dims squeeze.default squeeze_copy.dim squeeze_copy.dims squeeze_copy.default expand.default
        expand_copy.default expand_as.default broadcast_to.default slice.Tensor slice_copy.Tensor select.int select_copy.int narrow.default flip.default roll.default cat.default stack.default
        split.Tensor split_with_sizes.default chunk.default unbind.int index_select.default index.Tensor gather.default take.default constant_pad_nd.default pad.default unfold.default
        unfold_copy.default repeat.default tile.default repeat_interleave.self_int clone.default alias.default alias_copy.default contiguous.default detach.default detach_copy.default
        lift_fresh_copy.default positive.default movedim.int diagonal.default diagonal_copy.default diag_embed.default tril.default triu.default sum.default sum.dim_IntList mean.default
        mean.dim cumsum.default neg.default _neg_view.default trace.default slice_scatter.default select_scatter.default diagonal_scatter.default scatter.src scatter.value scatter_add.default
        index_add.default index_put.default index_copy.default index_fill.int_Scalar put.default where.self where.ScalarSelf where.ScalarOther where.Scalar masked_fill.Scalar masked_fill.Tensor
        fill.Scalar fill.Tensor copy.default full.default full_like.default new_full.default scalar_tensor.default zeros.default zeros_like.default new_zeros.default
    """.split()
)
# Arguments of theirs that are numbers like the others, so that a real one has an imaginary part of 0.
VALUES = ("x", "self", "tensors", "other", "src", "source", "values", "value", "fill_value", "s")


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
        g = real(site)
        arguments, left = bind(CONVERTERS[site.target], schema, *_parts_of(g, schema, args, kwargs, part))
        if left:
            raise site.refuse(f"{', '.join(left)} is not supported")
        found.append(CONVERTERS[site.target](g, **arguments))
    return list(zip(*found)) if isinstance(found[0], list) else tuple(found)


def _parts_of(g: Site, schema, args, kwargs, part: str) -> tuple[tuple, dict]:
    """The arguments of an operator for one part of its result."""

    def of(a, value: bool):
        if isinstance(a, (list, tuple)):
            return [of(entry, value) for entry in a]
        if isinstance(a, Complex):
            return getattr(a, part)
        if isinstance(a, complex):
            return a.real if part == "re" else a.imag
        if part == "re" or not value or isinstance(a, str | None):
            return a
        return replace(a, name=g.emit("Mul", g.cast(a, g.dtype), g.constant(0, g.dtype)), dtype=g.dtype) if isinstance(a, Tensor) else 0

    names = [argument.name for argument in schema.arguments]
    return tuple(of(a, name in VALUES) for name, a in zip(names, args)), {name: of(a, name in VALUES) for name, a in kwargs.items()}


def real(g: Site) -> Site:
    """The same place, for one part."""
    g = copy.copy(g)
    g.dtype = _real(g)
    return g


def _real(g: Site) -> str:
    """The dtype of the parts of the result."""
    return next((real for real, dtype in PAIRED.items() if dtype == g.dtype), g.dtype)


def complex_value(names: tuple[str, str], fake: torch.Tensor) -> Complex:
    """A value by the names of its parts."""
    shape, dtype = tuple(map(settled, fake.shape)), dtype_name(fake.real.dtype)
    return Complex(*(Tensor(name, shape, dtype, fake.real) for name in names))


def apart(graph: GraphImporter, x: Tensor) -> tuple[str, str]:
    """The parts of an input."""
    pairs, *parts = (graph.unique(f"{x.name}.{what}") for what in ("pairs", "real", "imag"))
    graph.build.add("AsReal", pairs, [x.name], [pairs])
    for k, part in enumerate(parts):
        graph.build.add("Gather", part, [pairs, graph.constant(np.array(k))], [part], axis=x.rank)
    return parts[0], parts[1]


def joined(graph: GraphImporter, x: Complex) -> Tensor:
    """An output of complex numbers."""
    name, pairs = graph.unique(f"{x.re.name}.complex"), graph.unique(f"{x.re.name}.pairs")
    columns = [graph.unique(f"{part.name}.column") for part in (x.re, x.im)]
    for part, column in zip((x.re, x.im), columns):
        graph.build.add("Unsqueeze", column, [part.name, graph.ints(x.re.rank)], [column])
    graph.build.add("Concat", pairs, columns, [pairs], axis=x.re.rank)
    graph.build.add("AsComplex", name, [pairs], [name])
    return Tensor(name, x.re.shape, PAIRED[x.re.dtype], x.re.fake)


def pair(g: Site, x) -> Pair:
    """The parts of an operand, a number among them, in the result's dtype."""
    dtype = _real(g)
    if isinstance(x, Complex):
        return g.cast(x.re, dtype), g.cast(x.im, dtype)
    if isinstance(x, complex | int | float):
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
    re, im = pair(g, x)
    return re, im if isinstance(x, Complex) else g.emit("Mul", re, im)


@of_complex("_conj.default", "conj.default", "conj_physical.default", "_conj_physical.default", "resolve_conj.default", "resolve_neg.default")
def conjugate(g: Site, x):
    """The imaginary part with the other sign."""
    if "resolve" in g.target:
        return x.re.name, x.im.name
    return x.re.name, g.emit("Neg", x.im)


@of_complex("add.Tensor", "sub.Tensor", "rsub.Tensor", "add.Scalar", "sub.Scalar", "rsub.Scalar")
def add(g: Site, x, other, alpha=1):
    """Part by part; alpha may be a complex number."""
    op, (a, b) = "Add" if "add" in g.target else "Sub", (other, x) if "rsub" in g.target else (x, other)
    first, second = pair(g, a), pair(g, b)
    if alpha != 1:
        second = product(g, second, pair(g, alpha))
    return tuple(g.emit(op, *both) for both in zip(first, second))


def product(g: Site, x: Pair, y: Pair, op: str = "Mul") -> Pair:
    """(a + bi)(c + di); also of matrices."""
    (a, b), (c, d) = x, y
    return g.emit("Sub", g.emit(op, a, c), g.emit(op, b, d)), g.emit("Add", g.emit(op, a, d), g.emit(op, b, c))


@of_complex("mul.Tensor", "mul.Scalar")
def mul(g: Site, x, other):
    """Times a real number part by part."""
    if not isinstance(other, Complex | complex):
        return tuple(g.emit("Mul", a, g.cast(other, _real(g))) for a in pair(g, x))
    if not isinstance(x, Complex | complex):
        return mul(g, other, x)
    return product(g, pair(g, x), pair(g, other))


@of_complex("div.Tensor", "div.Scalar", "reciprocal.default")
def div(g: Site, x, other=None):
    """By a real number part by part."""
    if other is None:
        x, other = 1, x
    if not isinstance(other, Complex | complex):
        return tuple(g.emit("Div", a, g.cast(other, _real(g))) for a in pair(g, x))
    return quotient(g, pair(g, x), pair(g, other))


def quotient(g: Site, x: Pair, y: Pair) -> Pair:
    """Times the conjugate, over the square of the size."""
    (a, b), (c, d) = x, y
    size = g.emit("Add", g.emit("Mul", c, c), g.emit("Mul", d, d))
    re = g.emit("Add", g.emit("Mul", a, c), g.emit("Mul", b, d))
    return g.emit("Div", re, size), g.emit("Div", g.emit("Sub", g.emit("Mul", b, c), g.emit("Mul", a, d)), size)


@of_complex("abs.default", "angle.default")
def polar_part(g: Site, x):
    """The size, or the angle."""
    return hypot(g, x.re, x.im) if "abs" in g.target else atan2(g, x.im, x.re)


@of_complex("matmul.default", "mm.default", "bmm.default")
def matmul(g: Site, x, other=None, mat2=None):
    """Four products."""
    return product(g, pair(g, x), pair(g, mat2 if other is None else other), "MatMul")


@of_complex("addmm.default", "baddbmm.default")
def addmm(g: Site, x, mat1=None, mat2=None, batch1=None, batch2=None, beta=1, alpha=1):  # the schema's names
    """A product of matrices and what is added, each times a number."""
    first, second = (mat1, mat2) if batch1 is None else (batch1, batch2)
    made, added = product(g, pair(g, first), pair(g, second), "MatMul"), pair(g, x)
    made, added = (parts if factor == 1 else product(g, parts, pair(g, factor)) for parts, factor in ((made, alpha), (added, beta)))
    return tuple(g.emit("Add", *both) for both in zip(made, added))


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
