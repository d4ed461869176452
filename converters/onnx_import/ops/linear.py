"""Matrix products and convolutions."""

from __future__ import annotations

from fastrnn.converters.onnx_import.registry import Given, imports

WINDOW = ("kernel_shape", "strides", "dilations", "pads", "group", "auto_pad")


@imports("MatMul")
def matmul(node: Given) -> None:
    """As it is."""
    node.emit()


@imports("Gemm")
def gemm(node: Given) -> None:
    """As it is."""
    node.emit(**node.given("alpha", "beta", "transA", "transB"))


@imports("Conv")
def conv(node: Given) -> None:
    """As it is."""
    node.emit(**node.given(*WINDOW))


@imports("ConvTranspose")
def conv_transpose(node: Given) -> None:
    """As it is."""
    node.emit(**node.given(*WINDOW, "output_padding", "output_shape"))
