"""Complex numbers at a model's inputs and outputs, in its weights and inside of it: operators one by one, and networks that denoise spectra."""

import numpy as np
import pytest

import fastrnn as fr
from fastrnn.testing import TOLERANCES

torch = pytest.importorskip("torch")
from functions import Function

F = torch.nn.functional
torch.manual_seed(0)
X = torch.randn(3, 4, 5)
Z = torch.complex(torch.randn(3, 4, 5), torch.randn(3, 4, 5))
W = torch.complex(torch.randn(2, 5), torch.randn(2, 5))


def _assigned(z):
    z = z.clone()
    z[:, 0] = 0
    z[:, 1] = 2 - 1j
    return z


CASES = {
    "as_it_is": (lambda z: z, Z), "transforms": (lambda x: (torch.fft.rfft(x), torch.fft.ifft2(x), torch.fft.ihfft(x, dim=1)), X),
    "parts": (lambda z: (z.real, z.imag, z.abs(), z.angle(), z.conj(), z.conj().imag, torch.view_as_real(z)), Z),
    "arithmetic": (lambda z, x: (z * z + 1j * x, z - x, 2 - z, z / (z + 3), x / z, torch.add(z, x, alpha=2j), z.reciprocal(), -z), Z, X),
    "mixed": (lambda z, x: (torch.cat([z, x], 1), torch.stack([x, z]), torch.where(x > 0, z, x), torch.where(x > 0, z, 1.5)), Z, X),
    "powers": (lambda z: (z**2, z**3, z**0.5, z**-1, z**1.7, z.square(), torch.sqrt(z), torch.rsqrt(z)), Z),
    "functions": (lambda z: (z.exp(), z.log(), z.log10(), z.sin(), z.cos(), z.sinh(), z.cosh(), z.tanh(), z.sigmoid(), torch.sgn(z)), Z),
    "products": (lambda z: (z @ z.mH, torch.einsum("bij,bkj->bik", z, z.conj()), F.linear(z, W), torch.vdot(z[0, 0], z[0, 1]), torch.baddbmm(z @ z.mT, z, z.mH, beta=1j)), Z),
    "reductions": (lambda z: (z.sum(), z.mean(1), z.cumsum(2), torch.linalg.vector_norm(z, dim=1), z.norm(1)), Z),
    "moved": (lambda z: (z.permute(2, 0, 1), z[:, 1:, ::2], z.flip(1), z.roll(1, 2), F.pad(z, (1, 2), value=0.5), z.unfold(2, 3, 1), z.tile(1, 2, 1), z[:, torch.tensor([3, 0])]), Z),
    "filled": (lambda z: (torch.zeros_like(z) + z, torch.ones_like(z) * z, torch.full_like(z, 1 + 2j) + z, z.masked_fill(z.real > 0, 3j), _assigned(z)), Z),
    "compared": (lambda z: (z == z.conj(), z != z.real, torch.isnan(z / 0), torch.isinf(z / 0)), Z),
    "constants": (lambda z: (z * torch.tensor([1 + 2j, 3j, 1, 2, 3]), F.conv1d(z, torch.full((2, 4, 3), 1j)), W.conj() * 2 + z[0, :2]), Z),
    "double": (lambda z: (z.to(torch.complex128), z.to(torch.complex128).permute(2, 0, 1)), Z), "from_numbers": (lambda x: torch.exp(1j * x), X),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_operators_on_complex_numbers(name):
    function, *inputs = CASES[name]
    model = fr.from_torch(Function(function), tuple(inputs), tolerance=TOLERANCES["network"])
    got, want = fr.compile(model)(*(t.numpy() for t in inputs)), function(*inputs)
    for g, w in zip(got if isinstance(got, tuple) else (got,), want if isinstance(want, tuple) else (want,), strict=True):
        assert g.dtype == w.resolve_conj().resolve_neg().numpy().dtype and g.shape == w.shape


def test_roots_and_logarithms_where_numbers_cancel():
    """Of 0, on the negative axis, of numbers whose squares are out of range, and where a real part is small beside the size."""
    session = fr.compile(fr.from_torch(Function(lambda z: (z.sqrt(), z.abs(), z.tanh(), z**0.3)), (Z[0],)))
    z = torch.tensor([[0j, -1 + 0j, 1e-20j, 1e20 + 1e20j, -3e-5 + 1e-3j], [-4 - 0.0j, 3j, -3j, 1e-30 - 1e-20j, -1e-3 + 40j]])
    for got, want in zip(session(z.numpy()), (z.sqrt(), z.abs(), z.tanh(), z**0.3)):
        np.testing.assert_allclose(got, want.numpy(), rtol=4e-6, atol=0)


class Denoiser(torch.nn.Module):
    """A spectrum, a mask for it by a GRU, and back to a waveform. how: the mask is of sizes; a complex factor; of sizes and an angle apart."""

    N, HOP = 32, 8

    def __init__(self, how: str, batch_first: bool):
        super().__init__()
        self.how, self.batch_first = how, batch_first
        bins = self.N // 2 + 1
        self.rnn = torch.nn.GRU(bins * (2 if how == "factor" else 1), 12, batch_first=batch_first)
        self.out = torch.nn.Linear(12, bins * (2 if how == "factor" else 1))
        self.register_buffer("window", torch.hann_window(self.N))

    def mask(self, features):
        """(B, bins, frames) to the same."""
        turned = features.transpose(1, 2) if self.batch_first else features.permute(2, 0, 1)
        y = self.out(self.rnn(turned)[0])
        return y.transpose(1, 2) if self.batch_first else y.permute(1, 2, 0)

    def spectrum(self, x):
        return torch.stft(x, self.N, self.HOP, window=self.window, return_complex=True)

    def masked(self, z):
        if self.how == "size":
            return z * torch.sigmoid(self.mask(torch.log1p(z.abs())))
        if self.how == "polar":
            return torch.polar(z.abs() * torch.sigmoid(self.mask(z.abs())), z.angle())
        parts = torch.view_as_real(z)
        re, im = self.mask(torch.cat([parts[..., 0], parts[..., 1]], 1)).tanh().chunk(2, 1)
        return z * torch.complex(re, im)

    def forward(self, x):
        z = self.masked(self.spectrum(x))
        return torch.istft(z, self.N, self.HOP, window=self.window, length=x.shape[-1]), z


@pytest.mark.parametrize(
    "how,batch_first",
    [(how, order) if (how, order) in (("size", False), ("factor", True)) else pytest.param(how, order, marks=pytest.mark.sweep)
     for how in ("size", "factor", "polar") for order in (True, False)],
)  # fmt: skip
def test_denoisers_of_waveforms(how, batch_first):
    torch.manual_seed(1)
    net = Denoiser(how, batch_first).eval()
    x = torch.randn(2, 160)
    model = fr.from_torch(net, (x,))
    wave, spectrum = fr.compile(model)(x.numpy())
    with torch.no_grad():
        want = net(x)
    assert spectrum.dtype == np.complex64
    for got, w in zip((wave, spectrum), want):
        np.testing.assert_allclose(got, w.numpy(), rtol=0, atol=2e-5 * float(w.abs().max()))


class Frames(torch.nn.Module):
    """Frames of a spectrum (T, B, bins), complex in and out."""

    def __init__(self):
        super().__init__()
        self.rnn, self.out = torch.nn.GRU(18, 12), torch.nn.Linear(12, 9)

    def forward(self, z):
        y, _ = self.rnn(torch.cat([z.real, z.imag], -1))
        return z * torch.sigmoid(self.out(y)) * torch.polar(torch.ones(9), torch.linspace(0, 3, 9))


def test_frames_of_complex_numbers_stream():
    """A step at a time and in chunks as all at once; alone as in a batch; from a file as from the module."""
    torch.manual_seed(2)
    net, z = Frames().eval(), torch.complex(torch.randn(7, 3, 9), torch.randn(7, 3, 9))
    session = fr.compile(fr.from_torch(net, (z,)))
    whole = session(z.numpy())
    with torch.no_grad():
        np.testing.assert_allclose(whole, net(z).numpy(), rtol=0, atol=1e-5)
    stream, chunked = session.stream(batch=3), session.stream(batch=3)
    assert np.array_equal(np.stack([stream.step(frame) for frame in z.numpy()]), whole)
    assert np.array_equal(np.concatenate([chunked.push(part) for part in (z[:3].numpy(), z[3:].numpy())]), whole)
    assert np.array_equal(session(z[:, 1:2].numpy()), whole[:, 1:2])
    pool = session.pool(capacity=4)
    ids = [pool.open() for _ in range(3)]
    assert np.array_equal(np.stack([pool.step(ids, frame) for frame in z.numpy()]), whole)
    with pytest.raises(fr.DTypeError, match="complex64"):
        session(z.to(torch.complex128).numpy())


def test_complex_models_on_disk(tmp_path):
    torch.manual_seed(2)
    model = fr.from_torch(Frames().eval(), (Z[..., :1].expand(3, 4, 9).contiguous(),))
    model.save(tmp_path / "model.safetensors")
    again = fr.load(tmp_path / "model.safetensors")
    assert [v.dtype for v in (*again.inputs, *again.outputs)] == ["complex64", "complex64"]
    z = Z.repeat(1, 1, 2)[..., :9].numpy()
    assert np.array_equal(fr.compile(again)(z), fr.compile(model)(z))
