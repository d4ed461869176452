"""Training steps beside PyTorch's, and the memory that they take."""

import tracemalloc

import cases
import numpy as np
import pytest
import torch
from contenders.torch_cells import loops
from torch.nn.utils.rnn import pack_padded_sequence

import fastrnn as fr
import fastrnn.training as tr
from fastrnn.cells import gallery
from fastrnn.kernels import roofline

torch.set_num_threads(1)
LAYERS = {"lstm": tr.LSTM, "gru": tr.GRU, "rnn": tr.RNN}
MODULES = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU, "rnn": torch.nn.RNN}
KEPT = {"lstm": ({}, {"peepholes": True}, {"num_layers": 2, "bidirectional": True}), "gru": ({}, {"reset_after": False}), "rnn": ({},)}


@pytest.mark.parametrize("case", cases.TRAINING, ids=str)
def test_training(race, case):
    net, module = tr.Sequential(LAYERS[case.kind](case.I, case.H, seed=0)), MODULES[case.kind](case.I, case.H)
    module.load_state_dict({name: torch.tensor(a) for name, a in net.layers[0].state_dict().items()})
    target, lengths = np.random.default_rng(2).standard_normal((case.T, case.B, case.H)).astype(np.float32), case.lengths
    x, wanted = torch.tensor(case.x), torch.tensor(target)
    optimiser, theirs = tr.Adam(net, lr=1e-4), torch.optim.Adam(module.parameters(), lr=1e-4)

    def ours():
        loss, grads = tr.value_and_grad(net, tr.mean_squared_error, case.x, target, lengths=lengths)
        optimiser.step(grads)
        return loss, grads

    def rows(a):
        return a if lengths is None else pack_padded_sequence(a, torch.tensor(lengths), enforce_sorted=False).data

    def torchs():
        theirs.zero_grad()
        given = x if lengths is None else pack_padded_sequence(x, torch.tensor(lengths), enforce_sorted=False)
        y = module(given)[0]
        loss = torch.nn.functional.mse_loss(y if lengths is None else y.data, rows(wanted))
        loss.backward()
        theirs.step()
        return loss.item()

    (loss, grads), wanted_loss = ours(), torchs()
    assert abs(loss - wanted_loss) <= 1e-5 * wanted_loss
    for name, parameter in module.named_parameters():
        assert np.abs(grads["0." + name] - parameter.grad.numpy()).max() <= 1e-4 * parameter.grad.abs().max()
    race({"fastrnn": ours, "torch": torchs}, case)


@pytest.mark.parametrize("cell", gallery.CELLS, ids=lambda c: c.name)
@pytest.mark.parametrize("H,T,B", cases.CELL_TRAINING)
def test_cell_training(race, cell, H, T, B):
    """Loss and all gradients, beside autograd over a loop in PyTorch that projects its input at once and indexes it, and over one that unbinds it."""
    layer, random = fr.Recurrent(cell, H, H, seed=0), np.random.default_rng(1)
    net = tr.Sequential(tr.Recurrent(cell, H, H))
    net.layers[0].load_state_dict(layer.state_dict())
    x, dt, target = random.standard_normal((T, B, H)), random.uniform(0, 2, (T, B)), random.standard_normal((T, B, H))
    given, wanted = np.concatenate([x, dt[..., None]][: 1 + len(cell.scalars)], 2).astype(np.float32), target.astype(np.float32)
    loop, (rows, gaps, goal) = loops(cell, layer)[0], (torch.from_numpy(a).float() for a in (x, dt, target))
    tensors = [t.requires_grad_() for part in (loop, loop.step) for t in vars(part).values() if isinstance(t, torch.Tensor) and t.numel()]

    def ours():
        return tr.value_and_grad(net, tr.mean_squared_error, given, wanted)

    def torchs(unbind=False):
        for t in tensors:
            t.grad = None
        loss = torch.nn.functional.mse_loss(loop(rows, gaps, unbind), goal)
        loss.backward()
        return loss.item()

    (loss, grads), theirs = ours(), torchs()
    assert abs(loss - theirs) <= 1e-5 * theirs
    if (matrix := grads.get("0.weight_hh_l0")) is not None:
        assert np.abs(matrix.T - loop.step.r.grad.numpy()).max() <= 1e-4 * np.abs(matrix).max()
    parameters = layer.state_dict()
    products = (
        2 * parameters["weight_ih_l0"].size + 3 * parameters.get("weight_hh_l0", np.empty(0)).size
    )  # forward and its gradient; the loop there, back and its gradient
    work = roofline.Work(2 * T * B * products, sum(a.nbytes for a in parameters.values()))
    race({"fastrnn": ours, "torch loop": torchs, "torch loop, unbind": lambda: torchs(True)}, f"{cell.name} H={H} T={T} B={B}", work=work)


def held(value, seen: set) -> int:
    """Bytes of the arrays in what layers keep, each once."""
    if isinstance(value, np.ndarray):
        while isinstance(value.base, np.ndarray):
            value = value.base
        new = id(value) not in seen
        seen.add(id(value))
        return value.nbytes if new else 0
    inside = value if isinstance(value, (tuple, list)) else vars(value).values() if hasattr(value, "directions") or hasattr(value, "suffix") else ()
    return sum(held(v, seen) for v in inside)


@pytest.mark.parametrize(
    "kind,H,options", [(kind, H, o) for kind, H in (("lstm", 36), ("lstm", 128), ("gru", 46), ("rnn", 100)) for o in KEPT[kind]], ids=str
)
def test_training_memory(record, kind, H, options):
    T, B, I = 200, 16, 88
    layer, random = LAYERS[kind](I, H, seed=0, **options), np.random.default_rng(1)
    net, x, target = (
        tr.Sequential(layer, tr.Linear(layer.gives, I)),
        random.standard_normal((T, B, I)).astype(np.float32),
        random.integers(0, 2, (T, B, I)).astype(np.float32),
    )

    def run():
        rows, run = net.enter(x)
        y, saved, _ = net.forward(rows, run)
        kept = held([y, *saved], set())
        del y, saved
        tracemalloc.start()
        tr.value_and_grad(net, tr.binary_cross_entropy, x, target)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return {"kept_bytes": kept, "peak_bytes": peak + x.nbytes}

    record(run, f"{kind.upper()} I={I} H={H} T={T}" + "".join(f" {name}={value}" for name, value in options.items()))
