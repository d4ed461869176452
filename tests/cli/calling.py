"""The command line called within the process, on the model of examples/characters."""

import json
from pathlib import Path

from fastrnn.cli import main

CHARACTERS = Path(__file__).parents[2] / "examples/characters"
ONNX = str(CHARACTERS / "char_gru.onnx")
STATE = ["--state", "h=h_n"]


def call(capsys, *arguments):
    """Exit code, output and error text."""
    code = main([str(a) for a in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def call_json(capsys, *arguments):
    """Exit code, and what --json prints."""
    code, out, _ = call(capsys, *arguments, "--json")
    return code, json.loads(out)
