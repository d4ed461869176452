"""Prints a hash of the bits that layers, models, streams and pools give, a line each; the instruction set in use is FASTRNN_ISA's. Run on two processors it shows whether they
agree: see .ci/neon. Weights and inputs are uniform, which NumPy draws the same everywhere."""

import hashlib

import numpy as np

import fastrnn as fr

random = np.random.default_rng(0)


def uniform(*shape):
    return random.uniform(-1.5, 1.5, shape).astype(np.float32)


def say(name, *arrays):
    print(name, hashlib.sha256(b"".join(np.ascontiguousarray(a).tobytes() for a in arrays)).hexdigest()[:16])


for layer in (fr.LSTM, fr.GRU, fr.RNN, lambda *sizes, **options: fr.GRU(*sizes, reset_after=False, **options)):
    for precision in ("float32", "bfloat16", "int8"):
        for I, H, T, B in ((3, 5, 7, 1), (40, 64, 9, 3), (17, 37, 5, 12), (24, 24, 33, 2)):
            net = layer(I, H, num_layers=2, bidirectional=B % 2 == 0, seed=H, precision=precision)
            say(f"{type(net).__name__} {precision} {I} {H} {T} {B}", net(uniform(T, B, I), lengths=list(range(T, T - B, -1)) if B <= T else None)[0])
    model = layer(11, 21, seed=5).to_model()
    session, x = fr.compile(model), uniform(13, 2, 11)
    stream = session.stream(batch=2)
    say("steps", *(stream.step(row) for row in x))
    stream.reset()
    say("chunks", stream.push(x[:5]), stream.push(x[5:]))
    pool = session.pool(8)
    streams = [pool.open() for _ in range(2)]
    say("pool", *(pool.step(streams[::-1], row[::-1].copy()) for row in x))
