"""ONNX's own backend suite, as the onnx package carries it: what fastrnn makes of each of its cases."""

from __future__ import annotations

import warnings
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper
from onnx.backend.test.case.node import collect_testcases
from onnx.backend.test.loader import load_model_tests

import fastrnn as fr

STORED = ("simple", "pytorch-converted", "pytorch-operator")  # as files; those of nodes are made by the package
HALVES = {str(np.dtype(np.float16)), "bfloat16"}
FEW_BITS = {"float8": np.float32, "float4": np.float32, "uint4": np.uint8, "uint2": np.uint8, "int4": np.int8, "int2": np.int8}
TOLERANCE, IN_16_BITS = 2e-5, 1e-2  # of an output's largest entry; cases in 16 bits round at every op where fastrnn does not
FEW_DIGITS = {
    "test_averagepool_2d_ceil_last_window_starts_on_pad": 2e-4,
    "test_roialign_aligned_false": 2e-4,
    "test_roialign_aligned_true": 2e-4,
}  # printed so


@dataclass(frozen=True)
class Outcome:
    """How a case ended: compiled, NumPy, reference (onnx's), refused, or what else; and why."""

    name: str
    how: str
    why: str = ""


@dataclass(frozen=True)
class Case:
    """data_sets: (inputs, outputs), arrays by place; None for what is no tensor."""

    name: str
    model: onnx.ModelProto
    data_sets: list[tuple[list, list]]


def cases() -> list[Case]:
    """All of them, by name."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = [
            Case(c.name, c.model, [([_array(a) for a in given], [_array(a) for a in wanted]) for given, wanted in c.data_sets])
            for c in collect_testcases(None)
        ]
        found += [_stored(case) for kind in STORED for case in load_model_tests(kind=kind)]
    return sorted(found, key=lambda case: case.name)


def _array(value) -> np.ndarray | None:
    """An array; numbers of 16 bits and less as fastrnn takes them."""
    if isinstance(value, onnx.TensorProto):
        value = numpy_helper.to_array(value)
    if value is None or isinstance(value, (list, dict, onnx.SequenceProto, onnx.OptionalProto)):
        return None
    array = np.asarray(value)
    few = next((to for kind, to in FEW_BITS.items() if str(array.dtype).startswith(kind)), None)
    return array.astype(few or np.float32) if few or str(array.dtype) in HALVES else array


def _stored(case) -> Case:
    """A case of files."""
    folder = Path(case.model_dir)
    model = onnx.load(folder / "model.onnx")

    def read(data: Path, kind: str, values) -> list:
        paths = [data / f"{kind}_{k}.pb" for k in range(len(values))]
        return [
            _array(onnx.TensorProto.FromString(p.read_bytes())) if v.type.WhichOneof("value") == "tensor_type" else None
            for p, v in zip(paths, values)
            if p.exists()
        ]

    return Case(
        case.name,
        model,
        [(read(data, "input", _inputs(model)), read(data, "output", model.graph.output)) for data in sorted(folder.glob("test_data_set_*"))],
    )


def _inputs(model: onnx.ModelProto) -> list:
    stored = {t.name for t in model.graph.initializer}
    return [v for v in model.graph.input if v.name not in stored]


def run(case: Case) -> Outcome:
    """One case: its model as it is, all its data sets."""
    inputs, outputs = _inputs(case.model), list(case.model.graph.output)
    in_16_bits = any(v.type.tensor_type.elem_type in (onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16) for v in (*inputs, *outputs))
    tolerance = IN_16_BITS if in_16_bits else FEW_DIGITS.get(case.name, TOLERANCE)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            session = fr.compile(fr.from_onnx(case.model))
            for given, wanted in case.data_sets:
                feed = {v.name: a for v, a in zip(inputs, given) if v.name and a is not None}
                for (name, got), want in zip(session.run(feed).items(), wanted, strict=True):
                    if want is None:
                        return Outcome(case.name, "refused", "an output that is no tensor")
                    if why := difference(got, want, tolerance):
                        return Outcome(case.name, "wrong", f"{name}: {why}")
            text = session.explain(feed)
    except fr.UnsupportedModelError as error:
        return Outcome(case.name, "refused", str(error))
    except Exception as error:  # noqa: BLE001  (whatever it is, it is counted)
        return Outcome(case.name, type(error).__name__, str(error))
    return Outcome(case.name, "reference" if "the onnx package" in text else "NumPy" if " NumPy " in text else "compiled")


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


def outcomes(chosen) -> list[Outcome]:
    """Of some cases."""
    return [run(case) for case in chosen]


def counted(found) -> Counter:
    """How many ended how."""
    return Counter(outcome.how for outcome in found)
