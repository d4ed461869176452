"""Damaged and hostile files: each is refused with a typed error that names the place, in under a second and in bounded memory."""

import resource
import time
import warnings

import checkpoint_corpus
import files_corpus
import onnx_corpus
import onnx_nodes_corpus
import pytest
from loaders import layers, run

import fastrnn as fr

LOAD = {"model": lambda path: run(fr.load(path)), "layers": layers}
CORPUS = [*onnx_corpus.CORPUS, *onnx_nodes_corpus.CORPUS, *files_corpus.CORPUS, *checkpoint_corpus.CORPUS]
MEMORY, SECONDS = 64 << 20, 1.0


def peak() -> int:
    """The most memory that this process ever had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@pytest.mark.parametrize("case", CORPUS, ids=lambda case: case.name)
def test_refused(case, tmp_path):
    path = case.write(tmp_path)
    size = sum(file.lstat().st_size for file in tmp_path.rglob("*"))
    before, started = peak(), time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises((fr.InvalidModelError, fr.UnsupportedModelError, fr.ShapeError, fr.DTypeError), match=f"(?s){case.message}"):
            LOAD[case.load](path)
    assert time.process_time() - started < SECONDS
    assert peak() - before < MEMORY + 4 * size
