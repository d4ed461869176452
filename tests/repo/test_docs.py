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


def leads_somewhere(page: Path, target: str) -> bool:
    """Whether a link's file is there, and in it the heading."""
    file, _, heading = target.partition("#")
    there = (page.parent / file).resolve() if file else page
    return there.exists() and (not heading or heading in map(anchor, re.findall(r"^#+ (.*)$", there.read_text(encoding="utf-8"), flags=re.MULTILINE)))


def test_links_lead_somewhere():
    links = [(page, target) for page in PAGES for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)) if "://" not in target]
    assert len(links) > 100
    assert [f"{page.relative_to(ROOT)}: {target}" for page, target in links if not leads_somewhere(page, target)] == []


def test_paths_of_pages_are_there():
    """In backticks; in drawings too, where no backticks are."""
    for page in (ROOT / "README.md", ROOT / "ARCHITECTURE.md", *DOCS):
        named = [span for span in re.findall(r"`([^`\n]+)`", prose(page)) if FILE.fullmatch(span) or FOLDER.fullmatch(span)]
        blocks = re.findall(r"^```(.*?)\n(.*?)^```$", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
        drawn = [path for language, block in blocks if not language for path in re.findall(rf"[\w/]+{SUFFIX}", block)]
        assert [path for path in [*named, *drawn] if not is_there(path) and path not in NO_FILES] == [], page


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
    for page in (*DOCS, ROOT / "ARCHITECTURE.md", ROOT / "README.md"):
        most = 240 if page.parent.name == "reference" else 120  # whose lines name what docstrings say
        assert len(page.read_text(encoding="utf-8").splitlines()) <= most, page


def test_code_of_the_guides_fits_a_browser():
    for page in (ROOT / "docs/index.md", ROOT / "docs/coming-from.md", *(ROOT / "docs/howto").glob("*.md")):
        for block in re.findall(r"^```(?:python|sh)\n(.*?)^```$", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE):
            assert [line for line in block.splitlines() if len(line) > 105] == [], page


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
    assert "recursive-include docs *.md *.py *.css\n" in (ROOT / "MANIFEST.in").read_text(encoding="utf-8")
