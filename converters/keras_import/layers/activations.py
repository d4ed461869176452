"""Activations: by name in any layer, as layers of their own, and in recurrent cells.

Formulas: keras.ops (Keras 3) and keras.backend (Keras 2), which differ in hard_sigmoid; 2's leaky_relu and ELU are 3's with other names of options.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from fastrnn.cells.activations import Activation, parse_activation
from fastrnn.converters.keras_import.registry import layer, named
from fastrnn.converters.keras_import.site import Site, Tensor

# Names that are one node, with its attributes.
NODES = {
    "relu": ("Relu", {}), "sigmoid": ("Sigmoid", {}), "tanh": ("Tanh", {}), "elu": ("Elu", {}), "selu": ("Selu", {}), "silu": ("Silu", {}), "softplus": ("Softplus", {}),
    "softsign": ("Softsign", {}), "exponential": ("Exp", {}), "mish": ("Mish", {}), "celu": ("Celu", {}), "gelu": ("Gelu", {}), "leaky_relu": ("LeakyRelu", {"alpha": 0.2}),
    "softmax": ("Softmax", {"axis": -1}), "log_softmax": ("LogSoftmax", {"axis": -1}),
}  # fmt: skip
SAME = {"swish": "silu", "hard_swish": "hard_silu", "exp": "exponential", "LeakyReLU": "leaky_relu", "ReLU": "relu", "ELU": "elu", "Softmax": "softmax"}  # fmt: skip
# Names that a recurrent cell applies by itself.
CELLS = {"relu": ("relu", {}), "sigmoid": ("sigmoid", {}), "tanh": ("tanh", {}), "elu": ("elu", {}), "softplus": ("softplus", {}), "softsign": ("softsign", {}),
         "leaky_relu": ("leakyrelu", {"alpha": 0.2}), "linear": ("affine", {})}  # fmt: skip
HARD_SIGMOID = {True: (1 / 6, 0.5), False: (0.2, 0.5)}  # of Keras 3; of Keras 2


def hard_sigmoid_slope(g: Site) -> tuple[float, float]:
    """alpha and beta of clip(alpha x + beta, 0, 1), by Keras's version."""
    return HARD_SIGMOID[g.graph.version[0] >= 3]


def named_activation(g: Site, given) -> tuple[str, dict]:
    """The name and options of an activation as configs have it: a name, a function's name, or a layer."""
    if given is None:
        return "linear", {}
    if isinstance(given, str):
        return SAME.get(given, given), {}
    if isinstance(given, Mapping):
        config, kind = given.get("config"), given.get("class_name")
        if kind == "function" and isinstance(config, str):
            if given.get("registered_name") not in (None, config, "function"):
                raise g.refuse(f"activation {given.get('registered_name')!r} is a function of its own, whose code is not in the file")
            return SAME.get(config, config), {}
        if kind in SAME and isinstance(config, Mapping):
            return SAME[kind], {k: v for k, v in config.items() if k not in ("name", "dtype", "trainable")}
        if isinstance(kind, str) and isinstance(config, Mapping) and not set(config) - {"name", "dtype", "trainable"}:
            return SAME.get(kind.lower(), kind.lower()), {}
    raise g.refuse(f"activation {given!r} is not known"[:300])


def cell_activation(g: Site, given) -> Activation | None:
    """An activation that a recurrent cell applies by itself; None for another one."""
    name, options = named_activation(g, given)
    if name == "hard_sigmoid":
        alpha, beta = hard_sigmoid_slope(g)
        return parse_activation(("hardsigmoid", {"alpha": alpha, "beta": beta}))
    if name not in CELLS or options:
        return None
    kind, parameters = CELLS[name]
    return parse_activation((kind, parameters))


def activate(g: Site, x: Tensor, given) -> Tensor:
    """x behind an activation; raises for one that is not known."""
    name, options = named_activation(g, given)
    if options:
        return _with_options(g, x, name, options)
    if name == "linear":
        return x
    if name in NODES:
        op, attributes = NODES[name]
        return g.emit(op, x, **attributes)
    if name in FORMULAS:
        return FORMULAS[name](g, x)
    raise g.refuse(f"activation {name!r} is not known")


def _with_options(g: Site, x: Tensor, name: str, options: Mapping) -> Tensor:
    inner = Site(g.graph, type(g.layer)(name, options, f"{g.layer.where}.{name}"))
    result = {"relu": relu_layer, "leaky_relu": leaky_relu_layer, "elu": elu_layer, "softmax": softmax_layer}[name](inner, x)
    inner.finish()
    return result


def clip(g: Site, x: Tensor, low: float | None, high: float | None) -> Tensor:
    """Between bounds."""
    return g.emit("Clip", x, *(None if bound is None else g.floats(bound) for bound in (low, high)))


def _hard_sigmoid(g: Site, x: Tensor) -> Tensor:
    alpha, beta = hard_sigmoid_slope(g)
    return g.emit("HardSigmoid", x, alpha=alpha, beta=beta)


def _shrink(g: Site, x: Tensor, soft: bool) -> Tensor:
    moved = g.emit("Sub", x, clip(g, x, -0.5, 0.5)) if soft else x
    return moved if soft else g.emit("Where", g.emit("Greater", g.emit("Abs", x), g.floats(0.5)), x, g.floats(0))


def _sparse_plus(g: Site, x: Tensor) -> Tensor:
    t = clip(g, g.emit("Add", x, g.floats(1)), 0, 2)
    return g.emit("Where", g.emit("Less", x, g.floats(1)), g.emit("Mul", g.emit("Mul", t, t), g.floats(0.25)), x)


FORMULAS = {
    "hard_sigmoid": _hard_sigmoid,
    "hard_silu": lambda g, x: g.emit("Mul", x, g.emit("HardSigmoid", x, alpha=1 / 6, beta=0.5)),
    "hard_tanh": lambda g, x: clip(g, x, -1, 1),
    "relu6": lambda g, x: clip(g, x, 0, 6),
    "log_sigmoid": lambda g, x: g.emit("Neg", g.emit("Softplus", g.emit("Neg", x))),
    "tanh_shrink": lambda g, x: g.emit("Sub", x, g.emit("Tanh", x)),
    "soft_shrink": lambda g, x: _shrink(g, x, True),
    "hard_shrink": lambda g, x: _shrink(g, x, False),
    "sparse_plus": _sparse_plus,
    "sparse_sigmoid": lambda g, x: g.emit("HardSigmoid", x, alpha=0.5, beta=0.5),
    "squareplus": lambda g, x: g.emit("Mul", g.emit("Add", x, g.emit("Sqrt", g.emit("Add", g.emit("Mul", x, x), g.floats(4)))), g.floats(0.5)),
}


@layer("Activation")
def activation_layer(g: Site, x: Tensor) -> Tensor:
    """By its name."""
    return activate(g, x, g.option("activation"))


@layer("ReLU", "ThresholdedReLU")
def relu_layer(g: Site, x: Tensor) -> Tensor:
    """max_value from there on, x from threshold on, negative_slope (x - threshold) below; ThresholdedReLU: 0 up to theta."""
    if g.layer.kind == "ThresholdedReLU":
        return g.emit("ThresholdedRelu", x, alpha=g.number("theta", 1.0))
    slope, threshold, most = g.number("negative_slope", 0.0) or 0.0, g.number("threshold", 0.0) or 0.0, g.option("max_value")
    if threshold == 0:
        y = g.emit("LeakyRelu", x, alpha=slope) if slope else g.emit("Relu", x)
    else:
        below = g.emit("Mul", g.emit("Sub", x, g.floats(threshold)), g.floats(slope)) if slope else g.floats(0)
        y = g.emit("Where", g.emit("GreaterOrEqual", x, g.floats(threshold)), x, below)
    return y if most is None else clip(g, y, None, g.number("max_value"))


@layer("LeakyReLU")
def leaky_relu_layer(g: Site, x: Tensor) -> Tensor:
    """negative_slope; alpha in Keras 2."""
    return g.emit("LeakyRelu", x, alpha=g.number("negative_slope" if "negative_slope" in g.layer.config else "alpha", 0.3))


@layer("ELU")
def elu_layer(g: Site, x: Tensor) -> Tensor:
    """alpha (exp(x) - 1) below 0."""
    return g.emit("Elu", x, alpha=g.number("alpha", 1.0))


@layer("PReLU", variables=named("alpha"))
def prelu(g: Site, x: Tensor) -> Tensor:
    """A slope for each entry, or one along shared axes."""
    shared, array = g.option("shared_axes"), g.array("alpha")
    if array.ndim != x.rank - 1 or shared is not None and any(array.shape[a - 1] != 1 for a in shared if isinstance(a, int) and 0 < a <= array.ndim):
        raise g.invalid(f"alpha {array.shape} does not fit its input {x.shape} and shared_axes={shared}")
    return g.emit("PRelu", x, g.weight("alpha"))


@layer("Softmax")
def softmax_layer(g: Site, x: Tensor) -> Tensor:
    """Along one axis."""
    axis = g.option("axis", -1)
    axis = axis[0] if isinstance(axis, list) and len(axis) == 1 else axis
    if isinstance(axis, bool) or not isinstance(axis, int):
        raise g.refuse(f"axis={axis!r} is not supported, only one axis")
    if x.mask is not None:
        raise g.refuse("its input has a mask")
    return g.emit("Softmax", x, axis=axis)


@layer("Rescaling")
def rescaling(g: Site, x: Tensor) -> Tensor:
    """scale x + offset."""
    numbers = {}
    for name, default in (("scale", None), ("offset", 0.0)):
        given = g.option(name, default)
        given = given.get("config", {}).get("value") if isinstance(given, Mapping) else given
        try:
            numbers[name] = np.array(given, np.float32)
        except (TypeError, ValueError) as error:
            raise g.invalid(f"{name} cannot be {given!r}") from error
        if numbers[name].ndim > 1 or not np.isfinite(numbers[name]).all():
            raise g.refuse(f"{name}={given!r} is not supported")
    return g.emit("Add", g.emit("Mul", g.cast(x, "float32"), g.floats(numbers["scale"])), g.floats(numbers["offset"]))
