"""The examples of training run in their quick modes, on the installed package, and what the committed results say stands."""

import importlib
import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from statistics import median
from xml.etree import ElementTree

import mido
import numpy as np
import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
QUICK = {  # what each prints, and what it draws
    "digits/run.py": ("an answer after each row", "digits.svg"),
    "forecast/run.py": ("autoregression", "forecast.svg"),
    "gradients/run.py": ("spectral radius", "flow.svg"),
    "memory/run.py": ("remembering nothing", "results.svg"),
    "tagging/run.py": ("both directions", "tagging.svg"),
}


def run(script, *arguments):
    done = python(EXAMPLES / script, "--quick", *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return " ".join(done.stdout.split())


def python(*arguments):
    return subprocess.run([sys.executable, *map(str, arguments)], check=False, capture_output=True, text=True, cwd="/")


@pytest.mark.parametrize("script", QUICK)
def test_quick_modes_run(script, tmp_path):
    printed, drawn = QUICK[script]
    text = run(script, "--out", tmp_path)
    assert all(word in text for word in printed.split()), text
    assert ElementTree.parse(tmp_path / drawn).getroot().tag.endswith("svg")


def test_the_writer_writes():
    text = run("characters/write.py", "--temperature", "0.5", "--start", "def __init__(self")
    assert "bits a character on modules held out" in text and "def __init__(self" in text and "us a character" in text


def test_sampling_keeps_to_the_likeliest_and_to_the_temperature(monkeypatch):
    write, random, logits = module("characters/write.py", monkeypatch), np.random.default_rng(0), np.log([0.1, 0.4, 0.2, 0.3]).astype(np.float32)
    drawn = np.bincount([write.sample(logits, random, 1.0, 3) for _ in range(4000)], minlength=4) / 4000
    np.testing.assert_allclose(drawn, np.array([0, 4, 2, 3]) / 9, atol=0.03)
    cold = np.bincount([write.sample(logits, random, 0.5, 4) for _ in range(4000)], minlength=4) / 4000
    np.testing.assert_allclose(cold, np.array([1, 16, 4, 9]) / 30, atol=0.03)
    assert {write.sample(logits, random, 1.0, 1) for _ in range(20)} == {1}


def test_music_from_rolls_to_midi(shared, tmp_path):
    text = run("music/run.py", "--data", shared / "data", "--out", tmp_path)
    assert "JSB Chorales" in text and "Chung" in text
    runs = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert [r["cell"] for r in runs] == ["tanh", "GRU", "LSTM"] and all(r["test"] < 60 for r in runs)
    played = mido.MidiFile(tmp_path / "music.mid")
    sounding = set()
    for message in played.tracks[0]:
        if message.type == "note_on":
            assert message.note not in sounding and 21 <= message.note <= 108
            sounding.add(message.note)
        elif message.type == "note_off":
            sounding.remove(message.note)
    assert not sounding and played.length > 8 * 0.3


def test_music_without_its_data_says_where_it_looked(tmp_path):
    done = python(EXAMPLES / "music/run.py", "--quick", "--data", tmp_path)
    assert done.returncode == 1 and f"{tmp_path / 'jsb_chorales.npz'} is not there" in done.stderr and "Traceback" not in done.stderr


def test_rolls_are_read_as_they_are_stored(shared, monkeypatch):
    rolls = module("music/rolls.py", monkeypatch)
    pieces = rolls.read("jsb_chorales", shared / "data")
    assert [len(pieces[part]) for part in ("train", "valid", "test")] == [229, 76, 77]
    with np.load(shared / "data/jsb_chorales.npz") as stored:
        assert [len(piece) for piece in pieces["test"]] == stored["test_lengths"].tolist()
    assert all(piece.shape[1] == 88 and 1 < piece.sum(1).mean() < 6 for piece in pieces["valid"])


def test_labels_are_the_tokenizers(monkeypatch):
    labels = module("tagging/labels.py", monkeypatch)
    text = "# note\nif x > 0x1F:  # why\n    f = 'a#b'\ncall(a,\n     b)\n"
    lines = labels.label(text)
    assert ["".join(map(chr, codes)) for codes, _ in lines] == ["# note", "if x > 0x1F:  # why", "f = 'a#b'", "call(a,\n     b)"]
    letters = "".join("".join(".#skn0+"[k] for k in kinds) + "|" for _, kinds in lines)
    assert letters == "######|kk.n.+.0000+..#####|n.+.sssss|nnnn+n+......n+|"


def test_adding_and_copying_are_what_they_say(monkeypatch):
    tasks, random = module("memory/tasks.py", monkeypatch), np.random.default_rng(0)
    x, target = tasks.adding(random, 50, 7)
    assert np.allclose((x[:, :, 0] * x[:, :, 1]).sum(0)[:, None], target) and (x[:25, :, 1].sum(0) == 1).all() and (x[25:, :, 1].sum(0) == 1).all()
    x, target = tasks.copying(random, 30, 7)
    assert x.shape == (30 + 2 * tasks.ITEMS, 7, tasks.SYMBOLS + 2) and (x.sum(-1) == 1).all()
    assert np.array_equal(x[: tasks.ITEMS].argmax(-1), target[-tasks.ITEMS :]) and (target[: -tasks.ITEMS] == tasks.BLANK).all()


def test_committed_results_reach_what_they_claim():
    """The literature's comparison and the memory problems, as last run in full."""
    music = json.loads((EXAMPLES / "music/results.json").read_text(encoding="utf-8"))
    assert len(music) == 18
    for data, bound in (("jsb_chorales", 9.0), ("nottingham", 4.2)):
        for cell in ("tanh", "GRU", "LSTM"):
            of = [r["test"] for r in music if (r["data"], r["cell"]) == (data, cell)]
            assert len(of) == 3 and median(of) <= bound, (data, cell, of)
    memory = {(r["task"], r["T"], r["cell"]): r["loss"] for r in json.loads((EXAMPLES / "memory/results.json").read_text(encoding="utf-8"))}
    for T in (100, 400):
        assert memory["adding", T, "LSTM"] < 0.01 and memory["adding", T, "GRU"] < 0.01
    assert memory["adding", 400, "RNN"] > 0.14


def module(path, monkeypatch):
    """One of the examples' modules."""
    monkeypatch.syspath_prepend(str(EXAMPLES / path.split("/")[0]))
    spec = importlib.util.spec_from_file_location(f"example_{Path(path).stem}", EXAMPLES / path)
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found
