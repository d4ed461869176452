"""Recurrent layers out of a state dict, recognised by torch's key names and by shapes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from os import PathLike
from pathlib import Path

import numpy as np
from fastrnn.converters.checkpoint import read_checkpoint

from fastrnn.errors import DTypeError, InvalidModelError, ShapeError, UnsupportedModelError
from fastrnn.model.file import check_header
from fastrnn.model.stack import StackOptions
from fastrnn.runtime.checks import as_array
from fastrnn.runtime.layers import GRU, LSTM, RNN, RecurrentLayer

_KEY = re.compile(r"(?:(?P<module>.*)\.)?(?P<parameter>(?:weight_(?:ih|hh|hr|p[ifo])|bias_(?:ih|hh))_l(?P<layer>\d+)(?P<reverse>_reverse)?)")
_CLASS = {1: RNN, 3: GRU, 4: LSTM}


MAX_DEPTH = 16


def _flat(nested: Mapping, above: str = "", depth: int = 0) -> Iterator[tuple[str, object]]:
    if depth > MAX_DEPTH:
        raise InvalidModelError(f"the state dict is nested more than {MAX_DEPTH} deep at {above!r}")
    for key, value in nested.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{above}{key}.", depth + 1)
        else:
            yield f"{above}{key}", value


def _read(source) -> Mapping:
    if isinstance(source, Mapping):
        return source
    if not isinstance(source, (str, PathLike)):
        raise InvalidModelError(f"from_state_dict takes a dict or a path, got {type(source).__name__}")
    path = Path(source)
    if path.suffix.lower() != ".safetensors":
        return read_checkpoint(path)
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    check_header(path)
    try:
        return load_file(path)
    except (SafetensorError, KeyError, TypeError) as error:
        raise InvalidModelError(f"{path}: {error}") from error


def _numpy(value, name: str) -> np.ndarray:
    if hasattr(value, "detach"):
        if str(value.dtype) != "torch.float32":
            raise DTypeError(f"{name} must be float32, got {value.dtype}")
        value = value.detach().cpu()
    return as_array(value, name)


def from_state_dict(source, prefix: str = "", **options) -> dict[str, RecurrentLayer]:
    """The recurrent layers of a state dict: {module name: fr.LSTM | fr.GRU | fr.RNN}; "" names a layer saved by itself.

    source : a dict of arrays or tensors under torch's key names, nested dicts included; a torch checkpoint (.pt, .pth; read
             through weights_only and nothing else); a .safetensors file
    prefix : only modules under this name, which is taken off
    options: passed to every layer, e.g. batch_first=True, backend=...; nonlinearity="relu" reaches the RNNs, reset_after=
             the GRUs: a state dict does not tell these

    Kind, sizes, layers, directions, bias, projection and peepholes are read off the keys and shapes. Other keys are left alone.
    Raises UnsupportedModelError for files that would run code, ShapeError naming a parameter, InvalidModelError where no
    recurrent layer is found. Unpickles nothing outside weights_only.
    """
    modules: dict[str, dict[str, object]] = {}
    head = f"{prefix.rstrip('.')}." if prefix else ""
    for key, value in _flat(_read(source)):
        if key.startswith(head) and (match := _KEY.fullmatch(key[len(head):])):
            modules.setdefault(match["module"] or "", {})[match["parameter"]] = _numpy(value, key)
    if not modules:
        raise InvalidModelError(f"no recurrent layer {'under ' + repr(prefix) + ' ' if prefix else ''}in the state dict: no key like 'weight_ih_l0'")
    return {name: _layer(name or "layer", parameters, options) for name, parameters in modules.items()}


def _layer(name: str, p: Mapping[str, np.ndarray], options: Mapping) -> RecurrentLayer:
    for key in ("weight_ih_l0", "weight_hh_l0"):
        if key not in p:
            raise ShapeError(f"layer {name!r}: missing {key}")
        if p[key].ndim != 2:
            raise ShapeError(f"layer {name!r}: {key} must have 2 dimensions, got shape {p[key].shape}")
    rows, P = p["weight_hh_l0"].shape
    projection = p.get("weight_hr_l0")
    H = P if projection is None else projection.shape[-1] if projection.ndim == 2 else 0
    gates = rows // H if H and rows % H == 0 else 0
    if gates not in _CLASS:
        raise ShapeError(f"layer {name!r}: weight_hh_l0 of shape {(rows, P)} is no RNN (H, H), GRU (3*H, H) or LSTM (4*H, H); is it transposed?")
    kind = _CLASS[gates]
    arguments = dict(options)
    if kind is not RNN:
        arguments.pop("nonlinearity", None)
    if kind is not GRU:
        arguments.pop("reset_after", None)
    read_off = {"num_layers": len({_KEY.fullmatch(key)["layer"] for key in p}), "bias": "bias_ih_l0" in p, "bidirectional": any(key.endswith("_reverse") for key in p)}
    if kind is LSTM:
        read_off |= {"proj_size": P if projection is not None else 0, "peepholes": any(key.startswith("weight_p") for key in p)}
    if taken := sorted({*read_off, "input_size", "hidden_size", "proj_size", "peepholes"} & set(options)):
        raise UnsupportedModelError(f"layer {name!r}: {', '.join(taken)} are read off the state dict and cannot be given")
    I = p["weight_ih_l0"].shape[1]
    try:
        # before a layer of that size is made
        StackOptions(kind.__name__.lower(), I, H, **read_off).check(p, f"layer {name!r}")
    except UnsupportedModelError as error:
        raise ShapeError(f"layer {name!r}: {error}") from error
    layer = kind(I, H, **read_off, **arguments)
    layer.load_state_dict(p)
    return layer
