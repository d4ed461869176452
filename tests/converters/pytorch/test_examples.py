"""from_torch with examples that hide something: one tensor for two inputs, zeros, one row, one step; and modules that take sizes apart.

What an example cannot tell, drawn values, sizes and lengths do: each model is compared here at sizes of its own.
"""

import contextlib
import logging
import subprocess
import sys
import warnings

import numpy as np
import pytest

import fastrnn as fr

torch = pytest.importorskip("torch")
from functions import Of, agree
from torch import nn
from torch.export import Dim
from torch.nn.utils import parametrizations, prune, spectral_norm, weight_norm
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

F = nn.functional


def shapes(model):
    return [v.shape for v in model.inputs]


LAYERS = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}


def with_states(kind, packed=False, **options):
    layer = LAYERS[kind](3, 5, batch_first=True, **options)

    def forward(p, x, *rest):
        n, states = (rest[0], rest[1:]) if packed else (None, rest)
        x = pack_padded_sequence(x, n, batch_first=True, enforce_sorted=False) if packed else x
        y, final = p.layer(x, states if kind == "lstm" else states[0])
        return (pad_packed_sequence(y, batch_first=True)[0] if packed else y, final)

    return Of(forward, layer=layer)


def states(kind, layers, batch):
    return [torch.randn(layers, batch, 5) for _ in range(2 if kind == "lstm" else 1)]


def packed_inputs(kind, layers, batch, steps):
    lengths = torch.randint(1, steps + 1, (batch,))
    lengths[-1] = steps
    return torch.randn(batch, steps, 3), lengths, *states(kind, layers, batch)


X = torch.randn(4, 6, 3)
SHARED = {
    "tensor": lambda x: (x, x),
    "view": lambda x: (x, x[:]),
    "reversed": lambda x: (x, x.transpose(0, 1).transpose(0, 1)),
    "expanded": lambda x: (x[:1].expand(4, 6, 3), x),
    "zeros": lambda x: (torch.zeros(4, 6, 3),) * 2,
}


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("how", SHARED)
def test_inputs_that_share_memory_are_two_inputs(how, kind):
    module = Of(lambda p, a, b: p.layer(a)[0].mean(1) - 2 * p.layer(b)[0].mean(1), layer=LAYERS[kind](3, 5, batch_first=True))
    agree(fr.from_torch(module, SHARED[how](X)), module, torch.randn(3, 5, 3), torch.randn(3, 5, 3))


@pytest.mark.parametrize("kind", LAYERS)
def test_one_tensor_of_zeros_for_all_states(kind):
    module, z = with_states(kind), torch.zeros(1, 4, 5)
    model = fr.from_torch(module, (X, *[z] * len(states(kind, 1, 1))))
    assert shapes(model)[0] == ("B", "T", 3) and {*shapes(model)[1:]} == {(1, "B", 5)}
    agree(model, module, torch.randn(2, 9, 3), *states(kind, 1, 2))


def test_shared_tensors_inside_containers():
    module = Of(lambda p, d: d["a"] - 2 * d["b"][0])
    agree(fr.from_torch(module, ({"a": X, "b": (X,)},)), module, {"a": torch.randn(2, 6, 3), "b": (torch.randn(2, 6, 3),)})


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("options", [{}, {"num_layers": 2}, {"bidirectional": True}, {"num_layers": 2, "bidirectional": True}], ids=str)
@pytest.mark.parametrize("kind", LAYERS)
def test_packed_rows_with_states(kind, options, batch):
    """torch does not look at the sizes of an LSTM's states here: wrong ones end the process, so none are tried."""
    layers = options.get("num_layers", 1) * (1 + options.get("bidirectional", False))
    module = with_states(kind, packed=True, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        model = fr.from_torch(module, packed_inputs(kind, layers, batch, 7))
    assert shapes(model)[:2] == [("B", "T", 3), ("B",)] and {*shapes(model)[2:]} == {(layers, "B", 5)}
    for rows, steps in ((3, 5), (1, 4), (5, 1)):
        agree(model, module, *packed_inputs(kind, layers, rows, steps))


def test_packed_rows_with_states_and_dimensions_of_the_caller():
    module, B = with_states("lstm", packed=True, num_layers=2), Dim("B")
    model = fr.from_torch(module, packed_inputs("lstm", 2, 4, 7), dynamic_shapes=(({0: B, 1: Dim("T")}, {0: B}, {1: B}, {1: B}),))
    agree(model, module, *packed_inputs("lstm", 2, 3, 5))
    assert shapes(model) == [("B", "T", 3), ("B",), (2, "B", 5), (2, "B", 5)]


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("kind", LAYERS)
def test_the_last_state_of_packed_rows_for_one_row(kind, ordered, batch_first):
    def last(p, x, n):
        h = p.layer(pack_padded_sequence(x, n, batch_first=batch_first, enforce_sorted=ordered))[1]
        return (h[0] if kind == "lstm" else h)[-1]

    module = Of(last, layer=LAYERS[kind](3, 5, batch_first=batch_first))

    def rows(n, steps):
        return torch.randn(n, steps, 3) if batch_first else torch.randn(steps, n, 3)

    model = fr.from_torch(module, (rows(4, 7), torch.tensor([7, 5, 4, 2])))
    for lengths in ([6], [1], [6, 3], [5, 5, 1]):
        agree(model, module, rows(len(lengths), max(lengths)), torch.tensor(lengths))


@pytest.mark.parametrize("example,taken", [((1, 12), (1, 7)), ((4, 1), (2, 1)), ((1, 1), (1, 1)), ((4, 12), (3, 5))])
@pytest.mark.parametrize("kind", LAYERS)
def test_squeeze(kind, example, taken):
    module = Of(lambda p, x: p.head(p.layer(x)[0]).squeeze(), layer=LAYERS[kind](3, 5, batch_first=True), head=nn.Linear(5, 1))
    model = fr.from_torch(module, torch.randn(*example, 3))
    agree(model, module, torch.randn(*taken, 3))
    for rows, steps in ((1, 5), (5, 1), (1, 1), (2, 2)):
        with contextlib.suppress(fr.ShapeError):  # refused where it means something else
            agree(model, module, torch.randn(rows, steps, 3))


H = 8
MIDDLES = {  # between a convolution over (B, 1, 8, T) and a recurrent layer: rows that are left
    "pool": (1, nn.AdaptiveAvgPool2d((1, None))),
    "pool_to_3": (3, nn.AdaptiveAvgPool2d((3, None))),
    "pool_to_4": (4, nn.AdaptiveMaxPool2d((4, 9))),
    "nearest": (16, nn.Upsample(scale_factor=2)),
    "bilinear": (16, nn.Upsample(scale_factor=2, mode="bilinear")),
    "corners": (16, nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)),
    "one_and_a_half": (12, nn.Upsample(scale_factor=1.5)),
    "to_size": (6, lambda x: F.interpolate(x, size=(6, x.shape[3]))),
    "to_size_linear": (6, lambda x: F.interpolate(x, size=(6, x.shape[3]), mode="bilinear")),
    "exact": (16, lambda x: F.interpolate(x, scale_factor=2, mode="nearest-exact")),
    "down": (4, lambda x: F.interpolate(x, scale_factor=0.5, mode="bilinear")),
}


@pytest.mark.parametrize("name", MIDDLES)
def test_resizing_between_convolutions_and_a_layer(name):
    rows, middle = MIDDLES[name]
    module = Of(
        lambda p, x: p.gru(middle(p.conv(x)).flatten(1, 2).transpose(1, 2))[0],
        conv=nn.Conv2d(1, 2, 3, padding=1),
        gru=nn.GRU(2 * rows, 5, batch_first=True),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of an axis that must stay as long as it is
        model = fr.from_torch(module, torch.randn(2, 1, H, 9))
    assert isinstance(shapes(model)[0][0], str) and (isinstance(shapes(model)[0][3], str) or name == "pool_to_4")
    for batch, steps in ((3, 13), (1, 6)):
        agree(model, module, torch.randn(batch, 1, H, steps if isinstance(shapes(model)[0][3], str) else 9))


@pytest.mark.parametrize("mode,kwargs", [("nearest", {}), ("linear", {}), ("linear", {"align_corners": True}), ("nearest-exact", {})])
@pytest.mark.parametrize("factor", [2, 3, 1.7, 0.4])
def test_upsampling_along_time(factor, mode, kwargs):
    module = Of(lambda p, x: p.gru(F.interpolate(x, scale_factor=factor, mode=mode, **kwargs).transpose(1, 2))[0], gru=nn.GRU(3, 5, batch_first=True))
    model = fr.from_torch(module, torch.randn(2, 3, 10))
    for batch, steps in ((3, 13), (1, 6), (2, 64)):
        agree(model, module, torch.randn(batch, 3, steps))


def test_an_operator_that_needs_one_size_fixes_that_one():
    module = Of(lambda p, x: p.gru(torch.cat(x.chunk(3, 1)[::-1], 1))[0], gru=nn.GRU(3, 5, batch_first=True))
    for rows in (1, 2):
        with pytest.warns(UserWarning, match="some sizes are the example's alone: node 'chunk'"):
            model = fr.from_torch(module, torch.randn(rows, 7, 3))
        assert shapes(model) == [("B", 7, 3)]
        agree(model, module, torch.randn(4, 7, 3))


class Parts(nn.Module):
    """Features in parts, whose sizes torch knows only once a layer has taken them."""

    def __init__(self, parts):
        super().__init__()
        self.layer, self.parts = nn.GRU(4, 6), parts

    def forward(self, x):
        a, b = self.parts(x)
        return self.layer(torch.cat([b, a], -1))[0]


@pytest.mark.parametrize(
    "parts",
    [lambda x: x.chunk(2, -1), lambda x: x.split(2, -1), lambda x: x.split([1, 3], -1), lambda x: torch.unsafe_chunk(x, 2, 2)],
    ids=["chunk", "split", "sizes", "unsafe"],
)
def test_parts_of_features_leave_batch_and_time_open(parts):
    torch.manual_seed(0)
    module = Parts(parts).eval()
    model = fr.from_torch(module, torch.randn(6, 2, 4))
    assert model.inputs[0].shape == ("T", "B", 4)
    x = torch.randn(3, 5, 4)
    assert np.abs(fr.compile(model)(x.numpy()) - module(x).detach().numpy()).max() <= 2e-6


BARE = {
    "width": (nn.GRU(4, 8), (torch.zeros(2, 3, 5),), "GRU: the module does not take the example inputs"),
    "name": (nn.LSTM(4, 8), {"nosuch": torch.zeros(2, 3, 4)}, "unexpected keyword argument 'nosuch'"),
    "state": (nn.RNN(4, 8), (torch.zeros(2, 3, 4), torch.zeros(1, 7, 8)), r"Expected hidden size \(1, 3, 8\)"),
    "text": (nn.GRU(4, 8), "hello", "GRU: the module does not take"),
    "cell": (nn.LSTMCell(4, 8), (torch.zeros(2, 5),), "LSTMCell: the module does not take"),
    "chain": (nn.Sequential(nn.GRU(4, 8), nn.Linear(8, 2)), (torch.zeros(2, 3, 5),), "Sequential: the module does not take"),
    "packed": (nn.LSTM(4, 8), (pack_padded_sequence(torch.zeros(3, 2, 4), [3, 2]),), "a PackedSequence has no axis of rows"),
}


@pytest.mark.parametrize("name", BARE)
def test_examples_of_what_is_read_layer_by_layer_are_looked_at_too(name):
    module, example, match = BARE[name]
    with pytest.raises(fr.UnsupportedModelError, match=match):
        fr.from_torch(module, example)


@pytest.mark.parametrize("tolerance", [0, -5, float("nan"), float("inf"), "a"])
def test_a_tolerance_is_a_positive_number(tolerance):
    with pytest.raises(fr.UnsupportedModelError, match=f"tolerance must be a positive number, got {tolerance!r}"):
        fr.from_torch(nn.GRU(4, 8), tolerance=tolerance)


def test_an_error_of_our_own_is_no_damaged_file(monkeypatch):
    from fastrnn.converters.torch_export.registry import CONVERTERS

    def broken(g, x):
        raise TypeError("int() argument must be a string")

    monkeypatch.setitem(CONVERTERS, "aten.tanh.default", broken)
    with pytest.raises(fr.UnsupportedModelError, match=r"aten.tanh.default.*not with these arguments"):
        fr.from_torch(Of(lambda p, x: x.tanh()), X)


NORMED = {
    "weight_norm": lambda m: weight_norm(m, "weight_hh_l0"),
    "spectral_norm": lambda m: spectral_norm(m, "weight_hh_l0"),
    "pruned": lambda m: prune.l1_unstructured(m, "weight_hh_l0", amount=0.5),
    "parametrized": lambda m: parametrizations.weight_norm(m, "weight_ih_l0"),
}


@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated:FutureWarning")
@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("how", NORMED)
def test_a_layer_with_reparametrized_weights_is_captured(how, kind):
    module = LAYERS[kind](3, 5, batch_first=True)
    NORMED[how](module)
    for _ in range(10 if how == "spectral_norm" else 0):
        module.train()(X)  # until its vectors have come to the largest singular value, and weights are of size 1
    agree(fr.from_torch(module, X), module, torch.randn(2, 9, 3))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torchscript_inside_a_module_is_refused_with_what_to_do():
    """By itself it is read: test_script.py."""
    for example in (X, None):
        with pytest.raises(fr.UnsupportedModelError, match=r"module '0' is TorchScript.*give the module that it was made from"):
            fr.from_torch(nn.Sequential(torch.jit.script(nn.Linear(3, 5)), nn.Tanh()), example)
    with pytest.raises(fr.UnsupportedModelError, match=r"put the function into an nn\.Module"):
        fr.from_torch(torch.jit.trace(torch.relu, X), X)


class Deep(nn.Module):
    """Chaotic: a recurrence with large weights doubles a rounding every step."""

    def __init__(self):
        super().__init__()
        self.rnn = nn.RNN(3, 24, batch_first=True)
        with torch.no_grad():
            self.rnn.weight_hh_l0.mul_(30)

    def forward(self, x):
        return self.rnn(x)[0]


def test_a_network_that_is_ill_conditioned_is_said_to_be():
    torch.manual_seed(1)
    with pytest.warns(UserWarning, match=r"ill-conditioned.*from float64 the module is off by .*, the model by"):
        fr.from_torch(Deep(), torch.randn(2, 40, 3))


def test_a_wrong_model_is_told_from_an_ill_conditioned_one(monkeypatch):
    from fastrnn.converters.torch_export.registry import CONVERTERS

    monkeypatch.setitem(CONVERTERS, "aten.tanh.default", lambda g, x: g.emit("Sigmoid", x))
    with pytest.raises(fr.ConversionError, match=r"from float64 the module is off by .*, the model by \d"):
        fr.from_torch(Of(lambda p, x: x.tanh()), X)


def test_refusing_what_depends_on_data_says_nothing_on_stderr():
    code = (
        "import torch, fastrnn as fr\nfrom torch import nn\n"
        "class M(nn.Module):\n    def __init__(self):\n        super().__init__()\n        self.lstm = nn.LSTM(3, 5)\n"
        "    def forward(self, x):\n        return self.lstm(x[:int((x > 0).sum())])[0]\n"
        "try:\n    fr.from_torch(M(), torch.randn(4, 2, 3))\nexcept fr.UnsupportedModelError as error:\n    print('refused', error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True, cwd="/")
    assert "depends on what is in a tensor, in <string>:8" in done.stdout and done.stderr == ""


def test_logging_is_as_it_was():
    handlers = {id(h): list(h.filters) for h in logging.getLogger("torch").handlers}
    fr.from_torch(Of(lambda p, x: x * 2), X)
    assert {id(h): list(h.filters) for h in logging.getLogger("torch").handlers} == handlers
