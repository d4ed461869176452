"""Whatever is ready goes into one step of the pool, again and again.

One thread at a time runs the pool: the engine's own worker, or, where the engine is idle and the step is short, the event loop or thread that wants
the answer. Handing work to another thread and back costs some 100 us, a step of one row a few. So what a loop's tasks submit in one of its rounds
is one step in its next round, unless that is estimated to take longer than HERE_S: then, and for whatever comes while a step runs, it is the
worker's.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Hashable

from fastrnn.errors import OverloadedError, StateError
from fastrnn.runtime.pools.pool import Pool
from fastrnn.serving.callers import Callers, Request
from fastrnn.serving.metrics import Metrics
from fastrnn.serving.replies import deliver, resolve
from fastrnn.serving.room import Room
from fastrnn.serving.rows import Rows

LOG = logging.getLogger("fastrnn")
# What a loop or a waiting thread runs itself, by estimate; an event loop stands still meanwhile.
HERE_S = 200e-6
NOTE_S = 10.0  # between two lines of the log about overload
AUTO = "auto"  # of max_queue: by what steps take
ACTS = object()  # the key of requests that are no steps


class Engine:
    """The queue, the worker, and the pool, which nobody else may call. Safe from any thread."""

    def __init__(self, pool: Pool, rows: Rows, callers: Callers, max_batch: int, max_wait_s: float, max_queue: int | str | None):
        self._pool, self._rows, self._callers, self.metrics = pool, rows, callers, Metrics()
        self._max_batch, self._max_wait_s, self._given_queue = max_batch, max_wait_s, None if max_queue == AUTO else max_queue
        self._measured_room = Room(max_batch) if max_queue == AUTO else None
        self._lock = threading.Lock()
        self._idle = threading.Condition(self._lock)
        self._ready: dict[object, deque[Request]] = {}  # by key: rows of one step have the same
        self._n_ready = self._n_waiting = 0  # the latter with those behind others of their caller
        self._n_taken = 0  # whose answers are not out yet
        self._running = False
        self._noted = -NOTE_S  # when an overload was last logged
        self._refusal: tuple[type[Exception], str] | None = None  # why nothing is taken any more
        self._row_s = 0.0  # what a row takes, by the last steps
        self._promised: asyncio.AbstractEventLoop | None = None  # the loop that will look at the queue in its next round
        self._wanted, self._wake = 0, queue.SimpleQueue()  # the worker sleeps until so many are ready; 0: it is awake
        self._stopped = False
        self._worker = threading.Thread(target=self._work, name="fastrnn-batcher", daemon=True)
        self._worker.start()

    # Requests.

    def submit(self, name, request: Request) -> None:
        """Takes a request, whose future will be resolved; or raises, and nothing has changed."""
        if self._pool.waiting:
            self._pool.give_way()
        now = time.monotonic()
        with self._lock:
            if self._refusal is not None:
                raise self._refusal[0](self._refusal[1])
            metrics = self.metrics
            if request.number is not None:
                pending, answer = self._callers.repeated(name, request)
                if pending is not None or answer is not None:
                    metrics.retries += 1
                    if pending is not None:
                        pending.twins = [*(pending.twins or ()), request]
                        request.caller, request.taken = pending, True
                        return
            else:
                answer = None
            if answer is None:
                self._check_room(now)
                self._callers.check(name, request, now)
                metrics.requests += 1
                request.at = now
                self._n_waiting += 1
                if self._callers.add(name, request, now):
                    self._make_ready(request)
                    if not self._running and not (request.loop is not None and self._promise(request.loop)):
                        self._rouse()
        if answer is not None:
            request.taken = True
            resolve([(request, answer)], self._rows.result)

    def withdraw(self, request: Request) -> bool:
        """Takes a request back whose step has not begun; whether that was so. Then its stream does not move."""
        with self._lock:
            if request.taken or request.twins:
                return False
            request.taken = True
            self.metrics.cancelled += 1
            self._n_waiting -= 1
            if request.caller.head is request:
                self._ready[request.key].remove(request)
                self._n_ready -= 1
                if not self._ready[request.key]:
                    del self._ready[request.key]
            lost, follower = self._callers.withdraw(request)
            if follower is not None:
                self._make_ready(follower)
            outcomes = self._lose(lost)
            self._note_idle()
        deliver(outcomes, self._rows.result)
        return True

    def _lose(self, lost: list[Request]) -> list[tuple[Request, Exception]]:
        """What cannot be done any more, with the error that says so."""
        for request in lost:
            request.taken = True
        self._n_waiting -= len(lost)
        self.metrics.failed += len(lost)
        why = "a request before this one was cancelled or failed, so its stream is not where this one expects it"
        return [(request, StateError(f"caller {request.caller.name!r}: {why}")) for request in lost]

    def _make_ready(self, request: Request) -> None:
        waiting = self._ready.get(request.key)
        if waiting is None:
            waiting = self._ready[request.key] = deque()
        waiting.append(request)
        self._n_ready += 1

    @property
    def _max_queue(self) -> int | None:
        """How many requests may wait."""
        return self._given_queue if self._measured_room is None else self._measured_room.most

    def room(self) -> None:
        """Raises OverloadedError where a request that is not a retry would be refused, before anyone has spent more time on it."""
        if (most := self._max_queue) is not None and self._n_waiting >= most and self._refusal is None:
            with self._lock:
                self._check_room(time.monotonic())

    def _check_room(self, now: float) -> None:
        if (most := self._max_queue) is None or self._n_waiting < most:
            return
        self.metrics.overloaded += 1
        if now - self._noted >= NOTE_S:
            self._noted = now
            LOG.warning("overloaded: %d requests wait, more are refused; %d were so far", self._n_waiting, self.metrics.overloaded)
        raise OverloadedError(f"{self._n_waiting} requests wait, and no more than {most} may")

    # Who runs.

    def _promise(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Has the running loop look at the queue once its tasks have had their turn. No promise binds: a loop may end before."""
        if self._promised is not loop:
            self._promised = loop
            loop.call_soon(self._run_on_loop, loop)
        return True

    def _rouse(self) -> None:
        """Wakes the worker, if it sleeps and there is enough to do."""
        if 0 < self._wanted <= self._n_ready:
            self._wanted = 0
            self._wake.put(None)

    def _run_on_loop(self, loop: asyncio.AbstractEventLoop) -> None:
        with self._lock:
            if self._promised is loop:
                self._promised = None
        self.help(loop)

    def help(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        """Runs one short step in this thread, if nobody runs; what is left, and what is long, is the worker's."""
        batch = None
        with self._lock:
            if self._n_ready and not self._running:
                if self._wanted > 1 or self._next_rows() * self._row_s > HERE_S:
                    self._rouse()
                else:
                    batch = self._take()
        if batch is not None:
            self._run(batch, loop)
            with self._lock:
                if self._n_ready and not self._running:
                    self._rouse()

    def _next_rows(self) -> int:
        """Rows of the next step, those of a chunk counted once a step."""
        waiting = next(iter(self._ready.values()))
        return min(len(waiting), self._max_batch) * (waiting[0].steps or 1)

    def _work(self) -> None:
        """The worker: runs as long as something is ready, then sleeps."""
        busy = False
        while True:
            batch = patience = None
            with self._lock:
                if self._n_ready and not self._running:
                    patience = self._patience() if busy else None
                    batch = self._take() if patience is None else None
                if batch is None:
                    if self._stopped:
                        return
                    busy = patience is not None
                    self._wanted = min(self._max_batch, len(self._callers)) if busy else 1
                    timeout = patience if busy else self._sweep()
            if batch is not None:
                self._run(batch, None)
                busy = True
                continue
            try:
                self._wake.get(timeout=timeout)
            except queue.Empty:
                pass

    def _patience(self) -> float | None:
        """How long an engine that has just run may wait for more rows; None: not at all."""
        if not self._max_wait_s or self._n_ready >= min(self._max_batch, len(self._callers)):
            return None
        left = min(waiting[0].at for waiting in self._ready.values()) + self._max_wait_s - time.monotonic()
        return left if left > 0 else None

    def _sweep(self) -> float | None:
        """Evicts idle callers; seconds until that is due again."""
        now = time.monotonic()
        due = self._callers.expire(now)
        self._note_evictions()
        return None if due is None else max(due - now, 1e-3)

    def _note_evictions(self) -> None:
        if evicted := self._callers.evicted:
            self.metrics.evicted += len(evicted)
            LOG.info("evicted %d idle callers: %s", len(evicted), ", ".join(map(repr, evicted[:5])) + (", ..." if len(evicted) > 5 else ""))
            evicted.clear()

    # A step.

    def _take(self) -> list[Request]:
        """The next step's requests; the pool is this thread's until _run is done with them."""
        key, waiting = next(iter(self._ready.items()))
        if len(waiting) <= self._max_batch:
            batch = list(self._ready.pop(key))
        else:
            batch = [waiting.popleft() for _ in range(self._max_batch)]
            self._ready[key] = self._ready.pop(key)  # other keys first
        n, now = len(batch), time.monotonic()
        self._running, self._n_taken = True, self._n_taken + n
        self._n_ready -= n
        self._n_waiting -= n
        self._closing, self._callers.closing = self._callers.closing, []
        for request in batch:
            request.taken = True
            if request.loop is None:
                request.future.set_running_or_notify_cancel()
        self.metrics.queue_us.add_all([(now - request.at) * 1e6 for request in batch])
        return batch

    def _run(self, batch: list[Request], loop: asyncio.AbstractEventLoop | None) -> None:
        """Runs what was taken and resolves its futures, without the lock. loop: the one whose thread this is."""
        started = time.monotonic()
        try:
            refused = self._open(batch)
            if batch[0].act is not None:
                outcomes = self._acted(batch)
            elif not refused:
                outcomes = self._stepped(batch)
            else:
                answers = iter(self._stepped([request for request in batch if request not in refused]))
                outcomes = [refused[request] if request in refused else next(answers) for request in batch]
        except BaseException as error:  # an interrupt, or a fault of ours: whether streams have moved is not known
            LOG.critical("%d streams are lost", len(batch), exc_info=True)
            self._finish(batch, [error] * len(batch), started, loop, lost=True)
            if not isinstance(error, Exception):
                raise
        else:
            self._finish(batch, outcomes, started, loop)

    def _open(self, batch: list[Request]) -> dict[Request, StateError]:
        """Closes and opens streams before a step; whose state to begin with was none of this model's."""
        refused = {}
        for handle in self._closing:
            self._pool.close(handle)
        for request in batch:
            if request.start and request.act is None:
                try:
                    request.caller.handle = self._pool.open() if request.state is None else self._pool.restore(request.state)
                except StateError as error:
                    refused[request] = error
        return refused

    def _acted(self, batch: list[Request]) -> list:
        outcomes = []
        for request in batch:
            try:
                outcomes.append(request.act(self._pool, request.caller))
            except Exception as error:
                outcomes.append(error)
        return outcomes

    def _stepped(self, batch: list[Request]) -> list:
        """The answer of each request, or its error. A step that raises has moved no stream: halves of it find out whose fault it is."""
        if not batch:
            return []
        try:
            run = self._pool.step if batch[0].steps is None else self._pool.push
            outputs = run([request.caller.handle for request in batch], self._rows.gather(batch))
            return self._rows.answers(
                outputs, [self._pool.export(request.caller.handle) if request.export else None for request in batch], batch[0].steps
            )
        except Exception as error:
            LOG.warning("a step of %d rows raised %s: %s", len(batch), type(error).__name__, error)
            if len(batch) == 1:
                return [error]
        half = len(batch) // 2
        return self._stepped(batch[:half]) + self._stepped(batch[half:])

    def _finish(self, batch: list[Request], outcomes: list, started: float, loop, lost: bool = False) -> None:
        now, n, callers, metrics = time.monotonic(), len(batch), self._callers, self.metrics
        answers = list(zip(batch, outcomes))
        with self._lock:
            for request, outcome in zip(batch, outcomes):
                if isinstance(outcome, BaseException):
                    metrics.failed += 1
                    answers += self._lose(callers.lose(request) if lost else callers.undone(request))
                    continue
                if request.start:
                    metrics.started += 1
                if request.end:
                    metrics.ended += 1
                follower = callers.done(request, None if request.number is None else self._rows.kept(outcome), now)
                if follower is not None:
                    self._make_ready(follower)
            metrics.answers += n
            if batch[0].act is None:
                rows = n * (1 if batch[0].steps is None else batch[0].steps)
                metrics.steps += 1
                metrics.frames += rows
                metrics.batch_rows.add(n)
                metrics.run_us.add((now - started) * 1e6)
                if self._measured_room is not None:
                    self._measured_room.note(n, now - started)
                row_s = (now - started) / max(rows, 1)
                self._row_s = row_s if not self._row_s else 0.8 * self._row_s + 0.2 * row_s
            self._running = False
        deliver(answers, self._rows.result, loop)
        with self._lock:
            self._n_taken -= n
            self._note_idle()

    # What others see.

    def callers(self) -> list[Hashable]:
        """Who has a stream."""
        with self._lock:
            return list(self._callers)

    def measured(self) -> dict:
        """The metrics, and what is there now."""
        with self._lock:
            return self.metrics.as_dict() | {"waiting": self._n_waiting, "callers": len(self._callers)}

    # The end.

    def _note_idle(self) -> None:
        if self._refusal is not None and not self._running:
            self._idle.notify_all()

    def drain(self, timeout_s: float | None) -> bool:
        """Takes no more requests, and waits until all that were taken are answered; whether they are."""
        with self._idle:
            if self._refusal is None:
                self._refusal = OverloadedError, "this batcher is draining: it takes no more requests"
                LOG.info("draining: %d requests wait", self._n_waiting)
            self._rouse()  # what a loop has promised to run is run though that loop may stand still here
            return self._idle.wait_for(lambda: not self._n_waiting and not self._n_taken, timeout_s)

    def close(self) -> None:
        """Takes no more requests, refuses those that wait, and ends the worker. A step that is running is finished and answered."""
        with self._idle:
            self._refusal = StateError, "this batcher is closed"
            if self._stopped:
                return
            self._stopped = True
            waiting = self._callers.give_up()
            for request in waiting:
                request.taken = True
            self._ready.clear()
            self._n_ready = self._n_waiting = 0
            self.metrics.failed += len(waiting)
            self._wake.put(None)
            self._idle.notify_all()
            self._idle.wait_for(lambda: not self._running)
        deliver([(request, StateError("this batcher was closed before the request's turn came")) for request in waiting], self._rows.result)
        if threading.current_thread() is not self._worker:
            self._worker.join()
        LOG.info("closed: %d requests were refused", len(waiting))

    def orphan(self) -> None:
        """In a forked child, which has no worker."""
        self._lock = threading.Lock()
        self._idle = threading.Condition(self._lock)
        self._refusal, self._stopped = (StateError, "this batcher was made in another process, and its worker did not come along in the fork"), True
