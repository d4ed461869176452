"""Operators of torch one by one through from_torch, which compares with torch by itself; here at a tighter tolerance, and each says its inputs."""

import pytest

import fastrnn as fr
from fastrnn.testing import TOLERANCES

torch = pytest.importorskip("torch")
from functions import Function

F = torch.nn.functional
X = (torch.linspace(-2.4, 2.6, 3 * 4 * 5).reshape(3, 4, 5) * torch.tensor([1.0, -0.7, 0.3, 1.1, -1.3])).contiguous()
P = X.abs() + 0.1
I = torch.arange(60).reshape(3, 4, 5) * 7 % 11 - 3
B = I > 1
INDEX = torch.tensor([[0, 2], [1, 0]])
PLACES = (torch.arange(60) * 7 % 4).reshape(3, 4, 5)


ONE = {  # of X
    "relu": torch.relu, "log_sigmoid": F.logsigmoid, "mish": F.mish, "softsign": F.softsign, "selu": F.selu, "celu": lambda x: F.celu(x, 0.7),
    "elu": lambda x: F.elu(x, 0.3), "gelu": lambda x: F.gelu(x, approximate="tanh"), "relu6": F.relu6, "hardtanh": lambda x: F.hardtanh(x, -0.3, 0.8),
    "hardsigmoid": F.hardsigmoid, "hardswish": F.hardswish, "softplus": lambda x: F.softplus(x, 2.0, 30.0),
    "threshold": lambda x: F.threshold(x, 0.1, -0.5),
    "leaky": lambda x: F.leaky_relu(x, 0.3), "expm1": torch.expm1, "exp2": torch.exp2, "erf": torch.erf, "square": torch.square, "sign": torch.sign,
    "round": torch.round, "floor_ceil": lambda x: x.floor() + x.ceil(), "rsub": lambda x: 2 - x, "alpha": lambda x: torch.add(x, x * x, alpha=0.5),
    "div": lambda x: x / 3, "floor_div": lambda x: torch.div(x, 0.7, rounding_mode="floor"), "remainder": lambda x: x % 0.7,
    "fmod": lambda x: torch.fmod(x, 0.7),
    "pow3": lambda x: x**3, "pow_scalar": lambda x: 2.0**x, "clamp": lambda x: x.clamp(min=-1), "clamp_tensor": lambda x: x.clamp(max=x.mean()),
    "compare": lambda x: ((x > 0.1) & (x <= 2) | (x != 0)).to(torch.float32), "where": lambda x: torch.where(x > 0, x, -1.0),
    "isnan": lambda x: torch.isnan(x / x.clamp(min=0)),
    "lerp": lambda x: torch.lerp(x, x * 2, 0.3), "addcmul": lambda x: torch.addcmul(x, x, x, value=0.5), "to_int": lambda x: x.to(torch.int64),
    "to_double": lambda x: x.double() * 2,
    "sum": lambda x: (x.sum(), x.sum(0), x.sum((0, 2), keepdim=True)), "mean": lambda x: (x.mean(), x.mean(-1)),
    "max": lambda x: (x.max(), *x.max(1), x.amax((1, 2))),
    "min": lambda x: (x.min(), *x.min(2, keepdim=True), x.amin(0)), "prod": lambda x: (x.prod(2), (x * 0 + 1.01).prod()),
    "argmax": lambda x: (x.argmax(1), x.argmin(-1, keepdim=True), x.argmax()),
    "var": lambda x: (x.var(1), x.std(-1, unbiased=False), x.var()),
    "norm": lambda x: (x.norm(dim=1), torch.linalg.vector_norm(x, 1, -1), F.normalize(x, dim=2)),
    "logsumexp": lambda x: torch.logsumexp(x, 1), "cumsum": lambda x: x.cumsum(1), "any": lambda x: ((x > 2).any(1), (x < 9).all()),
    "softmin": lambda x: F.softmin(x, 1),
    "log_softmax": lambda x: x.log_softmax(1), "permute": lambda x: x.permute(2, 0, 1),
    "transposes": lambda x: x.mT + x.transpose(-1, -2) + x.swapaxes(1, 2),
    "views": lambda x: x.reshape(-1, 5).view(3, 2, 2, 5).flatten(1, 2).unflatten(-1, (5, 1)).squeeze(-1),
    "squeeze": lambda x: x.unsqueeze(0).unsqueeze(-1).squeeze(),
    "expand": lambda x: x[:, :1].expand(-1, 6, -1), "slices": lambda x: (x[1:, ::2, -3:-1], x[..., 2], x[-1], x[:, None, 1:3]),
    "narrow": lambda x: x.narrow(1, 1, 2),
    "cat": lambda x: torch.cat([x, x[:, :1], torch.zeros(0)], 1), "stack": lambda x: torch.stack([x, -x], -1), "chunk": lambda x: x.chunk(3, 1),
    "split": lambda x: x.split([1, 3], 1),
    "unbind": lambda x: x.unbind(2), "flip": lambda x: x.flip(0, 2), "roll": lambda x: x.roll(2, 1),
    "repeat": lambda x: (x.repeat(2, 1, 3), x.repeat(2, 1, 1, 1)), "tile": lambda x: x.tile(2),
    "interleave": lambda x: x.repeat_interleave(3, 1), "pad": lambda x: (F.pad(x, (1, 2)), F.pad(x, (0, 0, 2, 1), value=3.0)),
    "pad_modes": lambda x: [F.pad(x, (2, 1), mode=m) for m in ("reflect", "replicate", "circular")],
    "unfold": lambda x: x.unfold(1, 2, 1), "index_select": lambda x: x.index_select(1, torch.tensor([3, 0, 0])),
    "index": lambda x: (x[:, INDEX], x[INDEX[0], INDEX[1]], x[:, INDEX[0], INDEX[1]]),
    "gather": lambda x: x.gather(1, torch.tensor([[[0, 3, 1, 2, 0]]] * 3)),
    "scatter": lambda x: x.scatter(1, torch.tensor([[[0, 3, 1, 2, 0]]] * 3), 9.0), "topk": lambda x: x.topk(2, 1),
    "sort": lambda x: x.sort(-1, descending=True),
    "tri": lambda x: (x.tril(), x.triu(1), torch.ones(4, 4).tril(-1) + x[0, :, :4]),
    "fill": lambda x: (torch.full_like(x, 2), torch.ones_like(x[0]), x.new_full((2, 2), 3.0), torch.zeros_like(x)),
    "arange": lambda x: torch.arange(x.shape[1]) * 2 + torch.arange(1, 9, 2), "in_place": lambda x: x.clone().mul_(2).add_(1).clamp_(min=0),
    "assign": lambda x: _assigned(x),
    "einsum": lambda x: torch.einsum("bij,bkj->bik", x, x),
    "matmul": lambda x: (x @ x.mT, x[0] @ x[0, 1], torch.baddbmm(x[:, :, :4], x, x.mT, beta=0.5)),
    "addmm": lambda x: torch.addmm(x[0, 0], x[1], x[2].T @ x[1]),
    "outer": lambda x: torch.outer(x[0, 0], x[0, 1]), "cdist": lambda x: torch.linalg.norm(x.unsqueeze(2) - x.unsqueeze(1), dim=-1),
    "pools": lambda x: (F.max_pool1d(x, 2), F.avg_pool1d(x, 3, 2, 1), F.adaptive_max_pool1d(x, 1), F.adaptive_avg_pool1d(x, 5)),
    "pool2d": lambda x: (F.max_pool2d(x[None], 2, 1, 1), F.avg_pool2d(x, (2, 3), ceil_mode=True), F.adaptive_avg_pool2d(x[None], 1)),
    "nearest": lambda x: F.interpolate(x, scale_factor=2, mode="nearest"),
    "layer_norm": lambda x: F.layer_norm(x, (4, 5)), "rms": lambda x: F.rms_norm(x, (5,)), "group": lambda x: F.group_norm(x, 2),
    "instance": lambda x: F.instance_norm(x), "glu": lambda x: F.glu(x, 1),
    "conv": lambda x: F.conv1d(x, torch.ones(2, 4, 3) / 3, padding="same"),
    "conv_alone": lambda x: F.conv1d(x[0], torch.ones(2, 4, 3) / 3, stride=2),
    "transposed": lambda x: F.conv_transpose1d(x, torch.ones(4, 2, 3), stride=2, output_padding=1),
    "one_hot": lambda x: F.one_hot((x > 0).long(), 3).float(), "no_grad": lambda x: _without_gradients(x),
    "cosine": lambda x: F.cosine_similarity(x[:, :2], x[:, 2:], dim=-1),
    "trigonometry": lambda x: (x.clamp(-0.9, 0.9).acos(), x.clamp(-0.9, 0.9).asin(), x.atan(), x.asinh(), x.sinh(), x.cosh(), x.tan(), (x / 3).atanh(), (1 + x * x).acosh()),
    "signs": lambda x: (x.trunc(), x.frac(), x.round(decimals=1), (x * 30).round(decimals=-1), torch.signbit(x), torch.copysign(x.abs(), x.flip(2)), x.angle(),
                        torch.div(x, 0.7, rounding_mode="trunc"), torch.isinf(x / x.clamp(min=0))),
    "two": lambda x: (torch.atan2(x, x.flip(2)), torch.hypot(x, x.flip(0)), torch.fmax(x, x.flip(1)), torch.fmin(x, x.flip(1)), torch.ldexp(x, torch.tensor(3))),
    "gamma": lambda x: (torch.erfc(x), torch.special.erfcx(x), torch.lgamma(x), torch.digamma(x), torch.erfinv(x / 3)),
    "bessel": lambda x: (torch.i0(x), torch.special.i1e(x), torch.special.bessel_j1(x), torch.special.bessel_y0(x.abs() + 0.1), torch.special.modified_bessel_k1(x.abs() + 0.1),
                         torch.special.scaled_modified_bessel_k0(x.abs() + 0.1), torch.special.spherical_bessel_j0(x), torch.special.airy_ai(x), torch.special.ndtri(x / 6 + 0.5)),
    "polynomials": lambda x: (torch.special.chebyshev_polynomial_u(x, 3), torch.special.shifted_chebyshev_polynomial_w(x, 4), torch.special.hermite_polynomial_he(x, PLACES),
                              torch.special.laguerre_polynomial_l(x, 3), torch.special.legendre_polynomial_p(x, PLACES)),
    "gammas": lambda x: (torch.special.gammainc(x.abs() + 0.1, 1.3 * x.abs()), torch.special.gammaincc(x.abs() + 0.1, 1.3 * x.abs()), torch.special.zeta(x.abs() + 1.5, 2),
                         torch.polygamma(0, x), torch.polygamma(1, x.abs() + 0.3), torch.polygamma(3, x.abs() + 0.2)),
    "systems": lambda x: (torch.linalg.det(_square(x)), *torch.linalg.slogdet(_square(x)), torch.linalg.inv(_square(x)), torch.linalg.solve(_square(x), x), torch.linalg.solve(_square(x), x[:, :, 0]),
                          torch.linalg.solve(_square(x), x.mT, left=False), torch.linalg.solve_triangular(_square(x), x, upper=False, unitriangular=True), torch.linalg.pinv(x)),
    "positive": lambda x: (torch.linalg.cholesky(_square(x)), torch.linalg.cholesky(_square(x), upper=True), torch.cholesky_solve(x, torch.linalg.cholesky(_square(x))),
                           torch.cholesky_inverse(torch.linalg.cholesky(_square(x))), torch.linalg.eigvalsh(_square(x))),
    "factors": lambda x: (*torch.linalg.qr(_square(x)[:, :, :3]), torch.linalg.svdvals(x), *torch.linalg.lu(x), *torch.linalg.lu_factor(x), torch.linalg.lu_solve(*torch.linalg.lu_factor(_square(x)), x),
                          torch.linalg.lu_solve(*torch.linalg.lu_factor(_square(x)), x.mT, left=False, adjoint=True), torch.matrix_exp(_square(x) / 9)),
    "fourier": lambda x: (torch.fft.rfft(x).abs(), torch.view_as_real(torch.fft.fft2(x, norm="ortho")), torch.fft.irfft(torch.fft.rfft(x, dim=1) * torch.fft.rfft(x.flip(1), dim=1), 4, dim=1),
                          torch.fft.ifft(x).imag, torch.fft.hfft(x), torch.fft.fftshift(torch.fft.fft(x), -1).angle(), torch.fft.ihfft(x).conj().imag),
    "complex": lambda x: (torch.view_as_real((torch.complex(x, x.flip(1)) * (1 + 2j) / torch.polar(x.abs() + 0.5, x)).conj().exp().sum(1) + x[:, 0]),
                          (torch.complex(x, x.flip(1)) @ torch.complex(x, x.flip(1)).mT).real, torch.view_as_complex(x[:, :, :2].contiguous()).abs()),
    "stft": lambda x: (torch.stft(x.flatten(1), 8, 3, window=torch.hann_window(8), return_complex=True).abs(),
                       torch.istft(torch.stft(x.flatten(1), 8, 2, window=torch.hann_window(8), return_complex=True) * 0.5, 8, 2, window=torch.hann_window(8), length=20)),
    "counted": lambda x: (torch.histc(x, 7), torch.histc(x, 5, -1, 1.5), *torch.histogram(x, 6), *torch.histogram(x, 4, range=(-1.0, 2.0), density=True), *x.round().mode(1), *x.mode(-1, True),
                          torch.nonzero_static(x > 0.3, size=40), torch.nonzero_static(x[0] > 9, size=3, fill_value=7), torch.histc(x * 0 + 2, 3)),
    "bags": lambda x: (*(F.embedding_bag(PLACES[0, 0], x[0], torch.tensor([0, 2, 2]), mode=m) for m in ("sum", "mean", "max")),
                       F.embedding_bag(PLACES[0, 0], x[0], torch.tensor([0, 3, 5]), mode="sum", per_sample_weights=x[1, 0], include_last_offset=True), F.embedding_bag(PLACES[:, 0], x[0])),
    "segments": lambda x: [torch.segment_reduce(x, m, lengths=torch.tensor([2, 0, 1]), initial=i) for m, i in (("sum", None), ("prod", 2.0), ("max", -0.5), ("min", None))]
                          + [torch.segment_reduce(x[0, 0], "mean", offsets=torch.tensor([0, 2, 5]))],
    "floats": lambda x: (torch.nextafter(x, x.flip(2)), *torch.frexp(x)),
    "antialias": lambda x: [F.interpolate(x[None], size=s, mode=m, antialias=True, align_corners=a) for s, m, a in (((2, 3), "bilinear", False), ((7, 2), "bicubic", False), ((3, 4), "bilinear", True))],
    "divisor_ceil": lambda x: (F.avg_pool2d(x, (3, 2), 2, (1, 0), ceil_mode=True, divisor_override=5), F.avg_pool2d(x, 2, ceil_mode=True, divisor_override=3)),
    "pad_and_cut": lambda x: (F.pad(x, (3, -4), mode="replicate"), F.pad(x, (-2, 1), mode="replicate")),
    "softplus_cut": lambda x: F.softplus(x, 2.0, 1.5), "norms": lambda x: [x.norm(p, dim=1) for p in (0, 3, -2, float("inf"), -float("inf"))],
    "median": lambda x: (x.median(), *x.median(1), x.nanmedian(), *x.nanmedian(2, keepdim=True), *x.kthvalue(2, 1)),
    "running": lambda x: (x.cumprod(1), *x.cummax(2), *x.cummin(1), x.logcumsumexp(1)),
    "buckets": lambda x: (torch.bucketize(x, torch.linspace(-2, 2, 6)), torch.searchsorted(x[0].sort(1).values, x[0], right=True)),
    "diagonals": lambda x: (x.diagonal(1, 1, 2), x.diagonal(-1, 0, 2), torch.diag_embed(x[0]), torch.diagonal_scatter(x, x[:, :, 0], 0, 1, 2), x[0].trace()),
    "strides": lambda x: (torch.as_strided(x.clone(), (3, 4), (2, 1), 5), torch.as_strided_scatter(x.clone(), x[0], (4, 5), (5, 1), 20)),
    "joined": lambda x: (x.scatter_add(1, PLACES, x), x.scatter_reduce(1, PLACES, x, "mean"), x.scatter_reduce(1, PLACES, x, "amax", include_self=False),
                         x.scatter_reduce(1, PLACES, x, "prod", include_self=False), x.scatter(1, PLACES[:, :, :3], x)),
    "index_joined": lambda x: (x.index_add(1, INDEX[1], x[:, :2], alpha=0.5), x.index_reduce(1, INDEX[0], x[:, :2], "amin"), x.index_fill(2, INDEX[0], 3.0),
                               x.index_copy(1, INDEX[0], x[:, 2:]), x.put(INDEX, x[0, :2, :2]), x.index_put((INDEX[0], INDEX[1]), x[0, 0], accumulate=True)),
    "masked_scatter": lambda x: x.masked_scatter(x > 0, torch.arange(60.0)),
    "pool_places": lambda x: (*F.max_pool1d(x, 2, return_indices=True), *F.max_pool2d(x[None], 2, 1, 1, return_indices=True), *F.adaptive_max_pool1d(x, 2, return_indices=True)),
    "divisor": lambda x: F.avg_pool2d(x, (2, 3), padding=1, divisor_override=4),
    "natives": lambda x: (*torch.native_layer_norm(x, (4, 5), None, None, 1e-5), *torch.native_group_norm(x, None, None, 3, 4, 5, 2, 1e-5)),
    "own_batch": lambda x: F.batch_norm(x, None, None, training=True), "safe_softmax": lambda x: torch.ops.aten._safe_softmax(torch.where(x[:1] > 9, x, -torch.inf), 1),
    "bilinear": lambda x: F.bilinear(x, x.flip(0), torch.ones(2, 5, 5).cumsum(1)), "distances": lambda x: (torch.cdist(x, x.flip(0), 1.0), F.pdist(x[0]), torch.dist(x, x.flip(0), 3)),
    "added": lambda x: (torch.addmv(x[0, :, 0], x[0], x[0, 0], beta=2), torch.addbmm(x[0], x[:, :, :4], x, alpha=0.5)),
    "interleaved": lambda x: x.repeat_interleave(2), "grid": lambda x: F.grid_sample(x[None], torch.stack([x[0], x[1]], -1)[None] / 3, align_corners=False),
    "grid3": lambda x: [F.grid_sample(x[None, None], torch.stack([x[:2], x[1:], x[:2].flip(2)], -1)[None] * 0.7, mode=m, padding_mode=p, align_corners=a)
                        for m, p, a in (("bilinear", "zeros", False), ("bilinear", "border", True), ("bilinear", "reflection", False), ("bilinear", "reflection", True), ("nearest", "zeros", False))],
    "products": lambda x: (torch.vdot(x[0, 0], x[1, 0]), torch.linalg.vecdot(x, x.flip(0))),
    "covariances": lambda x: (torch.cov(x[0]), torch.cov(x[0, 0], correction=0), torch.corrcoef(x[0]), torch.corrcoef(x[0, 0])),
    "copies": lambda x: (torch.permute_copy(x, (2, 0, 1)), torch.narrow_copy(x, 1, 1, 2), torch.unbind_copy(x)[1], torch.diagonal_copy(x)),
    "meshgrid": lambda x: x[0, 0][torch.meshgrid(torch.arange(2), torch.arange(3), indexing="ij")[1]],
}  # fmt: skip
OTHERS = {
    "log": (lambda x: torch.log(x) + torch.log2(x) + torch.log10(x) + torch.log1p(x), P),
    "roots": (lambda x: x.sqrt() + x.rsqrt() + x**0.5 + x**-1, P),
    "pow": (lambda x, y: x**y, P, X),
    "integers": (lambda x: (x // 2, x % 3, x * 2 - 1, x.float() / 2, x / 2, x.sum(1), -x, x.abs(), x.clamp(0, 2)), I),
    "promotion": (lambda x, y: (x + y, x * 1.5, x > y, x.eq(2)), I, X),
    "truth": (lambda b: (~b, b & ~b, b | b, b ^ True, b.float().mean(), b.sum(1), b.logical_not(), b + b, b * b), B),
    "masked": (lambda x, b: x.masked_fill(b, -1.0), X, B),
    "minmax": (lambda x, y: (torch.maximum(x, y), torch.minimum(x, y)), X, P),
    "attention_mask": (lambda x, b: F.scaled_dot_product_attention(x, x, x, b[:, :, :4]), X, B),
    "float_mask": (lambda x: F.scaled_dot_product_attention(x, x, x, torch.full((4, 4), -torch.inf).triu(1), scale=0.3), X),
    "all_masked": (lambda x, b: F.scaled_dot_product_attention(x, x, x, b[:, :, :4] & False), X, B),
    "numbers": (
        lambda x, i: (
            x.index_select(0, i),
            x.sort(),
            x.cumsum(0),
            x.softmax(0),
            x.logsumexp(0),
            x.unfold(0, 1, 1),
            x.scatter_add(0, i[0], x),
            x.max(0),
            x.argmax(0),
        ),
        torch.tensor(1.7),
        torch.tensor([0]),
    ),
    "gaussian_nll": (
        lambda x, v: (
            F.gaussian_nll_loss(x, x.flip(0), v),
            F.gaussian_nll_loss(x, x.flip(1), v[..., 0], full=True, reduction="sum"),
            F.gaussian_nll_loss(x, x, 0.3, reduction="none"),
        ),
        X,
        P,
    ),
    "ctc": (
        lambda x, labels: [
            F.ctc_loss(x.transpose(0, 1).log_softmax(2), labels, steps, counts, blank=b, reduction=r, zero_infinity=z)
            for steps, counts, b, r, z in (
                ((4, 3, 2), (2, 1, 0), 0, "none", False),
                (torch.tensor([4, 4, 1]), torch.tensor([3, 2, 3]), 4, "none", True),
                ((4, 4, 4), (2, 3, 1), 0, "mean", False),
            )
        ],
        X,
        torch.tensor([[1, 1, 3], [2, 3, 1], [3, 2, 2]]),
    ),
    "ctc_alone": (lambda x: F.ctc_loss(x[0].log_softmax(1), torch.tensor([1, 2]), torch.tensor(4), torch.tensor(2), reduction="sum"), X),
    "ctc_behind": (
        lambda x: F.ctc_loss(x.transpose(0, 1).log_softmax(2), torch.tensor([1, 2, 3, 3, 1, 2]), (4, 4, 3), (1, 3, 2), reduction="none"),
        X,
    ),
    "embedding": (lambda i: F.embedding(i, X[0]), INDEX),
}
CASES = {name: (function, X) for name, function in ONE.items()} | OTHERS


def _square(x):
    """Symmetric and positive definite, of any x."""
    return x @ x.mT + 2 * torch.eye(x.shape[1])


def _assigned(x):
    y = torch.zeros(3, 4, 5)
    y[:, 1] = x[:, 0]
    y[:, 2:, 1:3] = x[:, :2, :2]
    y[torch.tensor([0, 2]), torch.tensor([3, 0])] = x[:2, 0]
    return y


def _without_gradients(x):
    with torch.no_grad():
        return x * 2


@pytest.mark.parametrize("name", CASES)
def test_operator(name):
    function, *inputs = CASES[name]
    fr.from_torch(Function(function), tuple(inputs), tolerance=TOLERANCES["network"])


@pytest.mark.parametrize("mask", [torch.full((4, 4), -torch.inf).triu(1), torch.eye(4) - 0.3])
def test_a_mask_that_may_be_causal(mask):
    """torch asks what is in it, for a hint to kernels."""

    class Masked(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder = torch.nn.TransformerEncoder(torch.nn.TransformerEncoderLayer(5, 1, 7), 2, enable_nested_tensor=False)

        def forward(self, x):
            return self.encoder(x, mask=mask)

    torch.manual_seed(0)
    model = fr.from_torch(Masked().eval(), (torch.randn(4, 3, 5),))
    assert isinstance(model.inputs[0].shape[1], str)  # of any batch


SPECIAL = torch.tensor([0.0, -0.0, 1, -1, 0.3, -0.3, 1e-6, -1e-6, 7, -7, float("inf"), -float("inf"), float("nan")]).reshape(1, 13)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: (x // 0.1, 3 // x, torch.div(x, -0.3, rounding_mode="floor")),
        lambda x: (x % 0.1, x % -0.3, torch.remainder(torch.full_like(x, 3.0), x)),
        lambda x: (torch.sign(x), F.threshold(x, 0.1, 20.0)),
        lambda x: (torch.log1p(x), torch.expm1(x)),
        lambda x: torch.logsumexp(x[:, :, None].expand(-1, -1, 2), 2),
    ],
    ids=["floor_div", "remainder", "nan", "small", "logsumexp"],
)
def test_values_that_no_example_had(function):
    """Quotients that round to a whole number, infinities, NaN, and numbers whose digits 1 + x loses."""
    session = fr.compile(fr.from_torch(Function(function), (torch.randn(3, 13),)))
    got, want = session(SPECIAL.numpy()), function(SPECIAL)
    for g, w in zip(got if isinstance(got, tuple) else (got,), want if isinstance(want, tuple) else (want,)):
        torch.testing.assert_close(torch.from_numpy(g), w, rtol=2e-6, atol=0, equal_nan=True)


def test_reductions_of_nothing():
    session = fr.compile(
        fr.from_torch(Function(lambda x: ((x > 0).any(), (x > 0).all(), (x > 0).to(torch.uint8).all(1), x.var(0))), (torch.randn(3, 4),))
    )
    some, every, rows, var = session(torch.zeros(0, 4).numpy())
    assert not some and every and rows.shape == (0,) and rows.dtype == "uint8" and var.tolist() == pytest.approx([float("nan")] * 4, nan_ok=True)


def test_a_part_that_is_longer_than_the_axis_is_refused():
    session = fr.compile(
        fr.from_torch(Function(lambda x: (x.narrow(1, 1, 3), x.narrow(1, -2, 2), x.narrow(1, x.shape[1] - 2, 2))), (torch.randn(3, 8),))
    )
    x = torch.randn(2, 5)
    for got, want in zip(session(x.numpy()), (x[:, 1:4], x[:, -2:], x[:, -2:])):
        assert torch.equal(torch.from_numpy(got), want)
    for n in (1, 3):
        with pytest.raises(fr.FastRNNError):
            session(torch.randn(2, n).numpy())


def test_variances_are_checked_when_the_model_runs():
    """As torch does."""
    session = fr.compile(fr.from_torch(Function(lambda x, v: F.gaussian_nll_loss(x, x * 0, v)), (X, P)))
    assert session(X.numpy(), P.numpy()) == pytest.approx(float(F.gaussian_nll_loss(X, X * 0, P)), rel=1e-5)
    with pytest.raises(ValueError, match="var has a negative entry"):
        session(X.numpy(), X.numpy())
