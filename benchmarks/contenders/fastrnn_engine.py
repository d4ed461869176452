"""fastrnn: a stream with `out=` where states are carried, else a session."""

from functools import partial

import numpy as np

import fastrnn as fr
from fastrnn.model.stack import stack_model

NAME = "fastrnn"


def graph(case):
    """The layer as a model."""
    return stack_model(case.options, case.parameters, case.kind, with_lengths=case.ragged)


def prepare(case, threads: int = 1):
    """See contenders."""
    session = fr.compile(graph(case), threads=threads)
    if not case.carried:
        inputs = {"x": case.x} if case.lengths is None else {"x": case.x, "lengths": case.lengths}
        return partial(session.run, inputs), lambda: session.run(inputs)["y"]
    stream, out = session.stream(case.B), np.empty((case.T, case.B, case.H), np.float32)
    call, x, y = (stream.step, case.x[0], out[0]) if case.T == 1 else (stream.push, case.x, out)

    def run():
        call(x, out=y)  # as in a loop of its own: a partial would merge keywords at every call

    def first():
        stream.reset()
        run()
        return out.copy()

    return run, first


def pool(case, streams: int, threads: int = 1):
    """A pool with so many streams open, and their handles."""
    made = fr.compile(graph(case), threads=threads).pool(streams)
    return made, np.array([made.open() for _ in range(streams)])


def any_size(case):
    """See contenders: one session."""
    session = fr.compile(graph(case))
    return lambda x, lengths=None: session.run({"x": x} if lengths is None else {"x": x, "lengths": lengths})["y"]


def opener(case):
    """See contenders."""
    session = fr.compile(graph(case))
    return lambda: session.stream().step
