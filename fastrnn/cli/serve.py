"""serve: models over HTTP, gRPC and WebSocket, until told to end."""

from __future__ import annotations

import json
import warnings
from argparse import ArgumentParser, Namespace
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from fastrnn.cli.console import Console, UsageError
from fastrnn.cli.options import compiled, pairs, sizes_of
from fastrnn.converters import load
from fastrnn.errors import MissingDependencyError
from fastrnn.runtime.session import Session

PACKAGES = ("fastapi", "uvicorn", "httptools", "websockets", "grpc", "google.protobuf", "prometheus_client")
OF_MODELS = ("state", "constant", "context", "size")


def add_arguments(one: ArgumentParser, positive, natural, thread_count, fraction) -> None:
    """The command's options."""
    one.add_argument(
        "model",
        nargs="+",
        help=".onnx, .pt2, TorchScript's .pt, .keras, .h5, .tflite or .safetensors; of several, options with INPUT or DIM begin with a model's name and a colon",
    )
    one.add_argument(
        "--name", action="append", default=[], help="what requests call a model, once for each; its file's name without suffix if not said"
    )
    one.add_argument(
        "--state",
        action="append",
        default=[],
        metavar="INPUT=OUTPUT[:INDEX]",
        help="an output, or a slice of its axis 0, that feeds an input at the next step",
    )
    one.add_argument(
        "--constant", action="append", default=[], metavar="INPUT=VALUE", help="an input fixed at compile time: a number, a list, or a .npy file"
    )
    one.add_argument(
        "--context",
        action="append",
        default=[],
        metavar="INPUT=N",
        help="frames overlap: the input's last N entries of a frame stand before the next",
    )
    one.add_argument(
        "--size", action="append", default=[], metavar="DIM=N", help="size of a dimension that the model leaves open; the first request's if not said"
    )
    one.add_argument("--host", default="127.0.0.1", help="address to listen at (%(default)s: this machine's programs alone)")
    one.add_argument("--port", type=natural, default=8000, help="of HTTP and WebSocket (%(default)s); 0: any")
    one.add_argument("--grpc-port", type=natural, default=8001, help="of gRPC (%(default)s); 0: any")
    one.add_argument("--threads", type=thread_count, default=1, help="that a step may use (1)")
    one.add_argument("--capacity", type=positive, default=4096, help="callers of a model at a time (%(default)s)")
    one.add_argument(
        "--idle-timeout", type=fraction, default=60, metavar="SECONDS", help="after which a caller that does not ask may lose its place (%(default)s)"
    )
    one.add_argument("--max-batch", type=positive, default=256, help="rows of a step (%(default)s)")
    one.add_argument("--max-wait-us", type=natural, default=0, help="how long a busy engine waits for more rows (%(default)s)")
    one.add_argument("--max-queue", type=positive, default=16384, help="requests that may wait; more are refused (%(default)s)")
    one.add_argument("--tokens", metavar="FILE", help="bearer tokens, one a line behind a name or alone; without, everybody may ask")
    one.add_argument("--restart", action="store_true", help="a second start of a sequence ends the first, as Triton does, instead of being refused")
    one.add_argument(
        "--move-states", action="store_true", help="on SIGHUP, which loads the models again, callers go on with the new one where their states fit"
    )
    one.add_argument("--max-body", type=positive, default=16 << 20, metavar="BYTES", help="of a request (%(default)s)")
    one.add_argument("--max-connections", type=positive, default=4096, help="at once (%(default)s)")
    one.add_argument("--max-streams", type=positive, default=1024, help="WebSockets at once; another one is told to come back later (%(default)s)")
    one.add_argument(
        "--max-busy",
        type=fraction,
        default=0.7,
        metavar="SHARE",
        help="of the event loop's time, which with one caller more would be exceeded if more callers were taken (%(default)s)",
    )
    one.add_argument(
        "--max-lag-ms",
        type=fraction,
        default=10,
        help="how late the event loop may be, over a second, before no more callers are taken (%(default)s)",
    )
    one.add_argument("--header-timeout", type=fraction, default=10, metavar="SECONDS", help="for a request's head (%(default)s)")
    one.add_argument("--drain-timeout", type=fraction, default=30, metavar="SECONDS", help="for sequences to end after SIGTERM (%(default)s)")
    one.add_argument("--log-level", default="info", choices=("debug", "info", "warning", "error"))


def serve(arguments: Namespace, console: Console) -> int:
    """Serves until SIGTERM or SIGINT. Logs are JSON lines on stderr; with --json, so is one line on stdout once it listens."""
    for package in PACKAGES:
        if find_spec(package.split(".")[0]) is None or find_spec(package) is None:
            raise MissingDependencyError(package, "serve", "fastrnn serve")
    from fastrnn.serving.server import logs

    with logs.written(arguments.log_level):
        return _serve(arguments, console)


def _serve(arguments: Namespace, console: Console) -> int:
    from fastrnn.serving.server import running
    from fastrnn.serving.server.access import Access
    from fastrnn.serving.server.generation import Options
    from fastrnn.serving.server.limits import Limits
    from fastrnn.serving.server.models import Models

    models, reload = Models(), {}
    for name, one in _models(arguments).items():
        reload[name] = partial(_session, one)
        model_options = Options(
            arguments.capacity,
            arguments.max_batch,
            arguments.max_wait_us,
            arguments.max_queue,
            arguments.idle_timeout,
            _context(one),
            sizes_of(one, load(one.model)),
        )
        models.add(name, reload[name](), model_options, arguments.restart)
    limits = Limits(
        arguments.max_body,
        arguments.max_connections,
        arguments.max_streams,
        header_s=arguments.header_timeout,
        busy=arguments.max_busy,
        lag_ms=arguments.max_lag_ms,
        drain_s=arguments.drain_timeout,
    )
    server = running.Server(
        models,
        arguments.host,
        arguments.port,
        arguments.grpc_port,
        limits,
        Access(arguments.tokens),
        reload,
        arguments.move_states,
        partial(_listening, console),
    )
    running.serve(server)
    return 0


def _listening(console: Console, server) -> None:
    """Says where, once."""
    facts = {"host": server.host, "port": server.port, "grpc_port": server.grpc_port, "models": [served.name for served in server.models]}
    text = f"http://{server.host}:{server.port}  gRPC {server.host}:{server.grpc_port}  models {', '.join(facts['models'])}"
    print(json.dumps(facts) if console.as_json else text, flush=True)


def _models(arguments: Namespace) -> dict[str, Namespace]:
    """Each model's own options, by name."""
    if len(arguments.name) not in (0, len(arguments.model)):
        raise UsageError(f"{len(arguments.model)} models, and {len(arguments.name)} times --name")
    names = arguments.name or [Path(path).stem for path in arguments.model]
    if len(set(names)) != len(names):
        raise UsageError(f"two models are called {next(n for n in names if names.count(n) > 1)!r}: say --name for each")
    found = {}
    for name, path in zip(names, arguments.model):
        options = {option: _own(getattr(arguments, option), option, name, names) for option in OF_MODELS}
        found[name] = Namespace(model=path, threads=arguments.threads, **options)
    return found


def _own(given: list[str], option: str, name: str, names: list[str]) -> list[str]:
    """Of options for all models, one model's."""
    if len(names) == 1:
        return given
    if wrong := next((text for text in given if text.partition(":")[0] not in names), None):
        raise UsageError(f"--{option} {wrong}: of several models, say which: --{option} NAME:{wrong}")
    return [text.partition(":")[2] for text in given if text.partition(":")[0] == name]


def _context(one: Namespace) -> dict[str, int]:
    found = {}
    for name, text in pairs(one.context, "--context").items():
        if not text.isdecimal() or not 1 <= int(text) < 1 << 31:
            raise UsageError(f"--context {name} must be a whole number from 1")
        found[name] = int(text)
    return found


def _session(one: Namespace) -> Session:
    """The model as its file has it now. What is suspect in it goes to the log."""
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        return compiled(one, threads=one.threads)
