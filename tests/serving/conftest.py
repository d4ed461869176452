"""Fixtures of the tests of serving."""

import pytest
from served import Gate, lstm

from fastrnn.serving import Batcher


@pytest.fixture(scope="module")
def session():
    """An LSTM of two layers, compiled."""
    return lstm()


@pytest.fixture
def held(session, monkeypatch):
    """A batcher whose engine is in a step, and its gate."""
    batcher = Batcher(session, 64)
    gate = Gate(batcher, monkeypatch)
    gate.hold(batcher)
    yield batcher, gate
    gate.open.set()
    batcher.close()
