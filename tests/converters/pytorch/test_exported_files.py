"""Exported programs and .pt2 files: read without running anything that is in them; what is damaged is refused."""

import io
import json
import pickle
import subprocess
import sys
import zipfile

import numpy as np
import pytest

import fastrnn as fr
from fastrnn.converters.engines import engine_for
from fastrnn.converters.verify import verify

torch = pytest.importorskip("torch")
from functions import agree
from nets import NETS
from torch import nn
from torch.export import Dim


def exported(name="CtcHead", path=None):
    net = NETS[name]
    module, example = net.module(), net.draw(*net.example)
    program = torch.export.export(module, (), example, dynamic_shapes={k: {0: Dim.AUTO} for k in example})
    if path is not None:
        torch.export.save(program, path)
    return module, example, program


def test_exported_programs_and_their_files(tmp_path):
    module, example, program = exported(path=tmp_path / "net.pt2")
    for model in (fr.from_torch(program), fr.from_torch(program, example), fr.load(tmp_path / "net.pt2")):
        assert [v.shape for v in model.inputs] == [("B", 8, 20)]
        agree(model, module, NETS["CtcHead"].draw(5, 8)["x"])
    with pytest.raises(fr.UnsupportedModelError, match="settled"):
        fr.from_torch(program, dynamic_shapes={})
    training = torch.export.export(nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.5)).train(), (torch.randn(3, 7, 4),))
    with pytest.raises(fr.UnsupportedModelError, match="train=True; export the module in eval mode"):
        fr.from_torch(training)


def rewritten(path, target, change):
    """The archive with one entry changed."""
    result = io.BytesIO()
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(result, "w") as copied:
        for info in archive.infolist():
            data = archive.read(info)
            copied.writestr(info.filename, change(data) if info.filename.endswith(target) else data)
    path.write_bytes(result.getvalue())
    return path


class Bomb:
    """Leaves a file behind if anyone unpickles it."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def pickled(bomb):
    file = io.BytesIO()
    torch.save(bomb, file)
    return file.getvalue()


@pytest.mark.parametrize("entry", ["data/sample_inputs/model.pt", "data/weights/weight_0", "models/model.json"])
def test_nothing_in_a_file_is_run(entry, tmp_path):
    left = tmp_path / "left"
    _, _, program = exported(path=tmp_path / "net.pt2")
    path = tmp_path / "net.pt2"
    if entry == "models/model.json":
        call = f"__import__('pathlib').Path('{left}').write_text('x')"
        rewritten(path, entry, lambda data: data.replace(b"Symbol('s77', positive=True, integer=True)", call.encode()))
    else:
        rewritten(path, entry, lambda data: pickled(Bomb(left)))
        rewritten(path, "weights_config.json", lambda data: data.replace(b'"use_pickle": false', b'"use_pickle": true', 1))
        if entry.endswith("model.pt"):
            torch.export.save(program, path)
            rewritten(path, entry, lambda data: pickled(Bomb(left)))
    with pytest.raises((fr.UnsupportedModelError, fr.InvalidModelError), match="could run code|no expression of sizes"):
        fr.load(path)
    assert not left.exists()


def test_guards_in_a_file_are_not_run(tmp_path):
    """torch would run them as Python; neither loading nor comparing with torch does."""
    left, path = tmp_path / "left", tmp_path / "net.pt2"
    exported(path=path)
    guards = [f"__import__('pathlib').Path('{left}').write_text('x')"]
    rewritten(path, "models/model.json", lambda data: json.dumps(json.loads(data) | {"guards_code": guards}).encode())
    model = fr.load(path)
    assert verify(fr.compile(model), engine_for(path, model)).good and not left.exists()


def test_names_in_a_file_cannot_become_code(tmp_path):
    _, _, _ = exported(path=tmp_path / "net.pt2")
    path = rewritten(tmp_path / "net.pt2", "models/model.json", lambda data: data.replace(b'"name": "relu"', b'"name": "relu=print(1)"'))
    with pytest.raises(fr.InvalidModelError, match="no name"):
        fr.load(path)


def test_damaged_files(tmp_path):
    _, _, _ = exported("StreamingFrame", tmp_path / "net.pt2")
    whole, path = (tmp_path / "net.pt2").read_bytes(), tmp_path / "bad.pt2"
    random = np.random.default_rng(0)
    for cut in (0, 4, 100, len(whole) // 2, len(whole) - 30):
        path.write_bytes(whole[:cut])
        with pytest.raises(fr.InvalidModelError):
            fr.load(path)
    for _ in range(40):  # flipped bits: read as what it was, or refused
        data = bytearray(whole)
        data[random.integers(len(data))] ^= 1 << random.integers(8)
        path.write_bytes(data)
        try:
            fr.load(path)
        except fr.FastRNNError:
            pass
    for change in (lambda d: b"{}", lambda d: b"[]", lambda d: b"{", lambda d: json.dumps(json.loads(d) | {"graph_module": 3}).encode()):
        path.write_bytes(whole)
        with pytest.raises(fr.FastRNNError):
            fr.load(rewritten(path, "models/model.json", change))
    path.write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(fr.InvalidModelError):
        fr.load(path)
    with pytest.raises(FileNotFoundError):
        fr.load(tmp_path / "none.pt2")


def test_without_torch():
    code = "import sys; sys.modules['torch'] = None\nimport fastrnn\ntry: fastrnn.load('x.pt2')\nexcept fastrnn.MissingDependencyError as e: print(e)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd="/")
    assert "fastrnn[torch]" in done.stdout
