"""The layer as an ONNX file: what engines that read such files get."""

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from fastrnn.model.stack import stack_model


def graph(case, free_batch: bool = False, free_time: bool = False) -> bytes:
    """One recurrent node with its states as inputs and outputs. The node of a fastrnn model has ONNX's meaning, so its weights go over as they are."""
    weights = stack_model(case.options, case.parameters, case.kind).weights
    first, last = [f"{s}0" for s in case.states], [f"{s}_n" for s in case.states]
    lengths = [] if case.lengths is None else ["lengths"]
    attributes = {"linear_before_reset": 1} if case.kind == "gru" else {}
    node = helper.make_node(
        case.kind.upper(), ["x", *(f"{case.kind}.{n}" for n in "WRB"), *(lengths or [""]), *first], ["y", *last], hidden_size=case.H, **attributes
    )
    batch, time = "B" if free_batch else case.B, "T" if free_time else case.T
    state = (1, batch, case.H)

    def declared(name, shape, dtype=TensorProto.FLOAT):
        return helper.make_tensor_value_info(name, dtype, shape)

    inputs = [
        declared("x", (time, batch, case.I)),
        *(declared(name, (batch,), TensorProto.INT32) for name in lengths),
        *(declared(name, state) for name in first),
    ]
    outputs = [declared("y", (time, 1, batch, case.H)), *(declared(name, state) for name in last)]
    body = helper.make_graph([node], "g", inputs, outputs, [numpy_helper.from_array(a, n) for n, a in weights.items()])
    return helper.make_model(body, opset_imports=[helper.make_opsetid("", 14)], ir_version=8).SerializeToString()


def feeds(case) -> dict[str, np.ndarray]:
    """The inputs of a first call."""
    return feeds_of(case, case.x, case.lengths)


def feeds_of(case, x: np.ndarray, lengths: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """The inputs of a first call over x (T, B, I), whichever T and B."""
    zeros = {f"{s}0": np.zeros((1, x.shape[1], case.H), np.float32) for s in case.states}
    return {"x": x, **zeros} if lengths is None else {"x": x, "lengths": lengths.astype(np.int32), **zeros}
