"""Rows for ops that the onnx package's reference implementation runs: sizes that differ from one another, against ONNX Runtime."""

import numpy as np
from row import Row, ints, rand

LABELS = np.random.default_rng(0).integers(0, 5, (3, 2))
BOXES = np.float32([[0, 0, 5, 6], [1, 2, 7, 7]])


def resize(size, mode, opset=13, **more):
    return Row("Resize", [rand(2, 3, 5, 4), None, None, ints(2, 3, *size)], {"mode": mode, **more}, opset, constant=(3,))


FOREIGN_ROWS = [
    Row("Hardmax", [rand(2, 3, 4)], {"axis": 1}),
    Row("Shrink", [rand(2, 3)], {"lambd": 0.3, "bias": 0.1}),
    Row("EyeLike", [rand(3, 4)], {"k": 1, "dtype": 7}),
    Row("LpPool", [rand(2, 3, 7)], {"kernel_shape": [3], "p": 1, "strides": [2], "pads": [1, 0]}, 18),
    Row("LpPool", [rand(2, 3, 7, 5)], {"kernel_shape": [3, 2], "p": 2}, 18),
    *(
        Row("GridSample", [rand(2, 3, 4, 5), rand(2, 6, 7, 2) / 2], a, opset)
        for opset, a in (
            (16, {}),
            (16, {"padding_mode": "reflection", "align_corners": 1}),
            (16, {"mode": "nearest", "padding_mode": "border"}),
            (16, {"mode": "bicubic"}),
            (20, {"mode": "cubic"}),
        )
    ),
    Row("DFT", [rand(2, 7, 1)], {"axis": 1}, 17),
    Row("DFT", [rand(2, 8, 3, 2), None, np.array(1)], {"inverse": 1}, 20, constant=(2,)),
    Row("DFT", [rand(2, 8, 1), np.array(6), np.array(1)], {"onesided": 1}, 20, constant=(1, 2)),
    Row("STFT", [rand(2, 30, 1), np.array(5), rand(9)], {}, 17, constant=(1, 2)),
    Row("STFT", [rand(2, 30, 1), np.array(4), None, np.array(8)], {"onesided": 0}, 17, constant=(1, 3)),
    Row("Col2Im", [rand(1, 15, 20), ints(4, 7), ints(1, 5)], {"pads": [0, 1, 0, 1]}, 18, constant=(1, 2)),
    Row("CenterCropPad", [rand(5, 4, 3), ints(3, 6)], {"axes": [0, 1]}, 18, constant=(1,)),
    *(Row(op, [np.array(7)], {"periodic": p}, 17, constant=(0,)) for op in ("HannWindow", "HammingWindow", "BlackmanWindow") for p in (0, 1)),
    Row("MelWeightMatrix", [np.array(8), np.array(32), np.array(16000), np.float32(100), np.float32(7000)], {}, 17, constant=(0, 1, 2, 3, 4)),
    Row("MeanVarianceNormalization", [rand(2, 3, 4, 5)], {}, 13),
    *(
        Row("RoiAlign", [rand(2, 3, 8, 9), BOXES, ints(0, 1)], {"output_height": 3, "output_width": 2, "sampling_ratio": 2, **a}, 16)
        for a in ({}, {"mode": "max"})
    ),
    Row("Upsample", [rand(1, 2, 3, 4), np.float32([1, 1, 2, 3])], {}, 9, constant=(1,)),
    Row("MaxUnpool", [rand(1, 2, 2, 2), ints(0, 3, 9, 11, 0, 2, 8, 10).reshape(1, 2, 2, 2)], {"kernel_shape": [2, 2], "strides": [2, 2]}, 11),
    Row("NegativeLogLikelihoodLoss", [rand(3, 5, 2), LABELS, np.abs(rand(5))], {"reduction": "mean"}, 13),
    Row("SoftmaxCrossEntropyLoss", [rand(3, 5), LABELS[:, 0], np.abs(rand(5))], {"ignore_index": 2}, 13, 2),
    Row("RotaryEmbedding", [rand(2, 3, 4, 8), rand(2, 4, 4), rand(2, 4, 4)], {}, 23),
    Row("Attention", [rand(2, 3, 4, 8), rand(2, 3, 6, 8), rand(2, 3, 6, 5)], {}, 23),
    Row("Attention", [rand(2, 4, 24), rand(2, 6, 24), rand(2, 6, 24)], {"q_num_heads": 3, "kv_num_heads": 3, "is_causal": 1}, 23),
    Row("Attention", [rand(2, 4, 4, 8), rand(2, 2, 6, 8), rand(2, 2, 6, 8), rand(4, 6)], {"scale": 0.2}, 23),
    Row("TensorScatter", [rand(2, 3, 7, 4), rand(2, 3, 2, 4), ints(1, 4)], {}, 24),
    Row("AffineGrid", [rand(2, 2, 3), ints(2, 3, 4, 5)], {}, 20, constant=(1,)),
    Row("ScatterND", [rand(4, 3), ints(0, 0, 2).reshape(3, 1), rand(3, 3)], {"reduction": "max"}, 18),
    Row("Resize", [rand(2, 3, 5, 4), None, np.float32([1, 1, 1.5, 0.6])], {"mode": "cubic"}, 13, constant=(2,)),
    resize((7, 9), "linear", coordinate_transformation_mode="align_corners"),
    resize((3, 2), "linear", 18, antialias=1),
    resize((7, 9), "nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor"),
    Row("DeformConv", [rand(1, 2, 5, 6), rand(3, 2, 2, 2), rand(1, 8, 4, 5) / 4], {}, 19),
    Row("LayerNormalization", [rand(3, 4, 5), rand(5), rand(5)], {}, 17, 3),
]
