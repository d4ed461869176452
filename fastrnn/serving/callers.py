"""Who is asking: which callers have a stream, in which order their requests run, and what a step's number means.

A caller has at most one request that is ready or running; later ones wait behind it. What a request promises, that the stream is started or ended
and how far it has been counted, holds from when it is submitted, and is taken back where it is not done. Not locked: the engine does.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Iterator

from fastrnn.errors import PoolFullError, StateError, UnknownStreamError


class Request:
    """One step of one caller, a chunk of them, or one act on its stream. whole: its arrays have the axis of rows, and so has the answer.

    steps: of a chunk, None for a step. state: an exported stream, where this one starts; export: the answer brings what it is afterwards.
    """

    __slots__ = ("act", "at", "before", "caller", "end", "export", "future", "inputs", "key", "loop", "number", "start", "state", "steps", "taken",
                 "twins", "whole")  # fmt: skip

    def __init__(
        self,
        inputs,
        key,
        whole: bool,
        start: bool,
        end: bool,
        number: int | None,
        future,
        loop,
        act: Callable | None = None,
        state: bytes | None = None,
        export: bool = False,
        steps: int | None = None,
    ):
        self.inputs, self.key, self.whole, self.start, self.end, self.number = inputs, key, whole, start, end, number
        self.future, self.loop, self.act, self.twins, self.taken = future, loop, act, None, False
        self.state, self.export, self.steps = state, export, steps


class Caller:
    """A name and its stream. live: started and not ended, by what was submitted so far; number: of the last step submitted, None where it does not
    count.

    handle: of the pool's stream, once the start has run. answer: that of step `number`, where it is done; answer_of: its request.
    """

    __slots__ = ("answer", "answer_of", "behind", "handle", "head", "live", "name", "number", "used")

    def __init__(self, name: Hashable):
        self.name, self.live, self.used = name, False, 0.0
        self.handle: int = None
        self.number: int | None = None
        self.head = self.answer = self.answer_of = None
        self.behind: deque[Request] = deque()

    def last(self) -> Request | None:
        """The last request that is not done."""
        return self.behind[-1] if self.behind else self.head


class Callers:
    """All callers by name. idle_timeout_s: from its last answer on, after which a caller may be evicted; None: never."""

    def __init__(self, capacity: int, idle_timeout_s: float | None):
        self.capacity, self.idle_timeout_s = capacity, idle_timeout_s
        self._known: OrderedDict[Hashable, Caller] = OrderedDict()  # the one that is longest idle first, where there is a timeout
        self._ended: OrderedDict[Hashable, tuple[int, tuple]] = OrderedDict()  # the last answer of those that counted: it may be asked for again
        self.closing: list[int] = []  # handles that are to be closed before the next stream is opened
        self.evicted: list[Hashable] = []

    def __len__(self) -> int:
        return len(self._known)

    def __iter__(self) -> Iterator[Hashable]:
        return iter(self._known)

    def __contains__(self, name) -> bool:
        return name in self._known

    # What may be submitted.

    def repeated(self, name: Hashable, request: Request) -> tuple[Request | None, tuple | None]:
        """The request that is asked again, or its answer where it is done; (None, None): a new one. Raises StateError where it was to end or
        export otherwise."""
        caller, number = self._known.get(name), request.number
        if caller is not None and caller.number == number:
            last = caller.last()
            of = last or caller.answer_of
            if of is not None and of.number == number and (of.start or not request.start):
                if (of.end, of.export) != (request.end, request.export):
                    raise StateError(f"caller {name!r}: step {number} was asked for with end={of.end}, export={of.export}")
                return (last, None) if last else (None, caller.answer)
        if caller is None and not request.start and self._ended.get(name, (None, None))[0] == number:
            return None, self._ended[name][1]
        return None, None

    def check(self, name: Hashable, request: Request, now: float) -> None:
        """Raises unless the caller may ask for this now; completes the request's number."""
        caller = self._known.get(name)
        if self.idle_timeout_s is not None:
            self.expire(now)
            caller = self._known.get(name)
        if request.start:
            if caller is not None and caller.live:
                raise StateError(f"caller {name!r} was started already, and has not ended")
            if caller is None and len(self._known) >= self.capacity:
                idle = "" if self.idle_timeout_s is None else f", and none was idle for {self.idle_timeout_s} s"
                raise PoolFullError(f"all {self.capacity} streams are taken{idle}")
        elif caller is None or not caller.live:
            raise UnknownStreamError(f"caller {name!r} has no stream: it was never started, has ended, or was evicted; start=True begins a new one")
        elif request.act is None and caller.number is not None:
            if request.number is None:
                request.number = caller.number + 1
            elif request.number != caller.number + 1:
                raise StateError(f"caller {name!r}: step {caller.number + 1} is next, got step {request.number}")

    def add(self, name: Hashable, request: Request, now: float) -> bool:
        """Takes a request that was checked; whether it is ready, nothing of its caller's being before it."""
        caller = self._known.get(name)
        if caller is None:
            caller = self._known[name] = Caller(name)
            self._ended.pop(name, None)
        request.caller, request.before = caller, (caller.live, caller.number)
        caller.used = now
        if self.idle_timeout_s is not None:
            self._known.move_to_end(name)
        caller.live = not request.end
        if request.start or request.number is not None:
            caller.number = request.number
        if caller.head is None:
            caller.head = request
            return True
        caller.behind.append(request)
        return False

    # What becomes of it.

    def done(self, request: Request, answer: tuple, now: float) -> Request | None:
        """The request was answered; the caller's next one, which is ready now."""
        caller = request.caller
        caller.used = now
        if self.idle_timeout_s is not None:
            self._known.move_to_end(caller.name)
        if request.number is not None:
            caller.answer, caller.answer_of = answer, request
        if request.end:
            self.closing.append(caller.handle)
            caller.handle = caller.answer = caller.answer_of = None
            if request.number is not None and not caller.behind:
                self._ended[caller.name] = request.number, answer
                if len(self._ended) > self.capacity:
                    self._ended.popitem(last=False)
        return self._next(caller)

    def undone(self, request: Request) -> list[Request]:
        """The request was not done, and its stream is as it was: so what waited behind it cannot be, either; these."""
        caller = request.caller
        if caller.head is request:
            lost = list(caller.behind)
            caller.head = None
            caller.behind.clear()
        else:
            waiting = list(caller.behind)
            at = waiting.index(request)
            lost, caller.behind = waiting[at + 1 :], deque(waiting[:at])
        caller.live, caller.number = request.before
        if not caller.live and caller.head is None:
            if caller.handle is not None:
                self.closing.append(caller.handle)
            del self._known[caller.name]
        return lost

    def lose(self, request: Request) -> list[Request]:
        """Whether the request was done is not known: its caller's stream ends. What waited behind it."""
        waiting = self.undone(request)
        caller = request.caller
        if self._known.pop(caller.name, None) is not None:
            self.closing.append(caller.handle)
        return waiting

    def withdraw(self, request: Request) -> tuple[list[Request], Request | None]:
        """As if the request had never been submitted: (what cannot be done without it, what is ready in its place)."""
        caller = request.caller
        if request.start or request.end or request.number is not None or caller.last() is request:
            return self.undone(request), None
        if caller.head is not request:
            caller.behind.remove(request)
            return [], None
        return [], self._next(caller)

    def _next(self, caller: Caller) -> Request | None:
        if caller.behind:
            caller.head = caller.behind.popleft()
            return caller.head
        caller.head = None
        if not caller.live:
            del self._known[caller.name]
        return None

    def give_up(self) -> list[Request]:
        """Whatever waits is not done any more; these."""
        waiting = []
        for caller in self._known.values():
            waiting += ([] if caller.head is None or caller.head.taken else [caller.head]) + list(caller.behind)
            caller.behind.clear()
        return waiting

    # Callers that do not ask any more.

    def expire(self, now: float) -> float | None:
        """Evicts who has been idle for too long; when to look again, None where nobody ever may."""
        if self.idle_timeout_s is None:
            return None
        for caller in list(self._oldest(now)):
            del self._known[caller.name]
            self.closing.append(caller.handle)
            self.evicted.append(caller.name)
        return self.idle_timeout_s + next((caller.used for caller in self._known.values() if caller.head is None), now)

    def _oldest(self, now: float) -> Iterator[Caller]:
        for caller in self._known.values():
            if caller.used + self.idle_timeout_s > now:
                return
            if caller.head is None:
                yield caller
