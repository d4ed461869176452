"""A bar on a terminal while something long runs."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from fastrnn.errors import MissingDependencyError


@contextmanager
def shown(wanted: bool | None, total: int, what: str) -> Iterator[Callable[[int, str], None]]:
    """A callable (how much of the total is done, note). what: the bar's name at first. wanted: True: a bar on stderr; None: only where that is a terminal and rich is installed; False: silence.

    MissingDependencyError where a bar was asked for and rich is absent.
    """
    if wanted is False or wanted is None and not sys.stderr.isatty():
        yield lambda done, note: None
        return
    try:
        from rich.console import Console
        from rich.progress import Progress
    except ModuleNotFoundError as error:
        if wanted:
            raise MissingDependencyError("rich", "cli", "a progress bar") from error
        yield lambda done, note: None
        return
    with Progress(console=Console(stderr=True), transient=wanted is None) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done, note: bar.update(task, completed=done, description=note)
