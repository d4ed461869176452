"""Every ONNX importer: a row for each op and form, against ONNX Runtime, against float64, over layouts, and bit for bit over instruction sets."""

from dataclasses import dataclass, field

import numpy as np
import onnx
import onnxruntime
import pytest
from fastrnn.converters.onnx_import.importer import IMPORTERS
from onnx import TensorProto, helper, numpy_helper

import fastrnn as fr
from fastrnn.kernels import isa
from fastrnn.kernels.reference import evaluate
from fastrnn.model.ops import OPS

# Of an output's largest entry: float32 sums of at most a few hundred terms, in two orders.
TOLERANCE = 3e-6
# Ops of the vocabulary that ONNX does not have by that name; tests/converters/test_pytorch.py runs them.
NOT_ONNX = {"Silu"}


def rand(*shape, seed=0):
    return np.random.default_rng(seed + sum(shape)).standard_normal(shape).astype(np.float32)


def ints(*values, dtype=np.int64):
    return np.array(values, dtype)


@dataclass
class Row:
    """op with inputs (None: omitted), of which `constant` are initializers; the opset that has this form."""

    op: str
    inputs: list
    attributes: dict = field(default_factory=dict)
    opset: int = 17
    outputs: int = 1
    constant: tuple = ()

    def __str__(self):
        shapes = "_".join("-" if a is None else "x".join(map(str, a.shape)) or "scalar" for a in self.inputs[:2])
        return f"{self.op}{self.opset}_{shapes}_{'_'.join(self.attributes)}"

    def model(self, turned: bool = False, weights: bool = True) -> onnx.ModelProto:
        """A model of one node. turned: each free input of rank > 1 comes with its axes reversed, and is turned back by a Transpose."""
        names, nodes, free, stored = [], [], [], []
        for k, array in enumerate(self.inputs):
            if array is None:
                names.append("")
                continue
            name = f"i{k}"
            names.append(name)
            if k in self.constant and weights:
                stored.append(numpy_helper.from_array(np.asarray(array), name))
                continue
            if turned and array.ndim > 1:
                nodes.append(helper.make_node("Transpose", [f"{name}.T"], [name], f"turn{k}"))
                name, array = f"{name}.T", array.T
            free.append(helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), [f"{name}_{d}" for d in range(array.ndim)]))
        results = [f"o{k}" for k in range(self.outputs)]
        nodes.append(helper.make_node(self.op, names, results, "node", **self.attributes))
        ends = [onnx.ValueInfoProto(name=name) for name in results]
        graph = helper.make_graph(nodes, "row", free, ends, stored)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=8 if self.opset < 21 else 10)
        inferred = {v.name: v for v in onnx.shape_inference.infer_shapes(model).graph.output}
        for end in model.graph.output:
            end.type.tensor_type.elem_type = inferred[end.name].type.tensor_type.elem_type or TensorProto.FLOAT
        return model

    def feed(self, turned: bool = False, weights: bool = True) -> dict:
        """The free inputs by name."""
        free = {f"i{k}": np.asarray(a) for k, a in enumerate(self.inputs) if a is not None and not (k in self.constant and weights)}
        return {f"{n}.T": np.ascontiguousarray(a.T) for n, a in free.items() if a.ndim > 1} | {n: a for n, a in free.items() if a.ndim < 2} if turned else free


def constant_of(value):
    return {"value": numpy_helper.from_array(value)}


X, POSITIVE = rand(3, 5, 7), np.abs(rand(3, 5, 7)) + np.float32(0.1)
MIXED = np.array([[True, False, True], [False, False, True]])
ROWS = [
    *(Row(op, [X]) for op in ("Relu", "Sigmoid", "Tanh", "Softsign", "Softplus", "Exp", "Erf", "Sin", "Cos", "Floor", "Ceil", "Round", "Neg", "Abs", "Sign", "Identity")),
    *(Row(op, [POSITIVE]) for op in ("Log", "Sqrt", "Reciprocal")),
    Row("Neg", [ints(1, -2, 3)]), Row("Abs", [ints(1, -2, 3, dtype=np.int32)]), Row("Not", [MIXED]), Row("HardSwish", [X]),
    Row("LeakyRelu", [X]), Row("LeakyRelu", [X], {"alpha": 0.3}), Row("Elu", [X], {"alpha": 0.7}), Row("ThresholdedRelu", [X], {"alpha": 0.5}),
    Row("HardSigmoid", [X]), Row("HardSigmoid", [X], {"alpha": 0.3, "beta": 0.4}), Row("Gelu", [X], opset=20),
    Row("Gelu", [X], {"approximate": "tanh"}, 20),
    *(Row(op, [X, rand(5, 1)]) for op in ("Add", "Sub", "Mul", "Div")), Row("Add", [rand(4, 1, 3), rand(2, 1)]), Row("Mul", [rand(1), X]),
    Row("Sub", [rand(), X]),
    *(Row(op, [ints(7, -7, 9), ints(2, 2, -4)]) for op in ("Add", "Sub", "Mul", "Div", "Mod")), Row("Mod", [X, POSITIVE], {"fmod": 1}),
    Row("Mod", [ints(7, -7, 9), ints(2, 2, -4)], {"fmod": 1}), Row("Div", [ints(7, -7), ints(2, 2)], opset=7),
    Row("Pow", [X, np.float32(2)], constant=(1,)), Row("Pow", [POSITIVE, np.float32(0.5)], constant=(1,)), Row("Pow", [POSITIVE, rand(7)]),
    Row("Pow", [np.float32([-np.inf, 4, -0.0]), np.float32(0.5)], constant=(1,)), Row("Pow", [X, ints(3)]),
    Row("PRelu", [X, rand(5, 1)]), Row("PRelu", [X, rand(1)]),
    *(Row(op, [X.round(), rand(7).round()]) for op in ("Equal", "Less", "Greater", "LessOrEqual", "GreaterOrEqual")),
    Row("Equal", [ints(1, 2), ints(1, 3)]), Row("Equal", [MIXED, MIXED[:1]]), Row("Sign", [ints(5, 0, -3)]),
    *(Row(op, [ints(7, -7, 9, dtype=np.int32).reshape(3, 1), ints(2, 2, -4, dtype=np.int32)])
      for op in ("Add", "Sub", "Mul", "Div", "Mod", "Less", "Greater", "LessOrEqual", "GreaterOrEqual", "Min", "Max")),
    Row("Max", [ints(1, 5), ints(3, 2), ints(2, 9)]), Row("Min", [ints(1, 5)]),
    *(Row(op, [ints(4, -7, 9, 2, 3, 5).reshape(2, 3)], {"axes": [1]}, 11) for op in ("ReduceSum", "ReduceMax", "ReduceMin", "ReduceProd")),
    *(Row(op, [MIXED, MIXED[:1]]) for op in ("And", "Or", "Xor")),
    *(Row(op, [X, rand(7), rand(5, 1)]) for op in ("Min", "Max", "Sum", "Mean")), Row("Min", [X]),
    Row("Where", [MIXED, rand(2, 3), rand(3)]), Row("Where", [MIXED, ints(1), ints(2)]),
    Row("Clip", [X, np.float32(-0.5), np.float32(0.5)]), Row("Clip", [X, np.float32(-0.5), np.float32(0.5)], constant=(1, 2)),
    Row("Clip", [X, None, np.float32(0.2)], constant=(2,)),
    Row("Clip", [X], {"min": -0.3, "max": 0.4}, 7), Row("Clip", [X], {"max": 0.4}, 10),
    Row("Clip", [ints(1, 5, 9), ints(3).reshape(()), None], opset=13),
    Row("Clip", [X, np.float32(0.5), np.float32(-0.5)], constant=(1, 2)), Row("Clip", [X, np.float32(np.nan), np.float32(0.5)], constant=(1, 2)),
    Row("Cast", [X * 10], {"to": TensorProto.INT64}), Row("Cast", [ints(0, 1, 2)], {"to": TensorProto.FLOAT}),
    Row("Cast", [ints(0, 1, 2)], {"to": TensorProto.BOOL}),
    *(Row("Cast", [np.array([0, 1, 7, 200]).astype(source)], {"to": helper.np_dtype_to_tensor_dtype(np.dtype(target))})
      for source in ("bool", "uint8", "int32", "int64", "float32", "float64") for target in ("bool", "int32", "int64", "float32", "float64") if source != target),
    Row("Cast", [np.float32([-1.9, 1.9, -0.0, 2.0**31 - 128])], {"to": TensorProto.INT32}),
    Row("Cast", [ints(0, 255, dtype=np.uint8)], {"to": TensorProto.INT64}), Row("Cast", [X], {"to": TensorProto.FLOAT}),
    Row("Cast", [X], {"to": TensorProto.DOUBLE}),
    Row("Dropout", [X], {"ratio": 0.5}, 10), Row("Dropout", [X, np.float32(0.5), np.array(False)], opset=13, constant=(1, 2)),
    Row("Shape", [X]), Row("Shape", [X], {"start": 1}), Row("Shape", [X], {"start": -2, "end": -1}), Row("Size", [X]),
    Row("Reshape", [X, ints(0, -1)], constant=(1,)), Row("Reshape", [X, ints(7, 5, 3)], constant=(1,)),
    Row("Reshape", [rand(0, 3), ints(3, 0)], {"allowzero": 1}, constant=(1,)),
    Row("Flatten", [X]), Row("Flatten", [X], {"axis": 2}), Row("Flatten", [X], {"axis": -1}), Row("Flatten", [X], {"axis": 0}),
    Row("Transpose", [X]), Row("Transpose", [X], {"perm": [1, 2, 0]}), Row("Transpose", [MIXED]),
    Row("Squeeze", [rand(1, 3, 1)], opset=11), Row("Squeeze", [rand(1, 3, 1)], {"axes": [0]}, 11),
    Row("Squeeze", [rand(1, 3, 1), ints(-1)], constant=(1,)), Row("Squeeze", [rand(1, 3, 1)]),
    Row("Unsqueeze", [X], {"axes": [0, 4]}, 11), Row("Unsqueeze", [X, ints(-1, 0)], constant=(1,)),
    Row("Slice", [X], {"starts": [1, 0], "ends": [3, -1], "axes": [1, 2]}, 9), Row("Slice", [X], {"starts": [1], "ends": [100]}, 7),
    Row("Slice", [X, ints(0, -1), ints(100, -100), ints(0, 2), ints(2, -2)], constant=(1, 2, 3, 4)),
    Row("Slice", [X, ints(-1), ints(-9), ints(1), ints(-1)], constant=(1, 2, 3, 4)),
    Row("Slice", [X, ints(0), ints(1), ints(0), ints(-2**63)], constant=(1, 2, 3, 4)),
    Row("Slice", [X, ints(0), ints(2**63 - 1), ints(-1), ints(2**63 - 1)], constant=(1, 2, 3, 4)),
    Row("Slice", [X, ints(2), ints(1)], constant=(1, 2)),
    Row("Slice", [X, ints(1, dtype=np.int32), ints(9, dtype=np.int32), ints(-1, dtype=np.int32)], constant=(1, 2, 3)),
    Row("Concat", [X, rand(3, 2, 7), rand(3, 1, 7)], {"axis": 1}), Row("Concat", [X, X], {"axis": -1}),
    Row("Concat", [ints(1), ints(2, 3)], {"axis": 0}),
    Row("Split", [X], {"axis": 1, "split": [2, 3]}, 11, 2), Row("Split", [rand(4, 6)], {"axis": -1}, 7, 3),
    Row("Split", [X, ints(1, 4)], {"axis": 1}, 17, 2, (1,)), Row("Split", [rand(7, 2)], {"num_outputs": 3}, 18, 3),
    Row("Expand", [rand(5, 1), ints(3, 1, 7)], constant=(1,)), Row("Expand", [X, ints(1)], constant=(1,)),
    Row("Tile", [rand(2, 3), ints(2, 1)], constant=(1,)), Row("Range", [np.array(1), np.array(9), np.array(3)], constant=(0, 1, 2)),
    Row("Range", [np.float32(5), np.float32(0), np.float32(-1.5)], constant=(0, 1, 2)),
    *(Row("Pad", [X, ints(0, 2, 1, 0, 1, 3)], {"mode": mode}, constant=(1,)) for mode in ("constant", "reflect", "edge")),
    Row("Pad", [X, ints(1, 0, 0, 0, 0, 2), np.float32(1.5)], constant=(1, 2)),
    Row("Pad", [X], {"pads": [0, 1, 0, 0, 0, 2], "value": 0.5}, 10), Row("Pad", [X], {"pads": [0, 0, 3, 0, 0, 2], "mode": "reflect"}, 10),
    Row("Pad", [X, ints(0, -1, 1, 0, -2, 0)], constant=(1,)), Row("Pad", [rand(2, 3), ints(0, 8, 0, 5)], {"mode": "edge"}, constant=(1,)),
    Row("Pad", [rand(2, 3), ints(0, 8, 0, 5)], {"mode": "wrap"}, 19, constant=(1,)),
    Row("Pad", [X, ints(1, 2), np.float32(3), ints(-1)], {}, 18, constant=(1, 2, 3)),
    Row("Pad", [X, ints(1, 2, 3, 4), None, ints(1, 2)], {"mode": "wrap"}, 19, constant=(1, 3)),
    Row("ConstantOfShape", [ints(2, 3)], constant=(0,)), Row("ConstantOfShape", [ints(2, 0)], constant_of(ints(7)), constant=(0,)),
    Row("ConstantOfShape", [ints(2)], constant_of(np.array([True])), constant=(0,)),
    Row("Gather", [X, ints(0, -1, 2)]), Row("Gather", [X, np.array([[1, 0], [-1, 3]])], {"axis": 1}, constant=(1,)),
    Row("Gather", [X, np.array(-2)], {"axis": 2}, constant=(1,)),
    Row("Gather", [rand(6, 4), ints(5, -6, 0)], constant=(0,)), Row("Gather", [rand(6, 4), ints(5, -6, dtype=np.int32)], constant=(0,)),
    Row("Gather", [ints(3, 4, 5), ints(0, 2)], constant=(0,)),
    Row("ScatterND", [X, ints(1, 2).reshape(2, 1), rand(2, 5, 7)], constant=(1,)),
    Row("ScatterND", [rand(4, 3), np.array([[0, 1], [3, -1]]), rand(2)]), Row("ScatterND", [rand(4), ints(1).reshape(1, 1), rand(1)], opset=11),
    Row("MatMul", [X, rand(7, 4)], constant=(1,)), Row("MatMul", [rand(2, 3, 4), rand(2, 4, 5)]),
    Row("MatMul", [rand(4), rand(4, 5)], constant=(1,)), Row("MatMul", [rand(3, 4), rand(4)]),
    *(Row("MatMul", [rand(*a), rand(*b)]) for a, b in (((2, 1, 3, 4), (5, 4, 6)), ((4,), (2, 4, 3)), ((2, 3, 4), (4,)), ((4,), (4,)), ((3, 2, 70), (3, 70, 33)), ((2, 0), (0, 3)))),
    Row("Gemm", [rand(3, 4), rand(4, 5), rand(5)], constant=(1, 2)),
    Row("Gemm", [rand(4, 3), rand(5, 4), rand(1)], {"transA": 1, "transB": 1, "alpha": 0.5, "beta": 2.0}, constant=(1, 2)),
    Row("Gemm", [rand(3, 4), rand(4, 5)], opset=11), Row("Gemm", [rand(3, 4), rand(4, 5), rand(3, 1)], constant=(1, 2)),
    Row("Gemm", [rand(3, 4), rand(4, 5), rand(3, 5)], constant=(1,)),
    *(Row("Gemm", [rand(*((4, 3) if a else (3, 4))), rand(*((5, 4) if b else (4, 5))), c], {"transA": a, "transB": b, "alpha": 0.5, "beta": beta})
      for a, b, c, beta in ((0, 0, rand(3, 5), 1.0), (1, 0, rand(3, 1), 2.0), (0, 1, rand(5), 2.0), (1, 1, rand(), 3.0))),
    Row("Conv", [rand(2, 6, 9), rand(6, 1, 4), rand(6)], {"group": 6, "strides": [2], "pads": [1, 2]}, constant=(1, 2)),
    Row("Conv", [rand(2, 3, 4, 6, 5), rand(3, 1, 2, 3, 2)], {"group": 3}, constant=(1,)),
    Row("Conv", [rand(1, 20, 11, 9), rand(20, 1, 3, 3), rand(20)], {"group": 20, "dilations": [5, 1], "pads": [0, 1, 0, 1]}, constant=(1, 2)),
    Row("ConvTranspose", [rand(1, 20, 13, 9), rand(20, 1, 3, 3), rand(20)], {"group": 20, "dilations": [5, 1], "pads": [11, 1, 11, 1]}, constant=(1, 2)),
    Row("Conv", [rand(2, 6, 9), rand(12, 1, 4)], {"group": 6}, constant=(1,)), Row("Conv", [rand(2, 8, 5, 6), rand(6, 4, 1, 1), rand(6)], {"group": 2}, constant=(1, 2)),
    Row("Conv", [rand(2, 3, 20), rand(6, 3, 5), rand(6)], {"pads": [2, 1], "strides": [2]}, constant=(1, 2)),
    Row("Conv", [rand(2, 4, 20), rand(6, 2, 3)], {"group": 2, "dilations": [2]}, constant=(1,)),
    Row("Conv", [rand(1, 4, 9, 8), rand(4, 1, 3, 3), rand(4)], {"group": 4, "pads": [1, 0, 1, 2], "dilations": [2, 1]}, constant=(1, 2)),
    Row("Conv", [rand(2, 3, 6, 5), rand(2, 3, 1, 1)], constant=(1,)),
    Row("Conv", [rand(1, 2, 11), rand(3, 2, 4)], {"auto_pad": "SAME_UPPER", "strides": [2]}, constant=(1,)),
    Row("Conv", [rand(1, 2, 11), rand(3, 2, 4)], {"auto_pad": "SAME_LOWER"}, constant=(1,)),
    Row("Conv", [rand(1, 2, 11), rand(3, 2, 4)], {"auto_pad": "VALID"}),
    Row("Conv", [rand(1, 1, 640), rand(20, 1, 256)], {"strides": [128]}, constant=(1,)),
    Row("ConvTranspose", [rand(2, 3, 7), rand(3, 4, 5), rand(4)], {"strides": [2], "pads": [1, 2], "output_padding": [1]}, constant=(1, 2)),
    Row("ConvTranspose", [rand(1, 4, 5, 6), rand(4, 2, 3, 3)], {"group": 2, "strides": [1, 2], "dilations": [2, 1], "pads": [0, 1, 2, 1]}, constant=(1,)),
    Row("ConvTranspose", [rand(1, 2, 5), rand(2, 3, 4)], {"auto_pad": "SAME_UPPER", "strides": [2]}, constant=(1,)),
    Row("ConvTranspose", [rand(1, 2, 5), rand(2, 3, 4)], {"pads": [3, 3]}, constant=(1,)),
    Row("ConvTranspose", [rand(1, 2, 5), rand(2, 3, 4)], {"output_shape": [13], "strides": [2]}, constant=(1,)),
    Row("ConvTranspose", [rand(1, 2, 5), rand(2, 3, 4)], {"output_shape": [11], "strides": [2]}),
    Row("ConvTranspose", [rand(1, 2, 5), rand(2, 3, 4)], {"auto_pad": "SAME_LOWER", "strides": [3]}, constant=(1,)),
    *(Row(op, [X], {"axes": [1], "keepdims": 0}, 11) for op in ("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL2", "ReduceSumSquare")),
    Row("ReduceMean", [X], {"keepdims": 0}), Row("ReduceMean", [X], {"axes": [-1, 0]}), Row("ReduceSum", [X, ints(0, 2)], constant=(1,)),
    Row("ReduceSum", [X], {"noop_with_empty_axes": 1}), Row("ReduceSum", [ints(1, 2, 3)]),
    Row("ReduceMax", [X, ints(-1)], {"keepdims": 0}, 18, constant=(1,)), Row("ReduceMean", [rand(2, 100), ints(1)], opset=18, constant=(1,)),
    *(Row(op, [rand(0, 3), ints(0)], {"keepdims": 0}, 18, constant=(1,)) for op in ("ReduceSum", "ReduceMax", "ReduceMin", "ReduceProd")),
    Row("ReduceSumSquare", [rand() * 3], opset=18),
    Row("ReduceL2", [rand(3)], {"noop_with_empty_axes": 1}, 18), Row("ReduceMean", [rand(4, 1)], {"axes": [1]}, 11),
    *(Row(op, [X], {"axis": axis}, opset) for op in ("Softmax", "LogSoftmax") for axis, opset in ((-1, 13), (1, 13), (1, 11), (2, 11), (-1, 11))),
    Row("Softmax", [rand(3, 4)], opset=11),
    Row("BatchNormalization", [X, rand(5), rand(5, seed=1), rand(5, seed=2), np.abs(rand(5))], {"epsilon": 1e-3}, constant=(1, 2, 3, 4)),
    Row("BatchNormalization", [rand(4, 5), rand(5), rand(5), rand(5), np.abs(rand(5))], {"momentum": 0.8}, 9, constant=(1, 2, 3, 4)),
    Row("BatchNormalization", [X, rand(5), rand(5), rand(5), np.abs(rand(5))], opset=15),
    Row("LayerNormalization", [X, rand(7), rand(7)], constant=(1, 2)),
    Row("LayerNormalization", [X, rand(5, 7)], {"axis": 1, "epsilon": 1e-2}, constant=(1,)),
    Row("Constant", [], constant_of(rand(2, 3))), Row("Constant", [], {"value_float": 1.5}, 13), Row("Constant", [], {"value_ints": [1, 2]}, 13),
    Row("Constant", [], {"value_int": 3}, 13), Row("Constant", [], {"value_floats": [1.0, 2.0]}, 13),
    *(Row(op, [rand(6, 3, 4), rand(D, G * 5, 4, seed=1) / 3, rand(D, G * 5, 5, seed=2) / 3, rand(D, 2 * G * 5, seed=3) / 3, ints(6, 0, 2, dtype=np.int32)],
          {"hidden_size": 5, "direction": direction, **more}, opset, 3 if op == "LSTM" else 2, (1, 2, 3))
      for op, G, more in (("RNN", 1, {}), ("GRU", 3, {}), ("GRU", 3, {"linear_before_reset": 1}), ("LSTM", 4, {}))
      for D, direction in ((1, "forward"), (1, "reverse"), (2, "bidirectional")) for opset in (7, 14)),
    Row("LSTM", [rand(6, 3, 4), rand(1, 20, 4) / 3, rand(1, 20, 5) / 3, None, None, rand(1, 3, 5), rand(1, 3, 5, seed=9), rand(1, 15)], {"hidden_size": 5}, 14, 3, (1, 2, 7)),
    Row("RNN", [rand(6, 3, 4), rand(1, 5, 4) / 3, rand(1, 5, 5) / 3], {"hidden_size": 5, "activations": ["HardSigmoid"], "activation_alpha": [0.3], "activation_beta": [0.4], "clip": 0.5}, 14, 2, (1, 2)),
    Row("LSTM", [rand(6, 3, 4), rand(1, 20, 4) / 3, rand(1, 20, 5) / 3], {"hidden_size": 5, "activation_alpha": [0.3]}, 14, 3, (1, 2)),
    Row("GRU", [rand(6, 3, 4), rand(1, 15, 4) / 3, rand(1, 15, 5) / 3], {"hidden_size": 5, "activations": ["HardSigmoid", "Tanh"], "activation_alpha": [0.2], "activation_beta": [0.5]}, 14, 2, (1, 2)),
]


def ort(model, feed):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"]).run(None, feed)


def agree(got, want, tolerance=TOLERANCE):
    for have, wanted in zip(got, want, strict=True):
        have, wanted = np.asarray(have), np.asarray(wanted)
        assert have.shape == wanted.shape and have.dtype.kind == wanted.dtype.kind
        finite = wanted[np.isfinite(wanted)] if wanted.dtype.kind == "f" else wanted
        scale = max(1e-30, float(np.abs(finite).max(initial=0)))
        np.testing.assert_allclose(have.astype(np.float64), wanted.astype(np.float64), rtol=0, atol=tolerance * scale if wanted.dtype.kind == "f" else 0)


def outputs_of(model, feed, **options):
    return list(fr.compile(model, **options).run(feed).values())


def test_every_importer_has_a_row_and_every_op_an_importer():
    assert {row.op for row in ROWS} | {"If"} == set(IMPORTERS)  # If: tests/plan/test_fold.py
    made = {node.op for row in ROWS for node in fr.from_onnx(row.model()).nodes}
    assert set(OPS) - made - {"If"} == NOT_ONNX


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_against_onnxruntime_and_float64(row):
    """As it is, with every input free, and with inputs whose axes lie the other way round; kernels and NumPy alike."""
    wanted = ort(row.model(), row.feed())
    for turned, weights in ((False, True), (True, True), (False, False)):
        if not weights and (row.op in ("RNN", "GRU", "LSTM") or any(a is not None and a.dtype.kind == "i" and k for k, a in enumerate(row.inputs))):
            continue  # weights must be constants; sizes that only data says are refused, see test_sizes_from_data
        if not weights and row.op in ("ConstantOfShape", "Range", "Dropout"):
            continue
        model, feed = fr.from_onnx(row.model(turned, weights)), row.feed(turned, weights)
        agree(outputs_of(model, feed), wanted)
        agree(outputs_of(model, feed, backend="reference"), wanted)
        widened = {n: a.astype(np.float64) if a.dtype == np.float32 else a for n, a in feed.items()}
        agree(outputs_of(model, feed), evaluate(model, widened).values())


def test_the_same_bits_on_every_instruction_set(monkeypatch):
    """Whatever runs compiled; NumPy's own steps are the same code."""
    for row in ROWS:
        results = []
        for name in isa.supported():
            monkeypatch.setenv("FASTRNN_ISA", name)
            results.append([np.asarray(a).tobytes() for turned in (False, True) for a in outputs_of(fr.from_onnx(row.model(turned)), row.feed(turned))])
        assert all(r == results[0] for r in results), row


def test_what_runs_through_numpy():
    """Nothing with constant weights but powers by computed integers, wraps around more than once, and batch statistics that are computed."""
    left = set()
    for row in ROWS:
        if row.constant or len(row.inputs) == 1 or row.op not in ("RNN", "GRU", "LSTM", "Conv", "ConvTranspose", "Reshape", "Slice"):
            session = fr.compile(fr.from_onnx(row.model()))
            left |= {row.op for line in session.explain({n: a.shape for n, a in row.feed().items()}).splitlines() if "NumPy" in line and "float64" not in line}
    assert left == {"Pow", "Pad", "BatchNormalization"}


def keeps_rows_apart(row):
    """Whether axis 0 is a batch, and the row runs compiled: a C of a Gemm with rows of its own does not."""
    batched = row.op in ("Conv", "ConvTranspose", "ReduceMean", "LayerNormalization", "MatMul", "Gemm", "Add", "Sigmoid", "Softmax", "Relu")
    over_rows = row.attributes.get("transA") or row.op == "ReduceMean" and (0 in row.attributes.get("axes", ()) or row.opset == 18 and 0 in row.inputs[1] or "axes" not in row.attributes)
    own_rows = row.op == "Gemm" and len(row.inputs) > 2 and row.inputs[2].ndim > 1
    constant = len(row.constant) == len(row.inputs) - 1
    return batched and constant and not over_rows and not own_rows and row.inputs[0].ndim > 1 and row.inputs[0].shape[0] > 1 and row.attributes.get("axis") != 0


BATCHED = [row for row in ROWS if keeps_rows_apart(row)]


@pytest.mark.parametrize("row", BATCHED, ids=str)
def test_a_row_has_the_same_bits_alone(row):
    session = fr.compile(fr.from_onnx(row.model()))
    assert "NumPy" not in session.explain()
    whole, alone = session(row.inputs[0]), session(row.inputs[0][1:2])
    assert whole.shape[0] == row.inputs[0].shape[0] and np.array_equal(whole[1:2], alone)


def test_sizes_from_data_are_refused_by_name():
    row = Row("Reshape", [X, ints(7, 15)])
    with pytest.raises(fr.UnsupportedModelError, match="'o0'.*depends on data"):
        fr.compile(fr.from_onnx(row.model())).run(row.feed())
    assert fr.compile(fr.from_onnx(row.model()), constants={"i1": ints(7, 15)}).run({"i0": X})["o0"].shape == (7, 15)


@pytest.mark.parametrize("row,message", [
    (Row("Frobnicate", [X]), "'node'.*Frobnicate.*not supported"),
    (Row("Relu", [X], {"extra": 1}), "'node'.*'extra'"),
    (Row("BatchNormalization", [X, rand(5), rand(5), rand(5), rand(5)], {"training_mode": 1}), "training_mode"),
    (Row("ScatterND", [X, ints(1).reshape(1, 1), rand(1, 5, 7)], {"reduction": "add"}, 16), "reduction 'add'"),
    (Row("Cast", [X], {"to": TensorProto.STRING}), "STRING"),
    (Row("RNN", [X, rand(1, 5, 7), rand(1, 5, 5)], {"hidden_size": 5, "activations": ["Swish"]}, outputs=2, constant=(1, 2)), "'node'.*Swish"),
    (Row("Constant", [], {"value_string": "a"}, 13), "value_string"),
    (Row("Dropout", [X], outputs=2), "mask"),
    (Row("LayerNormalization", [X, rand(7)], outputs=2, constant=(1,)), "mean"),
])
def test_refused_by_name(row, message):
    with pytest.raises(fr.UnsupportedModelError, match=message):
        fr.from_onnx(row.model())


def test_what_onnx_says_where_onnxruntime_does_otherwise():
    """SAME_UPPER past the reach of the kernels; a mean over nothing; an axis of zero kept while another is worked out."""
    row = Row("ConvTranspose", [rand(1, 2, 3), rand(2, 3, 1)], {"auto_pad": "SAME_UPPER", "strides": [3]}, constant=(1,))
    for backend in ("native", "reference"):
        assert outputs_of(fr.from_onnx(row.model()), row.feed(), backend=backend)[0].shape == (1, 3, 9)
        mean = Row("ReduceMean", [rand(0, 3), ints(0)], {"keepdims": 0}, 18, constant=(1,))
        assert np.isnan(outputs_of(fr.from_onnx(mean.model()), mean.feed(), backend=backend)[0]).all()
        kept = Row("Reshape", [rand(4, 0, 2, 3), ints(0, 0, -1)], constant=(1,))
        assert outputs_of(fr.from_onnx(kept.model()), kept.feed(), backend=backend)[0].shape == (4, 0, 6)


@pytest.mark.parametrize("row", [
    Row("Relu", [ints(1, 2)], opset=14), Row("ReduceMean", [ints(1, 2)]), Row("MatMul", [ints(1, 2), ints(1, 2)])], ids=str)
def test_dtypes_that_onnx_allows_and_fastrnn_lacks(row):
    with pytest.raises(fr.UnsupportedModelError, match="'node'.*int64"):
        fr.from_onnx(row.model())


@pytest.mark.parametrize("row", [
    Row("Reshape", [X, ints(4, -1)], constant=(1,)), Row("Reshape", [X, ints(-1, -1)], constant=(1,)), Row("Transpose", [X], {"perm": [0, 0, 1]}),
    Row("Concat", [X, rand(3, 5)], {"axis": 0}),
    Row("Unsqueeze", [X, ints(0, 0)], constant=(1,)), Row("Squeeze", [rand(2, 3), ints(0)], constant=(1,)),
    Row("Slice", [X, ints(0), ints(1), ints(0), ints(0)], constant=(1, 2, 3, 4)),
    Row("Split", [X, ints(1, 1)], {"axis": 1}, 17, 2, (1,)), Row("Expand", [X, ints(2)], constant=(1,)),
    Row("Gather", [X, ints(9)], constant=(1,)), Row("Conv", [X, rand(2, 4, 3)], constant=(1,)),
    Row("Conv", [X, rand(2, 5, 30)], constant=(1,)), Row("Gemm", [rand(3, 4), rand(5, 4)], constant=(1,)),
    Row("MatMul", [X, rand(6, 2)], constant=(1,)), Row("Pad", [X, ints(1, 2)], constant=(1,)),
    Row("Pad", [X, ints(0, 5, 0, 0, 0, 0)], {"mode": "reflect"}, constant=(1,)), Row("Softmax", [X], {"axis": 3}),
    Row("ScatterND", [X, ints(1).reshape(1, 1), rand(2, 2)], constant=(1,)),
    Row("Split", [rand(7)], {}, 13, 2), Row("Mod", [X, X]), Row("Squeeze", [rand(1, 3)], {"axes": [0.9]}, 11),
    Row("Reshape", [rand(0, 3), ints(0, 0, -1)], {"allowzero": 1}, constant=(1,)),
    Row("Pad", [rand(0, 3), ints(1, 0, 0, 0)], {"mode": "edge"}, constant=(1,)),
    Row("LSTM", [rand(6, 3, 4), rand(1, 20, 3), rand(1, 20, 5)], {"hidden_size": 5}, 14, 3, (1, 2)),
    Row("Clip", [X, rand(2), None], constant=(1,)), Row("Add", [X, ints(1)], constant=(1,)),
], ids=str)
def test_wrong_shapes_and_dtypes_are_refused_by_name(row):
    with pytest.raises((fr.ShapeError, fr.InvalidModelError), match="'node'"):
        fr.compile(fr.from_onnx(row.model())).run(row.feed())
