"""Answers on their way back: to threads by concurrent futures, to coroutines by one call of their event loop for all answers of a step."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from concurrent.futures import Future

from fastrnn.serving.callers import Request

LOG = logging.getLogger("fastrnn")


class Reply(Future):
    """The future of a thread. cancel() succeeds, and then the stream does not move, until the request's step begins; a thread that waits for it runs the
    step itself where the engine is idle."""

    def bind(self, engine, request: Request) -> None:
        """Before anyone else sees it."""
        self._engine, self._request = engine, request

    def cancel(self) -> bool:
        return self.cancelled() or self._engine.withdraw(self._request) and super().cancel()

    def result(self, timeout=None):
        if not self.done():
            self._engine.help()
        return super().result(timeout)

    def exception(self, timeout=None):
        if not self.done():
            self._engine.help()
        return super().exception(timeout)


def deliver(outcomes: Iterable[tuple[Request, object]], here: asyncio.AbstractEventLoop | None = None) -> None:
    """Resolves the futures of requests, and of those that asked the same again, with outputs or an exception. here: the loop that is running."""
    by_loop: dict[asyncio.AbstractEventLoop, list] = {}
    for request, outcome in outcomes:
        to = by_loop.get(request.loop)
        if to is None:
            to = by_loop[request.loop] = []
        to.append((request.future, outcome))
        for future, loop in request.twins or ():
            by_loop.setdefault(loop, []).append((future, again(outcome)))
    for loop, pairs in by_loop.items():
        if loop is None or loop is here:
            resolve(pairs)
            continue
        try:
            loop.call_soon_threadsafe(resolve, pairs)
        except RuntimeError:  # it was closed: nobody waits there any more
            LOG.info("%d answers for an event loop that is closed", len(pairs))


def resolve(pairs: Iterable[tuple[Future | asyncio.Future, object]]) -> None:
    """Sets results, in the thread that futures belong to; those that were cancelled meanwhile are passed over."""
    for future, outcome in pairs:
        if not future.done():
            if isinstance(outcome, BaseException):
                future.set_exception(outcome)
            else:
                future.set_result(outcome[0] if type(outcome) is tuple and len(outcome) == 1 else outcome)


def again(outcome):
    """The same answer, as arrays of their own."""
    return tuple(a.copy() for a in outcome) if type(outcome) is tuple else outcome
