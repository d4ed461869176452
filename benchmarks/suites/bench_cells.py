"""Cells that are compiled: the built-in ones beside the native kernels, the gallery beside loops in PyTorch, and what compiling takes."""

import json
import os
import subprocess
import sys
import tempfile

import cases
import numpy as np
import pytest
import torch
from contenders.torch_cells import loops

import fastrnn as fr
from fastrnn.cells import gallery
from fastrnn.model.stack import stack_model
from fastrnn.testing import LAYERS

torch.set_num_threads(1)
EACH_CELL = pytest.mark.parametrize("cell", gallery.CELLS, ids=lambda c: c.name)


def stream(layer, backend="auto", batch=1):
    """A stream over a layer alone."""
    return fr.compile(stack_model(layer.options, layer.state_dict(), "layer"), backend=backend).stream(batch)


@pytest.mark.parametrize("B", cases.COMPILED["B"])
@pytest.mark.parametrize("T", cases.COMPILED["T"])
@pytest.mark.parametrize("kind,I,H", cases.COMPILED["layers"])
def test_compiled(race, kind, I, H, T, B):
    """The same bits from both; a step goes through a stream, a sequence through push."""
    layer, x, out = LAYERS[kind](I, H, seed=0), np.random.default_rng(1).standard_normal((T, B, I)).astype(np.float32), {}
    runs = {}
    for backend in ("native", "jit"):
        carried, y = stream(layer, backend, B), np.empty((T, B, H) if T > 1 else (B, H), np.float32)
        call, given = (carried.step, x[0]) if T == 1 else (carried.push, x)
        call(given, out=y)
        out[backend], runs[backend] = y.copy(), lambda call=call, given=given, y=y: call(given, out=y)
    assert np.array_equal(out["native"], out["jit"])
    race(runs, f"{kind.upper()} I={I} H={H} B={B} " + ("step" if T == 1 else f"T={T}"))


@EACH_CELL
@pytest.mark.parametrize("H,T,B", cases.LOOPS)
def test_loops(race, cell, H, T, B):
    layer, random = fr.Recurrent(cell, H, H, seed=0), np.random.default_rng(1)
    x, dt = random.standard_normal((T, B, H)).astype(np.float32), random.uniform(0, 2, (T, B)).astype(np.float32)
    scalars = {"dt": dt} if cell.scalars else {}
    given, eager, scripted = (torch.from_numpy(x), torch.from_numpy(dt)), *loops(cell, layer)
    runs = {"fastrnn": lambda: layer(x, **scalars)[0], "torch loop": lambda: eager(*given), "torch.jit.script": lambda: scripted(*given)}
    with torch.inference_mode():
        for _ in range(4):  # the script specialises on its first calls
            results = {name: np.asarray(run()) for name, run in runs.items()}
        for y in results.values():
            assert np.abs(y - results["fastrnn"]).max() <= 2e-5 * max(1.0, np.abs(y).max())
        race(runs, f"{cell.name} H={H} T={T} B={B}")


@pytest.mark.parametrize("H,B", cases.PER_FLOP)
def test_per_flop(race, H, B):
    """Sequences of each cell with matrices beside the LSTM's."""
    T, runs, flops = 100, {}, {}
    for name, layer in {"lstm": fr.LSTM(H, H, seed=0), **{c.name: fr.Recurrent(c, H, H, seed=0) for c in gallery.CELLS}}.items():
        random = np.random.default_rng(1)
        x = random.standard_normal((T, B, H)).astype(np.float32)
        scalars = {s: random.uniform(0, 2, (T, B)).astype(np.float32) for s in layer.options.scalars}
        push, given, y = stream(layer, batch=B).push, {"x": x, **scalars} if scalars else x, np.empty((T, B, H), np.float32)
        runs[name] = lambda push=push, given=given, y=y: push(given, out=y)
        flops[name] = 2 * T * B * sum(a.size for n, a in layer.state_dict().items() if a.ndim == 2)
    race(runs, f"H={H} T={T} B={B}", flops=flops)


def test_own_step(race):
    """A cell of one's own that computes what the built-in does, a step of each from Python."""
    built = fr.GRU(32, 24, seed=0)
    from fastrnn.cells import gru

    same = gru()
    mine = fr.cell(same.gates, name="gru_again")(same.pointwise)
    own = fr.Recurrent(mine, 32, 24)
    own.load_state_dict(built.state_dict())
    x, y = np.ones((1, 32), np.float32), np.empty((1, 24), np.float32)
    steps = {name: stream(layer).step for name, layer in (("fr.GRU", built), ("fr.Recurrent", own))}
    race({name: lambda step=step: step(x, out=y) for name, step in steps.items()}, "GRU I=32 H=24 step")


PROBE = """
import json, sys, time
import numpy as np, fastrnn as fr
from fastrnn.cells import gallery
start = time.perf_counter(); fr.Recurrent(gallery.mgu, 40, 64); first = time.perf_counter() - start
start = time.perf_counter(); fr.Recurrent(gallery.mgu, 40, 72); another = time.perf_counter() - start
start = time.perf_counter(); fr.Recurrent(gallery.janet, 40, 64); cell = time.perf_counter() - start
print(json.dumps([1e3 * first, 1e3 * another, 1e3 * cell, "fastrnn.kernels.jit.kernel" in sys.modules]))
"""


def test_compile(record):
    """Medians of five new machines: each an empty cache, and a process after the one that filled it."""

    def machine():
        with tempfile.TemporaryDirectory() as folder:
            environment = {**os.environ, "FASTRNN_CACHE_DIR": folder + "/kernels"}

            def probe():
                done = subprocess.run([sys.executable, "-c", PROBE], check=True, capture_output=True, text=True, env=environment, cwd="/")
                return json.loads(done.stdout)

            empty, filled = probe(), probe()
        assert empty[3] and not filled[3]
        return *empty[:3], filled[0], filled[2]

    def run():
        names = ("first cell of a machine", "another size", "another cell", "second process", "its other cell")
        return {"ms": dict(zip(names, np.median([machine() for _ in range(5)], axis=0).tolist()))}

    record(run, "MGU 40 -> 64, then 72, then JANET")
