"""What serving costs, layer by layer: the pool alone, the Batcher, HTTP, gRPC, WebSockets, and an echo of FastAPI and uvicorn to compare with.

python benchmarks/serve_rates.py silero_vad_16k_op15.onnx mix.wav [--only pool,batcher,echo,http,grpc,websocket,chunks,asyncio,workers] [--seconds 5]

Server and client are processes of their own on the same machine. One JSON object a line.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

import fastrnn as fr
from fastrnn.serving import Batcher

FRAME, CALLERS = 512, 100
HERE = Path(__file__).parent
ECHO = """
import sys, uvicorn
from fastapi import FastAPI, WebSocket
app = FastAPI()
@app.websocket("/")
async def echo(socket: WebSocket):
    await socket.accept()
    while True:
        await socket.send_bytes((await socket.receive_bytes())[:4])
uvicorn.run(app, port=int(sys.argv[1]), log_level="error", ws="websockets-sansio", ws_per_message_deflate=False)
"""


def said(what: str, **figures) -> None:
    print(json.dumps({"what": what, **figures}), flush=True)


def cpu_s(pid: int) -> float:
    """Processor time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / 100


def busy_s() -> float:
    """Processor time of everybody so far: what others had of it spoils a measurement."""
    fields = Path("/proc/stat").read_text(encoding="ascii").split("\n")[0].split()[1:]
    return (sum(map(int, fields)) - int(fields[3]) - int(fields[4])) / 100


def clients_s() -> float:
    """Processor time of clients that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def memory_mib(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) // 1024


@contextlib.contextmanager
def served(model: str, *more: str, before: str = ""):
    """A server's process and ports."""
    code = f"{before}\nimport sys\nfrom fastrnn.cli import main\nsys.exit(main())"
    command = [sys.executable, "-c", code, "serve", model, "--name", "vad", "--constant", "sr=16000", "--context", "input=64", "--size",
               "sequence=512", "--port", "0", "--grpc-port", "0",
               "--drain-timeout", "0.1", "--json", *more]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd="/")
    try:
        yield process, json.loads(process.stdout.readline())
    finally:
        process.terminate()
        process.wait()


def called(url: str, callers: int, seconds: float, *more: str) -> dict:
    done = subprocess.run(
        [sys.executable, HERE / "serve_callers.py", url, "--callers", str(callers), "--seconds", str(seconds), *more],
        check=True,
        capture_output=True,
        text=True,
    )
    return json.loads(done.stdout)


def pool(session, seconds: float) -> None:
    for rows in (1, CALLERS):
        one = session.pool(rows, context={"input": 64}, sizes={"sequence": FRAME})
        handles, x = [one.open() for _ in range(rows)], np.zeros((rows, FRAME), np.float32)
        n, until = 0, time.perf_counter() + seconds
        while time.perf_counter() < until:
            one.step(handles, x)
            n += rows
        said("pool", rows=rows, frames_per_s=round(n / seconds))


def batcher(session, seconds: float) -> None:
    async def main():
        n, until = 0, time.perf_counter() + seconds

        async def caller(name):
            nonlocal n
            x, start = np.zeros((1, FRAME), np.float32), True
            while time.perf_counter() < until:
                await one.step(name, x, start=start)
                start, n = False, n + 1

        with Batcher(session, CALLERS, context={"input": 64}, sizes={"sequence": FRAME}) as one:
            await asyncio.gather(*map(caller, range(CALLERS)))
        said("batcher", callers=CALLERS, frames_per_s=round(n / seconds))

    asyncio.run(main())


async def http_client(port: int, seconds: float) -> int:
    n, until, x = 0, time.perf_counter() + seconds, bytes(4 * FRAME)

    async def caller(name):
        nonlocal n
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        start = True
        while time.perf_counter() < until:
            body = json.dumps(
                {
                    "inputs": [{"name": "input", "shape": [1, FRAME], "datatype": "FP32", "parameters": {"binary_data_size": len(x)}}],
                    "outputs": [{"name": "output", "parameters": {"binary_data": True}}],
                    "parameters": {"sequence_id": name, "sequence_start": start},
                }
            ).encode()
            writer.write(
                b"POST /v2/models/vad/infer HTTP/1.1\r\nhost: x\r\ninference-header-content-length: %d\r\ncontent-length: %d\r\n\r\n%b%b"
                % (len(body), len(body) + len(x), body, x)
            )
            head = await reader.readuntil(b"\r\n\r\n")
            assert b" 200 " in head, head
            await reader.readexactly(int(head.split(b"\r\ncontent-length: ")[1].split(b"\r\n")[0]))
            start, n = False, n + 1
        writer.close()

    await asyncio.gather(*(caller(k) for k in range(1, CALLERS + 1)))
    return n


async def grpc_client(port: int, seconds: float, streamed: bool) -> int:
    """streamed: a ModelStreamInfer for each caller."""
    import grpc

    from fastrnn.serving.server.messages import MESSAGES, SERVICE

    n, until, x = 0, time.perf_counter() + seconds, bytes(4 * FRAME)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        infer = channel.unary_unary(f"/{SERVICE}/ModelInfer")

        async def caller(name):
            nonlocal n
            start, stream = True, channel.stream_stream(f"/{SERVICE}/ModelStreamInfer")() if streamed else None
            while time.perf_counter() < until:
                request = MESSAGES["ModelInferRequest"](model_name="vad", raw_input_contents=[x])
                request.inputs.add(name="input", datatype="FP32", shape=[1, FRAME])
                request.parameters["sequence_id"].int64_param, request.parameters["sequence_start"].bool_param = name, start
                if stream is None:
                    await infer(request.SerializeToString())
                else:
                    await stream.write(request.SerializeToString())
                    await stream.read()
                start, n = False, n + 1

        await asyncio.gather(*(caller(k) for k in range(1, CALLERS + 1)))
    return n


def requests(model: str, seconds: float, kind: str) -> None:
    import uvloop

    with served(model, "--max-busy", "100") as (process, at):
        before = cpu_s(process.pid)
        n = uvloop.run(http_client(at["port"], seconds) if kind == "http" else grpc_client(at["grpc_port"], seconds, kind == "grpc streams"))
        said(kind, callers=CALLERS, frames_per_s=round(n / seconds), server_us_per_frame=round(1e6 * (cpu_s(process.pid) - before) / n))


def websocket(
    model: str, wav: str, seconds: float, counts, *more: str, what: str = "websocket", before: str = "", options=("--max-busy", "100")
) -> None:
    with served(model, *options, before=before) as (process, at):
        url = f"ws://127.0.0.1:{at['port']}/v2/models/vad/stream"
        for callers in counts:
            used, busy, began, clients = cpu_s(process.pid), busy_s(), time.perf_counter(), clients_s()
            found = called(url, callers, seconds, "--wav", wav, "--model", model, *more)
            used, busy, took, clients = cpu_s(process.pid) - used, busy_s() - busy, time.perf_counter() - began, clients_s() - clients
            said(
                what,
                **found,
                server_us_per_frame=round(1e6 * used / max(1, found["answered"] * found["chunk"])),
                server_mib=memory_mib(process.pid),
                others_cpu=round((busy - used - clients) / took, 2),
            )


def echo(wav: str, seconds: float) -> None:
    process = subprocess.Popen([sys.executable, "-c", ECHO, "8765"], cwd="/", stderr=subprocess.DEVNULL)  # it says a lot of each connection that ends
    time.sleep(3)
    for callers in (100, 200, 250, 300):
        used = cpu_s(process.pid)
        found = called("ws://127.0.0.1:8765/", callers, seconds, "--wav", wav, "--echo")
        said("echo", **found, server_us_per_frame=round(1e6 * (cpu_s(process.pid) - used) / max(1, found["answered"])))
    process.terminate()
    process.wait()


def workers(model: str, wav: str, seconds: float) -> None:
    """Two servers, half of the callers at each, as a balancer would have it that sends a connection to one of them for good."""
    with served(model, "--max-busy", "100") as (_, one), served(model, "--max-busy", "100") as (_, two):
        for callers in (200, 250, 300):
            clients = [
                subprocess.Popen(
                    [
                        sys.executable,
                        HERE / "serve_callers.py",
                        f"ws://127.0.0.1:{at['port']}/v2/models/vad/stream",
                        "--callers",
                        str(callers // 2),
                        "--seconds",
                        str(seconds),
                        "--wav",
                        wav,
                    ],
                    stdout=subprocess.PIPE,
                    text=True,
                )
                for at in (one, two)
            ]
            for client in clients:
                said("two workers", **json.loads(client.communicate()[0]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("wav")
    parser.add_argument("--only", default="pool,batcher,echo,http,grpc,websocket,chunks,asyncio,refused,workers")
    parser.add_argument("--seconds", type=float, default=5)
    arguments = parser.parse_args()
    model, wav, seconds, only = str(Path(arguments.model).resolve()), str(Path(arguments.wav).resolve()), arguments.seconds, arguments.only.split(",")
    session = fr.compile(fr.load(model), constants={"sr": np.array(16000)})
    suites = {
        "pool": lambda: pool(session, seconds),
        "batcher": lambda: batcher(session, seconds),
        "echo": lambda: echo(wav, seconds),
        "http": lambda: requests(model, seconds, "http"),
        "grpc": lambda: [requests(model, seconds, kind) for kind in ("grpc", "grpc streams")],
        "websocket": lambda: websocket(model, wav, seconds, (100, 150, 175, 200, 225)),
        "chunks": lambda: websocket(model, wav, seconds, (200, 400, 600), "--chunk", "4", what="chunks of 4"),
        "asyncio": lambda: websocket(model, wav, seconds, (100, 150), what="without uvloop", before="import sys; sys.modules['uvloop'] = None"),
        "refused": lambda: websocket(model, wav, seconds, (180,), what="at most 150", options=("--max-busy", "100", "--max-streams", "150")),
        "workers": lambda: workers(model, wav, seconds),
        "ramp": lambda: websocket(model, wav, 25, (350,), "--ramp", "20", what="350 join over 20 s", options=()),
        "crowd": lambda: websocket(model, wav, 15, (350,), what="350 join at once", options=()),
        "long": lambda: websocket(model, wav, 30, (150, 200), what="30 seconds"),
    }
    for name in only:
        suites[name]()


if __name__ == "__main__":
    main()
