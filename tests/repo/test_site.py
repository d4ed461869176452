"""The documentation as a site: it builds without a warning, and its reference has every public name."""

import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

import fastrnn as fr
import fastrnn.serving
import fastrnn.training as tr

ROOT = Path(__file__).parents[2]


def test_the_reference_has_every_public_name():
    entries = [
        name
        for page in (ROOT / "docs/reference").glob("*.md")
        for name in re.findall(r"^::: fastrnn\.(\S+)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    ]
    assert len(set(entries)) == len(entries)
    here = {
        name.removeprefix("converters.load.") for name in entries
    }  # where a module and its function share a name, the function is named by where it is
    of_training = {name.removeprefix("training.").removeprefix("fit.") for name in entries if name.startswith("training.")}
    of_serving = {name.removeprefix("serving.") for name in entries if name.startswith("serving.")}
    assert (set(fr.__all__) - here, set(tr.__all__) - of_training, set(fastrnn.serving.__all__) - of_serving) == (set(), set(), set())


def test_docstrings_become_markdown():
    pytest.importorskip("griffe")
    readable = runpy.run_path(str(ROOT / "docs/api.py"))["readable"]
    assert readable("x: (T, B). y, z: as x; other: no.", ["x", "y", "z"]) == "**`x`**: (T, B). **`y, z`**: as x; other: no."
    assert (
        readable("A line.\n\nopen() -> handle   a stream\nclose       ends\n            it", [])
        == "A line.\n\n- `open() -> handle`: a stream\n- `close`: ends it"
    )
    assert readable("model  : one\nthreads: as many", ["model"]) == "- `model`: one\n- `threads`: as many"
    assert readable("y = f(x)   # one\nz = g(y)   # two", []) == "- `y = f(x)`: one\n- `z = g(y)`: two"
    assert readable("x: a row, or with\nan axis. y: an answer", ["x", "y"]) == "**`x`**: a row, or with\nan axis. **`y`**: an answer"
    assert readable('state "<input>.context", `<input>`\n\n    a < b', []) == 'state "&lt;input>.context", `<input>`\n\n    a < b'


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The built pages."""
    for package in ("mkdocs", "material", "mkdocstrings"):
        pytest.importorskip(package, reason="the site is built with fastrnn[docs]")
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--config-file", str(ROOT / "mkdocs.yml"), "--site-dir", str(folder)],
        check=False,
        capture_output=True,
        text=True,
        cwd="/",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_the_site_says_what_compiled_classes_do(site):
    page = (site / "reference/streams.html").read_text(encoding="utf-8")
    for name in ("Stream.step", "Stream.push", "Pool.open", "Pool.step"):
        assert f'id="fastrnn.{name}"' in page, name
    assert "A new stream, its states as when nothing was stepped" in page


def test_links_of_the_repository_lead_to_pages_of_the_site(site):
    page = (site / "design/index.html").read_text(encoding="utf-8")  # ARCHITECTURE.md
    assert 'href="kernels.html"' in page and 'href="../supported.html"' in page and "fastrnn/plan/planner.py" not in page
    assert (site / "numbers/benchmarks.html").exists() and 'src="../pictures/tagging-tagging.svg"' in (site / "howto/tagging.html").read_text(
        encoding="utf-8"
    )
    assert "invisible-code-block" not in (site / "howto/voice.html").read_text(encoding="utf-8")
