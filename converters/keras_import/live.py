"""A live Keras model, of Keras 3 or tf.keras: its config as JSON and its weights, by what every version's models have."""

from __future__ import annotations

import json
import sys

import numpy as np

from fastrnn.converters.keras_import.files import version_of
from fastrnn.errors import UnsupportedModelError


def describe(model) -> tuple[dict, tuple[int, ...], dict[str, list[tuple[str, np.ndarray]]]]:
    """config, version and lists of (name, array) by layer."""
    if not all(hasattr(model, name) for name in ("to_json", "layers")):
        raise UnsupportedModelError(f"from_keras takes a path or a Keras model, got {type(model).__name__}")
    package = sys.modules.get(type(model).__module__.partition(".")[0])
    try:
        config = json.loads(model.to_json())
    except (NotImplementedError, ValueError, TypeError) as error:
        raise UnsupportedModelError(f"from_keras: {type(model).__name__} has no config that describes it: {error}") from error
    lists = {}
    for layer in model.layers:
        ordered = [*layer.trainable_weights, *layer.non_trainable_weights]
        lists[layer.name] = [(str(getattr(w, "path", w.name)), _array(w)) for w in ordered]
    return config, version_of(getattr(package, "__version__", None) or config.get("keras_version") or "3"), lists


def _array(weight) -> np.ndarray:
    """A copy of a weight's content: torch's may be on another device or ask for gradients."""
    value = getattr(weight, "value", weight)
    value = value() if callable(value) else value
    for step in ("detach", "cpu", "numpy"):
        value = getattr(value, step)() if hasattr(value, step) else value
    return np.array(value)
