"""Why a request is refused, as HTTP and gRPC say it. One table: a reason, its HTTP status, its gRPC status, its WebSocket close code."""

from __future__ import annotations

import logging
from typing import NamedTuple

from fastrnn.errors import DTypeError, FastRNNError, OutOfMemoryError, OverloadedError, PoolFullError, ShapeError, StateError, UnknownStreamError

LOG = logging.getLogger("fastrnn")
RETRY_AFTER_S = 1


class Reason(NamedTuple):
    """retry: the same request may be taken later."""

    http: int
    grpc: str
    websocket: int
    retry: bool = False


REASONS = {
    "invalid": Reason(400, "INVALID_ARGUMENT", 1007),
    "unauthenticated": Reason(401, "UNAUTHENTICATED", 1008),
    "forbidden": Reason(403, "PERMISSION_DENIED", 1008),
    "unknown": Reason(404, "NOT_FOUND", 1008),
    "late": Reason(408, "DEADLINE_EXCEEDED", 1008),
    "started": Reason(409, "ALREADY_EXISTS", 1008),
    "out_of_step": Reason(409, "FAILED_PRECONDITION", 1008),
    "too_large": Reason(413, "RESOURCE_EXHAUSTED", 1009),
    "unsupported": Reason(415, "UNIMPLEMENTED", 1003),
    "headers_too_large": Reason(431, "RESOURCE_EXHAUSTED", 1009),
    "full": Reason(503, "RESOURCE_EXHAUSTED", 1013, retry=True),
    "overloaded": Reason(503, "UNAVAILABLE", 1013, retry=True),
    "draining": Reason(503, "UNAVAILABLE", 1012, retry=True),
    "internal": Reason(500, "INTERNAL", 1011),
}


class Refused(FastRNNError):
    """A request that is not done. reason: of REASONS; name: what the answer calls it, an error of fastrnn.errors or the reason."""

    def __init__(self, reason: str, message: str, name: str | None = None):
        super().__init__(message)
        self.reason, self.name = reason, name or reason

    @property
    def codes(self) -> Reason:
        return REASONS[self.reason]


def refused(error: Exception, starts: bool = False) -> Refused:
    """What an error of a Batcher or Session means to who asked. starts: the request was to start its sequence."""
    if isinstance(error, Refused):
        return error
    name = type(error).__name__
    for kind, reason in (
        (UnknownStreamError, "unknown"),
        (PoolFullError, "full"),
        (OverloadedError, "overloaded"),
        (OutOfMemoryError, "overloaded"),
        (StateError, "started" if starts else "out_of_step"),
        ((ShapeError, DTypeError), "invalid"),
    ):
        if isinstance(error, kind):
            return Refused(reason, str(error), name)
    if isinstance(error, FastRNNError):
        return Refused("invalid", str(error), name)
    LOG.error("a request failed in a way that was not foreseen", exc_info=error)
    return Refused("internal", "an internal fault; the server's log tells it", name)
