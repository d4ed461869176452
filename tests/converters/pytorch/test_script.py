"""TorchScript archives and live ScriptModules, and modules that write their buffers: what they compute and stream, against torch's own."""

from __future__ import annotations

import io
import zipfile

import numpy as np
import pytest
import torch
from torch import nn

import fastrnn as fr


def close(got, want, scale=2e-5):
    """Within the tolerance of the largest entry, at least 1."""
    got, want = np.asarray(got), np.asarray(want.detach() if isinstance(want, torch.Tensor) else want)
    assert got.shape == want.shape
    assert np.abs(got - want).max(initial=0) <= scale * max(1, np.abs(want).max(initial=0))


class Policy(nn.Module):
    """As legged_gym exports it: states are buffers that forward writes in place."""

    def __init__(self, kind: str = "lstm", start: float = 0.0):
        super().__init__()
        self.memory = nn.LSTM(6, 5) if kind == "lstm" else nn.GRU(6, 5)
        self.actor = nn.Sequential(nn.Linear(5, 8), nn.ELU(), nn.Linear(8, 3))
        self.register_buffer("hidden_state", torch.full((1, 1, 5), start))
        self.register_buffer("cell_state", torch.full((1, 1, 5), -start))

    def forward(self, x):
        out, (h, c) = self.memory(x.unsqueeze(0), (self.hidden_state, self.cell_state))
        self.hidden_state[:] = h
        self.cell_state[:] = c
        return self.actor(out.squeeze(0))


class GruPolicy(Policy):
    """Its state is put in the buffer's place, not written into it."""

    def __init__(self, start: float = 0.0):
        super().__init__("gru", start)

    def forward(self, x):
        out, h = self.memory(x.unsqueeze(0), self.hidden_state)
        self.hidden_state = h
        return self.actor(out.squeeze(0))


class Counter(nn.Module):
    """A running mean and the number of calls, which decide nothing but its output."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(4, 4)
        self.register_buffer("mean", torch.zeros(1, 4))
        self.register_buffer("calls", torch.tensor([2.0]))
        self.register_buffer("unread", torch.zeros(3))

    def forward(self, x):
        self.calls += 1
        self.mean = self.mean + (x - self.mean) / self.calls
        self.unread.fill_(1)
        return torch.tanh(self.inner(x) - self.mean)


MODULES = {
    "lstm": lambda: Policy(),
    "lstm from 0.5": lambda: Policy(start=0.5),
    "gru": lambda: GruPolicy(),
    "gru from -0.25": lambda: GruPolicy(-0.25),
    "counter": Counter,
}


def steps_agree(stream, module, xs):
    """A stream's steps, and the module's, which keeps its own states."""
    with torch.no_grad():
        for x in xs:
            close(stream.step(x.numpy()), module(x))


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("form", ["eager", "script", "file"])
def test_buffers_that_forward_writes_are_states(name, form, tmp_path):
    torch.manual_seed(3)
    module = MODULES[name]().eval()
    width = 4 if name == "counter" else 6
    before = {k: v.clone() for k, v in module.state_dict().items()}
    example = (torch.randn(1, width),)
    if form == "eager":
        model = fr.from_torch(module, example)
    else:
        scripted = torch.jit.script(module)
        scripted.save(str(tmp_path / "policy.pt"))
        model = fr.from_torch(scripted, example) if form == "script" else fr.load(tmp_path / "policy.pt")
    assert all(torch.equal(v, before[k]) for k, v in module.state_dict().items())
    states = {s.input for s in model.states}
    assert {n for n in states if not n.endswith(".started")} == (
        {"mean", "calls", "unread"} if name == "counter" else {"hidden_state", *(["cell_state"] if "lstm" in name else [])}
    )
    assert any(n.endswith(".started") for n in states) == ("from" in name or name == "counter")
    xs = torch.randn(12, 1, width)
    stream = fr.compile(model).stream()
    steps_agree(stream, module, xs)
    stream.reset()
    module.load_state_dict(before)
    steps_agree(stream, module, xs[:4])
    model.save(tmp_path / "m.safetensors")
    module.load_state_dict(before)
    steps_agree(fr.compile(fr.load(tmp_path / "m.safetensors")).stream(), module, xs[:4])


def test_states_of_a_policy_take_any_batch():
    torch.manual_seed(4)
    module = Policy().eval()
    model = fr.from_torch(module, (torch.randn(1, 6),))
    xs = torch.randn(7, 3, 6)
    stream, rows = fr.compile(model).stream(batch=3), [fr.compile(model).stream() for _ in range(3)]
    for x in xs.numpy():
        together = stream.step(x)
        for k, row in enumerate(rows):
            assert np.array_equal(together[k : k + 1], row.step(x[k : k + 1]))


def test_batch_norm_in_training_mode_writes_nothing():
    module = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)).train()
    model = fr.from_torch(module, (torch.randn(5, 3),))
    assert not model.states and int(module[1].num_batches_tracked) == 0


class Branches(nn.Module):
    """Options, loops, tuples, dicts, sizes and strings, as TorchScript writes them."""

    def __init__(self, depth: int = 3):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(6, 6) for _ in range(depth)])
        self.scale = 0.5
        self.norm = nn.LayerNorm(6)
        self.lstm = nn.LSTM(6, 4, num_layers=2, batch_first=True, bidirectional=True)

    def part(self, x, twice: bool = False):
        if twice:
            x = x * 2
        elif x.dim() > 5:
            raise ValueError("too many")
        return x

    def forward(self, x, extra: torch.Tensor | None = None):
        found = []
        for k, layer in enumerate(self.layers):
            x = self.part(torch.relu(layer(x)), k == 1) + self.scale
            found.append(x)
        if extra is not None:
            x = x + extra
        total = torch.stack(found, 0).mean(0)
        y, (h, _) = self.lstm(self.norm(total + x))
        n = 0
        while n < 2:
            y = torch.cat([y, y[..., :1]], -1)
            n += 1
        return y, h[-1].view(x.size(0), -1)


@pytest.mark.parametrize("how", ["script", "trace", "file"])
def test_code_is_followed(how, tmp_path):
    torch.manual_seed(5)
    module, x = Branches().eval(), torch.randn(3, 5, 6)
    made = torch.jit.trace(module, (x,)) if how == "trace" else torch.jit.script(module)
    made.save(str(tmp_path / "m.pt"))
    model = fr.load(tmp_path / "m.pt") if how == "file" else fr.from_torch(made, (x,))
    session = fr.compile(model)
    for size in ((3, 5, 6), (2, 9, 6)):
        x = torch.randn(size)
        for got, want in zip(session(x.numpy()), module(x), strict=True):
            close(got, want)


class Cell(nn.Module):
    """A cell in a loop over the steps of a fixed number."""

    def __init__(self):
        super().__init__()
        self.cell, self.conv = nn.GRUCell(4, 3), nn.Conv1d(4, 4, 3, padding=1)

    def forward(self, x):
        x = self.conv(x.transpose(1, 2)).transpose(1, 2)
        h = torch.zeros(x.size(0), 3)
        out = []
        for t in range(x.size(1)):
            h = self.cell(x[:, t], h)
            out.append(h)
        return torch.stack(out, 1)


def test_cells_in_a_loop(tmp_path):
    torch.manual_seed(6)
    module, x = Cell().eval(), torch.randn(2, 5, 4)
    session = fr.compile(fr.from_torch(torch.jit.script(module), (x,)))
    x = torch.randn(3, 5, 4)
    close(session(x.numpy()), module(x))


@pytest.mark.parametrize("example", [True, False], ids=["example", "none"])
@pytest.mark.parametrize("options", [{}, {"num_layers": 2, "bidirectional": True, "batch_first": True}], ids=str)
@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN], ids=lambda k: k.__name__)
def test_a_scripted_layer_by_itself(kind, options, example):
    """Its forward has two forms, and takes sequences without a batch, too; what is tried where no example is given has one."""
    torch.manual_seed(7)
    layer = kind(3, 5, **options).eval()
    for module in (layer, nn.Sequential(layer)) if example else (layer,):
        model = fr.from_torch(torch.jit.script(module), (torch.randn(4, 3, 3),) if example else None)
        x = torch.randn(7, 6, 3)
        y, final = module(x)
        for got, want in zip(fr.compile(model)(x.numpy()), (y, *(final if isinstance(final, tuple) else (final,))), strict=True):
            close(got, want)


def changed(module, tmp_path, edit) -> object:
    """A scripted module's archive with entries changed: edit(name, content) -> content, or None for none."""
    data = io.BytesIO()
    torch.jit.save(torch.jit.script(module.eval()), data)
    path = tmp_path / "changed.pt"
    with zipfile.ZipFile(data) as source, zipfile.ZipFile(path, "w") as target:
        for name in source.namelist():
            if (content := edit(name, source.read(name))) is not None:
                target.writestr(name, content)
    return path


class Small(nn.Module):
    """One layer."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 2)

    def forward(self, x):
        return torch.tanh(self.linear(x))


def line(old: bytes, new: bytes):
    return lambda name, content: content.replace(old, new) if name.endswith(".py") else content


def entry(end: str, change):
    return lambda name, content: change(content) if name.endswith(end) else content


HOSTILE = {
    "reads a file": (line(b"torch.tanh(", b"torch.from_file("), "from_file"),
    "an operator with an underscore": (line(b"torch.tanh(", b"torch._fused_adam("), "_fused_adam"),
    "code of Python": (line(b"torch.tanh(", b"__import__('os').system("), "not read"),
    "a builtin": (line(b"torch.tanh(", b"eval("), "not read"),
    "a lambda": (line(b"torch.tanh(", b"(lambda x: x)("), "not read"),
    "a comprehension": (line(b"torch.tanh((linear).forward(x, ))", b"[y for y in x]"), "not read|what inputs"),
    "dunder": (line(b"torch.tanh(", b"self.__class__("), "attribute|not read|not in the archive"),
    "endless": (line(b"    linear = self.linear", b"    while True:\n      pass\n    linear = self.linear"), "steps"),
    "calls itself": (line(b"torch.tanh((linear).forward(x, ))", b"(self).forward(x, )"), "deep"),
    "huge": (line(b"torch.tanh(", b"torch.zeros([1000000, 1000000]) + ("), "elements|not read"),
    "syntax": (line(b"def forward", b"def def"), "cannot be read"),
    "no code": (lambda name, content: None if "modules/linear" in name else content, "not in the archive"),
    "a pickle that runs": (entry("/data.pkl", lambda c: b"\x80\x02cos\nsystem\n(X\x04\x00\x00\x00echotR."), "os.system"),
    "a pickle of torch": (entry("/data.pkl", lambda c: c.replace(b"_rebuild_tensor_v2", b"_rebuild_tensor_v9")), "_rebuild_tensor_v9"),
    "cut pickle": (entry("/data.pkl", lambda c: c[: len(c) // 2]), "damaged|names"),
    "cut storage": (entry("/data/0", lambda c: c[:4]), "claims"),
    "empty pickle": (entry("/data.pkl", lambda c: b""), "damaged"),
    "no constants of tensors": (entry("/constants.pkl", lambda c: b"\x80\x02K\x01."), "constants"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_archives_are_refused(name, tmp_path):
    edit, message = HOSTILE[name]
    with pytest.raises((fr.InvalidModelError, fr.UnsupportedModelError), match=message):
        path = changed(Small(), tmp_path, edit)
        fr.load(path)


def test_inputs_that_cannot_be_found_are_asked_for(tmp_path):
    class Two(nn.Module):
        def forward(self, x, n: int):
            return x * n

    torch.jit.script(Two()).save(str(tmp_path / "two.pt"))
    with pytest.raises(fr.UnsupportedModelError, match="example"):
        fr.load(tmp_path / "two.pt")


@pytest.mark.parametrize("name", ["g1", "h1"])
def test_robot_policies_stream(name, shared):
    path = shared / "models" / "unitree" / f"{name}-motion.pt"
    module, model = torch.jit.load(str(path)), fr.load(path)
    assert [s.input for s in model.states] == ["hidden_state", "cell_state"]
    xs = torch.from_numpy(np.random.default_rng(7).standard_normal((500, 1, model.inputs[0].shape[1])).astype("f4"))
    steps_agree(fr.compile(model).stream(), module, xs)


def test_actuator_network_streams(shared):
    path = shared / "models" / "anydrive" / "anydrive_v3_lstm.pt"
    module, B = torch.jit.load(str(path)), torch.export.Dim("B")
    h, c = torch.zeros(2, 12, 8), torch.zeros(2, 12, 8)
    whole, x = fr.compile(fr.load(path)), torch.randn(3, 9, 2)
    close(whole(x.numpy(), np.zeros((2, 3, 8), "f4"), np.zeros((2, 3, 8), "f4"))[0], module(x, (h[:, :3], c[:, :3]))[0])
    # Its squeeze() takes off the axis of one step, so a step is another shape to it: the example says that a call is one.
    model = fr.from_torch(module, (torch.zeros(12, 1, 2), (h, c)), ({0: B}, ({1: B}, {1: B})))
    stream = fr.compile(model, states={"hc0_0": "y1.0", "hc0_1": "y1.1"}).stream(batch=12)
    xs = np.random.default_rng(8).standard_normal((500, 12, 2)).astype("f4")
    with torch.no_grad():
        for x in xs:
            want, (h, c) = module(torch.from_numpy(x)[:, None], (h, c))
            close(stream.step(x[:, None]), want)
