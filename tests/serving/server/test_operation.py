"""What an operator relies on: replacement without losing a caller, ends, tokens, limits, metrics, logs."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="the extra 'serve' is not installed")

from prometheus_client.parser import text_string_to_metric_families
from running_server import Running
from served import I, alone, frames, lstm, same
from served_process import at, command

import fastrnn as fr
from fastrnn.cli import main
from fastrnn.serving.server.access import Access
from fastrnn.serving.server.limits import Limits
from fastrnn.serving.server.models import Models
from fastrnn.serving.server.refusals import Refused

T = 9


def other_weights():
    return fr.compile(fr.LSTM(I, 7, num_layers=2, seed=5))


def step(server, x, of, token=None, model="lstm", **parameters):
    headers = {"authorization": f"Bearer {token}"} if token else {}
    status, answer = server.infer(model, {"x": x[None]}, headers, sequence_id=of, **parameters)
    return answer["arrays"]["y"][0] if status == 200 else (status, answer["name"])


# Replacement.


def test_old_callers_end_on_the_model_they_began_with():
    (xs,) = frames(1, T)
    with Running({"lstm": lstm()}) as server:
        ys = [step(server, xs[0], 1, sequence_start=True, step=0)]
        report = server.do(server.models.of("lstm").replace, other_weights(), False)
        assert report == {"version": "2", "moved": 0, "stayed": 1}
        assert same([step(server, xs[0], 2, sequence_start=True)], alone(other_weights(), xs[:1]))
        ys += [step(server, x, 1, step=k) for k, x in enumerate(xs[1:], 1)][:-1]
        ys.append(step(server, xs[-1], 1, step=T - 1))
        assert same(ys, alone(lstm(), xs))
        assert step(server, xs[-1], 1, sequence_start=True) == (409, "StateError")  # it has not ended, there
        last = step(server, xs[0], 1, sequence_end=True, step=T)
        assert same([step(server, xs[0], 1, sequence_end=True, step=T)], [last])  # a retry, of what the old one remembers
        assert step(server, xs[0], 1) == (404, "UnknownStreamError")
        assert same([step(server, xs[0], 1, sequence_start=True)], alone(other_weights(), xs[:1]))
        status, answer = server.infer("lstm", {"x": xs[:1]}, sequence_id=1)
        assert answer["model_version"] == "2" and json.loads(server.get("/v2/models/lstm")[2])["versions"] == ["1", "2"]


def test_old_models_are_let_go(monkeypatch):
    monkeypatch.setattr("fastrnn.serving.server.models.REMEMBERED_S", 0.1)
    with Running({"lstm": lstm()}) as server:
        old = server.models.of("lstm").newest.batcher
        server.do(server.models.of("lstm").replace, other_weights(), False)
        until = time.monotonic() + 10
        while len(server.models.of("lstm").generations) > 1 and time.monotonic() < until:
            time.sleep(0.05)
        assert json.loads(server.get("/v2/models/lstm")[2])["versions"] == ["2"]
        time.sleep(0.2)
        with pytest.raises(fr.StateError, match="closed"):
            old.submit("a", np.zeros(I, np.float32), start=True)


@pytest.mark.parametrize("fits", [True, False], ids=["fits", "does not fit"])
def test_states_move_where_the_operator_says_so(fits):
    """Between steps of a busy caller; a retry of the last step before is answered after."""
    (xs,), made = frames(1, 60), other_weights() if fits else fr.compile(fr.LSTM(I, 8, num_layers=2, seed=5))

    async def main(server):
        served, ys, versions = server.models.of("lstm"), [], []

        async def caller():
            for k, x in enumerate(xs):
                from fastrnn.serving.server.asked import Asked

                for _ in range(2):
                    answer = await server.models.infer(
                        Asked("lstm", "", "", {"sequence_id": 1, "sequence_start": k == 0, "step": k}, {"x": x[None]}), None
                    )
                    assert _ == 0 or answer.outputs["y"].tobytes() == ys.pop().tobytes()
                    ys.append(answer.outputs["y"][0])
                versions.append(answer.version)
                await asyncio.sleep(0.001)

        task = asyncio.ensure_future(caller())
        while len(versions) < 20:
            await asyncio.sleep(0.001)
        report = await served.replace(made, True)
        await task
        return report, ys, versions

    with Running({"lstm": lstm()}) as server:
        report, ys, versions = server.do(main, server)
    if not fits:
        assert report["stayed"] == 1 and set(versions) == {"1"} and same(ys, alone(lstm(), xs))
        return
    at = versions.index("2")
    before, after = lstm().stream(), made.stream()
    for x in xs[:at]:
        before.step(x[None])
    after.state = before.state
    assert report["moved"] == 1 and 0 < at < 60 and same(ys, alone(lstm(), xs[:at]) + [after.step(x[None])[0] for x in xs[at:]])


# Whose sequences are whose.


def test_tokens(tmp_path):
    path = tmp_path / "tokens"
    path.write_text("# who asks\nanna 0123456789abcdef\nberta fedcba9876543210  # another\nanna aaaaaaaaaaaaaaaa\n")
    (xs, zs) = frames(2, 3)
    with Running({"lstm": lstm()}, access=Access(str(path))) as server:
        assert step(server, xs[0], 1, sequence_start=True) == (401, "unauthenticated")
        assert step(server, xs[0], 1, "0123456789abcdeX", sequence_start=True) == (401, "unauthenticated")
        ys = {"anna": [], "berta": []}
        for k in range(3):
            for who, token, rows in (("anna", ("0123456789abcdef", "aaaaaaaaaaaaaaaa")[k % 2], xs), ("berta", "fedcba9876543210", zs)):
                ys[who].append(step(server, rows[k], 1, token, sequence_start=k == 0))
        assert same(ys["anna"], alone(lstm(), xs)) and same(ys["berta"], alone(lstm(), zs))
        for path in ("/metrics", "/live", "/v2/models/lstm"):
            status, head, _ = server.get(path)
            assert status == 401 and head["www-authenticate"] == "Bearer"
            assert server.get(path, {"authorization": "Bearer fedcba9876543210"})[0] == 200
        assert server.get("/v2/health/live")[0] == 200 and server.get("/")[0] == 200

        grpcclient = pytest.importorskip("tritonclient.grpc", reason="tritonclient is not installed")
        x = grpcclient.InferInput("x", [1, I], "FP32")
        x.set_data_from_numpy(xs[:1])
        with grpcclient.InferenceServerClient(server.grpc) as client:
            with pytest.raises(grpcclient.InferenceServerException, match="UNAUTHENTICATED"):
                client.infer("lstm", [x], sequence_id=5, sequence_start=True)
            client.infer("lstm", [x], sequence_id=5, sequence_start=True, headers={"authorization": "Bearer fedcba9876543210"})
        assert step(server, xs[0], 5, "0123456789abcdef") == (404, "UnknownStreamError")

        import websockets

        async def connect(**options):
            async with websockets.connect(f"ws://{server.url}/v2/models/lstm/stream", **options) as one:
                await one.send(b"")
                return json.loads(await one.recv())["type"], one.subprotocol

        with pytest.raises(websockets.InvalidStatus, match="403"):
            asyncio.run(connect())
        assert asyncio.run(connect(subprotocols=["fastrnn", "bearer.fedcba9876543210"])) == ("ready", "fastrnn")
        assert asyncio.run(connect(additional_headers={"authorization": "Bearer fedcba9876543210"})) == ("ready", None)


@pytest.mark.parametrize("text", ["", "# nothing\n", "short\n", "a b c\n", "anna 0123456789 abcdef\n", "anna ünïcödé0123456789\n"])
def test_files_of_tokens_that_make_no_sense(tmp_path, text):
    path = tmp_path / "tokens"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(fr.InvalidModelError, match="token"):
        Access(str(path))


@pytest.mark.parametrize("name", ["", "a/b", "..\n", "a" * 129, "lstm"])
def test_names_of_models(name):
    models = Models()
    models.add("lstm", lstm())
    with pytest.raises(Refused, match="name"):
        models.add(name, lstm())
    models.close()


# Limits.


def raw(server, *sent, wait=20.0):
    """What a connection is answered that sends these pieces, a pause between them."""
    with socket.create_connection(server.url.split(":"), timeout=wait) as one:
        with contextlib.suppress(ConnectionError):
            for piece in sent:
                one.sendall(piece)
                time.sleep(0.05)
        got = b""
        with contextlib.suppress(ConnectionError):
            while part := one.recv(65536):
                got += part
        return got


def test_limits_of_connections():
    limits = Limits(header_bytes=2000, header_s=0.4, idle_s=1.2, connections=3, body_bytes=5000, drain_s=0.1)
    with Running({"lstm": lstm()}, limits=limits) as server:
        head = b"GET /v2/health/live HTTP/1.1\r\nhost: x\r\n"
        assert raw(server, head + b"connection: close\r\n\r\n").startswith(b"HTTP/1.1 200")
        assert raw(server, head + b"x: " + b"a" * 3000 + b"\r\n\r\n").startswith(b"HTTP/1.1 431")
        assert raw(server, head + b"x: " + b"a" * 900, b"a" * 900, b"a" * 900).startswith(b"HTTP/1.1 431")
        assert raw(server, b"GET /" + b"a" * 3000 + b" HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.1 431")
        began = time.monotonic()
        assert raw(server, head).startswith(b"HTTP/1.1 408") and 0.3 < time.monotonic() - began < 1.1  # a head that does not come
        assert raw(server).startswith(b"HTTP/1.1 408") and time.monotonic() - began > 1.2  # a request that does not come
        body = b"POST /v2/models/lstm/infer HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{"
        assert b"408" in raw(server, body)
        assert raw(server, b"\x16\x03\x01 no HTTP\r\n\r\n").startswith(b"HTTP/1.1 400")
        held = [socket.create_connection(server.url.split(":")) for _ in range(3)]
        time.sleep(0.1)
        assert raw(server, head).startswith(b"HTTP/1.1 503") and b"retry-after" in raw(server, head)
        for one in held:
            one.close()
        time.sleep(0.1)
        assert raw(server, head + b"connection: close\r\n\r\n").startswith(b"HTTP/1.1 200")


def test_a_server_that_is_late_takes_nobody_more():
    (xs,) = frames(1, 2)
    with Running({"lstm": lstm()}, limits=Limits(lag_ms=20, drain_s=0.1)) as server:
        assert not isinstance(step(server, xs[0], 1, sequence_start=True), tuple)

        async def late():
            for _ in range(30):
                time.sleep(0.1)  # as when the loop has more to do than it can
                await asyncio.sleep(0)

        server.loop.call_soon_threadsafe(asyncio.ensure_future, late())
        until, refused = time.monotonic() + 10, None
        while refused is None and time.monotonic() < until:
            found = step(server, xs[0], f"{time.monotonic()}", sequence_start=True)
            refused = found if isinstance(found, tuple) else None
        assert refused == (503, "OverloadedError")
        assert not isinstance(step(server, xs[1], 1), tuple)  # who has begun goes on


# What is counted.


def test_metrics():
    (xs,) = frames(1, 4)
    with Running({"lstm": lstm(), "b": other_weights()}) as server:
        for k in range(4):
            step(server, xs[k], 1, sequence_start=k == 0)
        step(server, xs[0], 2)
        found = {
            (s.name, *sorted(s.labels.items())): s.value
            for f in text_string_to_metric_families(server.get("/metrics")[2].decode())
            for s in f.samples
        }
        of = (("model", "lstm"), ("version", "1"))
        assert (
            found["fastrnn_frames_total", *of] == found["fastrnn_answers_total", *of] == found["fastrnn_batch_rows_count", *of] == 4
            and found["fastrnn_callers", *of] == 1
        )
        assert (
            found["fastrnn_request_seconds_count", ("model", "lstm"), ("protocol", "http")] == 4
            and 0 < found["fastrnn_request_seconds_sum", ("model", "lstm"), ("protocol", "http")] < 5
        )
        assert (
            found["fastrnn_refusals_total", ("protocol", "http"), ("reason", "unknown")] == 1
            and found["fastrnn_run_seconds_bucket", ("le", "+Inf"), *of] == 4
        )
        live = json.loads(server.get("/live")[2])
        assert live["models"]["lstm"]["frames"] == 4 and live["models"]["b"]["callers"] == 0 and live["refusals"] == 1


# The command.


@pytest.fixture
def file(tmp_path):
    fr.LSTM(I, 7, num_layers=2, seed=1).to_model().save(tmp_path / "lstm.safetensors")
    return tmp_path / "lstm.safetensors"


def test_the_command_serves_reloads_drains_and_hands_over(file, tmp_path):
    (xs,) = frames(1, T)
    (tmp_path / "other.safetensors").write_bytes(file.read_bytes())
    with (
        command(file, tmp_path / "other.safetensors", "--name", "lstm", "--name", "other", "--drain-timeout", "20") as (first, said),
        command(file) as (second, there),
    ):
        assert said["models"] == ["lstm", "other"] and said["host"] == "127.0.0.1"
        one, ys, token = at(said), [], ""
        for k in range(3):
            status, answer = one.infer("lstm", {"x": xs[k][None]}, sequence_id=1, sequence_start=k == 0, step=k, state_token="")
            ys.append(answer["arrays"]["y"][0])
            token = answer["parameters"]["state_token"]
        fr.LSTM(I, 7, num_layers=2, seed=5).to_model().save(file)
        first.send_signal(signal.SIGHUP)
        until = time.monotonic() + 20
        while json.loads(one.get("/v2/models/lstm")[2])["versions"][-1] == "1" and time.monotonic() < until:
            time.sleep(0.05)
        assert json.loads(one.get("/v2/models/other")[2])["versions"][-1] in "12"
        first.send_signal(signal.SIGTERM)
        while one.get("/v2/health/ready")[0] == 200 and time.monotonic() < until:
            time.sleep(0.02)
        assert one.infer("lstm", {"x": xs[:1]}, sequence_id=9, sequence_start=True)[1]["name"] == "draining"
        ys.append(one.infer("lstm", {"x": xs[3][None]}, sequence_id=1, step=3)[1]["arrays"]["y"][0])  # one that has begun goes on
        # the fourth answer is lost on its way, say: the second server does it again from the token
        ys.pop()
        for k in range(3, T):
            status, answer = at(there).infer(
                "lstm", {"x": xs[k][None]}, sequence_id="moved", sequence_start=k == 3, step=k, **({"state_token": token} if k == 3 else {})
            )
            ys.append(answer["arrays"]["y"][0])
        assert same(ys, alone(lstm(), xs))
        one.infer("lstm", {"x": xs[4][None]}, sequence_id=1, step=4, sequence_end=True)
        assert first.wait(20) == 0  # nobody is left
        lines = [json.loads(line) for line in first.stderr.read().splitlines()]
        assert any("every sequence has ended" in line["message"] for line in lines) and all(
            {"time", "level", "logger", "message"} <= set(line) for line in lines
        )


def test_a_second_signal_does_not_wait(file):
    with command(file, "--drain-timeout", "60") as (process, said):
        at(said).infer("lstm", {"x": frames(1, 1)[0]}, sequence_id=1, sequence_start=True)
        process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0


@pytest.mark.parametrize(
    "arguments, code, match",
    [
        (["--name", "a/b"], 3, "name"),
        (["--name", "a", "--name", "b"], 2, "--name"),
        (["--tokens", "/nowhere"], 3, "nowhere"),
        (["--context", "z=3"], 3, "context"),
        (["--context", "x=y"], 2, "whole number"),
        (["--size", "Q=3"], 2, "--size"),
        (["--constant", "z=3"], 2, "constant"),
        (["--host", "203.0.113.7"], 3, "203.0.113.7"),
    ],
)
def test_what_cannot_be_served_is_said(file, capsys, arguments, code, match):
    assert main(["serve", str(file), "--port", "0", "--grpc-port", "0", *arguments]) == code
    assert match in capsys.readouterr().err


def test_of_several_models_options_say_which(file, capsys):
    assert main(["serve", str(file), str(file)]) == 2 and "two models" in capsys.readouterr().err
    assert main(["serve", str(file), str(file), "--name", "a", "--name", "b", "--size", "T=3"]) == 2
    assert "--size NAME:T=3" in capsys.readouterr().err


def test_a_missing_package_is_named():
    code = "import sys; sys.modules['grpc'] = None\nfrom fastrnn.cli import main\nsys.exit(main(['serve', 'x.onnx']))"
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True, cwd="/", env=os.environ)
    assert done.returncode == 4 and "fastrnn[serve]" in done.stderr, done.stderr
