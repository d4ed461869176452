"""What a person sees: tables and progress on a terminal, or JSON for a program."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from fastrnn.errors import MissingDependencyError


class UsageError(Exception):
    """Arguments that make no sense; exit code 2."""


def plain(value):
    """The value as JSON has it: NaN and infinities, which JSON lacks, as null."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def _line(value) -> str:
    """A fact on one line."""
    return ", ".join(f"{name} {_line(item)}" for name, item in value.items() if item is not None) if isinstance(value, dict) else str(value)


class Console:
    """Prints tables and lines, or, with as_json, one JSON object at the end. `data` holds what that object has in either case."""

    def __init__(self, as_json: bool):
        self.as_json, self.data = as_json, {}
        if not as_json:
            try:
                import rich  # noqa: F401
            except ModuleNotFoundError as error:
                raise MissingDependencyError("rich", "cli", "the command line without --json") from error

    def table(self, key: str, title: str, columns: Iterable[str], rows: Iterable[Iterable]) -> None:
        """A table, or under `key` a list of objects."""
        columns, rows = list(columns), [list(row) for row in rows]
        self.data[key] = [dict(zip(columns, row)) for row in rows]
        if self.as_json:
            return
        from rich.console import Console as Terminal
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, pad_edge=False)
        for column in columns:
            table.add_column(column, overflow="fold")
        for row in rows:
            table.add_row(*(Text("" if cell is None else str(cell)) for cell in row))
        width = None if sys.stdout.isatty() else 200
        print(f"\n{title}")
        Terminal(width=width).print(table)

    def facts(self, **facts) -> None:
        """Named facts: lines, or entries of the object."""
        self.data |= facts
        if self.as_json:
            return
        width = max(map(len, facts))
        for name, value in facts.items():
            print(f"{name.replace('_', ' '):<{width}}  {_line(value)}")

    def warn(self, text: str) -> None:
        """A line that nobody should miss, beside the output."""
        print(f"fastrnn: {text}", file=sys.stderr)

    @contextmanager
    def progress(self, what: str, total: int | None = None) -> Iterator:
        """A callable (note="", done=None, total=None) that moves a bar on a terminal, and is silent elsewhere."""
        if self.as_json or not sys.stderr.isatty():
            yield lambda note="", done=None, total=None: None
            return
        from rich.console import Console as Terminal
        from rich.progress import Progress

        with Progress(console=Terminal(stderr=True), transient=True) as bar:
            task = bar.add_task(what, total=total)
            yield lambda note="", done=None, total=None: bar.update(
                task, description=f"{what}: {note}" if note else what, completed=done, total=total
            )

    def close(self) -> None:
        """Prints the JSON."""
        if self.as_json and self.data:
            print(json.dumps(plain(self.data), indent=2, allow_nan=False))
