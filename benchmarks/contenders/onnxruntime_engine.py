"""ONNX Runtime, called by `run` with arrays, as its users do; states are carried as arrays."""

from functools import partial

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
