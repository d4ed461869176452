#!/usr/bin/env python3
"""Formats the tree, or the files named: imports, Python, C. `make format`.

Tables of short words, which ruff would write one word a line, are marked `# fmt: skip` first and stay as they are packed.
"""

import ast
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
TABLES = (ast.Tuple, ast.List, ast.Set, ast.Dict)
GROWTH = 6  # lines more than this, and twice as many as before: then a table is marked
C = (".c", ".h")


def files(given: list[str]) -> list[Path]:
    """Those under version control, of all or of the paths given."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *given], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()]


def statements(tree: ast.AST) -> list[ast.stmt]:
    """Assignments and what functions return, in an order that formatting does not change."""
    return [node for node in ast.walk(tree) if isinstance(node, (ast.Assign, ast.AnnAssign, ast.AugAssign, ast.Return))]


def holds_a_table(node: ast.stmt) -> bool:
    value = node.value
    parts = [value, *(value.args if isinstance(value, ast.Call) else [])]
    return any(isinstance(part, TABLES) for part in parts)


def mark_tables(path: Path) -> None:
    before = path.read_text(encoding="utf-8")
    done = subprocess.run(
        ["ruff", "format", "--stdin-filename", str(path), "-"], cwd=ROOT, input=before, capture_output=True, text=True, check=True
    ).stdout
    lines = before.split("\n")
    for old, new in zip(statements(ast.parse(before)), statements(ast.parse(done)), strict=True):
        height, grown = (node.end_lineno - node.lineno + 1 for node in (old, new))
        if holds_a_table(old) and grown > 2 * height and grown > height + GROWTH:
            line = lines[old.end_lineno - 1]
            if "# fmt: skip" not in line:
                code, mark, comment = (
                    line[: len(line.encode()[: old.end_col_offset].decode())],
                    "  # fmt: skip",
                    line[len(line.encode()[: old.end_col_offset].decode()) :].strip(),
                )
                lines[old.end_lineno - 1] = code + mark + (f"  {comment}" if comment else "")
    path.write_text("\n".join(lines), encoding="utf-8")


def main(given: list[str]) -> None:
    found = files(given)
    python, native = [p for p in found if p.suffix in (".py", ".pyi")], [p for p in found if p.suffix in C]
    for path in (p for p in python if p.suffix == ".py"):
        mark_tables(path)
    for command, paths in (
        (["ruff", "check", "--fix", "--exit-zero", "--quiet"], python),
        (["ruff", "format"], python),
        (["clang-format", "-i"], native),
    ):
        if paths:
            subprocess.run([*command, *map(str, paths)], cwd=ROOT, check=True)


if __name__ == "__main__":
    main(sys.argv[1:])
