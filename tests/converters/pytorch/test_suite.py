"""PyTorch's own databases as tables of counts. They take minutes, so every hundredth module by default, and of modules the first 400 where slow tests run. To see the table: pytest tests/converters/pytorch/test_suite.py -s -m slow"""

import itertools

import pytest

pytest.importorskip("torch")
pytest.importorskip("expecttest")  # which torch.testing._internal imports
import torch_suite

# Of torch 2.13's inputs: passes at least so many, raises something that is not an error of fastrnn's at most so often (sizes that data decide inside of losses
# over smoothed labels, index_fill of a number, resize_as_).
MODULES, OPERATORS = (350, 8), (375, 3)


def check(found, passes, faults):
    counts = torch_suite.counted(found)
    print(f"\n{len(found)} inputs:", ", ".join(f"{how} {n}" for how, n in counts.most_common()))
    others = [f"{o.name}: {o.how}: {o.why[:200]}" for o in found if o.how not in ("pass", "refused", "torch")]
    assert counts["pass"] >= passes, counts
    assert len(others) <= faults, "\n".join(others)


@pytest.mark.sweep
def test_some_modules():
    check([torch_suite.run(*case) for case in itertools.islice(torch_suite.modules(), 0, None, 100)], 14, 0)


@pytest.mark.slow
def test_many_modules():
    check([torch_suite.run(*case) for case in itertools.islice(torch_suite.modules(), 400)], *MODULES)


@pytest.mark.slow
def test_all_operators():
    check([torch_suite.run(*case) for case in torch_suite.operators()], *OPERATORS)
