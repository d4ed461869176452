"""SimpleRNN, LSTM, GRU, RNN over cells, Bidirectional.

A layer is a stack of cells over one sequence. Keras gives the outputs of a backward layer in the order in which it made them; here they are made at their places and turned round.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fastrnn.cells import GATES
from fastrnn.cells.gate_order import permute
from fastrnn.converters.keras_import.layers.activations import cell_activation
from fastrnn.converters.keras_import.layers.masks import Kept
from fastrnn.converters.keras_import.layers.spelled import spelled_layer
from fastrnn.converters.keras_import.registry import OWN, Variable, layer, named
from fastrnn.converters.keras_import.site import Site, Tensor
from fastrnn.converters.keras_import.tree import Layer
from fastrnn.model import State
from fastrnn.model.stack import StackOptions, add_stack

CELLS = {"SimpleRNN": "rnn", "LSTM": "lstm", "GRU": "gru", "CuDNNLSTM": "lstm", "CuDNNGRU": "gru", "SimpleRNNCell": "rnn", "LSTMCell": "lstm", "GRUCell": "gru"}  # fmt: skip
WEIGHTS = ("kernel", "recurrent_kernel", "bias")


@dataclass(frozen=True)
class Cell:
    """One cell: its kind, its weights under torch's names, and its activations: of the gates and of the candidate, as the config names them. parsed: those in ONNX's order where a cell
    has them, else None."""

    kind: str
    units: int
    parameters: Mapping[str, np.ndarray]
    reset_after: bool
    names: tuple[Any, Any]
    parsed: tuple | None
    site: Site

    @property
    def states(self) -> int:
        """How many states it has."""
        return 2 if self.kind == "lstm" else 1


def _cell(g: Site) -> Cell:
    """The cell that a layer of one, or a cell's config, says."""
    kind, cudnn = CELLS[g.layer.kind], g.layer.kind.startswith("CuDNN")
    units, n = g.whole("units"), GATES[kind]
    kernel, recurrent = g.array("kernel", (None, n * units)), g.array("recurrent_kernel", (units, n * units))
    reset_after = kind == "gru" and (cudnn or g.flag("reset_after", False))
    names = ("sigmoid", "tanh") if cudnn else (g.option("recurrent_activation", "sigmoid"), g.option("activation", "tanh"))
    use_bias = True if cudnn else g.flag("use_bias", True)
    rows = 2 if reset_after or cudnn else 1
    bias = np.zeros((2, n * units), np.float32)
    if use_bias:
        given = g.array("bias")
        if given.size != rows * n * units or given.ndim > 2:
            raise g.invalid(f"bias must have {rows * n * units} entries = {rows} * {n} * units, got shape {given.shape}")
        bias[:rows] = given.reshape(rows, -1)
    if cudnn:  # each gate's matrix lies as cuDNN reads it: transposed, under the shape that it would have otherwise
        kernel = np.concatenate([part.ravel().reshape(units, -1).T for part in np.split(kernel, n, axis=1)], axis=1)
        recurrent = np.concatenate([part.T for part in np.split(recurrent, n, axis=1)], axis=1)
    parameters = {"weight_ih_l0": kernel.T, "weight_hh_l0": recurrent.T, "bias_ih_l0": bias[0], "bias_hh_l0": bias[1]}
    parameters = {k: np.ascontiguousarray(permute(a, kind, "keras", "torch")) for k, a in parameters.items()}
    f, c = (cell_activation(g, name) for name in names)
    parsed = (c,) if kind == "rnn" else (f, c) if kind == "gru" else (f, c, c)
    return Cell(kind, units, parameters, reset_after, names, None if None in parsed else parsed, g)


@dataclass(frozen=True)
class Options:
    """What a recurrent layer says beside its cells."""

    cells: list[Cell]
    sequences: bool
    state: bool
    backwards: bool
    stateful: bool
    zeros: bool


def _options(g: Site) -> Options:
    if g.option("time_major"):
        raise g.refuse("time_major=True is not supported")
    if g.layer.kind == "RNN":
        g.option("cell")
        inner = Site(g.graph, g.layer.children["cell"])
        sites = [inner]
        if inner.layer.kind == "StackedRNNCells":
            inner.option("cells")
            if inner.option("reverse_state_order"):
                raise g.refuse("reverse_state_order=True is not supported")
            sites = [Site(g.graph, cell) for cell in inner.layer.children.values()]
        if not sites or any(site.layer.kind not in CELLS for site in sites):
            raise g.refuse("its cells must be SimpleRNNCell, LSTMCell or GRUCell, or a StackedRNNCells of such")
        cells = [_cell(site) for site in sites]
        for site in {id(s): s for s in (inner, *sites)}.values():
            site.finish()
    else:
        cells = [_cell(g)]
    options = Options(cells, *(g.flag(name) for name in ("return_sequences", "return_state", "go_backwards", "stateful", "zero_output_for_mask")))
    g.finish()
    return options


def _cell_config(config: Mapping) -> dict:
    return {"cell": config.get("cell")}


def _masks(g: Site, x: Tensor, initial_state, mask: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
    """What a layer computes with, and what its outputs carry. Keras 3 hands a layer its input's mask where that is the only tensor of the call (Layer.__call__): beside an initial
    state it runs over what is masked, and its outputs carry the mask all the same. Keras 2 hands it on."""
    carried = mask or x.mask
    return (None if mask is None and initial_state is not None and g.graph.version[0] >= 3 else carried), carried


@layer("SimpleRNN", "LSTM", "GRU", variables=named(*WEIGHTS, place="cell"), masks=OWN)
@layer("CuDNNLSTM", "CuDNNGRU", variables=lambda config: [Variable(name) for name in WEIGHTS], masks=OWN)
@layer("RNN", children=_cell_config, masks=OWN)
def recurrent(g: Site, x, initial_state=None, mask: Tensor | None = None):
    """(B, T, I) to (B, T, H) or (B, H), and the last states."""
    x, given = _given(g, x, initial_state)
    mask, carried = _masks(g, x, initial_state, mask)
    o = _options(g)
    if g.layer.kind in ("CuDNNLSTM", "CuDNNGRU") and mask is not None:
        raise g.refuse("it takes no masks")
    kept = Kept(g, mask) if mask is not None else None
    y, finals = _run(g, o, kept.packed(x) if kept else x, kept, given)
    result = _shown(g, o, y, finals, kept, o.backwards)
    result = result.masked(carried if o.sequences else None)
    return [result, *finals] if o.state else result


@layer("SimpleRNNCell", "LSTMCell", "GRUCell", variables=named(*WEIGHTS))
@layer("StackedRNNCells", children=lambda config: {f"cells/{k}": cell for k, cell in enumerate(config.get("cells") or ())})
def cell_alone(g: Site, x):
    """Cells belong in an RNN."""
    raise g.refuse("a cell that is called by itself, outside of an RNN, is not supported")


def _backward_config(config: Mapping) -> Mapping:
    """The backward layer's config: its own, or the forward one's turned round."""
    given = config.get("backward_layer")
    if given is not None:
        return given
    forward = config.get("layer")
    inner = forward.get("config") if isinstance(forward, Mapping) else None
    if not isinstance(inner, Mapping):
        return {}
    return {**forward, "config": {**inner, "name": f"backward_{str(inner.get('name')).removeprefix('forward_')}", "go_backwards": not inner.get("go_backwards", False)}}  # fmt: skip


@layer("Bidirectional", children=lambda config: {"forward_layer": config.get("layer"), "backward_layer": _backward_config(config)}, masks=OWN)
def bidirectional(g: Site, x, initial_state=None, mask: Tensor | None = None):
    """Two layers, one of them backwards, their outputs merged."""
    for name in ("layer", "backward_layer"):
        g.option(name)
    mode = g.choice("merge_mode", "concat", "concat", "sum", "ave", "mul", None)
    sites = [Site(g.graph, g.layer.children[name]) for name in ("forward_layer", "backward_layer")]
    if any(s.layer.kind not in (*CELLS, "RNN") for s in sites):
        raise g.refuse(f"a {sites[0].layer.kind} in it is not supported")
    x, given = _given(g, x, initial_state)
    mask, carried = _masks(g, x, initial_state, mask)
    halves = [_options(s) for s in sites]
    if halves[0].backwards == halves[1].backwards or len({(h.sequences, h.state, h.stateful) for h in halves}) > 1:
        raise g.invalid("its two layers must run in different directions and return the same")
    halves = [replace(h, zeros=h.sequences) for h in halves]  # as Keras sets it
    kept = Kept(g, mask) if mask is not None else None
    packed = kept.packed(x) if kept else x
    states = [None, None] if given is None else [given[: len(given) // 2], given[len(given) // 2 :]]
    if (made := _as_one(g, halves, packed, kept, given)) is not None:
        results = made
    else:
        results = [_run(s, h, packed, kept, part) for s, h, part in zip(sites, halves, states)]
    forward, backward = (
        _shown(g, h, y, finals, kept, h.backwards if k == 0 else not h.backwards) for k, (h, (y, finals)) in enumerate(zip(halves, results))
    )
    mask = carried if halves[0].sequences else None
    if mode is None:
        merged = [forward.masked(mask), backward.masked(mask)]
    else:
        y = (
            g.emit("Concat", forward, backward, axis=forward.rank - 1)
            if mode == "concat"
            else g.emit({"sum": "Add", "ave": "Mean", "mul": "Mul"}[mode], forward, backward)
        )
        merged = [y.masked(mask)]
    finals = [*results[0][1], *results[1][1]] if halves[0].state else []
    return [*merged, *finals] if len(merged) + len(finals) > 1 else merged[0]


def _given(g: Site, x, initial_state) -> tuple[Tensor, list[Tensor] | None]:
    """The sequence, and the states that it is called with: Keras 2 lists them behind it."""
    if isinstance(x, list):
        x, initial_state = (x or [None])[0], x[1:] or initial_state
    if not isinstance(x, Tensor):
        raise g.invalid("it is called on no tensor")
    if initial_state is None:
        return x, None
    flat, todo = [], [initial_state]
    while todo:
        one = todo.pop(0)
        if isinstance(one, (list, tuple)):
            todo[:0] = one
        elif isinstance(one, Tensor):
            flat.append(one)
        else:
            raise g.refuse(f"an initial state of {type(one).__name__} is not supported")
    return x, flat


def _stack_options(o: Options, k: int, I: int, both: bool = False) -> StackOptions:
    cell = o.cells[k]
    default = StackOptions(cell.kind, I, cell.units).activations
    activations = (cell.parsed,) if cell.parsed is not None else default
    return StackOptions(
        cell.kind, I, cell.units, batch_first=True, reset_after=cell.reset_after, activations=activations, reverse=o.backwards and not both
    )


def _run(g: Site, o: Options, x: Tensor, kept: Kept | None, given: Sequence[Tensor] | None) -> tuple[Tensor, list[Tensor]]:
    """The cells over x (B, T, I): the last one's outputs at their places, and the last states (B, H) of all, in order."""
    if x.rank != 3:
        raise g.invalid(f"it takes (B, T, I), got {x.shape}")
    wanted = sum(cell.states for cell in o.cells)
    if given is not None and len(given) != wanted:
        raise g.invalid(f"it has {wanted} states, {len(given)} are given")
    if given is not None and o.stateful:
        raise g.refuse("stateful=True together with an initial state is not supported")
    states, finals, y = iter(given or ()), [], x
    for k, cell in enumerate(o.cells):
        mine = [next(states) for _ in range(cell.states)] if given is not None else None
        width = g.known(y, 2)
        if cell.parameters["weight_ih_l0"].shape[1] != width:
            raise g.invalid(f"its kernel has {cell.parameters['weight_ih_l0'].shape[1]} rows, its input {width} features")
        if cell.parsed is None:
            if o.stateful:
                raise g.refuse(f"stateful=True with activations {cell.names} is not supported")
            y, last = spelled_layer(g, cell, y, mine, kept, o.backwards)
        else:
            y, last = _layer(g, o, k, y, mine, kept)
        finals += last
    return y, finals


def _layer(g: Site, o: Options, k: int, x: Tensor, given, kept: Kept | None) -> tuple[Tensor, list[Tensor]]:
    """One cell over a sequence."""
    options, first = _stack_options(o, k, g.known(x, 2)), g.ints(0)
    letters = options.states
    name, y = g.value("layer"), g.value("y")
    initial, finals = {}, {letter: g.value(f"{letter}.last") for letter in letters}
    if given is not None:
        initial = {letter: g.emit("Unsqueeze", s, first).name for letter, s in zip(letters, given)}
    if o.stateful:
        prefix = g.layer.name if len(o.cells) == 1 else f"{g.layer.name}.{k}"
        if any(v.name == f"{prefix}.h0" for v in g.graph.inputs):
            raise g.refuse("a stateful layer that is called twice is not supported")
        for letter in letters:
            initial[letter] = g.graph.add_input(f"{prefix}.{letter}0", "float32", (1, x.shape[0], options.hidden_size), optional=True).name
            finals[letter] = g.graph.unique(f"{prefix}.{letter}_n")
            g.graph.states.append(State(initial[letter], finals[letter]))
    add_stack(
        g.graph.build, name, options, options.check(o.cells[k].parameters, g.where), x.name, y, initial, finals, kept.lengths.name if kept else ""
    )
    g.graph.settle()
    for letter in letters if o.stateful else ():
        g.graph.outputs[finals[letter]] = g.graph.tensor(finals[letter])
    return g.graph.tensor(y), [g.emit("Squeeze", finals[letter], first) for letter in letters]


def _as_one(g: Site, halves: list[Options], x: Tensor, kept: Kept | None, given) -> list | None:
    """Both directions as one node, where their cells are of one size and kind."""
    f, b = halves
    one = all(len(h.cells) == 1 and h.cells[0].parsed is not None and not h.stateful for h in halves) and not f.backwards
    if (
        not one
        or (f.cells[0].kind, f.cells[0].units, f.cells[0].reset_after) != (b.cells[0].kind, b.cells[0].units, b.cells[0].reset_after)
        or x.rank != 3
    ):
        return None
    cell, I = f.cells[0], g.known(x, 2)
    options = replace(_stack_options(f, 0, I), bidirectional=True, activations=(cell.parsed, b.cells[0].parsed))
    parameters = {**cell.parameters, **{f"{name}_reverse": a for name, a in b.cells[0].parameters.items()}}
    letters, first = options.states, g.ints(0)
    if given is not None and len(given) != 2 * len(letters):
        raise g.invalid(f"it has {2 * len(letters)} states, {len(given)} are given")
    initial = {}
    for j, letter in enumerate(letters if given is not None else ()):
        initial[letter] = g.emit("Concat", *(g.emit("Unsqueeze", given[j + d * len(letters)], first) for d in (0, 1)), axis=0).name
    name, y, finals = g.value("layer"), g.value("y"), {letter: g.value(f"{letter}.last") for letter in letters}
    add_stack(g.graph.build, name, options, options.check(parameters, g.where), x.name, y, initial, finals, kept.lengths.name if kept else "")
    g.graph.settle()
    whole = g.graph.tensor(y)
    return [
        (g.cut(whole, 2, d * cell.units, (d + 1) * cell.units), [g.take(g.graph.tensor(finals[letter]), 0, d) for letter in letters]) for d in (0, 1)
    ]


def _shown(g: Site, o: Options, y: Tensor, finals: list[Tensor], kept: Kept | None, turned: bool) -> Tensor:
    """What the layer returns of its outputs: all, turned round where it says so, or the last."""
    if not o.sequences:
        h = finals[-o.cells[-1].states]
        return kept.last(h, o.backwards, o.zeros) if kept else h
    if kept:
        y = kept.spread(y, o.backwards, o.zeros)
    return g.flip(y, 1) if turned else y


def is_recurrent(layer: Layer) -> bool:
    """Whether a layer runs over time."""
    return layer.kind in (*CELLS, "RNN", "Bidirectional")
