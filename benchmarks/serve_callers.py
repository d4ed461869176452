"""How many WebSocket callers a server answers in time: each sends a frame every 32 ms, and p99 is from when a frame was due to when its answer was
here.

python benchmarks/serve_callers.py ws://127.0.0.1:8000/v2/models/vad/stream --callers 100 --seconds 10 [--chunk 1] [--wav mix.wav] [--echo]

Frames lie ready as they go over the wire, so that the client, which runs on the same machine, costs little: masked by a key of zeros, which
changes nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import os
import struct
import time
import wave
from urllib.parse import urlsplit

import numpy as np

FRAME, PERIOD_S = 512, 0.032


def message(data: bytes, kind: int = 2) -> bytes:
    """A WebSocket message of a client, RFC 6455, 5.2."""
    n = len(data)
    size = bytes([0x80 | n]) if n < 126 else bytes([0x80 | 126]) + struct.pack(">H", n) if n < 1 << 16 else bytes([0x80 | 127]) + struct.pack(">Q", n)
    return bytes([0x80 | kind]) + size + b"\0\0\0\0" + data


class Caller(asyncio.Protocol):
    """One connection. answers: (when it was here, its bytes)."""

    def __init__(self, url, frames: list[bytes]):
        self.url, self.frames, self.answers, self.buffer = url, frames, [], b""
        self.open, self.ended = asyncio.get_running_loop().create_future(), asyncio.get_running_loop().create_future()
        self.texts, self.upgraded, self.code = [], False, None

    def connection_made(self, transport) -> None:
        self.transport = transport
        key = base64.b64encode(os.urandom(16)).decode()
        transport.write(
            f"GET {self.url.path} HTTP/1.1\r\nHost: {self.url.netloc}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: {key}\r\n"
            "Sec-WebSocket-Version: 13\r\n\r\n".encode()
        )

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        if not self.upgraded:
            if b"\r\n\r\n" not in self.buffer:
                return
            head, _, self.buffer = self.buffer.partition(b"\r\n\r\n")
            assert b" 101 " in head, head
            self.upgraded = True
            self.open.set_result(None)
        now = time.perf_counter()
        while len(self.buffer) >= 2:
            kind, n = self.buffer[0] & 15, self.buffer[1] & 127
            at = 2 if n < 126 else 4 if n == 126 else 10
            if n >= 126:
                if len(self.buffer) < at:
                    return
                n = int.from_bytes(self.buffer[2:at], "big")
            if len(self.buffer) < at + n:
                return
            body, self.buffer = self.buffer[at : at + n], self.buffer[at + n :]
            if kind == 2:
                self.answers.append((now, body))
            elif kind == 1:
                self.texts.append(json.loads(body))
            elif kind == 9:
                self.transport.write(message(body, 10))
            elif kind == 8:
                self.code = int.from_bytes(body[:2], "big")

    def connection_lost(self, error) -> None:
        for future in (self.open, self.ended):
            if not future.done():
                future.set_result(None)

    async def run(self, began: float) -> list[float]:
        """Sends its frames when they are due; how late each answer was."""
        due = []
        for k, frame in enumerate(self.frames):
            due.append(began + k * self.period_s)
            if (wait := due[-1] - time.perf_counter()) > 0:
                await asyncio.sleep(wait)
            if self.ended.done():
                break
            self.transport.write(frame)
        for _ in range(200):
            if len(self.answers) >= len(self.frames) or self.ended.done():
                break
            await asyncio.sleep(0.02)
        return [at - d for (at, _), d in zip(self.answers, due)]


async def measure(arguments) -> dict:
    url = urlsplit(arguments.url)
    loop = asyncio.get_running_loop()
    if arguments.wav:
        with wave.open(arguments.wav) as file:
            samples = np.frombuffer(file.readframes(file.getnframes()), "<i2").astype("<f4") / 32768
    else:
        samples = (np.random.default_rng(0).standard_normal(FRAME * 400) * 0.1).astype("<f4")
    whole = samples[: len(samples) // FRAME * FRAME].reshape(-1, FRAME)
    n = max(1, round(arguments.seconds / PERIOD_S / arguments.chunk))
    callers = []

    def frames_of(c: int) -> list[bytes]:
        order = [(c + k) % len(whole) for k in range(n * arguments.chunk)]
        return [message(whole[order[k : k + arguments.chunk]].tobytes()) for k in range(0, len(order), arguments.chunk)]

    async def connected(c: int) -> Caller:
        parts = frames_of(c)
        _, caller = await loop.create_connection(lambda: Caller(url, parts), url.hostname, url.port)
        caller.period_s, caller.number = PERIOD_S * arguments.chunk, c
        callers.append(caller)
        await caller.open
        return caller

    async def joining(c: int) -> list[float]:
        """Connects in its turn and begins at once."""
        await asyncio.sleep(arguments.ramp * c / arguments.callers)
        return await (await connected(c)).run(time.perf_counter())

    if not arguments.ramp:
        for c in range(arguments.callers):
            await connected(c)
        await asyncio.sleep(0.5)
    began, cpu = time.perf_counter() + (0 if arguments.ramp else 0.2), time.process_time()
    if arguments.ramp:
        late = await asyncio.gather(*map(joining, range(arguments.callers)))
    else:
        late = await asyncio.gather(*(c.run(began + c.period_s * k / len(callers)) for k, c in enumerate(callers)))
    took = time.perf_counter() - began
    refused = [c for c in callers if c.code is not None]
    wrong = 0 if arguments.echo or not arguments.model else differing(arguments, callers, whole, n * arguments.chunk)
    for c in callers:
        c.transport.close()
    flat = np.array([x for one in late for x in one]) * 1e3
    sent = sum(len(c.frames) for c in callers if c.code is None)
    return {"callers": len(callers), "refused": len(refused), "codes": sorted({c.code for c in refused}), "chunk": arguments.chunk, "sent": sent,
            "answered": len(flat),
            "frames_per_s": round(len(flat) * arguments.chunk / took), "p50_ms": round(float(np.percentile(flat, 50)), 2),
            "p99_ms": round(float(np.percentile(flat, 99)), 2),
            "max_ms": round(float(flat.max()), 2), "client_cpu": round((time.process_time() - cpu) / took, 2), "callers_whose_bits_differ": wrong}  # fmt: skip


def differing(arguments, callers, whole, n) -> int:
    """Callers whose answers are not a Stream's."""
    import fastrnn as fr

    session = fr.compile(fr.load(arguments.model), constants={"sr": np.array(16000)})
    wrong = 0
    for caller in callers:
        c = caller.number
        if caller.code is None:
            stream = session.stream(context={"input": 64})
            y = stream.push(whole[[(c + k) % len(whole) for k in range(n)]][:, None])
            wrong += y.tobytes() != b"".join(body for _, body in caller.answers)
    return wrong


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("url")
    parser.add_argument("--callers", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--chunk", type=int, default=1, help="frames of a message")
    parser.add_argument("--ramp", type=float, default=0, help="seconds over which callers join; all are there at first if not said")
    parser.add_argument("--wav")
    parser.add_argument("--model", help="silero's file: answers are compared with a Stream's")
    parser.add_argument("--echo", action="store_true")
    import uvloop

    print(json.dumps(uvloop.run(measure(parser.parse_args()))))
