"""A server: HTTP, gRPC and their end, on one event loop."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import socket
import threading
from collections.abc import Callable
from contextlib import contextmanager

import uvicorn

from fastrnn.runtime.session import Session
from fastrnn.serving.server import rpc
from fastrnn.serving.server.access import Access
from fastrnn.serving.server.limits import Limits, protocol
from fastrnn.serving.server.load import TICK_S, Load
from fastrnn.serving.server.measures import Measures
from fastrnn.serving.server.models import Models
from fastrnn.serving.server.sockets import Sockets
from fastrnn.serving.server.web import Web, application, check_origin

LOG = logging.getLogger("fastrnn")
PING_S = 20.0
BACKLOG = 2048


class _Uvicorn(uvicorn.Server):
    """Signals are the server's own."""

    @contextmanager
    def capture_signals(self):
        yield


class Server:
    """Models under their names, served over HTTP and WebSocket at (host, port) and gRPC at (host, grpc_port); a port of 0 is any, grpc_port None
    none.

    reload: {name: function that loads the model again}, what SIGHUP does; move_states: whether callers then go on with the new one where their
    states fit.
    listening: called with the server once it listens; port and grpc_port are then those that were bound.
    await run() serves until SIGTERM, SIGINT or stop(): then nothing starts any more, sequences may end for limits.drain_s, WebSockets end with a
    token, and what was asked is answered. A second signal waits no longer for sequences.
    """

    def __init__(
        self,
        models: Models,
        host: str = "127.0.0.1",
        port: int = 8000,
        grpc_port: int | None = 8001,
        limits: Limits = Limits(),
        access: Access | None = None,
        reload: dict[str, Callable[[], Session]] | None = None,
        move_states: bool = False,
        listening: Callable[[Server], None] | None = None,
    ):
        self.models, self.host, self.port, self.grpc_port, self.limits = models, host, port, grpc_port, limits
        self.access, self.measures = access or Access(), Measures(models)
        self._reload, self._move_states, self._listening = reload or {}, move_states, listening
        self.sockets = Sockets(models, self.access, self.measures, limits.streams, check_origin)
        self.app = application(Web(models, self.access, self.measures, limits.body_bytes), self.sockets)
        models.load = Load(limits.busy, limits.lag_ms * 1e-3)
        self._stop = asyncio.Event()

    def stop(self) -> None:
        """Begins the end, or a second time hurries it; from the loop's thread."""
        self.models.hurry = self._stop.is_set()
        self._stop.set()

    async def run(self) -> None:
        """Serves. Raises OSError where a port cannot be had."""
        config = uvicorn.Config(
            self.app,
            http=protocol(self.limits),
            ws="websockets-sansio",
            loop="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            backlog=BACKLOG,
            timeout_keep_alive=max(1, round(self.limits.idle_s)),
            ws_max_size=self.limits.body_bytes,
            ws_ping_interval=PING_S,
            ws_ping_timeout=PING_S,
            ws_per_message_deflate=False,
            server_header=False,
            date_header=False,
        )
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        listener = socket.create_server((self.host, self.port), family=family, backlog=BACKLOG)
        self.port = listener.getsockname()[1]
        web = _Uvicorn(config)
        loop, tasks = asyncio.get_running_loop(), []
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, self.stop)
            loop.add_signal_handler(signal.SIGHUP, lambda: tasks.append(asyncio.ensure_future(self.reload())))
        grpc_server = None
        serving = asyncio.ensure_future(web.serve([listener]))
        try:
            while not web.started and not serving.done():
                await asyncio.sleep(0.005)
            if self.grpc_port is not None:
                service = rpc.Service(self.models, self.access, self.measures)
                grpc_server, self.grpc_port = await rpc.start(
                    service, f"{self.host}:{self.grpc_port}", self.limits.body_bytes, self.limits.connections
                )
            tasks.append(asyncio.ensure_future(self._tick()))
            LOG.info(
                "serving %s: HTTP at %s:%d, gRPC at %s",
                ", ".join(served.name for served in self.models),
                self.host,
                self.port,
                "no port" if grpc_server is None else f"{self.host}:{self.grpc_port}",
            )
            if self._listening is not None:
                self._listening(self)
            await self._stop.wait()
            LOG.info("draining for at most %g s: %d callers", self.limits.drain_s, self.models.callers())
            self.models.draining = True
            self.sockets.drain()
            ended = await self.models.drain(self.limits.drain_s)
            LOG.info("drained: %s", "every sequence has ended" if ended else "some sequences had not ended")
        finally:
            if grpc_server is not None:
                await grpc_server.stop(1.0)
            web.should_exit = True
            await asyncio.wait([serving], timeout=5.0)
            listener.close()
            for task in tasks:
                task.cancel()
            self.models.close()

    async def reload(self) -> None:
        """Loads every model again and has new callers take it. What cannot be loaded stays as it is, and the log says why."""
        for name, load in self._reload.items():
            try:
                session = await asyncio.to_thread(load)
                await self.models.of(name).replace(session, self._move_states)
            except Exception:
                LOG.exception("model %s could not be loaded again; the one before goes on", name)

    async def _tick(self) -> None:
        self.models.load.begin()
        while True:
            await asyncio.sleep(TICK_S)
            self.models.tick()


def serve(server: Server) -> None:
    """Runs a server until it is told to end, on uvloop where that is there."""
    try:
        from uvloop import new_event_loop
    except ImportError:
        new_event_loop = asyncio.new_event_loop
    gc.collect()
    gc.freeze()  # models and modules stay as long as the server, and are not looked through again (p99 of 200 callers: 14 ms, and 49 without)
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(server.run())
