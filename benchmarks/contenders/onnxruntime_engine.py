"""ONNX Runtime, one thread: a graph of one recurrent node with its states as inputs."""

import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from fastrnn.model.stack import stack_model

NAME = "onnxruntime"


def graph(work) -> bytes:
    """The layer as an ONNX file. The recurrent node of a fastrnn model has ONNX's meaning, so its weights go over as they are."""
    weights = stack_model(work.layer.options, work.layer.state_dict(), work.kind).weights
    states, G = (["h0", "c0"] if work.kind == "lstm" else ["h0"]), {"lstm": 4, "gru": 3, "rnn": 1}[work.kind]
    assert weights[f"{work.kind}.W"].shape == (1, G * work.H, work.I)
    outputs = ["y", *(f"{s[0]}_n" for s in states)]
    attributes = {"linear_before_reset": 1} if work.kind == "gru" else {}
    node = helper.make_node(work.kind.upper(), ["x", *(f"{work.kind}.{n}" for n in "WRB"), "", *states], outputs, hidden_size=work.H, **attributes)
    state = (1, 1, work.H)

    def declared(name, shape):
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    body = helper.make_graph([node], "g", [declared("x", work.x.shape), *(declared(s, state) for s in states)],
                             [declared("y", (work.T, 1, 1, work.H)), *(declared(o, state) for o in outputs[1:])],
                             [numpy_helper.from_array(a, n) for n, a in weights.items()])
    return helper.make_model(body, opset_imports=[helper.make_opsetid("", 14)], ir_version=8).SerializeToString()


def prepare(work):
    """See contenders."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(graph(work), options, providers=["CPUExecutionProvider"])
    feeds = {"x": work.x, **{s: np.zeros((1, 1, work.H), np.float32) for s in (["h0", "c0"] if work.kind == "lstm" else ["h0"])}}
    return lambda: session.run(None, feeds), lambda: session.run(None, feeds)[0].reshape(work.T, work.H)
