"""What the onnx package knows of ops that fastrnn lacks: their shapes, and their results by its reference implementation.

Given to fastrnn.model.ops.foreign on import; onnx itself is imported when the first such op is met.
"""

from __future__ import annotations

import functools
import json

import numpy as np

from fastrnn.errors import InvalidModelError, MissingDependencyError, UnsupportedModelError
from fastrnn.model.ops import ANY_DIM, DTYPES, UNKNOWN, Spec
from fastrnn.model.ops.foreign import PREFIX, provide
from fastrnn.model.ops.registry import count, where

# Ops whose shapes ONNX's inference tells wrongly or not at all, and which say the same of any numbers in arrays of one shape.
TRIED = ("STFT", "MeanVarianceNormalization")
MOST_TRIED = 1 << 24  # elements


def options_of(attributes: dict) -> str:
    """ONNX attributes as an op's `options`; raises TypeError for graphs and tensors."""
    return json.dumps(attributes, sort_keys=True)


def _model(node, inputs: tuple, constants: dict):
    """An ONNX model of the node alone. inputs: (dtype, shape) of each, None where omitted."""
    try:
        import onnx
        from onnx import helper, numpy_helper
    except ModuleNotFoundError as error:
        raise MissingDependencyError("onnx", "onnx", f"{where(node)}") from error
    try:
        options = json.loads(node.get("options"))
        names = ["" if spec is None else f"i{k}" for k, spec in enumerate(inputs)]
        outputs = [f"o{k}" if name else "" for k, name in enumerate(node.outputs)]
        inner = helper.make_node(node.op.removeprefix(PREFIX), names, outputs, **options)
        free = [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(spec[0])), [None if d == ANY_DIM else d for d in spec[1]])
            for name, spec in zip(names, inputs)
            if spec is not None and name not in constants
        ]
        stored = [numpy_helper.from_array(array, name) for name, array in constants.items()]
        ends = [onnx.ValueInfoProto(name=name) for name in outputs if name]
        return helper.make_model(
            helper.make_graph([inner], "node", free, ends, stored), opset_imports=[helper.make_opsetid("", node.get("opset") or 0)]
        )
    except (TypeError, ValueError, AttributeError) as error:
        raise InvalidModelError(f"{where(node)}: {error}") from error


def infer(node, inputs) -> list[Spec]:
    """Shapes by ONNX's inference; a dimension that it cannot tell is unknown."""
    if any(s is not None and s.shape is None for s in inputs):
        return [UNKNOWN] * len(node.outputs)
    if node.op.removeprefix(PREFIX) in TRIED:
        return _tried(node, inputs)
    constants = {f"i{k}": s.constant for k, s in enumerate(inputs) if s is not None and s.constant is not None}
    model = _model(node, tuple(None if s is None else s[:2] for s in inputs), constants)
    import onnx

    try:
        found = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    except (onnx.shape_inference.InferenceError, RuntimeError) as error:
        raise InvalidModelError(f"{where(node)}: {' '.join(str(error).split())}") from error
    symbols = {d for s in inputs if s is not None for d in s.shape if isinstance(d, str)}
    by_name, specs = {value.name: value.type.tensor_type for value in found.graph.output}, []
    for k in range(len(node.outputs)):
        tensor = by_name.get(f"o{k}")
        if tensor is None:
            specs.append(UNKNOWN)
            continue
        dtype = str(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)) if tensor.elem_type else ""
        if dtype and dtype not in DTYPES:
            raise UnsupportedModelError(f"{where(node)}: it gives {dtype}")
        dims = tuple(d.dim_value if d.HasField("dim_value") else d.dim_param if d.dim_param in symbols else ANY_DIM for d in tensor.shape.dim)
        specs.append(Spec(dtype, dims if tensor.HasField("shape") else None))
    return specs


def _tried(node, inputs) -> list[Spec]:
    """Shapes by doing it, once all sizes are there."""
    dtype = next((s.dtype for s in inputs if s is not None and s.dtype.startswith("float")), "float32")
    if any(
        s is not None and (count(s.shape) == ANY_DIM or count(s.shape) > MOST_TRIED or s.dtype.startswith("int") and s.constant is None)
        for s in inputs
    ):
        return [Spec(dtype, None)] * len(node.outputs)
    return [
        Spec(str(a.dtype), a.shape)
        for a in evaluate(node, [None if s is None else np.zeros(s.shape, s.dtype) if s.constant is None else s.constant for s in inputs])
    ]


@functools.lru_cache(maxsize=256)
def _evaluator(op: str, opset: int, options: str, outputs: tuple[bool, ...], inputs: tuple):
    """A reference evaluator for a node over inputs of these dtypes and ranks."""
    from fastrnn.model import Node

    node = Node(op, op, (), tuple("o" if wanted else "" for wanted in outputs), {"opset": opset, "options": options})
    model = _model(node, tuple(None if s is None else (s[0], (ANY_DIM,) * s[1]) for s in inputs), {})
    from onnx.reference import ReferenceEvaluator

    try:
        return ReferenceEvaluator(model)
    except RuntimeError as error:
        raise UnsupportedModelError(f"{where(node)}: the onnx package: {error}") from error


def evaluate(node, arrays) -> list[np.ndarray]:
    """Results by onnx.reference; unwanted outputs are None."""
    kinds = tuple(None if a is None else (str(a.dtype), a.ndim) for a in arrays)
    evaluator = _evaluator(node.op, node.get("opset"), node.get("options"), tuple(map(bool, node.outputs)), kinds)
    try:
        results = iter(evaluator.run(None, {f"i{k}": a for k, a in enumerate(arrays) if a is not None}))
    except (RuntimeError, AttributeError, LookupError, NameError, AssertionError, ArithmeticError) as error:
        raise InvalidModelError(f"{where(node)}: the onnx package: {error}") from error
    return [np.asarray(next(results)) if name else None for name in node.outputs]


provide(infer, evaluate)
