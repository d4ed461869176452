"""explain(shapes) names the kernels of the program that runs; what route.py says without shapes is what does the work.

The former holds for every program that a session makes in any test (conftest.py); here for what each op can be, and for routes.
"""

import itertools

import numpy as np
import pytest
from common_rows import COMMON
from foreign_rows import FOREIGN_ROWS
from more_rows import MORE

import fastrnn as fr
from fastrnn.model import Model, Node, Value
from fastrnn.model.graph import every_node
from fastrnn.model.ops import Spec
from fastrnn.plan import build_program
from fastrnn.plan.lowering.fuse import Fused, fuse
from fastrnn.plan.route import route
from fastrnn.plan.specialise import program_for
from fastrnn.testing import LAYERS, OPTIONS, TRAP_SHAPES, Case, kernels_called, kernels_said

COPIES = {"copy8", "copy16", "copy32", "copy64"}
INSTEAD = {*COPIES, "chain", "windows"}  # of an op's own kernel where there is nothing to reduce or to choose among, or rows lie as windows
# Sizes of each file's symbols, twice where they are free.
FILES = {
    "silero-vad/silero_vad_16k_op15": [{"batch": 1, "sequence": 576}, {"batch": 3, "sequence": 576}],
    "gtcrn/gtcrn_simple": [{}],
    "dtln/model_1": [{}],
    "dtln-pytorch/model_p1": [{}],
    "dtln-pytorch/model_p2": [{}],
    "pose-gru/gru_model": [{"batch_size": 1, "sequence_length": 9}, {"batch_size": 3, "sequence_length": 40}],
    "tract-bidi-lstm/model": [{"batch": 1, "length": 9}, {"batch": 3, "length": 40}],
    "cmapss-lstm/lstm_model": [{"unk__130": 1}, {"unk__130": 3}],
    "earthpulse/lstm_model": [{"unk__143": 1}, {"unk__143": 3}],
    "speechmos/Run_1663829550_Stage_0": [{"batch_size": 1, "frames": 900}],
    "ppocr/ch_PP-OCRv2_rec_infer": [{"x_dim_0": 1, "x_dim_2": 32, "x_dim_3": 64}, {"x_dim_0": 2, "x_dim_2": 32, "x_dim_3": 100}],
}


def told(session, shapes):
    """The kernels by node, the same from explain and from the program; and each route's own kernel among them."""
    called = kernels_called(session, shapes)
    assert kernels_said(session, shapes) == called
    plan, (model, _) = session.plan, program_for(session.plan, shapes)
    for node, _ in every_node(fuse(model).nodes):
        node = node.head or node if isinstance(node, Fused) else node
        found = route(node, model.specs, model.weights, plan.backend)
        if found.way == "numpy":
            assert "NumPy" in called[node.name]
        kernels = called.get(node.name, set())
        own = {p.kernel.name for p in plan.packed_for(node, model.weights)} if found.packs else {found.kernel.name} if found.kernel else set()
        assert not kernels or not own or own <= kernels or kernels <= INSTEAD, (node, own, kernels)
        assert found.way not in ("view", "copy") or kernels <= COPIES
    return called


def test_rows_of_single_ops():
    for row in COMMON + MORE + FOREIGN_ROWS:
        for turned in (False, True):
            session = fr.compile(fr.from_onnx(row.model(turned)))
            told(session, {name: a.shape for name, a in row.feed(turned).items()})


@pytest.mark.parametrize("file", FILES)
def test_real_files(shared, file):
    session = fr.compile(fr.from_onnx(shared / "models" / f"{file}.onnx"))
    for sizes in FILES[file]:
        assert told(session, {v.name: tuple(sizes.get(d, d) for d in v.shape) for v in session.model.inputs})


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("kind", LAYERS)
def test_layers(kind, threads):
    """Each of the trap shapes, and each of the options at one of those where they fit."""
    roomy = itertools.cycle(s for s in TRAP_SHAPES.values() if s.H > 3)
    for shape, options in [*((s, {}) for s in TRAP_SHAPES.values()), *zip(roomy, OPTIONS[kind].values())]:
        case = Case(kind, shape, options)
        shapes = {"x": case.x.shape, **{f"{n}0": s.shape for n, s in zip("hc", case.states)}}
        told(case.layer(threads=threads)._session, shapes | ({} if case.lengths is None else {"lengths": case.lengths.shape}))


def test_entries_that_are_moved_by_their_size():
    """Without shapes too: what copies integers of 64 bits is not what copies floats."""
    x = Value("x", "int64", ("B", 3))
    nodes = (Node("Concat", "joined", ("x", "x"), ("y",), {"axis": 1}), Node("Pad", "padded", ("y", "widths"), ("z",)))
    session = fr.compile(Model((x,), ("y", "z"), nodes, {"widths": np.array([0, 1, 0, 1])}))
    assert all(row[2] == "copy64" for row in session.plan.rows())
    assert told(session, {"x": (2, 3)}) == {"joined": {"copy64"}, "padded": {"copy64"}}


def test_a_view_that_strides_cannot_say_is_a_copy():
    model = Model((Value("x", "float32", ("T", "B", 4)),), ("y",), (
        Node("Transpose", "turned", ("x",), ("t",), {"perm": (1, 0, 2)}), Node("Reshape", "flat", ("t", "shape"), ("f",)), Node("Relu", "relu", ("f",), ("y",))), {"shape": np.array([-1])})  # fmt: skip
    session = fr.compile(model)
    assert "a view" in session.explain() and "strides cannot say it: copied" in session.explain({"x": (2, 3, 4)})
    assert told(session, {"x": (2, 3, 4)}) == {"flat": {"copy32"}, "relu": {"chain"}}
    assert told(session, {"x": (2, 1, 4)}) == {"relu": {"chain"}}


def test_an_output_that_no_node_makes():
    session = fr.compile(Model((Value("x", "float32", (2,)),), ("w", "x"), (), {"w": np.ones(3, np.float32)}))
    assert told(session, {"x": (2,)}) == {"w": {"copy32"}, "x": {"copy32"}}


def test_optional_inputs_that_are_not_named_are_left_out():
    """And sizes that the others share with those that are."""
    layer = fr.GRU(4, 5, num_layers=2, seed=0)
    said = told(layer._session, {"x": (6, 2, 4)})
    assert len(said) == 2 and all("gru" in kernels and "sort_lengths_int64" not in kernels for kernels in said.values())
    with_lengths = told(layer._session, {"x": (6, 2, 4), "lengths": (2,)})
    assert sum("sort_lengths_int64" in kernels for kernels in with_lengths.values()) == 1
    rows = layer._session.plan.rows({"x": (6, 2, 4), "lengths": ("B",)})  # a symbol left: what is decided so far
    assert [row[2] for row in rows if row[0] == "GRU"] == ["gru", "gru"]
    model = Model(
        (Value("x", "float32", ("B", 3)), Value("z", "float32", ("B", 3))), ("y",), (Node("Concat", "c", ("x", "z"), ("y",), {"axis": 0}),), {}
    )
    assert fr.compile(model).plan.rows({"x": (2, 3)})[0][2] == "copy32" and told(fr.compile(model), {"x": (2, 3), "z": (2, 3)}) == {"c": {"copy32"}}


def test_a_registered_kernel_is_said_and_called(monkeypatch):
    """Where another backend has a kernel of a name, both take it."""
    from dataclasses import replace

    from fastrnn.kernels import isa, registry

    native = registry.find("softmax", "native", isa.chosen())
    other = replace(native, backend="jit")
    registry.register(other)
    try:
        model = Model((Value("x", "float32", ("B", 3)),), ("y",), (Node("Softmax", "s", ("x",), ("y",)),), {})
        session = fr.compile(model, backend="jit")
        step = build_program(session.plan, session.plan.specialised({"x": (2, 3)})).steps[0]
        assert step.kernel is other and session.plan.rows()[0][3] == session.plan.rows({"x": (2, 3)})[0][3] == "jit"
    finally:
        registry.unregister(other)


@pytest.mark.parametrize(
    "op,attributes",
    [
        ("ReduceMean", {}),
        ("ReduceSum", {}),
        ("ReduceMax", {}),
        ("Relu", {}),
        ("Cast", {"to": "int64"}),
        ("Cast", {"to": "float32"}),
        ("Softmax", {}),
        ("Neg", {}),
    ],
)
def test_a_dtype_that_is_not_known_yet_is_the_reason(op, attributes):
    """Of what a branch makes, for one."""
    found = route(Node(op, "n", ("x",), ("y",), attributes), {"x": Spec("", None), "y": Spec("", None)}, {}, "native")
    assert found.way == "kernel" and found.why == "by the dtype, which the shapes in use make known"
