"""Converts the shipped ONNX model, verifies it, and streams real text through it.

    python examples/characters/run.py [FILE]     # without a file: a module of the standard library that it was not trained on

The model, a GRU over characters, was trained by train.py and exported by PyTorch. Prints what runs each op, the largest differences to ONNX
Runtime and to torch's stored answers, how well the model predicts the text, what a step takes, and a line it writes itself.
"""

import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from text import decode, encode, library_sources

import fastrnn as fr
from fastrnn.converters.engines import engine_for
from fastrnn.converters.verify import verify

HERE = Path(__file__).parent
HELD_OUT = next(path for path in library_sources() if path.name == "contextlib.py")
TOLERANCE = 2e-5  # of the largest logit, over 200 steps
STATES = {"h": "h_n"}  # the input that each step takes from the step before


def convert(path: Path) -> fr.Model:
    """The ONNX file as fastrnn's own file, written and read again; its streams start from a zero state."""
    with tempfile.TemporaryDirectory() as folder:
        fr.from_onnx(path).save(Path(folder) / "characters.safetensors")
        return fr.load(Path(folder) / "characters.safetensors")


def check(session) -> float:
    """Largest difference to torch's stored logits, as a fraction of the largest one."""
    stored = np.load(HERE / "expected.npz")
    logits = session.stream().push(stored["tokens"].astype(np.int64)[:, None])[:, 0]
    return float(np.abs(logits - stored["logits"]).max() / np.abs(stored["logits"]).max())


def predict(session, tokens: np.ndarray) -> tuple[float, np.ndarray]:
    """Bits per character of a text streamed one character at a time, and what each step took in microseconds."""
    stream, logits = session.stream(), np.empty((1, session.model.outputs[0].shape[-1]), np.float32)
    bits, microseconds = 0.0, np.empty(len(tokens) - 1)
    for t in range(len(tokens) - 1):
        token = tokens[t : t + 1]
        started = time.perf_counter_ns()
        stream.step(token, out=logits)
        microseconds[t] = (time.perf_counter_ns() - started) / 1e3
        shifted = logits[0] - logits.max()
        bits += np.log2(np.exp(shifted).sum()) - shifted[tokens[t + 1]] / np.log(2)
    return bits / (len(tokens) - 1), microseconds


def write(session, start: str, n: int, seed: int = 0) -> str:
    """`start` carried on for n characters, sampled at temperature 0.5."""
    stream, random = session.stream(), np.random.default_rng(seed)
    logits, tokens = None, list(encode(start))
    for token in tokens:
        logits = stream.step(np.array([token]))
    for _ in range(n):
        p = np.exp((logits[0] - logits.max()).astype(np.float64) / 0.5)
        tokens.append(int(random.choice(len(p), p=p / p.sum())))
        logits = stream.step(np.array(tokens[-1:]))
    return decode(tokens)


def main(path: Path) -> int:
    """The whole job; 1 where the model does not answer as torch did."""
    session = fr.compile(convert(HERE / "char_gru.onnx"), states=STATES)
    print(session.explain(), end="\n\n")
    engine = engine_for(HERE / "char_gru.onnx", session.model)
    theirs, stored = max(d.relative for d in verify(session, engine, tolerance=TOLERANCE).differences), check(session)
    for other, difference in ((engine.name, theirs), ("torch", stored)):
        print(f"against {other:<12} largest difference {difference:.1e} of scale, {'ok' if difference <= TOLERANCE else 'TOO LARGE'}")
    tokens = encode(path.read_text(encoding="utf-8", errors="replace"))[:50_000]
    bits, microseconds = predict(session, tokens)
    print(f"text               {path.name}, {len(tokens):,} characters, {bits:.2f} bits per character")
    print(f"a step             median {np.median(microseconds):.2f} us, p99 {np.percentile(microseconds, 99):.2f} us, Python's clock included")
    print(f"it writes\n{write(session, 'class Stream:' + chr(10), 240)}")
    return 0 if max(theirs, stored) <= TOLERANCE else 1


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]) if len(sys.argv) > 1 else HELD_OUT))
