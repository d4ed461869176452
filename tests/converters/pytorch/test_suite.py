"""PyTorch's own databases as tables of counts. They take minutes, so every hundredth module by default, and where slow tests run all but those of one loss, of which there are as many
as of all others. To see the table: pytest tests/converters/pytorch/test_suite.py -s -m slow"""

import itertools

import pytest

pytest.importorskip("torch")
pytest.importorskip("expecttest")  # which torch.testing._internal imports
import torch_suite

# Of torch 2.13's inputs: passes at least so many, raises something that is not an error of fastrnn's at most so often. Of 937 modules' inputs that torch itself takes, one is left: torch's
# own decomposition of a loss gives it another shape. Of 677 operators the 65 others draw random numbers (20), have sizes or branches that depend on data (12), leave memory as it is or are
# sparse (9), are of another machine (5), keep statistics (4), give floats of 16 bits (3), or factors that are not unique or that nobody asks for (12).
MODULES, OPERATORS = (936, 0), (612, 0)
MANY = "nn.LinearCrossEntropyLoss"


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
    check([torch_suite.run(*case) for case in torch_suite.modules() if not case[0].startswith(MANY)], *MODULES)


@pytest.mark.slow
def test_all_operators():
    check([torch_suite.run(*case) for case in torch_suite.operators()], *OPERATORS)
