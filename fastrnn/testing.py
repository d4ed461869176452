"""What tests and benchmarks share: trap shapes, drawn configurations, the float64 oracle, and the one tolerance table."""

from __future__ import annotations

import importlib.util
import math
from dataclasses import dataclass, field

import numpy as np

from fastrnn.cells import maths
from fastrnn.cells.activations import RECURRENT_ACTIVATIONS, Activation
from fastrnn.cells.builtin import DEFAULT_ACTIVATIONS, GATES
from fastrnn.kernels import isa
from fastrnn.kernels.jit import compiler
from fastrnn.kernels.native import _invoke
from fastrnn.kernels.reference import evaluate
from fastrnn.kernels.registry import find
from fastrnn.model import Model, Node, Value
from fastrnn.model.stack import stack_model
from fastrnn.plan.emit.emitter import new_args
from fastrnn.plan.lowering.chain import Chain
from fastrnn.plan.lowering.layout import OPERANDS
from fastrnn.plan.program import KernelStep, Program, PythonStep
from fastrnn.plan.specialise import program_for
from fastrnn.runtime.layers import GRU, LSTM, RNN, RecurrentLayer

TINY = float(np.finfo(np.float32).tiny)
LAYERS = {"rnn": RNN, "lstm": LSTM, "gru": GRU}
EPS = float(np.finfo(np.float32).eps)
JIT_ISAS = tuple(name for name in isa.supported() if name in compiler.ISAS and importlib.util.find_spec("numba"))  # that cells are compiled for here


@dataclass(frozen=True)
class Shape:
    """Sizes of one call; lengths None, or drawn."""

    T: int
    B: int
    I: int
    H: int
    ragged: bool = False
    lengths: tuple[int, ...] | None = None


# Shapes that catch what round numbers hide. 16 and 8 are the lanes of a vector; tiles take 1 to 6 rows. Few rests of H by 16, since cells are compiled for each.
TRAP_SHAPES = {
    "one": Shape(1, 1, 1, 1),
    "tail": Shape(5, 3, 7, 17),
    "prime": Shape(11, 5, 13, 37),
    "I_ne_H": Shape(4, 2, 40, 8),
    "whole": Shape(6, 4, 16, 32),
    "empty_T": Shape(0, 3, 4, 5),
    "empty_B": Shape(3, 0, 4, 5),
    "zero_length_row": Shape(6, 4, 3, 5, lengths=(3, 0, 6, 1)),
    "all_zero_lengths": Shape(4, 2, 3, 5, lengths=(0, 0)),
    "ragged": Shape(19, 7, 9, 24, ragged=True),
    "wide": Shape(3, 33, 10, 29),
    "long": Shape(70, 1, 12, 16),
}

BOUNDED = ("sigmoid", "tanh", "hardsigmoid", "softsign")

# Options of each kind beyond the defaults, by name; every one runs compiled.
OPTIONS: dict[str, dict[str, dict]] = {
    "rnn": {"default": {}, "relu": {"nonlinearity": "relu"}},
    "gru": {"default": {}, "before": {"reset_after": False}, "before_clip": {"reset_after": False, "clip": 0.3}},
    "lstm": {
        "default": {},
        "peepholes": {"peepholes": True},
        "input_forget": {"input_forget": True},
        "proj": {"proj_size": 3},
        "all": {"peepholes": True, "input_forget": True, "clip": 0.5, "proj_size": 4},
    },
}
for _kind, _options in OPTIONS.items():
    _options |= {"clip": {"clip": 0.4}, "no_bias": {"bias": False}, "reverse": {"reverse": True}, "bidirectional": {"bidirectional": True},
                 "stack": {"num_layers": 3}, "batch_first": {"batch_first": True}, "stack_bidirectional": {"num_layers": 2, "bidirectional": True}}  # fmt: skip
    _gate = [] if _kind == "rnn" else ["sigmoid"]
    for _name in RECURRENT_ACTIVATIONS:
        # An unbounded gate makes the recurrence diverge, so those stand where the candidate and the output are.
        _rest = len(DEFAULT_ACTIVATIONS[_kind]) - len(_gate)
        _options[_name] = {"activations": (*([_name] if _name in BOUNDED and _gate else _gate), *(_name,) * _rest)}
    _options["parameters"] = {
        "activations": (("hardsigmoid", {"alpha": 0.3, "beta": 0.4}), ("scaledtanh", {"alpha": 0.8, "beta": 0.7}), ("leakyrelu", {"alpha": 0.2}))[
            : len(DEFAULT_ACTIVATIONS[_kind])
        ]
    }
    _options["two_directions"] = {
        "bidirectional": True,
        "activations": (DEFAULT_ACTIVATIONS[_kind], (*_gate, *("softsign",) * (len(DEFAULT_ACTIVATIONS[_kind]) - len(_gate)))),
    }


@dataclass
class Case:
    """A layer with random parameters, and inputs for one call."""

    kind: str
    shape: Shape
    options: dict = field(default_factory=dict)
    seed: int = 0

    def __post_init__(self):
        s, random = self.shape, np.random.default_rng(self.seed)
        o = self.layer("reference").options
        time_major = (s.T, s.B, s.I)
        self.x = random.standard_normal((s.B, s.T, s.I) if o.batch_first else time_major).astype(np.float32)
        rows = o.num_layers * o.directions
        sizes = (o.output_size, s.H)[: len(o.states)]
        self.states = tuple(random.uniform(-1, 1, (rows, s.B, n)).astype(np.float32) for n in sizes)
        self.lengths = np.array(s.lengths) if s.lengths is not None else random.integers(0, s.T + 1, s.B) if s.ragged else None

    def layer(self, backend: str = "native", threads: int = 1) -> RecurrentLayer:
        """The layer; the same parameters at every call."""
        return LAYERS[self.kind](self.shape.I, self.shape.H, seed=self.seed, backend=backend, threads=threads, **self.options)

    @property
    def state(self):
        """States as the layer takes them."""
        return self.states if len(self.states) == 2 else self.states[0]

    def run(self, layer: RecurrentLayer) -> list[np.ndarray]:
        """[y, h_n] or [y, h_n, c_n]."""
        y, final = layer(self.x, self.state, self.lengths)
        return [y, *(final if isinstance(final, tuple) else (final,))]

    def reference(self) -> list[np.ndarray]:
        """The same in float64."""
        layer = self.layer("reference")
        model = stack_model(layer.options, layer.state_dict(), self.kind, with_lengths=True)
        inputs = {"x": self.x, "lengths": self.lengths, **{f"{n}0": s for n, s in zip("hc", self.states)}}
        return list(evaluate(model, inputs).values())

    def tolerance(self, reference: np.ndarray) -> float:
        """Largest error allowed against float64; see TOLERANCES["parity"]."""
        o = self.layer("reference").options
        K = max(self.shape.I, o.output_size * o.directions) + o.output_size
        scale = max(1.0, float(np.abs(reference).max(initial=0.0)))
        return TOLERANCES["parity"](K, max(self.shape.T, 1), o.num_layers) * scale

    def __str__(self):
        return f"{self.kind} {self.shape} {self.options} seed={self.seed}"


TOLERANCES = {
    # Float32 rounding of one FMA chain of K terms, carried over T contracting steps: the bound that RELIABILITY promises.
    "parity": lambda K, T, layers: (16 + 4 * math.ceil(math.log2(max(2, K * T)))) * layers * EPS,
    # Against another engine in float32, relative to the largest output: both sides round, in different orders.
    "engine": 5e-6,
    # A whole network with norms, attention and several layers against another engine in float32, relative to an output's largest entry.
    "network": 2e-5,
    # Bounds of the numerics promise, over every float32 input.
    "tanh_ulp": 5.0,
    "sigmoid_ulp": 5.0,
    "sigmoid_absolute": 2.0**-22,
    "exp_ulp": 2.0,
}


def draw_case(random: np.random.Generator) -> Case:
    """A random configuration: kind, sizes, options, lengths."""
    kind = str(random.choice(["rnn", "gru", "lstm"]))
    shape = Shape(
        int(random.integers(1, 25)),
        int(random.integers(1, 10)),
        int(random.integers(1, 50)),
        int(random.integers(1, 70)),
        ragged=bool(random.random() < 0.4),
    )
    options: dict = {
        "num_layers": int(random.choice([1, 1, 1, 2, 3])),
        "bias": bool(random.random() < 0.8),
        "batch_first": bool(random.random() < 0.3),
    }
    direction = random.choice(["forward", "bidirectional", "reverse"], p=[0.5, 0.3, 0.2])
    if direction != "forward":
        options[str(direction)] = True
    if random.random() < 0.2:
        options["clip"] = float(random.uniform(0.2, 3.0))
    if random.random() < 0.25:
        options["activations"] = tuple(str(random.choice(BOUNDED)) for _ in DEFAULT_ACTIVATIONS[kind])
    if kind == "gru":
        options["reset_after"] = bool(random.random() < 0.5)
    if kind == "rnn" and "activations" not in options and random.random() < 0.3:
        options["nonlinearity"] = "relu"
    if kind == "lstm":
        options["peepholes"], options["input_forget"] = bool(random.random() < 0.3), bool(random.random() < 0.2)
        if shape.H > 1 and random.random() < 0.3:
            options["proj_size"] = int(random.integers(1, shape.H))
    return Case(kind, shape, options, seed=int(random.integers(1 << 30)))


EXACT = {name: getattr(maths, name) for name in ("tanh", "sigmoid", "exp")}


def activate(isa_name: str, activation: Activation, x) -> np.ndarray:
    """The compiled activation over a vector (n,), float32."""
    chain = Chain({})
    chain.map(activation, chain.operand("x"))
    return run_chain(isa_name, chain, x)


def run_chain(isa_name: str, chain: Chain, *operands) -> np.ndarray:
    """A program over vectors (n,), float32, on one instruction set."""
    arrays = [np.ascontiguousarray(x, np.float32) for x in operands]
    y, program = np.empty(len(arrays[0]), np.float32), chain.instructions()
    axes = np.concatenate([np.array([len(y), *(1,) * (1 + len(arrays))], np.int64), program.view(np.int64)])
    pointers = {pointer: array.ctypes.data for pointer, array in zip(OPERANDS, arrays)}
    args = new_args(T=1, I=len(arrays), H=len(program), y=y.ctypes.data, axes=axes.ctypes.data, **pointers).record()
    _invoke.run(find("chain", "native", isa_name).run, args)
    return y


def activation_errors(got: np.ndarray, x: np.ndarray, exact) -> tuple[np.ndarray, np.ndarray]:
    """Absolute and ulp errors of float32 results against a float64 function; NaN-free x.

    Subnormal inputs and results count as zero of their sign. Raises AssertionError where an overflow is not +inf.
    """
    wide = np.where(np.abs(x) < TINY, 0.0, x.astype(np.float64))
    with np.errstate(over="ignore", under="ignore"):
        want = exact(wide)
        rounded = np.abs(want.astype(np.float32))
    finite = np.isfinite(rounded)
    if not np.isposinf(got[~finite]).all():
        raise AssertionError("an overflow is not +inf")
    below = (np.abs(want) < TINY) & (np.abs(got) < TINY)
    ulp = np.spacing(np.maximum(rounded, np.float32(TINY)), where=finite, out=np.ones_like(rounded))
    absolute = np.where(finite & ~below, np.abs(np.where(finite, got, 0).astype(np.float64) - np.where(finite, want, 0)), 0.0)
    return absolute, absolute / ulp


def kernels_said(session, shapes) -> dict[str, set[str]]:
    """The kernels of each node that runs any, as explain(shapes) names them. Checks that there, and without shapes, each row that NumPy or nothing runs has a
    reason, and one that names what it is about."""
    said: dict[str, set[str]] = {}
    for row in (*session.plan.rows(), *session.plan.rows(shapes)):
        parts = [part.strip() for part in row[-1].split(";")]
        assert row[3] not in ("reference", "-") and parts == [""] or all(parts) and not any(p.endswith(" for") or "  " in p for p in parts), row
    for _, label, kernels, *_ in session.plan.rows(shapes):
        said.setdefault(label.strip().removesuffix(" (reverse)"), set()).update(set(kernels.split(", ")) - {"-"})
    return {name: kernels for name, kernels in said.items() if kernels}


def kernels_called(session, shapes) -> dict[str, set[str]]:
    """The same, by the steps of the program for these shapes; of NumPy's steps "NumPy", but for those that lay weights out."""
    return kernels_of(program_for(session.plan, shapes)[1])


def kernels_of(program: Program) -> dict[str, set[str]]:
    """The same of a program."""
    called: dict[str, set[str]] = {}
    for step in program.steps:
        if isinstance(step, KernelStep) or isinstance(step, PythonStep) and not step.packs:
            called.setdefault(step.node, set()).add(step.kernel.name if isinstance(step, KernelStep) else "NumPy")
    return called


# Ways to write a causal convolution: pads of its own, a Pad in front (of zeros, a value, copies of the first step, or more than it needs), both
# sides padded and the end cut off, zeros joined in front.
CAUSAL = ("pads", "pad", "chomp", "zeros", "edge", "value", "more")


class Net:
    """A model (B, C, T) -> (B, channels, T) that grows op by op, with weights of its own. Each method takes a value and gives one."""

    def __init__(self, channels, seed=0):
        self.nodes, self.weights, self.random, self.channels = [], {}, np.random.default_rng(seed), channels
        self.inputs = (Value("x", "float32", ("B", channels, "T")),)

    def weight(self, array):
        name = f"w{len(self.weights)}"
        self.weights[name] = np.asarray(array)
        return name

    def draw(self, *shape):
        return self.weight(self.random.uniform(-0.5, 0.5, shape).astype(np.float32))

    def add(self, op, *inputs, **attributes):
        name = f"{op.lower()}{len(self.nodes)}"
        self.nodes.append(Node(op, name, inputs, (name,), attributes))
        return name

    def conv(self, x, kernel=3, units=None, dilation=1, group=1, pads=(0, 0)):
        units = units or self.channels
        w = self.draw(units, self.channels // group, kernel)
        self.channels = units
        return self.add("Conv", x, w, self.draw(units), dilations=[dilation], group=group, pads=list(pads))

    def pad(self, x, before, after=0, mode="constant", value=0.0):
        return self.add("Pad", x, self.weight(np.array([0, 0, before, 0, 0, after])), self.weight(np.float32(value)), mode=mode)

    def cut(self, x, start, end):
        return self.add("Slice", x, *(self.weight(np.array([n])) for n in (start, end, 2)))

    def causal(self, x, style, kernel=3, dilation=1, **options):
        """A causal convolution in one of the ways that people write it, see CAUSAL."""
        reach = (kernel - 1) * dilation
        options |= {"kernel": kernel, "dilation": dilation}
        if style == "pads":
            return self.conv(x, pads=(reach, 0), **options)
        if style == "chomp":
            y = self.conv(x, pads=(reach, reach), **options)
            return self.cut(y, 0, -reach) if reach else y
        if style == "zeros":
            batch = self.add("Gather", self.add("Shape", x), self.weight(np.array([0])))
            shape = self.add("Concat", batch, self.weight(np.array([self.channels, reach])), axis=0)
            return self.conv(self.add("Concat", self.add("ConstantOfShape", shape), x, axis=2), **options)
        if style == "more":  # padded further back than it looks
            return self.cut(self.conv(self.pad(x, reach + 2), **options), 0, -2)
        return self.conv(self.pad(x, reach, mode="edge" if style == "edge" else "constant", value=0.25 if style == "value" else 0.0), **options)

    def delay(self, x, n):
        return self.cut(self.pad(x, n), 0, -n)

    def recurrent(self, x, kind="GRU", H=4):
        gates, flipped = GATES[kind.lower()], self.add("Transpose", x, perm=(2, 0, 1))
        w, r = self.draw(1, gates * H, self.channels), self.draw(1, gates * H, H)
        name = f"{kind.lower()}{len(self.nodes)}"
        self.nodes.append(Node(kind, name, (flipped, w, r), (name,), {"torch_form": 1, "hidden_size": H}))
        self.channels = H
        return self.add("Transpose", name, perm=(1, 2, 0))

    def model(self, x):
        self.nodes.append(Node("Identity", "end", (x,), ("y",)))
        return Model(self.inputs, ("y",), tuple(self.nodes), self.weights)


class FakeClock:
    """Stands for the module `time`: work takes the seconds it is said to, but for pieces of it that are interrupted.

    interrupted: {number of a piece: seconds that another process has the core meanwhile}.
    """

    def __init__(self, interrupted: dict[int, float]):
        self.now, self.pieces, self._interrupted = 0.0, 0, interrupted

    def work(self, seconds: float) -> None:
        """A piece of work."""
        self.now += seconds + self._interrupted.get(self.pieces, 0.0)
        self.pieces += 1

    def perf_counter(self) -> float:
        """Seconds of wall time."""
        return self.now

    process_time = perf_counter

    def perf_counter_ns(self) -> int:
        """Nanoseconds of wall time."""
        return round(self.now * 1e9)
