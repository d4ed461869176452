"""Answers on their way back: to threads by concurrent futures, to coroutines by one call of their event loop for all answers of a step."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future

from fastrnn.serving.callers import Request
from fastrnn.serving.rows import Answer

LOG = logging.getLogger("fastrnn")


class Reply(Future):
    """The future of a thread. cancel() succeeds, and then the stream does not move, until the request's step begins; a thread that waits for it
    runs the step itself where the engine is idle."""

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


def deliver(answers: Sequence[tuple[Request, object]], result: Callable, here: asyncio.AbstractEventLoop | None = None) -> None:
    """Resolves the futures of requests, and of those that asked the same again, with an exception, or a result as it is, or with what
    result(answer, whole)
    makes of a row of a step. here: the loop whose thread this is."""
    loops, by_loop = {request.loop for request, _ in answers}, {}
    if len(loops) == 1 and not any(request.twins for request, _ in answers):
        by_loop[loops.pop()] = answers
    else:
        for request, answer in answers:
            for one in (request, *(request.twins or ())):
                by_loop.setdefault(one.loop, []).append((one, answer))
    for loop, pairs in by_loop.items():
        if loop is None or loop is here:
            resolve(pairs, result)
            continue
        try:
            loop.call_soon_threadsafe(resolve, pairs, result)
        except RuntimeError:  # it was closed: nobody waits there any more
            LOG.info("%d answers for an event loop that is closed", len(pairs))


def resolve(pairs: Iterable[tuple[Request, object]], result: Callable) -> None:
    """Sets results, in the thread that futures belong to, which has more time than the engine. Cancelled ones are passed over."""
    for request, answer in pairs:
        future = request.future
        if not future.done():
            if type(answer) is Answer:
                future.set_result(result(answer, request.whole))
            elif isinstance(answer, BaseException):
                future.set_exception(answer)
            else:
                future.set_result(answer)
