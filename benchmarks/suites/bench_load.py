"""From weights to the first call, against a plain copy of the weights; and what an import takes."""

import os
import subprocess
import sys
import time

import cases
import numpy as np
import pytest
from contenders import NAMES, fastrnn_engine, onnx_layer, onnxruntime_engine, openvino_engine, torch_engine

import fastrnn as fr

IMPORTS = (*NAMES[:-1], "numpy")


@pytest.mark.parametrize("case", cases.LOADS, ids=lambda case: case.layer)
def test_load(race, case):
    """fastrnn plans and packs a model; the others get the graph as bytes, or the weights as tensors."""
    model, graph, weights = fastrnn_engine.graph(case), onnx_layer.graph(case), list(case.parameters.values())
    race(
        {
            "fastrnn": lambda: fr.compile(model),
            "onnxruntime": lambda: onnxruntime_engine.session(graph),
            "openvino": lambda: openvino_engine.compiled(graph),
            "torch": lambda: torch_engine.module(case),
            "copy": lambda: [np.array(a) for a in weights],
        },
        case.layer,
        weight_bytes=case.weight_bytes,
    )


def seconds_of_import(name: str, first: str, cache) -> float:
    """In a new process, on top of another import; modules are compiled once, into a folder that all processes share."""
    code = f"import {first}, time; t = time.perf_counter(); import {name}; print(time.perf_counter() - t)"
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"} | {"PYTHONPYCACHEPREFIX": str(cache)}
    return float(subprocess.run([sys.executable, "-P", "-c", code], check=True, capture_output=True, text=True, cwd="/", env=environment).stdout)


def test_import(record, request, tmp_path):
    """On top of NumPy; the best of several processes. NumPy's own on top of nothing heavier."""

    def measure():
        clock, times = time.perf_counter, {}
        for name in IMPORTS:
            started, took = clock(), []
            while len(took) < 2 or clock() - started < (0.5 if request.config.getoption("--quick") else 4) and len(took) < 8:
                took.append(seconds_of_import(name, "sys" if name == "numpy" else "numpy", tmp_path))
            times[name] = 1e3 * min(took)
        return {"ms": times}

    record(measure, "import")
