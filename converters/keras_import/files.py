"""Keras's files: .keras, a zip of config.json and model.weights.h5, and .h5, HDF5 with the config in an attribute. Nothing in them is run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fastrnn.converters.archive import entries_of, is_archive, read_entry
from fastrnn.converters.keras_import.hdf5 import SIGNATURE, Group, read_hdf5
from fastrnn.errors import InvalidModelError, UnsupportedModelError

MAX_CONFIG_BYTES = 4 << 20  # JSON takes some ten times as much once it is read
SPARE_BYTES = 16 << 20  # what a compressed entry may unpack to in any case; else twice the file


@dataclass(frozen=True)
class Saved:
    """A saved model. config: what Keras's to_json gives; version: Keras's, (2, 15) or so; weights: a tree of groups, laid out as `form` says:
    "paths" of attributes (.keras) or "lists" of each layer's weights (.h5)."""

    config: Mapping
    version: tuple[int, ...]
    weights: Group
    form: str


def read_file(path: Path) -> Saved:
    """A .keras or .h5 file, whichever its content says. Raises InvalidModelError where it is damaged, UnsupportedModelError for weights alone."""
    if is_archive(path):
        return _archive(path)
    with open(path, "rb") as file:
        start = file.read(len(SIGNATURE))
    if start != SIGNATURE:
        raise InvalidModelError(f"{path}: neither a zip archive (.keras) nor HDF5 (.h5)")
    root = read_hdf5(path.read_bytes(), str(path))
    text, weights = root.text("model_config"), root.group("model_weights")
    if text is None or weights is None:
        alone = "layer_names" in root.attributes or root.group("layers") or root.group("_layer_checkpoint_dependencies")
        what = (
            "it holds weights alone, not the network they belong to; load them into the model and save that, or give the live model to fastrnn.from_keras"
            if alone
            else "no Keras model is in it"
        )
        raise UnsupportedModelError(f"{path}: {what}")
    return Saved(
        _json(text, f"{path}: model_config"), version_of(root.text("keras_version") or weights.text("keras_version") or "2"), weights, "lists"
    )


def _archive(path: Path) -> Saved:
    entries = entries_of(path)
    for name in ("config.json", "model.weights.h5"):
        if name not in entries:
            raise UnsupportedModelError(f"{path}: there is no {name} in it; a .keras file of Keras 3, or of tf.keras 2.12 and later, has one")
    allowed = max(SPARE_BYTES, 2 * path.stat().st_size)
    for name, entry in entries.items():
        if entry.file_size > (allowed if name == "model.weights.h5" else MAX_CONFIG_BYTES) and name in (
            "config.json",
            "metadata.json",
            "model.weights.h5",
        ):
            raise UnsupportedModelError(f"{path}: entry {name!r} claims {entry.file_size} bytes, more than are unpacked")
    config = _json(read_entry(path, entries["config.json"]).decode(errors="replace"), f"{path}: config.json")
    metadata = (
        _json(read_entry(path, entries["metadata.json"]).decode(errors="replace"), f"{path}: metadata.json") if "metadata.json" in entries else {}
    )
    return Saved(
        config,
        version_of(metadata.get("keras_version", "3")),
        read_hdf5(read_entry(path, entries["model.weights.h5"]), f"{path}: model.weights.h5"),
        "paths",
    )


def _json(text: str, where: str) -> dict:
    if len(text) > MAX_CONFIG_BYTES:
        raise UnsupportedModelError(f"{where}: {len(text)} characters; at most {MAX_CONFIG_BYTES} are read")
    try:
        config = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidModelError(f"{where} is no JSON: {error}") from error
    if not isinstance(config, dict):
        raise InvalidModelError(f"{where} is no JSON object")
    return config


def version_of(text) -> tuple[int, ...]:
    """Numbers of a version such as "2.15.0" or "2.2.4-tf"."""
    parts = []
    for part in str(text).split("-")[0].split(".")[:3]:
        if not part.isdigit() or len(part) > 9:
            break
        parts.append(int(part))
    if not parts:
        raise InvalidModelError(f"Keras's version cannot be {str(text)[:100]!r}")
    return tuple(parts)
