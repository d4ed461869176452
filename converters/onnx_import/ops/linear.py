"""Matrix products, convolutions and pooling."""

from __future__ import annotations

from fastrnn.converters.onnx_import.registry import Given, imports

WINDOW = ("kernel_shape", "strides", "dilations", "pads", "group", "auto_pad")


@imports("MatMul")
def matmul(node: Given) -> None:
    """As it is."""
    node.emit()


@imports("Det")
def det(node: Given) -> None:
    """As it is."""
    node.emit()


@imports("Einsum")
def einsum(node: Given) -> None:
    """As it is."""
    node.emit(**node.given("equation"))


@imports("Gemm")
def gemm(node: Given) -> None:
    """As it is."""
    node.emit(**node.given("alpha", "beta", "transA", "transB"))


@imports("Conv", "ConvInteger", "QLinearConv")
def conv(node: Given) -> None:
    """As it is."""
    node.emit(**node.given(*WINDOW))


@imports("ConvTranspose")
def conv_transpose(node: Given) -> None:
    """As it is."""
    node.emit(**node.given(*WINDOW, "output_padding", "output_shape"))


@imports("MaxPool", "AveragePool")
def pool(node: Given) -> None:
    """As it is."""
    node.emit(**node.given("kernel_shape", "strides", "dilations", "pads", "auto_pad", "ceil_mode", "count_include_pad", "storage_order"))


@imports("GlobalAveragePool", "GlobalMaxPool")
def global_pool(node: Given) -> None:
    """As it is."""
    node.emit()
