"""RNN, GRU, LSTM and Recurrent, a custom cell. The first three: ONNX's attributes and inputs. Where fastrnn's op carries more (marked +), the default is ONNX's meaning.

Their meaning in NumPy is the reference loop, fastrnn/kernels/reference/recurrence.py.
"""

from __future__ import annotations

from fastrnn.cells import GATES, find_cell, parse_activation
from fastrnn.cells.builtin import DEFAULT_ACTIVATIONS
from fastrnn.cells.spec import MOST_STATES
from fastrnn.errors import InvalidModelError, ShapeError, UnsupportedModelError
from fastrnn.model.ops.registry import OPS, UNKNOWN, Spec, check_x_bits, op, require, same_dim, want, want_weights, where
from fastrnn.model.small import BOUNDED, BYTES_OF_ALL, BYTES_OF_ROW, UNBOUNDED

# + x_bits: of int8 weights, what X is rounded to, see model/small.py
# + keep, the last input, with X's first two axes: what states are multiplied by on their way into a step; 0 makes them zero, whatever they were
# + torch_form: Y is (T, B, D*H) or (B, T, D*H), and states are (D, B, n) in both layouts
_RECURRENT = {"hidden_size": None, "direction": "forward", "layout": 0, "clip": None, "activations": None, "torch_form": 0, "x_bits": UNBOUNDED}
_SCALES = (
    8 + MOST_STATES
)  # the inputs that are scales of int8 weights stand behind all others: of W, R and the projection, then zero points of W and R


@op("RNN", inputs=(3, _SCALES + 6), outputs=2, **_RECURRENT)
@op("GRU", inputs=(3, _SCALES + 6), outputs=2, linear_before_reset=0, **_RECURRENT)
@op("LSTM", inputs=(3, _SCALES + 6), outputs=3, input_forget=0, **_RECURRENT)
def recurrent(node, inputs):
    """X, W, R, B, sequence_lens, initial_h, and for LSTM initial_c, P, + projection (D, P, H) -> Y, Y_h, Y_c."""
    whole = [*inputs, *[None] * (_SCALES + 6 - len(inputs))]
    (x, w, r, b, lengths, h0, c0, peephole, projection), scales, keep = whole[:9], whole[_SCALES:-1], whole[-1]
    place = where(node)
    if any(s is not None for s in whole[9 if node.op == "LSTM" else 6 : _SCALES]):
        raise InvalidModelError(f"{place}: takes {9 if node.op == 'LSTM' else 6} inputs, beside scales and zero points of int8 weights")
    check_x_bits(node, BYTES_OF_ALL, BYTES_OF_ROW)
    if node.get("direction") not in ("forward", "reverse", "bidirectional") or node.get("layout") not in (0, 1):
        raise InvalidModelError(f"{place}: direction {node.get('direction')!r} or layout {node.get('layout')!r} is unknown")
    directions, kind = 2 if node.get("direction") == "bidirectional" else 1, node.op.lower()
    G = GATES[kind]
    if node.get("clip") is not None and not node.get("clip") > 0:
        raise InvalidModelError(f"{place}: clip must be positive, got {node.get('clip')}")
    if node.get("activations") is not None:
        expected, given = directions * len(DEFAULT_ACTIVATIONS[kind]), [parse_activation(a, place) for a in node.get("activations")]
        if len(given) != expected:
            raise InvalidModelError(f"{place}: {expected} activations are expected, got {len(given)}")
    want(node, x, "X", (None, None, None))
    for spec, what, scale in ((w, "W", scales[0]), (r, "R", scales[1])):
        want_weights(node, spec, what, (directions, None, None), scale, 2)
    if any(isinstance(d, str) for d in r.shape[1:]):
        return [UNKNOWN] * OPS[node.op].outputs
    P = r.shape[2]
    if projection is not None:
        want_weights(node, projection, "projection", (directions, P, None), scales[2], 2)
    H = P if projection is None else projection.shape[2]
    if node.get("hidden_size") is not None:
        H = node.get("hidden_size")
    want_weights(node, r, "R", (directions, G * H, P if projection is not None else H), scales[1], 2, f" = (D, {G}*H, H)")
    want_weights(node, w, "W", (directions, G * H, x.shape[2]), scales[0], 2, f" = (D, {G}*H, I); is it transposed?")
    of_bytes = node.get("x_bits") < BOUNDED
    if of_bytes and (w.dtype != "int8" or projection is not None):
        raise InvalidModelError(f"{place}: x_bits = {node.get('x_bits')} takes int8 weights and no projection")
    for spec, what in zip(scales[3:], ("W's zero point", "R's zero point")):
        if spec is not None:
            want(node, spec, what, (directions, G * H), "int8")
        if spec is not None and not of_bytes or (scales[3] is None) != (scales[4] is None):
            raise InvalidModelError(f"{place}: zero points are for W and R both, where X is rounded to bytes")
    if len({spec.dtype for spec in (w, r, projection) if spec is not None}) > 1:
        raise InvalidModelError(f"{place}: W, R and the projection differ in precision")
    T, B = x.shape[:2] if node.get("layout") == 0 else x.shape[1::-1]
    direction_first = node.get("layout") == 0 or node.get("torch_form")
    state = (lambda n: (directions, B, n)) if direction_first else (lambda n: (B, directions, n))
    for spec, what, shape in (
        (b, "B", (directions, 2 * G * H)),
        (h0, "initial_h", state(P)),
        (c0, "initial_c", state(H)),
        (peephole, "P", (directions, 3 * H)),
    ):
        if spec is not None:
            want(node, spec, what, shape)
    if lengths is not None:
        require(node, lengths, "sequence_lens", ("int32", "int64"))
        want(node, lengths, "sequence_lens", (B,), lengths.dtype)
    if keep is not None:
        want(node, keep, "keep", x.shape[:2])
    if node.get("torch_form"):
        y = (T, B, directions * P) if node.get("layout") == 0 else (B, T, directions * P)
    else:
        y = (T, directions, B, P) if node.get("layout") == 0 else (B, T, directions, P)
    outputs = [Spec("float32", y), Spec("float32", state(P))]
    return [*outputs, Spec("float32", state(H))] if node.op == "LSTM" else outputs


@op(
    "Recurrent", inputs=(1, _SCALES + 6), outputs=1 + MOST_STATES, cell="", fingerprint="", hidden_size=0, direction="forward", layout=0, torch_form=1
)
def custom(node, inputs):
    """X, W (D, G H, I) of the gates that see x, R (D, G H, P) of those that see h, B (D, (Gx + Gh) H) of those with a bias, sequence_lens, initial states
    0 and 1, parameters (D, n H), projection (D, P, H), scalars with X's first two axes, initial states 2 and on -> Y, states. As with torch_form."""
    place, direction = where(node), node.get("direction")
    cell = find_cell(node.get("cell"), node.get("fingerprint"), f"{place}: ")
    if (
        direction not in ("forward", "reverse", "bidirectional")
        or node.get("layout") not in (0, 1)
        or node.get("torch_form") != 1
        or node.get("hidden_size") < 1
    ):
        raise InvalidModelError(
            f"{place}: direction {direction!r}, layout {node.get('layout')!r} or hidden_size {node.get('hidden_size')!r} is unknown"
        )
    whole = [*inputs, *[None] * (_SCALES + 6 - len(inputs))]
    (x, w, r, b, lengths, first, second, parameters, projection, scalars, *others), scales, keep = whole[:_SCALES], whole[_SCALES:-1], whole[-1]
    if any(s is not None for s in scales):
        raise InvalidModelError(f"{place}: its weights are float32 or bfloat16, and take no scales")
    D, H, layout = 2 if direction == "bidirectional" else 1, node.get("hidden_size"), node.get("layout")
    want(node, x, "X", (None, None, None))
    P = H
    if projection is not None:
        want_weights(node, projection, "projection", (D, None, H), None, 2)
        P = projection.shape[1]
        if not cell.projectable:
            raise UnsupportedModelError(
                f"{place}: cell {cell.name!r} reads {cell.states[0]!r} unit for unit or has a second phase, so it cannot be projected"
            )
    if cell.uses_input and not same_dim(x.shape[2], H):
        raise ShapeError(f"{place}: cell {cell.name!r} reads x unit for unit, so X must have {H} features, got {x.shape[2]}")
    T, B = x.shape[layout], x.shape[1 - layout]
    given = [first, second, *others]
    if any(s is not None for s in given[len(cell.states) :]):
        raise InvalidModelError(f"{place}: cell {cell.name!r} has {len(cell.states)} states")
    shapes = {
        "W": (w, len(cell.x_gates), (D, len(cell.x_gates) * H, x.shape[2])),
        "R": (r, len(cell.h_gates), (D, len(cell.h_gates) * H, P)),
        "parameters": (parameters, len(cell.parameters), (D, len(cell.parameters) * H)),
        "scalars": (scalars, len(cell.scalars), (*x.shape[:2], len(cell.scalars))),
    }
    for what, (spec, n, shape) in shapes.items():
        if n:
            want_weights(node, spec, what, shape, None, 2) if what in "WR" else want(node, spec, what, shape)
        elif spec is not None:
            raise InvalidModelError(f"{place}: cell {cell.name!r} takes no {what}")
    if b is not None:
        want(node, b, "B", (D, (len(cell.biased("x")) + len(cell.biased("h"))) * H))
    states = [(D, B, P if k == 0 else H) for k in range(len(cell.states))]
    for name, spec, shape in zip(cell.states, given, states):
        if spec is not None:
            want(node, spec, f"initial {name}", shape)
    if lengths is not None:
        require(node, lengths, "sequence_lens", ("int32", "int64"))
        want(node, lengths, "sequence_lens", (B,), lengths.dtype)
    if keep is not None:
        want(node, keep, "keep", x.shape[:2])
    y = (T, B, D * P) if layout == 0 else (B, T, D * P)
    return [Spec("float32", shape) for shape in (y, *states)]
