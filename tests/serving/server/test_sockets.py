"""A WebSocket is a caller: any pieces of samples give a Stream's bits, tokens carry it elsewhere, and ends are clean."""

import asyncio
import json

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="the extra 'serve' is not installed")
websockets = pytest.importorskip("websockets", reason="the extra 'serve' is not installed")

from running_server import Running
from served import I, alone, frames, lstm, same

import fastrnn as fr
from fastrnn.serving.server.generation import Options
from fastrnn.serving.server.limits import Limits

T = 40


@pytest.fixture(scope="module")
def server():
    with Running(
        {"lstm": lstm(), "both": fr.compile(fr.GRU(I, 3, bidirectional=True, seed=4))}, options=Options(capacity=8, idle_timeout_s=0.5)
    ) as running:
        yield running


def connect(server, model="lstm", **options):
    return websockets.connect(f"ws://{server.url}/v2/models/{model}/stream", compression=None, **options)


class Client:
    """Sends pieces, keeps what came back."""

    def __init__(self, socket):
        self.socket, self.got, self.told = socket, b"", []

    async def start(self, **start):
        await self.socket.send(json.dumps({"type": "start", **start}))

    async def told_as(self, kind):
        """The next text; binary messages before it are kept."""
        while True:
            message = await asyncio.wait_for(self.socket.recv(), 20)
            if isinstance(message, bytes):
                self.got += message
            else:
                self.told.append(json.loads(message))
                if self.told[-1]["type"] == kind:
                    return self.told[-1]

    async def ask(self, kind):
        await self.socket.send(json.dumps({"type": kind}))
        return await self.told_as(kind)


def rows(got):
    return list(np.frombuffer(got, "<f4").reshape(-1, 7))


@pytest.mark.parametrize("seed", range(4))
def test_pieces_of_any_size_are_a_stream(server, seed):
    (xs,), rng = frames(1, T, seed), np.random.default_rng(seed)
    data = xs.tobytes()

    async def main():
        async with connect(server) as socket:
            client, at = Client(socket), 0
            if seed % 2:
                await client.start()
            while at < len(data):
                n = int(rng.integers(1, 3 + (400, 60, 21, 2000)[seed]))
                await socket.send(data[at : at + n])
                at += n
            end = await client.ask("end")
            await socket.wait_closed()
            assert client.told[0]["frame"] == {"name": "x", "datatype": "FP32", "shape": [1, I], "bytes": 4 * I} and socket.close_code == 1000
            assert end["frames"] == T and end["left"] == 0
            return client.got

    assert same(rows(asyncio.run(main())), alone(lstm(), xs))


def test_a_token_carries_a_caller_to_another_connection(server):
    (xs,) = frames(1, T, 7)

    async def main():
        token, got, at, data = "", b"", 0, xs.tobytes()
        for cut in (37, 333, 500, len(data)):  # in the middle of frames, too
            async with connect(server) as socket:
                client = Client(socket)
                await client.start(state_token=token)
                ready = await client.told_as("ready")
                assert ready["resumed"] == bool(token)
                await socket.send(data[at:cut])
                told = await client.ask("end")
                token, at = told["state_token"], cut - told["left"]
                got += client.got
        return got

    assert same(rows(asyncio.run(main())), alone(lstm(), xs))


def test_a_token_in_the_middle_and_after_a_lost_connection(server):
    (xs,) = frames(1, T, 8)

    async def main():
        async with connect(server) as socket:
            client = Client(socket)
            await socket.send(xs[:10].tobytes())
            told = await client.ask("token")
            await socket.send(xs[10:17].tobytes())
            socket.transport.abort()  # as when a network fails
        assert told["frames"] == 10
        async with connect(server) as socket:
            again = Client(socket)
            await again.start(state_token=told["state_token"])
            await socket.send(xs[10:].tobytes())
            await again.ask("end")
            return client.got + again.got

    assert same(rows(asyncio.run(main())), alone(lstm(), xs))


def closed_with(server, code, *sent, model="lstm", **options):
    """What the server said before it closed with this code."""

    async def told():
        async with connect(server, model, **options) as socket:
            for message in sent:
                await socket.send(message)
            texts = []
            try:
                while True:
                    texts.append(await asyncio.wait_for(socket.recv(), 20))
            except websockets.ConnectionClosed:
                pass
            return socket.close_code, [json.loads(t) for t in texts if isinstance(t, str)]

    found, texts = asyncio.run(told())
    assert found == code, (found, texts)
    return texts[-1]


@pytest.mark.parametrize(
    "text, match",
    [
        ("{", "JSON"),
        ("[]", "object"),
        ('{"type": []}', "one of"),
        ('{"type": "start", "outputs": [[]]}', "outputs must"),
        ('{"type": "jump"}', "one of"),
        ('{"type": "start", "x": 1}', "known are"),
        ('{"type": "start", "outputs": ["z"]}', "outputs must"),
        ('{"type": "start", "outputs": []}', "outputs must"),
        ('{"type": "start", "frame": 9}', "frames of 5"),
        ('{"type": "start", "inputs": {"z": 1}}', "object of x"),
        ('{"type": "start", "inputs": {"x": 1}}', "one input as frames"),
        ('{"type": "start", "state_token": "AAAA"}', "not an exported stream"),
        ('{"type": "start", "state_token": 3}', "base64"),
        ("[" * 5000, "JSON"),
    ],
)
def test_texts_that_make_no_sense_end_the_connection(server, text, match):
    told = closed_with(server, 1007, text)
    assert told["type"] == "error" and match in told["error"]


def test_other_refusals(server):
    assert "first message" in closed_with(server, 1007, b"", '{"type": "start"}')["error"]
    assert closed_with(server, 1008, model="other")["name"] == "unknown"
    assert "cannot be streamed" in closed_with(server, 1007, model="both")["error"]
    with pytest.raises(websockets.InvalidStatus, match="403"):
        closed_with(server, 1008, additional_headers={"origin": "http://elsewhere.example"})


def test_a_caller_that_was_idle_for_too_long_is_told_so(server):
    async def main():
        async with connect(server) as socket:
            await socket.send(b"\0" * 20)
            await asyncio.sleep(1.5)
            await socket.send(b"\0" * 20)
            texts = [json.loads(m) for m in [await asyncio.wait_for(socket.recv(), 20) for _ in range(3)] if isinstance(m, str)]
            await socket.wait_closed()
            return socket.close_code, texts[-1]

    code, told = asyncio.run(main())
    assert code == 1008 and told["name"] == "UnknownStreamError"


def test_a_connection_that_says_nothing_gives_up_its_place(server, monkeypatch):
    monkeypatch.setattr("fastrnn.serving.server.sockets.FIRST_S", 0.2)
    assert closed_with(server, 1008)["name"] == "late"


def test_a_caller_whose_server_is_late_is_told_so():
    async def main(server):
        async with connect(server) as socket:
            await socket.send(b"\0" * 20)
            assert json.loads(await socket.recv())["type"] == "ready" and len(await socket.recv()) == 28
            server.models.load.lag_s, server.models.load.most_lag_s, server.models.load.late = 3.0, 0.5, True  # until it is measured again
            for _ in range(2):
                await socket.send(b"\0" * 20)
            assert len(await socket.recv()) == 28
            assert json.loads(await socket.recv())["by_ms"] > 500 and len(await socket.recv()) == 28  # once a second

    with Running({"lstm": lstm()}) as server:
        asyncio.run(main(server))


def test_connections_past_the_limit_are_told_to_come_back():
    async def main(server):
        async with connect(server) as first, connect(server) as second:
            for socket in (first, second):
                await socket.send(b"\0" * 20)
                assert json.loads(await socket.recv())["type"] == "ready"
            async with connect(server) as third:
                told = json.loads(await third.recv())
                await third.wait_closed()
                assert third.close_code == 1013 and told["name"] == "OverloadedError"
            assert len(await asyncio.wait_for(first.recv(), 20)) == 28 and len(await asyncio.wait_for(second.recv(), 20)) == 28
        for _ in range(100):  # places are free again
            async with connect(server) as fourth:
                await fourth.send(b"\0" * 20)
                if json.loads(await fourth.recv())["type"] == "ready":
                    return
        raise AssertionError("places were not given back")

    with Running({"lstm": lstm()}, limits=Limits(streams=2, drain_s=1)) as server:
        asyncio.run(main(server))


def test_a_pool_without_a_place_is_1013():
    async def main(server):
        async with connect(server) as first:
            await first.send(b"")
            assert json.loads(await first.recv())["type"] == "ready"
            async with connect(server) as second:
                await second.send(b"")
                told = json.loads(await second.recv())
                await second.wait_closed()
                assert second.close_code == 1013 and told["name"] == "PoolFullError"

    with Running({"lstm": lstm()}, options=Options(capacity=1, idle_timeout_s=None)) as server:
        asyncio.run(main(server))


def test_a_server_that_drains_gives_tokens(server):
    (xs,) = frames(1, T, 9)

    async def main():
        with Running({"lstm": lstm()}, limits=Limits(drain_s=5)) as first:
            async with connect(first) as socket:
                client = Client(socket)
                await socket.send(xs[:13].tobytes() + b"\1\2\3")
                while len(client.got) < 13 * 28:
                    client.got += m if isinstance(m := await asyncio.wait_for(socket.recv(), 20), bytes) else b""
                first.loop.call_soon_threadsafe(first.server.stop)
                told = await client.told_as("end")
                await socket.wait_closed()
                assert socket.close_code == 1012 and told["reason"] == "draining" and told["frames"] == 13 and told["left"] == 3
        async with connect(server) as socket:
            again = Client(socket)
            await again.start(state_token=told["state_token"])
            await socket.send(xs[13:].tobytes())
            await again.ask("end")
            return client.got + again.got

    assert same(rows(asyncio.run(main())), alone(lstm(), xs))


def test_back_pressure_holds_a_client_that_does_not_read(server):
    """What was sent and not answered stays with TCP: the server's memory does not grow with it."""

    async def main():
        async with connect(server, write_limit=1 << 14) as socket:
            block, sent = np.zeros(5 * 2000, "f4").tobytes(), 0
            socket.transport.pause_reading()
            try:
                async with asyncio.timeout(1.5):
                    while sent < 1 << 28:
                        await socket.send(block)
                        sent += len(block)
            except TimeoutError:
                pass
            assert sent < 1 << 27
            socket.transport.abort()

    asyncio.run(main())
