"""What the pages and docstrings point to is there."""

import ast
import re
import subprocess
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCS = sorted((ROOT / "docs").rglob("*.md"))
PAGES = [ROOT / "README.md", ROOT / "ARCHITECTURE.md", *DOCS, *sorted((ROOT / "examples").rglob("*.md"))]
SOURCES = [path for folder in ("fastrnn", "converters", "tests", "benchmarks") for path in sorted((ROOT / folder).rglob("*.py"))]
SUFFIX = r"\.(?:pyx|pyi|pxi|pxd|py|h|md|toml)"
# A path ends in what a source's name ends in, or is folders and a slash; NAME and * stand for any name.
FILE = re.compile(rf"(?<![\w./<>-])-*((?:[\w.*-]+/)*[\w*][\w*-]*{SUFFIX})(?![\w/(])")
FOLDER = re.compile(r"((?:[\w.*-]+/)+)")
NO_FILES = {"shared/", "NODE.h"}  # a folder beside the repository; a state of a stream
KNOWS_ONE = re.compile(r"FR_(?:AVX|NEON|BASELINE)|__(?:aarch64|x86_64)__|\"(?:avx512|avx2|neon)\"")


def tree() -> set[str]:
    """Files and folders of the repository, relative to it, folders with a slash; what is built is none of them."""
    found = set()
    for top in ("fastrnn", "converters", "tests", "benchmarks", "examples", "docs", ".ci"):
        for path in (ROOT / top).rglob("*"):
            if path.suffix not in (".c", ".so", ".pyc"):
                found.add(f"{path.relative_to(ROOT).as_posix()}{'/' if path.is_dir() else ''}")
        found.add(f"{top}/")
    return found | {path.name for path in ROOT.iterdir() if path.is_file()}


TREE = tree() | {f"fastrnn/{name}" for name in tree() if name.startswith("converters/")}


def is_there(path: str) -> bool:
    """Whether a file or folder of the tree ends in this path."""
    path = path.replace("NAME", "*").removeprefix("../")
    return any(name == path or fnmatch(name, f"*/{path}") if "*" in path else name == path or name.endswith(f"/{path}") for name in TREE)


def anchor(heading: str) -> str:
    """As GitHub makes it of a heading."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def prose(page: Path) -> str:
    """The page without its blocks of code."""
    return re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if "://" in target:
            continue
        file, _, heading = target.partition("#")
        there = (page.parent / file).resolve() if file else page
        assert there.exists(), f"{page.name}: {target}"
        if heading:
            headings = re.findall(r"^#+ (.*)$", there.read_text(encoding="utf-8"), flags=re.MULTILINE)
            assert heading in map(anchor, headings), f"{page.name}: {target}"


@pytest.mark.parametrize("page", [ROOT / "README.md", ROOT / "ARCHITECTURE.md", *DOCS], ids=lambda page: page.relative_to(ROOT).as_posix())
def test_paths_of_a_page_are_there(page):
    """In backticks; in drawings too, where no backticks are."""
    text = page.read_text(encoding="utf-8")
    named = [span for span in re.findall(r"`([^`\n]+)`", prose(page)) if FILE.fullmatch(span) or FOLDER.fullmatch(span)]
    blocks = re.findall(r"^```(.*?)\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)
    drawn = [path for language, block in blocks if not language for path in re.findall(rf"[\w/]+{SUFFIX}", block)]
    assert [path for path in [*named, *drawn] if not is_there(path) and path not in NO_FILES] == []


def test_paths_of_docstrings_are_there():
    checked = 0
    for source in SOURCES:
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
            if not isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)):
                continue
            for path in FILE.findall(ast.get_docstring(node) or ""):
                assert is_there(path), f"{source.relative_to(ROOT)}: {path}"
                checked += 1
    assert checked > 200


def test_the_map_shows_every_page_of_the_design():
    text, pages = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8"), sorted((ROOT / "docs/design").glob("*.md"))
    assert len(pages) > 5 and all(f"(docs/design/{page.name})" in text for page in pages)


def test_pages_stay_short():
    for page in (*DOCS, ROOT / "ARCHITECTURE.md"):
        assert len(page.read_text(encoding="utf-8").splitlines()) <= 120, page


def test_the_places_of_an_instruction_set_are_all_named():
    """Every source whose code knows one, or a family of processors, is in the list of what a new one needs."""
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8").split("**An instruction set.**")[1].split("**A kernel.**")[0]
    listed = [path.replace("NAME", "*") for path in re.findall(rf"`([\w/.]+{SUFFIX})`", text)]
    for path in sorted((ROOT / "fastrnn").rglob("*")):
        if path.suffix in (".py", ".pyx", ".pxi", ".h") and KNOWS_ONE.search(path.read_text(encoding="utf-8")):
            name = path.relative_to(ROOT / "fastrnn").as_posix()
            assert any(fnmatch(name, place) for place in listed), name


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="no clone: what is ignored is not known")
def test_pages_are_part_of_the_source_distribution():
    tracked = subprocess.run(["git", "ls-files", "docs"], check=True, capture_output=True, text=True, cwd=ROOT).stdout.split()
    assert {page.relative_to(ROOT).as_posix() for page in DOCS} <= set(tracked)
    assert "recursive-include docs *.md" in (ROOT / "MANIFEST.in").read_text(encoding="utf-8")
