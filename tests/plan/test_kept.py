"""Policies that multiply their states by (1 - done) before each step become one layer that does; what only looks so stays as it is."""

import io
import warnings

import numpy as np
import pytest

import fastrnn as fr

torch = pytest.importorskip("torch")
from torch import nn

I, H, B = 5, 7, 3


class Policy(nn.Module):
    """Features, a recurrent layer, a head. Steps come one behind the other, of all rows; the other way round with rows_first."""

    def __init__(self, kind=nn.LSTM, rows_first=False, loop=None, layers=1):
        super().__init__()
        self.features, self.recurrent, self.head = nn.Sequential(nn.Linear(I, 6), nn.ReLU()), kind(6, H, layers), nn.Linear(H, 3)
        self.rows_first, self.loop = rows_first, loop or Policy.steps

    def forward(self, x, done, h, c):
        rows = h.shape[1]
        x = self.features(x)
        if self.rows_first:
            x, done = x.reshape((rows, -1, 6)).swapaxes(0, 1), done.reshape((rows, -1)).swapaxes(0, 1)
        else:
            x, done = x.reshape((-1, rows, 6)), done.reshape((-1, rows))
        ys, state = self.loop(self.recurrent, x, done, (h, c) if isinstance(self.recurrent, nn.LSTM) else h)
        return self.head(torch.flatten(torch.cat(ys), 0, 1)), *(state if isinstance(state, tuple) else (state,))

    @staticmethod
    def steps(layer, x, done, state):
        ys = []
        for x_t, done_t in zip(x, done):
            keep = (1.0 - done_t).view(1, -1, 1)
            state = tuple((1.0 - done_t).view(1, -1, 1) * s for s in state) if isinstance(state, tuple) else keep * state
            y, state = layer(x_t.unsqueeze(0), state)
            ys.append(y)
        return ys, state


def drawn(T, seed=0, layers=1):
    torch.manual_seed(seed)
    return torch.randn(T * B, I), (torch.rand(T * B) < 0.3).float(), torch.randn(layers, B, H), torch.randn(layers, B, H)


def compiled(policy, T, **options):
    """(session, its inputs, what torch gives)."""
    args = drawn(T, layers=policy.recurrent.num_layers)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        session = fr.compile(fr.from_torch(policy.eval(), args), **options)
        wanted = [y.numpy() for y in policy(*args)]
    return session, {v.name: a.numpy() for v, a in zip(session.model.inputs, args)}, wanted


def layers(session):
    return [row for row in session._plan.rows() if row[0] in ("LSTM", "GRU", "RNN")]


def close(session, inputs, wanted):
    got = list(session.run(inputs).values())
    assert len(got) == len(wanted) and all(np.allclose(g, w, 1e-5, 1e-6) for g, w in zip(got, wanted))
    return got


@pytest.mark.parametrize("kind,rows_first,T", [(nn.LSTM, False, 6), (nn.LSTM, True, 4), (nn.GRU, True, 5), (nn.RNN, False, 3), (nn.LSTM, True, 1)])
def test_a_policy_is_one_layer(kind, rows_first, T):
    torch.manual_seed(1)
    policy = Policy(kind, rows_first)
    session, inputs, wanted = compiled(policy, T)
    assert len(layers(session)) == 1 and not [row for row in session._plan.rows() if row[0] == "Mul"]
    close(session, inputs, wanted)
    inputs["done"] = np.linspace(-1, 2, T * B, dtype=np.float32)  # no episodes: a factor as any other
    with torch.no_grad():
        close(session, inputs, [y.numpy() for y in policy(*(torch.from_numpy(inputs[n]) for n in ("x", "done")), *drawn(T)[2:])])


@pytest.mark.parametrize("kind,T", [(nn.LSTM, 4), (nn.GRU, 1)])
def test_a_stack_of_layers(kind, T):
    torch.manual_seed(1)
    session, inputs, wanted = compiled(Policy(kind, layers=2), T)
    assert len(layers(session)) == 2 and not [row for row in session._plan.rows() if row[0] == "Mul"]
    close(session, inputs, wanted)


def test_it_is_a_layer_with_resets():
    torch.manual_seed(1)
    policy, T = Policy(), 6
    session, inputs, _ = compiled(policy, T)
    inputs["h"][:, 1] = np.nan  # of a row whose episode ends before the first step nothing is left
    inputs["done"][1] = 1
    y, h, c = session.run(inputs).values()
    layer, x = fr.LSTM(6, H), policy.features(torch.from_numpy(inputs["x"])).detach().numpy()
    layer.load_state_dict(policy.recurrent.state_dict())
    y_l, (h_n, c_n) = layer(x.reshape(T, B, 6), (inputs["h"], inputs["c"]), resets=inputs["done"].reshape(T, B) != 0)
    assert np.allclose(h, h_n, 1e-5, 1e-6) and np.allclose(c, c_n, 1e-5, 1e-6) and np.isfinite(y_l).all()
    assert np.allclose(y, policy.head(torch.from_numpy(y_l.reshape(T * B, H))).detach().numpy(), 1e-5, 1e-6)


def test_from_onnx():
    pytest.importorskip("onnx")
    torch.manual_seed(1)
    policy, args, file = Policy().eval(), drawn(4), io.BytesIO()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(policy, args, file, input_names=["x", "done", "h", "c"], dynamo=False)
        wanted = [y.numpy() for y in policy(*args)]
    import onnx

    session = fr.compile(fr.from_onnx(onnx.load_from_string(file.getvalue())))
    assert len(layers(session)) == 1
    close(session, dict(zip(("x", "done", "h", "c"), (a.numpy() for a in args))), wanted)


def test_one_step_is_a_stream():
    torch.manual_seed(1)
    policy, T = Policy(), 8
    whole, inputs, wanted = compiled(policy, T)
    session = compiled(policy, 1, states={"h": "y1", "c": "y2"})[0]
    assert len(layers(session)) == 1
    stream = session.stream()
    stream.state = {"h": inputs["h"], "c": inputs["c"]}
    ys = [stream.step({"x": inputs["x"][t * B : (t + 1) * B], "done": inputs["done"][t * B : (t + 1) * B]}) for t in range(T)]
    assert np.array_equal(np.concatenate(ys), next(iter(whole.run(inputs).values())))


def fed_back(layer, x, done, state):
    ys, y = [], 0
    for x_t, done_t in zip(x, done):
        keep = (1.0 - done_t).view(1, -1, 1)
        y, state = layer(x_t.unsqueeze(0) + 0.1 * (y if isinstance(y, int) else y[..., :6]), tuple(keep * s for s in state))
        ys.append(y)
    return ys, state


def unlike(layer, x, done, state):
    ys = []
    for x_t, done_t in zip(x, done):
        y, state = layer(x_t.unsqueeze(0), ((1.0 - done_t).view(1, -1, 1) * state[0], (1.0 - 0.5 * done_t).view(1, -1, 1) * state[1]))
        ys.append(y)
    return ys, state


def by_unit(layer, x, done, state):
    ys = []
    for x_t, _ in zip(x, done):
        y, state = layer(x_t.unsqueeze(0), tuple(torch.linspace(0, 1, H) * s for s in state))
        ys.append(y)
    return ys, state


def read_elsewhere(layer, x, done, state):
    ys, more = [], 0
    for x_t, done_t in zip(x, done):
        keep = (1.0 - done_t).view(1, -1, 1)
        y, state = layer(x_t.unsqueeze(0), tuple(keep * s for s in state))
        ys.append(y)
        more = more + state[1]
    return ys, (state[0], more)


@pytest.mark.parametrize("loop", [fed_back, unlike, by_unit, read_elsewhere])
def test_what_only_looks_so_stays(loop):
    torch.manual_seed(1)
    session, inputs, wanted = compiled(Policy(loop=loop), 4)
    close(session, inputs, wanted)
    assert len(layers(session)) == 4
