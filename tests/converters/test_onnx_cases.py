"""ONNX's own cases for single ops, from the onnx package: each gives the numbers that it should, or is refused by name and for a reason listed here.

And ops that fastrnn leaves to that package, against ONNX Runtime: what computes them is what made ONNX's cases.
"""

import re
import subprocess
import sys
import warnings

import numpy as np
import onnx
import pytest
from foreign_rows import FOREIGN_ROWS
from onnx import numpy_helper
from row import Row, agree, ort, outputs_of, rand

import fastrnn as fr

# Of an output's largest entry. Cases in 16 bits round at every op where fastrnn does not; the others have their numbers printed with few digits.
TOLERANCE, IN_16_BITS = 2e-5, 1e-2
FEW_DIGITS = {"test_averagepool_2d_ceil_last_window_starts_on_pad": 2e-4, "test_roialign_aligned_false": 2e-4, "test_roialign_aligned_true": 2e-4}
# What is refused: a part of the message, why.
REASONS = {
    r"dtype (STRING|COMPLEX\w*)": "neither text nor complex numbers",
    r"dtype (U?INT[24]|FLOAT8\w*|FLOAT4\w*)": "no numbers of 8 bits that are floats, and none of fewer bits",
    r"only tensors are supported": "no sequences and no optional values",
    r"op '\w+' is not supported: it (draws random numbers|works on)": "random numbers, text, sequences, optional values",
    r"op '\w+' is not supported: the size of its output depends on data": "shapes are decided before anything runs",
    r"shape depends on data|depends on data, and with it": "shapes are decided before anything runs",
    r"'ImageDecoder' is not supported": "not of a network",
    r"none of the default domain|domain 'ai.onnx[\w.]+' is not supported": "other domains",
    r"Dropout\): (its mask is used|training_mode must)|'training_mode' = 1": "training",
    r"Reduce(Max|Min)\): data must be .* got bool": "no order of bools",
}


@pytest.fixture(scope="module")
def cases():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from onnx.backend.test.case.node import collect_testcases

        return collect_testcases(None)


def plain(value):
    """A case's array; floats of 16 bits as fastrnn takes them."""
    array = numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else value if isinstance(value, list) else np.asarray(value)
    return array.astype(np.float32) if getattr(array, "dtype", None) in (np.float16, numpy_helper.to_array(onnx.TensorProto(data_type=16, dims=[0])).dtype) else array


def difference(got, want, tolerance: float) -> str:
    """Why two results are not the same, or nothing."""
    got, want = np.asarray(got), np.asarray(want)
    if got.shape != want.shape or got.dtype != want.dtype:
        return f"{got.dtype} {got.shape} for {want.dtype} {want.shape}"
    if want.dtype.kind != "f":
        return "" if np.array_equal(got, want) else f"{got.ravel()[:5]} for {want.ravel()[:5]}"
    finite = np.isfinite(want)
    if not np.array_equal(got[~finite], want[~finite], equal_nan=True):
        return "infinities or NaNs elsewhere"
    error = np.abs(got - want, dtype=np.float64)[finite].max(initial=0) / max(1e-30, np.abs(want[finite]).max(initial=0))
    return "" if error <= tolerance else f"off by {error:.1e}"


def results_of(model, feed):
    """Its outputs; where a shape depends on an input, with the inputs that shapes come from as constants."""
    try:
        return fr.compile(model).run(feed)
    except fr.UnsupportedModelError as error:
        if "depend" not in str(error):
            raise
    fixed = {name: a for k, (name, a) in enumerate(feed.items()) if a.dtype.kind in "iub" or k and a.size <= 8}
    return fr.compile(model, constants=fixed).run({name: a for name, a in feed.items() if name not in fixed})


def verdict(case) -> str:
    """"" for the right numbers, "refused: ..." for a listed reason; anything else is a fault."""
    kinds = {v.type.tensor_type.elem_type for v in (*case.model.graph.input, *case.model.graph.output)}
    tolerance = IN_16_BITS if kinds & {onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16} else FEW_DIGITS.get(case.name, TOLERANCE)
    try:
        model = fr.from_onnx(case.model)
        for given, wanted in case.data_sets:
            feed = {v.name: plain(a) for v, a in zip(case.model.graph.input, given) if v.name}
            results = results_of(model, feed)
            for (name, got), want in zip(results.items(), wanted, strict=True):
                if why := difference(got, plain(want), tolerance):
                    return f"{name}: {why}"
    except (fr.UnsupportedModelError, fr.InvalidModelError) as error:
        listed = next((reason for reason in REASONS if re.search(reason, str(error))), None)
        return f"refused: {listed}" if listed else f"{type(error).__name__}: {error}"
    return ""


@pytest.mark.filterwarnings("ignore")
def test_every_case_is_right_or_refused_for_a_reason(cases):
    verdicts = {case.name: verdict(case) for case in cases}
    faults = {name: said for name, said in verdicts.items() if said and not said.startswith("refused")}
    assert not faults, "\n".join(f"{name}: {said}" for name, said in faults.items())
    assert sum(not said for said in verdicts.values()) > 0.8 * len(cases)
    assert not {said.removeprefix("refused: ") for said in verdicts.values() if said} ^ set(REASONS), "a reason that no case has"


@pytest.mark.parametrize("row", FOREIGN_ROWS, ids=str)
def test_the_onnx_package_agrees_with_onnxruntime(row, tmp_path):
    model = fr.from_onnx(row.model())
    agree(outputs_of(model, row.feed()), ort(row.model(), row.feed()), TOLERANCE)
    model.save(tmp_path / "m.safetensors")
    agree(outputs_of(fr.load(tmp_path / "m.safetensors"), row.feed()), outputs_of(model, row.feed()), 0)
    assert any(node.op.startswith("onnx.") for node in model.nodes)
    shown = fr.compile(model).explain({name: a.shape for name, a in row.feed().items()})
    assert not row.feed() or "onnx." in shown and "the onnx package" in shown


def test_without_the_onnx_package_such_a_file_says_what_it_needs(tmp_path):
    fr.from_onnx(Row("Hardmax", [rand(2, 3)]).model()).save(tmp_path / "m.safetensors")
    code = (f"import sys; sys.modules['onnx'] = None\nimport fastrnn\ntry: fastrnn.load({str(tmp_path / 'm.safetensors')!r})\n"
            "except fastrnn.MissingDependencyError as e: print(e)")
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd="/")
    assert "Hardmax" in done.stdout and "fastrnn[onnx]" in done.stdout
