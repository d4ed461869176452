"""Callers over HTTP, gRPC and WebSocket whose connections are cut, who ask twice, too late and too early, while their server ends and another takes over by tokens:
every answer is a Stream's, and every refusal has its name."""

import asyncio
import contextlib
import json
import signal
import time
from collections import Counter

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="the extra 'serve' is not installed")
grpc = pytest.importorskip("grpc", reason="the extra 'serve' is not installed")
websockets = pytest.importorskip("websockets", reason="the extra 'serve' is not installed")

from served import I, alone, frames, lstm, same
from served_process import command, memory_mib

import fastrnn as fr
from fastrnn.serving.server.messages import MESSAGES, SERVICE

EXPECTED = {"StateError", "UnknownStreamError", "draining", "OverloadedError"}
GONE = {"draining", "OverloadedError"}  # of a server that ends


class Refused(Exception):
    pass


class Gone(Exception):
    """The server has ended, or takes nothing more."""


class World:
    """Two servers, the second of which takes over, and what was refused."""

    def __init__(self, said, random):
        self.said, self.random, self.refused, self.moved, self.steps, self.cut = said, random, Counter(), 0, 0, 0
        self.channels = [grpc.aio.insecure_channel(f"127.0.0.1:{one['grpc_port']}") for one in said]
        self.infer = [
            channel.unary_unary(f"/{SERVICE}/ModelInfer", MESSAGES["ModelInferRequest"].SerializeToString, MESSAGES["ModelInferResponse"].FromString)
            for channel in self.channels
        ]

    def chance(self, p):
        return self.random.random() < p

    def told(self, name, message):
        self.refused[name] += 1
        assert name in EXPECTED, (name, message)
        raise Gone if name in GONE else Refused(message)


class Http:
    """A connection of HTTP that can be cut."""

    def __init__(self, world):
        self.world, self.streams = world, {}

    async def ask(self, where, of, x, step, start, end, token, cut=False):
        if where not in self.streams:
            try:
                self.streams[where] = await asyncio.open_connection("127.0.0.1", self.world.said[where]["port"])
            except OSError as error:
                raise Gone from error
        reader, writer = self.streams[where]
        body = json.dumps(
            {
                "inputs": [{"name": "x", "shape": [1, I], "datatype": "FP32", "parameters": {"binary_data_size": x.nbytes}}],
                "outputs": [{"name": "y", "parameters": {"binary_data": True}}],
                "parameters": {"sequence_id": of, "sequence_start": start, "sequence_end": end, "step": step, "state_token": token},
            }
        ).encode()
        try:
            writer.write(
                f"POST /v2/models/lstm/infer HTTP/1.1\r\nhost: x\r\ninference-header-content-length: {len(body)}\r\ncontent-length: {len(body) + x.nbytes}\r\n\r\n".encode()
                + body
                + x.tobytes()
            )
            if cut:
                await asyncio.sleep(self.world.random.random() * 0.003)
                writer.transport.abort()
                raise ConnectionError
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower().split("\r\n")
            fields = dict(line.split(": ", 1) for line in head[1:] if ": " in line)
            answer = await reader.readexactly(int(fields["content-length"]))
        except (OSError, EOFError, asyncio.IncompleteReadError) as error:
            del self.streams[where]
            raise ConnectionError from error
        if " 200 " not in head[0]:
            told = json.loads(answer)
            self.world.told(told["name"], told["error"])
        n = int(fields["inference-header-content-length"])
        return np.frombuffer(answer[n:], np.float32), json.loads(answer[:n])["parameters"]["state_token"]


class Grpc:
    """Calls that can be cancelled."""

    def __init__(self, world):
        self.world = world

    async def ask(self, where, of, x, step, start, end, token, cut=False):
        request = MESSAGES["ModelInferRequest"](model_name="lstm", raw_input_contents=[x.tobytes()])
        request.inputs.add(name="x", datatype="FP32", shape=[1, I])
        for name, value in (("sequence_start", start), ("sequence_end", end)):
            request.parameters[name].bool_param = value
        request.parameters["sequence_id"].string_param, request.parameters["state_token"].string_param, request.parameters["step"].int64_param = (
            str(of),
            token,
            step,
        )
        call = self.world.infer[where](request, timeout=20)
        try:
            if cut:
                await asyncio.sleep(self.world.random.random() * 0.003)
                call.cancel()
                raise ConnectionError
            answer = await call
        except grpc.aio.AioRpcError as error:
            name = dict(error.trailing_metadata() or ()).get("fastrnn-error")
            if name is None:  # nobody is there
                assert error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED, grpc.StatusCode.DEADLINE_EXCEEDED), error
                raise (Gone if error.code() == grpc.StatusCode.UNAVAILABLE else ConnectionError) from error
            self.world.told(name, error.details())
        return np.frombuffer(answer.raw_output_contents[0], np.float32), answer.parameters["state_token"].string_param


async def asked_until_answered(world, client, where, of, x, step, start, end, token):
    """The answer, over cut connections; asked again as it was."""
    while True:
        try:
            cut = world.chance(0.05)
            world.cut += cut
            return await client.ask(where, of, x, step, start, end, token if start else "", cut=cut)
        except ConnectionError:
            continue


async def sequence(world, client, of, xs):
    """All answers of a sequence, with whatever is wrong now and then."""
    where, token, ys, name, start = 0, "", [], of, True
    for k, x in enumerate(xs):
        if world.chance(0.03) and k and not start:  # a step that is late, or early
            with contextlib.suppress(ConnectionError, Gone), pytest.raises(Refused, match=f"step {k} is next"):
                await client.ask(where, name, x, k + int(world.random.integers(1, 9)) if world.chance(0.5) else k - 2, False, False, "")
        if world.chance(0.02):  # somebody's who has no stream
            with contextlib.suppress(ConnectionError, Gone), pytest.raises(Refused, match="no stream"):
                await client.ask(where, "nobody", x, 3, False, False, "")
        while True:
            try:
                y, after = await asked_until_answered(world, client, where, name, x, k, start, k == len(xs) - 1, token)
                if world.chance(0.05):
                    again, token_again = await asked_until_answered(
                        world, client, where, name, x, k, start and k < len(xs) - 1, k == len(xs) - 1, token
                    )
                    assert again.tobytes() == y.tobytes() and (token_again == after or k == len(xs) - 1)
                break
            except Gone:
                assert where == 0, "the second server is to take everybody"
                where, name, start = 1, f"{of} moved", True
                world.moved += 1
        ys.append(y)
        token, start = after, False
        world.steps += 1
    return ys


class Frames:
    """The same over WebSockets: pieces of frames, a token now and then, connections that are cut. ys: answers up to the last token."""

    def __init__(self, world, xs):
        self.world, self.xs, self.where, self.token, self.ys = world, xs, 0, "", []

    async def run(self):
        while len(self.ys) < len(self.xs):
            try:
                async with websockets.connect(
                    f"ws://127.0.0.1:{self.world.said[self.where]['port']}/v2/models/lstm/stream", compression=None, open_timeout=30
                ) as socket:
                    await self.stream(socket)
            except (Gone, OSError, websockets.ConnectionClosed, websockets.InvalidHandshake) as error:
                if not isinstance(error, ConnectionAbortedError):
                    assert self.where == 0, error
                    self.where = 1
                    self.world.moved += 1
        return self.ys

    async def stream(self, socket):
        self.base, self.got, data, at = list(self.ys), [], self.xs[len(self.ys) :].tobytes(), 0
        await socket.send(json.dumps({"type": "start", "state_token": self.token}))
        await self.told(socket, "ready")
        while at < len(data):
            piece = data[at : at + int(self.world.random.integers(1, 4 * 4 * I))]
            await socket.send(piece)
            at += len(piece)
            while len(self.got) < at // (4 * I):
                await self.message(socket)
            if self.world.chance(0.02):
                self.world.cut += 1
                socket.transport.abort()
                raise ConnectionAbortedError
            if self.world.chance(0.1) or at == len(data):
                await socket.send('{"type": "token"}')
                told = await self.told(socket, "token")
                assert told["frames"] == len(self.got) and told["left"] == at % (4 * I)
                self.keep(told)

    def keep(self, told):
        self.world.steps += len(self.base) + told["frames"] - len(self.ys)
        self.token, self.ys = told["state_token"], self.base + self.got[: told["frames"]]

    async def message(self, socket):
        """An answer, kept; or what was told."""
        message = await socket.recv()
        if isinstance(message, bytes):
            self.got += list(np.frombuffer(message, np.float32).reshape(-1, 7))
            return None
        told = json.loads(message)
        if told["type"] == "end":
            assert told["reason"] == "draining"
            self.keep(told)
            self.world.refused["draining"] += 1
            raise Gone
        if told["type"] == "error":
            self.world.told(told["name"], told["error"])
        return told

    async def told(self, socket, kind):
        while (told := await self.message(socket)) is None:
            pass
        assert told["type"] == kind
        return told


def run(tmp_path, callers, steps, capsys, drain_s):
    fr.LSTM(I, 7, num_layers=2, seed=1).to_model().save(tmp_path / "lstm.safetensors")
    xs, random = frames(callers, steps), np.random.default_rng(0)
    with (
        open(tmp_path / "log", "w") as log,
        command(tmp_path / "lstm.safetensors", "--drain-timeout", str(drain_s), stderr=log) as (first, said),
        command(tmp_path / "lstm.safetensors", stderr=log) as (second, there),
    ):

        async def main():
            world, kinds = World((said, there), random), (Http, Grpc)
            began, before = time.monotonic(), memory_mib(second)

            async def end():
                while world.steps < callers * steps // 2:
                    await asyncio.sleep(0.01)
                first.send_signal(signal.SIGTERM)

            ending = asyncio.ensure_future(end())
            async with asyncio.timeout(500):
                found = await asyncio.gather(
                    *(Frames(world, x).run() if k % 3 == 2 else sequence(world, kinds[k % 3](world), k + 1, x) for k, x in enumerate(xs))
                )
            await ending
            for channel in world.channels:
                await channel.close()
            return world, found, time.monotonic() - began, before, memory_mib(second)

        world, found, seconds, before, after = asyncio.run(main())
        assert first.wait(30) == 0
    wrong = sum(not same(ys, alone(lstm(), x)) for ys, x in zip(found, xs))
    with capsys.disabled():
        print(
            f"\n{callers} callers x {steps} steps in {seconds:.0f} s: {wrong} differ; {world.cut} connections cut, {world.moved} moved to the second server; refused {dict(world.refused)}; "
            f"the second server from {before:.0f} to {after:.0f} MiB"
        )
    assert wrong == 0 and world.moved >= callers // 2 and world.cut and {"StateError", "UnknownStreamError"} <= set(world.refused)
    assert "not foreseen" not in (tmp_path / "log").read_text()


def test_faults_over_the_wire(tmp_path, capsys):
    run(tmp_path, 30, 60, capsys, 0.1)


@pytest.mark.slow
def test_many_callers_and_faults_over_the_wire(tmp_path, capsys):
    run(tmp_path, 500, 200, capsys, 2)
