"""The op vocabulary: ONNX's names and meanings, each with its attributes, defaults and shape inference.

Where fastrnn's op carries more than ONNX's (marked +), the extra attribute or input defaults to ONNX's meaning.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from fastrnn.cells import GATES, parse_activation
from fastrnn.cells.builtin import DEFAULT_ACTIVATIONS
from fastrnn.errors import InvalidModelError, ShapeError, UnsupportedModelError

Dim = int | str
Shape = tuple[Dim, ...]


class Spec(NamedTuple):
    """dtype and shape of a value."""

    dtype: str
    shape: Shape


@dataclass(frozen=True)
class Op:
    """infer: (node, specs of its inputs, None where omitted) -> specs of its outputs. inputs: fewest and most; outputs: most.
    time: along which axis the op keeps steps apart ("row": any but the last; "any": every axis; None: see plan/streaming.py)."""

    infer: Callable
    attributes: Mapping[str, object] = field(default_factory=dict)
    inputs: tuple[int, int] = (1, 1)
    outputs: int = 1
    time: str | None = None


OPS: dict[str, Op] = {}
# What an attribute may hold besides None, by name: one meaning for each name over all ops.
_NUMBER, _WHOLE = (int, float), (int,)
ATTRIBUTE_TYPES = {
    "hidden_size": _WHOLE, "direction": (str,), "layout": _WHOLE, "clip": _NUMBER, "activations": (list, tuple), "torch_form": _WHOLE,
    "linear_before_reset": _WHOLE, "input_forget": _WHOLE, "transB": _WHOLE, "axis": _WHOLE, "start": _WHOLE, "stop": _WHOLE, "alpha": _NUMBER,
    "beta": _NUMBER, "min": _NUMBER, "max": _NUMBER,
}
_FLAGS = ("layout", "torch_form", "linear_before_reset", "input_forget", "transB")
_LARGEST = 3.4e38  # what float32 holds
MAX_RANK = 8  # of any value; the executor's arrays on the stack are that long


def check_node(node) -> None:
    """Raises UnsupportedModelError for an attribute that the op does not know, InvalidModelError for one of the wrong type
    and for a wrong number of inputs or outputs."""
    fewest, most = OPS[node.op].inputs
    if not fewest <= len(node.inputs) <= most:
        raise InvalidModelError(f"{_where(node)}: takes {fewest} to {most} inputs, got {len(node.inputs)}")
    if not 1 <= len(node.outputs) <= OPS[node.op].outputs:
        raise InvalidModelError(f"{_where(node)}: gives 1 to {OPS[node.op].outputs} outputs, got {len(node.outputs)}")
    known = OPS[node.op].attributes
    for name, value in node.attributes.items():
        if name not in known:
            raise UnsupportedModelError(f"{_where(node)}: unknown attribute {name!r}")
        if value is None and known[name] is None:
            continue
        wrong = isinstance(value, bool) or not isinstance(value, ATTRIBUTE_TYPES[name]) or isinstance(value, (int, float)) and not abs(value) <= _LARGEST
        if wrong or name in _FLAGS and value not in (0, 1):
            raise InvalidModelError(f"{_where(node)}: attribute {name!r} cannot be {value!r}")


def op(*names: str, inputs: tuple[int, int] = (1, 1), outputs: int = 1, time: str | None = None, **attributes):
    """Registers a shape function under op names; attributes are those the op may carry, with their defaults."""

    def register(infer):
        for name in names:
            OPS[name] = Op(infer, attributes, inputs, outputs, time)
        return infer

    return register


def _where(node) -> str:
    return f"node {node.name!r} ({node.op})"


def want(node, spec: Spec | None, what: str, shape: Shape, dtype: str = "float32", hint: str = "") -> None:
    """Raises unless an input is there with this shape; None in `shape` leaves a dimension free."""
    if spec is None:
        raise InvalidModelError(f"{_where(node)}: {what} is missing")
    if spec.dtype != dtype:
        raise InvalidModelError(f"{_where(node)}: {what} must be {dtype}, got {spec.dtype}")
    fits = len(spec.shape) == len(shape) and all(
        s is None or s == g or isinstance(s, str) or isinstance(g, str) for s, g in zip(shape, spec.shape))
    if not fits:
        expected = ", ".join("?" if s is None else str(s) for s in shape)
        raise ShapeError(f"{_where(node)}: {what} must have shape ({expected}){hint}, got {tuple(spec.shape)}")


# + torch_form: Y is (T, B, D*H) or (B, T, D*H), and states are (D, B, n) in both layouts
_RECURRENT = {"hidden_size": None, "direction": "forward", "layout": 0, "clip": None, "activations": None, "torch_form": 0}


@op("RNN", inputs=(3, 6), outputs=2, **_RECURRENT)
@op("GRU", inputs=(3, 6), outputs=2, linear_before_reset=0, **_RECURRENT)
@op("LSTM", inputs=(3, 9), outputs=3, input_forget=0, **_RECURRENT)
def recurrent(node, inputs):
    """X, W, R, B, sequence_lens, initial_h, and for LSTM initial_c, P, + projection (D, P, H) -> Y, Y_h, Y_c."""
    x, w, r, b, lengths, h0, c0, peephole, projection = [*inputs, *[None] * (9 - len(inputs))]
    where = _where(node)
    if node.get("direction") not in ("forward", "reverse", "bidirectional") or node.get("layout") not in (0, 1):
        raise InvalidModelError(f"{where}: direction {node.get('direction')!r} or layout {node.get('layout')!r} is unknown")
    directions, kind = 2 if node.get("direction") == "bidirectional" else 1, node.op.lower()
    G = GATES[kind]
    if node.get("clip") is not None and not node.get("clip") > 0:
        raise InvalidModelError(f"{where}: clip must be positive, got {node.get('clip')}")
    if node.get("activations") is not None:
        expected, given = directions * len(DEFAULT_ACTIVATIONS[kind]), [parse_activation(a, where) for a in node.get("activations")]
        if len(given) != expected:
            raise InvalidModelError(f"{where}: {expected} activations are expected, got {len(given)}")
    if x is None or r is None:
        raise InvalidModelError(f"{where}: X and R are required")
    want(node, x, "X", (None, None, None))
    want(node, r, "R", (directions, None, None))
    P = r.shape[2]
    if projection is not None:
        want(node, projection, "projection", (directions, P, None))
    H = P if projection is None else projection.shape[2]
    if node.get("hidden_size") is not None:
        H = node.get("hidden_size")
    want(node, r, "R", (directions, G * H, P if projection is not None else H), hint=f" = (D, {G}*H, H)")
    want(node, w, "W", (directions, G * H, x.shape[2]), hint=f" = (D, {G}*H, I); is it transposed?")
    T, B = x.shape[:2] if node.get("layout") == 0 else x.shape[1::-1]
    direction_first = node.get("layout") == 0 or node.get("torch_form")
    state = (lambda n: (directions, B, n)) if direction_first else (lambda n: (B, directions, n))
    for spec, what, shape, dtype in ((b, "B", (directions, 2 * G * H), "float32"), (lengths, "sequence_lens", (B,), "int64"),
                                     (h0, "initial_h", state(P), "float32"), (c0, "initial_c", state(H), "float32"),
                                     (peephole, "P", (directions, 3 * H), "float32"), (projection, "projection", (directions, P, H), "float32")):
        if spec is not None:
            want(node, spec, what, shape, dtype)
    if node.get("torch_form"):
        y = (T, B, directions * P) if node.get("layout") == 0 else (B, T, directions * P)
    else:
        y = (T, directions, B, P) if node.get("layout") == 0 else (B, T, directions, P)
    outputs = [Spec("float32", y), Spec("float32", state(P))]
    return [*outputs, Spec("float32", state(H))] if node.op == "LSTM" else outputs


@op("Gemm", inputs=(2, 3), time="row", transB=1)
def gemm(node, inputs):
    """Y = A B^T + C; + A may carry leading axes. B is (N, K) always (transB = 1)."""
    a, b, c = [*inputs, None][:3]
    if a is None or not a.shape or a.dtype != "float32":
        raise InvalidModelError(f"{_where(node)}: A must be float32 with at least one axis, got {a}")
    if not node.get("transB"):
        raise UnsupportedModelError(f"{_where(node)}: transB=0 is not supported")
    want(node, b, "B", (None, a.shape[-1]), hint=" = (out, in)")
    if c is not None:
        want(node, c, "C", (b.shape[0],))
    return [Spec("float32", (*a.shape[:-1], b.shape[0]))]


@op("Gather", inputs=(2, 2), time="any", axis=0)
def gather(node, inputs):
    """Rows of a table (N, E) by int64 index."""
    table, index = inputs
    want(node, table, "data", (None, None))
    if index is None or index.dtype != "int64":
        raise InvalidModelError(f"{_where(node)}: indices must be int64")
    return [Spec("float32", (*index.shape, table.shape[1]))]


@op("Identity", "Relu", "Sigmoid", "Tanh", "Softsign", "Gelu", "Silu", time="any")
@op("LeakyRelu", alpha=0.01, time="any")
@op("Elu", alpha=1.0, time="any")
@op("ThresholdedRelu", alpha=1.0, time="any")
@op("HardSigmoid", alpha=0.2, beta=0.5, time="any")
@op("Softplus", time="any")
@op("Clip", min=None, max=None, time="any")
@op("Softmax", "LogSoftmax", time="row", axis=-1)
def same(node, inputs):
    """Elementwise, or along the last axis: the shape stays."""
    if inputs[0] is None:
        raise InvalidModelError(f"{_where(node)}: the input is missing")
    if inputs[0].dtype != "float32" and node.op != "Identity":
        raise InvalidModelError(f"{_where(node)}: the input must be float32, got {inputs[0].dtype}")
    if node.op in ("Softmax", "LogSoftmax") and (not inputs[0].shape or inputs[0].shape[-1] == 0):
        raise InvalidModelError(f"{_where(node)}: the last axis of {inputs[0].shape} is missing or empty")
    if node.op in ("Softmax", "LogSoftmax") and node.get("axis") != -1:
        raise InvalidModelError(f"{_where(node)}: axis must be -1, got {node.get('axis')}")
    return [inputs[0]]


@op("Slice", axis=0, start=0, stop=None)
def slice_(node, inputs):
    """[start:stop] of axis 0; a missing optional input stays missing."""
    if inputs[0] is None:
        return [None]
    dtype, shape = inputs[0]
    stop = node.get("stop")
    if node.get("axis") != 0 or stop is None or not shape or not isinstance(shape[0], int) or not 0 <= node.get("start") <= stop <= shape[0]:
        raise InvalidModelError(f"{_where(node)}: [{node.get('start')}:{stop}] of axis {node.get('axis')} is outside shape {shape}")
    return [Spec(dtype, (stop - node.get("start"), *shape[1:]))]


@op("Concat", inputs=(1, 1 << 16), axis=0)
def concat(node, inputs):
    """Along axis 0."""
    if any(s is None or s.dtype != inputs[0].dtype for s in inputs):
        raise InvalidModelError(f"{_where(node)}: an input is missing, or dtypes differ")
    shapes = [s.shape for s in inputs]
    if node.get("axis") != 0 or any(s[1:] != shapes[0][1:] or not s or not isinstance(s[0], int) for s in shapes):
        raise InvalidModelError(f"{_where(node)}: cannot join shapes {shapes} along axis {node.get('axis')}")
    return [Spec(inputs[0].dtype, (sum(s[0] for s in shapes), *shapes[0][1:]))]


@op("Unsqueeze", axis=0)
def unsqueeze(node, inputs):
    """A new axis 0 of size 1."""
    return [inputs[0] and Spec(inputs[0].dtype, (1, *inputs[0].shape))]


@op("Squeeze", axis=0)
def squeeze(node, inputs):
    """Axis 0, of size 1, removed."""
    if inputs[0] is None or not inputs[0].shape or inputs[0].shape[0] != 1:
        raise InvalidModelError(f"{_where(node)}: axis 0 of {inputs[0] and inputs[0].shape} is not 1")
    return [Spec(inputs[0].dtype, inputs[0].shape[1:])]
