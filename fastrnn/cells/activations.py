"""The activation functions of ONNX's recurrent operators, with their parameters and defaults.

Formulas and defaults: the ONNX operator texts of RNN, LSTM and GRU, and of the operators of the same names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastrnn.cells import maths
from fastrnn.cells.trace import Value
from fastrnn.errors import UnsupportedModelError


@dataclass(frozen=True)
class Formula:
    """One function of (x, alpha, beta), written with `maths`, step by step as native/vectors/activations.h does it; and the default of each parameter it takes (None: it takes none)."""

    apply: Callable[[Any, Any, Any], Any]
    alpha: float | None = None
    beta: float | None = None


def _expm1(x: Any) -> Any:
    """exp(x) - 1 for x <= 0 without cancellation: 2 t / (1 - t), t = tanh(x / 2)."""
    t = maths.tanh(0.5 * x)
    return (t + t) / (1 - t)


# Order is part of the kernel contract: enum FR_ACT_* in kernels/native/args.h.
ACTIVATIONS: dict[str, Formula] = {
    "identity": Formula(lambda x, a, b: x),
    "sigmoid": Formula(lambda x, a, b: maths.sigmoid(x)),
    "tanh": Formula(lambda x, a, b: maths.tanh(x)),
    "relu": Formula(lambda x, a, b: maths.relu(x)),
    "affine": Formula(lambda x, a, b: a * x + b, alpha=1.0, beta=0.0),
    "leakyrelu": Formula(lambda x, a, b: maths.where(x < 0, a * x, x), alpha=0.01),
    "thresholdedrelu": Formula(lambda x, a, b: maths.where(x > a, x, maths.minimum(maths.maximum(x, 0), 0)), alpha=1.0),
    "scaledtanh": Formula(lambda x, a, b: a * maths.tanh(b * x), alpha=1.0, beta=1.0),
    "hardsigmoid": Formula(lambda x, a, b: maths.maximum(maths.minimum(a * x + b, 1), 0), alpha=0.2, beta=0.5),
    "elu": Formula(lambda x, a, b: maths.where(x < 0, a * _expm1(maths.minimum(x, 0)), x), alpha=1.0),
    "softsign": Formula(lambda x, a, b: x / (1 + maths.abs(x))),
    "softplus": Formula(lambda x, a, b: maths.maximum(x, 0) + maths.log1p_unit(maths.exp(0 - maths.abs(x)))),
    "exp": Formula(lambda x, a, b: maths.exp(x)),
}
WITHIN_UNIT = ("sigmoid", "hardsigmoid")  # never outside 0 to 1,
WITHIN_ONE = (*WITHIN_UNIT, "tanh", "softsign")  # nor these outside -1 to 1
RECURRENT_ACTIVATIONS = tuple(name for name in ACTIVATIONS if name not in ("identity", "exp"))


@dataclass(frozen=True)
class Activation:
    """An activation with its parameters; calling it applies it to a NumPy array of any float dtype, or to a value of a trace."""

    kind: str
    alpha: float = 0.0
    beta: float = 0.0

    def __call__(self, x: Any) -> Any:
        if isinstance(x, Value):
            return ACTIVATIONS[self.kind].apply(x, self.alpha, self.beta)
        x = np.asarray(x)
        with np.errstate(over="ignore", invalid="ignore"):
            return ACTIVATIONS[self.kind].apply(x, x.dtype.type(self.alpha), x.dtype.type(self.beta)).astype(x.dtype)

    @property
    def code(self) -> int:
        """Its number in the kernel contract."""
        return list(ACTIVATIONS).index(self.kind)

    def __str__(self) -> str:
        formula = ACTIVATIONS[self.kind]
        given = [f"{n}={v:g}" for n, v, d in (("alpha", self.alpha, formula.alpha), ("beta", self.beta, formula.beta)) if d is not None]
        return f"{self.kind}({', '.join(given)})" if given else self.kind


def parse_activation(given: object, where: str = "activation") -> Activation:
    """An Activation from ``"name"``, ``("name", {"alpha": a, "beta": b})`` or an Activation; names fold case.

    Raises UnsupportedModelError for an unknown name or for a parameter that the function does not take.
    """
    if isinstance(given, Activation):
        return given
    if not isinstance(given, str) and (not isinstance(given, (list, tuple)) or len(given) != 2):
        raise UnsupportedModelError(f"{where}: an activation is a name or (name, parameters), got {given!r}")
    name, parameters = (given, {}) if isinstance(given, str) else given
    kind = str(name).lower().replace("_", "")
    if kind not in RECURRENT_ACTIVATIONS:
        raise UnsupportedModelError(f"{where}: unknown activation {name!r}; known are {', '.join(RECURRENT_ACTIVATIONS)}")
    formula = ACTIVATIONS[kind]
    if not isinstance(name, str):
        raise UnsupportedModelError(f"{where}: an activation's name must be text, got {name!r}")
    if not isinstance(parameters, Mapping):
        raise UnsupportedModelError(f"{where}: parameters of {name!r} must be a dict with 'alpha' or 'beta', got {parameters!r}")
    for key, value in parameters.items():
        if isinstance(value, bool) or not isinstance(value, (int, float, np.number)) or abs(value) > 1e38:  # type: ignore[operator]
            raise UnsupportedModelError(f"{where}: {key} of {name!r} must be a float32 number, got {value!r}")
        if key not in ("alpha", "beta") or getattr(formula, key) is None:
            raise UnsupportedModelError(f"{where}: activation {name!r} takes no parameter {key!r}")
    return Activation(kind, float(parameters.get("alpha", formula.alpha or 0.0)), float(parameters.get("beta", formula.beta or 0.0)))


def with_parameters(names: Iterable[str], alphas: Iterable[float] = (), betas: Iterable[float] = ()) -> list[Activation]:
    """Activations from ONNX's three lists: each function that takes a parameter consumes the next value.

    A list that runs out leaves the defaults (Keras exports one alpha and beta for the one function that takes them).
    """
    alphas, betas, result = iter(alphas), iter(betas), []
    for name in names:
        formula = ACTIVATIONS[parse_activation(name).kind]
        given = {}
        for key, values in (("alpha", alphas), ("beta", betas)):
            if getattr(formula, key) is not None and (value := next(values, None)) is not None:
                given[key] = value
        result.append(parse_activation((name, given)))
    return result
