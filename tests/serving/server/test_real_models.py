"""silero's voice activity and a speech denoiser, from their files by the command line, over every protocol: bit for bit what a Stream gives."""

import asyncio
import json
import wave

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="the extra 'serve' is not installed")
grpcclient = pytest.importorskip("tritonclient.grpc", reason="tritonclient is not installed")
httpclient = pytest.importorskip("tritonclient.http", reason="tritonclient is not installed")
websockets = pytest.importorskip("websockets", reason="the extra 'serve' is not installed")

from served_process import command

import fastrnn as fr

CLIENTS = {"http": httpclient, "grpc": grpcclient}


@pytest.fixture
def speech(shared):
    with wave.open(str(shared / "models/gtcrn/mix.wav")) as file:
        return np.frombuffer(file.readframes(file.getnframes()), "<i2").astype("<f4") / 32768


@pytest.fixture
def silero(shared):
    return shared / "models/silero-vad/silero_vad_16k_op15.onnx"


def streamed(kind, said, model, of, frames, inputs):
    """Frame by frame through tritonclient: the first output of each."""
    module, port, ys = CLIENTS[kind], said["grpc_port" if kind == "grpc" else "port"], []
    with module.InferenceServerClient(f"127.0.0.1:{port}") as client:
        for k, frame in enumerate(frames):
            tensors = []
            for name, a in inputs(frame).items():
                tensors.append(module.InferInput(name, list(a.shape), {"f": "FP32", "i": "INT64"}[a.dtype.kind]))
                tensors[-1].set_data_from_numpy(a)
            answer = client.infer(model, tensors, sequence_id=of, sequence_start=k == 0, sequence_end=k == len(frames) - 1)
            ys.append(answer.as_numpy("output"))
    return np.stack(ys)


@pytest.mark.parametrize("kind", CLIENTS)
def test_silero_without_an_option(silero, speech, kind):
    """The client brings the 64 samples of context, and the sampling rate as [1], as the graph has them."""
    frames = np.lib.stride_tricks.sliding_window_view(np.concatenate([np.zeros(64, "<f4"), speech]), 576)[::512].copy()
    wanted = fr.compile(fr.load(silero), constants={"sr": np.array(16000)}).stream().push(frames[:, None])
    with command(silero, "--name", "vad") as (_, said):
        got = streamed(kind, said, "vad", 5, frames, lambda frame: {"input": frame[None], "sr": np.array([16000])})
    assert len(frames) == 305 and got.tobytes() == wanted.tobytes() and wanted.max() > 0.9 > 0.2 > wanted.min()


def test_silero_whose_frames_overlap(silero, speech):
    frames = speech[: len(speech) // 512 * 512].reshape(-1, 1, 512)
    wanted = fr.compile(fr.load(silero), constants={"sr": np.array(16000)}).stream(context={"input": 64}).push(frames)

    async def connection(said, **start):
        async with websockets.connect(f"ws://127.0.0.1:{said['port']}/v2/models/vad/stream", compression=None) as socket:
            await socket.send(json.dumps({"type": "start", **start}))
            got, data = b"", speech.tobytes()
            for at in range(0, len(data), 5003):
                await socket.send(data[at : at + 5003])
            await socket.send('{"type": "end"}')
            async for message in socket:
                got += message if isinstance(message, bytes) else b""
            return got

    with command(silero, "--name", "vad", "--context", "input=64", "--size", "sequence=512", "--constant", "sr=16000") as (_, said):
        assert asyncio.run(connection(said)) == streamed("http", said, "vad", 1, frames, lambda frame: {"input": frame}).tobytes() == wanted.tobytes()
    with command(silero, "--name", "vad", "--context", "input=64") as (_, said):  # what the file leaves open, the start says
        assert asyncio.run(connection(said, frame=512, inputs={"sr": 16000})) == wanted.tobytes()
