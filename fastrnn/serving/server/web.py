"""Open Inference Protocol v2 over HTTP, metrics, and the page: a FastAPI application."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from importlib.resources import files

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, HTTPConnection, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

import fastrnn
from fastrnn.serving.server.access import Access
from fastrnn.serving.server.measures import Measures
from fastrnn.serving.server.models import Models
from fastrnn.serving.server.refusals import RETRY_AFTER_S, Refused, refused
from fastrnn.serving.server.sockets import Sockets
from fastrnn.serving.server.tensors import read_request, write_answer

EXTENSIONS = ["binary_tensor_data", "sequence", "parameters"]
DISCARDED = 4  # times the largest body, after which a connection is closed on who still sends
JSON_LENGTH = "inference-header-content-length"
ASSETS = {
    "": ("page.html", "text/html; charset=utf-8"),
    "page.js": ("page.js", "text/javascript; charset=utf-8"),
    "page.css": ("page.css", "text/css; charset=utf-8"),
    "recorder.js": ("recorder.js", "text/javascript; charset=utf-8"),
}
# The page runs its own files and nothing else.
PAGE_HEADERS = {
    "content-security-policy": "default-src 'self'; media-src 'self' blob:; img-src 'self' data:; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "cache-control": "no-cache",
}


def check_origin(connection: HTTPConnection) -> None:
    """Raises Refused for a browser that shows another site's page: a server on this machine is not for every page that its user visits."""
    origin = connection.headers.get("origin")
    if origin is not None and origin.partition("://")[2] != connection.headers.get("host"):
        raise Refused("forbidden", "requests of other sites' pages are refused")


class Web:
    """The endpoints. body_bytes: of a request, at most."""

    def __init__(self, models: Models, access: Access, measures: Measures, body_bytes: int = 16 << 20):
        self._models, self._access, self._measures, self._body_bytes = models, access, measures, body_bytes

    def owner(self, request: HTTPConnection) -> str | None:
        """Whose request it is. Raises Refused."""
        check_origin(request)
        return self._access.owner(request.headers.get("authorization"))

    def guarded(self, endpoint: Callable[[Request], Awaitable[Response]]):
        """The endpoint, whatever it raises answered as the protocol has it."""

        async def answered(request: Request) -> Response:
            try:
                return await endpoint(request)
            except ClientDisconnect:
                return self.refusal(Refused("invalid", "the connection ended before the request did"))
            except Exception as error:
                return self.refusal(refused(error))

        return answered

    def count_refusal(self, error: Refused) -> None:
        """For the metrics."""
        self._measures.refused("http", error)

    def refusal(self, error: Refused) -> Response:
        """A body {"error": message, "name": what it is called}, under the status of its reason."""
        self.count_refusal(error)
        headers = (
            {"retry-after": str(RETRY_AFTER_S)}
            if error.codes.retry
            else {"www-authenticate": "Bearer"}
            if error.reason == "unauthenticated"
            else None
        )
        return JSONResponse({"error": str(error), "name": error.name}, error.codes.http, headers)

    # Health and metadata.

    async def live(self, request: Request) -> Response:
        return Response()

    async def ready(self, request: Request) -> Response:
        return Response(status_code=503 if self._models.draining else 200)

    async def model_ready(self, request: Request) -> Response:
        self.owner(request)
        self._models.of(request.path_params["name"]).of_version(request.path_params.get("version", ""))
        return await self.ready(request)

    async def server(self, request: Request) -> Response:
        return JSONResponse({"name": "fastrnn", "version": fastrnn.__version__, "extensions": EXTENSIONS})

    async def model(self, request: Request) -> Response:
        self.owner(request)
        return JSONResponse(self._models.of(request.path_params["name"]).metadata(request.path_params.get("version", "")))

    # Inference.

    async def infer(self, request: Request) -> Response:
        began, owner, headers = time.perf_counter(), self.owner(request), request.headers
        if headers.get("content-encoding", "identity") != "identity":
            raise Refused("unsupported", "requests are not compressed")
        length = headers.get(JSON_LENGTH)
        if length is not None and not (length.isascii() and length.isdigit() and len(length) < 16):
            raise Refused("invalid", "Inference-Header-Content-Length must be a whole number")
        name = request.path_params["name"]
        asked, wanted = read_request(await self._body(request), None if length is None else int(length), name, request.path_params.get("version", ""))
        answer = await self._models.infer(asked, owner)
        body, json_length = write_answer(answer, wanted)
        self._measures.answered("http", name, time.perf_counter() - began)
        if json_length is None:
            return Response(body, media_type="application/json")
        return Response(body, headers={JSON_LENGTH: str(json_length)}, media_type="application/octet-stream")

    async def _body(self, request: Request) -> bytes:
        """The whole body. One that is too large is read for a while and thrown away: who still sends does not see the answer."""
        parts, size = [], 0
        async for part in request.stream():
            size += len(part)
            if size <= self._body_bytes:
                parts.append(part)
            elif size > DISCARDED * self._body_bytes:
                break
            else:
                parts.clear()
        if size > self._body_bytes:
            raise Refused("too_large", f"a request has at most {self._body_bytes} bytes")
        return parts[0] if len(parts) == 1 else b"".join(parts)

    # For people and Prometheus.

    async def metrics(self, request: Request) -> Response:
        self.owner(request)
        return Response(self._measures.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    async def measured(self, request: Request) -> Response:
        self.owner(request)
        return JSONResponse({**self._measures.live(), "version": fastrnn.__version__})

    async def page(self, request: Request) -> Response:
        name, kind = ASSETS[request.url.path.lstrip("/")]
        return Response(files(__package__).joinpath("page", name).read_bytes(), media_type=kind, headers=PAGE_HEADERS)


def application(web: Web, sockets: Sockets | None = None) -> FastAPI:
    """The routes; without sockets, requests alone."""
    paths = {"/v2/health/live": web.live, "/v2/health/ready": web.ready, "/v2": web.server, "/metrics": web.metrics, "/live": web.measured}
    paths |= {f"/{asset}": web.page for asset in ASSETS}
    routes = []
    if sockets is not None:

        async def stream(socket: WebSocket) -> None:
            await sockets.serve(socket, socket.path_params["name"])

        routes.append(WebSocketRoute("/v2/models/{name}/stream", stream))
    for versioned in ("", "/versions/{version}"):
        model = f"/v2/models/{{name}}{versioned}"
        paths |= {model: web.model, f"{model}/ready": web.model_ready}
        routes.append(Route(f"{model}/infer", web.guarded(web.infer), methods=["POST"]))
    routes += [Route(path, web.guarded(endpoint), methods=["GET"]) for path, endpoint in paths.items()]
    app = FastAPI(title="fastrnn", docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False, routes=routes)

    async def unknown(request: Request, error: HTTPException) -> Response:
        reason = {404: "unknown", 405: "unsupported"}.get(error.status_code, "invalid")
        web.count_refusal(Refused(reason, error.detail))
        return JSONResponse({"error": f"{request.method} {request.url.path[:200]}: {error.detail}", "name": reason}, error.status_code, error.headers)

    app.add_exception_handler(HTTPException, unknown)
    return app
