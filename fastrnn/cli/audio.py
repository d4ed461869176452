"""Audio files: .wav, whole numbers or floats, plain or EXTENSIBLE.

Source of the layout: Microsoft, Multiple channel audio data and WAVE files (WAVEFORMATEXTENSIBLE), and RFC 2361 for the tags.
"""

from __future__ import annotations

import io
import struct
import wave
from pathlib import Path

import numpy as np

from fastrnn.errors import InvalidModelError, ShapeError, UnsupportedModelError

WHOLE, FLOATS, EXTENSIBLE = 1, 3, 0xFFFE  # format tags
SUBFORMAT = bytes.fromhex("000000001000800000aa00389b71")  # behind the tag in an EXTENSIBLE format's GUID
SCALE = {1: 128.0, 2: 2.0**15, 3: 2.0**23, 4: 2.0**31}  # of whole numbers, by bytes


def read_wav(path) -> tuple[np.ndarray, int]:
    """Samples (n,) float32, channels averaged, and the rate in Hz. Whole numbers of 8, 16, 24 or 32 bits become -1..1, floats of 32 or 64 bits stay as they are.

    InvalidModelError for a damaged file, UnsupportedModelError for another coding. A last frame that is not whole is left out.
    """
    content = Path(path).read_bytes()
    chunks = _chunks(path, content)
    form = chunks.get(b"fmt ", b"")
    if len(form) < 16 or b"data" not in chunks:
        raise InvalidModelError(f"{path}: no .wav file: without a format or without data")
    tag, channels, rate, _, frame, bits = struct.unpack("<HHIIHH", form[:16])
    if tag == EXTENSIBLE and len(form) >= 40 and form[26:40] == SUBFORMAT:
        tag = struct.unpack("<H", form[24:26])[0]
    width = bits // 8
    if bits % 8 or not channels or not rate or (tag, width) not in {*((WHOLE, n) for n in SCALE), (FLOATS, 4), (FLOATS, 8)}:
        raise UnsupportedModelError(
            f"{path}: {bits} bits in coding {tag:#x}, {channels} channels at {rate} Hz; supported are whole numbers of 8, 16, 24 and 32 bits and "
            "floats of 32 and 64"
        )
    if frame != width * channels:
        raise InvalidModelError(f"{path}: {frame} bytes a frame do not fit {channels} channels of {bits} bits")
    data = chunks[b"data"]
    data = data[: len(data) // frame * frame]
    samples = np.frombuffer(data, f"<f{width}").astype(np.float32) if tag == FLOATS else _whole(data, width)
    return np.mean(samples.reshape(-1, channels), axis=1, dtype=np.float32), rate


def _chunks(path, content: bytes) -> dict[bytes, bytes]:
    """The parts of a RIFF file by name, the first of each; one whose size is more than there is, as recorders leave it, goes to the end."""
    if len(content) < 12 or content[:4] != b"RIFF" or content[8:12] != b"WAVE":
        raise InvalidModelError(f"{path}: no .wav file: it does not begin as one")
    found, at = {}, 12
    while at + 8 <= len(content):
        name, size = struct.unpack("<4sI", content[at : at + 8])
        found.setdefault(name, content[at + 8 : at + 8 + size])
        at += 8 + size + size % 2
    return found


def _whole(data: bytes, width: int) -> np.ndarray:
    if width == 1:
        samples = np.frombuffer(data, np.uint8).astype(np.float32) - 128
    elif width == 3:
        samples = (np.frombuffer(data, np.uint8).reshape(-1, 3).astype(np.int32) << np.array([8, 16, 24])).sum(axis=1, dtype=np.int32) >> 8
    else:
        samples = np.frombuffer(data, f"<i{width}")
    return samples.astype(np.float32) / np.float32(SCALE[width])


def wav_bytes(samples: np.ndarray, rate: int) -> bytes:
    """A .wav file: whole numbers of 16 bits, clipped to -1..1. Raises ShapeError where a sample is no number."""
    if not np.isfinite(samples).all():
        raise ShapeError("samples that are NaN or infinite cannot be written as audio")
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((np.clip(samples, -1, 1 - 2.0**-15) * 2**15).round().astype("<i2").tobytes())
    return buffer.getvalue()
