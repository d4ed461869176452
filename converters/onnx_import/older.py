"""Files of opsets 1 to 6, brought to 7 by onnx's own version converter."""

from __future__ import annotations

import onnx

from fastrnn.errors import InvalidModelError, UnsupportedModelError

LEAST_IR = 3  # of which the converter takes files


def upgraded(proto: onnx.ModelProto, opset: int, target: int) -> onnx.ModelProto:
    """The model in opset `target`; checked by onnx first, whose converter trusts what it is given. Raises UnsupportedModelError where it has no way to bring an op there."""
    given = onnx.ModelProto()
    given.CopyFrom(proto)
    given.ir_version = max(given.ir_version, LEAST_IR)
    declared = {value.name for value in given.graph.input}
    given.graph.input.extend(
        onnx.helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in given.graph.initializer if t.name not in declared
    )
    try:
        onnx.checker.check_model(given)
        return _with_wide_slopes(onnx.version_converter.convert_version(given, target), opset)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise InvalidModelError(
            f"the file is of opset {opset}, and not one that onnx's checker takes: {' '.join(str(error).split())[:300]}"
        ) from error
    except (RuntimeError, ValueError, IndexError) as error:  # the converter's ConvertError among them
        raise UnsupportedModelError(
            f"opset {opset}: onnx's version converter does not bring it to {target}: {' '.join(str(error).split())[:300]}"
        ) from error


def _with_wide_slopes(proto: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    """PRelu's slopes for each channel, (C,) up to opset 6, as 7 has them, (C, 1, ...): the converter leaves them as they are."""
    nodes = [node for node in proto.graph.node if node.op_type == "PRelu"]
    if not nodes:
        return proto
    shapes = onnx.shape_inference.infer_shapes(proto).graph
    ranks = {
        v.name: len(v.type.tensor_type.shape.dim) for v in (*shapes.value_info, *shapes.input, *shapes.output) if v.type.tensor_type.HasField("shape")
    }
    slopes = {t.name: t for t in proto.graph.initializer}
    for node in nodes:
        slope, rank = slopes.get(node.input[1]), ranks.get(node.input[0])
        if slope is not None and (len(slope.dims) != 1 or slope.dims[0] == 1):
            continue
        if slope is None or rank is None:
            raise UnsupportedModelError(
                f"node {node.name!r} (PRelu) of opset {opset}: its slope is no stored weight, or its input's rank is not known"
            )
        wide = onnx.TensorProto()
        wide.CopyFrom(slope)
        wide.name = f"{slope.name}.{node.output[0]}"
        wide.dims.extend([1] * (rank - 2))
        proto.graph.initializer.append(wide)
        node.input[1] = wide.name
    return proto
