"""A bar while something long runs: on a terminal, or in a notebook."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from fastrnn.errors import MissingDependencyError

PAUSE_S = 0.1  # between two pictures of a notebook's bar: each is a message to a browser


@contextmanager
def shown(wanted: bool | None, total: int, what: str) -> Iterator[Callable[[int, str], None]]:
    """A callable (how much of the total is done, note). what: the bar's name at first. wanted: True: a bar, in a notebook there and else on stderr; None: only in a
    notebook, or where stderr is a terminal and rich is installed; False: silence.

    MissingDependencyError where a bar was asked for outside of a notebook and rich is absent.
    """
    if wanted is not False and in_notebook():
        picture = NotebookBar(total, what)
        try:
            yield picture.show
        finally:
            picture.close(keep=wanted is True)
        return
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


def in_notebook() -> bool:
    """Whether this is a cell of a notebook, whose kernel shows HTML; IPython on a terminal is a terminal."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return shell is not None and hasattr(shell, "kernel")


class NotebookBar:
    """A bar in a notebook's output, by IPython alone. It is one output, which is changed."""

    def __init__(self, total: int, note: str):
        from IPython.display import display

        self.total, self.done, self.note, self.closed = total, 0, note, False
        self._output, self._at = display(self, display_id=True), time.monotonic()  # type: ignore[no-untyped-call, unused-ignore]

    def show(self, done: int, note: str) -> None:
        """Moves it, ten times a second at most."""
        self.done, self.note = done, note
        if time.monotonic() - self._at >= PAUSE_S:
            self._update()

    def close(self, keep: bool) -> None:
        """Its last picture, or an empty output."""
        self.closed = not keep
        self._update()

    def _update(self) -> None:
        self._output.update(self)
        self._at = time.monotonic()

    def __repr__(self) -> str:
        return "" if self.closed else f"{self.done}/{self.total} {self.note}"

    def _repr_html_(self) -> str:
        import html  # for notebooks alone

        return "" if self.closed else f'<progress value="{self.done}" max="{self.total}"></progress> {html.escape(self.note)}'
