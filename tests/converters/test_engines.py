"""Other engines behind their interface: the same answers, states carried, refusals by name."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import fastrnn as fr
from fastrnn.converters.engines import ENGINES, engine_for
from fastrnn.converters.engines.torch_engine import TorchEngine
from fastrnn.kernels.reference import evaluate
from fastrnn.model import Node, Value
from fastrnn.model.stack import stack_model
from fastrnn.testing import LAYERS, OPTIONS

CHARACTERS = Path(__file__).parents[2] / "examples/characters"
ONNX = CHARACTERS / "char_gru.onnx"


def close(got, want):
    return got.shape == want.shape and np.abs(got - want).max(initial=0) <= 2e-6 * max(1, np.abs(want).max(initial=0))


@pytest.mark.parametrize("name", [name for name, (_, _, reads) in ENGINES.items() if not reads or ".onnx" in reads])
def test_engines_agree_and_carry_states(name):
    if name == "torch":
        pytest.importorskip("torch")
    model = fr.load(ONNX)
    session = fr.compile(model, states={"h": "h_n"})
    engine = engine_for(ONNX, model, name)
    tokens, h = np.random.default_rng(0).integers(0, 97, (5, 2)), np.zeros((1, 2, 128), np.float32)
    wanted = session.run({"tokens": tokens, "h": h})
    for output, got in engine({"tokens": tokens, "h": h}).items():
        assert close(got, wanted[output]), (name, output)
    step, stream = engine.stepper({"tokens": tokens[:1], "h": h}, session.model.states), session.stream(2)
    for _ in range(4):
        y, mine = engine.array(step()[0]), stream.step(tokens[0])
        assert close(y[0], mine)


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_files_that_others_cannot_read_are_refused(name):
    with pytest.raises(fr.UnsupportedModelError, match="onnx files only"):
        engine_for(CHARACTERS / "char_gru.safetensors", fr.load(CHARACTERS / "char_gru.safetensors"), name)
    with pytest.raises(fr.UnsupportedModelError, match="unknown"):
        engine_for(ONNX, fr.load(ONNX), "abacus")


@pytest.mark.parametrize("package,extra", [("onnxruntime", "cli"), ("openvino", "bench"), ("torch", "torch")])
def test_missing_packages_are_named(package, extra):
    code = f"import sys; sys.modules[{package!r}] = None; from fastrnn.cli import main; sys.exit(main(['bench', {str(ONNX)!r}, '--json', '--against', {package!r}]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd="/")
    assert done.returncode == 4 and f"fastrnn[{extra}]" in done.stderr


@pytest.mark.parametrize(
    "kind,name",
    [
        (kind, name)
        for kind in OPTIONS
        for name in ("default", "relu", "proj", "no_bias", "reverse", "bidirectional", "batch_first", "stack_bidirectional")
        if name in OPTIONS[kind]
    ],
)
@pytest.mark.parametrize("with_states", [True, False])
@pytest.mark.usefixtures("needs_torch")
def test_torch_runs_recurrent_layers(kind, name, with_states):
    options = OPTIONS[kind][name]
    if name == "relu" and "activations" in options:
        options = {"nonlinearity": "relu"} if kind == "rnn" else {}
    layer = LAYERS[kind](7, 9, seed=0, **options)
    model, random, o = stack_model(layer.options, layer.state_dict(), kind), np.random.default_rng(1), layer.options
    inputs = {"x": random.standard_normal((3, 4, 7)).astype(np.float32)}
    batch = 3 if o.batch_first else 4
    if with_states:
        inputs |= {
            f"{s}0": random.standard_normal((o.num_layers * o.directions, batch, n)).astype(np.float32) for s, n in zip(o.states, (o.output_size, 9))
        }
    wanted = evaluate(model, inputs)
    assert all(close(got, wanted[output]) for output, got in TorchEngine("", model)(inputs).items())


@pytest.mark.parametrize(
    "kind,options,message",
    [
        ("lstm", {"clip": 0.5}, "clip"),
        ("lstm", {"peepholes": True}, "P has no form"),
        ("gru", {"reset_after": False}, "linear_before_reset"),
        ("rnn", {"activations": ("softsign",)}, "activations"),
    ],
)
@pytest.mark.usefixtures("needs_torch")
def test_torch_refuses_what_it_lacks(kind, options, message):
    layer = LAYERS[kind](3, 4, **options)
    engine = TorchEngine("", stack_model(layer.options, layer.state_dict(), kind))
    with pytest.raises(fr.UnsupportedModelError, match=message):
        engine({"x": np.zeros((2, 1, 3), np.float32)})


F, I = np.float32, np.int64
OPS = [  # op, attributes, shapes of float inputs, further constants
    *((op, {}, [(2, 3, 4)], []) for op in ("Relu", "Sigmoid", "Tanh", "Softsign", "Softplus", "Exp", "Erf", "Sin", "Floor", "Round", "Neg", "Abs", "Silu", "Gelu", "LeakyRelu", "Elu",
                                           "ThresholdedRelu", "HardSigmoid", "LogSoftmax", "Softmax", "Transpose", "Identity")),
    *((op, {}, [(2, 3, 4), (3, 1)], []) for op in ("Add", "Sub", "Mul", "Div", "PRelu", "Min", "Max", "Sum", "Mean")),
    ("Gelu", {"approximate": "tanh"}, [(2, 3)], []), ("Cast", {"to": "int32"}, [(2, 3)], []), ("Mod", {"fmod": 1}, [(2, 3), (3,)], []),
    ("Clip", {}, [(2, 3)], [F(-0.2), F(0.3)]), ("MatMul", {}, [(2, 3, 4), (4, 5)], []), ("Gemm", {"transB": 1}, [(2, 4), (5, 4), (5,)], []),
    ("Gemm", {"transA": 1, "alpha": 0.5, "beta": 2.0}, [(4, 2), (4, 5), (2, 5)], []), ("Reshape", {}, [(2, 3, 4)], [I([3, -1])]), ("Flatten", {}, [(2, 3, 4)], []),
    ("Unsqueeze", {}, [(2, 3)], [I([1])]), ("Squeeze", {}, [(2, 1, 3)], [I([1])]), ("Slice", {}, [(4, 5)], [I([1, -1]), I([4, -6]), I([0, 1]), I([2, -1])]),
    ("Concat", {"axis": 1}, [(2, 3), (2, 4)], []), ("Expand", {}, [(3, 1)], [I([2, 1, 4])]), ("Gather", {"axis": 1}, [(3, 4)], [I([[0, -1], [2, 1]])]),
    ("Gather", {"axis": 0}, [(3, 4)], [I(-1)]), ("ScatterND", {}, [(4, 3)], [I([[1], [3]]), F([[1, 2, 3], [4, 5, 6]])]), ("Pad", {}, [(2, 3)], [I([0, 1, 1, -1])]),
    ("Pad", {"mode": "reflect"}, [(2, 5)], [I([0, 2, 0, 1])]), ("Pad", {"mode": "edge"}, [(1, 2, 5)], [I([0, 0, 2, 0, 0, 1])]),
    *((op, {"keepdims": k}, [(2, 3, 4)], [I([0, -1])]) for op in ("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceL2", "ReduceSumSquare") for k in (0, 1)),
    ("Conv", {"pads": [1, 1], "strides": [2]}, [(2, 4, 9), (6, 2, 3), (6,)], []), ("Conv", {"pads": [2, 0], "dilations": [2]}, [(2, 4, 9), (6, 4, 3)], []),
    ("Conv", {"auto_pad": "SAME_UPPER"}, [(1, 2, 5, 6), (3, 2, 2, 3)], []), ("ConvTranspose", {"strides": [2], "pads": [1, 0]}, [(2, 4, 5), (4, 3, 3), (3,)], []),
    ("ConvTranspose", {"strides": [2, 1], "output_padding": [1, 0]}, [(1, 4, 5, 3), (4, 2, 3, 2)], []), ("LayerNormalization", {}, [(2, 3, 4), (4,), (4,)], []),
    ("LayerNormalization", {"axis": 1}, [(2, 3, 4), (4,)], []),
]  # fmt: skip


@pytest.mark.parametrize("op,attributes,shapes,constants", OPS, ids=[f"{k}-{row[0]}" for k, row in enumerate(OPS)])
@pytest.mark.usefixtures("needs_torch")
def test_torch_gives_the_ops_their_meaning(op, attributes, shapes, constants):
    random = np.random.default_rng(0)
    if op == "Conv" and attributes.get("strides"):
        attributes = attributes | {"group": 2}
    inputs = {f"x{k}": random.standard_normal(shape).astype(np.float32) for k, shape in enumerate(shapes)}
    weights = {f"c{k}": np.asarray(a) for k, a in enumerate(constants)}
    names, values = (*inputs, *weights), tuple(Value(n, "float32", a.shape) for n, a in inputs.items())
    model = fr.Model(values, ("y",), (Node(op, "node", names, ("y",), attributes),), weights)
    got, want = TorchEngine("", model)(inputs)["y"], evaluate(model, inputs)["y"]
    assert close(got.astype(np.float64), want)


@pytest.mark.usefixtures("needs_torch")
def test_torch_names_what_it_has_no_form_for():
    x = Value("x", "float32", (2, 3))
    model = fr.Model((x,), ("y",), (Node("Tile", "again", ("x", "n"), ("y",)),), {"n": np.array([2, 1])})
    with pytest.raises(fr.UnsupportedModelError, match=r"'again' \(Tile\)"):
        TorchEngine("", model)({"x": np.zeros((2, 3), np.float32)})
