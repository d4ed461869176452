"""The jit backend by itself: what it compiles and refuses, functions against the native ones, the cache on disk."""

import os
import subprocess
import sys
import threading

import numpy as np
import pytest

pytest.importorskip("numba", reason="the jit backend needs fastrnn[numba]")

import fastrnn as fr
from fastrnn.cells.activations import RECURRENT_ACTIVATIONS, Activation
from fastrnn.cells.maths import log1p_unit
from fastrnn.kernels.jit import cache, compiler, functions
from fastrnn.testing import JIT_ISAS, activate

pytestmark = pytest.mark.skipif(not JIT_ISAS, reason="no instruction set here has fused multiply-add")


def each_unit(function, values, name="one_function"):
    """function over float32 values, compiled: the values pass through an identity matrix, whose products and sums with zeros change none."""
    cell = fr.cell(gates=(fr.Gate("a", sees="x", bias=False),), name=name)(function)
    H = 64
    x = np.zeros((-(-len(values) // H), H), np.float32)
    x.reshape(-1)[: len(values)] = values
    layer = fr.Recurrent(cell, H, H, bias=False, backend="jit")
    layer.load_state_dict({"weight_ih_l0": np.eye(H, dtype=np.float32)})
    return layer(x[:, None])[0].reshape(-1)[: len(values)]


def dense():
    bits = np.arange(0, 1 << 32, 9_973, dtype=np.uint64).astype(np.uint32).view(np.float32)
    finite = bits[np.isfinite(bits) & (np.abs(bits) >= np.finfo(np.float32).tiny)]
    return np.concatenate([finite, np.linspace(-110, 110, 100_001, dtype=np.float32), np.float32([0.0])])


@pytest.mark.parametrize("kind", (*RECURRENT_ACTIVATIONS, "exp"))
def test_activations_have_the_native_bits(each_jit_isa, kind):
    activation, x = Activation(kind, 0.7, 0.3), dense()
    got, want = each_unit(lambda a: activation(a), x), activate(each_jit_isa, activation, x)
    assert np.array_equal(got.view(np.uint32), want.view(np.uint32))


OPERATIONS = {
    "arithmetic": lambda a: (a + 1.5) * (2 - a) / (a * a + 3) - -a,
    "comparisons": lambda a: fr.where((a < 1) & (a >= -1) | ~(a != 5) | (a > 7), a, fr.where((a == 3) | (a <= -4), 1.0, -a)),
    "extremes": lambda a: fr.minimum(fr.maximum(a, -2.0), fr.minimum(2 * a, 1.5)) + fr.maximum(a, 0.5 * a),
    "roots": lambda a: fr.sqrt(fr.abs(a)) + abs(a) + fr.relu(a) + a**2,
    "exponentials": lambda a: fr.exp(a / 8) + fr.tanh(a) * fr.sigmoid(a) + log1p_unit(fr.minimum(fr.abs(a), 1.0)),
    "numpy": lambda a: np.tanh(a) + np.float32(0.1) * np.maximum(a, 0) - np.exp(np.minimum(a, 1)),
}


@pytest.mark.parametrize("name", list(OPERATIONS))
def test_every_operation_is_what_numpy_makes_of_it(each_jit_isa, name):
    x = np.linspace(-9, 9, 4_001).astype(np.float32)
    np.testing.assert_allclose(each_unit(OPERATIONS[name], x), OPERATIONS[name](x), rtol=2e-6, atol=1e-6)


def test_every_function_is_compiled_and_has_a_numpy_form():
    from fastrnn.cells import maths, trace

    own = {"add", "subtract", "multiply", "divide", "negative", *trace.LOGICAL}
    assert set(functions.OPERATIONS) == own | {name for name in vars(maths) if hasattr(vars(maths)[name], "__wrapped__")}


def test_nan_comes_through_and_infinities_saturate(each_jit_isa):
    special = np.float32([np.nan, np.inf, -np.inf])
    for function, expected in (
        (fr.tanh, [np.nan, 1, -1]),
        (fr.sigmoid, [np.nan, 1, 0]),
        (fr.exp, [np.nan, np.inf, 0]),
        (fr.relu, [np.nan, np.inf, 0]),
        (lambda a: fr.maximum(a, np.nan), [np.nan] * 3),
        (lambda a: fr.minimum(np.nan, a), [np.nan] * 3),
        (lambda a: fr.maximum(a, 2 * a), [np.nan, np.inf, -np.inf]),
        (lambda a: fr.minimum(1.0, a), [np.nan, 1, -np.inf]),
    ):
        x = np.repeat(special, 64)  # a matrix would spread NaN over its row, so a row has one value
        got = each_unit_rows(function, x)
        assert np.array_equal(got[::64], np.float32(expected), equal_nan=True)


def each_unit_rows(function, values):
    """The same for values that a product with zero does not leave alone: from the state."""
    cell = fr.cell(gates=(fr.Gate("a", sees="x"),), name="of_state")(lambda a, h: function(h))
    layer = fr.Recurrent(cell, 1, 64, backend="jit")
    rows = values.reshape(-1, 64)
    return layer(np.zeros((1, len(rows), 1), np.float32), rows[None])[0].reshape(-1)


def test_what_cannot_run_is_refused_by_name(monkeypatch):
    monkeypatch.setenv("FASTRNN_ISA", "baseline")
    with pytest.raises(fr.UnsupportedModelError, match=r"baseline.*reference"):
        fr.LSTM(3, 4, backend="jit")


def run_python(code, folder, **environment):
    done = subprocess.run(
        [sys.executable, "-c", code],
        check=False,
        capture_output=True,
        text=True,
        cwd="/",
        env={**os.environ, "FASTRNN_CACHE_DIR": str(folder), **environment},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


ONE = """
import sys, numpy as np, fastrnn as fr
y = fr.LSTM(3, 20, seed=1, backend="jit")(np.ones((4, 2, 3), "f4"))[0]
print(y.view("u4").sum(), "fastrnn.kernels.jit.kernel" in sys.modules, "numba" in sys.modules)
"""


@pytest.mark.usefixtures("cells_compile")
def test_a_second_process_compiles_nothing(tmp_path):
    folder = tmp_path / "kernels"
    bits, compiled, with_numba = run_python(ONE, folder)
    assert compiled == "True" and with_numba == "False" and len(list(folder.iterdir())) == 1
    assert run_python(ONE, folder) == [bits, "False", "False"]


@pytest.mark.usefixtures("cells_compile")
def test_a_damaged_entry_is_compiled_again(tmp_path):
    folder = tmp_path / "kernels"
    bits = run_python(ONE, folder)[0]
    (entry,) = folder.iterdir()
    whole = entry.read_bytes()
    for damaged in (whole[:-1], whole[:200], b"", whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:]):
        entry.write_bytes(damaged)
        assert run_python(ONE, folder)[0] == bits
        assert entry.read_bytes() == whole


@pytest.mark.usefixtures("cells_compile")
def test_a_folder_that_cannot_be_written_or_that_others_write_to_is_left_alone(tmp_path):
    (tmp_path / "file").write_text("")
    bits = run_python(ONE, tmp_path / "file" / "kernels")[0]
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    assert run_python(ONE, shared) == [bits, "True", "False"] and not list(shared.iterdir())


@pytest.mark.usefixtures("cells_compile")
def test_the_cache_is_never_stale(tmp_path):
    """A helper in another file, a constant, a number closed over: each changes what is computed, at once, with the cache of the run before."""
    helper = tmp_path / "helper.py"
    code = f"""
import sys; sys.path.insert(0, {str(tmp_path)!r}); sys.dont_write_bytecode = True
import numpy as np, fastrnn as fr, helper
SCALE = float(sys.argv[1]) if len(sys.argv) > 1 else {{scale}}
def make(shift):
    return fr.cell(gates=("a",), name="stale")(lambda a: helper.change(a) * SCALE + shift)
layer = fr.Recurrent(make({{shift}}), 1, 1, seed=0)
layer.load_state_dict({{{{name: np.ones_like(a) for name, a in layer.state_dict().items()}}}})
print(layer(np.zeros((1, 1, 1), "f4"))[0].item())
"""
    seen = []
    for body, scale, shift in (("a + 1", 2.0, 0.5), ("a + 2", 2.0, 0.5), ("a + 2", 3.0, 0.5), ("a + 2", 3.0, 1.5), ("a + 1", 2.0, 0.5)):
        helper.write_text(f"def change(a):\n    return {body}\n")
        seen.append(float(run_python(code.format(scale=scale, shift=shift), tmp_path / "kernels")[0]))
    assert seen == [6.5, 8.5, 12.5, 13.5, 6.5]  # the bias is 2


def test_keys_name_the_processor_and_the_package(monkeypatch):
    """A text, each instruction set that runs here, and whatever the toolchain names."""
    keys = {compiler._key("other", JIT_ISAS[0]), *(compiler._key("text", name) for name in JIT_ISAS)}
    monkeypatch.setattr(compiler, "_toolchain", lambda: "another processor")
    assert len(keys | {compiler._key("text", JIT_ISAS[0])}) == len(JIT_ISAS) + 2


@pytest.mark.usefixtures("cells_compile")
def test_many_threads_compile_at_once_and_agree():
    cell = fr.cell(gates=("z", "n"), name="many_threads")(lambda z, n, h: h + fr.sigmoid(z) * (fr.tanh(n * 0.987) - h))
    x, results = np.random.default_rng(0).standard_normal((5, 3, 4)).astype(np.float32), []
    threads = [threading.Thread(target=lambda H=H: results.append((H, fr.Recurrent(cell, 4, H, seed=2)(x)[0]))) for H in (5, 9, 5, 9, 33, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 6
    for H, y in results:
        assert np.array_equal(y, fr.Recurrent(cell, 4, H, seed=2)(x)[0])


@pytest.mark.usefixtures("cells_compile")
def test_compiles_after_fork(tmp_path):
    code = """
import os, numpy as np, fastrnn as fr
x = np.ones((4, 2, 3), "f4")
before = fr.GRU(3, 20, seed=1, backend="jit")(x)[0]
child = os.fork()
if not child:
    same = np.array_equal(before, fr.GRU(3, 20, seed=1, backend="jit")(x)[0])
    other = fr.RNN(3, 7, seed=1, backend="jit")(x)[0]
    os._exit(0 if same and np.array_equal(other, fr.RNN(3, 7, seed=1)(x)[0]) else 1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    assert run_python(code, tmp_path / "kernels") == ["0"]


@pytest.mark.usefixtures("cells_compile")
def test_a_fork_waits_for_what_another_thread_compiles(tmp_path):
    """The lock that a child would inherit locked, with no thread to release it."""
    code = """
import os, signal, threading, time, numpy as np, fastrnn as fr
from fastrnn.kernels.jit import compiler
held = threading.Event()
def hold():
    with compiler._lock:
        held.set()
        time.sleep(0.2)
threading.Thread(target=hold).start()
held.wait()
child = os.fork()
if not child:
    signal.alarm(20)
    fr.RNN(3, 7, backend="jit")
    os._exit(0)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    assert run_python(code, tmp_path / "kernels") == ["0"]


def test_the_driver_and_the_tiles_mean_the_same_tables():
    from fastrnn.cells.spec import MOST_STATES
    from fastrnn.kernels.jit import _driver, tiles, tiling
    from fastrnn.kernels.jit.recipe import recipe_of

    assert _driver.STATES == MOST_STATES and _driver.address() and len(set(_driver.WORDS)) == len(_driver.WORDS)
    for registers, lanes in ((32, 16), (16, 8)):
        recipe = recipe_of(
            fr.cell(gates=("a", fr.Gate("b", second=True)), operand=lambda a, h: a * h, name="two_phases")(lambda a, b: a * b),
            lanes,
            registers,
            20,
            20,
        )
        assert all(len(list(tiling.Tiling(recipe, kind).words())) == _driver.WORDS_OF_KIND for kind in tiles.KINDS)


def test_a_user_without_a_home_has_no_cache(monkeypatch):
    monkeypatch.delenv("FASTRNN_CACHE_DIR", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    cache.write("key", b"code", ["run"])
    assert cache.folder().is_absolute() and not cache.folder().exists() and cache.read("key") is None


def test_an_entry_is_whole_or_absent(tmp_path, monkeypatch):
    monkeypatch.setenv("FASTRNN_CACHE_DIR", str(tmp_path / "kernels"))
    assert cache.read("key") is None
    cache.write("key", b"code\nof any bytes\n", ["run", "work"])
    assert cache.read("key") == (b"code\nof any bytes\n", ["run", "work"])
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    cache.write("other", b"code", ["run"])
    assert cache.read("other") is None and [p.name for p in (tmp_path / "kernels").iterdir()] == ["key"]


@pytest.mark.usefixtures("cells_compile")
def test_code_loads_where_gigabytes_lie_between_its_neighbours(tmp_path):
    """Constants are reached by 32-bit distances, so a kernel must lie in one piece however the process's memory is laid out."""
    code = """
import ctypes, numpy as np, fastrnn as fr
libc = ctypes.CDLL(None)
libc.mmap.restype, libc.mmap.argtypes = ctypes.c_void_p, [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
x, same = np.ones((3, 2, 4), "f4"), []
for units in (3, 5, 16, 24):
    libc.mmap(None, 3 << 30, 0, 0x4022, -1, 0)  # reserved, not used
    same.append(np.array_equal(fr.RNN(4, units, seed=1, backend="jit")(x)[0], fr.RNN(4, units, seed=1)(x)[0]))
print(all(same))
"""
    assert run_python(code, tmp_path / "kernels") == ["True"]
