"""A layer as a model: the names that from_torch gives a bare layer, the layer's bits, streamed and saved without torch."""

import subprocess
import sys

import numpy as np
import pytest

import fastrnn as fr
from fastrnn.cells import gallery
from fastrnn.testing import LAYERS

LAYER_OPTIONS = [
    ("lstm", {}), ("lstm", {"num_layers": 2, "proj_size": 3, "peepholes": True}), ("lstm", {"bidirectional": True, "batch_first": True}),
    ("gru", {}), ("gru", {"reset_after": False, "num_layers": 2}), ("gru", {"clip": 0.5, "batch_first": True}),
    ("rnn", {}), ("rnn", {"nonlinearity": "relu", "bias": False}), ("rnn", {"reverse": True})]  # fmt: skip


def named(value) -> str:
    """A test's name for a kind, a cell or options."""
    return getattr(value, "name", str(value))


def layer_of(kind, options: dict):
    return LAYERS[kind](5, 9, seed=0, **options) if kind in LAYERS else fr.Recurrent(kind, 9, 9, seed=0, **options)


def inputs_of(layer, T=7, B=3) -> dict[str, np.ndarray]:
    random, o = np.random.default_rng(1), layer.options
    shape = (B, T, o.input_size) if o.batch_first else (T, B, o.input_size)
    given = {"x": random.standard_normal(shape), **{name: random.uniform(0, 1, shape[:2]) for name in o.scalars}}
    sizes = (o.output_size, *(o.hidden_size,) * (len(o.states) - 1))
    given |= {f"{s}0": random.uniform(-1, 1, (o.num_layers * o.directions, B, n)) for s, n in zip(o.states, sizes)}
    return {name: a.astype(np.float32) for name, a in given.items()}


def called(layer, given: dict) -> list[np.ndarray]:
    """What the layer itself gives, flat."""
    states = tuple(given[f"{s}0"] for s in layer.options.states)
    y, final = layer(
        given["x"], states if len(states) > 1 else states[0], given.get("lengths"), **{name: given[name] for name in layer.options.scalars}
    )
    return [y, *(final if isinstance(final, tuple) else (final,))]


def same(got, want) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(got, want, strict=True))


@pytest.mark.parametrize("kind,options", [*LAYER_OPTIONS, (gallery.mgu, {}), (gallery.decay_lstm, {"num_layers": 2}), (gallery.sru, {})], ids=named)
def test_it_computes_what_the_layer_does_and_is_saved(kind, options, tmp_path, request):
    if kind not in LAYERS:
        request.getfixturevalue("cells_compile")
    layer = layer_of(kind, options)
    given, model = inputs_of(layer), layer.to_model()
    names = layer.options.states
    assert model.input_names == ("x", *layer.options.scalars, *(f"{s}0" for s in names)) and model.output_names == ("y", *(f"{s}_n" for s in names))
    assert [(s.input, s.output) for s in model.states] == [(f"{s}0", f"{s}_n") for s in names]
    want = called(layer, given)
    model.save(tmp_path / "layer.safetensors")
    for session in (fr.compile(model), fr.compile(layer), fr.compile(fr.load(tmp_path / "layer.safetensors"))):
        assert same(session.run(given).values(), want)
    no_states = fr.compile(layer).run({name: given[name] for name in ("x", *layer.options.scalars)})
    assert same(no_states.values(), called(layer, {**given, **{f"{s}0": np.zeros_like(given[f"{s}0"]) for s in names}}))
    given["lengths"] = np.array([7, 0, 4])
    assert same(fr.compile(layer.to_model(lengths=True)).run(given).values(), called(layer, given))


@pytest.mark.parametrize(
    "kind,options",
    [
        ("lstm", {}),
        ("lstm", {"num_layers": 2, "batch_first": True}),
        ("gru", {"reset_after": False}),
        ("rnn", {}),
        (gallery.mgu, {}),
        (gallery.decay_lstm, {}),
    ],
    ids=named,
)
def test_it_streams(kind, options, request):
    if kind not in LAYERS:
        request.getfixturevalue("cells_compile")
    layer = layer_of(kind, options)
    given = inputs_of(layer)
    stream, want = fr.compile(layer).stream(batch=3), called(layer, given)
    stream.state = {f"{s}0": given[f"{s}0"] for s in layer.options.states}
    chunk = {name: given[name].swapaxes(0, 1) if layer.options.batch_first else given[name] for name in ("x", *layer.options.scalars)}
    y = [
        stream.push({name: a[:4] for name, a in chunk.items()}),
        *(stream.step({name: a[t] for name, a in chunk.items()})[None] for t in range(4, 7)),
    ]
    assert same([np.concatenate(y), *stream.state.values()], [want[0].swapaxes(0, 1) if layer.options.batch_first else want[0], *want[1:]])


def test_parameters_are_copied():
    layer = fr.GRU(3, 4, seed=0)
    model, x = layer.to_model(), np.ones((2, 1, 3), np.float32)
    want = layer(x)[0]
    layer.load_state_dict({name: 2 * a for name, a in layer.state_dict().items()})
    assert same([fr.compile(model).run({"x": x})["y"]], [want]) and not same([layer(x)[0]], [want])
    for array in model.weights.values():
        array[...] = 0
    assert same([layer(x)[0]], [fr.compile(layer).run({"x": x})["y"]])


@pytest.mark.parametrize("kind,options", [c for c in LAYER_OPTIONS if not {"peepholes", "clip", "reset_after", "reverse"} & c[1].keys()], ids=str)
@pytest.mark.filterwarnings("ignore:LSTM with projections")
def test_it_is_the_model_of_the_same_torch_module(kind, options):
    torch = pytest.importorskip("torch")
    module = getattr(torch.nn, kind.upper())(5, 9, **options)
    layer = layer_of(kind, options)
    layer.load_state_dict(module.state_dict())
    assert str(layer.to_model().graph) == str(fr.from_torch(module).graph)


def test_neither_torch_nor_onnx_is_needed(tmp_path):
    code = (
        "import sys\nfor name in ('torch', 'onnx', 'numba'): sys.modules[name] = None\nimport numpy as np, fastrnn as fr\n"
        "layer = fr.LSTM(3, 4, seed=0); layer.to_model().save(sys.argv[1]); x = np.ones((5, 1, 3), 'f4')\n"
        "stream = fr.compile(fr.load(sys.argv[1])).stream(); print(np.array_equal(stream.push(x), layer(x)[0]), len(fr.compile(layer, constants={'h0': np.ones((1, 1, 4), 'f4')}).model.inputs))"
    )
    assert (
        subprocess.run([sys.executable, "-P", "-c", code, tmp_path / "m.safetensors"], check=True, capture_output=True, text=True).stdout
        == "True 2\n"
    )


def test_a_training_network_compiles_as_well():
    import fastrnn.training as tr

    net, x = tr.Sequential(tr.LSTM(3, 4), tr.Linear(4, 2), seed=0), np.random.default_rng(0).standard_normal((5, 2, 3)).astype(np.float32)
    assert same([fr.compile(net)(x)], [fr.compile(net.to_model())(x)])


@pytest.mark.parametrize("given", [fr.LSTM, None, "model.onnx", np.zeros(3)], ids=str)
def test_other_things_are_refused(given):
    with pytest.raises(fr.InvalidModelError, match=f"takes a fastrnn Model or layer, got {type(given).__name__}"):
        fr.compile(given)
