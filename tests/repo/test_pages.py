"""What the README and the pages tell people to type works: a page's Python runs from top to bottom, its fastrnn commands run or at least parse.

Comments that a reader does not see stand in for what he has: <!-- invisible-code-block: python --> with `shared` and `example` (below), and what his code should
have come to is asserted in such a block, too. <!-- skip: next --> leaves out a block that cannot run here, with the reason behind it.
"""

import os
import shlex
import shutil
from pathlib import Path

import pytest

from fastrnn.cli.main import main, parser
from fastrnn.errors import MissingDependencyError

sybil = pytest.importorskip("sybil")
markdown = pytest.importorskip("sybil.parsers.markdown")

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
RUN = ("convert", "inspect", "run", "verify")  # commands that end by themselves, and soon
OPTIONAL = {"torch", "onnx", "onnxruntime", "keras", "numba", "rich", "matplotlib", "tritonclient", "ray", "websockets"}


def commands(source: str) -> list[list[str]]:
    """The arguments of the fastrnn commands of a block."""
    lines = [shlex.split(line, comments=True) for line in source.replace("\\\n", "").splitlines()]
    return [words[1:] for words in lines if words[:1] == ["fastrnn"]]


def run_commands(example) -> None:
    """Evaluates a block of shell."""
    for arguments in commands(example.parsed):
        parser().parse_args(arguments)
        if arguments[0] in RUN:
            assert main(arguments) == 0, arguments


def blocks(page: Path, namespace: dict) -> list:
    """A page's examples, which share a namespace."""
    parsers = [markdown.PythonCodeBlockParser(), markdown.CodeBlockParser("sh", run_commands), markdown.SkipParser()]
    document = sybil.Sybil(parsers).parse(page)
    document.namespace.update(namespace)
    return list(document.examples())


def put(source: Path, name: str) -> None:
    """Puts a file where the page's code looks for it."""
    if not source.exists() and ROOT not in source.parents:
        pytest.skip("no folder of shared models: set FASTRNN_SHARED")
    shutil.copyfile(source, name)


@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if "```python" in page.read_text(encoding="utf-8") or "```sh" in page.read_text(encoding="utf-8")],
    ids=lambda page: page.relative_to(ROOT).as_posix(),
)
def test_the_code_of_a_page_runs(page, tmp_path, monkeypatch, request):
    """In a folder of its own."""
    monkeypatch.chdir(tmp_path)
    where = Path(os.environ.get("FASTRNN_SHARED") or ROOT.parent / "shared")
    namespace = {
        "shared": lambda path, name: put(where / path, name),
        "example": lambda path, name: put(ROOT / "examples" / path, name),
        "cleanup": request.addfinalizer,
    }
    for example in blocks(page, namespace):
        try:
            example.evaluate()
        except ImportError as error:
            if not isinstance(error, MissingDependencyError) and (error.name or "").split(".")[0] not in OPTIONAL:
                raise
            pytest.skip(f"line {example.line}: {error}")
