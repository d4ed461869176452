"""The operations of chains against float64 on a dense sample, the same bits everywhere, and programs over many values."""

import math

import numpy as np
import pytest

from fastrnn.kernels import isa
from fastrnn.kernels.contract import MAX_VALUES, OPERATIONS
from fastrnn.plan.lowering.chain import Chain
from fastrnn.testing import TINY, run_chain

# ulp: correctly rounded but for ties that a double cannot tell; erf is a fit in float.
EXACT = {"log": (np.log, 0.5001), "sin": (np.sin, 0.5001), "cos": (np.cos, 0.5001), "erf": (np.vectorize(math.erf), 4.6), "sqrt": (np.sqrt, 0.5),
         "reciprocal": (lambda x: 1 / x, 0.5), "floor": (np.floor, 0), "ceil": (np.ceil, 0), "round": (np.rint, 0), "abs": (np.abs, 0)}  # fmt: skip
EDGES = np.float32([0.0, -0.0, 1, -1, 0.5, -0.5, 2, -2, 3, -3, 0.3, 1e30, -1e30, 2.0**24 + 2, 1e9, np.inf, -np.inf, np.nan])


def program(operation: str) -> Chain:
    chain = Chain({})
    chain.do(operation, *(chain.operand(f"x{k}") for k in range(OPERATIONS[operation])), alpha=0.5, beta=2.0)
    return chain


def sample():
    """Every exponent and sign with some 250 mantissas each, and the range where functions bend."""
    bits = np.arange(0, 1 << 32, 33_331, dtype=np.uint64).astype(np.uint32).view(np.float32)
    return np.concatenate([bits[np.isnan(bits) == 0], np.linspace(-120, 120, 100_000, dtype=np.float32), EDGES[:-1]])


def plain(y):
    """Bits, every NaN alike."""
    return np.where(np.isnan(y), np.float32(np.nan), y).view(np.uint32)


@pytest.mark.parametrize("operation", EXACT)
def test_against_float64(each_isa, operation):
    x, (exact, most) = sample(), EXACT[operation]
    got = run_chain(each_isa, program(operation), x)
    with np.errstate(all="ignore"):
        want = exact(np.where(np.abs(x) < TINY, np.copysign(0, x), x.astype(np.float64)))
        rounded = want.astype(np.float32)
    assert np.array_equal(np.isnan(got), np.isnan(want))
    infinite = np.isinf(rounded)
    assert np.array_equal(got[infinite], rounded[infinite])
    finite = np.isfinite(rounded)
    away = np.abs(got[finite] - want[finite])
    below = (np.abs(want[finite]) < TINY) & (got[finite] == 0)
    assert (away / np.spacing(np.maximum(np.abs(rounded[finite]), TINY)))[~below].max() <= most


def test_large_angles():
    """Payne and Hanek's reduction, against values from 400 bits of arithmetic."""
    x = np.float32([1e8, 6.7e7, 6.8e7, 3.4e38, 1.2345e30, -2.5e20, 5e9, 2.0**26, 2.0**27, 1.5 * 2.0**60, 1e35])
    want = [0.931639027109726, 0.9230526238807666, 0.7300382146648318, -0.24408488437240827, -0.7173044006982265, -0.9759233251965975, 0.2518733583799049,
            0.42075989775848105, -0.76340322880198, -0.10021881020078509, -0.9993489906698249]  # fmt: skip
    np.testing.assert_array_equal(run_chain(isa.supported()[0], program("sin"), x), np.float32(want))


def test_powers_as_c_defines_them(each_isa):
    random = np.random.default_rng(0)
    base, exponent = (m.ravel() for m in np.meshgrid(EDGES, EDGES))
    drawn = random.uniform(-40, 40, 40_000).astype(np.float32)
    base = np.concatenate([base, np.exp(random.uniform(-80, 80, 40_000)).astype(np.float32), -drawn])
    exponent = np.concatenate([exponent, drawn, np.rint(drawn[::-1])])
    with np.errstate(all="ignore"):
        want = np.power(base.astype(np.float64), exponent.astype(np.float64)).astype(np.float32)
    want = np.where(np.abs(want) < TINY, np.copysign(np.float32(0), want), want)
    np.testing.assert_array_max_ulp(np.nan_to_num(run_chain(each_isa, program("power"), base, exponent)), np.nan_to_num(want), 1)
    assert np.array_equal(np.isnan(run_chain(each_isa, program("power"), base, exponent)), np.isnan(want))


@pytest.mark.parametrize(
    "operation,function",
    [
        ("min", np.minimum),
        ("max", np.maximum),
        ("equal", np.equal),
        ("less", np.less),
        ("less_or_equal", np.less_equal),
        ("greater", np.greater),
        ("greater_or_equal", np.greater_equal),
        ("fmod", np.fmod),
        ("div", np.divide),
        ("prelu", lambda x, s: np.where(x < 0, s * x, x)),
        ("at_least", lambda x, low: np.where(low > x, low, x)),
        ("at_most", lambda x, high: np.where(high < x, high, x)),
        ("sign", np.sign),
        ("nonzero", lambda x: x != 0),
    ],
)
def test_edges_as_numpy_has_them(each_isa, operation, function):
    a, b = (m.ravel() for m in np.meshgrid(EDGES, EDGES))
    given = (a, b)[: OPERATIONS[operation]]
    with np.errstate(all="ignore"):
        want = function(*given).astype(np.float32)
    np.testing.assert_array_equal(run_chain(each_isa, program(operation), *given), want)


def test_the_same_bits_on_every_isa():
    random = np.random.default_rng(0)
    subnormal = random.integers(1, 1 << 23, 500).astype(np.uint32).view(np.float32)
    x = np.concatenate([EDGES, random.standard_normal(3_000).astype(np.float32) * 10, subnormal, -subnormal])
    for operation, reads in OPERATIONS.items():
        given = [random.permutation(x) for _ in range(reads)]
        if operation in ("not", "and", "or", "xor", "where"):
            given[: 2 if operation != "where" else 1] = [(v > 0).astype(np.float32) for v in given[: 2 if operation != "where" else 1]]
        results = [plain(run_chain(name, program(operation), *given)) for name in isa.supported()]
        assert all(np.array_equal(results[0], other) for other in results[1:]), operation


def test_places_of_results_are_used_again():
    """A long program needs two places beside its operands, and reads nothing that was overwritten."""
    chain = Chain({})
    x, y = chain.operand("x"), chain.operand("y")
    value = chain.do("add", x, y)
    for _ in range(60):
        value = chain.do("sub", chain.do("mul", value, y), x)
    assert chain.instructions()["to"].max() < 6 < MAX_VALUES and chain.fits
    a, b = (np.random.default_rng(k).uniform(-1, 1, 1_003).astype(np.float32) for k in range(2))
    want = a + b
    for _ in range(60):
        want = want * b - a
    assert np.array_equal(run_chain(isa.supported()[0], chain, a, b), want)


def test_a_hard_swish_is_its_four_operations():
    """In one where nothing else reads what lies between, in four where something does; the same bits."""

    def spelled(read: bool, swapped: bool) -> Chain:
        chain = Chain({})
        x = chain.operand("x")
        inner = chain.do("clip", chain.do("plus", x, alpha=3.0), alpha=0.0, beta=6.0)
        product = chain.do("mul", inner, x) if swapped else chain.do("mul", x, inner)
        result = chain.do("times", product, alpha=1 / 6)
        chain.do("sub", result, inner if read else x)
        return chain

    x = np.concatenate([EDGES, np.random.default_rng(0).uniform(-5, 5, 3_000).astype(np.float32)])
    inner = np.clip(x + np.float32(3), np.float32(0), np.float32(6))
    with np.errstate(invalid="ignore"):
        product = x * inner * np.float32(1 / 6)
        for swapped in (False, True):
            for read, want in ((False, product - x), (True, product - inner)):
                chain = spelled(read, swapped)
                assert len(chain.instructions()) == (5 if read else 2)
                for name in isa.supported():
                    assert np.array_equal(plain(run_chain(name, chain, x))[:-1], plain(want)[:-1]), (name, read)
