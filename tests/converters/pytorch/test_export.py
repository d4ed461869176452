"""from_torch by way of torch.export: what is kept, named, refused, and left alone."""

import copy

import numpy as np
import pytest

import fastrnn as fr

torch = pytest.importorskip("torch")
from functions import agree
from nets import NETS
from torch import nn
from torch.export import Dim
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence


class Of(nn.Module):
    """A function of x as a module."""

    def __init__(self, function, **parts):
        super().__init__()
        self.function, self.parts = function, nn.ModuleDict(parts)

    def forward(self, x):
        return self.function(x, **self.parts)


class Tagger(nn.Module):
    """Dropout between, so that training mode shows."""

    def __init__(self):
        super().__init__()
        self.lstm, self.dropout, self.head = nn.LSTM(4, 6, 2, dropout=0.5, batch_first=True), nn.Dropout(0.5), nn.Linear(6, 3)

    def forward(self, x, scale=1.0, *, mask=None):
        y = self.head(self.dropout(self.lstm(x)[0])) * scale
        return y if mask is None else y.masked_fill(mask.unsqueeze(-1), 0.0)


X = torch.randn(3, 7, 4)


def test_the_module_is_left_as_it_was():
    module = Tagger().train()
    module.dropout.eval()
    module(X).sum().backward()
    before = copy.deepcopy(module.state_dict())
    grads, modes = [p.grad.clone() for p in module.parameters()], [m.training for m in module.modules()]
    keys, flat = [sorted(m.__dict__) for m in module.modules()], [id(w) for w in module.lstm._flat_weights]
    model = fr.from_torch(module, (X,))
    assert [m.training for m in module.modules()] == modes and [sorted(m.__dict__) for m in module.modules()] == keys
    assert [id(w) for w in module.lstm._flat_weights] == flat and all(p.requires_grad for p in module.parameters())
    assert all(torch.equal(a, b) for a, b in zip(before.values(), module.state_dict().values(), strict=True))
    assert all(torch.equal(a, p.grad) for a, p in zip(grads, module.parameters(), strict=True))
    agree(model, module.eval(), X)  # converted for inference, whatever mode it is in
    with torch.no_grad():
        module.head.bias.add_(1)
    assert np.abs(fr.compile(model)(X.numpy()) - module(X).detach().numpy()).max() > 0.5  # weights are copies


def test_the_module_is_left_as_it_was_after_a_failure():
    module = Of(lambda x, lstm: lstm(x)[0].nonzero(), lstm=nn.LSTM(4, 5)).train()
    with pytest.raises(fr.UnsupportedModelError):
        fr.from_torch(module, (X,))
    assert module.parts["lstm"].training and "get_expected_hidden_size" not in module.parts["lstm"].__dict__
    assert torch.equal(module.parts["lstm"](X)[0], module.parts["lstm"](X)[0])


def test_names_and_ways_of_passing_inputs():
    module = Tagger().eval()
    mask = torch.arange(7)[None] >= torch.tensor([[7], [3], [5]])
    by_name = fr.from_torch(module, {"x": X, "scale": 2.0, "mask": mask})
    assert by_name.input_names == ("x", "mask") and by_name.output_names == ("y",)
    assert np.allclose(fr.compile(by_name)(X.numpy(), mask.numpy()), module(X, 2.0, mask=mask).detach(), atol=1e-5)
    assert fr.from_torch(module, ((X,), {"mask": mask})).input_names == ("x", "mask")
    assert fr.from_torch(module, X).input_names == ("x",)
    with pytest.raises(fr.UnsupportedModelError, match="does not take the example inputs: TypeError"):
        fr.from_torch(module, {"z": X})
    nested = fr.from_torch(Of(lambda d: {"sum": d["a"] + d["b"][0], "parts": (d["a"], [d["b"][0], None])}), ({"a": X, "b": (X * 2,)},))
    assert nested.output_names == ("sum", "parts.0", "parts.1.0") and nested.input_names == ("x_a", "x_b_0")


def test_dimensions():
    module = Tagger().eval()
    assert [v.shape for v in fr.from_torch(module, (X,)).inputs] == [("B", "T", 4)]
    named = fr.from_torch(module, (X,), ({0: Dim("rows"), 1: Dim("steps", max=50)},))
    assert named.inputs[0].shape == ("rows", "steps", 4)
    with pytest.raises(fr.ShapeError, match="steps <= 50"):
        fr.compile(named)(np.zeros((2, 51, 4), np.float32))
    assert fr.from_torch(module, (X,), ({0: Dim("rows")},)).inputs[0].shape == ("rows", 7, 4)
    assert fr.from_torch(module, (X,), {}).inputs[0].shape == (3, 7, 4)
    with pytest.raises(fr.UnsupportedModelError, match=r"torch\.export cannot capture it"):
        fr.from_torch(module, (X,), ({2: Dim("features")},))


def test_an_example_of_one_row_leaves_rows_open():
    for name in ("StatesAsTuple", "LstmLast", "StreamingFrame", "TiedLanguageModel"):
        net = NETS[name]
        module, batches = net.module(), net.draw(3, 5)
        model = fr.from_torch(module, net.draw(1, 8))
        got = fr.compile(model).run(dict(zip(model.input_names, (t.numpy() for t in torch.utils._pytree.tree_leaves(batches)))))
        with torch.no_grad():
            want = torch.utils._pytree.tree_leaves(module(**batches))
        assert all(np.abs(mine - theirs.numpy()).max() < 1e-5 for mine, theirs in zip(got.values(), want, strict=True))


def test_sizes_that_take_another_way_are_refused():
    """torch.export follows one way through an if; the other is not in the model."""
    model = fr.from_torch(Of(lambda x: x * 2 if x.shape[1] > 5 else x), (X,))
    session = fr.compile(model)
    assert np.array_equal(session(X.numpy()), X.numpy() * 2)
    with pytest.raises(fr.ShapeError, match="captured for sizes with"):
        session(X[:, :4].numpy())
    odd = fr.compile(fr.from_torch(Of(lambda x: x + 1 if x.shape[0] % 2 else x), (X,)))
    assert np.array_equal(odd(X[:1].numpy()), X[:1].numpy() + 1)
    with pytest.raises(fr.ShapeError, match="Mod"):
        odd(X[:2].numpy())


def test_one_row_where_it_means_something_else():
    """squeeze() takes away an axis of one row, which torch.export does not look at."""
    model = fr.from_torch(Of(lambda x: x.unsqueeze(0).squeeze()), (X,))
    assert fr.compile(model)(X.numpy()).shape == (3, 7, 4)
    with pytest.raises(fr.ShapeError, match=">= 2"):
        fr.compile(model)(X[:1].numpy())


@pytest.mark.parametrize("axis", [0, 1])
def test_one_row_alone_where_it_means_something_else(axis):
    """With one step as well, both ways give the same."""
    module = Of(lambda x: x.flip(1 - axis) if x.shape[axis] == 1 else x)
    session = fr.compile(fr.from_torch(module, (X,)))
    assert np.array_equal(session(X.numpy()), X.numpy())
    with pytest.raises(fr.ShapeError, match=">= 2"):
        session(X.narrow(axis, 0, 1).numpy())


class ByHand(nn.Module):
    """Rows sorted by the caller, who gets the last states in that order; or the packed data as it is."""

    def __init__(self, packed_out=False):
        super().__init__()
        self.gru, self.packed_out = nn.GRU(4, 5, batch_first=True), packed_out

    def forward(self, x, n):
        falling, order = n.sort(descending=True)
        y, h = self.gru(nn.utils.rnn.pack_padded_sequence(x.index_select(0, order), falling, batch_first=True))
        return y.data * 2 if self.packed_out else (h[0], falling)


def test_rows_sorted_by_hand_stay_sorted():
    """Whatever the example: with equal or falling lengths nothing shows."""
    module = ByHand().eval()
    session = fr.compile(fr.from_torch(module, (X, torch.tensor([7, 5, 5]))))
    n = torch.tensor([2, 7, 4])
    with torch.no_grad():
        h, falling = module(X, n)
    got = session.run({"x": X.numpy(), "n": n.numpy()})
    assert np.abs(got["y0"] - h.numpy()).max() < 5e-6 and np.array_equal(got["y1"], falling.numpy())


def test_lengths_of_an_example_that_are_all_the_same_hide_nothing():
    with pytest.raises(fr.ConversionError, match="rows of other lengths"):
        fr.from_torch(ByHand(packed_out=True), (X, torch.tensor([7, 7, 7])))


def test_hooks_are_captured():
    module = Tagger().eval()
    module.head.register_forward_hook(lambda part, args, y: y * 3)
    agree(fr.from_torch(module, (X,)), module, X)


def test_recurrent_layers_by_themselves_keep_their_states():
    for layer in (nn.GRU(4, 5, batch_first=True), nn.LSTMCell(4, 5)):
        model = fr.from_torch(layer, (X if isinstance(layer, nn.GRU) else X[:, 0],))
        assert model.states and model.input_names[:2] == ("x", "h0")


def test_a_captured_network_streams():
    module = NETS["LayerNormStack"].module()
    session = fr.compile(fr.from_torch(module, NETS["LayerNormStack"].draw(2, 8)))
    x = np.random.default_rng(0).standard_normal((2, 9, 9)).astype(np.float32)
    stream, whole = session.stream(2), session(x)
    assert np.array_equal(np.stack([stream.step(np.ascontiguousarray(x[:, t])) for t in range(9)], 1), whole)


class Ragged(nn.Module):
    """Packed, the states given."""

    def __init__(self, enforce_sorted):
        super().__init__()
        self.sorted, self.gru = enforce_sorted, nn.GRU(4, 5, 2, bidirectional=True, batch_first=True)

    def forward(self, x, lengths, h0):
        packed, h = self.gru(pack_padded_sequence(x, lengths, True, self.sorted), h0)
        y, lengths = pad_packed_sequence(packed, True)
        return y, h, lengths


@pytest.mark.parametrize("enforce_sorted", [True, False])
def test_packed_sequences_become_lengths(enforce_sorted):
    module, h0 = Ragged(enforce_sorted), torch.randn(4, 3, 5)
    model = fr.from_torch(module, (X, torch.tensor([7, 4, 1]), h0))
    assert [n.op for n in model.nodes].count("TopK") == 0 and all(n.input(4) for n in model.nodes if n.op == "GRU")
    lengths = torch.tensor([7, 5, 2] if enforce_sorted else [2, 7, 5])
    agree(model, module, X, lengths, h0)
    y, h, _ = fr.compile(model)(X.numpy(), np.array([0, 3, 2]), h0.numpy())  # rows that torch refuses: empty, and none that fills the padding
    assert y.shape == (3, 7, 10) and not y[0].any() and not y[1, 3:].any() and np.array_equal(h[:, 0], h0[:, 0])


REFUSED = {
    "data": (lambda x: x[x > 0], r"test_export\.py.*mask|data-dependent|Unsupported|unbacked", fr.UnsupportedModelError),
    "item": (lambda x: x * int(x.sum().item() > 0), "torch.export cannot capture|depends on the data", fr.UnsupportedModelError),
    "operator": (
        lambda x: torch.linalg.ldl_factor_ex(x[:, :4] @ x[:, :4].mT)[0],
        r"linalg_ldl_factor_ex.*test_export\.py:\d+ in ",
        fr.UnsupportedModelError,
    ),
    "side_effects": (lambda x: torch.linalg.ldl_factor(x[:, :4] @ x[:, :4].mT)[0], "side effects", fr.UnsupportedModelError),
    "complex": (
        lambda x: torch.fft.rfft(x).acos(),
        r"aten\.acos\.default.*of complex numbers this operator is not supported",
        fr.UnsupportedModelError,
    ),
    "half": (lambda x: x.half() * 2, "float16", fr.DTypeError),
    "random": (lambda x: x + torch.rand_like(x), "rand_like", fr.UnsupportedModelError),
    "number": (lambda x: (x, 3), "output 'y1' is no tensor but 3", fr.UnsupportedModelError),
    "nothing": (lambda x: None, "returns no tensor", fr.UnsupportedModelError),
    "raises": (lambda x: x @ x, "the module does not take the example inputs: RuntimeError", fr.UnsupportedModelError),
    "max_norm": (lambda x: torch.nn.functional.embedding(x.long() * 0, torch.ones(3, 2), max_norm=1.0), "embedding_renorm", fr.UnsupportedModelError),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_by_name(name):
    function, message, kind = REFUSED[name]
    with pytest.raises(kind, match=message):
        fr.from_torch(Of(function), (X,))


def test_parameters_of_other_dtypes_are_refused():
    for dtype in (torch.float64, torch.bfloat16, torch.float16):
        with pytest.raises(fr.DTypeError, match=r"parts.linear.weight.* must be float32.*\.float\(\)"):
            fr.from_torch(Of(lambda x, linear: linear(x), linear=nn.Linear(4, 3)).to(dtype), (X.to(dtype),))


class Counter(nn.Module):
    """Keeps its state in a buffer."""

    def __init__(self):
        super().__init__()
        self.register_buffer("h", torch.zeros(4))

    def forward(self, x):
        self.h = self.h + x[0, 0]
        return x + self.h


def test_buffers_that_change_are_states_and_refused_in_a_program():
    module = Counter()
    assert [s.input for s in fr.from_torch(module, (X,)).states] == ["h"]
    with pytest.raises(fr.UnsupportedModelError, match="'h'.*pass it in as an input"):
        fr.from_torch(torch.export.export(module, (X,)))
    assert not module.h.any()


def test_a_conversion_that_is_wrong_is_found(monkeypatch):
    from fastrnn.converters.torch_export.registry import CONVERTERS

    monkeypatch.setitem(CONVERTERS, "aten.tanh.default", lambda g, x: g.emit("Sigmoid", x))
    with pytest.raises(fr.ConversionError, match=r"output 'y1' differs .* on the example by \d\.\d+.* more than 0.0001"):
        fr.from_torch(Of(lambda x: (x, x.tanh())), (X,))
    assert fr.from_torch(Of(lambda x: (x, x.tanh())), (X,), tolerance=10.0)
