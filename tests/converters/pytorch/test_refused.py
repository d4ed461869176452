"""Modules and examples that from_torch refuses by name: half precision chosen by torch, parameters without values, inputs that the module itself does not take."""

import numpy as np
import pytest

import fastrnn as fr

torch = pytest.importorskip("torch")
from functions import Of
from torch import nn

X = torch.randn(4, 2, 3)


class Lowered(nn.Module):
    """Computes in half the bits, by torch's choice of where."""

    def __init__(self, kind):
        super().__init__()
        self.layer = kind(3, 5)

    def forward(self, x):
        with torch.autocast("cpu", torch.bfloat16):
            return self.layer(x)[0].float()


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN], ids=lambda k: k.__name__)
def test_autocast(kind):
    """In forward it is refused; around the conversion it has to do with the caller, not with the module."""
    with pytest.raises(fr.UnsupportedModelError, match=r"forward has torch.autocast on, so torch computes it in torch\.bfloat16"):
        fr.from_torch(Lowered(kind).eval(), X)
    layer = kind(3, 5).eval()
    module = nn.Sequential(layer) if kind is nn.GRU else Of(lambda parts, x: layer(x)[0])
    with torch.autocast("cpu", torch.bfloat16):
        model = fr.from_torch(module, X)
    assert np.abs(next(iter(fr.compile(model).run({model.input_names[0]: X.numpy()}).values())) - layer(X)[0].detach().numpy()).max() <= 2e-6


@pytest.mark.parametrize("example", [True, False])
@pytest.mark.parametrize(
    "module", [nn.Sequential(nn.LSTM(3, 5), nn.LazyLinear(2)), nn.Sequential(nn.LazyConv1d(4, 3), nn.LazyBatchNorm1d())], ids=["linear", "conv"]
)
@pytest.mark.filterwarnings("ignore:Lazy modules are a new feature")
def test_lazy_modules_are_refused_until_they_were_called(module, example):
    with pytest.raises(fr.UnsupportedModelError, match=r"'\d\.weight' has no values yet.*call the lazy module once"):
        fr.from_torch(module, X if example else None)


@pytest.mark.parametrize(
    "example,says",
    [
        (torch.randn(4, 2, 7), "RuntimeError"),
        (torch.randn(0, 2, 3), "RuntimeError"),
        (torch.ones(4, 2, 3, dtype=torch.int64), "ValueError"),
        (torch.randn(4, 2, 3, device="meta"), "RuntimeError"),
        ("words", "AttributeError"),
    ],
    ids=["width", "empty", "dtype", "device", "text"],
)
@pytest.mark.parametrize("buffer", [False, True])
def test_an_example_that_the_module_does_not_take(example, says, buffer):
    module = Of(lambda parts, x: parts["layer"](x)[0], layer=nn.LSTM(3, 5))
    if buffer:
        module.register_buffer("kept", torch.zeros(1))
    with pytest.raises(fr.UnsupportedModelError, match=f"the module does not take the example inputs: {says}: "):
        fr.from_torch(module, example)


def test_a_module_that_raises_of_itself():
    with pytest.raises(fr.UnsupportedModelError, match="the module does not take the example inputs: ZeroDivisionError"):
        fr.from_torch(Of(lambda parts, x: x / (x.shape[0] // 0)), X)


def test_arrays_are_no_examples():
    for example in (X.numpy(), (X.numpy(),), {"x": X.numpy()}):
        with pytest.raises(fr.DTypeError, match=r"pass torch\.from_numpy"):
            fr.from_torch(Of(lambda p, x: x * 2), example)


@pytest.mark.parametrize(
    "function,error,says",
    [
        (
            lambda parts, x: torch.complex(x, x).asin().real,
            fr.UnsupportedModelError,
            r"aten\.asin\.default.*of complex numbers this operator is not supported",
        ),
        (lambda parts, x: torch.complex(x, x).to(torch.complex32).real.float(), fr.DTypeError, "complex32"),
        (lambda parts, x: torch.bernoulli(x.sigmoid()), fr.UnsupportedModelError, "it draws random numbers"),
    ],
    ids=["operator", "halves", "random"],
)
@pytest.mark.filterwarnings("ignore:ComplexHalf")
def test_complex_and_random_numbers(function, error, says):
    with pytest.raises(error, match=says):
        fr.from_torch(Of(function), X)


def test_where_torch_itself_fails():
    """An assertion inside of torch 2.13, which other versions may not have."""
    try:
        fr.from_torch(Of(lambda parts, x: x.clone().resize_as_(x[:2])), X)
    except fr.UnsupportedModelError as error:
        assert "torch" in str(error)
