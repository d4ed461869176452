"""The logger `fastrnn`: slow work and how long it took.

    info   a model or a cell is compiled, an epoch is over
    debug  a call's sizes were new, so a program was made for them

Nobody listens in a process that has not imported logging, and it takes as long to import as much of fastrnn: so it is looked for, not imported.
"""

from __future__ import annotations

import sys

NAME = "fastrnn"


def info(message: str, *arguments: object) -> None:
    """A line of what was done."""
    _say("info", message, arguments)


def debug(message: str, *arguments: object) -> None:
    """A line for those who look for what takes long."""
    _say("debug", message, arguments)


def _say(level: str, message: str, arguments: tuple[object, ...]) -> None:
    logging = sys.modules.get("logging")
    if logging is not None and hasattr(logging, "getLogger"):  # which a half-imported one lacks
        getattr(logging.getLogger(NAME), level)(message, *arguments, stacklevel=3)
