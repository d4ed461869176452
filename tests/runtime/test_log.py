"""The logger: what is said, and what it costs where nobody listens."""

import logging
import subprocess
import sys

import numpy as np

import fastrnn as fr
import fastrnn.training as tr


def lines(caplog, level):
    return [record.getMessage() for record in caplog.records if record.name == "fastrnn" and record.levelno == level]


def test_slow_work_is_said(caplog):
    caplog.set_level(logging.DEBUG, "fastrnn")
    session = fr.compile(fr.GRU(3, 4, seed=0).to_model())
    (compiled,) = lines(caplog, logging.INFO)[-1:]
    assert compiled.startswith("model 'gru' compiled in ") and "backend native" in compiled and "float32" in compiled
    before = len(lines(caplog, logging.DEBUG))
    session(np.zeros((5, 2, 3), np.float32))
    made = lines(caplog, logging.DEBUG)[before:]  # for the call, and by the fixture that explains every program
    assert all(line.startswith("model 'gru': a program in ") and "'x': (5, 2, 3)" in line for line in made) and made
    session(np.zeros((5, 2, 3), np.float32))
    assert lines(caplog, logging.DEBUG)[before:] == made
    assert caplog.records[-1].module == "specialise"  # whoever said it, not the logger's own module


def test_epochs_are_said(caplog):
    caplog.set_level(logging.INFO, "fastrnn")
    net, x = tr.Sequential(tr.GRU(2, 3), tr.Linear(3, 2), seed=0), np.zeros((4, 5, 2), np.float32)
    tr.fit(net, tr.mean_squared_error, (x, x), (x, x), optimiser=tr.Adam(net), epochs=2)
    said = lines(caplog, logging.INFO)
    assert [line.split(":")[0] for line in said] == ["epoch 1 of 2", "epoch 2 of 2"] and "valid" in said[0]


def test_cells_are_said(caplog, cells_compile):
    caplog.set_level(logging.INFO, "fastrnn")

    @fr.cell(gates=("n",), name="said_by_the_log")
    def leaky(n, h):
        return 0.37 * h + fr.tanh(n)

    fr.Recurrent(leaky, 3, 4, seed=0)
    assert any(line.startswith("cell 'said_by_the_log' ready in ") for line in lines(caplog, logging.INFO))


def test_nobody_listening_costs_no_import():
    code = "import sys, fastrnn as fr; fr.compile(fr.GRU(2, 3)); print('logging' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd="/")
    assert done.stdout.strip() == "False"
