"""An LSTM in integers, to the bit as TensorFlow Lite computes it: int8 inputs, outputs and weights, int16 gates and cell.

The arithmetic is that of tensorflow/lite/kernels/lstm_eval.cc (8x8 to 16 bits) and of gemmlowp's fixedpoint header, whose functions of 16-bit fixed-point numbers are repeated here. A raw
number r with n integer bits stands for r / 2^(15 - n).
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np

from fastrnn.errors import InvalidModelError
from fastrnn.model.ops.registry import Spec, meaning, op, want, where

LEAST, MOST = -(1 << 15), (1 << 15) - 1
GATE_BITS = 3  # integer bits of a gate before its function
# exp(-2^k) for k from -2 on, as gemmlowp has them, of 32 bits.
POWERS = (1672461947, 1302514674, 790015084, 290630308, 39332535, 720401, 242)


def saturated(x):
    """Within 16 bits."""
    return np.clip(x, LEAST, MOST)


def divided(x, exponent):
    """x / 2^exponent, halves away from zero."""
    mask = (1 << exponent) - 1
    return (x >> exponent) + ((x & mask) > (mask >> 1) + (x < 0))


def product(a, b, bits: int = 15):
    """a b / 2^bits, to nearest; saturated where both are the least number."""
    ab = np.asarray(a, np.int64) * b
    nudged = ab + np.where(ab >= 0, 1 << bits - 1, 1 - (1 << bits - 1))
    return np.minimum(np.sign(nudged) * (np.abs(nudged) >> bits), (1 << bits) - 1)


def constant(number: int) -> int:
    """A constant of 32 bits in 16."""
    return int(divided(np.int64(number), 16))


def shifted(x, exponent: int):
    """x 2^exponent, saturated."""
    return saturated(x << exponent)


def exp_of_negative(a, bits: int):
    """exp(a) for a <= 0 of so many integer bits, of none."""
    fraction = 15 - bits
    quarter = 1 << fraction - 2
    rest = (a & quarter - 1) - quarter
    result, remainder = _exp_of_quarter(shifted(rest, bits)), rest - a
    for exponent, number in zip(range(-2, bits), POWERS):
        result = np.where(remainder & 1 << fraction + exponent, product(result, constant(number)), result)
    return np.where(a == 0, MOST, result)


def _exp_of_quarter(a):
    """exp(a) for -1/4 <= a < 0, by its series around -1/8."""
    middle, third = constant(1895147668), constant(715827883)
    x = a + (1 << 12)
    x2 = product(x, x)
    x3, x4 = product(x2, x), product(x2, x2)
    more = divided(product(divided(x4, 2) + x3, third) + x2, 1)
    return saturated(middle + product(middle, x + more))


def _inverse(a):
    """2 / (1 + a) for 0 <= a <= 1, of two integer bits: Newton's method on half the denominator."""
    half, one = a + MOST + 1 >> 1, 1 << 13
    x = saturated(constant(1515870810) + product(half, constant(-1010580540)))
    for _ in range(3):
        x = saturated(x + shifted(product(x, one - product(half, x)), 2))
    return x


def logistic(a):
    """1 / (1 + exp(-a)), a of GATE_BITS integer bits, the result of none."""
    positive = shifted(_inverse(exp_of_negative(-np.abs(a), GATE_BITS)), 1)
    return np.where(a == 0, 1 << 14, np.where(a > 0, positive, MOST - positive))


def tanh(a, bits: int):
    """tanh(a), a of so many integer bits, the result of none."""
    t = shifted(_inverse(exp_of_negative(-np.abs(a), bits + 1)) - (1 << 13), 2)
    return np.where(a == 0, 0, np.where(a < 0, -t, t))


@cache
def multiplier(factor: float) -> tuple[int, int]:
    """A factor as number 2^(shift - 31) with a number of 31 bits."""
    mantissa, shift = math.frexp(factor)
    number = math.floor(mantissa * (1 << 31) + 0.5)
    return (number // 2, shift + 1) if number == 1 << 31 else (number, shift)


def scaled(x, factor: float):
    """x factor, rounded as TFLite does."""
    number, shift = multiplier(factor)
    x = product(np.asarray(x, np.int64) << max(shift, 0), number, 31)
    return divided(x, -shift) if shift < 0 else x


@op(
    "IntegerLSTM",
    inputs=(4, 6),
    outputs=3,
    x_scale=1.0,
    x_zero=0,
    w_scales=(1.0,) * 4,
    r_scales=(1.0,) * 4,
    h_scale=1.0,
    cell_power=-12,
    cell_clip=0.0,
    layout=1,
)
def integer_lstm(node, inputs):
    """X int8 (B, T, I), or (T, B, I) with layout 0, W (4, H, I) and R (4, H, H) int8 and B (4, H) int32 of the gates i f g o, h int8 and c int16 (B, H)
    -> Y int8 (B, T, H), h, c. c has the scale 2^cell_power; h's zero point is 0."""
    x, w, r, b, h, c = [*inputs, None, None][:6]
    want(node, x, "X", (None, None, None), "int8")
    want(node, w, "W", (4, None, x.shape[2]), "int8")
    H, (B, T) = w.shape[1], x.shape[:2] if node.get("layout") == 1 else x.shape[1::-1]
    want(node, r, "R", (4, H, H), "int8")
    want(node, b, "B", (4, H), "int32")
    for spec, what, dtype in ((h, "h", "int8"), (c, "c", "int16")):
        if spec is not None:
            want(node, spec, what, (B, H), dtype)
    if (
        not -128 <= node.get("x_zero") <= 127
        or not -15 <= node.get("cell_power") <= -10
        or any(len(node.get(name)) != 4 for name in ("w_scales", "r_scales"))
    ):
        raise InvalidModelError(
            f"{where(node)}: x_zero {node.get('x_zero')} or cell_power {node.get('cell_power')} is out of range, or it has not four scales of each kind"
        )
    return [Spec("int8", (B, T, H) if node.get("layout") == 1 else (T, B, H)), Spec("int8", (B, H)), Spec("int16", (B, H))]


@meaning("IntegerLSTM")
def integer_lstm_meaning(node, inputs):
    """Step by step."""
    x, w, r, b, h, c = [*inputs, None, None][:6]
    x, w, r, b = (a.astype(np.int64) for a in (x, w, r, b))
    x = np.swapaxes(x, 0, 1) if node.get("layout") == 1 else x
    T, B, _ = x.shape
    H, power, unit = w.shape[1], node.get("cell_power"), np.float32(2.0**-12)
    h, c = (np.zeros((B, H), np.int64) if s is None else s.astype(np.int64) for s in (h, c))
    over_x, over_h = (
        [float(np.float32(node.get(of)) * np.float32(s) / unit) for s in node.get(scales)]
        for of, scales in (("x_scale", "w_scales"), ("h_scale", "r_scales"))
    )
    start = b - node.get("x_zero") * w.sum(axis=2)
    clip = min(int(np.float32(node.get("cell_clip")) / np.float32(2.0**power)), MOST)
    y = np.zeros((T, B, H), np.int64)
    for t in range(T):
        gates = [saturated(saturated(scaled(x[t] @ w[k].T + start[k], over_x[k])) + scaled(h @ r[k].T, over_h[k])) for k in range(4)]
        i, f, o = (logistic(gates[k]) for k in (0, 1, 3))
        c = saturated(saturated(divided(f * c, 15)) + saturated(divided(i * tanh(gates[2], GATE_BITS), 30 + power)))
        c = np.clip(c, -clip, clip) if clip > 0 else c
        h = np.clip(scaled(o * tanh(c, 15 + power), float(np.float32(2.0**-30 / node.get("h_scale")))), -128, 127)
        y[t] = h
    y = np.swapaxes(y, 0, 1) if node.get("layout") == 1 else y
    return [np.ascontiguousarray(y).astype(np.int8), h.astype(np.int8), c.astype(np.int16)]
