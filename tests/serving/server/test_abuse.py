"""Malformed requests to every endpoint: the server answers or hangs up, never with a fault of its own, keeps its memory, and goes on to serve who asks rightly."""

import asyncio
import contextlib
from collections import Counter

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="the extra 'serve' is not installed")
grpc = pytest.importorskip("grpc", reason="the extra 'serve' is not installed")

import wire
from served import I, alone, frames, lstm, same
from served_process import at, command, memory_mib

import fastrnn as fr
from fastrnn.serving.server.messages import MESSAGES, SERVICE

AT_ONCE = 16
HANDSHAKE = b"GET /v2/models/lstm/stream HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"


async def exchange(port, *parts):
    """What came back until the other side hung up, or half a second was quiet."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    got = b""
    with contextlib.suppress(OSError, TimeoutError):
        for part in parts:
            writer.write(part)
            await writer.drain()
        while part := await asyncio.wait_for(reader.read(65536), 0.5 if len(parts) == 1 else 0.1):
            got += part
    writer.transport.abort()
    return got


def valid_message(rng):
    request = MESSAGES["ModelInferRequest"](model_name="lstm", id="i", raw_input_contents=[np.zeros(I, np.float32).tobytes()])
    request.inputs.add(name="x", datatype="FP32", shape=[1, I])
    request.outputs.add(name="y")
    request.parameters["sequence_id"].int64_param, request.parameters["sequence_start"].bool_param = int(rng.integers(1, 4)), bool(rng.random() < 0.5)
    request.parameters["step"].int64_param = int(rng.integers(3))
    return request.SerializeToString()


async def abuse(said, n, seen):
    rng, channel = np.random.default_rng(n), grpc.aio.insecure_channel(f"127.0.0.1:{said['grpc_port']}")
    methods = {name: channel.unary_unary(f"/{SERVICE}/{name}") for name in ("ModelInfer", "ModelMetadata", "ModelReady", "ServerLive", "Nothing")}
    stream = channel.stream_stream(f"/{SERVICE}/ModelStreamInfer")

    async def one(k):
        kind = rng.random()
        if kind < 0.45:
            answer = await exchange(said["port"], wire.http(rng))
            seen["http " + (answer[9:12].decode() if answer.startswith(b"HTTP/1.1 ") else "hung up")] += 1
        elif kind < 0.75:
            method = methods["ModelInfer"] if rng.random() < 0.8 else list(methods.values())[rng.integers(len(methods))]
            try:
                if rng.random() < 0.15:
                    async for _ in stream(iter([wire.message(rng, valid_message(rng)) for _ in range(3)]), timeout=10):
                        pass
                else:
                    await method(wire.message(rng, valid_message(rng)), timeout=10)
                seen["grpc OK"] += 1
            except grpc.aio.AioRpcError as error:
                seen["grpc " + error.code().name] += 1
                assert error.code() is not grpc.StatusCode.INTERNAL, error
        elif kind < 0.8:
            answer = await exchange(
                said["grpc_port"],
                b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + rng.bytes(int(rng.integers(0, 200))) if rng.random() < 0.7 else rng.bytes(100),
            )
            seen["h2 bytes"] += 1
        else:
            handshake = HANDSHAKE if rng.random() < 0.9 else wire.bent(rng, HANDSHAKE)
            answer = await exchange(said["port"], handshake, *(wire.frame(rng) for _ in range(int(rng.integers(1, 5)))))
            seen["websocket " + (answer[9:12].decode() if answer.startswith(b"HTTP/1.1 ") else "hung up")] += 1

    left = iter(range(n))

    async def worker():
        for k in left:
            await one(k)

    await asyncio.gather(*(worker() for _ in range(AT_ONCE)))
    await channel.close()


def run(tmp_path, capsys, rounds, n):
    fr.LSTM(I, 7, num_layers=2, seed=1).to_model().save(tmp_path / "lstm.safetensors")
    (xs,), seen, memory = frames(1, rounds + 1), Counter(), []
    with (
        open(tmp_path / "log", "w") as log,
        command(tmp_path / "lstm.safetensors", "--drain-timeout", "0.1", "--header-timeout", "1", "--idle-timeout", "600", stderr=log) as (
            process,
            said,
        ),
    ):
        ys = []
        for k in range(rounds + 1):
            status, answer = at(said).infer("lstm", {"x": xs[k][None]}, sequence_id="rightly", sequence_start=k == 0, step=k)
            assert status == 200, answer
            ys.append(answer["arrays"]["y"][0])
            if k < rounds:
                asyncio.run(abuse(said, n, seen))
                memory.append(memory_mib(process))
        assert process.poll() is None and same(ys, alone(lstm(), xs))
        process.terminate()
        assert process.wait(20) == 0
    with capsys.disabled():
        print(f"\n{sum(seen.values())} malformed requests; memory {', '.join(f'{m:.0f}' for m in memory)} MiB; {dict(sorted(seen.items()))}")
    text = (tmp_path / "log").read_text()
    assert not {"http 500", "grpc UNKNOWN"} & set(seen) and "not foreseen" not in text and "Traceback" not in text, text[-3000:]
    assert memory[-1] < memory[0] + 16


def test_abuse(tmp_path, capsys):
    run(tmp_path, capsys, 2, 600)


@pytest.mark.slow
def test_much_abuse(tmp_path, capsys):
    run(tmp_path, capsys, 5, 5000)
