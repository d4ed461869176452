"""Logs as JSON lines while a server runs, and not after it."""

import json
import logging

import pytest

pytest.importorskip("uvicorn", reason="needs the `serve` extra")
from fastrnn.serving.server import logs

NAMES = ("fastrnn", "uvicorn", "grpc")


def as_they_are():
    return [(list(one.handlers), one.propagate, one.level) for one in map(logging.getLogger, NAMES)]


@pytest.mark.parametrize("fails", [False, True])
def test_loggers_are_afterwards_as_they_were(fails, capsys):
    before = as_they_are()
    try:
        with logs.written("info"):
            logging.getLogger("fastrnn").info("a model %s", "m")
            if fails:
                raise KeyError
    except KeyError:
        pass
    line = json.loads(capsys.readouterr().err)
    assert (line["logger"], line["level"], line["message"]) == ("fastrnn", "info", "a model m")
    assert as_they_are() == before
    logging.getLogger("fastrnn").info("more")
    assert not capsys.readouterr().err
