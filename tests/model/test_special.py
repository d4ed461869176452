"""Special functions against PyTorch's in float64, at their edges, and each entry the same whatever stands beside it."""

import numpy as np
import pytest

from fastrnn.model import Node
from fastrnn.model.ops import EVAL
from fastrnn.model.ops.special import BLOCK, ONE, TWO

torch = pytest.importorskip("torch")
S = torch.special
THEIRS = {
    "BesselI0": S.i0, "BesselI1": S.i1, "ScaledBesselI0": S.i0e, "ScaledBesselI1": S.i1e, "BesselJ0": S.bessel_j0, "BesselJ1": S.bessel_j1, "SphericalBesselJ0": S.spherical_bessel_j0,
    "AiryAi": S.airy_ai, "NormalQuantile": S.ndtri, "BesselY0": S.bessel_y0, "BesselY1": S.bessel_y1, "BesselK0": S.modified_bessel_k0, "BesselK1": S.modified_bessel_k1,
    "ScaledBesselK0": S.scaled_modified_bessel_k0, "ScaledBesselK1": S.scaled_modified_bessel_k1,
    "Zeta": S.zeta, "GammaP": S.gammainc, "GammaQ": S.gammaincc, "HermiteH": S.hermite_polynomial_h, "HermiteHe": S.hermite_polynomial_he,
    "Laguerre": S.laguerre_polynomial_l, "Legendre": S.legendre_polynomial_p, **{f"Chebyshev{k}": getattr(S, f"chebyshev_polynomial_{k.lower()}") for k in "TUVW"},
}  # fmt: skip
# torch's Bessel and Airy functions are 7e-8 off in float64, which the sums of their series in 60 digits show; near a = x = 60 its P and Q are 2e-9 off, where it changes series, and Q
# next to 0 is what 1 - P leaves.
TOLERANCE = {"BesselJ0": 1e-6, "BesselJ1": 1e-6, "BesselY0": 1e-6, "BesselY1": 1e-6, "AiryAi": 1e-6, "GammaP": 1e-8, "GammaQ": 1e-8}
R = np.random.default_rng(0)
X = np.concatenate(
    [R.standard_normal(200) * 3, R.standard_normal(200) * 40, 10 ** R.uniform(-12, 4, 200), R.uniform(0, 1, 200), [0, 1, -1, np.nan, 5, 20, -5]]
)
ORDERS = np.concatenate([R.uniform(-2, 12, 300), np.round(R.uniform(-3, 15, 300)), 10 ** R.uniform(-3, 2, 200), [0, 0, 1, 1, 2, 0, 1]])
Y = np.concatenate([R.standard_normal(300) * 3, R.uniform(0, 15, 300), 10 ** R.uniform(-3, 2, 200), [0, 1, 0, -1, -1, 1, 1]])


def value(name, *arrays):
    return EVAL[name](Node(name, "n", tuple("ab"[: len(arrays)]), ("y",), {}), list(arrays))[0]


def arguments(name):
    return [X] if name in ONE else [ORDERS, Y] if name in ("Zeta", "GammaP", "GammaQ") else [Y / 4, ORDERS.clip(-5, 40)]


@pytest.mark.parametrize("name", [*ONE, *TWO])
def test_a_function(name):
    given = arguments(name)
    got, want = value(name, *given), THEIRS[name](*map(torch.tensor, given)).numpy()
    finite = np.isfinite(want)
    assert np.array_equal(got[~finite], want[~finite], equal_nan=True)
    np.testing.assert_allclose(got[finite], want[finite], rtol=TOLERANCE.get(name, 1e-11), atol=3 * TOLERANCE.get(name, 1e-13))
    narrow = value(name, *(a.astype("f4") for a in given))
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(narrow, value(name, *(a.astype("f4").astype("f8") for a in given)).astype("f4"))
    assert narrow.dtype == np.float32


@pytest.mark.parametrize("name", [*ONE, *TWO])
def test_no_entry_depends_on_others(name):
    given = [np.resize(a, BLOCK + 500) for a in arguments(name)]
    whole = value(name, *given)
    for k in (0, 7, 333, BLOCK - 1, BLOCK, BLOCK + 499):
        np.testing.assert_array_equal(value(name, *(a[k : k + 1] for a in given))[0], whole[k])


@pytest.mark.parametrize(
    "name,x,exact",
    [  # sums of 200 terms of AS 9.1.10 in 60 digits
        ("BesselJ0", 5.528012125932853, 0.00269769973628402939135),
        ("BesselJ1", 7.0215451427057065, 0.00178746225309731070547),
    ],
)
def test_near_a_zero(name, x, exact):
    assert value(name, np.array([x]))[0] == pytest.approx(exact, rel=1e-11)


def test_degrees_past_the_last_are_no_number():
    assert np.isnan(value("Legendre", np.array([0.5]), np.array([1e9]))[0]) and value("ChebyshevT", np.array([0.5]), np.array([3e6]))[
        0
    ] == pytest.approx(1, abs=1e-6)


def test_incomplete_gamma_of_a_large_order():
    a = np.array([1.1e5, 1e6, 1e8, 1e12, 3e5, 3e5])
    x = a + np.array([-300, 1000, 5, -2e6, 2000, -1])
    for name, function in (("GammaP", S.gammainc), ("GammaQ", S.gammaincc)):
        np.testing.assert_allclose(value(name, a, x), function(torch.tensor(a), torch.tensor(x)).numpy(), rtol=0, atol=1e-8)
