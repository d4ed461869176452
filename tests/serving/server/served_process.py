"""`fastrnn serve` as a process."""

import contextlib
import json
import subprocess
import sys

from running_server import Running


@contextlib.contextmanager
def command(*arguments, stderr=subprocess.PIPE, **options):
    """(process, what it said at its start)."""
    process = subprocess.Popen([sys.executable, "-m", "fastrnn", "serve", *map(str, arguments), "--port", "0", "--grpc-port", "0", "--max-lag-ms", "5000",
                                "--max-busy", "1e9", "--json"], cwd="/", text=True,
                               stdout=subprocess.PIPE, stderr=stderr, **options)  # fmt: skip
    try:
        line = process.stdout.readline()
        assert line, process.stderr.read()
        yield process, json.loads(line)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        if process.stderr is not None:
            process.stderr.close()


def at(said):
    """Requests to it."""
    server = object.__new__(Running)
    server.url = f"127.0.0.1:{said['port']}"
    return server


def memory_mib(process) -> float:
    """What it holds now."""
    with open(f"/proc/{process.pid}/status", encoding="ascii") as file:
        return int(next(line for line in file if line.startswith("VmRSS")).split()[1]) / 1024
