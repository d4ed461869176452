"""How the API reference reads the sources: an extension of griffe that mkdocs.yml names, and the modules that are compiled.

Docstrings are prose for people who read sources; here lists become lists and names of parameters stand out.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable
from pathlib import Path

import griffe

DOCUMENTED = re.compile(r'^ *(?:def|cpdef [\w ]*?) ?(\w+)\([^\n]*\)[^\n]*:\n +"""(.*?)"""', re.DOTALL | re.MULTILINE)
ENTRY = re.compile(r"^(?:(\S.{0,60}?) {2,}(?:[:#] )?|(\w+(?:, \w+)*) ?: )(\S.*)$")
CODE = re.compile(r"(`+.*?`+)")


def write_compiled(folder: Path) -> None:
    """Beside every stub of a compiled module in a copy of the package, a module with its signatures and the docstrings of its source."""
    for stub in folder.rglob("*.pyi"):
        docstrings = {
            name: text
            for source in (*stub.parent.glob("*.pyx"), *stub.parent.glob("*.pxi"))
            for name, text in DOCUMENTED.findall(source.read_text(encoding="utf-8"))
        }
        tree = ast.parse(stub.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                node.body = without_overloads(node.body)
            if isinstance(node, ast.FunctionDef) and node.name in docstrings and ast.get_docstring(node) is None:
                node.body.insert(0, ast.Expr(ast.Constant(docstrings[node.name])))
        stub.with_suffix(".py").write_text(ast.unparse(tree), encoding="utf-8")


def without_overloads(body: list[ast.stmt]) -> list[ast.stmt]:
    """A class with the last of a method's overloads, the general one, in the place of all."""
    last = {node.name: node for node in body if isinstance(node, ast.FunctionDef)}
    kept = [node for node in body if not isinstance(node, ast.FunctionDef) or last[node.name] is node]
    for node in last.values():
        node.decorator_list = [d for d in node.decorator_list if not (isinstance(d, ast.Name) and d.id == "overload")]
    return kept


def as_list(paragraph: str) -> str | None:
    """A paragraph of entries, each a name, space or a colon, and what it means, as a list; None for another one."""
    entries: list[tuple[str, list[str]]] = []
    for line in paragraph.splitlines():
        match = ENTRY.match(line)
        if match:
            entries.append((match[1] or match[2], [match[3]]))
        elif line.startswith(" ") and entries:
            entries[-1][1].append(line.strip())
        else:
            return None
    return "\n".join(f"- `{name.rstrip()}`: {escaped(' '.join(lines))}" for name, lines in entries) if len(entries) > 1 else None


def escaped(text: str) -> str:
    """Less-than signs as they are, outside of code."""
    return "".join(part if k % 2 else part.replace("<", "&lt;") for k, part in enumerate(CODE.split(text)))


def readable(docstring: str, parameters: Iterable[str]) -> str:
    """A docstring as Markdown."""
    names = "|".join(sorted(map(re.escape, parameters), key=len, reverse=True))
    said = re.compile(rf"(^|[.;] )((?:{names})(?:, (?:{names}))*):(?= )", re.MULTILINE) if names else None
    made = []
    for paragraph in docstring.split("\n\n"):
        if paragraph.startswith("    "):
            made.append(paragraph)  # code
        elif (entries := as_list(paragraph)) is not None:
            made.append(entries)
        else:
            text = escaped(paragraph)
            made.append(said.sub(r"\1**`\2`**:", text) if said else text)
    return "\n\n".join(made)


class Readable(griffe.Extension):
    """Docstrings of the whole package, once it is read."""

    def on_package(self, *, pkg: griffe.Module, **_) -> None:
        """Called by griffe."""
        self._visit(pkg)

    def _visit(self, found: griffe.Object) -> None:
        if found.docstring is not None:
            takes = found if found.is_function else found.members.get("__init__") if found.is_class else None
            parameters = [] if takes is None or takes.is_alias or not takes.is_function else [p.name for p in takes.parameters if p.name != "self"]
            found.docstring.value = readable(found.docstring.value, parameters)
        elif found.is_function and found.parent.is_class:  # as pydoc: what a base says of it
            found.docstring = next(
                (said.docstring for base in found.parent.mro() if (said := base.members.get(found.name)) is not None and said.docstring), None
            )
        for member in found.members.values():
            if not member.is_alias:
                self._visit(member)
