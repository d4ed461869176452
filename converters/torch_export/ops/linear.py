"""Matrix products, convolutions, attention."""

from __future__ import annotations

import math

from fastrnn.converters.torch_export.registry import Tensor, converts
from fastrnn.converters.torch_export.site import Site


@converts("aten.linear.default")
def linear(g: Site, x, weight, bias=None):
    """A Gemm over the last axis."""
    return g.emit("Gemm", x, weight, bias, transB=1)


@converts("aten.addmm.default", "aten.baddbmm.default")
def addmm(g: Site, x, mat1=None, mat2=None, batch1=None, batch2=None, beta=1, alpha=1):
    """beta C + alpha A B."""
    if mat1 is not None:
        return g.emit("Gemm", mat1, mat2, x, alpha=float(alpha), beta=float(beta))
    y = g.emit("MatMul", batch1, batch2)
    y = y if alpha == 1 else g.emit("Mul", y, g.constant(alpha, g.dtype))
    return g.emit("Add", y, x if beta == 1 else g.emit("Mul", x, g.constant(beta, g.dtype)))


@converts("aten.addmv.default", "aten.addbmm.default")
def added_product(g: Site, x, mat=None, vec=None, batch1=None, batch2=None, beta=1, alpha=1):
    """beta x + alpha A v, or alpha times the sum of A_k B_k."""
    y = g.emit("MatMul", mat, vec) if mat is not None else g.emit("ReduceSum", g.emit("MatMul", batch1, batch2), g.ints(0), keepdims=0)
    y = y if alpha == 1 else g.emit("Mul", y, g.cast(alpha, g.dtype))
    if beta == 0:
        return y
    return g.emit("Add", y, g.cast(x, g.dtype) if beta == 1 else g.emit("Mul", g.cast(x, g.dtype), g.cast(beta, g.dtype)))


@converts("aten._trilinear.default")
def trilinear(g: Site, i1, i2, i3, expand1, expand2, expand3, sumdim, unroll_dim=1):
    """Sums of products of three tensors, each with the axes that it lacks as 1 (unroll_dim is about speed)."""
    a, b, c = (g.emit("Unsqueeze", t, g.ints(*axes)) if axes else t.name for t, axes in ((i1, expand1), (i2, expand2), (i3, expand3)))
    y = g.emit("Mul", g.emit("Mul", a, b), c)
    return g.emit("ReduceSum", y, g.ints(*sumdim), keepdims=0) if sumdim else y


@converts("aten.matmul.default", "aten.mm.default", "aten.bmm.default", "aten.mv.default", "aten.dot.default")
def matmul(g: Site, x, other=None, mat2=None, vec=None, tensor=None):
    """NumPy's matmul."""
    return g.emit("MatMul", x, next(t for t in (other, mat2, vec, tensor) if t is not None))


def _convolve(g: Site, op: str, x: Tensor, weight, bias, groups: int, **attributes) -> str:
    """With a batch axis, added where torch was called without one."""
    alone = x.rank == weight.rank - 1
    y = g.emit(op, g.emit("Unsqueeze", x, g.ints(0)) if alone else x, weight, bias, group=groups, **attributes)
    return g.emit("Squeeze", y, g.ints(0)) if alone else y


def _each(values, n: int) -> list[int]:
    """One number for each spatial axis."""
    values = [values] if isinstance(values, int) else list(values)
    return values * n if len(values) == 1 else values


@converts(*(f"aten.conv{n}d.{form}" for n in (1, 2, 3) for form in ("default", "padding")))
def conv(g: Site, x, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
    """Padding by widths, or "same" and "valid"; of an odd total, torch puts the larger half behind."""
    n = weight.rank - 2
    dilations = _each(dilation, n)
    if isinstance(padding, str):
        totals = [d * (k - 1) if padding == "same" else 0 for d, k in zip(dilations, weight.shape[2:])]
        pads = [t // 2 for t in totals] + [t - t // 2 for t in totals]
    else:
        pads = _each(padding, n) * 2
    return _convolve(g, "Conv", x, weight, bias, groups, strides=_each(stride, n), dilations=dilations, pads=pads)


@converts("aten.conv_transpose1d.default", "aten.conv_transpose2d.input", "aten.conv_transpose3d.input")
def conv_transpose(g: Site, x, weight, bias=None, stride=1, padding=0, output_padding=0, groups=1, dilation=1):
    """ConvTranspose."""
    n = weight.rank - 2
    return _convolve(
        g,
        "ConvTranspose",
        x,
        weight,
        bias,
        groups,
        strides=_each(stride, n),
        dilations=_each(dilation, n),
        pads=_each(padding, n) * 2,
        output_padding=_each(output_padding, n),
    )


@converts("aten.convolution.default", "aten._convolution.default")
def convolution(
    g: Site, x, weight, bias, stride, padding, dilation, transposed, output_padding, groups, benchmark=None, deterministic=None, allow_tf32=None
):
    """Either of the two."""
    if transposed:
        return conv_transpose(g, x, weight, bias, stride, padding, output_padding, groups, dilation)
    return conv(g, x, weight, bias, stride, padding, dilation, groups)


def _attend(g: Site, query, key, value, attn_mask, is_causal, scale) -> str:
    """softmax(Q K^T scale + mask) V; a row whose keys are all masked gives 0, as torch has it."""
    if scale is None and query.shape[-1] is None:
        factor = g.emit("Reciprocal", g.emit("Sqrt", g.cast(g.size(query, -1), g.dtype)))
    else:
        factor = g.constant(1 / math.sqrt(query.shape[-1]) if scale is None else scale, g.dtype)
    scores = g.emit("MatMul", g.emit("Mul", query, factor), g.transpose(key, key.rank - 2, key.rank - 1, key.rank))
    least = g.constant(-math.inf, g.dtype)
    if is_causal:
        rows, columns = (g.emit("Range", *(g.cast(v, "int64") for v in (0, g.size(x, -2), 1))) for x in (query, key))
        before = g.emit("LessOrEqual", g.emit("Unsqueeze", columns, g.ints(0)), g.emit("Unsqueeze", rows, g.ints(1)))
        scores = g.emit("Where", before, scores, least)
    if attn_mask is not None:
        scores = g.emit("Where", attn_mask, scores, least) if attn_mask.dtype == "bool" else g.emit("Add", scores, g.cast(attn_mask, g.dtype))
    weights = g.emit("Softmax", scores, axis=-1)
    if attn_mask is not None:
        empty = g.emit("Equal", g.emit("ReduceMax", scores, g.ints(-1), keepdims=1), least)
        weights = g.emit("Where", empty, g.constant(0, g.dtype), weights)
    return g.emit("MatMul", weights, value)


@converts("aten.scaled_dot_product_attention.default")
def attention(g: Site, query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None):
    """Spelled out."""
    if dropout_p:
        raise g.refuse(f"dropout_p={dropout_p}; export the module in eval mode")
    return _attend(g, query, key, value, attn_mask, is_causal, scale)


@converts("aten._scaled_dot_product_flash_attention_for_cpu.default")
def flash_attention(g: Site, query, key, value, dropout_p=0.0, is_causal=False, attn_mask=None, scale=None):
    """The same; its second result is for gradients."""
    return [attention(g, query, key, value, attn_mask, dropout_p, is_causal, scale), None]
