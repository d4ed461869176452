"""Which inputs are states that a model's outputs feed, where nobody said so: read off the graph, else off names and shapes.

    the graph   an input that is, through views alone, where a recurrent layer starts, and an output, or a slice of its axis 0, that is the
                layer's last state in the same order: entry by entry, so h and c cannot be swapped
    names       state and stateN, h0 and hn, h_in and h_out, cache and new_cache, prev_x and x: one stem, one dtype, one shape where symbols may
                be anything; and no second output or input that would do

Where both speak they must agree. What is not certain is no guess: it is left open, with the reason.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from fastrnn.errors import FastRNNError, InvalidModelError
from fastrnn.model import Model, State, Value
from fastrnn.model.edit import changed
from fastrnn.plan.graph.fold import fold
from fastrnn.plan.streams.flow import Flow, sources
from fastrnn.plan.streams.streaming import batch_symbol, time_symbol

if TYPE_CHECKING:
    from fastrnn.plan.planner import Plan

BATCH = 2  # for which the graph is followed
LETTERS = {"h": "h", "hx": "h", "hy": "h", "c": "c", "cx": "c", "cy": "c"}
SHORT_WORDS = {*LETTERS, "buf", "mem", "ctx", "hid", "hist", "rnn", "gru"}
LONG_WORDS = ("state", "cache", "hidden", "buffer", "memory", "context", "history", "cell", "lstm", "carry")
# Marks of the value before a step and after it. Weak ones stand on many a plain input and output: they need a word for state beside them.
STRONG = ({"prev", "previous", "past", "last", "old"}, {"next", "new", "updated", "present"})
WEAK = ({"in", "input", "i", "init", "initial", "t0"}, {"out", "output", "o", "final"})
COUNTED = ("0", "n")  # h0 and hn; a 0 may also number a layer, so it goes with an n alone
FUSED = re.compile(rf"({'|'.join((*sorted(SHORT_WORDS - {'hy', 'cy'}, key=len, reverse=True), *LONG_WORDS))})(0|n|in|out|prev|next|new)")


@dataclass(frozen=True)
class Guess:
    """states: as Session takes them, {input: output} or {input: (output, index)}. why: for each, what says so. open: inputs that look like states
    and have no certain output, with the reason."""

    states: Mapping[str, str | tuple[str, int]] = field(default_factory=dict)
    why: Mapping[str, str] = field(default_factory=dict)
    open: Mapping[str, str] = field(default_factory=dict)

    def tied(self, model: Model) -> tuple[State, ...]:
        """The states as a model has them."""
        values = {v.name: v for v in model.inputs}
        pairs = [(name, *(source if isinstance(source, tuple) else (source, None))) for name, source in self.states.items()]
        return tuple(State(name, output, index, values[name].dtype, values[name].shape) for name, output, index in pairs)


def guess_states(model: Model) -> Guess:
    """What a model's inputs and outputs say of its states; nothing where it declares states. Changes nothing: pass `states` on to compile."""
    if not isinstance(model, Model):
        raise InvalidModelError(f"guess_states takes a fastrnn Model, got {type(model).__name__}; to_model() of a layer is one")
    if model.states:
        return Guess()
    flow = _flow(model)
    by_graph, by_name = _ties(model, flow), _by_name(model)
    states: dict[str, str | tuple[str, int]] = {}
    why, left = {}, {}
    for name in (v.name for v in model.inputs):
        graph, named = by_graph.get(name, []), by_name.get(name, [])
        if len(graph) > 1:
            left[name] = f"{_listed(graph)} are both what the layers that start from it end with"
        elif graph and named and graph[0] not in named:
            left[name] = f"its name goes with {_listed(named)}, but what the layers that start from it end with is {_listed(graph)}"
        elif graph:
            states[name], why[name] = graph[0], "the graph: the last state of the layers that start from it"
        elif name in flow.starts and any(source in flow.nexts for source in named):
            left[name] = (
                f"its name goes with {_listed(named)}, but there the entries of what the layers that start from it end with are in another order"
            )
        elif len(named) == 1:
            states[name], why[name] = named[0], "names and shapes"
        elif named:
            left[name] = f"{_listed(named)} would do"
        elif name in flow.starts:
            left[name] = "recurrent layers start from it, but no output is certain to be what they end with"
    for name, source in list(states.items()):
        if others := [n for n, s in states.items() if n != name and s == source]:
            left[name] = f"{_listed([source])} would do for {', '.join(map(repr, others))} as well"
    return Guess({n: s for n, s in states.items() if n not in left}, {n: w for n, w in why.items() if n not in left}, left)


def _flow(model: Model) -> Flow:
    symbol, time = batch_symbol(model), time_symbol(model)
    shapes = {v.name: tuple(BATCH if d == symbol and d != time else d for d in v.shape) for v in model.inputs}
    try:
        return Flow(fold(model, shapes), shapes)
    except FastRNNError:  # for a batch of one only, or whatever else: names are left
        return Flow()


def _ties(model: Model, flow: Flow) -> dict[str, list[str | tuple[str, int]]]:
    """For each input that layers start from, the outputs, or slices of their axis 0, that hold exactly its entries in order."""
    found: dict[str, list[str | tuple[str, int]]] = {}
    for output in model.output_names:
        for name in flow.starts if output in flow.nexts else ():
            found.setdefault(name, []).extend(sources(output, flow.nexts[output], flow.entries[name]))
    return {name: outputs for name, outputs in found.items() if outputs}


def with_states(plan: Plan, states: tuple[State, ...]) -> Plan:
    """The plan with these states tied in its model; kernels and packed weights are shared."""
    return replace(plan, model=changed(plan.model, states=states))


def _listed(sources: Iterable[str | tuple[str, int]]) -> str:
    return " and ".join(repr(s) if isinstance(s, str) else f"{s[0]!r}[{s[1]}]" for s in sources)


def _tokens(name: str) -> list[str]:
    name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name.rsplit("/", 1)[-1].removesuffix(":0"))
    return [t for t in re.split(r"[^a-z0-9]+", name.lower()) if t]


def _is_state_word(token: str) -> bool:
    word = token.rstrip("0123456789")
    return word in SHORT_WORDS or any(long in word for long in LONG_WORDS)


def _stems(name: str, side: int) -> dict[tuple[str, ...], bool]:
    """What is left of a name without the marks of its side (0: an input, 1: an output), and whether it may be a state by that."""
    split: list[str] = []
    for token in _tokens(name):
        fused = FUSED.fullmatch(token)
        split += fused.groups() if fused and fused[2] in {*STRONG[side], *WEAK[side], COUNTED[side]} else [token]
    stems: dict[tuple[str, ...], bool] = {}

    def add(tokens: list[str], marked: bool, *end: str) -> None:
        if tokens:
            stem = (*(LETTERS.get(t, t) for t in tokens), *end)
            stems[stem] = stems.get(stem, False) or marked or any(map(_is_state_word, stem))

    add(_tokens(name), False)
    left = [t for t in split if t not in STRONG[side]]
    add([t for t in left if t not in WEAK[side]], len(left) < len(split))
    if split[-1:] == [COUNTED[side]]:
        add(split[:-1], False, "0 and n")
        if side:
            add(split[:-1], False)
    return stems


def _by_name(model: Model) -> dict[str, list[str]]:
    """For each input, the outputs that its name and shape go with, and which go with no other input."""
    time = time_symbol(model)
    outputs = {v.name: (v, _stems(v.name, 1)) for v in model.outputs}
    pairs: dict[str, list[str]] = {}
    for value in model.inputs:
        if value.dtype == "bool" or not value.shape or time in value.shape:
            continue
        mine = _stems(value.name, 0)
        fits = [
            name
            for name, (output, theirs) in outputs.items()
            if _fits(value, output) and any(stem in theirs and (mine[stem] or theirs[stem]) for stem in mine)
        ]
        if fits:
            pairs[value.name] = fits
    return _forced(pairs)


def _forced(pairs: dict[str, list[str]]) -> dict[str, list[str]]:
    """The same without what a one-to-one matching rules out: an output that another input needs."""
    while True:
        taken = {fits[0]: name for name, fits in pairs.items() if len(fits) == 1}
        left = {name: [o for o in fits if taken.get(o, name) == name] if len(fits) > 1 else fits for name, fits in pairs.items()}
        if left == pairs:
            return pairs
        pairs = {name: fits for name, fits in left.items() if fits}


def _fits(value: Value, output: Value) -> bool:
    """One dtype, one shape but for symbols."""
    return (
        value.dtype == output.dtype
        and len(value.shape) == len(output.shape)
        and all(a == b or isinstance(a, str) or isinstance(b, str) for a, b in zip(value.shape, output.shape))
    )
