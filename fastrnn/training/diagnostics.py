"""What a recurrent network does to gradients and to its gates: numbers to look at when it does not learn."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fastrnn.cells.gate_order import GATE_ORDER
from fastrnn.errors import ShapeError, UnsupportedModelError
from fastrnn.training.custom import Recurrent
from fastrnn.training.gradient import loss_of_rows
from fastrnn.training.recurrent import BuiltIn
from fastrnn.training.sequential import Sequential
from fastrnn.training.stacks import RecurrentLayer, Saved

if TYPE_CHECKING:
    from fastrnn.typing import ArrayLike, Loss

ADDS = "agn"  # gates that run from -1 to 1
LOW, HIGH = 0.1, 0.9


def hidden_gradients(
    net: Sequential | RecurrentLayer,
    loss: Loss,
    x: ArrayLike,
    target: ArrayLike,
    *,
    layer: int | str = 0,
    k: int = 0,
    reverse: bool = False,
    lengths: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    batch_first: bool = False,
) -> np.ndarray:
    """The norm of dL/dh_t for each step and sequence, (T, B) in the network's dtype: how far back the loss reaches (Bengio et al. 1994).

    dL/dh_t is the whole gradient: what the layer's output at step t passes on, and what step t + 1 sends back. It is 0 past the end of a sequence.
    x, target, lengths, mask, batch_first: as value_and_grad's; nothing is dropped. layer: place of the recurrent layer in the network, an int or as in
    names of parameters, "1.0" inside another Sequential. k: which of its stack; reverse: the direction that runs from the end.
    Raises ShapeError and DTypeError as value_and_grad, UnsupportedModelError where there is no such layer. Safe from many threads.
    """
    net, place, recurrent = _find(net, layer)
    column = _direction(recurrent, k, reverse)
    rows, run = net.enter(x, lengths, batch_first)
    score = loss_of_rows(loss, net.run_after(run), target, mask, batch_first)
    y, saved, _ = net.forward(rows, run)
    one = _saved(saved, place)[k]
    one.keep_dh = True
    net.backward(score(y)[1], saved, {name: np.zeros_like(array) for name, array in net.parameters().items()}, need_dx=False)
    size = recurrent.options.output_size
    return run.unpack(np.linalg.norm(one.dh[:, column * size : (column + 1) * size], axis=1))


def spectral_radius(layer: RecurrentLayer, k: int = 0, reverse: bool = False) -> dict[str, float]:
    """The largest modulus of an eigenvalue of the recurrent matrix, by gate: a of an RNN, i f g o, r z n, those of a custom cell that see h.

    Where units are not saturated, the gradient of an RNN vanishes along time below 1 and explodes above (Pascanu et al. 2013). With a projection, the
    matrix is from h to h: the gate's rows of weight_hh times weight_hr. UnsupportedModelError where there is no such layer.
    """
    suffix, own = layer.options.suffixes(k)[_direction(layer, k, reverse)], layer.parameters()
    if f"weight_hh_{suffix}" not in own:
        raise UnsupportedModelError(f"spectral_radius: cell {layer.cell.name!r} has no recurrent matrix")
    matrices = _by_gate(layer, own[f"weight_hh_{suffix}"].astype(np.float64))
    if layer.options.proj_size:
        matrices = {gate: own[f"weight_hr_{suffix}"] @ matrix for gate, matrix in matrices.items()}
    return {gate: float(np.abs(np.linalg.eigvals(matrix)).max()) for gate, matrix in matrices.items()}


def saturation(
    net: Sequential | RecurrentLayer,
    x: ArrayLike,
    *,
    layer: int | str = 0,
    k: int = 0,
    reverse: bool = False,
    lengths: ArrayLike | None = None,
    batch_first: bool = False,
) -> dict[str, tuple[float, float]]:
    """By gate, the shares of its values over all valid steps and units that are nearly closed and nearly open, below 0.1 and above 0.9
    (Karpathy et al. 2015).

    What adds, a of an RNN (its h), g of an LSTM and n of a GRU, runs from -1 to 1: it counts below -0.8 and above 0.8. Both shares near 0: a gate
    that does not decide; one near 1: it passes no gradient on. A coupled f is 1 - i. Arguments, errors and threads: as hidden_gradients.
    UnsupportedModelError for relu and for a custom cell, ShapeError where there is no step.
    """
    net, place, recurrent = _find(net, layer)
    column = _direction(recurrent, k, reverse)
    if not isinstance(recurrent, BuiltIn):
        raise UnsupportedModelError(f"saturation: between which values the gates of cell {recurrent.cell.name!r} run is not known")
    if recurrent.relu:
        raise UnsupportedModelError(f"saturation: layer {'.'.join(map(str, place))!r} has relu units, which do not saturate")
    rows, run = net.enter(x, lengths, batch_first)
    if not len(rows):
        raise ShapeError("saturation: there is no step")
    one, size = _saved(net.forward(rows, run)[1], place)[k], recurrent.options.output_size
    gates = one.h[run.packing.B :, column * size : (column + 1) * size] if recurrent.kind == "rnn" else one.directions[column].gates
    parts = {gate: (part + 1) / 2 if gate in ADDS else part for gate, part in _by_gate(recurrent, gates.T).items()}
    return {gate: (float(np.mean(part < LOW)), float(np.mean(part > HIGH))) for gate, part in parts.items()}


def _by_gate(layer: RecurrentLayer, stacked: np.ndarray) -> dict[str, np.ndarray]:
    """The parts of (G H, ...)."""
    order = layer.cell.h_gates if isinstance(layer, Recurrent) else GATE_ORDER[layer.kind]["torch"]
    return dict(zip(order, np.split(stacked, len(order))))


def _find(net: Sequential | RecurrentLayer, layer: int | str) -> tuple[Sequential, list[int], RecurrentLayer]:
    """The network, the place of its recurrent layer, and that layer."""
    net = Sequential(net) if isinstance(net, RecurrentLayer) else net
    recurrent = {place: leaf for place, leaf in net.leaves() if isinstance(leaf, RecurrentLayer)}
    if str(layer) not in recurrent:
        raise UnsupportedModelError(f"layer {layer!r} is not recurrent; {', '.join(map(repr, recurrent)) or 'none'} is")
    return net, [int(part) for part in str(layer).split(".")], recurrent[str(layer)]


def _direction(layer: RecurrentLayer, k: int, reverse: bool) -> int:
    """Which of the columns of h belong to a direction."""
    o = layer.options
    if k not in range(o.num_layers):
        raise UnsupportedModelError(f"{layer.kind}: k must be from 0 to {o.num_layers - 1}, a layer of the stack, got {k!r}")
    if reverse and not o.directions == 2:
        raise UnsupportedModelError(f"{layer.kind}: it has one direction")
    return int(bool(reverse))


def _saved(saved: Any, place: list[int]) -> list[Saved]:
    """What the stack at a place keeps."""
    for part in place:
        saved = saved[part]
    return saved[1]
