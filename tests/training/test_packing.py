"""Packed rows against torch's PackedSequence, and against sequences walked one by one."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.utils.rnn import pack_padded_sequence

import fastrnn as fr
from fastrnn.training import Packing

batches = st.integers(1, 8).flatmap(lambda T: st.tuples(st.just(T), st.lists(st.integers(0, T), min_size=1, max_size=8)))


def neighbours(x, initial, lengths, reverse):
    """What each step goes on from, and what each sequence ends with, (T, B, F) and (B, F)."""
    before, ends = np.zeros_like(x), initial.copy()
    for b, length in enumerate(lengths):
        for t in reversed(range(length)) if reverse else range(length):
            before[t, b], ends[b] = ends[b], x[t, b]
    return before, ends


@settings(max_examples=150, deadline=None)
@given(batches, st.booleans())
def test_rows_and_their_neighbours(batch, reverse):
    T, lengths = batch
    B, packing, random = len(lengths), Packing.of(T, len(lengths), np.array(lengths)), np.random.default_rng(0)
    x, initial = random.standard_normal((T, B, 2)), random.standard_normal((B, 2))
    rows, order = packing.pack(x), np.arange(B) if packing.order is None else packing.order
    inside = np.arange(T)[:, None] < lengths
    assert packing.N == len(rows) == sum(lengths) and np.array_equal(packing.lengths, np.array(lengths)[order])
    assert np.array_equal(packing.unpack(rows), x * inside[..., None])
    before, ends = neighbours(x, initial, lengths, reverse)
    states = np.concatenate([initial[order], rows])
    assert np.array_equal(states[packing.way(reverse).previous], packing.pack(before))
    assert np.array_equal(states[packing.way(reverse).ends], ends[order])
    done = np.zeros(len(states), bool)
    done[:B] = True
    for row, n, previous, place in packing.way(reverse).pieces:  # in an order in which what a piece reads is there
        assert done[previous : previous + n].all() and not done[B + row : B + row + n].any()
        assert np.array_equal(place + np.arange(n), row + np.arange(n) - packing.starts[np.searchsorted(packing.starts, row, "right") - 1])
        done[B + row : B + row + n] = True
    assert done.all()


def test_as_torch_lays_them_out():
    random = np.random.default_rng(1)
    for _ in range(50):
        T, B = random.integers(1, 9, 2)
        lengths = random.permutation(np.arange(B) % T + 1)  # torch's order of equal lengths is its own
        x = random.standard_normal((T, B, 3))
        theirs = pack_padded_sequence(torch.tensor(x), torch.tensor(lengths), enforce_sorted=False)
        packing = Packing.of(T, B, lengths)
        assert np.array_equal(packing.sizes[: lengths.max()], theirs.batch_sizes) and not packing.sizes[lengths.max() :].any()
        if len(set(lengths)) == B:
            assert np.array_equal(packing.pack(x), theirs.data)
        assert np.array_equal(packing.pack(x)[packing.last()], x[lengths - 1, np.arange(B)])


def test_whole_sequences_are_not_copied():
    x = np.zeros((3, 2, 4))
    packing = Packing.of(3, 2)
    assert packing.pack(x).base is x and packing.unpack(packing.pack(x)).base is x
    assert Packing.of(3, 2, np.array([3, 3])).whole and not Packing.of(3, 2, np.array([3, 2])).whole


@pytest.mark.parametrize(
    "lengths,error",
    [([1, 2, 3], fr.ShapeError), ([1], fr.ShapeError), ([1, 5], fr.ShapeError), ([-1, 2], fr.ShapeError), ([1.0, 2.0], fr.DTypeError)],
)
def test_lengths_that_are_none(lengths, error):
    with pytest.raises(error, match="lengths must be"):
        Packing.of(4, 2, lengths)


def test_lengths_that_are_no_array():
    for lengths, says in (([[1], [2, 3]], "cannot be seen as an array"), (np.ma.array([1, 2], mask=[False, True]), "masked array")):
        with pytest.raises(fr.DTypeError, match=f"'lengths'.*{says}"):
            Packing.of(4, 2, lengths)


def test_no_last_step():
    with pytest.raises(fr.ShapeError, match="no last step"):
        Packing.of(3, 2, [3, 0]).last()
