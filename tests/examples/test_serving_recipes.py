"""The recipes of serving: what they run is what there is, and servers that fork have workers that answer."""

import configparser
import json
import os
import shlex
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest

import fastrnn as fr
from fastrnn.cli.main import parser

RECIPES = Path(__file__).parents[2] / "examples/serving"


def served(command):
    """The options of a `fastrnn serve`, as the command line reads them."""
    assert Path(command[0]).name == "fastrnn"
    return parser().parse_args(command[1:])


def test_the_systemd_unit():
    unit = configparser.RawConfigParser(strict=False)
    unit.optionxform = str
    unit.read(RECIPES / "fastrnn.service")
    options = served(shlex.split(unit["Service"]["ExecStart"]))
    assert options.host == "127.0.0.1" and options.tokens and options.drain_timeout < int(unit["Service"]["TimeoutStopSec"])
    assert unit["Service"]["KillSignal"] == "SIGTERM" and "-HUP" in unit["Service"]["ExecReload"]


def test_the_kubernetes_manifest():
    yaml = pytest.importorskip("yaml", reason="pyyaml is not installed")
    service, deployment = yaml.safe_load_all((RECIPES / "kubernetes.yaml").read_text(encoding="utf-8"))
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    options = served(container["command"])
    ports = {one["name"]: one["containerPort"] for one in container["ports"]}
    assert ports == {"http": options.port, "grpc": options.grpc_port} == {one["name"]: one["port"] for one in service["spec"]["ports"]}
    assert pod["terminationGracePeriodSeconds"] > options.drain_timeout and options.host == "0.0.0.0"
    assert {container[probe]["httpGet"]["path"] for probe in ("readinessProbe", "livenessProbe")} == {"/v2/health/ready", "/v2/health/live"}
    assert service["spec"]["selector"] == deployment["spec"]["template"]["metadata"]["labels"]


@pytest.fixture
def model(tmp_path):
    fr.GRU(3, 4, seed=1).to_model().save(tmp_path / "gru.safetensors")
    x = np.random.default_rng(0).standard_normal((6, 3)).astype(np.float32)
    stream = fr.compile(fr.GRU(3, 4, seed=1)).stream()
    return (
        {**os.environ, "MODEL": str(tmp_path / "gru.safetensors"), "PYTHONPATH": str(RECIPES)},
        x,
        np.stack([stream.step(row[None])[0] for row in x]),
    )


def test_gunicorn(model, tmp_path):
    pytest.importorskip("gunicorn", reason="gunicorn is not installed")
    environment, x, wanted = model
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with open(tmp_path / "log", "w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "gunicorn", "-c", "python:prefork", "-b", f"127.0.0.1:{port}", "prefork:application"],
            env=environment,
            cwd="/",
            stderr=log,
        )
    try:
        seen, until = set(), time.monotonic() + 30
        while len(seen) < 2 and time.monotonic() < until:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/", json.dumps(x.tolist()).encode(), timeout=10) as answer:
                    found = json.loads(answer.read())
            except OSError:
                time.sleep(0.1)
                continue
            assert np.array(found["y"], np.float32).tobytes() == wanted.tobytes()
            seen.add(found["pid"])
        assert len(seen) == 2, (tmp_path / "log").read_text()
    finally:
        process.terminate()
        assert process.wait(20) == 0


def test_celery(model, tmp_path):
    pytest.importorskip("celery", reason="celery is not installed")
    environment, x, wanted = model
    (tmp_path / "queue").mkdir()
    options = "{'data_folder_in': %r, 'data_folder_out': %r, 'control_folder': %r}" % ((str(tmp_path / "queue"),) * 3)
    (tmp_path / "here.py").write_text(f"from prefork import app, predict\napp.conf.broker_transport_options = {options}\n")
    environment |= {"BROKER": "filesystem://", "BACKEND": f"file://{tmp_path}/queue", "PYTHONPATH": f"{RECIPES}:{tmp_path}"}
    with open(tmp_path / "log", "w") as log:
        worker = subprocess.Popen(
            [sys.executable, "-m", "celery", "-A", "here", "worker", "--pool", "prefork", "-c", "2", "--without-gossip", "--without-mingle"],
            env=environment,
            cwd=tmp_path,
            stdout=log,
            stderr=log,
        )
    try:
        code = f"import json, here; print(json.dumps([r.get(timeout=30) for r in [here.predict.delay({x.tolist()}) for _ in range(4)]]))"
        done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True, env=environment, cwd=tmp_path)
        assert done.returncode == 0, done.stderr + (tmp_path / "log").read_text()
        for found in json.loads(done.stdout):
            assert np.array(found, np.float32).tobytes() == wanted.tobytes()
    finally:
        worker.terminate()
        worker.wait(20)
