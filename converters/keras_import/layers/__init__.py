"""One module for each kind of layers; importing them fills the registry."""

from fastrnn.converters.keras_import.layers import activations, attention, convolution, core, functions, merging, normal, pooling, recurrent, reshaping  # noqa: F401
