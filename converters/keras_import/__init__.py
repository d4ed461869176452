"""Keras files and live models -> Model. Neither Keras nor TensorFlow is needed for files, and nothing in them is run.

    files.py    .keras and .h5 -> config and a tree of arrays; hdf5.py reads HDF5, checked
    live.py     a model in memory -> the same
    tree.py     config -> layers nested in layers, their weights found
    network.py  Sequential and functional networks: what is called on what
    site.py     the graph that grows; registry.py and layers/: each layer's nodes

To add a layer, see registry.py.
"""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Any

from fastrnn.converters.keras_import import layers  # noqa: F401  (fills the registry)
from fastrnn.converters.keras_import.files import read_file
from fastrnn.converters.keras_import.live import describe
from fastrnn.converters.keras_import.network import build_model
from fastrnn.converters.keras_import.tree import NETWORKS, Layer, fill, layer_of, weights_from_lists, weights_from_paths
from fastrnn.errors import UnsupportedModelError
from fastrnn.model import Model


def from_keras(source: str | PathLike[str] | object) -> Model:
    """A Model from a .keras or .h5 file (a path), or from a live Keras model, Sequential or functional; for inference, so dropout and noise are off.

    Inputs have the names of the model's inputs, outputs those of the layers that make them. Axes are Keras's, the batch first: B, T for open steps. Tokens of an Embedding are
    int32. A fixed batch or length in the model stays fixed. Layers with stateful=True have inputs NAME.h0 (and c0), (1, B, units), and outputs NAME.h_n, tied as states: calls start
    from zeros where they are left out, streams carry them. Masks are honoured as Keras does.

    Nothing in a file is run: no pickles, no Lambda. Raises UnsupportedModelError naming the layer and option that stand in the way, InvalidModelError for a damaged file, DTypeError
    where weights are not float32.
    """
    if isinstance(source, (str, PathLike)):
        saved = read_file(Path(source))
        root = _root(saved.config)
        (weights_from_paths if saved.form == "paths" else weights_from_lists)(root, saved.weights)
        return build_model(root, saved.version)
    config, version, lists = describe(source)
    root = _root(config)
    fill(root, lists)
    return build_model(root, version)


def _root(config: Any) -> Layer:
    root = layer_of(config)
    if root.kind not in NETWORKS:
        raise UnsupportedModelError(f"the model is a {root.kind}; Sequential and functional models are read, a class of one's own is code")
    return root
