"""Drawn modules, each converted from one example and compared on drawn values at five other sizes: right, or refused by name.

Marked slow, 2,000 of them; 24 here, and 60 in the sweeps. FASTRNN_DRAWN sets how many.
"""

import os
import warnings
from collections import Counter

import numpy as np
import pytest

import fastrnn as fr

torch = pytest.importorskip("torch")
from drawn_modules import Drawn, draw, inputs
from torch.utils import _pytree as pytree

TOLERANCE = 2e-5  # of an output's largest entry: two layers in float32, and a head over them
FIXED = ("captured for sizes with", "must have shape")  # how a model refuses sizes that it was not made for


def differs(model, module, given) -> str | None:
    """What is wrong, "refused" where the model says that it does not take these sizes, None where all is well."""
    with torch.no_grad():
        wanted = pytree.tree_leaves(module(*given))
    try:
        got = fr.compile(model).run(dict(zip(model.input_names, (t.numpy() for t in given), strict=True)))
    except fr.ShapeError as error:
        return "refused" if any(text in str(error) for text in FIXED) else f"{type(error).__name__}: {error}"
    for mine, theirs in zip(got.values(), wanted, strict=True):
        if module.c.packing != "none" and not module.c.total and mine.ndim == theirs.ndim:
            mine = mine[tuple(map(slice, theirs.shape))]  # as from_torch says of padding
        if mine.shape != tuple(theirs.shape):
            return f"shape {mine.shape} for {tuple(theirs.shape)}"
        error = np.abs(mine - theirs.numpy()).max(initial=0)
        if not error <= TOLERANCE * max(1.0, float(theirs.abs().max())):
            return f"off by {error}"
    return None


def outcome(seed: int) -> tuple[str, int, int]:
    """How a drawn module fared, and at how many sizes it was right, and refused."""
    random = np.random.default_rng(seed)
    choice, draws = draw(random), torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    module = Drawn(choice).eval()
    example = inputs(choice, choice.batch, choice.steps, draws, example=True)
    before = {name: value for name, value in module.__dict__.items() if not name.startswith("_")}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            model = fr.from_torch(module, example)
    except fr.UnsupportedModelError as error:
        if choice.remembers and "forward keeps 'self." in str(error):
            return "refused: it remembers", 0, 0
        return f"WRONG: {choice}: {error}", 0, 0
    except fr.FastRNNError as error:
        return f"WRONG: {choice}: {type(error).__name__}: {error}", 0, 0
    if choice.remembers:
        return f"WRONG: {choice}: it remembers, and was converted", 0, 0
    if {name: value for name, value in module.__dict__.items() if not name.startswith("_")} != before:
        return f"WRONG: {choice}: it was changed", 0, 0
    right = refused = 0
    for batch, steps in [
        (choice.batch, choice.steps),
        (1, 1),
        (int(random.integers(2, 6)), 1),
        (1, int(random.integers(2, 9))),
        (3, 5),
        (int(random.integers(2, 7)), int(random.integers(2, 12))),
    ]:
        found = differs(model, module, inputs(choice, batch, steps, draws))
        if found == "refused" and ((batch, steps) != (choice.batch, choice.steps) or choice.packing != "none" and not choice.total):
            refused += 1
        elif found is not None:
            return f"WRONG at {batch, steps}: {choice}: {found}", right, refused
        else:
            right += 1
    return "converted", right, refused


def run(seeds) -> None:
    found = [outcome(seed) for seed in seeds]
    wrong = [text for text, _, _ in found if text.startswith("WRONG")]
    print(
        f"\n{Counter(text[:40] for text, _, _ in found)}, at other sizes right {sum(r for _, r, _ in found)}, refused {sum(n for _, _, n in found)}"
    )
    assert not wrong, "\n".join([f"{len(wrong)} of {len(found)}", *wrong[:20]])


@pytest.mark.parametrize("first,end", [(0, 24), pytest.param(24, 84, marks=pytest.mark.sweep)])
def test_a_sample(first, end):
    run(range(first, int(os.environ.get("FASTRNN_DRAWN", end))))


@pytest.mark.slow
@pytest.mark.parametrize("block", range(20))
def test_two_thousand(block):
    run(range(1000 + 100 * block, 1100 + 100 * block))
