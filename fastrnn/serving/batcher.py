"""Requests of many streams, from threads and asyncio, gathered into steps of one pool."""

from __future__ import annotations

import asyncio
import os
import weakref
from collections.abc import Callable, Hashable, Iterator, Mapping
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Literal, NoReturn, overload

import numpy as np

from fastrnn.errors import InvalidModelError, ShapeError, StateError
from fastrnn.runtime.session import Session
from fastrnn.serving.callers import Caller, Callers, Request
from fastrnn.serving.engine import ACTS, AUTO, Engine
from fastrnn.serving.replies import Reply
from fastrnn.serving.rows import Field, Rows

if TYPE_CHECKING:
    from fastrnn.runtime.pools.pool import Pool
    from fastrnn.typing import Inputs, Outputs

    Answer = Outputs | tuple[Outputs, bytes]
    Left = tuple[dict[str, np.ndarray], int | None, Any, Any]  # states, number, the last answer and what it was to


class Batcher:
    """Steps the streams of named callers, whoever is ready together, and gives each the bits that a Stream alone gives.

    y = await batcher.step("anna", x, start=True)     # asyncio
    y = batcher.submit("anna", x).result()            # threads; a concurrent.futures.Future

    caller: anything hashable. x: one row of the model's input, such as (I,), or with the axis of rows, (1, I), and then the answer has it; a dict
    for several inputs. Copied when it is submitted. y: as Stream.step returns it for one row, one array or a tuple.

    start: the caller's first step; without it a caller that is not known raises UnknownStreamError, and with it one that is raises StateError:
    nothing starts anew on its own. end: its last step; the stream is closed after it. step: an int that counts up by one, from any, for retries:
    the last number again gives the last answer again, also after the end, and does not move the stream; another than the next is a StateError. A
    request without counts as the next. A retry must be asked as the request was.

    state: bytes that export gave; with start=True the caller goes on from there. export=True: the answer is (y, bytes), the stream as it is after
    the step, also where it ends with that.

    An idle engine runs at once; a busy one takes what is ready next, at most max_batch rows, for which it waits at most max_wait_us longer than it
    must. One caller's requests run in order. capacity: streams at a time; idle_timeout_s: a caller that has not asked for so long is evicted, None:
    never; when all are taken, a start raises PoolFullError. context, sizes: as of Session.pool.

    max_queue: how many requests may wait; one more raises OverloadedError and is not taken. None: any number. "auto": as many as wait at the
    busiest moments of a load of 0.7 of the rate, by what steps take (room.py): who is taken then waits about as long as under that load, whatever is offered. It is for callers who ask on clocks of their
    own; of more than that who ask all at once, some are refused.

    Errors of a request's own making are raised by submit and step, and nothing is queued. If a step raises, the streams are as they were, it is
    tried in halves, and whose row it was gets the error. What a caller has waiting behind a request that fails, is cancelled at a start, an end or
    under a number, gets a StateError, for its stream is not where that expects it; other requests are cancelled as if never submitted. Once a step
    has begun, it moves the stream whoever still waits. Every future resolves.

    Safe to use from any thread and any event loop. A worker thread ends with close(), at the end of a with block (which drains), or with the last
    reference.
    """

    def __init__(
        self,
        session: Session,
        capacity: int = 4096,
        max_batch: int = 256,
        max_wait_us: float = 0,
        max_queue: int | Literal["auto"] | None = None,
        idle_timeout_s: float | None = None,
        *,
        context: Mapping[str, int] | None = None,
        sizes: Mapping[str, int] | None = None,
    ) -> None:
        _check("max_batch", max_batch, 1)
        _check("max_wait_us", max_wait_us, 0, whole=False)
        if max_queue is not None and max_queue != AUTO:
            _check("max_queue", max_queue, 1)
        if idle_timeout_s is not None:
            _check("idle_timeout_s", idle_timeout_s, 0, whole=False)
        if not hasattr(session, "pool"):
            raise InvalidModelError(f"a Batcher takes a Session, which fastrnn.compile makes, got {type(session).__name__}")
        pool = session.pool(capacity, context, sizes=sizes)
        self._rows, self._callers = Rows(pool), Callers(pool.capacity, idle_timeout_s)
        self._engine = Engine(pool, self._rows, self._callers, max_batch, max_wait_us * 1e-6, max_queue)
        self.capacity, self.max_batch = pool.capacity, max_batch
        _ENGINES.add(self._engine)
        weakref.finalize(self, self._engine.close)

    # Steps.

    @overload
    async def step(
        self,
        caller: Hashable,
        x: Inputs,
        *,
        start: bool = False,
        end: bool = False,
        step: int | None = None,
        state: bytes | None = None,
        export: Literal[False] = False,
    ) -> Outputs: ...
    @overload
    async def step(
        self,
        caller: Hashable,
        x: Inputs,
        *,
        start: bool = False,
        end: bool = False,
        step: int | None = None,
        state: bytes | None = None,
        export: Literal[True],
    ) -> tuple[Outputs, bytes]: ...

    async def step(
        self,
        caller: Hashable,
        x: Inputs,
        *,
        start: bool = False,
        end: bool = False,
        step: int | None = None,
        state: bytes | None = None,
        export: bool = False,
    ) -> Answer:
        """The answer to one step, in a coroutine. Cancelled, as by asyncio.timeout, the stream moves only if the step had begun."""
        return await self._awaited(caller, x, None, start, end, step, state, export)

    @overload
    async def push(
        self,
        caller: Hashable,
        chunk: Inputs,
        *,
        start: bool = False,
        end: bool = False,
        step: int | None = None,
        state: bytes | None = None,
        export: Literal[False] = False,
    ) -> Outputs: ...
    @overload
    async def push(
        self,
        caller: Hashable,
        chunk: Inputs,
        *,
        start: bool = False,
        end: bool = False,
        step: int | None = None,
        state: bytes | None = None,
        export: Literal[True],
    ) -> tuple[Outputs, bytes]: ...

    async def push(
        self,
        caller: Hashable,
        chunk: Inputs,
        *,
        start: bool = False,
        end: bool = False,
        step: int | None = None,
        state: bytes | None = None,
        export: bool = False,
    ) -> Answer:
        """The answers to a chunk of steps, (T', *row) or (T', *row with its axis), in one request, which counts as one."""
        return await self._awaited(caller, chunk, self._rows.steps_of(chunk), start, end, step, state, export)

    async def _awaited(
        self, caller: Hashable, x: Inputs, steps: int | None, start: bool, end: bool, step: int | None, state: bytes | None, export: bool
    ) -> Any:
        loop = asyncio.get_running_loop()
        request = self._request(x, steps, start, end, step, state, export, loop.create_future, loop)
        self._engine.submit(caller, request)
        try:
            return await request.future
        except asyncio.CancelledError:
            self._engine.withdraw(request)
            raise

    @overload
    def submit(
        self,
        caller: Hashable,
        x: Inputs,
        *,
        start: bool = False,
        end: bool = False,
        step: int | None = None,
        state: bytes | None = None,
        export: Literal[False] = False,
    ) -> Future[Outputs]: ...
    @overload
    def submit(
        self,
        caller: Hashable,
        x: Inputs,
        *,
        start: bool = False,
        end: bool = False,
        step: int | None = None,
        state: bytes | None = None,
        export: Literal[True],
    ) -> Future[tuple[Outputs, bytes]]: ...

    def submit(
        self,
        caller: Hashable,
        x: Inputs,
        *,
        start: bool = False,
        end: bool = False,
        step: int | None = None,
        state: bytes | None = None,
        export: bool = False,
    ) -> Future[Any]:
        """The future of one step, for threads. Its cancel() succeeds until the step begins."""
        return self._submitted(caller, self._request(x, None, start, end, step, state, export, Reply, None))

    def _request(
        self,
        x: Inputs,
        steps: int | None,
        start: bool,
        end: bool,
        step: int | None,
        state: bytes | None,
        export: bool,
        future: Callable[[], Any],
        loop: asyncio.AbstractEventLoop | None,
    ) -> Request:
        if step is None:
            self._engine.room()
        if state is not None and not start:
            raise StateError("a state to go on from comes with start=True; a stream that has begun has one")
        inputs, key, whole = self._rows.read(x, steps)
        return Request(inputs, key, whole, start, end, step if step is None else _number(step), future(), loop, None, state, export, steps)

    # Acts on streams, in the order of their caller's requests.

    def reset(self, caller: Hashable) -> Future[None]:
        """The caller's stream starts afresh after the requests before this; step numbers go on. The future's result is None."""
        return self._act(caller, lambda pool, stream: pool.reset(stream.handle))

    def export(self, caller: Hashable) -> Future[bytes]:
        """The caller's stream as bytes, after the requests before this; see Pool.export. It goes on."""
        return self._act(caller, lambda pool, stream: pool.export(stream.handle))

    def restore(self, caller: Hashable, data: bytes) -> Future[None]:
        """Starts a caller where export left a stream, instead of start=True. The future's result is None; StateError for bytes that
        are damaged or of another model."""

        def restore(pool: Pool, stream: Caller) -> None:
            stream.handle = pool.restore(data)

        return self._act(caller, restore, start=True)

    def open(self, caller: Hashable) -> Future[None]:
        """Starts a caller without a step, instead of start=True. The future's result is None."""

        def opened(pool: Pool, stream: Caller) -> None:
            stream.handle = pool.open()

        return self._act(caller, opened, start=True)

    def end(self, caller: Hashable) -> Future[None]:
        """Ends the caller's stream after the requests before this, without a step. The future's result is None."""
        return self._act(caller, lambda pool, stream: None, end=True)

    def leave(self, caller: Hashable) -> Future[Left]:
        """Ends the caller here and gives what `enter` of a batcher takes whose streams have states of the same names, shapes and dtypes: its
        states, its number and its last answer."""
        return self._act(caller, lambda pool, stream: (pool.state(stream.handle), stream.number, stream.answer, stream.answer_of), end=True)

    def enter(self, caller: Hashable, left: Left) -> Future[None]:
        """Starts a caller with what `leave` gave, of this model or another. StateError where the states differ."""

        def enter(pool: Pool, stream: Caller) -> None:
            handle = pool.open()
            try:
                pool.set_state(handle, left[0])
            except StateError:
                pool.close(handle)
                raise
            stream.handle, (stream.number, stream.answer, stream.answer_of) = handle, left[1:]

        return self._act(caller, enter, start=True)

    def _act(self, caller: Hashable, act: Callable[[Pool, Caller], object], start: bool = False, end: bool = False) -> Future[Any]:
        return self._submitted(caller, Request((), ACTS, False, start, end, None, Reply(), None, act))

    def _submitted(self, caller: Hashable, request: Request) -> Future[Any]:
        request.future.bind(self._engine, request)
        self._engine.submit(caller, request)
        return request.future

    # What a step takes and gives.

    @property
    def fields(self) -> tuple[Field, ...] | None:
        """What a step takes of one caller; None where the model leaves sizes open, or an input steers, and nobody has asked yet."""
        return self._rows.fields

    @property
    def output_names(self) -> tuple[str, ...]:
        """Of the answer's arrays, in order."""
        return self._rows.output_names

    def chunk(self, x: Mapping[str, np.ndarray]) -> int | None:
        """How many steps these inputs are, if they have the axis of rows and one of steps in front: what push takes. None: a step's."""
        return self._rows.in_front(x)

    def prepare(self, x: Inputs) -> None:
        """Reads a step's inputs and plans by them, where that is open. Nothing is stepped. Raises as step does."""
        self._rows.read(x)

    # Callers, and what was done.

    def __len__(self) -> int:
        """Callers that have a stream."""
        return len(self._callers)

    def __contains__(self, caller: Hashable) -> bool:
        return caller in self._callers

    def __iter__(self) -> Iterator[Hashable]:
        return iter(self._engine.callers())

    def metrics(self) -> dict[str, Any]:
        """Counters since the batcher was made, `waiting` and `callers` now, and histograms of rows a step, time in the queue and time of a step."""
        return self._engine.measured()

    @property
    def stepping_s(self) -> float:
        """Seconds that steps have taken since the batcher was made."""
        return self._engine.metrics.run_us.sum * 1e-6

    # The end.

    def drain(self, timeout_s: float | None = None) -> bool:
        """Takes no more requests from now on (OverloadedError) and waits until all that were taken are answered: whether they are, after timeout_s
        at most.

        Blocks; in a coroutine: `await asyncio.to_thread(batcher.drain)`.
        """
        return self._engine.drain(timeout_s)

    def close(self) -> None:
        """Ends the batcher and its streams. A step that runs is finished and answered; those that wait get a StateError, as do all that come
        later."""
        self._engine.close()

    def __enter__(self) -> Batcher:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self.drain()
        self.close()

    async def __aenter__(self) -> Batcher:
        return self

    async def __aexit__(self, kind: object, *_: object) -> None:
        await asyncio.to_thread(self.__exit__, kind)

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "a batcher belongs to this process; what travels is a stream: data = batcher.export(caller).result(), "
            "and where it arrives batcher.restore(caller, data)"
        )

    def __repr__(self) -> str:
        return f"Batcher: {len(self)} of {self.capacity} callers, at most {self.max_batch} rows a step"


_ENGINES: weakref.WeakSet[Engine] = weakref.WeakSet()


def _orphan_all() -> None:
    for engine in _ENGINES:
        engine.orphan()


os.register_at_fork(after_in_child=_orphan_all)


def _check(name: str, value: Any, least: int, whole: bool = True) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer) if whole else (int, float, np.integer, np.floating)) or not value >= least:
        raise ShapeError(f"{name} must be {'an integer' if whole else 'a number'} of at least {least}, got {value!r}")


def _number(step: object) -> int:
    if isinstance(step, bool) or not isinstance(step, (int, np.integer)):
        raise TypeError(f"step must be an int that counts up, got {step!r}")
    return int(step)
