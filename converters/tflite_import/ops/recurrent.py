"""LSTMs and RNNs as one operator. Their states are variables of the file: inputs and outputs here, tied."""

from __future__ import annotations

import math

import numpy as np
from fastrnn.converters.keras_import.site import Tensor
from fastrnn.converters.tflite_import.call import Call, real_array, stands_for_reals
from fastrnn.converters.tflite_import.registry import operator

from fastrnn.cells import gallery, parse_activation
from fastrnn.model import State
from fastrnn.model.stack import StackOptions, add_stack

# The places of an LSTM's inputs, as the kernel's sources have them; its gates are i f g o.
OVER_X, OVER_H, PEEPHOLES, BIASES, PROJECTION, PROJECTION_BIAS, STATES, NORMS = (1, 2, 3, 4), (5, 6, 7, 8), (9, 10, 11), (12, 13, 14, 15), 16, 17, (18, 19), (20, 21, 22, 23)
FUSED = {1: "relu", 4: "tanh"}


def _constant(call: Call, k: int, shape: tuple[int | None, ...]) -> np.ndarray:
    """A weight's numbers."""
    info = call.info(k)
    array = real_array(info) if info.array is not None else call.network.build.weights.get(call.real(k).name)
    if array is None:
        raise call.refuse(f"its weights must be constants, input {k} is computed")
    if array.ndim != len(shape) or any(n is not None and n != d for n, d in zip(shape, array.shape)) or array.dtype != np.float32:
        raise call.invalid(f"input {k} must be real numbers ({', '.join('?' if n is None else str(n) for n in shape)}), got {array.dtype} {array.shape}")
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
    return _lstm(call, call.real(0), not call.flag(3))


@operator("LSTM")
def one_step(call: Call) -> None:
    """x (B, I) to y (B, H): one step."""
    if call.option(3, "b"):
        raise call.refuse("kernel_type BASIC is not supported")
    if call.operator.outputs[:-1]:
        raise call.refuse("outputs beside the last one, as older files have them, are not supported")
    axis = call.ints(0)
    _lstm(call, call.emit("Unsqueeze", call.real(0), axis), False, lambda y: call.emit("Squeeze", y, axis))


def _integer_lstm(call: Call) -> None:
    """Of bytes: computed in integers, as TFLite does."""
    x, h, c = (call.info(k) for k in (0, *STATES))
    places = [*range(1, 9), *BIASES]
    if not all(call.has(k) for k in places) or any(call.has(k) for k in (*PEEPHOLES, PROJECTION, PROJECTION_BIAS, *NORMS)):
        raise call.refuse("of integers only the plain form is supported: no coupled gates, peepholes, projection or layer normalization")
    infos = [call.info(k) for k in places]
    if any(i.array is None or i.quantization is None and k not in BIASES for i, k in zip(infos, places)):
        raise call.refuse("its weights must be constants with a scale")
    power = math.log2(c.quantization.scale[0]) if c.quantization is not None else 0.5
    wrong = [i.dtype for i, kind in (*((i, "int32" if k in BIASES else "int8") for i, k in zip(infos, places)), (x, "int8"), (h, "int8"), (c, "int16"), (call.out(), "int8")) if i.dtype != kind]
    if wrong or not power.is_integer() or not -15 <= power <= -10 or h.quantization is None or _activation(call, 0) != parse_activation("tanh"):
        raise call.refuse(f"of integers only int8 with a cell of int16 in a power of 2 and TANH is supported{', not ' + ', '.join(wrong) if wrong else ''}")
    if h.quantization.zero_point[0] or any(i.quantization is not None and i.quantization.zero_point.any() for i in infos) or any(
            i.quantization is not None and len(i.quantization.scale) > 1 for i in (*infos, x, h, c)):
        raise call.refuse("zero points of its states and weights other than 0, and scales by unit, are not supported")
    if call.out().quantization is None or (call.out().quantization.scale[0], call.out().quantization.zero_point[0]) != (h.quantization.scale[0], 0):
        raise call.refuse("an output of another scale than the state's is not supported")
    if call.option(2, "f", 0.0) or not call.option(1, "f", 0.0) >= 0 or call.network.nested:
        raise call.refuse("proj_clip, and states inside a WHILE or IF, are not supported")
    H, value = infos[0].array.shape[0], call.tensor(0)
    if value.rank != 3:
        raise call.invalid(f"it takes (B, T, I), got {value.shape}")
    w, r, b = (call.network.named_constant(f"lstm{call.index}.{name}", np.stack([i.array for i in part])) for name, part in (("W", infos[:4]), ("R", infos[4:8]), ("B", infos[8:])))
    layout = int(not call.flag(3))
    states, finals = _states(call, dict(zip("hc", STATES)), {letter: ((value.shape[1 - layout], H), dtype) for letter, dtype in (("h", "int8"), ("c", "int16"))})
    y = call.network.unique(f"lstm{call.index}.y")
    scales = {name: tuple(float(i.quantization.scale[0]) for i in part) for name, part in (("w_scales", infos[:4]), ("r_scales", infos[4:8]))}
    call.network.build.add("IntegerLSTM", call.network.unique(f"lstm{call.index}"), (value.name, w.name, r.name, b.name, states["h"], states["c"]), (y, finals["h"], finals["c"]), layout=layout,
                           x_scale=float(x.quantization.scale[0]), x_zero=int(x.quantization.zero_point[0]), h_scale=float(h.quantization.scale[0]), cell_power=int(power),
                           cell_clip=float(call.option(1, "f", 0.0)), **scales)
    _settle(call, finals)
    call.give_stored(call.network.tensor(y))


def _lstm(call: Call, x: Tensor, batch_first: bool, shown=lambda y: y) -> None:
    coupled, projects = not call.has(OVER_X[0]), call.has(PROJECTION)
    peepholes, clip = [k for k in PEEPHOLES if call.has(k)], call.option(1, "f", 0.0)
    if any(call.has(k) for k in NORMS):
        raise call.refuse("layer normalization inside is not supported")
    if call.option(2, "f", 0.0):
        raise call.refuse(f"proj_clip = {call.option(2, 'f')} is not supported")
    if not clip >= 0:
        raise call.invalid(f"cell_clip = {clip}")
    width = x.shape[-1]
    H = _constant(call, OVER_X[1], (None, None)).shape[0]
    P = _constant(call, PROJECTION, (None, H)).shape[0] if projects else H
    if projects and call.has(PROJECTION_BIAS) and _constant(call, PROJECTION_BIAS, (P,)).any():
        raise call.refuse("a bias behind the projection is not supported")
    if x.rank != 3 or isinstance(width, str):
        raise call.invalid(f"it takes (B, T, I), got {x.shape}")

    def gates(places, *columns) -> np.ndarray:
        arrays = [None if coupled and k == places[0] else _constant(call, k, (H, *columns)) for k in places]
        arrays[0] = -arrays[1] if arrays[0] is None else arrays[0]  # i = 1 - f: what makes i, with the other sign
        return np.concatenate(arrays)

    parameters = {"weight_ih_l0": gates(OVER_X, width), "weight_hh_l0": gates(OVER_H, P), "bias_ih_l0": gates(BIASES), "bias_hh_l0": np.zeros(4 * H, np.float32)}
    if projects:
        parameters["weight_hr_l0"] = _constant(call, PROJECTION, (P, H))
    act = _activation(call, 0)
    if clip:
        if coupled or peepholes or act != parse_activation("tanh"):
            raise call.refuse(f"cell_clip = {clip} together with coupled gates, peepholes or RELU is not supported")
        options = StackOptions("lstm", width, H, batch_first=batch_first, proj_size=P if projects else 0, cell=gallery.clipped_lstm)
        parameters["weight_limit_l0"] = np.full(H, clip, np.float32)
    else:
        sigmoid = parse_activation("sigmoid")
        options = StackOptions("lstm", width, H, batch_first=batch_first, proj_size=P if projects else 0, peepholes=bool(peepholes), input_forget=coupled, activations=((sigmoid, act, act),))
        if peepholes:
            i, f, o = PEEPHOLES
            parameters |= {"weight_pf_l0": _constant(call, f, (H,)), "weight_po_l0": _constant(call, o, (H,))}
            parameters["weight_pi_l0"] = -parameters["weight_pf_l0"] if coupled else _constant(call, i, (H,))
    call.give(shown(_layer(call, options, parameters, x, dict(zip("hc", STATES)))))


@operator("UNIDIRECTIONAL_SEQUENCE_RNN", "RNN")
def rnn(call: Call) -> None:
    """x (B, T, I), or (T, B, I) where it is time-major, to y (B, T, H); RNN: one step, (B, I) to (B, H)."""
    step, x, axis = call.kind == "RNN", call.real(0), call.ints(0)
    x = call.emit("Unsqueeze", x, axis) if step else x
    act, H = _activation(call, 0 if step else 1), _constant(call, 1, (None, None)).shape[0]
    if x.rank != 3 or isinstance(x.shape[-1], str):
        raise call.invalid(f"it takes (B, T, I), got {x.shape}")
    options = StackOptions("rnn", x.shape[-1], H, batch_first=not step and not call.flag(0), activations=((act,),))
    parameters = {"weight_ih_l0": _constant(call, 1, (H, x.shape[-1])), "weight_hh_l0": _constant(call, 2, (H, H)), "bias_ih_l0": _constant(call, 3, (H,)), "bias_hh_l0": np.zeros(H, np.float32)}
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


def _states(call: Call, places: dict[str, int], kinds) -> tuple[dict[str, str], dict[str, str]]:
    """Inputs and outputs of the model for an operator's states, tied. places: of the file's variables among its inputs; kinds: shape and dtype here."""
    network, initial, finals = call.network, {}, {}
    prefix = f"{'lstm' if len(places) > 1 else 'rnn'}{call.index}"
    for letter, place in places.items():
        info, (shape, dtype) = call.info(place), kinds[letter]
        if not info.variable or info.array is not None:
            raise call.refuse(f"a state ({info.name[:80]!r}) that is no variable is not supported")
        if info.shape[-1:] != shape[-1:]:
            raise call.invalid(f"state {info.name[:80]!r} must have {shape[-1]} entries a row, got {info.shape}")
        initial[letter] = network.add_input(f"{prefix}.{letter}0", dtype, shape, optional=True).name
        finals[letter] = network.unique(f"{prefix}.{letter}_n")
        network.states.append(State(initial[letter], finals[letter]))
    return initial, finals


def _settle(call: Call, finals: dict[str, str]) -> None:
    """The specs of what was added, and the states' last values as outputs."""
    call.network.settle()
    for final in finals.values():
        call.network.outputs[final] = call.network.tensor(final)
