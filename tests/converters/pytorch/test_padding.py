"""What pad_packed_sequence gives ends at the longest row, in torch; a model's goes on to the last step of the input. Where that matters, rows that all end before are refused."""

import numpy as np
import pytest

import fastrnn as fr

torch = pytest.importorskip("torch")
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

ENDINGS = {  # of y (T, B, 5): whether rows that nobody reaches count
    "mean": (lambda m, y: y.mean(0), True), "last": (lambda m, y: y[-1], True), "max": (lambda m, y: y.amax(0), True), "flip": (lambda m, y: y.flip(0)[0], True),
    "std": (lambda m, y: y.std(0), True), "biased sum": (lambda m, y: m.linear(y).sum(0), True), "another layer": (lambda m, y: m.second(y)[1], True),
    "steps": (lambda m, y: y * y.shape[0], True), "attention": (lambda m, y: torch.einsum("tbh,sbh->bts", y, y).softmax(-1).amax(-1).sum(-1), True),
    "rows": (lambda m, y: y.reshape(-1, 5)[-1], True), "last of the last": (lambda m, y: y[-1, -1], True),
    "itself": (lambda m, y: y, False), "each step": (lambda m, y: m.linear(y), False), "sum": (lambda m, y: y.sum(0), False), "first": (lambda m, y: y[0], False),
}  # fmt: skip
LENGTHS = {"one whole": [6, 2, 4], "all short": [4, 1, 3], "all the same": [4, 4, 4]}


class Padded(nn.Module):
    def __init__(self, kind, end, first, total, ordered):
        super().__init__()
        self.layer, self.linear, self.second = kind(3, 5, batch_first=first), nn.Linear(5, 2), nn.GRU(5, 4, bidirectional=True)
        self.end, self.first, self.total, self.ordered = end, first, total, ordered

    def forward(self, x, n):
        x = x.transpose(0, 1) if self.first else x
        packed = pack_padded_sequence(x, n, batch_first=self.first, enforce_sorted=self.ordered)
        y, _ = pad_packed_sequence(self.layer(packed)[0], batch_first=self.first, total_length=x.shape[self.first] if self.total else None)
        return self.end(self, y.transpose(0, 1) if self.first else y)


@pytest.mark.parametrize("total", [False, True], ids=["cut", "total_length"])
@pytest.mark.parametrize("ending", ENDINGS)
def test_rows_that_all_end_early(ending, total):
    torch.manual_seed(3)
    end, counts = ENDINGS[ending]
    which = list(ENDINGS).index(ending)  # layers, layouts and orders in turns
    module = Padded((nn.LSTM, nn.GRU, nn.RNN)[which % 3], end, which % 2 == 1, total, which % 4 > 1).eval()
    model = fr.from_torch(module, (torch.randn(5, 3, 3), torch.tensor([5, 4, 2])))
    session = fr.compile(model)
    for name, lengths in LENGTHS.items():
        x, n = torch.randn(6, 3, 3), torch.tensor(sorted(lengths, reverse=True) if module.ordered else lengths)
        wanted, given = module(x, n).detach().numpy(), {"x": x.numpy(), "n": n.numpy()}
        if counts and not total and name != "one whole":
            with pytest.raises(fr.ShapeError, match="torch cuts what it pads at the longest row.*total_length"):
                session.run(given)
        else:
            got = session.run(given)["y"]
            assert np.abs(got[: len(wanted)] - wanted).max() <= 2e-6 and (len(got) == len(wanted) or not counts)


class Masked(nn.Module):
    """Lengths out of the data, which nobody can draw."""

    def __init__(self, end):
        super().__init__()
        self.layer, self.end = nn.GRU(3, 5), end

    def forward(self, x):
        y, h = self.layer(pack_padded_sequence(x, (x.abs().sum(-1) > 0).sum(0), enforce_sorted=False))
        return self.end(pad_packed_sequence(y)[0], h)


@pytest.mark.parametrize(
    "end,counts", [(lambda y, h: y.mean(0), True), (lambda y, h: y.sum(0), True), (lambda y, h: h[-1], False)], ids=["mean", "sum", "state"]
)
def test_lengths_that_the_module_computes(end, counts):
    torch.manual_seed(4)
    module = Masked(end).eval()
    session = fr.compile(fr.from_torch(module, torch.randn(5, 3, 3)))
    x = torch.randn(7, 3, 3)
    x[2:, 1] = 0
    assert np.abs(session(x.numpy()) - module(x).detach().numpy()).max() <= 2e-6
    x[6:] = 0
    if counts:
        with pytest.raises(fr.ShapeError, match="torch cuts what it pads at the longest row"):
            session(x.numpy())
    else:
        assert np.abs(session(x.numpy()) - module(x).detach().numpy()).max() <= 2e-6
