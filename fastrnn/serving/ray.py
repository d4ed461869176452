"""Streams over many machines, on Ray: a Ray Serve application whose replicas hold callers' states, its client, and whole sequences with Ray Data.

    serve.run(app(session, replicas=2))                      # ConsistentHashRouter: a caller's steps go to one replica for as long as it is there
    caller = Caller(serve.get_app_handle("fastrnn"))         # keeps the last state and the number of its step
    y = await caller.step(x); y = caller.step_sync(x)

    ds.map_batches(Predictor, fn_constructor_args=[session])   # ragged sequences, a row each

Other programs ask over HTTP, where the application has a route: Open Inference Protocol v2 as `fastrnn serve` has it (server/), with the header
x-session-id, the same for all requests of a sequence, by which Ray's proxy finds its replica. Such a client keeps the last state_token itself.

A step's answer brings the stream as it is after it. Where a replica is lost, or another one is asked because there are more or fewer of them, the
caller sends the step again with the last state, and the replica goes on from there: bit for bit. A replica that has a caller's stream from earlier
compares step numbers, so no step is done twice, and nothing starts anew unless its caller is at its first step.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from fastrnn.converters import load
from fastrnn.errors import (
    FastRNNError,
    MissingDependencyError,
    NotStreamableError,
    OverloadedError,
    PoolFullError,
    ShapeError,
    StateError,
    UnknownStreamError,
)
from fastrnn.model import Model
from fastrnn.runtime.session import Session, compile
from fastrnn.serving.ragged import Ragged

try:
    from ray import serve
    from ray.exceptions import RayActorError
    from ray.serve.config import RequestRouterConfig
    from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError
except ImportError as error:
    if error.name not in ("ray", "fastapi", "starlette"):
        raise
    raise MissingDependencyError("ray", "ray", "fastrnn.serving.ray") from error
from starlette.requests import Request
from starlette.responses import Response

from fastrnn.serving.server.access import Access
from fastrnn.serving.server.generation import Options
from fastrnn.serving.server.measures import Measures
from fastrnn.serving.server.models import Models
from fastrnn.serving.server.web import Web, application

ROUTER = "ray.serve.experimental.consistent_hash_router.ConsistentHashRouter"
LOST = (RayActorError, BackPressureError, DeploymentUnavailableError, TimeoutError)
PAUSES_S = (0.0, 0.05, 0.1, 0.2, 0.5)  # before a step is sent again; the last one from then on
DONE, WITH_STATE, REFUSED = "done", "with state", "refused"


def session_of(model) -> Session:
    """What a replica runs: a Session as it is, a Model or layer compiled, a path loaded and compiled."""
    if isinstance(model, Session):
        return model
    return compile(load(model) if isinstance(model, str | Path) else model)


class Replica:
    """A Batcher behind a Ray Serve deployment, asked by a handle or over HTTP. Callers of the two are not the same, whatever they are called.

    Over HTTP, a second start of a sequence ends the first: a client that was at another replica meanwhile starts again, with its state_token, at one that
    may have the stream from earlier.
    """

    def __init__(self, name: str, model, options: Options):
        models = Models()
        made = models.add(name, session_of(model), options, restart=True).newest
        if made.batcher is None:
            raise NotStreamableError(made.unstreamable)
        self._batcher, self._application = made.batcher, application(Web(models, Access(), Measures(models)))

    async def __call__(self, request: Request) -> Response:
        """HTTP."""
        return _Answer(self._application)

    async def step(self, caller: str, number: int, x, end: bool, first: bool, state: bytes | None) -> tuple:
        """(DONE, y, state after it), (WITH_STATE, why): to be asked again with the caller's state, or (REFUSED, error)."""
        batcher, options = self._batcher, {"step": number, "end": end, "export": True}
        try:
            if state is None:
                return DONE, *await batcher.step(caller, x, start=first, **options)
            try:
                return DONE, *await batcher.step(caller, x, **options)  # done here before, or the next one of a stream that is here
            except (StateError, UnknownStreamError):
                if caller in batcher:
                    batcher.end(caller)
                return DONE, *await batcher.step(caller, x, start=True, state=state, **options)
        except (StateError, UnknownStreamError) as error:
            return (WITH_STATE, str(error)) if state is None and not first else (REFUSED, error)
        except FastRNNError as error:
            return REFUSED, error

    async def metrics(self) -> dict:
        """The Batcher's."""
        return self._batcher.metrics()

    async def check_health(self) -> None:
        """For Ray: raises where the batcher is closed."""
        self._batcher.metrics()


class _Answer(Response):
    """What an ASGI application answers, as Ray Serve takes a response."""

    def __init__(self, application):
        super().__init__()
        self._application = application

    async def __call__(self, scope, receive, send) -> None:
        await self._application(scope, receive, send)


def app(
    model: Session | Model | str | Path,
    *,
    replicas: int | str = 2,
    name: str = "fastrnn",
    capacity: int = 4096,
    max_batch: int = 256,
    max_wait_us: float = 0,
    max_queue: int | None = None,
    idle_timeout_s: float | None = 60,
    context: Mapping[str, int] | None = None,
    sizes: Mapping[str, int] | None = None,
    max_ongoing_requests: int = 100_000,
    autoscaling: Mapping | None = None,
    actor_options: Mapping | None = None,
):
    """A Ray Serve application for serve.run. Its deployment is called `name`.

    replicas: how many; autoscaling: in place of it, Ray Serve's autoscaling_config. Others: as of Batcher, of each replica. max_ongoing_requests:
    of a replica; Ray's default of 5 would hold back a live caller's steps. actor_options: ray_actor_options, such as {"num_cpus": 1}.
    """
    options = Options(capacity, max_batch, max_wait_us, max_queue, idle_timeout_s, dict(context or {}), dict(sizes or {}))
    scale = {"num_replicas": replicas} if autoscaling is None else {"autoscaling_config": dict(autoscaling)}
    router = RequestRouterConfig(request_router_class=ROUTER, request_router_kwargs={"num_fallback_replicas": 0})
    deployment = serve.deployment(
        Replica,
        name=name,
        max_ongoing_requests=max_ongoing_requests,
        request_router_config=router,
        ray_actor_options=dict(actor_options or {}),
        **scale,
    )
    return deployment.bind(name, str(model) if isinstance(model, Path) else model, options)


class Caller:
    """One stream, by way of a handle of the application. Belongs to one thread or task at a time.

    id: of its own if not said. timeout_s: how long a step is tried, over lost replicas and full ones. state, number: after and of the last step
    that was answered; Caller(handle, state=..., number=...) goes on from there. resumed: how often a replica was given the state.

    Raises what the step itself is refused for (ShapeError, DTypeError, StateError for an id that another caller uses), and TimeoutError.
    """

    def __init__(self, handle, id: str | None = None, *, state: bytes | None = None, number: int = -1, timeout_s: float = 60):
        if (state is None) != (number < 0):
            raise StateError("a caller goes on from a state and the number of its step, both or none")
        self.id, self.state, self.number, self.timeout_s, self.resumed = id or uuid.uuid4().hex, state, number, timeout_s, 0
        self._handle, self._ended = handle.options(session_id=self.id), False

    async def step(self, x, end: bool = False):
        """The answer to one step, in a coroutine. Cancelled, or timed out, the step may be asked again, and is done once."""

        async def ask(pause: float, arguments: tuple):
            await asyncio.sleep(pause)
            return await asyncio.wait_for(self._handle.step.remote(*arguments), self.timeout_s)

        return await self._tried(x, end, ask)

    def step_sync(self, x, end: bool = False):
        """The same for threads."""

        async def ask(pause: float, arguments: tuple):
            time.sleep(pause)  # noqa: ASYNC251  (no loop runs this)
            return self._handle.step.remote(*arguments).result(timeout_s=self.timeout_s)

        try:
            self._tried(x, end, ask).send(None)  # ask awaits nothing, so it runs to its end
        except StopIteration as stop:
            return stop.value

    async def _tried(self, x, end: bool, ask):
        """The answer, by ask(seconds before, arguments) as often as it takes. How it waits is ask's alone."""
        if self._ended:
            raise UnknownStreamError(f"caller {self.id!r} has ended")
        number, first, until, tries, state = self.number + 1, self.state is None, time.monotonic() + self.timeout_s, 0, None
        while True:
            try:
                kind, *outcome = await ask(PAUSES_S[min(tries, len(PAUSES_S) - 1)], (self.id, number, x, end, first, state))
            except LOST as error:
                kind, outcome = LOST, [error]
            if kind == DONE:
                self.resumed += state is not None
                self.number, (y, self.state), self._ended = number, outcome, end
                return y
            if kind == REFUSED and not isinstance(outcome[0], OverloadedError | PoolFullError):
                raise outcome[0]
            if time.monotonic() > until:
                raise TimeoutError(f"caller {self.id!r}, step {number}: not answered in {self.timeout_s} s; the last was {outcome[0]!r}")
            if kind == WITH_STATE:
                state = self.state
            else:
                tries += 1


class Predictor:
    """Whole sequences with Ray Data: `ds.map_batches(Predictor, fn_constructor_args=[model], concurrency=2)`.

    A row's columns that are called like the model's inputs are one sequence's, without the axis of rows, of any lengths; columns called like its
    outputs are added, what Session.run gives for the sequence alone. columns: {input: column} where they are called otherwise. Raises ShapeError
    naming a column.
    """

    def __init__(self, model, columns: Mapping[str, str] | None = None):
        session = session_of(model)
        self._ragged, self._columns = Ragged(session), dict(columns or {v.name: v.name for v in session.model.inputs if not v.optional})

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        if missing := next((column for column in self._columns.values() if column not in batch), None):
            raise ShapeError(f"column {missing!r} is missing; columns are {', '.join(batch)}")
        rows = len(next(iter(batch.values())))
        found = self._ragged.each([{name: np.asarray(batch[column][r]) for name, column in self._columns.items()} for r in range(rows)])
        return {**batch, **{name: _column([one[name] for one in found]) for name in (found[0] if found else ())}}


def _column(parts: list[np.ndarray]) -> np.ndarray:
    """Arrays of different shapes as Ray Data takes them."""
    if len({part.shape for part in parts}) == 1:
        return np.stack(parts)
    column = np.empty(len(parts), object)
    column[:] = parts
    return column
