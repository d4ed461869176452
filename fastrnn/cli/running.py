"""run: arrays and audio through a model."""

from __future__ import annotations

import io
import time
from pathlib import Path

import numpy as np

from fastrnn.cli.audio import read_wav, wav_bytes
from fastrnn.cli.console import Console, UsageError
from fastrnn.cli.options import compiled, load_npy, pairs, precision_of
from fastrnn.errors import ShapeError
from fastrnn.model.file import write_whole
from fastrnn.plan.streams.streaming import steppable

SUFFIXES = (".npy", ".wav")
BLOCK = 64  # steps handed over at once


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
    session = compiled(arguments, precision=precision_of(arguments.precision))
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
    results, planning, seconds = _stream(session, arrays, console) if streamed else (session.run(arrays), 0.0, 0.0)
    made = {
        path: wav_bytes(results[name].reshape(-1), rate or 16_000) if Path(path).suffix.lower() == ".wav" else npy_bytes(results[name])
        for name, path in outputs.items()
    }
    for path, data in made.items():
        write_whole(path, data)
    if streamed:
        steps = len(next(iter(arrays.values())))
        console.facts(steps=steps, microseconds_per_step=round(1e6 * seconds / max(steps, 1), 2), planning_milliseconds=round(1e3 * planning, 2))
    console.table(
        "outputs",
        "Outputs",
        ("name", "dtype", "shape", "smallest", "largest", "file"),
        ((n, str(a.dtype), list(a.shape), _bound(a, np.min), _bound(a, np.max), outputs.get(n)) for n, a in results.items()),
    )
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


def _stream(session, arrays, console: Console) -> tuple[dict[str, np.ndarray], float, float]:
    """A chunk of every input through a stream, in blocks, with a bar; the seconds that planning took, and those of the steps."""
    steps = {len(a) if a.ndim else -1 for a in arrays.values()}
    if len(steps) != 1 or -1 in steps:
        raise ShapeError(f"a stream needs the same number of steps in front of every input, got {sorted(steps)}")
    total, started = steps.pop(), time.perf_counter()
    stream = session.stream(_batch(session, arrays))
    wanted = stream.step_shapes()
    for name, a in arrays.items():
        if name in wanted and a.ndim - 1 != len(wanted[name]):  # audio: one channel, one row
            arrays[name] = a.reshape(len(a), *(1,) * (len(wanted[name]) - 1), *a.shape[1:])

    def blocks(*starts: int):
        for start in starts:
            part = stream.push({name: np.ascontiguousarray(a[start : start + BLOCK]) for name, a in arrays.items()})
            yield part if isinstance(part, tuple) else (part,)

    starts = range(0, max(total, 1), BLOCK)
    list(blocks(starts[0], starts[-1]))  # plans for both sizes of blocks
    stream.reset()
    begun, parts = time.perf_counter(), []
    with console.progress("run", total) as progress:
        for start, part in zip(starts, blocks(*starts)):
            parts.append(part)
            progress(done=min(start + BLOCK, total))
    ended = time.perf_counter()
    return {name: np.concatenate(column) for name, column in zip(stream.output_names, zip(*parts))}, begun - started, ended - begun
