"""ONNX Runtime. Where states are carried, inputs and outputs are bound beforehand, which halves what a call from Python costs a small layer; a whole
sequence is one plain run."""

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
    layer, feeds = session(onnx_layer.graph(case)), onnx_layer.feeds(case)
    if case.carried:
        return carried(case, layer, feeds)
    return partial(layer.run, None, feeds), lambda: layer.run(None, feeds)[0][:, 0]


def carried(case, layer, feeds):
    """Two bindings that take turns: what one writes as last states the other reads as first ones."""
    import numpy as np
    from onnxruntime import OrtValue

    x, y = OrtValue.ortvalue_from_numpy(feeds["x"]), OrtValue.ortvalue_from_numpy(np.zeros((case.T, 1, case.B, case.H), np.float32))
    states = [{s: OrtValue.ortvalue_from_numpy(feeds[f"{s}0"].copy()) for s in case.states} for _ in range(2)]  # of their own: a value shares its array's memory
    bindings = [layer.io_binding() for _ in range(2)]
    for binding, first, last in zip(bindings, states, states[::-1]):
        binding.bind_ortvalue_input("x", x)
        binding.bind_ortvalue_output("y", y)
        for s in case.states:
            binding.bind_ortvalue_input(f"{s}0", first[s])
            binding.bind_ortvalue_output(f"{s}_n", last[s])
    run, (ready, waiting) = layer.run_with_iobinding, bindings

    def carry():
        nonlocal ready, waiting
        run(ready)
        ready, waiting = waiting, ready

    def result():
        for s in case.states:
            (states[0] if ready is bindings[0] else states[1])[s].update_inplace(feeds[f"{s}0"])
        carry()
        return y.numpy()[:, 0].copy()

    return carry, result
