"""Attention. Scores that a mask shuts out are lowered as Keras lowers them, so rows without any open score agree too."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from fastrnn.converters.keras_import.registry import OWN, Variable, layer
from fastrnn.converters.keras_import.site import Site, Tensor

FAR = 1e9  # subtracted from scores that are shut out


def _scale(config: Mapping) -> list[Variable]:
    wanted = [Variable("scale")] if config.get("use_scale", False) else []
    return wanted + ([Variable("concat_score_weight")] if config.get("score_mode") == "concat" else [])


@layer("Attention", variables=_scale, masks=OWN)
def attention(g: Site, xs, mask=None, use_causal_mask=False, return_attention_scores=False):
    """[query, value, key]: products, or sums of tanh."""
    q, v, k, q_mask, v_mask = _inputs(g, xs, mask)
    mode, scaled = g.choice("score_mode", "dot", "dot", "concat"), g.flag("use_scale")
    causal = use_causal_mask or g.flag("causal")
    g.option("dropout")
    if mode == "dot":
        scores = g.emit("MatMul", q, g.transpose(k, 0, 2, 1))
        scores = g.emit("Mul", scores, g.weight("scale", ())) if scaled else scores
    else:
        total = g.emit("Add", g.emit("Unsqueeze", q, g.ints(2)), g.emit("Unsqueeze", k, g.ints(1)))
        total = g.emit("Mul", total, g.weight("scale", ())) if scaled else total
        scores = g.emit("Mul", g.reduce("ReduceSum", g.emit("Tanh", total), [3]), g.weight("concat_score_weight", ()))
    return _attend(g, scores, v, q_mask, v_mask, causal, return_attention_scores)


@layer("AdditiveAttention", variables=lambda config: [Variable("scale")] if config.get("use_scale", True) else [], masks=OWN)
def additive_attention(g: Site, xs, mask=None, use_causal_mask=False, return_attention_scores=False):
    """Bahdanau's: sums of tanh(query + key), by a scale for each feature."""
    q, v, k, q_mask, v_mask = _inputs(g, xs, mask)
    g.option("dropout")
    g.option("score_mode")
    causal = use_causal_mask or g.flag("causal")
    total = g.emit("Tanh", g.emit("Add", g.emit("Unsqueeze", q, g.ints(2)), g.emit("Unsqueeze", k, g.ints(1))))
    total = g.emit("Mul", total, g.weight("scale", (g.known(q, 2),))) if g.flag("use_scale", True) else total
    return _attend(g, g.reduce("ReduceSum", total, [3]), v, q_mask, v_mask, causal, return_attention_scores)


def _inputs(g: Site, xs, mask):
    if not isinstance(xs, list) or len(xs) not in (2, 3) or any(not isinstance(x, Tensor) or x.rank != 3 for x in xs):
        raise g.invalid("it takes a list [query, value] or [query, value, key] of tensors with 3 axes")
    masks = mask if isinstance(mask, list) else [x.mask for x in xs]
    return xs[0], xs[1], xs[-1], masks[0], masks[1] if len(masks) > 1 else None


def _attend(g: Site, scores: Tensor, v: Tensor, q_mask, v_mask, causal: bool, with_scores: bool):
    shut = None if v_mask is None else g.emit("Not", g.emit("Unsqueeze", v_mask, g.ints(1)))
    if causal:
        late = g.emit("Not", causal_mask(g, scores))
        shut = late if shut is None else g.emit("Or", shut, late)
    if shut is not None:
        scores = g.emit("Where", shut, g.emit("Sub", scores, g.floats(FAR)), scores)
    weights = g.emit("Softmax", scores, axis=-1)
    y = g.emit("MatMul", weights, v)
    if q_mask is not None:
        y = g.emit("Where", g.emit("Unsqueeze", q_mask, g.ints(2)), y, g.floats(0)).masked(q_mask)
    return [y, weights.masked(None)] if with_scores else y


def causal_mask(g: Site, scores: Tensor) -> Tensor:
    """Where a query may look: at its own place and before, (..., Tq, Tv)."""
    ones = g.emit("ConstantOfShape", g.emit("Shape", scores), value=1.0)
    places = [g.emit("CumSum", ones, g.constant(axis % scores.rank, "int64")) for axis in (-2, -1)]
    return g.emit("GreaterOrEqual", *places)


def _heads(config: Mapping) -> list[Variable]:
    biased = config.get("use_bias", True)
    return [
        Variable(f"{part}/{name}", True, f"{part}_dense|_{part}_dense")
        for part in ("query", "key", "value", "output")
        for name in (("kernel", "bias") if biased else ("kernel",))
    ]


@layer("MultiHeadAttention", variables=_heads, masks=OWN)
def multi_head_attention(
    g: Site,
    query,
    value: Tensor | None = None,
    key: Tensor | None = None,
    query_mask: Tensor | None = None,
    value_mask: Tensor | None = None,
    key_mask: Tensor | None = None,
    attention_mask: Tensor | None = None,
    use_causal_mask=False,
    return_attention_scores=False,
):
    """Heads over axis 1: query (B, T, F), value and key (B, S, F')."""
    if isinstance(query, list):  # Keras 2 lists its tensors
        query, value, key = [*query, None, None][:3]
    key = key or value
    if any(not isinstance(x, Tensor) or x.rank != 3 for x in (query, value, key)) or g.option("attention_axes") not in (None, [1]):
        raise g.refuse("it takes query and value with 3 axes, and attends along axis 1")
    if g.option("sliding_window") is not None or g.option("use_gate"):
        raise g.refuse("sliding_window and use_gate are not supported")
    for name in ("dropout", "flash_attention", "query_shape", "key_shape", "value_shape", "output_shape"):
        g.option(name)
    N, D, V = g.whole("num_heads"), g.whole("key_dim"), g.whole("value_dim") if g.option("value_dim") else g.whole("key_dim")
    biased = g.flag("use_bias", True)
    q, k, v = (_projected(g, part, x, N, size, biased) for part, x, size in (("query", query, D), ("key", key, D), ("value", value, V)))
    scores = g.emit("MatMul", g.emit("Mul", q, g.floats(1 / np.sqrt(D))), g.transpose(k, 0, 1, 3, 2))  # (B, N, T, S)
    kept = None
    masks = [(query_mask or query.mask, 2), (value_mask or value.mask, 1), (key_mask or (key.mask if key.name != value.name else None), 1)]
    parts = [g.emit("Unsqueeze", mask, g.ints(axis)) for mask, axis in masks if mask is not None]
    parts += [attention_mask] if attention_mask is not None else []
    for part in parts:
        kept = part if kept is None else g.emit("And", kept, part)
    if kept is not None:
        kept = g.emit("Unsqueeze", g.cast(kept, "bool"), g.ints(1)) if kept.rank == 3 else kept
    if use_causal_mask:
        early = causal_mask(g, scores)
        kept = early if kept is None else g.emit("And", kept, early)
    if kept is not None:
        scores = g.emit("Where", kept, scores, g.floats(-3e38))
    weights = g.emit("Softmax", scores, axis=-1)
    heads = g.transpose(g.emit("MatMul", weights, v), 0, 2, 1, 3)
    kernel = g.array("output/kernel", (N, V, None))
    flat = g.emit("Reshape", heads, g.ints(0, 0, N * V))
    y = g.emit(
        "Gemm", flat, g.stored("output/kernel", kernel.reshape(N * V, -1)), g.weight("output/bias", kernel.shape[2:]) if biased else None
    ).masked(query.mask)
    return [y, weights] if return_attention_scores else y


def _projected(g: Site, part: str, x: Tensor, heads: int, size: int, biased: bool) -> Tensor:
    """(B, T, F) to (B, N, T, size)."""
    width = g.known(x, 2)
    kernel = g.stored(f"{part}/kernel", g.array(f"{part}/kernel", (width, heads, size)).reshape(width, heads * size))
    bias = g.stored(f"{part}/bias", g.array(f"{part}/bias", (heads, size)).reshape(heads * size)) if biased else None
    return g.transpose(g.reshape(g.emit("Gemm", x, kernel, bias), 0, 0, heads, size), 0, 2, 1, 3)
