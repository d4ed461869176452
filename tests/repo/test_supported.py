"""The page of what is supported says what the registries hold."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_the_page_is_current():
    onnx, said = pytest.importorskip("onnx"), (ROOT / "docs/supported.md").read_text(encoding="utf-8")
    if f"by onnx {onnx.__version__};" not in said:
        pytest.skip("the page was written with another version of onnx, which has other ops")
    pytest.importorskip("torch", reason="the page lists torch's operators")
    code = f"import runpy; page = runpy.run_path({str(ROOT / 'docs/write_supported.py')!r}); print(page['text'](), end='')"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd="/")
    assert done.stdout == said, "write it again: python docs/write_supported.py"
