"""A WebSocket is a caller: frames of samples or features in, results out, and its state as a token for another connection to go on from.

    server  text    {"type": "ready", "frame": {shape, datatype, bytes}, "outputs": [{name, datatype, shape}], "state": whether one was taken up}
    client  text    {"type": "start", ...}: first of all, or not at all; see Start
    client  binary  samples, any number of bytes: cut into frames here, what is left over waits for more
    server  binary  for each message that completed frames, the outputs of these, a frame behind the other
    client  text    {"type": "token"}    server  text  {"type": "token", "state_token", "frames": answered so far, "left": bytes that wait}
    client  text    {"type": "end"}      server  text  {"type": "end", "state_token", "frames", "left"}, then closes with 1000
    server  text    {"type": "end", "reason": "draining", ...}, then closes with 1012: another server goes on from the token
    server  text    {"type": "late", "by_ms"}: the server has more to do than time, so answers come late; once a second for as long as that is so
    server  text    {"type": "error", "error", "name"}, then closes with its reason's code; 1013: full, come back later

The next message is read when the one before is answered, so a client that sends faster than it is served is held back by TCP.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import Callable

import numpy as np
from starlette.requests import HTTPConnection
from starlette.websockets import WebSocket, WebSocketDisconnect

from fastrnn.errors import OverloadedError, StateError
from fastrnn.serving.batcher import Batcher
from fastrnn.serving.server.access import PROTOCOL, Access
from fastrnn.serving.server.asked import Caller, state_of, token_of
from fastrnn.serving.server.datatypes import NAMES, to_bytes
from fastrnn.serving.server.measures import Measures
from fastrnn.serving.server.models import Models, Served
from fastrnn.serving.server.refusals import REASONS, Refused, refused

TYPES = {"start": ("type", "state_token", "inputs", "frame", "outputs"), "token": ("type",), "end": ("type",)}
FIRST_S = 30.0  # within which a connection says something, or its place is another's
MOST_TEXT = 1 << 20
CHUNK = 32  # frames of one message that are stepped in one request, at most: others' frames come between


class Frames:
    """How a connection's bytes are frames of the input that has rows, and what its other inputs hold.

    A client's start may say: state_token, of a stream to go on from; inputs {name: value}, of those that all rows share; frame, the last dimension
    where the model leaves it open; outputs, the names of those that come back.
    """

    def __init__(self, batcher: Batcher, served: Served, start: dict):
        given, generation = start.get("inputs", {}), served.newest
        values = {v.name: v for v in generation.session.model.inputs if v.name in {one["name"] for one in generation.inputs}}
        if not isinstance(given, dict) or any(name not in values for name in given):
            raise Refused("invalid", f"inputs must be an object of {', '.join(values)}")
        rowed = [v for v in values.values() if v.name not in given]
        if len(rowed) != 1:
            raise Refused(
                "invalid",
                f"a connection brings one input as frames, and this model has {', '.join(v.name for v in rowed) or 'no other'}; "
                "the start says what the others hold, as inputs",
            )
        self.name = rowed[0].name
        try:
            self.shared = {name: np.array(value, values[name].dtype) for name, value in given.items()}
        except (ValueError, TypeError, OverflowError) as error:
            raise Refused("invalid", f"inputs: {error}") from error
        if batcher.fields is None:
            self._plan(batcher, served, rowed[0], start.get("frame"))
        field = next(f for f in batcher.fields if f.name == self.name)
        if field.axis is None:
            raise Refused("invalid", f"input {self.name!r} is one that all rows share")
        if start.get("frame") not in (None, field.whole[-1] if field.whole else None):
            raise Refused("invalid", f"frame: this model takes frames of {field.whole[-1] if field.whole else 1}, got {str(start['frame'])[:40]}")
        self.shape, self.dtype = field.whole, field.dtype.newbyteorder("<")
        self.nbytes = self.dtype.itemsize * int(np.prod(self.shape, dtype=np.int64))
        if not self.nbytes:
            raise Refused("invalid", "frames of this model are empty")
        self.left = b""

    def _plan(self, batcher: Batcher, served: Served, value, frame) -> None:
        """Sizes that the model leaves open, by the first frame."""
        context = served.options.context.get(self.name, 0)
        shape = [served.options.sizes.get(d, d) if isinstance(d, str) else d for d in value.shape]
        rows, shape = shape[:-1], shape[-1:]
        last = frame if isinstance(shape[0], str) else shape[0] - context if shape else None
        if type(last) is not int or not 0 < last < 1 << 24:
            raise Refused("invalid", f"input {self.name!r} leaves its last dimension open: the start says it as frame, or the server's --size does")
        x = np.zeros([*(1 if isinstance(d, str) else d for d in rows), last], value.dtype)
        batcher.prepare({self.name: x, **self.shared} if self.shared else {self.name: x})

    def cut(self, data: bytes) -> list[np.ndarray]:
        """Chunks (T', *frame) of what came and what was left over, in order."""
        data = self.left + data if self.left else data
        n = len(data) // self.nbytes
        self.left = data[n * self.nbytes :]
        frames = np.frombuffer(data, self.dtype, n * self.nbytes // self.dtype.itemsize).reshape(n, *self.shape)
        return [frames[k : k + CHUNK] for k in range(0, n, CHUNK)]


class Sockets:
    """Connections that stream. most: at once; another one is closed with 1013."""

    def __init__(self, models: Models, access: Access, measures: Measures, most: int, check_origin: Callable[[HTTPConnection], None]):
        self._models, self._access, self._measures, self._most, self._check_origin = models, access, measures, most, check_origin
        self._numbers, self._open = itertools.count(), set()

    def drain(self) -> None:
        """Ends every connection once what was read of it is answered, with a token to go on elsewhere."""
        for connection in self._open:
            connection.drain()

    async def serve(self, socket: WebSocket, name: str) -> None:
        """A connection, from its handshake to its end."""
        protocols = socket.scope.get("subprotocols", [])
        try:
            self._check_origin(socket)
            owner = self._access.owner_of_socket(socket.headers.get("authorization"), protocols)
        except Refused as error:
            self._measures.refused("websocket", error)
            await socket.close(error.codes.websocket)  # before it is accepted: HTTP's 403
            return
        await socket.accept(PROTOCOL if PROTOCOL in protocols else None)
        try:
            await self._admitted(socket, name, Caller(owner, "connection", next(self._numbers)))
        except WebSocketDisconnect:
            pass
        except Exception as error:
            await self._refuse(socket, refused(error))

    async def _refuse(self, socket: WebSocket, error: Refused) -> None:
        self._measures.refused("websocket", error)
        try:
            await socket.send_text(json.dumps({"type": "error", "error": str(error), "name": error.name}))
            await socket.close(error.codes.websocket, str(error)[:100])
        except (RuntimeError, WebSocketDisconnect):  # it is gone already
            pass

    async def _admitted(self, socket: WebSocket, name: str, caller: Caller) -> None:
        if len(self._open) >= self._most:
            raise refused(OverloadedError(f"{self._most} connections stream, and no more may"))
        self._models.check_start()
        served = self._models.of(name)
        if served.newest.batcher is None:
            raise Refused("invalid", f"model {name!r} cannot be streamed: {served.newest.unstreamable}")
        connection = Connection(socket, served, caller, self._models, self._measures)
        self._open.add(connection)
        self._measures.sockets = len(self._open)
        try:
            await connection.run()
        finally:
            self._open.discard(connection)
            self._measures.sockets = len(self._open)
            served.end(caller)


class Drained(Exception):
    """The connection is to end here and now."""


class Connection:
    """One caller's connection."""

    def __init__(self, socket: WebSocket, served: Served, caller: Caller, models: Models, measures: Measures):
        self._socket, self._served, self._caller, self._models, self._measures = socket, served, caller, models, measures
        self._said_late = 0.0
        self._frames: Frames | None = None
        self._outputs: list[int] = []  # places of those that are sent
        self._answered, self._task, self._reading, self._drains = 0, asyncio.current_task(), False, False

    def drain(self) -> None:
        """Ends it between two messages."""
        self._drains = True
        if self._reading:
            self._task.cancel()

    async def run(self) -> None:
        """Until the client ends it, or is gone."""
        try:
            self._models.opening += 1
            try:
                message = await self._begin()
            finally:
                self._models.opening -= 1
            message = message or await self._receive()
            while True:
                if (data := message.get("bytes")) is not None:
                    await self._data(data)
                elif (kind := self._text(message)["type"]) == "token":
                    await self._tell("token")
                elif kind == "end":
                    await self._tell("end")
                    return await self._socket.close(1000)
                else:
                    raise Refused("invalid", "a start is the first message, or none")
                message = await self._receive()
        except Drained:
            if self._frames is not None:
                await self._tell("end", reason="draining")
            await self._socket.close(REASONS["draining"].websocket, "this server is draining")

    async def _begin(self) -> dict | None:
        """Starts the stream by the first message, and gives that back if it is no start."""
        try:
            async with asyncio.timeout(FIRST_S):
                message = await self._receive()
        except TimeoutError:
            raise Refused("late", f"nothing came within {FIRST_S:g} s") from None
        first = self._text(message) if message.get("text") is not None else {}
        starts = first.get("type") == "start"
        await self._start(first if starts else {})
        return None if starts else message

    async def _receive(self) -> dict:
        if self._drains:
            raise Drained
        self._reading = True
        try:
            message = await self._socket.receive()
        except asyncio.CancelledError:
            if not self._drains:
                raise
            self._task.uncancel()
            raise Drained from None
        finally:
            self._reading = False
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message.get("code", 1005))
        return message

    @staticmethod
    def _text(message: dict) -> dict:
        text = message.get("text") or ""
        try:
            given = json.loads(text) if len(text) <= MOST_TEXT else None
        except (ValueError, RecursionError) as error:
            raise Refused("invalid", f"a text message is JSON: {error}") from error
        if not isinstance(given, dict) or not isinstance(given.get("type"), str) or given["type"] not in TYPES:
            raise Refused("invalid", f"a text message is an object of at most {MOST_TEXT} characters whose type is one of {', '.join(TYPES)}")
        if unknown := next((key for key in given if key not in TYPES[given["type"]]), None):
            raise Refused("invalid", f"{given['type']!r} has {unknown[:80]!r}; known are {', '.join(TYPES[given['type']])}")
        return given

    async def _start(self, start: dict) -> None:
        generation = self._served.newest
        batcher, names = generation.batcher, generation.batcher.output_names
        state = state_of(start.get("state_token"), starts=True)
        wanted = start.get("outputs", list(names))
        if not isinstance(wanted, list) or not wanted or any(name not in names for name in wanted):
            raise Refused("invalid", f"outputs must be a list of {', '.join(names)}")
        self._outputs, frames = [names.index(name) for name in wanted], Frames(batcher, self._served, start)
        try:
            await asyncio.wrap_future(batcher.open(self._caller) if state is None else batcher.restore(self._caller, state))
        except StateError as error:
            raise Refused("invalid", str(error), "StateError") from error
        self._frames = frames
        described = {one["name"]: one for one in generation.outputs}
        await self._send(
            {
                "type": "ready",
                "model": self._served.name,
                "version": str(generation.version),
                "resumed": state is not None,
                "frame": {"name": frames.name, "datatype": NAMES[frames.dtype.name], "shape": list(frames.shape), "bytes": frames.nbytes},
                "outputs": [described[name] for name in wanted],
            }
        )

    async def _data(self, data: bytes) -> None:
        """Steps what came, and sends what it gave."""
        began, parts, frames = time.perf_counter(), [], self._frames
        for chunk in frames.cut(data):
            batcher = (await self._served.holder(self._caller)).batcher
            n = len(chunk)
            if n == 1:
                y = await batcher.step(self._caller, {frames.name: chunk[0], **frames.shared} if frames.shared else chunk[0])
            else:
                shared = {name: np.broadcast_to(a, (n, *a.shape)) for name, a in frames.shared.items()}
                y = await batcher.push(self._caller, {frames.name: chunk, **shared})
            y = y if isinstance(y, tuple) else (y,)
            columns = [y[k].reshape(n, -1) for k in self._outputs]
            parts.append(to_bytes(columns[0]) if len(columns) == 1 else b"".join(to_bytes(column[t]) for t in range(n) for column in columns))
            self._answered += n
        if parts:
            await self._socket.send_bytes(parts[0] if len(parts) == 1 else b"".join(parts))
            now = time.perf_counter()
            self._measures.answered("websocket", self._served.name, now - began)
            if self._models.load.late and now - self._said_late > 1:
                self._said_late = now
                await self._send({"type": "late", "by_ms": round(1e3 * self._models.load.lag_s, 1)})

    async def _tell(self, kind: str, **more) -> None:
        """The state after all that was answered, as a token."""
        batcher = (await self._served.holder(self._caller)).batcher
        state = await asyncio.wrap_future(batcher.export(self._caller))
        await self._send({"type": kind, "state_token": token_of(state), "frames": self._answered, "left": len(self._frames.left), **more})

    async def _send(self, message: dict) -> None:
        await self._socket.send_text(json.dumps(message))
