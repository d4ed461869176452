"""Every call of the README and of the public names, as a caller types it. Not run: mypy and pyright read it (check.py); assert_type finds what is Any."""

from concurrent.futures import Future
from typing import assert_type

import numpy as np
import numpy.typing as npt

import fastrnn as fr
import fastrnn.training as tr
from fastrnn.cells import gallery
from fastrnn.serving import Batcher
from fastrnn.training import diagnostics
from fastrnn.typing import Array, Float32, Outputs

x = np.zeros((100, 3, 40), np.float32)
mask = np.zeros((100, 3), np.bool_)
tokens = np.zeros((100, 3), np.int64)
frame = np.zeros((3, 40), np.float32)
sequence = np.zeros(100, np.int64)

# Layers.
lstm = fr.LSTM(
    40,
    64,
    num_layers=2,
    bidirectional=True,
    proj_size=32,
    peepholes=False,
    clip=3.0,
    activations=("sigmoid", ("scaledtanh", {"alpha": 1.7}), "tanh"),
    seed=0,
)
assert_type(lstm, fr.LSTM)
y, (h, c) = lstm(x, lengths=[100, 37, 0])
assert_type(y, Float32)
assert_type(h, Float32)
assert_type(lstm(x, (h, c), resets=mask), tuple[Float32, tuple[Float32, Float32]])
gru = fr.GRU(40, 64, reset_after=False, threads=2, precision={"default": "int8", "head": "float32"})
assert_type(gru(x), tuple[Float32, Float32])
rnn = fr.RNN(40, 64, nonlinearity="relu")
assert_type(rnn(x, h), tuple[Float32, Float32])
assert_type(rnn.state_dict(), dict[str, Float32])
rnn.load_state_dict(rnn.state_dict())
assert_type(lstm.to_model(lengths=True), fr.Model)
assert_type(lstm.explain(), str)


@fr.cell(gates=("z", "n"), states=("h",))
def mgu(z: Array, n: Array, h: Array) -> Array:
    z = fr.sigmoid(z)
    return fr.where(z > 0.5, h + z * (fr.tanh(n) - h), fr.minimum(fr.maximum(h, -1), fr.abs(n)) + fr.exp(-fr.relu(z)) + fr.sqrt(z))


own = fr.Recurrent(mgu, 40, 64)
states = own(x)[1]
assert_type(states, Float32 | tuple[Float32, ...])
fr.Recurrent(gallery.mgu, 40, 64)
fr.Gate("n", sees="x", second=True, bias=False)
layers = fr.from_state_dict("checkpoint.pt", prefix="encoder")
assert_type(layers, dict[str, fr.LSTM | fr.GRU | fr.RNN])
fr.from_state_dict({"weight_ih_l0": frame, "weight_hh_l0": frame}, batch_first=True)

# Models.
model = fr.load("vad.onnx", outputs=["output"])
assert_type(model, fr.Model)
assert_type(fr.from_onnx(b"..."), fr.Model)
assert_type(fr.from_keras("model.keras"), fr.Model)
model.save("model.safetensors")
for value in (*model.inputs, *model.outputs):
    assert_type(value.name, str)
    assert_type(value.dtype, str)
assert_type(model.states[0].input, str)
assert_type(model.weights["w"], Array)
guess = fr.guess_states(model)
assert_type(guess.open["state"], str)
assert_type(fr.round_weights(model, "int8"), fr.Model)

# Sessions.
session = fr.compile(
    model, backend="auto", precision="float32", threads=2, states={"h": "h_n", "h1": ("states", 0)}, constants={"sr": np.array(16000)}
)
assert_type(session, fr.Session)
assert_type(fr.compile(lstm), fr.Session)
assert_type(session.run({"x": x}), dict[str, Array])
assert_type(session(x, None), Outputs)
assert_type(session.explain({"x": (1, 576)}), str)
assert_type(session.states[0].name, str)
assert_type(session.guess, fr.Guess)
cost = fr.sensitivity(model, {"x": x}, "int8", stream_batch=1)
assert_type(cost[0].error, float)
assert_type(len(cost), int)

# Streams.
stream = session.stream(batch=3, context={"input": 64})
assert_type(stream, fr.Stream)
assert_type(stream.step(frame), Outputs)
assert_type(stream.step(frame, out=frame), Array)
assert_type(stream.step({"a": frame, "b": frame}, out=(frame, frame)), tuple[Array, ...])
assert_type(stream.push(x, resets=mask), Outputs)
assert_type(stream.push(x, out=x), Array)
saved = stream.state
assert_type(saved, dict[str, Array])
stream.reset(rows=[0])
stream.state = saved
with session.stream() as other:
    assert_type(other, fr.Stream)

# Pools.
pool = session.pool(4096, context={"input": 64}, sizes={"n": 3}, lock=True)
assert_type(pool, fr.Pool)
handles = [pool.open() for _ in range(3)]
assert_type(handles, list[int])
assert_type(pool.step(handles[:2], frame), Outputs)
assert_type(pool.step(np.array(handles, np.int64), frame, out=frame), Array)
assert_type(pool.push(handles, x, lengths=[100, 37, 0], resets=mask), Outputs)
assert_type(pool.state(handles[0]), dict[str, Array])
blob = pool.export(handles[0])
assert_type(blob, bytes)
assert_type(pool.restore(blob), int)
assert_type(len(pool), int)
pool.reset(handles)
pool.close(handles[0])


# Serving.
async def serve() -> None:
    async with Batcher(session, capacity=4096, max_batch=256, max_wait_us=0, max_queue=1024, idle_timeout_s=60) as batcher:
        assert_type(await batcher.step("anna", frame, start=True), Outputs)
        assert_type(await batcher.step("anna", frame, export=True), tuple[Outputs, bytes])
        assert_type(await batcher.push("anna", x), Outputs)
        assert_type(batcher.submit("anna", frame, step=7), Future[Outputs])
        assert_type(batcher.submit("anna", frame, end=True).result(), Outputs)
        assert_type(batcher.export("anna").result(), bytes)
        assert_type(batcher.drain(1.0), bool)
        for name in batcher.metrics():
            assert_type(name, str)


# Training.
net = tr.Sequential(
    tr.Embedding(100, 32, seed=0), tr.Dropout(0.1), tr.LSTM(32, 64, dtype="float32"), tr.LayerNorm(64), tr.Tanh(), tr.Linear(64, 100), seed=1
)
assert_type(net(tokens, lengths=[100, 37, 0]), Array)
loss, grads = tr.value_and_grad(net, tr.cross_entropy, tokens, tokens, mask=mask, state=tr.State())
assert_type(loss, float)
assert_type(grads, dict[str, Array])
opt = tr.AdamW(net, lr=1e-3, weight_decay=0.01)
assert_type(tr.clip_grad_norm(grads, 1.0), float)
opt.step(grads)
history = tr.fit(net, tr.cross_entropy, tr.Sequences([sequence], [sequence]), ([sequence], [sequence]), optimiser=opt, epochs=2, tbptt=50,
                 schedule=tr.CosineLR(opt, 2), patience=3, metric=tr.accuracy, seed=0)  # fmt: skip
assert_type(history.best, float | None)
assert_type(history.train, list[float])
assert_type(tr.evaluate(net, tr.cross_entropy, ([sequence], [sequence])), float)
assert_type(tr.evaluate(net, tr.accuracy, tr.Sequences([sequence], [sequence])), float)
assert_type(net.to_model(), fr.Model)
assert_type(net.predict([sequence]), Array | list[Array])
net.save("net.safetensors")
assert_type(net.astype("float64"), tr.Sequential)
assert_type(net.parameters(), dict[str, Array])
assert_type(diagnostics.spectral_radius(tr.GRU(3, 4)), dict[str, float])
assert_type(diagnostics.hidden_gradients(net, tr.cross_entropy, tokens, tokens, layer=2), Array)
assert_type(tr.Recurrent(mgu, 3, 4).astype(np.float64), tr.Recurrent)

# Errors.
try:
    fr.load("model.bin")
except fr.UnsupportedModelError as error:
    assert_type(error, fr.UnsupportedModelError)
except (
    fr.ShapeError,
    fr.DTypeError,
    fr.MissingDependencyError,
    fr.NotStreamableError,
    fr.BusyError,
    fr.PoolFullError,
    fr.StateError,
    fr.OverloadedError,
) as other_error:
    every: fr.FastRNNError = other_error
print(fr.SuspectModelWarning, fr.InvalidModelError, fr.ConversionError, fr.DivergedError, fr.OutOfMemoryError, fr.UnknownStreamError)

# What a checker must object to: an ignore that is not needed is an error.
fr.lstm  # type: ignore  # no such name
fr.LSTM("40", 64)  # type: ignore  # no size
_: npt.NDArray[np.float32] = lstm(x)[0]
