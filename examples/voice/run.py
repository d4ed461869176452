"""A voice activity service in one process: callers send frames over asyncio, and a Batcher steps whoever is ready together.

    python examples/voice/run.py [WAV ...] [--model FILE] [--callers 300] [--seconds 5] [--quick]          # needs fastrnn[onnx]; onnxruntime to
    compare with

The model is silero's VAD (silero_vad_16k_op15.onnx, 16 kHz), not shipped; model and recordings are looked for in ../shared beside the repository.
Each caller sends a recording, from a place of its own, frame after frame as answers come. Prints frames a second, how many rows a step has, and
what a caller waits, beside ONNX Runtime behind a queue with states gathered by hand; and that both hear the same.
"""

import argparse
import asyncio
import sys
import time
from pathlib import Path

import numpy as np

import fastrnn as fr
from fastrnn.cli.audio import read_wav
from fastrnn.serving import Batcher

SHARED = Path(__file__).parents[3] / "shared/models"
FRAME, CONTEXT, RATE = 512, 64, 16000  # samples of a step, those of the frame before that the model sees again, Hz


class Ours:
    """The service: a model, a batcher, and a step for each frame."""

    name = "fastrnn"

    def __init__(self, path: Path, callers: int):
        session = fr.compile(fr.load(path), constants={"sr": np.array(RATE)})
        self.batcher = Batcher(session, callers, context={"input": CONTEXT})

    async def step(self, caller: int, frame: np.ndarray, start: bool) -> float:
        """How likely it is that somebody speaks in the caller's next frame."""
        return (await self.batcher.step(caller, frame, start=start)).item()

    def rows(self) -> float:
        """Mean rows of a step so far."""
        rows = self.batcher.metrics()["batch_rows"]
        return rows["sum"] / rows["count"]

    def close(self) -> None:
        self.batcher.close()


class ByHand:
    """What a service does without one: frames wait in a list, and while a thread runs a batch, the next one gathers."""

    def __init__(self, path: Path, callers: int, most: int):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.most, self.name = most, f"ONNX Runtime, {most} rows"
        self.states, self.contexts = np.zeros((2, callers, 128), np.float32), np.zeros((callers, CONTEXT), np.float32)
        self.waiting, self.running, self.steps, self.frames = [], False, 0, 0

    async def step(self, caller: int, frame: np.ndarray, start: bool) -> float:
        """As that of Ours."""
        loop = asyncio.get_running_loop()
        if start:
            self.states[:, caller], self.contexts[caller] = 0, 0
        answer = loop.create_future()
        self.waiting.append((caller, frame, answer))
        if not self.running:
            self.running = True
            loop.call_soon(lambda: asyncio.ensure_future(self.run(loop)))
        return await answer

    async def run(self, loop: asyncio.AbstractEventLoop) -> None:
        """Batches until nobody waits."""
        while self.waiting:
            batch, self.waiting = self.waiting[: self.most], self.waiting[self.most :]
            for (_, _, answer), p in zip(batch, await loop.run_in_executor(None, self.batch, [b[0] for b in batch], [b[1] for b in batch])):
                answer.set_result(p)
        self.running = False

    def batch(self, callers: list[int], frames: list[np.ndarray]) -> list[float]:
        """Rows gathered, run and put back."""
        x = np.concatenate([self.contexts[callers], np.stack(frames)], 1)
        p, states = self.session.run(None, {"input": x, "state": self.states[:, callers], "sr": np.array(RATE)})
        self.states[:, callers], self.contexts[callers] = states, x[:, -CONTEXT:]
        self.steps, self.frames = self.steps + 1, self.frames + len(callers)
        return p[:, 0].tolist()

    def rows(self) -> float:
        return self.frames / self.steps

    def close(self) -> None:
        pass


async def serve(service, recordings: list[np.ndarray], callers: int, seconds: float) -> tuple[dict, list[float]]:
    """All callers at once for so long; figures, and what the first caller was told."""
    end, waits, told = time.perf_counter() + seconds, [], []

    async def caller(k: int) -> None:
        frames, at, first = recordings[k % len(recordings)], 7 * k, True
        while time.perf_counter() < end:
            asked = time.perf_counter()
            p = await service.step(k, frames[at % len(frames)], first)
            waits.append(time.perf_counter() - asked)
            first, at = False, at + 1
            if k == 0:
                told.append(p)

    started = time.perf_counter()
    await asyncio.gather(*(caller(k) for k in range(callers)))
    took = time.perf_counter() - started
    p50, p99 = np.percentile(waits, (50, 99)) * 1e3
    return {"frames/s": f"{len(waits) / took:,.0f}", "rows a step": f"{service.rows():.0f}", "p50 ms": f"{p50:.2f}", "p99 ms": f"{p99:.2f}"}, told


def read(path: Path) -> np.ndarray:
    """A recording as frames (n, FRAME)."""
    samples, rate = read_wav(path)
    if rate != RATE:
        sys.exit(f"{path} has {rate} Hz; the model hears {RATE}")
    return samples[: len(samples) // FRAME * FRAME].reshape(-1, FRAME)


def services(path: Path, callers: int) -> list:
    """Ours, and ONNX Runtime where it is installed."""
    try:
        return [Ours(path, callers), ByHand(path, callers, 32), ByHand(path, callers, 256)]
    except ImportError:
        print("ONNX Runtime is not installed: nothing to compare with (pip install 'fastrnn[cli]')")
        return [Ours(path, callers)]


def main() -> None:
    """A table, a line for each service."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recordings", nargs="*", type=Path, metavar="WAV", default=[SHARED / "gtcrn/mix.wav"], help="16 kHz")
    parser.add_argument("--model", type=Path, default=SHARED / "silero-vad/silero_vad_16k_op15.onnx")
    parser.add_argument("--callers", type=int, default=300)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--quick", action="store_true", help="twenty callers for a moment: whether it runs")
    given = parser.parse_args()
    for path in (given.model, *given.recordings):
        if not path.exists():
            sys.exit(f"{path} is not there: give --model FILE and recordings of 16 kHz")
    callers, seconds = (20, 0.3) if given.quick else (given.callers, given.seconds)
    recordings, heard = [read(path) for path in given.recordings], []
    print(f"{callers} callers, {seconds} s each\n\n{'':24}{'frames/s':>10}{'rows a step':>13}{'p50 ms':>9}{'p99 ms':>9}")
    for service in services(given.model, callers):
        figures, told = asyncio.run(serve(service, recordings, callers, seconds))
        service.close()
        heard.append(told)
        print(f"{service.name:24}{figures['frames/s']:>10}{figures['rows a step']:>13}{figures['p50 ms']:>9}{figures['p99 ms']:>9}")
    n = min(map(len, heard))
    speech, apart = sum(p > 0.5 for p in heard[0][:n]), max(np.abs(np.subtract(heard[0][:n], h[:n])).max() for h in heard)
    print(f"\nthe first caller's {n} frames: speech in {speech}; largest difference {apart:.1e}")


if __name__ == "__main__":
    main()
