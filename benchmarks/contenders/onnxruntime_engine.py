"""ONNX Runtime, called by `run` with arrays, as its users do; states are carried as arrays."""

from functools import partial

import numpy as np

from contenders import onnx_layer

NAME = "onnxruntime"


def session(graph: bytes):
    """On one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def prepare(case):
    """See contenders."""
    run, feeds = session(onnx_layer.graph(case)).run, onnx_layer.feeds(case)

    def carry():
        _, *states = run(None, feeds)
        feeds.update(zip(first, states))

    first = [f"{s}0" for s in case.states]
    return carry if case.carried else partial(run, None, feeds), lambda: run(None, onnx_layer.feeds(case))[0][:, 0]


def any_size(case):
    """See contenders: one session whose graph leaves batch and time open."""
    run = session(onnx_layer.graph(case, free_batch=True, free_time=True)).run
    return lambda x, lengths=None: run(["y"], onnx_layer.feeds_of(case, x, lengths))[0][:, 0]


def opener(case):
    """See contenders: states go from outputs to inputs as arrays."""
    run, names = session(onnx_layer.graph(case)).run, [f"{s}0" for s in case.states]

    def start():
        states = {name: np.zeros((1, 1, case.H), np.float32) for name in names}

        def step(x):
            y, *last = run(None, {"x": x[None], **states})
            states.update(zip(names, last))
            return y[0, 0]

        return step

    return start
