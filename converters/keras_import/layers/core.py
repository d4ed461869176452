"""Dense, Embedding, Masking, wrappers, and what does nothing at inference."""

from __future__ import annotations

from collections.abc import Mapping

from fastrnn.converters.keras_import.layers.activations import activate
from fastrnn.converters.keras_import.registry import OWN, Variable, layer, named
from fastrnn.converters.keras_import.site import Site, Tensor

NOISE = ("Dropout", "SpatialDropout1D", "SpatialDropout2D", "GaussianNoise", "GaussianDropout", "AlphaDropout", "ActivityRegularization", "Identity")


@layer("Dense", variables=named("kernel", "bias"))
def dense(g: Site, x: Tensor) -> Tensor:
    """The last axis by a matrix."""
    units, width = g.whole("units"), g.known(x, -1)
    bias = g.weight("bias", (units,)) if g.flag("use_bias", True) else None
    kernel = g.weight("kernel", (width, units))
    y = g.emit("Gemm", x, kernel, bias) if x.rank > 1 else g.emit("MatMul", x, kernel)
    return activate(g, y, g.option("activation"))


@layer("EinsumDense", variables=lambda config: [Variable("kernel"), *([Variable("bias")] if config.get("bias_axes") else [])])
def einsum_dense(g: Site, x: Tensor) -> Tensor:
    """By an equation; "..." stands for leading axes."""
    g.option("output_shape")
    y = g.emit("Einsum", x, g.weight("kernel"), equation=str(g.option("equation")))
    if axes := g.option("bias_axes"):
        result = str(g.option("equation")).partition("->")[2].replace("...", "")
        bias, letters = g.array("bias"), result[min(map(result.index, axes)) :] if set(axes) <= set(result) else ""
        if not letters or bias.ndim != len(axes):
            raise g.invalid(f"bias_axes={axes!r} does not fit the equation and bias {bias.shape}")
        sizes = iter(bias.shape)
        y = g.emit("Add", y, g.stored("bias", bias.reshape([next(sizes) if letter in axes else 1 for letter in letters])))
    return activate(g, y, g.option("activation"))


@layer("Embedding", variables=lambda config: [Variable("embeddings")], masks=OWN)
def embedding(g: Site, x: Tensor) -> Tensor:
    """Rows of a table; mask_zero masks index 0."""
    table = g.weight("embeddings", (g.whole("input_dim"), g.whole("output_dim")))
    index = x if x.spec.dtype in ("int32", "int64") else g.cast(x, "int32")
    y = g.emit("Gather", table, index, axis=0, wrap=0)
    if not g.flag("mask_zero"):
        return y
    return y.masked(g.emit("Not", g.emit("Equal", x, g.constant(0, x.spec.dtype))))


@layer("Masking", masks=OWN)
def masking(g: Site, x: Tensor) -> Tensor:
    """Steps whose entries all equal mask_value: masked, and 0."""
    same = g.emit("Cast", g.emit("Equal", x, g.floats(g.number("mask_value", 0.0))), to="float32")
    kept = g.emit("Less", g.reduce("ReduceMin", same, [x.rank - 1]), g.floats(0.5))
    y = g.emit("Where", g.emit("Unsqueeze", kept, g.ints(x.rank - 1)), x, g.floats(0))
    return y.masked(kept)


@layer(*NOISE)
def nothing(g: Site, x: Tensor) -> Tensor:
    """Dropout, noise and penalties are for training."""
    for name in ("rate", "stddev", "l1", "l2", "noise_shape"):
        g.option(name)
    return x


def _inner(config: Mapping) -> dict:
    return {"layer": config.get("layer")}


@layer("TimeDistributed", children=_inner)
def time_distributed(g: Site, x: Tensor) -> Tensor:
    """A layer at every step: the steps become rows of the batch."""
    from fastrnn.converters.keras_import.network import call

    g.option("layer")
    inner = g.layer.children["layer"]
    if inner.kind in ("Dense", "Activation", "Dropout", "ReLU", "LeakyReLU", "ELU", "Identity") and x.rank > 2:
        return call(g.graph, inner, [x.masked(None)], {})
    if x.rank < 3:
        raise g.refuse(f"its input {x.shape} has no axes beside the batch and time")
    if x.mask is not None and inner.is_network | (inner.kind in ("LSTM", "GRU", "SimpleRNN", "RNN", "Bidirectional")):
        raise g.refuse(f"a mask for the {inner.kind} within each step is not supported")
    rest = [g.known(x, k) for k in range(2, x.rank)]
    rows = g.reshape(x, -1, *rest)
    y = call(g.graph, inner, [rows], {})
    if not isinstance(y, Tensor):
        raise g.refuse("a layer of several outputs in it is not supported")
    leading = g.emit("Slice", g.emit("Shape", x), g.ints(0), g.ints(2), g.ints(0))
    return g.emit("Reshape", y, g.emit("Concat", leading, g.ints(*(g.known(y, k) for k in range(1, y.rank))), axis=0))


@layer("InputLayer")
def input_layer(g: Site, x: Tensor) -> Tensor:
    """Where a network's inputs come in; the network reads it itself."""
    return x
