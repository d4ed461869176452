"""Resident memory that a layer adds, against the size of its weights, which the caller keeps; and what fastrnn packs."""

import subprocess
import sys
from pathlib import Path

import cases
import pytest
from contenders import NAMES, fastrnn_engine

import fastrnn as fr

PROBE = Path(__file__).parent / "memory_probe.py"


@pytest.mark.parametrize("case", cases.MEMORY, ids=lambda case: case.layer)
def test_memory(record, case):
    def measure():
        grown = {}
        for name in NAMES:
            command = [sys.executable, "-P", PROBE, name, case.kind, str(case.I), str(case.H)]
            grown[name] = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        packed = sum(p.weight_bytes for parts in fr.compile(fastrnn_engine.graph(case)).plan.packed.values() for p in parts)
        return {"resident_bytes": grown, "packed_bytes": packed, "weight_bytes": case.weight_bytes}

    record(measure, case.layer)
