"""One table of instruction sets (kernels/isas.py): whatever else knows them agrees with it."""

import re
import runpy
from pathlib import Path

import pytest

from fastrnn.kernels import isa, isas
from fastrnn.kernels.jit import compiler
from fastrnn.kernels.native import _cpu

ROOT = Path(__file__).parents[2]
NATIVE, TRAINING = ROOT / "fastrnn/kernels/native", ROOT / "fastrnn/training/native"


def test_the_table_can_be_read_without_the_package():
    """As setup.py reads it."""
    read = runpy.run_path(str(ROOT / "fastrnn/kernels/isas.py"))
    assert {name: tuple(row) for name, row in read["ISAS"].items()} == {name: tuple(row) for name, row in isas.ISAS.items()}
    assert set(read["MACHINES"]) == {row.family for row in isas.ISAS.values()} - {"any"}


@pytest.mark.parametrize("folder", [NATIVE, TRAINING], ids=["kernels", "training"])
def test_each_has_its_modules(folder):
    found = {path.stem for path in folder.glob("_*.pyx")} - {"_cpu", "_invoke"}
    assert found == {f"_{name}" for name in isas.ISAS} and all((folder / f"{name}.pyi").exists() for name in found)


def test_each_has_its_vectors():
    """simd.h has a branch under each macro, with as many lanes."""
    text = (NATIVE / "vectors/simd.h").read_text()
    branches = re.findall(r"#(?:el)?if defined\((FR_\w+)\)\n.*?#define LANES (\d+)", text, re.DOTALL)
    assert {macro: int(lanes) for macro, lanes in branches} == {row.macro: row.lanes for row in isas.ISAS.values()}


@pytest.mark.parametrize("name", isa.supported())
def test_what_is_built_says_the_same(name):
    table = isa.load(name)
    assert table.LANES == isas.ISAS[name].lanes


def test_the_cpu_is_asked_for_what_the_compiler_may_use():
    """Every feature among an x86 set's flags is checked before it is chosen."""
    text = (NATIVE / "cpu.h").read_text()
    for name, row in isas.ISAS.items():
        if row.family == "x86":
            asked = text[text.index(f"fr_has_{name}(void) {{") :].split("}")[0]
            assert set(re.findall(r'supports\("(\w+)"\)', asked)) == {flag[2:] for flag in row.flags if flag.startswith("-m")}
    assert _cpu.supports("baseline") and not _cpu.supports("mmx")


def test_the_widest_comes_first_and_the_baseline_last():
    lanes = [row.lanes for row in isas.ISAS.values()]
    assert isa.ISAS == tuple(isas.ISAS) and lanes == sorted(lanes, reverse=True) and isa.ISAS[-1] == "baseline"
    assert set(compiler.ISAS) == set(isas.ISAS) - {"baseline"}


def test_the_cpu_is_asked_once(monkeypatch):
    """A virtual machine's answers come from its host."""
    isa.supported()
    monkeypatch.setattr(isa, "_cpu", None)
    assert isa.chosen() in isa.supported()
