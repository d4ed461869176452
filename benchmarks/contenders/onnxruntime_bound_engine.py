"""ONNX Runtime where states are carried, inputs and outputs bound beforehand: its least call from Python. Each call brings new input."""

import numpy as np

from contenders import Refused, onnx_layer
from contenders.onnxruntime_engine import session

NAME = "onnxruntime_bound"


def prepare(case):
    """See contenders. Two bindings take turns: what one writes as last states the other reads as first ones."""
    from onnxruntime import OrtValue

    if not case.carried:
        raise Refused("nothing is carried: a whole sequence is one run")
    layer, feeds = session(onnx_layer.graph(case)), onnx_layer.feeds(case)
    x, y = OrtValue.ortvalue_from_numpy(feeds["x"].copy()), OrtValue.ortvalue_from_numpy(np.zeros((case.T, 1, case.B, case.H), np.float32))
    states = [
        {s: OrtValue.ortvalue_from_numpy(feeds[f"{s}0"].copy()) for s in case.states} for _ in range(2)
    ]  # of their own: a value shares its array's memory
    bindings = [layer.io_binding() for _ in range(2)]
    for binding, first, last in zip(bindings, states, states[::-1]):
        binding.bind_ortvalue_input("x", x)
        binding.bind_ortvalue_output("y", y)
        for s in case.states:
            binding.bind_ortvalue_input(f"{s}0", first[s])
            binding.bind_ortvalue_output(f"{s}_n", last[s])
    run, bring, new, (ready, waiting) = layer.run_with_iobinding, x.update_inplace, feeds["x"], bindings

    def carry():
        nonlocal ready, waiting
        bring(new)
        run(ready)
        ready, waiting = waiting, ready

    def result():
        for s in case.states:
            (states[0] if ready is bindings[0] else states[1])[s].update_inplace(feeds[f"{s}0"])
        carry()
        return y.numpy()[:, 0].copy()

    return carry, result
