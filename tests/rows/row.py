"""What tests of single ONNX ops share: a row for each op and form, and ONNX Runtime to compare with."""

from dataclasses import dataclass, field

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

import fastrnn as fr

# Of an output's largest entry: float32 sums of at most a few hundred terms, in two orders.
TOLERANCE = 3e-6
MICROSOFT = "com.microsoft."


def rand(*shape, seed=0):
    return np.random.default_rng(seed + sum(shape)).standard_normal(shape).astype(np.float32)


def ints(*values, dtype=np.int64):
    return np.array(values, dtype)


@dataclass
class Row:
    """op with inputs (None: omitted), of which `constant` are initializers; the opset that has this form. gives: the element type of
    its outputs where ONNX's inference does not know it."""

    op: str
    inputs: list
    attributes: dict = field(default_factory=dict)
    opset: int = 17
    outputs: int = 1
    constant: tuple = ()
    gives: int = 0

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
        domain, _, kind = self.op.rpartition(".")
        nodes.append(helper.make_node(kind, names, results, "node", domain=domain, **self.attributes))
        ends = [onnx.ValueInfoProto(name=name) for name in results]
        graph = helper.make_graph(nodes, "row", free, ends, stored)
        opsets = [helper.make_opsetid("", self.opset), *([helper.make_opsetid(domain, 1)] if domain else [])]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=8 if self.opset < 21 else 10)
        inferred = {v.name: v for v in onnx.shape_inference.infer_shapes(model).graph.output}
        for end in model.graph.output:
            end.type.tensor_type.elem_type = self.gives or inferred[end.name].type.tensor_type.elem_type or TensorProto.FLOAT
        return model

    def feed(self, turned: bool = False, weights: bool = True) -> dict:
        """The free inputs by name."""
        free = {f"i{k}": np.asarray(a) for k, a in enumerate(self.inputs) if a is not None and not (k in self.constant and weights)}
        return (
            {f"{n}.T": np.ascontiguousarray(a.T) for n, a in free.items() if a.ndim > 1} | {n: a for n, a in free.items() if a.ndim < 2}
            if turned
            else free
        )


def constant_of(value):
    return {"value": numpy_helper.from_array(value)}


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
        np.testing.assert_allclose(
            have.astype(np.float64), wanted.astype(np.float64), rtol=0, atol=tolerance * scale if wanted.dtype.kind == "f" else 0
        )


def outputs_of(model, feed, **options):
    return list(fr.compile(model, **options).run(feed).values())
