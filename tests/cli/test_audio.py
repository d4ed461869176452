"""Audio of every coding that is read, what is refused, folders that are not there, and what run says of time."""

import json
import struct
import wave

import numpy as np
import pytest

import fastrnn as fr
from fastrnn.cli import main
from fastrnn.cli.audio import SUBFORMAT, read_wav, wav_bytes

SAMPLES = np.array([[0.0, 0.5], [-1.0, 0.25], [0.75, -0.5]])
CODINGS = {
    "8": (1, 1, "u1", lambda s: s * 128 + 128),
    "16": (1, 2, "<i2", lambda s: s * 2**15),
    "32": (1, 4, "<i4", lambda s: s * 2**31),
    "float": (3, 4, "<f4", lambda s: s),
    "double": (3, 8, "<f8", lambda s: s),
}


def riff(tag, width, channels, data, rate=16_000, extensible=False, more=b"", size=None):
    """A file by hand; size: what the data claim to be."""
    form = struct.pack("<HHIIHH", 0xFFFE if extensible else tag, channels, rate, rate * width * channels, width * channels, 8 * width)
    form += struct.pack("<HHI", 22, 8 * width, 3) + struct.pack("<H", tag) + SUBFORMAT if extensible else b""
    body = b"WAVE" + b"fmt " + struct.pack("<I", len(form)) + form + more + b"data" + struct.pack("<I", len(data) if size is None else size) + data
    return b"RIFF" + struct.pack("<I", len(body)) + body


@pytest.mark.parametrize("extensible", [False, True])
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("coding", CODINGS)
def test_codings(tmp_path, coding, channels, extensible):
    tag, width, dtype, made = CODINGS[coding]
    data = made(SAMPLES[:, :channels]).astype(dtype).tobytes()
    (tmp_path / "a.wav").write_bytes(riff(tag, width, channels, data, 44_100, extensible, b"LIST" + struct.pack("<I", 3) + b"abc\0"))
    samples, rate = read_wav(tmp_path / "a.wav")
    assert rate == 44_100 and samples.dtype == np.float32 and np.allclose(samples, SAMPLES[:, :channels].mean(1), atol=1e-6)


def test_floats_beyond_one_stay(tmp_path):
    (tmp_path / "a.wav").write_bytes(riff(3, 4, 1, np.float32([1.5, -2]).tobytes(), size=0xFFFFFFFF))  # as a recorder that never went back
    assert read_wav(tmp_path / "a.wav")[0].tolist() == [1.5, -2]


def test_whole_files_agree_with_the_wave_module(tmp_path):
    (tmp_path / "a.wav").write_bytes(wav_bytes(np.linspace(-1, 1, 101, dtype="f4"), 8_000))
    with wave.open(str(tmp_path / "a.wav")) as file:
        assert np.array_equal(np.frombuffer(file.readframes(101), "<i2") / np.float32(2**15), read_wav(tmp_path / "a.wav")[0])


@pytest.mark.parametrize(
    "content,error",
    [
        (b"", "does not begin"),
        (b"RIFF1234WAVE", "without a format"),
        (riff(1, 2, 1, b"")[:-8], "without"),
        (riff(6, 1, 1, b"12"), "coding 0x6"),
        (riff(1, 2, 0, b"12"), "0 channels"),
        (riff(3, 2, 1, b"12"), "16 bits in coding 0x3"),
        (riff(1, 2, 1, b"12", 0), "at 0 Hz"),
        (riff(1, 2, 1, b"12").replace(struct.pack("<HH", 2, 16), struct.pack("<HH", 7, 16)), "7 bytes a frame"),
        (riff(1, 2, 1, b"12", extensible=True).replace(SUBFORMAT, bytes(14)), "0xfffe"),
    ],
)
def test_what_is_refused(tmp_path, content, error):
    (tmp_path / "a.wav").write_bytes(content)
    with pytest.raises((fr.InvalidModelError, fr.UnsupportedModelError), match=error):
        read_wav(tmp_path / "a.wav")


def test_a_folder_that_is_not_there_is_named(tmp_path, capsys):
    import fastrnn.training as tr

    tr.Sequential(tr.Linear(3, 2)).to_model().save(tmp_path / "net.safetensors")
    assert main(["convert", str(tmp_path / "net.safetensors"), "-o", str(tmp_path / "nowhere" / "a.safetensors")]) == 3
    said = capsys.readouterr().err
    assert f"no such folder to write to: '{tmp_path / 'nowhere'}'" in said and "a.safetensors." not in said


def test_planning_is_said_apart_from_the_steps(tmp_path, capsys):
    import fastrnn.training as tr

    tr.Sequential(tr.GRU(4, 8), tr.Linear(8, 4)).to_model().save(tmp_path / "net.safetensors")
    model = fr.load(tmp_path / "net.safetensors")
    audio = np.random.default_rng(0).uniform(-1, 1, 4 * 130).astype("f4")
    (tmp_path / "in.wav").write_bytes(riff(3, 4, 1, audio.tobytes()))
    name, output = model.input_names[0], model.output_names[0]
    assert (
        main(
            [
                "run",
                str(tmp_path / "net.safetensors"),
                "--input",
                f"{name}={tmp_path / 'in.wav'}",
                "--output",
                f"{output}={tmp_path / 'out.npy'}",
                "--json",
            ]
        )
        == 0
    )
    said = json.loads(capsys.readouterr().out)
    assert said["steps"] == 130 and said["microseconds_per_step"] > 0 and said["planning_milliseconds"] > 0
    whole = fr.compile(model)(audio.reshape(130, 1, 4))
    assert np.array_equal(np.load(tmp_path / "out.npy").reshape(whole.shape), whole)  # what the first pass left is not in it
