"""from_torch of modules that remember something from call to call: refused by name, or put back."""

import pytest

import fastrnn as fr

torch = pytest.importorskip("torch")
from functions import Of, agree
from torch import nn

X = torch.randn(4, 6, 3)


def lazily(self, x):
    if self.hidden is None or self.hidden.shape[1] != x.shape[0]:
        self.hidden = torch.zeros(1, x.shape[0], 5)
    y, self.hidden = self.gru(x, self.hidden)
    return y


def in_a_dict(self, x):
    y, self.memory["h"] = self.gru(x, self.memory["h"])
    return y


def in_place(self, x):
    y, h = self.gru(x, self.tensor.expand(1, x.shape[0], 5).contiguous())
    self.tensor.copy_(h.mean(1, keepdim=True))
    return y


def counting(self, x):
    self.last = self.gru(x)[0]
    self.calls += 1
    return self.last * self.calls


def in_an_object(self, x):
    y, self.holder.h = self.gru(x, self.holder.h)
    return y


def queueing(self, x):
    self.queue.append(x.mean())
    return self.gru(x)[0] + sum(self.queue)


def in_a_part(self, x):
    y, self.gru.kept = self.gru(x, getattr(self.gru, "kept", None))
    return y


class Holder:
    """A plain object."""

    h = None


class Memory(nn.Module):
    """Of several kinds; forward uses one."""

    def __init__(self, step):
        super().__init__()
        self.gru, self.step = nn.GRU(3, 5, batch_first=True), step
        self.hidden, self.memory, self.tensor, self.calls, self.holder, self.queue = None, {"h": None}, torch.zeros(1, 1, 5), 0, Holder(), []
        self.register_buffer("buffer", torch.zeros(5))

    def forward(self, x):
        return self.step(self, x)


REMEMBER = {lazily: "self.hidden", in_a_dict: "self.memory", in_place: "self.tensor", counting: "self.calls", in_an_object: "self.holder", queueing: "self.queue",
            in_a_part: "self.gru.kept"}  # fmt: skip


@pytest.mark.parametrize("rows", [1, 4])
@pytest.mark.parametrize("step", REMEMBER, ids=lambda s: s.__name__)
def test_what_a_module_remembers_is_refused_by_name(step, rows):
    module = Memory(step)
    before = dict(module.__dict__)
    with pytest.raises(fr.UnsupportedModelError, match=f"Memory: forward keeps '{REMEMBER[step]}' .*pass it in as an input"):
        fr.from_torch(module, X[:rows])
    assert module.__dict__ == before and module.memory == {"h": None} and not module.tensor.any() and module.queue == []
    assert module.calls == 0 and module.holder.h is None and "kept" not in module.gru.__dict__


def test_what_a_module_keeps_and_does_not_read_is_let_pass_and_put_back():
    def noting(self, x):
        self.calls, self.hidden = self.calls + 1, self.gru(x)[1]
        self.queue.append(self.hidden)
        return self.gru(x)[0]

    module = Memory(noting)
    with pytest.warns(UserWarning, match="forward changes 'self.calls'; three calls gave the same"):
        model = fr.from_torch(module, X)
    assert module.hidden is None and module.calls == 0 and module.queue == []
    agree(model, module, torch.randn(2, 4, 3))


def test_memory_outside_of_the_module_is_refused():
    kept = []
    module = Of(lambda p, x: (kept.append(x.mean()), x + sum(kept))[1])
    with pytest.raises(fr.UnsupportedModelError, match="no attribute of the module has changed"):
        fr.from_torch(module, X)


def test_weights_that_forward_changes_are_put_back():
    module = Of(lambda p, x: (p.head.weight.data.renorm_(2, 0, 0.05), p.head(x))[1], head=nn.Linear(3, 2))
    before = module.parts.head.weight.detach().clone()
    with pytest.raises(fr.UnsupportedModelError):
        fr.from_torch(module, X)
    assert torch.equal(before, module.parts.head.weight)
