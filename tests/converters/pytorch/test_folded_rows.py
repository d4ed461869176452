"""Heads over rows of all steps at once, as speech recognisers and language models of old have them, batch first or behind time: they stream and pool with the bits of the whole."""

import io

import numpy as np
import pytest

import fastrnn as fr

torch = pytest.importorskip("torch")
from torch import nn

HEADS = {
    "view": lambda net, y, a, b: torch.relu(net.head(y.contiguous().view(a * b, -1))).view(a, b, -1),
    "reshape": lambda net, y, a, b: net.head(y.reshape(-1, 6)).reshape(a, b, 3),
    "flatten": lambda net, y, a, b: net.head(y.flatten(0, 1)).unflatten(0, (a, b)),
    "twice": lambda net, y, a, b: torch.tanh(net.head(y.reshape(a * b, 6)).reshape(a, b, 3)).flatten(0, 1).view(a, b, 3),
    "back": lambda net, y, a, b: net.behind(net.head(y.reshape(a * b, 6)).view(a, b, 3))[0],
    "mixed": lambda net, y, a, b: net.head(y.reshape(b, a, 6)),
}


class Folded(nn.Module):
    """Two axes of a layer's outputs in one, a head, and two again."""

    def __init__(self, head, batch_first):
        super().__init__()
        self.layer, self.head = nn.GRU(4, 6, batch_first=batch_first), nn.Linear(6, 3)
        self.behind, self.how = nn.LSTM(3, 3, batch_first=batch_first), head

    def forward(self, x):
        y = self.layer(x)[0]
        return HEADS[self.how](self, y, y.size(0), y.size(1))


def read(module, form):
    x = torch.randn(7, 3, 4)
    if form == "torch":
        return fr.from_torch(module, (x,))
    file, axes = io.BytesIO(), {0: "a", 1: "b"}
    torch.onnx.export(module, (x,), file, input_names=["x"], output_names=["y"], dynamic_axes={"x": axes, "y": axes}, opset_version=17, dynamo=False)
    return fr.from_onnx(file.getvalue())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("form", ["torch", "onnx"])
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("head", HEADS)
def test_rows_of_all_steps(head, batch_first, form):
    torch.manual_seed(0)
    session = fr.compile(read(Folded(head, batch_first).eval(), form))
    x = np.random.default_rng(0).standard_normal((9, 5, 4)).astype(np.float32)
    if head == "mixed":
        with pytest.raises(fr.NotStreamableError, match="mixes time steps|another sequence"):
            session.stream(5)
        return
    whole = session(np.ascontiguousarray(x.swapaxes(0, 1))).swapaxes(0, 1) if batch_first else session(x)
    stream, pool = session.stream(5), session.pool(8)
    assert np.array_equal(np.concatenate([stream.push(x[:4]), [stream.step(x[4])], stream.push(x[5:])]), whole)
    handles = [pool.open() for _ in range(5)]
    order = [3, 0, 4, 1, 2]
    assert np.array_equal(np.stack([pool.step([handles[k] for k in order], step[order]) for step in x]), whole[:, order])
