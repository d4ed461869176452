"""Small weights on tasks: what they answer, beside what rounding the weights alone costs, and how fast. Read from the folders of shared models and data."""

import pytest
import tasks

import fastrnn as fr
from fastrnn.model.small import PRECISIONS


@pytest.mark.parametrize("case", tasks.TASKS, ids=str)
def test_precision(race, case):
    if missing := [path for path in case.data if not path.exists()]:
        pytest.skip(f"{missing[0]} is not there: set FASTRNN_SHARED")
    if case.model is tasks.music:
        pytest.importorskip("mido", reason="examples/music needs fastrnn[examples]")
    model = case.model()
    sessions = {name: fr.compile(model, precision=name) for name in PRECISIONS}
    exact = case.answers(sessions["float32"])
    figures = {name: case.figure(case.answers(session), exact) for name, session in sessions.items() if name != "float32"}
    floors = {name: case.figure(case.answers(fr.compile(fr.round_weights(model, name))), exact) for name in figures}
    own = None if case.unit in RELATIVE else case.figure(exact, exact)
    race(
        {name: case.call(session) for name, session in sessions.items()},
        case,
        unit=case.unit,
        figures={"float32": own, **figures},
        floors=floors,
        weight_bytes={name: sum(a.nbytes for a in session.model.weights.values()) for name, session in sessions.items()},
    )


RELATIVE = {task.unit for task in tasks.TASKS if "difference" in task.unit}  # which float32 has none of
