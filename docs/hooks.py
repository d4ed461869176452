"""Hooks of mkdocs: pages and pictures of the repository that stand outside docs/ join the site, links to them lead there, and the API is read from the sources.

Links in pages are those of the repository, file to file, so that they lead somewhere where pages are read as files, too. On the site a link to a page of it
stays one; a link to a source leads to repo_url, and without one is its text.
"""

from __future__ import annotations

import posixpath
import re
import runpy
import shutil
import tempfile
from pathlib import Path

from mkdocs.plugins import event_priority
from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]
PAGES = {
    "ARCHITECTURE.md": "design/index.md",
    "CHANGELOG.md": "changelog.md",
    **{f"benchmarks/results/{name}.md": f"numbers/{name}.md" for name in ("benchmarks", "activations", "errors")},
    "examples/README.md": "examples/index.md",
    **{f"examples/{name}/README.md": f"examples/{name}.md" for name in ("gradients", "memory", "music")},
}
PICTURES = ("benchmarks/results/*.svg", "examples/*/*.svg")
COMMENT = re.compile(r"^<!--.*?-->\n", re.DOTALL | re.MULTILINE)  # what tests see and readers do not
LINK = re.compile(r"(!?)\[((?:[^][]|\[[^][]*\])*)\]\(([^)\s]+)\)")
FENCED = re.compile(r"(^```.*?^```)", re.DOTALL | re.MULTILINE)

_sources: list[str] = []  # folders to read the API from, of this process


@event_priority(100)  # before mkdocstrings looks
def on_config(config):
    """The package as an import finds it, for mkdocstrings: converters/ stands beside fastrnn/ in the repository and inside it when installed."""
    folder = Path(tempfile.mkdtemp(prefix="fastrnn-api-"))
    _sources.append(str(folder))
    for source, target in (("fastrnn", "fastrnn"), ("converters", "fastrnn/converters")):
        shutil.copytree(ROOT / source, folder / target, ignore=shutil.ignore_patterns("__pycache__", "*.so", "*.c", "*.h"))
    runpy.run_path(str(ROOT / "docs/api.py"))["write_compiled"](folder)
    config.plugins["mkdocstrings"].config.handlers["python"]["paths"] = [str(folder)]
    return config


def on_shutdown() -> None:
    """Leaves nothing behind."""
    while _sources:
        shutil.rmtree(_sources.pop(), ignore_errors=True)


def places() -> dict[str, str]:
    """Files of the repository outside docs/ that are on the site: their place there by their path."""
    pictures = {path.relative_to(ROOT).as_posix(): f"pictures/{path.parent.name}-{path.name}" for pattern in PICTURES for path in ROOT.glob(pattern)}
    return PAGES | pictures


def on_files(files, config):
    """Adds them."""
    for path, place in places().items():
        files.append(File.generated(config, place, abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown, page, config, files):
    """Turns links of the repository into links of the site; leaves out comments."""
    here = Path(page.file.abs_src_path).relative_to(ROOT).as_posix()
    there = places()

    def on_site(match: re.Match) -> str:
        picture, text, target = match.groups()
        path, _, heading = target.partition("#")
        if "://" in target or not path:
            return match[0]
        path = posixpath.normpath(posixpath.join(posixpath.dirname(here), path))
        own = path.removeprefix("docs/") if path.startswith("docs/") and (ROOT / path).is_file() else None
        place = there.get(path) or there.get(f"{path}/README.md") or own
        if place is not None:
            target = posixpath.relpath(place, posixpath.dirname(page.file.src_uri) or ".")
            return f"{picture}[{text}]({target}{'#' if heading else ''}{heading})"
        return f"[{text}]({config.repo_url.rstrip('/')}/blob/main/{path})" if config.repo_url else text

    parts = FENCED.split(COMMENT.sub("", markdown))
    return "".join(part if k % 2 else LINK.sub(on_site, part) for k, part in enumerate(parts))
