"""A bar on a terminal while a network is fitted."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from fastrnn.errors import MissingDependencyError


@contextmanager
def shown(wanted: bool | None, epochs: int) -> Iterator[Callable[[int, str], None]]:
    """A callable (epochs done, note). wanted: True: a bar on stderr; None: only where that is a terminal and rich is installed; False: silence.

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
        task = bar.add_task("training", total=epochs)
        yield lambda done, note: bar.update(task, completed=done, description=note)
