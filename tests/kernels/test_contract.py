"""The C contract: layouts agree, and a kernel compiled by someone else plugs in."""

import ctypes
import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest

import fastrnn as fr
from fastrnn.kernels import contract, isa, registry
from fastrnn.kernels.contract import ARGS, Kernel, Key
from fastrnn.model.small import K_BLOCK
from fastrnn.model.stack import stack_model
from fastrnn.plan.emit.rows import SQUARES
from fastrnn.plan.lowering.windows import MOST_POOLED
from fastrnn.testing import TRAP_SHAPES, Case

NATIVE = Path(__file__).parents[2] / "fastrnn/kernels/native"


def fields_of(declarations: str) -> list[tuple[str, str]]:
    """(name, type) of each field of a C or Cython struct, in order; any pointer is "*"."""
    found = []
    for line in re.sub(r"/\*.*?\*/", "", declarations, flags=re.DOTALL).replace(";", "\n").splitlines():
        if line.strip():
            kind, names = re.fullmatch(r"\s*((?:const )?\w+)\s+(.*?)\s*", line).groups()
            found += [(name.strip(" *"), "*" if "*" in name else kind) for name in names.split(",")]
    return found


HEADER = (NATIVE / "args.h").read_text(encoding="utf-8")
FIELDS = fields_of(HEADER[: HEADER.index("} fr_args;")].rpartition("typedef struct {")[2])
TYPES = {"*": "u8", "int64_t": "i8", "float": "f4"}


def test_the_record_is_the_header_s_struct(each_isa):
    """Names, order and types; in C every field is aligned to its size."""
    activation = np.dtype([("kind", "i8"), ("alpha", "f4"), ("beta", "f4")], align=True)
    struct = np.dtype([("act", activation, 3) if name == "act[3]" else (name, TYPES[kind]) for name, kind in FIELDS], align=True)
    assert struct.fields == ARGS.fields and struct.names == ARGS.names
    assert struct.itemsize == ARGS.itemsize == isa.load(each_isa).SIZEOF_ARGS
    assert {name for name, kind in FIELDS if kind == "*"} == set(contract.POINTERS)


def test_cython_sees_the_header_s_struct():
    text = (NATIVE / "_args.pxd").read_text(encoding="utf-8")
    assert fields_of(text.split("ctypedef struct fr_args:")[1].split("ctypedef void")[0]) == FIELDS


def test_the_contract_says_what_each_field_means():
    said = re.findall(r"\w+", contract.__doc__.split("without the GIL")[1])
    assert [name for name, _ in FIELDS if name not in said and name not in ("act[3]", "x4", "x5", "x6", "x7")] == []


def test_activation_codes_follow_the_header():
    from fastrnn.cells import ACTIVATIONS

    enum = HEADER[: HEADER.index("FR_ACT_IDENTITY,")].rpartition("enum {")[2] + HEADER[HEADER.index("FR_ACT_IDENTITY,") :].split("}")[0]
    names = [name.strip()[len("FR_ACT_") :].replace("_", "").lower() for name in enum.split(",")]
    assert names == list(ACTIVATIONS)


def test_precisions_follow_the_header():
    from fastrnn.model.small import PRECISIONS

    enum = HEADER[HEADER.index("enum { FR_FLOAT32") :].split("{")[1].split("}")[0]
    assert [name.strip()[len("FR_") :].lower() for name in enum.split(",")] == list(PRECISIONS)


def test_operations_follow_the_header():
    listed = re.findall(r"^    X\((\w+), (\d),", (NATIVE / "arrays/operations.h").read_text(encoding="utf-8"), re.MULTILINE)
    assert {name: int(reads) for name, reads in listed} == contract.OPERATIONS
    assert [name for name, _ in listed] == list(contract.OPERATIONS)
    assert contract.INSTRUCTION.itemsize % 8 == 0


@pytest.mark.parametrize(
    ("header", "name", "here"),
    [
        ("products/winograd.h", "SQUARES", SQUARES),
        ("products/quantize.h", "FR_K_BLOCK", K_BLOCK),
        ("arrays/pool.h", "FR_POOLED", MOST_POOLED),
        ("arrays/operations.h", "FR_VALUES", contract.MAX_VALUES),
    ],
)
def test_counts_follow_the_headers(header, name, here):
    assert re.findall(rf"^#define {name} +(\d+)", (NATIVE / header).read_text(encoding="utf-8"), re.MULTILINE) == [str(here)]


@pytest.fixture
def foreign():
    """Registers kernels for the jit backend and takes them out again."""
    added = []

    def add(cell, run, work_bytes):
        lanes = registry.find(Key("recurrent", cell), "native", isa.chosen()).lanes
        kernel = Kernel(Key("recurrent", cell), "jit", isa.chosen(), lanes, run, work_bytes)
        registry.register(kernel)
        added.append(kernel)
        return kernel

    yield add
    for kernel in added:
        registry.unregister(kernel)


def test_a_forwarding_function_pointer_runs_like_the_native_kernel(foreign):
    """ctypes makes a C function pointer that counts calls and forwards to the native LSTM: same bits through the executor."""
    native, calls = registry.find(Key("recurrent", "lstm"), "native", isa.chosen()), []
    signature = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
    forward = signature(native.run)

    @signature
    def counting(args):
        calls.append(args)
        forward(args)

    foreign("lstm", ctypes.cast(counting, ctypes.c_void_p).value, native.work_bytes)
    case = Case("lstm", TRAP_SHAPES["prime"], {"num_layers": 2}, seed=1)
    for mine, theirs in zip(case.run(case.layer("jit")), case.run(case.layer("native")), strict=True):
        assert np.array_equal(mine, theirs)
    assert len(calls) == 2
    assert "jit" in case.layer("jit").explain()


def test_a_numba_cfunc_is_a_kernel(foreign):
    """A kernel compiled by Numba over the contract's record: h' = 2 x + h, without a matrix."""
    numba = pytest.importorskip("numba")
    from numba.core import types
    from numba.extending import intrinsic

    floats = types.CPointer(types.float32)

    @intrinsic
    def at(typing_context, address):
        """An address as float *."""
        return floats(address), lambda context, builder, signature, values: builder.inttoptr(values[0], context.get_value_type(floats))

    def run(args):
        a = numba.carray(args, 1)[0]
        for b in range(a.B):
            h = numba.carray(at(a.h0 + types.uint64(4 * b * a.h0_b)), a.H)
            for t in range(a.T):
                x = numba.carray(at(a.x + types.uint64(4 * (t * a.x_t + b * a.x_b))), a.I)
                y = numba.carray(at(a.y + types.uint64(4 * (t * a.y_t + b * a.y_b))), a.H)
                for k in range(a.H):
                    y[k] = 2 * x[k] + h[k]
                h = y
            final = numba.carray(at(a.hn + types.uint64(4 * b * a.hn_b)), a.H)
            for k in range(a.H):
                final[k] = h[k]

    pointer = types.CPointer(numba.from_dtype(ARGS))
    compiled, work = numba.cfunc(types.void(pointer))(run), numba.cfunc(types.int64(pointer))(lambda args: 0)
    foreign("rnn", compiled.address, work.address)
    rnn = fr.RNN(3, 3, backend="jit")
    x = np.random.default_rng(0).standard_normal((5, 2, 3)).astype(np.float32)
    y, h = rnn(x)
    np.testing.assert_allclose(y, 2 * np.cumsum(x, axis=0), rtol=1e-5, atol=1e-6)
    assert np.array_equal(h[0], y[-1])
    stream = fr.compile(stack_model(rnn.options, rnn.state_dict(), "rnn"), backend="jit").stream(2)
    assert np.array_equal(np.stack([stream.step(row) for row in x]), y)


def test_jit_without_llvm_says_what_installs_it(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "llvmlite" else find(name, *rest))
    with pytest.raises(fr.MissingDependencyError, match=r"fastrnn\[numba\]"):
        fr.LSTM(3, 4, backend="jit")


@pytest.mark.usefixtures("cells_compile")
def test_a_registered_kernel_comes_before_one_that_is_compiled(foreign):
    native = registry.find(Key("recurrent", "rnn"), "native", isa.chosen())
    foreign("rnn", native.run, native.work_bytes)
    assert "registered" in fr.RNN(3, 4, backend="jit").explain() and "compiled" in fr.LSTM(3, 4, backend="jit").explain()


def test_kernels_are_found_by_what_they_do(each_isa):
    """Role, cell and dtype: no two under one key, and no two that tables would show alike."""
    table = registry.kernels("native", each_isa)
    assert len(table) == sum(1 for _ in isa.load(each_isa).kernels()) == len({str(key) for key in table})
    assert {key.cell for key in table if key.role in ("recurrent", "general")} == {"rnn", "lstm", "gru", "gru_before"}
    assert all(bool(key.cell) == (key.role in ("recurrent", "general")) for key in table)
    shown = {
        Key("recurrent", "lstm"): "lstm",
        Key("recurrent", "lstm", "int8"): "lstm_int8",
        Key("general", "lstm"): "lstm_any",
        Key("copy", dtype="bits32"): "copy32",
        Key("add", dtype="int64"): "add_int64",
        Key("chain"): "chain",
    }
    assert all(registry.find(key, "native", each_isa).name == name for key, name in shown.items())
    assert registry.find("chain", "native", each_isa) is table[Key("chain")]
    with pytest.raises(fr.UnsupportedModelError, match="'lstm_int4'"):
        registry.find(Key("recurrent", "lstm", "int4"), "native", each_isa)
