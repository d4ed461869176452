"""run: arrays and audio through a model."""

from __future__ import annotations

import time
import wave
from pathlib import Path

import numpy as np

from fastrnn.cli.commands import compiled, pairs
from fastrnn.cli.console import Console
from fastrnn.errors import InvalidModelError, ShapeError, UnsupportedModelError

SCALE = {1: 128.0, 2: 2.0**15, 3: 2.0**23, 4: 2.0**31}
BLOCK = 64  # steps handed over at once


def read_wav(path) -> tuple[np.ndarray, int]:
    """Samples (n,) float32 in -1..1, channels averaged, and the rate in Hz. PCM of 8, 16, 24 or 32 bits."""
    try:
        with wave.open(str(path), "rb") as file:
            width, channels, rate, data = file.getsampwidth(), file.getnchannels(), file.getframerate(), file.readframes(file.getnframes())
    except (wave.Error, EOFError) as error:
        raise InvalidModelError(f"{path}: no PCM .wav file: {error}") from error
    data = data[:len(data) // (width * channels) * width * channels]
    if width == 1:
        samples = np.frombuffer(data, np.uint8).astype(np.float32) - 128
    elif width == 3:
        samples = (np.frombuffer(data, np.uint8).reshape(-1, 3).astype(np.int32) << np.array([8, 16, 24])).sum(axis=1, dtype=np.int32) >> 8
    else:
        samples = np.frombuffer(data, f"<i{width}")
    return np.mean(samples.astype(np.float32).reshape(-1, channels) / np.float32(SCALE[width]), axis=1, dtype=np.float32), rate


def write_wav(path, samples: np.ndarray, rate: int) -> None:
    """PCM of 16 bits, clipped to -1..1."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((np.clip(samples, -1, 1 - 2.0**-15) * 2**15).round().astype("<i2").tobytes())


def frames_of(samples: np.ndarray, frame: int, context: int) -> np.ndarray:
    """(n, context + frame): frames one after the other, each behind the samples before it; the last one is filled with zeros."""
    n = -(-len(samples) // frame)
    padded = np.concatenate([np.zeros(context, np.float32), samples, np.zeros(n * frame - len(samples), np.float32)])
    return np.lib.stride_tricks.sliding_window_view(padded, context + frame)[::frame][:n].copy() if n else np.zeros((0, context + frame), np.float32)


def run(arguments, console: Console) -> int:
    """Whole calls, or a stream of steps where asked for or where the input is audio."""
    session = compiled(arguments)
    files, outputs = pairs(arguments.input, "--input"), pairs(arguments.output, "--output")
    shapes = {v.name: v.shape for v in session.model.inputs}
    for name in files:
        if name not in shapes:
            raise InvalidModelError(f"--input {name!r} is not an input; inputs are {', '.join(shapes)}")
    for name in outputs:
        if name not in session.model.output_names:
            raise InvalidModelError(f"--output {name!r} is not an output; outputs are {', '.join(session.model.output_names)}")
    rate, arrays, streamed = 0, {}, arguments.stream
    for name, path in files.items():
        suffix = Path(path).suffix.lower()
        if suffix == ".wav":
            samples, rate = read_wav(path)
            arrays[name], streamed = _audio_steps(samples, name, shapes[name], arguments), True
        elif suffix == ".npy":
            arrays[name] = _load(path)
        else:
            raise UnsupportedModelError(f"{path}: inputs are .npy or .wav files")
    started = time.perf_counter()
    results = _stream(session, arrays, console) if streamed else session.run(arrays)
    seconds = time.perf_counter() - started
    for name, path in outputs.items():
        if name not in results:
            raise InvalidModelError(f"--output {name!r} is a state, which a stream keeps; returned are {', '.join(results)}")
        if Path(path).suffix.lower() == ".wav":
            write_wav(path, results[name].reshape(-1), rate or 16_000)
        else:
            np.save(path, results[name])
    if streamed:
        steps = len(next(iter(arrays.values())))
        console.facts(steps=steps, microseconds_per_step=round(1e6 * seconds / max(steps, 1), 2))
    console.table("outputs", "Outputs", ("name", "dtype", "shape", "smallest", "largest", "file"),
                  ((n, str(a.dtype), list(a.shape), _bound(a, np.min), _bound(a, np.max), outputs.get(n)) for n, a in results.items()))
    return 0


def _load(path) -> np.ndarray:
    try:
        return np.load(path, allow_pickle=False)
    except ValueError as error:
        raise InvalidModelError(f"{path}: no .npy file: {error}") from error


def _bound(a: np.ndarray, function) -> float | None:
    return float(f"{float(function(a)):.6g}") if a.size else None


def _audio_steps(samples: np.ndarray, name: str, shape, arguments) -> np.ndarray:
    """Steps of audio for an input: (n, *its shape without time), a frame in the last dimension."""
    last = shape[-1] if shape else None
    frame = arguments.frame or (last - arguments.context if isinstance(last, int) else None)
    if frame is None or frame < 1 or arguments.context < 0:
        raise ShapeError(f"input {name!r} has shape {shape}; say how many new samples a frame has with --frame")
    if isinstance(last, int) and frame + arguments.context != last:
        raise ShapeError(f"input {name!r} takes {last} samples a step, got --frame {frame} + --context {arguments.context}")
    return frames_of(samples, frame, arguments.context)


def _stream(session, arrays, console: Console) -> dict[str, np.ndarray]:
    """A chunk of every input through a stream, in blocks, with a bar."""
    stream = session.stream()
    steps = {len(a) if a.ndim else -1 for a in arrays.values()}
    if len(steps) != 1 or -1 in steps:
        raise ShapeError(f"a stream needs the same number of steps in front of every input, got {sorted(steps)}")
    total, wanted = steps.pop(), stream.step_shapes()
    for name, a in arrays.items():
        if name in wanted and a.ndim - 1 != len(wanted[name]):  # audio: one channel, one row
            arrays[name] = a.reshape(len(a), *(1,) * (len(wanted[name]) - 1), *a.shape[1:])
    parts: list[tuple] = []
    with console.progress("run", total) as progress:
        for start in range(0, max(total, 1), BLOCK):
            part = stream.push({name: np.ascontiguousarray(a[start:start + BLOCK]) for name, a in arrays.items()})
            parts.append(part if isinstance(part, tuple) else (part,))
            progress(done=min(start + BLOCK, total))
    return {name: np.concatenate(column) for name, column in zip(stream.output_names, zip(*parts))}
