"""run: arrays and audio through a model."""

from __future__ import annotations

import io
import time
import wave
from pathlib import Path

import numpy as np

from fastrnn.cli.console import Console, UsageError
from fastrnn.cli.options import compiled, load_npy, pairs
from fastrnn.errors import InvalidModelError, ShapeError, UnsupportedModelError
from fastrnn.model.file import write_whole
from fastrnn.plan.streams.streaming import steppable

SCALE = {1: 128.0, 2: 2.0**15, 3: 2.0**23, 4: 2.0**31}
SUFFIXES = (".npy", ".wav")
BLOCK = 64  # steps handed over at once


def read_wav(path) -> tuple[np.ndarray, int]:
    """Samples (n,) float32 in -1..1, channels averaged, and the rate in Hz. PCM of 8, 16, 24 or 32 bits."""
    try:
        with wave.open(str(path), "rb") as file:
            width, channels, rate, data = file.getsampwidth(), file.getnchannels(), file.getframerate(), file.readframes(file.getnframes())
    except (wave.Error, EOFError) as error:
        raise InvalidModelError(f"{path}: no PCM .wav file: {error}") from error
    if width not in SCALE or not channels or not rate:
        raise UnsupportedModelError(f"{path}: {8 * width} bits, {channels} channels at {rate} Hz; supported are 8, 16, 24 and 32 bits")
    data = data[:len(data) // (width * channels) * width * channels]
    if width == 1:
        samples = np.frombuffer(data, np.uint8).astype(np.float32) - 128
    elif width == 3:
        samples = (np.frombuffer(data, np.uint8).reshape(-1, 3).astype(np.int32) << np.array([8, 16, 24])).sum(axis=1, dtype=np.int32) >> 8
    else:
        samples = np.frombuffer(data, f"<i{width}")
    return np.mean(samples.astype(np.float32).reshape(-1, channels) / np.float32(SCALE[width]), axis=1, dtype=np.float32), rate


def wav_bytes(samples: np.ndarray, rate: int) -> bytes:
    """A .wav file: PCM of 16 bits, clipped to -1..1. Raises ShapeError where a sample is no number."""
    if not np.isfinite(samples).all():
        raise ShapeError("samples that are NaN or infinite cannot be written as audio")
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((np.clip(samples, -1, 1 - 2.0**-15) * 2**15).round().astype("<i2").tobytes())
    return buffer.getvalue()


def npy_bytes(array: np.ndarray) -> bytes:
    """A .npy file."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


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
    if wrong := [n for n in files if n not in shapes]:
        raise UsageError(f"--input {wrong[0]!r} is not an input; inputs are {', '.join(shapes)}")
    if wrong := [n for n in outputs if n not in session.model.output_names]:
        raise UsageError(f"--output {wrong[0]!r} is not an output; outputs are {', '.join(session.model.output_names)}")
    if wrong := [p for p in (*files.values(), *outputs.values()) if Path(p).suffix.lower() not in SUFFIXES]:
        raise UsageError(f"{wrong[0]}: inputs and outputs are .npy or .wav files")
    heard = any(Path(p).suffix.lower() == ".wav" for p in files.values())
    if not heard and (arguments.frame or arguments.context):
        raise UsageError("--frame and --context are for .wav inputs")
    streamed, tied = heard or arguments.stream, {s.output for s in session.states}
    if streamed and (wrong := [n for n in outputs if n in tied]):
        raise UsageError(f"--output {wrong[0]!r} is a state, which a stream keeps")
    rate, arrays = 0, {}
    for name, path in files.items():
        if Path(path).suffix.lower() == ".wav":
            samples, rate = read_wav(path)
            arrays[name] = _audio_steps(samples, name, shapes[name], arguments)
        else:
            arrays[name] = load_npy(path)
    started = time.perf_counter()
    results = _stream(session, arrays, console) if streamed else session.run(arrays)
    seconds = time.perf_counter() - started
    made = {path: wav_bytes(results[name].reshape(-1), rate or 16_000) if Path(path).suffix.lower() == ".wav" else npy_bytes(results[name])
            for name, path in outputs.items()}
    for path, data in made.items():
        write_whole(path, data)
    if streamed:
        steps = len(next(iter(arrays.values())))
        console.facts(steps=steps, microseconds_per_step=round(1e6 * seconds / max(steps, 1), 2))
    console.table("outputs", "Outputs", ("name", "dtype", "shape", "smallest", "largest", "file"),
                  ((n, str(a.dtype), list(a.shape), _bound(a, np.min), _bound(a, np.max), outputs.get(n)) for n, a in results.items()))
    return 0


def _bound(a: np.ndarray, function) -> float | None:
    return float(f"{float(function(a)):.6g}") if a.size else None  # NaN, where there is one


def _audio_steps(samples: np.ndarray, name: str, shape, arguments) -> np.ndarray:
    """Steps of audio for an input: (n, *its shape without time), a frame in the last dimension."""
    last = shape[-1] if shape else None
    frame = arguments.frame or (last - arguments.context if isinstance(last, int) else None)
    if frame is None or frame < 1 or arguments.context < 0:
        raise ShapeError(f"input {name!r} has shape {shape}; say how many new samples a frame has with --frame")
    if isinstance(last, int) and frame + arguments.context != last:
        raise ShapeError(f"input {name!r} takes {last} samples a step, got --frame {frame} + --context {arguments.context}")
    return frames_of(samples, frame, arguments.context)


def _batch(session, arrays) -> int:
    """The batch of arrays with a step in each entry of axis 0; 1 for audio, which has fewer axes."""
    form = steppable(session.stream_plan, 1)
    if isinstance(form.batch, int):
        return form.batch
    for value in session.model.inputs:
        step = [d for axis, d in enumerate(value.shape) if axis != form.time_axes.get(value.name)]
        if value.name in arrays and form.batch in step and arrays[value.name].ndim == 1 + len(step):
            return max(1, arrays[value.name].shape[1 + step.index(form.batch)])
    return 1


def _stream(session, arrays, console: Console) -> dict[str, np.ndarray]:
    """A chunk of every input through a stream, in blocks, with a bar."""
    steps = {len(a) if a.ndim else -1 for a in arrays.values()}
    if len(steps) != 1 or -1 in steps:
        raise ShapeError(f"a stream needs the same number of steps in front of every input, got {sorted(steps)}")
    stream, total = session.stream(_batch(session, arrays)), steps.pop()
    wanted = stream.step_shapes()
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
