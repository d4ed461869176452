"""LSTMs and RNNs as one operator. Their states are variables of the file: inputs and outputs here, tied."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from fastrnn.cells import gallery, parse_activation
from fastrnn.converters.keras_import.site import Tensor
from fastrnn.converters.tflite_import.call import Call, real_array, stands_for_reals
from fastrnn.converters.tflite_import.registry import operator
from fastrnn.model import Graph as Body
from fastrnn.model import State
from fastrnn.model.ops import Spec
from fastrnn.model.stack import StackOptions, add_stack


@dataclass(frozen=True)
class Places:
    """Where the inputs of an LSTM lie among an operator's, as the kernels' sources have them; its gates are i f g o, peepholes have none for g."""

    over_x: tuple[int, ...] = (1, 2, 3, 4)
    over_h: tuple[int, ...] = (5, 6, 7, 8)
    peepholes: tuple[int, ...] = (9, 10, 11)
    biases: tuple[int, ...] = (12, 13, 14, 15)
    projection: int = 16
    projection_bias: int = 17
    states: tuple[int, int] = (18, 19)
    norms: tuple[int, ...] = (20, 21, 22, 23)


ALONE, FORWARD = Places(), Places(states=(35, 36), norms=())
BACKWARD = Places((18, 19, 20, 21), (22, 23, 24, 25), (26, 27, 28), (29, 30, 31, 32), 33, 34, (37, 38), ())
BESIDE = range(39, 48)  # a second input of a bidirectional LSTM, and its matrices
NORM_EPSILON = 1e-8  # what TensorFlow Lite has in the place of a variance of 0
FUSED = {1: "relu", 4: "tanh"}


def _constant(call: Call, k: int, shape: tuple[int | None, ...]) -> np.ndarray:
    """A weight's numbers."""
    info = call.info(k)
    array = real_array(info) if info.array is not None else call.network.build.weights.get(call.real(k).name)
    if array is None:
        raise call.refuse(f"its weights must be constants, input {k} is computed")
    if array.ndim != len(shape) or any(n is not None and n != d for n, d in zip(shape, array.shape)) or array.dtype != np.float32:
        raise call.invalid(
            f"input {k} must be real numbers ({', '.join('?' if n is None else str(n) for n in shape)}), got {array.dtype} {array.shape}"
        )
    return array


def _activation(call: Call, slot: int):
    code = call.option(slot, "b")
    if code not in FUSED:
        raise call.refuse(f"fused activation {code} is not supported, only those of TANH and RELU")
    return parse_activation(FUSED[code])


@operator("UNIDIRECTIONAL_SEQUENCE_LSTM")
def sequence_lstm(call: Call) -> None:
    """x (B, T, I), or (T, B, I) where it is time-major, to y (B, T, H)."""
    if call.flag(5):
        raise call.refuse("diagonal recurrent weights are not supported")
    if stands_for_reals(call.info(0)):
        return _integer_lstm(call)
    call.give(_lstm(call, ALONE, call.real(0), not call.flag(3)))


@operator("BIDIRECTIONAL_SEQUENCE_LSTM")
def bidirectional_lstm(call: Call) -> None:
    """x (B, T, I), or (T, B, I) where it is time-major, to y of each direction, (B, T, H), side by side or as two outputs."""
    if any(call.has(k) for k in BESIDE):
        raise call.refuse("a second input is not supported")
    if stands_for_reals(call.info(0)):
        raise call.refuse("of integers only one direction is supported")
    batch_first = not call.option(4, "B", 1)
    ys = [_lstm(call, places, call.real(0), batch_first, reverse) for reverse, places in ((False, FORWARD), (True, BACKWARD))]
    if call.flag(3):
        call.give(call.emit("Concat", *ys, axis=2))
    else:
        for k, y in enumerate(ys):
            call.give(y, k)


@operator("LSTM")
def one_step(call: Call) -> None:
    """x (B, I) to y (B, H): one step."""
    if call.option(3, "b"):
        raise call.refuse("kernel_type BASIC is not supported")
    if call.operator.outputs[:-1]:
        raise call.refuse("outputs beside the last one, as older files have them, are not supported")
    axis = call.ints(0)
    call.give(call.emit("Squeeze", _lstm(call, ALONE, call.emit("Unsqueeze", call.real(0), axis), False), axis))


def _integer_lstm(call: Call) -> None:
    """Of bytes: computed in integers, as TFLite does."""
    x, h, c = (call.info(k) for k in (0, *ALONE.states))
    places = [*ALONE.over_x, *ALONE.over_h, *ALONE.biases]
    if not all(call.has(k) for k in places) or any(call.has(k) for k in (*ALONE.peepholes, ALONE.projection, ALONE.projection_bias, *ALONE.norms)):
        raise call.refuse("of integers only the plain form is supported: no coupled gates, peepholes, projection or layer normalization")
    infos = [call.info(k) for k in places]
    if any(i.array is None or i.quantization is None and k not in ALONE.biases for i, k in zip(infos, places)):
        raise call.refuse("its weights must be constants with a scale")
    power = math.log2(c.quantization.scale[0]) if c.quantization is not None else 0.5
    wrong = [
        i.dtype
        for i, kind in (
            *((i, "int32" if k in ALONE.biases else "int8") for i, k in zip(infos, places)),
            (x, "int8"),
            (h, "int8"),
            (c, "int16"),
            (call.out(), "int8"),
        )
        if i.dtype != kind
    ]
    if wrong or not power.is_integer() or not -15 <= power <= -10 or h.quantization is None or _activation(call, 0) != parse_activation("tanh"):
        raise call.refuse(
            f"of integers only int8 with a cell of int16 in a power of 2 and TANH is supported{', not ' + ', '.join(wrong) if wrong else ''}"
        )
    if (
        h.quantization.zero_point[0]
        or any(i.quantization is not None and i.quantization.zero_point.any() for i in infos)
        or any(i.quantization is not None and len(i.quantization.scale) > 1 for i in (*infos, x, h, c))
    ):
        raise call.refuse("zero points of its states and weights other than 0, and scales by unit, are not supported")
    if call.out().quantization is None or (call.out().quantization.scale[0], call.out().quantization.zero_point[0]) != (h.quantization.scale[0], 0):
        raise call.refuse("an output of another scale than the state's is not supported")
    if call.option(2, "f", 0.0) or not call.option(1, "f", 0.0) >= 0 or call.network.nested:
        raise call.refuse("proj_clip, and states inside a WHILE or IF, are not supported")
    H, value = infos[0].array.shape[0], call.tensor(0)
    if value.rank != 3:
        raise call.invalid(f"it takes (B, T, I), got {value.shape}")
    w, r, b = (
        call.network.named_constant(f"lstm{call.index}.{name}", np.stack([i.array for i in part]))
        for name, part in (("W", infos[:4]), ("R", infos[4:8]), ("B", infos[8:]))
    )
    layout = int(not call.flag(3))
    states, finals = _states(
        call, dict(zip("hc", ALONE.states)), {letter: ((value.shape[1 - layout], H), dtype) for letter, dtype in (("h", "int8"), ("c", "int16"))}
    )
    y = call.network.unique(f"lstm{call.index}.y")
    scales = {name: tuple(float(i.quantization.scale[0]) for i in part) for name, part in (("w_scales", infos[:4]), ("r_scales", infos[4:8]))}
    call.network.build.add(
        "IntegerLSTM",
        call.network.unique(f"lstm{call.index}"),
        (value.name, w.name, r.name, b.name, states["h"], states["c"]),
        (y, finals["h"], finals["c"]),
        layout=layout,
        x_scale=float(x.quantization.scale[0]),
        x_zero=int(x.quantization.zero_point[0]),
        h_scale=float(h.quantization.scale[0]),
        cell_power=int(power),
        cell_clip=float(call.option(1, "f", 0.0)),
        **scales,
    )
    _settle(call, finals)
    call.give_stored(call.network.tensor(y))


def _lstm(call: Call, places: Places, x: Tensor, batch_first: bool, reverse: bool = False) -> Tensor:
    """One direction: a layer, or where no layer has its options, a Scan."""
    coupled, projects = not call.has(places.over_x[0]), call.has(places.projection)
    peepholes, clip, width = [k for k in places.peepholes if call.has(k)], call.option(1, "f", 0.0), x.shape[-1]
    if not clip >= 0 or not call.option(2, "f", 0.0) >= 0:
        raise call.invalid(f"cell_clip = {clip}, proj_clip = {call.option(2, 'f', 0.0)}")
    H = _constant(call, places.over_x[1], (None, None)).shape[0]
    P = _constant(call, places.projection, (None, H)).shape[0] if projects else H
    if x.rank != 3 or isinstance(width, str):
        raise call.invalid(f"it takes (B, T, I), got {x.shape}")

    def gates(of, *columns) -> dict[str, np.ndarray]:
        return {gate: _constant(call, k, (H, *columns)) for gate, k in zip("ifgo", of) if not (coupled and gate == "i")}

    over_x, over_h, biases = gates(places.over_x, width), gates(places.over_h, P), gates(places.biases)
    holes = {gate: _constant(call, k, (H,)) for gate, k in zip("ifo", places.peepholes) if k in peepholes and not (coupled and gate == "i")}
    bias = _constant(call, places.projection_bias, (P,)) if projects and call.has(places.projection_bias) else np.zeros(P, np.float32)
    form = _Form(
        H,
        P,
        width,
        coupled,
        over_x,
        over_h,
        holes,
        biases,
        _constant(call, places.projection, (P, H)) if projects else None,
        bias,
        gates(places.norms) if any(call.has(k) for k in places.norms) else {},
        float(clip),
        float(call.option(2, "f", 0.0)),
        _activation(call, 0),
        batch_first,
        reverse,
    )
    states = dict(zip("hc", places.states))
    if form.norms or form.projection_clip or bias.any() or clip and (coupled or holes or form.act != parse_activation("tanh")):
        return _scanned(call, form, x, states)
    options, parameters = form.layer()
    return _layer(call, options, parameters, x, states)


@dataclass(frozen=True)
class _Form:
    """One direction of an LSTM of floats: arrays by gate, without i where it is 1 - f."""

    H: int
    P: int
    width: int
    coupled: bool
    over_x: dict[str, np.ndarray]
    over_h: dict[str, np.ndarray]
    peepholes: dict[str, np.ndarray]
    biases: dict[str, np.ndarray]
    projection: np.ndarray | None
    projection_bias: np.ndarray
    norms: dict[str, np.ndarray]
    clip: float
    projection_clip: float
    act: object
    batch_first: bool
    reverse: bool

    def layer(self) -> tuple[StackOptions, dict[str, np.ndarray]]:
        """As a layer that fastrnn has."""

        def stacked(arrays) -> np.ndarray:  # i = 1 - f: what makes i, with the other sign
            return np.concatenate([-arrays["f"] if gate == "i" and self.coupled else arrays[gate] for gate in "ifgo"])

        parameters = {
            "weight_ih_l0": stacked(self.over_x),
            "weight_hh_l0": stacked(self.over_h),
            "bias_ih_l0": stacked(self.biases),
            "bias_hh_l0": np.zeros(4 * self.H, np.float32),
        }
        if self.projection is not None:
            parameters["weight_hr_l0"] = self.projection
        common = {"batch_first": self.batch_first, "reverse": self.reverse, "proj_size": self.P if self.projection is not None else 0}
        if self.clip:
            return StackOptions("lstm", self.width, self.H, cell=gallery.clipped_lstm, **common), parameters | {
                "weight_limit_l0": np.full(self.H, self.clip, np.float32)
            }
        if self.peepholes:
            holes = self.peepholes | ({"i": -self.peepholes["f"]} if self.coupled else {})
            parameters |= {f"weight_p{gate}_l0": holes[gate] for gate in "ifo"}
        sigmoid = parse_activation("sigmoid")
        return StackOptions("lstm", self.width, self.H, peepholes=bool(self.peepholes), input_forget=self.coupled, activations=((sigmoid, self.act, self.act),), **common), parameters  # fmt: skip


def _scanned(call: Call, form: _Form, x: Tensor, places: dict[str, int]) -> Tensor:
    """Step by step, as the kernel's sources have it: a gate's sum is normalized before its bias is added, the cell and what is projected are clipped.

    Its states are inputs that must be given.
    """
    network, order = call.network, [gate for gate in "ifgo" if gate in form.over_x]
    if network.nested:
        raise call.refuse("states inside a WHILE or IF are not supported")
    w, r, b = (
        network.named_constant(f"lstm{call.index}.{name}", np.concatenate([arrays[gate] for gate in order])).name
        for name, arrays in (("W", form.over_x), ("R", form.over_h), ("b", form.biases))
    )
    x = call.transpose(x, 1, 0, 2) if form.batch_first else x
    projected = call.emit("Gemm", x, w, None if form.norms else b, transB=1)
    initial, finals = _states(call, places, {letter: ((1, x.shape[1], n), "float32") for letter, n in (("h", form.P), ("c", form.H))}, optional=False)
    first = [call.emit("Squeeze", initial[letter], call.ints(0)) for letter in "hc"]
    network.begin_body()
    row, h, c = (
        _inside(call, f"lstm{call.index}.{name}", spec)
        for name, spec in (("row", Spec("float32", projected.shape[1:])), ("h", first[0].spec), ("c", first[1].spec))
    )
    sums = call.emit("Add", row, call.emit("Gemm", h, r, transB=1))
    parts = call.emit_all("Split", len(order), sums, call.ints(*[form.H] * len(order)), axis=1)
    act = {"tanh": "Tanh", "relu": "Relu"}[form.act.kind]

    def gate(name: str, cell: Tensor) -> Tensor:
        y = parts[order.index(name)]
        if name in form.peepholes:
            y = call.emit("Add", y, call.emit("Mul", cell, call.floats(form.peepholes[name])))
        if form.norms:
            y = call.emit("LayerNormalization", y, call.floats(form.norms[name]), call.floats(form.biases[name]), axis=-1, epsilon=NORM_EPSILON)
        return call.emit(act if name == "g" else "Sigmoid", y)

    f = gate("f", c)
    i = call.emit("Sub", call.floats(1), f) if form.coupled else gate("i", c)
    new_c = call.emit("Add", call.emit("Mul", f, c), call.emit("Mul", i, gate("g", c)))
    new_c = call.emit("Clip", new_c, call.floats(-form.clip), call.floats(form.clip)) if form.clip else new_c
    new_h = call.emit("Mul", gate("o", new_c), call.emit(act, new_c))
    if form.projection is not None:
        new_h = call.emit("Gemm", new_h, call.floats(form.projection), call.floats(form.projection_bias), transB=1)
        new_h = call.emit("Clip", new_h, *(call.floats(s * form.projection_clip) for s in (-1, 1))) if form.projection_clip else new_h
    shown = call.emit("Identity", new_h)
    nodes = network.end_body()
    body = Body(tuple(nodes), (new_h.name, new_c.name, shown.name), (h.name, c.name, row.name))
    last_h, last_c, y = call.emit_all(
        "Scan",
        3,
        *first,
        projected,
        body=body,
        num_scan_inputs=1,
        scan_input_directions=[int(form.reverse)],
        scan_output_directions=[int(form.reverse)],
    )
    for letter, last in (("h", last_h), ("c", last_c)):
        network.build.add("Unsqueeze", network.unique(finals[letter]), (last.name, call.ints(0)), (finals[letter],))
    _settle(call, finals)
    return call.transpose(y, 1, 0, 2) if form.batch_first else y


def _inside(call: Call, name: str, spec: Spec) -> Tensor:
    """What each run of a body is handed."""
    name = call.network.unique(name)
    call.network.specs[name] = Spec(spec.dtype, spec.shape)
    return Tensor(name, call.network.specs[name])


@operator("UNIDIRECTIONAL_SEQUENCE_RNN", "RNN")
def rnn(call: Call) -> None:
    """x (B, T, I), or (T, B, I) where it is time-major, to y (B, T, H); RNN: one step, (B, I) to (B, H)."""
    step, x, axis = call.kind == "RNN", call.real(0), call.ints(0)
    x = call.emit("Unsqueeze", x, axis) if step else x
    act, H = _activation(call, 0 if step else 1), _constant(call, 1, (None, None)).shape[0]
    if x.rank != 3 or isinstance(x.shape[-1], str):
        raise call.invalid(f"it takes (B, T, I), got {x.shape}")
    options = StackOptions("rnn", x.shape[-1], H, batch_first=not step and not call.flag(0), activations=((act,),))
    parameters = {
        "weight_ih_l0": _constant(call, 1, (H, x.shape[-1])),
        "weight_hh_l0": _constant(call, 2, (H, H)),
        "bias_ih_l0": _constant(call, 3, (H,)),
        "bias_hh_l0": np.zeros(H, np.float32),
    }
    y = _layer(call, options, parameters, x, {"h": 4})
    call.give(call.emit("Squeeze", y, axis) if step else y)


def _layer(call: Call, options: StackOptions, parameters, x: Tensor, places: dict[str, int]) -> Tensor:
    """One layer, its states the model's: they start at zero, as the file's variables do."""
    network = call.network
    if network.nested:
        raise call.refuse("states inside a WHILE or IF are not supported")
    batch, sizes = x.shape[0 if options.batch_first else 1], {"h": options.output_size, "c": options.hidden_size}
    initial, finals = _states(call, places, {letter: ((1, batch, sizes[letter]), "float32") for letter in places})
    name = f"{'lstm' if options.kind == 'lstm' else 'rnn'}{call.index}"
    y = network.unique(f"{name}.y")
    add_stack(network.build, network.unique(name), options, options.check(parameters, call.where), x.name, y, initial, finals)
    _settle(call, finals)
    return network.tensor(y)


def _states(call: Call, places: dict[str, int], kinds, optional: bool = True) -> tuple[dict[str, str], dict[str, str]]:
    """Inputs and outputs of the model for an operator's states, tied. places: of the file's variables among its inputs; kinds: shape and dtype here; optional: whether
    they may be left out, as what only starts layers may."""
    network, initial, finals = call.network, {}, {}
    prefix = f"{'lstm' if len(places) > 1 else 'rnn'}{call.index}" + (".reverse" if tuple(places.values()) == BACKWARD.states else "")
    for letter, place in places.items():
        info, (shape, dtype) = call.info(place), kinds[letter]
        if not info.variable or info.array is not None:
            raise call.refuse(f"a state ({info.name[:80]!r}) that is no variable is not supported")
        if info.shape[-1:] != shape[-1:]:
            raise call.invalid(f"state {info.name[:80]!r} must have {shape[-1]} entries a row, got {info.shape}")
        initial[letter] = network.add_input(f"{prefix}.{letter}0", dtype, shape, optional=optional).name
        finals[letter] = network.unique(f"{prefix}.{letter}_n")
        network.states.append(State(initial[letter], finals[letter]))
    return initial, finals


def _settle(call: Call, finals: dict[str, str]) -> None:
    """The specs of what was added, and the states' last values as outputs."""
    call.network.settle()
    for final in finals.values():
        call.network.outputs[final] = call.network.tensor(final)
