"""A case from an ONNX file: fastrnn beside the engines that read such files."""

import cases
import pytest

import fastrnn as fr
from fastrnn.cli.subject import Subject
from fastrnn.converters.engines import engine_for
from fastrnn.converters.verify import TOLERANCE

ENGINES = ("onnxruntime", "openvino", "torch")


def timed(race, case: cases.ModelCase) -> None:
    """Results compared, then timed. Skips the test where the file is not there."""
    if not case.path.exists():
        pytest.skip(f"{case.path} is not there: set FASTRNN_SHARED")
    model, engines, refused = fr.load(case.path), {}, {}
    for name in ENGINES:
        try:
            engines[name] = engine_for(case.path, model, name)
        except fr.FastRNNError as error:
            refused[name] = str(error).replace(f"{cases.SHARED}/", "")  # the results say nothing of where they were measured
    sizes = case.sizes or {}
    subject = Subject(fr.compile(model, states=case.states, constants=case.constants), sizes, case.constants or {}, TOLERANCE, 0)
    ready = subject.case(case.batch, sizes.get(subject.time, 1), engines)
    assert not ready.differs, f"{case}: results differ from {ready.differs}: {ready.errors}"
    race(ready.runs, case, refused=refused | ready.notes, work=ready.work)
