"""A request and its answer, whichever protocol brought them."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from fastrnn.serving.server.refusals import Refused

INT64 = range(-(1 << 63), 1 << 63)
MOST_NAME = 256
FLAGS = ("sequence_start", "sequence_end")
KNOWN = ("sequence_id", *FLAGS, "step", "state_token")


class Caller(NamedTuple):
    """Whose stream it is: a token's own, or everybody's where there are none; kind: a sequence of requests, or a connection."""

    owner: str | None
    kind: str
    id: int | str

    def __repr__(self) -> str:
        return f"{self.kind} {self.id!r}"


@dataclass(slots=True)
class Sequence:
    """What Triton's parameters of sequences, and two of ours, ask for. state: that the stream goes on from; export: the answer brings what it is
    after."""

    id: int | str
    start: bool = False
    end: bool = False
    step: int | None = None
    state: bytes | None = None
    export: bool = False


@dataclass(slots=True)
class Asked:
    """A request to infer. outputs: names, None for all that are no states."""

    model: str
    version: str
    id: str
    parameters: dict
    inputs: dict[str, np.ndarray]
    outputs: list[str] | None = None

    def sequence(self) -> Sequence | None:
        """The sequence that the request belongs to; None without an id. Raises Refused for what makes no sense, and for parameters that are not
        known."""
        given = self.parameters
        if not given:
            return None
        if unknown := next((name for name in given if name not in KNOWN), None):
            raise Refused("invalid", f"parameter {unknown[:80]!r} is not known; those are {', '.join(KNOWN)}")
        flags = {name: given.get(name, False) for name in FLAGS}
        for name, value in flags.items():
            if type(value) is not bool:
                raise Refused("invalid", f"parameter {name!r} must be true or false, got {str(value)[:40]!r}")
        of, step, token = given.get("sequence_id", 0), given.get("step"), given.get("state_token")
        if type(of) not in (int, str) or type(of) is str and len(of) > MOST_NAME or type(of) is int and of not in range(-(1 << 63), 1 << 64):
            raise Refused("invalid", f"parameter 'sequence_id' must be an integer or a string of at most {MOST_NAME} characters")
        if step is not None and (type(step) is not int or step not in INT64):
            raise Refused("invalid", f"parameter 'step' must be an int64, got {str(step)[:40]!r}")
        if of in (0, ""):
            if any(flags.values()) or step is not None or token is not None:
                raise Refused("invalid", "sequence_start, sequence_end, step and state_token need a sequence_id, which is neither 0 nor empty")
            return None
        return Sequence(of, *flags.values(), step, state_of(token, flags["sequence_start"]), token is not None)  # type: ignore[call-arg]  # as many as it takes


def state_of(token, starts: bool) -> bytes | None:
    """The exported stream that a token stands for; None where it is empty. Raises Refused for what is no token, and for one in the middle of a
    sequence."""
    if token is None or token == "":
        return None
    if not starts:
        raise Refused("invalid", "a state_token to go on from comes with sequence_start; within a sequence it is empty, and asks for the next one")
    try:
        return base64.b64decode(token, validate=True)
    except (binascii.Error, ValueError, TypeError) as error:
        raise Refused("invalid", f"state_token is no base64: {error}") from error


def token_of(state: bytes) -> str:
    """An exported stream as text."""
    return base64.b64encode(state).decode()


@dataclass(slots=True)
class Answered:
    """An answer."""

    model: str
    version: str
    id: str
    outputs: dict[str, np.ndarray]
    parameters: dict = field(default_factory=dict)
