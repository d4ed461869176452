"""Modules with loops of their own, named as layers of a custom cell: kept whole, compiled, compared."""

import numpy as np
import pytest

import fastrnn as fr
from fastrnn.cells import gallery

torch = pytest.importorskip("torch")
nn = torch.nn
pytestmark = pytest.mark.usefixtures("cells_compile")


class Minimal(nn.Module):
    """A minimal gated unit, one step after the other."""

    def __init__(self, inputs, units):
        super().__init__()
        self.weight_ih, self.weight_hh = nn.Parameter(torch.randn(2 * units, inputs) / 4), nn.Parameter(torch.randn(2 * units, units) / 4)
        self.bias_ih, self.bias_hh = nn.Parameter(torch.randn(2 * units)), nn.Parameter(torch.randn(2 * units))
        self.units = units

    def forward(self, x, state=None):
        h = x.new_zeros(x.shape[1], self.units) if state is None else state
        (w_f, w_n), (r_f, r_n), (b_f, b_n) = (p.chunk(2) for p in (self.weight_ih, self.weight_hh, self.bias_ih + self.bias_hh))
        rows = []
        for step in x:
            f = torch.sigmoid(step @ w_f.T + h @ r_f.T + b_f)
            n = torch.tanh(step @ w_n.T + (f * h) @ r_n.T + b_n)
            h = (1 - f) * h + f * n
            rows.append(h)
        return torch.stack(rows), h


class Decaying(nn.Module):
    """A leak over the time since the step before, batch first, with parameters under names of its own and outputs alone."""

    batch_first = True

    def __init__(self, inputs, units):
        super().__init__()
        self.into, self.rate = nn.Linear(inputs, units), nn.Parameter(torch.rand(units))

    def forward(self, x, dt):
        h, rows = x.new_zeros(x.shape[0], len(self.rate)), []
        for t in range(x.shape[1]):
            h = h * torch.exp(-self.rate * dt[:, t, None]) + torch.tanh(self.into(x[:, t]))
            rows.append(h)
        return torch.stack(rows, 1)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second, self.head = nn.LSTM(5, 9), Minimal(9, 12), nn.Linear(12, 3)

    def forward(self, x):
        y, _ = self.first(x)
        y, last = self.second(y)
        return self.head(y + last)


def test_a_module_with_torch_names_becomes_one_layer():
    torch.manual_seed(0)
    net, x = Net(), torch.randn(6, 2, 5)
    model = fr.from_torch(net, (x,), cells={Minimal: gallery.mgu})
    assert [n.op for n in model.nodes if n.op in ("LSTM", "Recurrent")] == ["LSTM", "Recurrent"]
    session = fr.compile(model)
    for T, B in ((6, 2), (17, 3), (1, 1)):
        x = torch.randn(T, B, 5)
        with torch.no_grad():
            want = net(x).numpy()
        assert np.abs(session(x.numpy()) - want).max() <= 2e-6 * max(1, np.abs(want).max())
    assert "forward" not in net.second.__dict__


def test_a_cell_that_comes_first_fixes_the_features_and_streams():
    torch.manual_seed(2)

    class Outputs(Minimal):
        def forward(self, x):
            return super().forward(x)[0]

    first, x = nn.Sequential(Outputs(4, 7), nn.Linear(7, 3)), torch.randn(6, 2, 4)
    model = fr.from_torch(first, (x,), cells={Outputs: gallery.mgu})
    assert model.inputs[0].shape[-1] == 4
    stream = fr.compile(model).stream(batch=2)
    with torch.no_grad():
        want = first(x).numpy()
    got = np.stack([stream.step(step) for step in x.numpy()])
    assert np.abs(got - want).max() <= 2e-6 * max(1, np.abs(want).max())


def test_states_pass_through_and_stream():
    torch.manual_seed(1)

    class WithState(nn.Module):
        def __init__(self):
            super().__init__()
            self.cell = Minimal(4, 7)

        def forward(self, x, h):
            y, h = self.cell(x, h)
            return {"y": y, "h_next": h}

    net, x, h = WithState(), torch.randn(5, 3, 4), torch.randn(3, 7)
    session = fr.compile(fr.from_torch(net, (x, h), cells={Minimal: gallery.mgu}))
    with torch.no_grad():
        want = net(x, h)
    for name, got in session.run({"x": x.numpy(), "h": h.numpy()}).items():
        np.testing.assert_allclose(got, want[name].numpy(), atol=1e-6)


def test_a_function_of_the_module_makes_the_layer():
    decaying = fr.cell(gates=(fr.Gate("a", sees="x"),), parameters=("rate",), scalars=("dt",), name="decaying")(
        lambda a, h, rate, dt: h * fr.exp(-rate * dt) + fr.tanh(a)
    )

    def layer(module):
        made = fr.Recurrent(decaying, 4, 8, batch_first=True)
        made.load_state_dict(
            {
                "weight_ih_l0": module.into.weight.detach().numpy(),
                "bias_ih_l0": module.into.bias.detach().numpy(),
                "weight_rate_l0": module.rate.detach().numpy(),
            }
        )
        return made

    torch.manual_seed(2)
    net, x, dt = nn.Module(), torch.randn(3, 6, 4), torch.rand(3, 6)
    net.inner, net.forward = Decaying(4, 8), lambda x, dt: 2 * net.inner(x, dt)
    session = fr.compile(fr.from_torch(net, (x, dt), cells={Decaying: layer}))
    x, dt = torch.randn(5, 11, 4), torch.rand(5, 11)
    with torch.no_grad():
        want = net.forward(x, dt).numpy()
    np.testing.assert_allclose(session.run({"x": x.numpy(), "dt": dt.numpy()})["y"], want, atol=2e-6)


def test_what_does_not_fit_is_refused():
    net, x = Net(), torch.randn(6, 2, 5)
    with pytest.raises(fr.ConversionError):  # another cell with parameters of the same shapes
        fr.from_torch(net, (x,), cells={Minimal: gallery.ligru})
    with pytest.raises(fr.ShapeError, match="weight_pi_l0"):
        fr.from_torch(net, (x,), cells={Minimal: gallery.coupled_lstm})
    with pytest.raises(fr.UnsupportedModelError, match="example_inputs"):
        fr.from_torch(net, cells={Minimal: gallery.mgu})
    with pytest.raises(fr.UnsupportedModelError, match=r"second.*function that returns"):
        fr.from_torch(net, (x,), cells={Minimal: lambda module: module})
    with pytest.raises(fr.UnsupportedModelError, match=r"head.*weight_ih and weight_hh"):
        fr.from_torch(net, (x,), cells={nn.Linear: gallery.mgu})
