"""Sizes calculate as numbers do, and what they decide without a guard holds for all sizes."""

import random

import numpy as np
import pytest

from fastrnn.model.sizes import Scope, Size, bounds_of, evaluate, largest, less, n_steps, same, smallest, value_of, whole, wholes
from fastrnn.plan.lowering.formulas import CODES, Formulas


def drawn(names, depth: int, draw: random.Random):
    """A number that follows from others by everything that Sizes can do."""
    if depth == 0 or draw.random() < 0.15:
        return names[draw.choice(sorted(names))] if draw.random() < 0.6 else draw.randint(-3, 6)
    a, b = drawn(names, depth - 1, draw), drawn(names, depth - 1, draw)
    divisor = draw.randint(1, 5) if draw.random() < 0.6 else largest(b, 1)
    return draw.choice(
        [
            lambda: a + b,
            lambda: a - b,
            lambda: a * b,
            lambda: a // divisor,
            lambda: a % divisor,
            lambda: smallest(a, b),
            lambda: largest(a, b),
            lambda: less(a, b),
            lambda: n_steps(0, a, draw.choice([1, 2, 3, -1, -2])),
        ]
    )()


def executed(sizes, values):
    """What the executor computes of Sizes for other values of their dimensions, by the table that it is given."""
    scope = next(s.scope for s in sizes if isinstance(s, Size))
    formulas = Formulas(scope.dimensions.values())
    numbers = [formulas.number(s) for s in sizes]
    rows, results = formulas.arrays()
    results[: len(scope.dimensions)] = [values[name] for name in scope.dimensions]
    does = {
        CODES[name]: function
        for name, function in (
            ("add", lambda a, b: a + b),
            ("multiply", lambda a, b: a * b),
            ("quotient", lambda a, b: a // b),
            ("remainder", lambda a, b: a % b),
            ("minimum", min),
            ("maximum", max),
            ("less", lambda a, b: int(a < b)),
        )
    }
    for k, (operation, a, b) in enumerate(rows.tolist()):
        if operation in does:
            results[k] = does[operation](int(results[a]), int(results[b]))
    return [int(results[n]) for n in numbers]


@pytest.mark.parametrize("start", range(0, 2_000, 250))
def test_drawn_expressions(start):
    for seed in range(start, start + 250):
        values = {name: random.Random(seed).randint(2, 9) for name in "TBN"}
        scope = Scope()
        size, number = drawn({n: scope.dimension(n, v) for n, v in values.items()}, 4, random.Random(seed)), drawn(values, 4, random.Random(seed))
        assert value_of(size) == number and not scope.guards
        if not isinstance(size, Size):
            continue
        low, high = bounds_of(size)
        positive, zero = size > 3, size == 4
        assert (positive, zero) == (number > 3, number == 4)
        others = random.Random(seed + 1)
        for _ in range(10):
            others_values = {name: others.randint(2, 12) for name in "TBN"}
            expected = drawn(others_values, 4, random.Random(seed))
            assert evaluate(size, others_values) == expected == executed([size], others_values)[0]
            assert (low is None or low <= expected) and (high is None or expected <= high)
            if all(guard.allows(others_values) for guard in scope.guards):
                assert (expected > 3, expected == 4) == (positive, zero)


def test_what_all_sizes_decide_is_no_guard():
    scope = Scope()
    T, B = scope.dimension("T", 7), scope.dimension("B", 3)
    assert T > 1 and T != 0 and T * B > B and not T * B <= T and T * B * 4 // (B * 2) == 2 * T and not scope.guards
    assert same((T + 4) * B * 64 // ((T + 4) * 8), 8 * B) and same((3 * T + 7) % 3, 1) and not scope.guards
    assert T > 4 and T > 3 and not T < 5 and len(scope.guards) == 1
    assert scope.dimension("one", 1) == 1 and isinstance(scope.dimension("none", 0), int)


def test_a_size_that_is_used_as_a_number_is_tied():
    scope = Scope()
    T = scope.dimension("T", 5)
    assert list(range(T)) == [0, 1, 2, 3, 4] and int(T + 1) == 6 and np.zeros(T).shape == (5,)
    assert scope.tied and all(guard.allows({"T": 5}) for guard in scope.guards) and not all(guard.allows({"T": 6}) for guard in scope.guards)
    with pytest.raises(TypeError, match="unhashable"):
        {T}  # noqa: B018


def test_arrays_keep_sizes():
    T = Scope().dimension("T", 5)
    assert wholes([1, 2]).dtype == np.int64 and wholes([1, T]).dtype == object
    assert whole(np.int64(3)) == 3 and whole(T) is T
    doubled = wholes([T, 3]) * np.array([2, 2])
    assert same(doubled[0], 2 * T) and doubled[1] == 6
