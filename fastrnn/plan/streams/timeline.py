"""A model along its time axis, so that it takes a chunk of steps: what an op needs of earlier steps becomes a state of its own.

Each value is followed by where its steps are (Track). An op that keeps steps apart stays. One that looks back, such as a causal
convolution, reads its history and the chunk, one behind the other; what delays a value, such as a Pad in front and a Slice at the
end, becomes such a history too. In the result every value has exactly the chunk's steps. Anything else is refused by name.

Ops that can be stepped although they mix steps are in lookback.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from fastrnn.errors import InvalidModelError, NotStreamableError
from fastrnn.model import Model, Node, State, Value
from fastrnn.model.edit import Edit, changed, fresh, live
from fastrnn.model.infer import MOVING, evaluate, infer_node, spec_of
from fastrnn.model.ops import ANY_DIM, OPS, Spec
from fastrnn.model.sizes import Whole, formula, whole
from fastrnn.plan.lowering.views import VIEWS

OPEN_END = 2**31 - 1  # a bound of Slice from which it means the end
MIXING: dict[str, Callable] = {}


def mixing(*names: str):
    """Registers (timeline, node) for ops that mix time steps in a way that can be followed from chunk to chunk."""

    def register(function):
        MIXING.update(dict.fromkeys(names, function))
        return function

    return register


def refuse(node: Node, why: str) -> NotStreamableError:
    """The error that names the node in the way."""
    return NotStreamableError(f"node {node.name!r} ({node.op}): {why}")


@dataclass(frozen=True)
class Track:
    """Where a value's steps are: along `axis`, `lead` entries before the one that step 0 completes, T of them, then `tail` more (which may be
    negative). edge: those before are copies of the entry of step 0, else they depend on no input. rows: sequences that lie one behind the other
    along the axis, such as those of a batch that was folded into it; each: entries that a step has there, such as the rows of a batch behind time that was. Then nothing stands
    before or after the steps."""

    axis: int
    lead: int = 0
    tail: int = 0
    edge: bool = False
    rows: Whole = 1
    each: Whole = 1

    def __post_init__(self):
        object.__setattr__(self, "edge", self.edge and self.lead > 0)

    @property
    def length(self) -> Length:
        """How many entries the axis has."""
        return Length(self.lead + self.tail, self.rows * self.each)


@dataclass(frozen=True)
class Prefix:
    """Where a history starts from: the last `count` of a value's `lead` entries before step 0, behind as many of `fill` as it holds. model: what
    computes them, whatever its inputs, for so few `steps` that nothing is cut off more than there is."""

    model: Model
    steps: int
    axis: int
    lead: int
    count: int
    fill: float = 0.0


@dataclass(frozen=True)
class Length:
    """`rows` times the number of steps, and some more: an entry of a shape."""

    more: int
    rows: Whole = 1

    def __add__(self, n):
        return Length(self.more + whole(n), self.rows)

    __radd__ = __add__

    def __sub__(self, n):
        return Length(self.more - whole(n), self.rows)

    def __mul__(self, n):
        return Length(self.more * whole(n), self.rows * whole(n))

    __rmul__ = __mul__


class Timeline(Edit):
    """The walk. model: folded, its time a symbol, all else numbers where it matters. What it leaves: nodes, specs, inputs, outputs, states,
    initial (arrays that broadcast to the state, a Model of constants that computes it, or Prefix), histories: the states that it added for ops other than recurrent ones."""

    def __init__(self, model: Model, time: str):
        specs = {name: spec_of(a) if isinstance(a, np.ndarray) else model.specs[name] for name, a in model.weights.items()}
        super().__init__(model, specs | {v.name: Spec(v.dtype, v.shape) for v in model.inputs})
        self.time, self.nodes = time, []
        self.tracks = {v.name: Track(v.shape.index(time)) for v in model.inputs if time in v.shape}
        self.inputs, self.outputs, self.states = list(model.inputs), list(model.output_names), list(model.states)
        self.initial: dict[str, np.ndarray | Prefix] = {}
        self.histories: set[str] = set()
        self.lengths: dict[str, np.ndarray] = {}  # integers that follow from the number of steps
        self.producer = {name: node for node in model.nodes for name in node.outputs if name}
        self.tied = {s.input for s in model.states}
        self._aligned: dict[str, str] = {}

    def run(self) -> Model:
        """The steppable model; raises NotStreamableError naming the node that stands in the way."""
        for node in self.model.nodes:
            self._visit(node)
        renamed = {}
        for name in self.model.output_names:
            track = self.tracks.get(name)
            if track is None:
                continue
            if track.length.rows > 1:
                raise refuse(self.producer[name], f"output {name!r} holds the steps of {track.length.rows} sequences along one axis")
            if more := track.lead + track.tail:
                raise refuse(self.producer[name], f"output {name!r} has {abs(more)} {'more' if more > 0 else 'fewer'} entries than steps")
            if (aligned := self.align(name)) != name:
                renamed |= {name: self.fresh(f"{name}.early"), aligned: name}
                self.tracks[name] = self.tracks[aligned]
        nodes = [
            replace(n, inputs=tuple(renamed.get(i, i) for i in n.inputs), outputs=tuple(renamed.get(o, o) for o in n.outputs)) for n in self.nodes
        ]
        specs = {renamed.get(name, name): spec for name, spec in self.specs.items()}
        return self.result(nodes, inputs=tuple(self.inputs), output_names=tuple(self.outputs), states=tuple(self.states), specs=specs)

    def _visit(self, node: Node) -> None:
        timed = [name for name in node.reads() if name in self.tracks]
        if not timed:
            return self._untimed(node)
        if node.subgraphs:
            raise refuse(node, "whether it mixes time steps is not known before it runs")
        return MIXING[node.op](self, node) if node.op in MIXING else self.apart(node)

    # What handlers share.

    def size(self, track: Track) -> str:
        """The dimension that stands for a track's entries."""
        return self.time if track.length.rows == 1 else f"{formula(track.length.rows)} {self.time}"

    def single(self, node: Node, track: Track) -> None:
        """Raises where several sequences lie one behind the other."""
        if track.length.rows > 1:
            raise refuse(node, f"it mixes time steps: along its axis lie the steps of {track.length.rows} sequences")

    def add(self, node: Node, track: Track | None = None) -> None:
        """Appends a node; track: of its outputs, whose length along time is the chunk's."""
        given = [self.specs.get(name) if name else None for name in node.inputs]
        for name, spec in zip(node.outputs, [self.model.specs.get(o) for o in node.outputs] if node.subgraphs else infer_node(node, given)):
            if name and spec is not None:
                if track is not None and spec.shape is not None:
                    spec = Spec(spec.dtype, (*spec.shape[: track.axis], self.size(track), *spec.shape[track.axis + 1 :]))
                    self.tracks[name] = track
                self.specs[name] = spec
        self.nodes.append(node)

    def put(self, op: str, name: str, *inputs: str, shape=None, dtype: str = "", **attributes) -> str:
        """Appends a node of one output, of this shape where inference cannot tell; returns the value."""
        return self.node(self.nodes, op, name, inputs, spec=Spec(dtype or self.specs[inputs[0]].dtype, tuple(shape)), **attributes)[0]

    def cut(self, name: str, value: str, axis: int, start: int, end: int, size) -> str:
        """value[start:end] along an axis, of this size then."""
        shape = list(self.specs[value].shape)
        shape[axis] = size
        return self.put(
            "Slice", name, value, *(self.whole(f"{name}.{what}", n) for what, n in (("from", start), ("to", end), ("axis", axis))), shape=shape
        )

    def history(self, node: Node, value: str, n: int, fill: float = 0.0) -> str:
        """A state that holds the n entries before the chunk's, `fill` where there are none yet; returns them and the chunk, one behind the other."""
        track, spec, axis = self.tracks[value], self.specs[value], self.tracks[value].axis
        self.single(node, track)
        shape = [n if k == axis else d for k, d in enumerate(spec.shape)]
        if any(isinstance(d, str) for d in shape):
            raise refuse(node, f"the shape of what it keeps of earlier steps, {tuple(shape)}, is not known before it runs")
        name = self.state(f"{node.name}.past", spec.dtype, shape)
        if track.lead and not track.edge:
            self.initial[name] = self._prefix(node, value, min(n, track.lead), fill)
        elif fill:
            self.initial[name] = np.full((1,) * len(shape), fill, spec.dtype)
        past = self._started(node, value, name, shape) if track.edge else name
        full = self.put("Concat", f"{name}.full", past, value, shape=[ANY_DIM if k == axis else d for k, d in enumerate(shape)], axis=axis)
        following = self.cut(f"{name}.next", full, axis, -n, OPEN_END, n)
        self.tie(name, following)
        return full

    def state(self, name: str, dtype: str, shape, history: bool = True) -> str:
        """Adds an input that a stream keeps; returns its name, with marks behind it where that, or that with .next, is taken."""
        name = fresh(name, self._taken, ".next")
        self._taken.add(name)
        self.inputs.append(Value(name, dtype, tuple(shape)))
        self.specs[name] = Spec(dtype, tuple(shape))
        if history:
            self.histories.add(name)
        return name

    def tie(self, name: str, following: str) -> None:
        """Makes a value what a state is at the next step."""
        self.outputs.append(following)
        self.states.append(State(name, following))

    def _started(self, node: Node, value: str, past: str, shape) -> str:
        """The history, or copies of the first entry where no step was taken yet: a row of a batch may be reset alone."""
        axis = self.tracks[value].axis
        one = [1 if k == axis else d for k, d in enumerate(shape)]
        started = self.state(f"{node.name}.started", "bool", one)
        either = self.put("Concat", f"{started}.either", value, past, shape=[ANY_DIM if k == axis else d for k, d in enumerate(shape)], axis=axis)
        first = self.cut(f"{started}.first", either, axis, 0, 1, 1)  # of no steps at all, anything: nothing reads it
        size = self.cut(f"{started}.size", self.put("Shape", f"{started}.shape", value, shape=(len(shape),), dtype="int64"), 0, axis, axis + 1, 1)
        some = self.put("Greater", f"{started}.some", size, self.whole(f"{started}.none", 0), shape=(1,), dtype="bool")
        self.tie(started, self.put("Or", f"{started}.next", started, some, shape=one))
        return self.put("Where", f"{past}.filled", started, past, first, shape=shape, dtype=self.specs[value].dtype)

    def _prefix(self, node: Node, value: str, n: int, fill: float) -> Prefix:
        """What computes the entries of a value before step 0."""
        return Prefix(
            self.before(node, value),
            max(1, *(-track.tail for track in self.tracks.values())),
            self.tracks[value].axis,
            self.tracks[value].lead,
            n,
            fill,
        )

    def before(self, node: Node, value: str) -> Model:
        """The part of the model that a value, which the node reads, depends on, as a model."""
        nodes, needed = live(list(self.model.nodes), {value})
        if tied := needed & self.tied:
            raise refuse(node, f"what it reads before the first step depends on the state {min(tied)!r}")
        weights = {name: a for name, a in self.model.weights.items() if name in needed}
        return changed(self.model, nodes=nodes, weights=weights, output_names=(value,), states=())

    def align(self, value: str) -> str:
        """The value delayed so that its entries and steps have the same numbers: entry t comes with step t."""
        track = self.tracks[value]
        if not track.lead:
            return value
        if value not in self._aligned:
            full = self.history(self.producer[value], value, track.lead)
            self._aligned[value] = aligned = self.cut(f"{value}.aligned", full, track.axis, 0, -track.lead, self.time)
            self.tracks[aligned] = Track(track.axis, 0, track.tail + track.lead)
        return self._aligned[value]

    # Ops.

    def _untimed(self, node: Node) -> None:
        """A node that reads nothing along time, though maybe the number of steps."""
        if not any(name in self.lengths for name in node.inputs):
            return self.add(node)
        if node.op in ("ConstantOfShape", "Expand"):
            target = self.lengths.get(node.inputs[-1])
            places = [] if target is None else [k for k, n in enumerate(target) if isinstance(n, Length)]
            if len(places) == 1 and (target[places[0]].rows == 1 or not target[places[0]].more):
                return self.add(node, Track(places[0], 0, target[places[0]].more, rows=target[places[0]].rows))
        if node.op not in (*MOVING, "Add", "Sub", "Mul", "Shape"):
            raise refuse(node, "it depends on the number of steps")
        arrays = [None if not n else self.lengths.get(n, self.specs[n].constant) for n in node.inputs]
        if any(n and a is None for n, a in zip(node.inputs, arrays)):
            raise refuse(node, "it depends on the number of steps")
        arrays = [a if a is None else np.asarray(a, object if n in self.lengths else a.dtype) for n, a in zip(node.inputs, arrays)]
        try:
            results = evaluate(replace(node, op="Identity") if node.op == "Cast" else node, arrays)
        except InvalidModelError as error:  # two lengths of which neither gives a length, added or multiplied
            raise refuse(node, "it depends on the number of steps") from error
        self.add(node)
        self.lengths |= {
            name: np.asarray(a, object) for name, a in zip(node.outputs, results) if name and any(isinstance(n, Length) for n in np.ravel(a))
        }

    def apart(self, node: Node) -> None:
        """An op that keeps steps apart. What it joins is brought to the same steps first."""
        tracks = {name: self.tracks[name] for name in node.inputs if name in self.tracks}
        if len({(t.lead, t.edge) for t in tracks.values()}) > 1:
            node = replace(node, inputs=tuple(self.align(name) if name in tracks else name for name in node.inputs))
            tracks = {name: self.tracks[name] for name in node.inputs if name in self.tracks}
        first, tails = next(iter(tracks.values())), {(t.tail, formula(t.rows), formula(t.each)) for t in tracks.values()}
        specs = [self.specs.get(name) if name else None for name in node.inputs]
        axes = [tracks[name].axis if name in tracks else None for name in node.inputs]
        keeps = OPS[node.op].apart
        if any(name in self.lengths for name in node.inputs[: 1 if node.op == "Expand" else None]):
            raise refuse(node, "it depends on the number of steps")
        if len(tails) > 1:
            raise refuse(node, "it joins sequences of different lengths")
        if keeps is None or not keeps(node, specs, axes):
            raise refuse(node, _why(node, specs, axes))
        results = infer_node(node, specs)
        size = self.size(first)
        if any(r is None or r.shape is None or r.shape.count(size) != 1 for r, name in zip(results, node.outputs) if name):
            raise refuse(node, "it mixes time steps, or moves the time axis")
        self.add(node)
        self.tracks |= {name: replace(first, axis=r.shape.index(size)) for r, name in zip(results, node.outputs) if name}

    def constant(self, name: str) -> bool:
        """Whether a value depends on nothing but constants and the batch's size."""
        if name in self.weights:
            return True
        maker = self.producer.get(name)
        return maker is not None and name not in self.lengths and not maker.subgraphs and all(self.constant(n) for n in maker.inputs if n)

    def source(self, name: str) -> str:
        """The value that `name` is a view of."""
        while name not in self.tied and name in self.producer and self.producer[name].op in VIEWS:
            name = self.producer[name].inputs[0]
        return name


def _why(node: Node, specs, axes) -> str:
    """Why an op cannot be stepped."""
    if node.op.startswith("Reduce"):
        return "it reduces over time: it needs the whole sequence"
    if node.op in ("Softmax", "LogSoftmax", "LayerNormalization"):
        return "it normalises over time: it needs the whole sequence"
    if node.op in ("MatMul", "Gemm"):
        return "it mixes time steps, as attention over time does: it needs the whole sequence"
    if node.op in ("Gather", "Split", "ScatterND"):
        return "it picks single time steps, or mixes them"
    return "it mixes time steps, or moves the time axis"
