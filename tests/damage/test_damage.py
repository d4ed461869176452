"""Damaged and hostile files: each is refused with a typed error that names the place, in under a second and in bounded memory; or, where the
damage has no meaning, gives exactly the numbers of the whole file."""

import gc
import io
import os
import struct
import subprocess
import sys
import time
import warnings
import zipfile
from pathlib import Path

import checkpoint_corpus
import files_corpus
import keras_corpus
import numpy as np
import onnx_corpus
import onnx_nodes_corpus
import pytest
import tflite_corpus
from fuzz import MEMORY, SECONDS, peak
from loaders import LOADERS, join_header, layers, run, split_header
from onnx import helper
from onnx_graphs import build, small, value

import fastrnn as fr

LOAD = {"model": lambda path: run(fr.load(path)), "layers": layers}
CORPUS = [*onnx_corpus.CORPUS, *onnx_nodes_corpus.CORPUS, *files_corpus.CORPUS, *checkpoint_corpus.CORPUS, *keras_corpus.CORPUS, *tflite_corpus.CORPUS]  # fmt: skip
REFUSALS = (fr.InvalidModelError, fr.UnsupportedModelError, fr.ShapeError, fr.DTypeError)


@pytest.fixture(scope="module", autouse=True)
def heap_of_other_tests():
    """Kept from the garbage collector: walking it takes a second late in a long run, and is not the loaders' doing."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


def refused(load, path, size: int, message: str = "."):
    """The file is refused in time and in bounded memory, naming what `message` says."""
    before, started = peak(), time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(REFUSALS, match=f"(?s){message}"):
            load(path)
    assert time.process_time() - started < SECONDS
    assert peak() - before < MEMORY + 4 * size


def test_the_corpus_is_large_and_no_name_stands_twice():
    names = [case.name for case in CORPUS]
    assert len(names) == len(set(names)) >= 900


@pytest.mark.parametrize("case", CORPUS, ids=lambda case: case.name)
def test_refused(case, tmp_path):
    path = case.write(tmp_path)
    refused(LOAD[case.load], path, sum(file.lstat().st_size for file in tmp_path.rglob("*")), case.message)
    assert not Path("sprung").exists()


@pytest.mark.parametrize("name", LOADERS)
def test_truncations(name, tmp_path):
    """Every place of a small ONNX file, and of a small TFLite file; so many places and the last byte of each other whole file: torch.export takes a while for each."""
    many = 12 if name == "program" else 60
    loader, path = LOADERS[name], tmp_path / f"cut{LOADERS[name].suffix}"
    for seed, data in loader.seeds().items():
        places = (
            range(len(data)) if seed == "small" and name in ("onnx", "tflite") else [*(len(data) * k // many for k in range(many)), len(data) - 1]
        )
        for cut in places:
            path.write_bytes(data[:cut])
            refused(loader.load, path, cut)


@pytest.mark.parametrize("name,step", [("onnx", 3), ("model", 5), ("tflite", 3)])
def test_flipped_bits(name, step, tmp_path):
    """Of a small ONNX file, of a small TFLite file and of a model's header: refused, or a model that runs (a weight's bit, a name used once)."""
    loader, path, ran = LOADERS[name], tmp_path / f"flipped{LOADERS[name].suffix}", 0
    data = loader.seeds()["small"]
    bits = range(0, 8 * (len(data) if name != "model" else 8 + struct.unpack("<Q", data[:8])[0]), step)
    for bit in bits:
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        started = time.process_time()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                loader.load(path)
            ran += 1
        except fr.FastRNNError:
            pass
        assert time.process_time() - started < SECONDS
    assert 10 < ran < len(bits) / 2


LIMITED = """
import resource, sys, warnings
from pathlib import Path
warnings.simplefilter("ignore")
sys.path[:0] = sys.argv[1:3]
import test_damage
cases = {case.name: case for case in test_damage.CORPUS}
folder, first = Path(sys.argv[3]), True
for name in ["cycle", "npz_npy_of_objects", "checkpoint_stack_underflow", *sys.argv[4:]]:  # the first few load what is loaded once
    (folder / name).mkdir()
    path = cases[name].write(folder / name)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    room = pages * resource.getpagesize() + (64 << 20) + 4 * path.stat().st_size
    resource.setrlimit(resource.RLIMIT_AS, (room if name in sys.argv[4:] else resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    try:
        test_damage.LOAD[cases[name].load](path)
        print(name, "was taken")
    except test_damage.REFUSALS as error:
        assert "MemoryError" not in str(error) and "allocate" not in str(error), error
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
print("all")
"""
GREEDY = (
    "tflite_constant_of_a_terabyte",
    "tflite_fill_of_a_terabyte",
    "tflite_pad_of_a_terabyte",
    "tflite_lstm_buffers_of_2_to_the_32",
    "keras_bomb",
    "keras_hdf5_gaps_of_a_terabyte",
    "keras_json_nested",
    "h5_structure_names_size",
    "npz_bomb_of_one_weight",
    "npz_bomb_of_many_weights",
    "npz_directory_of_many_entries",
    "npz_npy_of_a_huge_shape",
    "checkpoint_bomb",
    "checkpoint_tensor_of_a_terabyte",
    "checkpoint_calls_bytearray_zip",
    "checkpoint_storage_larger_than_a_legacy_file",
    "checkpoint_one_storage_for_thousands_of_layers",
    "checkpoint_dicts_shared_without_end",
    "checkpoint_text_of_2_to_the_63",
    "checkpoint_number_of_a_million_digits",
    "dims_larger_than_data",
    "dims_of_2_to_the_63",
    "constant_of_huge_shape",
    "range_without_end",
    "pad_beyond_memory",
    "hidden_size_huge",
    "external_device",
    "external_many_tensors_over_one_file",
    "op_of_a_huge_name",
    "a_million_inputs",
    "branches_nested_thousands_deep",
    "model_hidden_size_huge",
    "safetensors_header_huge",
    "safetensors_offsets_past_the_end",
    "model_graph_nested_deep",
)


def test_the_greediest_within_a_limit_on_memory(tmp_path):
    """A process that may take 64 MiB and four times each file refuses them all, and never for want of memory."""
    here = Path(__file__).parent
    done = subprocess.run(
        [sys.executable, "-P", "-c", LIMITED, str(here), str(here.parent / "fuzz"), str(tmp_path), *GREEDY],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"},
        cwd=tmp_path,
    )
    assert done.stdout.split() == ["all"], done.stdout + done.stderr[-2000:]


def _changed(change):
    model = small()
    change(model)
    return model.SerializeToString()


HARMLESS = {
    "training_info": lambda: _changed(lambda m: m.training_info.add()),
    "an_output_declared_of_another_rank": lambda: _changed(lambda m: m.graph.output[0].CopyFrom(value("y", "T"))),
    "an_output_declared_of_another_size": lambda: _changed(lambda m: m.graph.output[0].CopyFrom(value("y", "T", "B", 9))),
    "notes_of_any_bytes": lambda: _changed(lambda m: m.graph.__setattr__("doc_string", "\0\1é" * 1_000)),
    "a_domain_that_nothing_uses": lambda: _changed(lambda m: m.opset_import.append(helper.make_opsetid("com.evil", 9))),
    "the_opset_twice_alike": lambda: _changed(lambda m: m.opset_import.append(m.opset_import[0])),
    "parameters_that_no_activation_takes": lambda: _changed(
        lambda m: m.graph.node[0].attribute.append(helper.make_attribute("activation_alpha", [0.5] * 9))
    ),
    "a_field_that_no_reader_knows": lambda: small().SerializeToString() + b"\xfa\x7f\x03abc",
    "a_wrong_ir_version": lambda: _changed(lambda m: m.__setattr__("ir_version", 1 << 40)),
    "a_value_declared_that_nothing_makes": lambda: _changed(lambda m: m.graph.value_info.append(value("nothing", -5))),
}


@pytest.mark.parametrize("name", HARMLESS)
def test_damage_without_meaning_in_an_onnx_file(name, tmp_path):
    x = np.random.default_rng(1).standard_normal((4, 2, 3)).astype(np.float32)
    (tmp_path / "m.onnx").write_bytes(HARMLESS[name]())
    assert np.array_equal(fr.compile(fr.load(tmp_path / "m.onnx"))(x), fr.compile(fr.from_onnx(small()))(x))


def _with_entry(data: bytes, name: str, content: bytes) -> bytes:
    file = io.BytesIO(data)
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr(name, content)
    return file.getvalue()


def _foreign_header(data: bytes) -> bytes:
    header, rest = split_header(data)
    return join_header({**header, "__metadata__": {"\0": "é" * 1_000}}, rest)


@pytest.mark.parametrize(
    "name,seed,change",
    [
        ("npz", "stored", lambda data: _with_entry(data, "others.npy", b"\x93NUMPY damaged")),
        ("npz", "compressed", lambda data: _with_entry(data, "readme.txt", b"hello")),
        ("checkpoint", "plain", lambda data: _with_entry(data, "archive/extra", b"hello")),
        ("safetensors", "float32", _foreign_header),
    ],
)
def test_damage_without_meaning_in_a_state_dict(name, seed, change, tmp_path):
    """Entries that nothing reads, notes beside the tensors."""
    data = LOADERS[name].seeds()[seed]
    for path, content in ((tmp_path / f"whole{LOADERS[name].suffix}", data), (tmp_path / f"more{LOADERS[name].suffix}", change(data))):
        path.write_bytes(content)
    whole, more = (fr.from_state_dict(tmp_path / f"{stem}{LOADERS[name].suffix}") for stem in ("whole", "more"))
    assert list(whole) == list(more) and all(
        np.array_equal(a, b) for k in whole for a, b in zip(whole[k].state_dict().values(), more[k].state_dict().values(), strict=True)
    )


def test_what_would_be_huge_is_not_folded():
    """64 GB if it were computed beforehand; compiling takes next to nothing."""
    before = peak()
    data = build(
        [helper.make_node("Expand", ["w", "n"], ["a"]), helper.make_node("ReduceSum", ["a"], ["y"], keepdims=0)],
        weights={"w": np.ones(1, np.float32), "n": np.array([1 << 20, 1 << 14])},
    )
    fr.compile(fr.from_onnx(data))
    assert peak() - before < MEMORY


def test_branches_inside_branches_are_fine_where_they_end():
    model = fr.from_onnx(onnx_corpus.doubling(7))
    assert fr.compile(model)(np.float32([[-1, 0, 2]])).tolist() == [[0, 0, 2]]
