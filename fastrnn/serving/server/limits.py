"""What a server takes at most, and an HTTP protocol that keeps to it."""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


@dataclass(frozen=True)
class Limits:
    """body_bytes: of a request or a message. connections: at once, of HTTP and WebSocket together; requests at once of gRPC. streams: WebSockets that
    stream. header_bytes, header_s: of a request's head, and until it is there. idle_s: a connection without a request. busy, lag_ms: of the event
    loop, from which on nobody starts; see load.py. drain_s: how long sequences may go on after SIGTERM."""

    body_bytes: int = 16 << 20
    connections: int = 4096
    streams: int = 1024
    header_bytes: int = 32 << 10
    header_s: float = 10
    idle_s: float = 75
    busy: float = 0.7
    lag_ms: float = 10
    drain_s: float = 30


class HeadTooLarge(Exception):
    """A request's head has more bytes than it may."""


def protocol(limits: Limits) -> type[HttpToolsProtocol]:
    """uvicorn's protocol with limits on the bytes and seconds of a request's head, on seconds without a byte of its body, and on connections."""

    class Limited(HttpToolsProtocol):
        _deadline = None
        _head_bytes, _in_head = 0, False

        def connection_made(self, transport) -> None:
            super().connection_made(transport)
            if len(self.connections) > limits.connections:
                self._abort(503)
            else:
                self._watch(limits.idle_s)

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self._in_head:  # a line without an end is shown to nobody
                self._head_bytes += len(data)
                if self._head_bytes > limits.header_bytes:
                    self._abort(431)

        def on_message_begin(self) -> None:
            super().on_message_begin()
            self._in_head, self._head_bytes = True, 0
            self._watch(limits.header_s)

        def on_url(self, url: bytes) -> None:
            self._count(len(url))
            super().on_url(url)

        def on_header(self, name: bytes, value: bytes) -> None:
            self._count(len(name) + len(value) + 4)
            super().on_header(name, value)

        def _count(self, n: int) -> None:
            self._head_bytes += n
            if self._head_bytes > limits.header_bytes:
                raise HeadTooLarge

        def on_headers_complete(self) -> None:
            self._in_head, self._head_bytes = False, 0
            self._watch(limits.idle_s)
            super().on_headers_complete()

        def on_body(self, body: bytes) -> None:
            self._watch(limits.idle_s)
            super().on_body(body)

        def on_message_complete(self) -> None:
            self._watch(None)
            super().on_message_complete()

        def handle_websocket_upgrade(self) -> None:
            self._watch(None)
            super().handle_websocket_upgrade()

        def connection_lost(self, exc) -> None:
            self._watch(None)
            super().connection_lost(exc)

        def send_400_response(self, msg: str) -> None:
            if self._head_bytes > limits.header_bytes:
                self._abort(431)
            elif not self.transport.is_closing():
                super().send_400_response(msg)

        def _watch(self, seconds: float | None) -> None:
            if self._deadline is not None:
                self._deadline.cancel()
            self._deadline = None if seconds is None else self.loop.call_later(seconds, self._abort, 408)

        def _abort(self, status: int) -> None:
            if not self.transport.is_closing():
                retry = "retry-after: 1\r\n" if status == 503 else ""
                self.transport.write(
                    f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n{retry}content-length: 0\r\nconnection: close\r\n\r\n".encode()
                )
                self.transport.close()

    return Limited
