"""Requests that are nearly right: valid ones of every endpoint, damaged in bytes, in JSON, in protocol buffers and in frames of a WebSocket."""

import json
import struct

import numpy as np

WORDS = [None, True, False, 0, -1, 1, 1 << 31, 1 << 63, 1 << 64, -(1 << 63), 1e308, 0.5, "", "x", "NaN", "\u0000", "y" * 300, [], [[]], {}, {"a": 1}, [1, "a"], [None] * 3, "../../etc/passwd",
         "FP32", "BYTES", "sequence_id"]  # fmt: skip
PATHS = ["/", "/v2", "/v2/", "/live", "/metrics", "/v2/health/live", "/v2/health/ready", "/v2/models/lstm", "/v2/models/lstm/ready", "/v2/models/lstm/infer", "/v2/models/lstm/versions/1/infer",
         "/v2/models/lstm/versions/x/infer", "/v2/models//infer", "/v2/models/%00/infer", "/v2/models/..%2f..%2fetc/infer", "/v2/models/lstm/stream", "/page.js", "/page.py", "//", "/%ff%fe", "*"]  # fmt: skip
METHODS = [b"GET", b"POST", b"PUT", b"DELETE", b"HEAD", b"OPTIONS", b"PATCH", b"CONNECT", b"G\0T", b"BREW"]


def tensor(rng):
    return {"name": "x", "shape": [1, 5], "datatype": "FP32", "data": rng.standard_normal(5).round(3).tolist()}


def valid(rng):
    return {"id": "i", "inputs": [tensor(rng)], "outputs": [{"name": "y"}],
            "parameters": {"sequence_id": int(rng.integers(1, 4)), "sequence_start": bool(rng.random() < 0.5), "sequence_end": bool(rng.random() < 0.5), "step": int(rng.integers(3))}}  # fmt: skip


def damaged(rng, value, depth=0):
    """A value with one place of it replaced, removed, doubled or gone deeper."""
    if isinstance(value, dict) and value and rng.random() < 0.8:
        value, key = dict(value), list(value)[rng.integers(len(value))]
        choice = rng.random()
        if choice < 0.15:
            del value[key]
        elif choice < 0.25:
            value[str(WORDS[rng.integers(len(WORDS))])] = value[key]
        else:
            value[key] = damaged(rng, value[key], depth + 1)
        return value
    if isinstance(value, list) and value and rng.random() < 0.7:
        value, k = list(value), int(rng.integers(len(value)))
        value[k : k + 1] = [damaged(rng, value[k], depth + 1)] * int(rng.integers(3))
        return value
    return WORDS[rng.integers(len(WORDS))]


def bent(rng, data, most=6):
    """Bytes with some flipped, cut, doubled or put in."""
    data = bytearray(data)
    for _ in range(int(rng.integers(1, most))):
        at, choice = int(rng.integers(len(data) + 1)), rng.random()
        if choice < 0.4 and at < len(data):
            data[at] ^= 1 << int(rng.integers(8))
        elif choice < 0.55:
            del data[at : at + int(rng.integers(1, 9))]
        elif choice < 0.7:
            data[at:at] = rng.bytes(int(rng.integers(1, 9)))
        elif choice < 0.8:
            data[at:at] = data[at : at + 30]
        elif choice < 0.9:
            del data[at:]
        elif at + 4 <= len(data):
            data[at : at + 4] = struct.pack("<I", int(rng.integers(1 << 32)))
    return bytes(data)


def http(rng):
    """A request's bytes."""
    binary, request = rng.random() < 0.3, valid(rng)
    body, extra = b"", b""
    if binary:
        request["inputs"][0] |= {"parameters": {"binary_data_size": 20}}
        del request["inputs"][0]["data"]
        extra = np.zeros(5, np.float32).tobytes()
    choice = rng.random()
    text = json.dumps(damaged(rng, request) if choice < 0.6 else request).encode()
    if choice > 0.8:
        text = bent(rng, text)
    length = len(text) if rng.random() < 0.9 else int(rng.integers(-5, 1 << 20))
    body = text + (extra if rng.random() < 0.8 else bent(rng, extra or b"x"))
    method, path = (
        (b"POST", "/v2/models/lstm/infer") if rng.random() < 0.7 else (METHODS[rng.integers(len(METHODS))], PATHS[rng.integers(len(PATHS))])
    )
    declared = len(body) if rng.random() < 0.9 else int(rng.integers(0, 2 * len(body) + 2))
    head = method + b" " + path.encode() + b" HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: " + str(declared).encode() + b"\r\n"
    if binary or rng.random() < 0.1:
        head += b"inference-header-content-length: " + str(length).encode() + b"\r\n"
    if rng.random() < 0.1:
        head += [
            b"transfer-encoding: chunked\r\n",
            b"content-encoding: gzip\r\n",
            b"expect: 100-continue\r\n",
            b"authorization: Bearer \xff\xfe\r\n",
            b"origin: null\r\n",
            b"upgrade: websocket\r\nconnection: upgrade\r\n",
            b"x: " + b"a" * 40_000 + b"\r\n",
            b"\0: 1\r\n",
        ][rng.integers(8)]
    data = head + b"\r\n" + body
    return bent(rng, data) if rng.random() < 0.2 else data


def message(rng, valid_message: bytes) -> bytes:
    """A serialized message, damaged."""
    return bent(rng, valid_message, 12) if rng.random() < 0.9 else rng.bytes(int(rng.integers(0, 200)))


def frame(rng) -> bytes:
    """What a WebSocket might be sent."""
    choice = rng.random()
    if choice < 0.4:
        start = {"type": "start", "state_token": "", "inputs": {}, "frame": 5, "outputs": ["y"]}
        text = json.dumps(damaged(rng, start if rng.random() < 0.7 else {"type": ["token", "end"][rng.integers(2)]})).encode()
        kind, body = 1, bent(rng, text) if rng.random() < 0.3 else text
    elif choice < 0.7:
        kind, body = 2, rng.bytes(int(rng.integers(0, 300)))
    else:
        kind, body = int(rng.integers(16)), rng.bytes(int(rng.integers(0, 126)))
    key, n = rng.bytes(4), len(body)
    masked = bytes(b ^ key[k % 4] for k, b in enumerate(body))
    size = bytes([0x80 | n]) if n < 126 else bytes([0x80 | 126]) + struct.pack(">H", n)
    data = bytes([(0x80 if rng.random() < 0.9 else 0) | kind | (0x40 if rng.random() < 0.03 else 0)]) + size + key + masked
    return bent(rng, data) if rng.random() < 0.25 else data
