"""Ops that fastrnn leaves to the onnx package, against ONNX Runtime: what computes them is what made ONNX's own cases (test_suite.py)."""

import subprocess
import sys

import pytest
from foreign_rows import FOREIGN_ROWS
from row import Row, agree, ort, outputs_of, rand

import fastrnn as fr
from fastrnn.plan.graph.rewrites import REWRITES

TOLERANCE = 2e-5  # of an output's largest entry


@pytest.mark.parametrize("row", FOREIGN_ROWS, ids=str)
def test_the_onnx_package_agrees_with_onnxruntime(row, tmp_path):
    model = fr.from_onnx(row.model())
    agree(outputs_of(model, row.feed()), ort(row.model(), row.feed()), TOLERANCE)
    model.save(tmp_path / "m.safetensors")
    agree(outputs_of(fr.load(tmp_path / "m.safetensors"), row.feed()), outputs_of(model, row.feed()), 0)
    assert any(node.op.startswith("onnx.") for node in model.nodes)
    shown = fr.compile(model).explain({name: a.shape for name, a in row.feed().items()})
    assert not row.feed() or f"onnx.{row.op}" in REWRITES or "onnx." in shown and "the onnx package" in shown


def test_without_the_onnx_package_such_a_file_says_what_it_needs(tmp_path):
    fr.from_onnx(Row("Hardmax", [rand(2, 3)]).model()).save(tmp_path / "m.safetensors")
    code = (
        f"import sys; sys.modules['onnx'] = None\nimport fastrnn\ntry: fastrnn.load({str(tmp_path / 'm.safetensors')!r})\n"
        "except fastrnn.MissingDependencyError as e: print(e)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd="/")
    assert "Hardmax" in done.stdout and "fastrnn[onnx]" in done.stdout
