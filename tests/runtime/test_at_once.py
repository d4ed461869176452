"""Steps that are taken at once, past all checks but whether they may be: the same answers, the same refusals."""

import numpy as np
import pytest

import fastrnn as fr


class Other(np.ndarray):
    """An array of a subclass."""


def test_steps_taken_at_once_and_others_in_between_agree():
    """A warm step of plain arrays goes past all checks but whether it is one: whatever is not must be met as ever, and bits must not tell."""
    session, x = fr.compile(fr.LSTM(6, 6, seed=0)), np.random.default_rng(1).standard_normal((40, 3, 6)).astype(np.float32)
    y = session(x)[0]
    warm, narrow, held, made = session.stream(3), session.stream(1), np.full((3, 6), np.nan, np.float32), []
    ways = (
        lambda a: warm.step(a),
        lambda a: warm.step(a, out=held).copy(),
        lambda a: warm.step(np.asfortranarray(a)),
        lambda a: warm.step(a.view(Other)),
        lambda a: warm.step({"x": a}),
        lambda a: warm.push(a[None])[0],
    )
    for t, row in enumerate(x):
        made.append(ways[t % len(ways)](row))
        assert np.array_equal(narrow.step(row[:1])[0], y[t, 0])  # one program, other sizes
        state = warm.state
        for bad, out, error in (
            (row[:2], None, fr.ShapeError),
            (row.astype(np.float64), None, fr.DTypeError),
            (np.ma.masked_array(row), None, fr.DTypeError),
            (row, row, fr.ShapeError),
            (row, held[:2], fr.ShapeError),
            (row, held.astype(np.float64), fr.DTypeError),
            (None, None, fr.DTypeError),
        ):
            with pytest.raises(error):
                warm.step(bad, out=out)
        assert all(np.array_equal(a, b) for a, b in zip(state.values(), warm.state.values()))
    assert np.stack(made).tobytes() == y.tobytes()
    warm.close()
    with pytest.raises(ValueError, match="closed"):
        warm.step(x[0])
