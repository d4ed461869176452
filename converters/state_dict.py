"""Recurrent layers out of a state dict, recognised by torch's key names and by shapes."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from fastrnn.cells import GATES
from fastrnn.converters.weights_file import Stored, read_weights
from fastrnn.errors import DTypeError, InvalidModelError, ShapeError, UnsupportedModelError
from fastrnn.model.stack import StackOptions
from fastrnn.runtime.checks import as_array
from fastrnn.runtime.layers import GRU, LSTM, RNN

_NAMES = r"(?:weight_(?:ih|hh|hr|p[ifo])|bias_(?:ih|hh))(?:_l(?P<layer>\d+)(?:_reverse)?)?"
# A cell's parameters (torch.nn.LSTMCell) have a layer's names without _l0.
_KEY = re.compile(rf"(?:(?P<module>.*)\.)?(?P<parameter>{_NAMES})")
# What weight norm, weight drop and torch's parametrizations store in place of a parameter.
_REPLACED = re.compile(rf"(?:(?P<module>.*)\.)?(?P<parameter>{_NAMES})(?:_g|_v|_raw|_orig|\.original\d*)")
_CLASS = {GATES[layer.__name__.lower()]: layer for layer in (RNN, GRU, LSTM)}  # by the number of its gates
# Names that checkpoints, DataParallel and torch.compile put in front of a model's own: a prefix may leave them out.
_WRAPPERS = ("state_dict", "model_state_dict", "model_state", "model", "module", "_orig_mod", "net", "network", "weights", "params", "generator")
# An archive holds some 50,000 tensors at most (archive.py), some of which stand at several places. Words and numbers beside them are as many as they are.
MAX_DEPTH, MAX_ENTRIES = 16, 1 << 17


@dataclass
class _Module:
    """What stands under one module's name: values by parameter, the keys behind them, and keys of replaced parameters."""

    values: dict[str, object] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)
    replaced: dict[str, str] = field(default_factory=dict)


def _flat(nested: Any) -> Iterator[tuple[str, object]]:
    """(key, value) of everything in nested dicts and lists, the parts of a key joined by dots. Tensors are counted, and everything in a container that was seen
    before, as what is shared may be endless."""
    seen, open_, known = 0, [("", _items(nested))], {id(nested)}
    while open_:
        above, items = open_[-1]
        for key, value in items:
            container = isinstance(value, (dict, list, tuple, Mapping))
            seen += len(value) if container and id(value) in known else int(hasattr(value, "shape") or isinstance(value, Stored))
            if seen > MAX_ENTRIES:
                raise InvalidModelError(f"the state dict has more than {MAX_ENTRIES} tensors")
            if container and not _KEY.fullmatch(str(key)):
                known.add(id(value))
                if len(open_) > MAX_DEPTH:
                    raise InvalidModelError(f"the state dict is nested more than {MAX_DEPTH} deep at {f'{above}{key}.'[:200]!r}")
                open_.append((f"{above}{key}.", _items(value)))
                break
            yield f"{above}{key}", value
        else:
            open_.pop()


def _items(nested: Any) -> Iterator[tuple[object, Any]]:
    return iter(nested.items() if isinstance(nested, (dict, Mapping)) else enumerate(nested))


def _modules(content: object) -> dict[str, _Module]:
    """The recurrent modules of a state dict by name."""
    modules: dict[str, _Module] = {}
    for key, value in _flat(content):
        if match := _KEY.fullmatch(key):
            module = modules.setdefault(match["module"] or "", _Module())
            if match["parameter"] in module.values:
                raise InvalidModelError(f"the state dict has {key!r} twice")
            module.values[match["parameter"]] = value
            module.keys[match["parameter"]] = key
        elif match := _REPLACED.fullmatch(key):
            name = f".{match['module'] or ''}".removesuffix(".parametrizations").removeprefix(".")
            modules.setdefault(name, _Module()).replaced[match["parameter"]] = key
    return modules


def _under(modules: Mapping[str, _Module], prefix: str) -> dict[str, _Module]:
    """The modules under a prefix, which is taken off; in front of it wrappers may stand that the prefix leaves out."""
    if not prefix:
        return dict(modules)
    found: dict[str, tuple[str, _Module]] = {}
    for exact in (True, False):
        for name, module in modules.items():
            rest = name.split(".")
            while True:
                inner = ".".join(rest)
                if inner == prefix or inner.startswith(f"{prefix}."):
                    key = inner[len(prefix) + 1 :]
                    if key in found:
                        raise InvalidModelError(
                            f"prefix {prefix!r} is ambiguous: the state dict has {found[key][0]!r} and {name!r}; give one of them in full"
                        )
                    found[key] = name, module
                    break
                if exact or len(rest) < 2 or rest[0] not in _WRAPPERS:
                    break
                rest = rest[1:]
        if found:
            break
    return {key: module for key, (_, module) in found.items()}


def _nbytes(value: Any) -> int:
    if isinstance(value, (Stored, np.ndarray)):
        return value.nbytes
    return value.numel() * value.element_size() if hasattr(value, "element_size") else 0


def _float32(value: Any, name: str) -> np.ndarray:
    """The array; float16 and bfloat16 widened, which is exact. Raises DTypeError for others: rounding float64 would change numbers."""
    if isinstance(value, Stored):
        value = value.read()
    elif hasattr(value, "detach"):
        if value.is_meta or value.is_sparse or value.is_quantized or str(value.layout) != "torch.strided":
            raise UnsupportedModelError(f"{name} is a meta, sparse or quantised tensor; a dense one is needed")
        kind = str(value.dtype).removeprefix("torch.")
        value = value.detach().cpu()
        value = value.float() if kind in ("float16", "bfloat16") else value
    array = as_array(value, name)
    if array.dtype.kind == "f" and array.dtype.itemsize <= 4 or array.dtype.name == "bfloat16":
        return array.astype(np.float32, copy=False)
    hint = (
        "; fastrnn computes in float32 and rounds no weights on its own: convert them with .float() or .astype('float32')"
        if array.dtype == np.float64
        else ""
    )
    raise DTypeError(f"{name} must be float32, or float16 or bfloat16 to be widened, got {array.dtype}{hint}")


def from_state_dict(source: Mapping[str, Any] | str | PathLike[str], prefix: str = "", **options: Any) -> dict[str, LSTM | GRU | RNN]:
    """The recurrent layers of a state dict: {module name: fr.LSTM | fr.GRU | fr.RNN}; "" names a layer saved by itself.

    source : a dict of arrays or tensors under torch's key names, nested dicts and lists included, such as a training checkpoint; a file
             of them by torch.save (.pt, .pth, .ckpt; read through weights_only and nothing else), .safetensors or .npz (no pickles)
    prefix : only modules under this name, which is taken off; what checkpoints put in front ("state_dict", "model", "module",
             "_orig_mod") may be left out of it
    options: passed to every layer, e.g. batch_first=True, backend=...; nonlinearity="relu" reaches the RNNs, reset_after=
             the GRUs: a state dict does not tell these. An RNN for which it is not said is taken for tanh, with a warning

    Kind, sizes, layers, directions, bias, projection and peepholes are read off the keys and shapes; a cell's parameters (weight_ih
    without _l0) make a layer of one. float16 and bfloat16 are widened to float32, exactly; other dtypes are a DTypeError. Other
    keys are left alone. Raises UnsupportedModelError for files that would run code and for parameters replaced by weight norm and the
    like, ShapeError naming a parameter, InvalidModelError where no recurrent layer is found. Unpickles nothing outside weights_only.
    """
    content, limit = (source, None) if isinstance(source, Mapping) else _read(source)
    if not isinstance(content, (Mapping, list, tuple)):
        raise InvalidModelError(f"{source}: holds a {type(content).__name__}, not a state dict")
    modules = _under(_modules(content), prefix.rstrip("."))
    if not modules:
        raise InvalidModelError(f"no recurrent layer {'under ' + repr(prefix) + ' ' if prefix else ''}in the state dict: no key like 'weight_ih_l0'")
    nbytes = sum(_nbytes(value) for module in modules.values() for value in module.values.values())
    if limit is not None and nbytes > limit:
        raise InvalidModelError(f"{source}: its recurrent weights would take {nbytes} bytes, more than such a file can mean; {limit} at most")
    layers = {}
    for name, module in modules.items():
        layers[name] = _layer(name or "layer", module, options)
    return layers


def _read(source: object) -> tuple[object, int]:
    if not isinstance(source, (str, PathLike)):
        raise InvalidModelError(f"from_state_dict takes a dict or a path, got {type(source).__name__}")
    return read_weights(Path(source))


def _parameters(name: str, module: _Module) -> dict[str, np.ndarray]:
    """A module's parameters under a layer's names; raises for those of a cell beside a layer's, and for replaced ones."""
    cell = [parameter for parameter in module.values if "_l" not in parameter]
    if cell and len(cell) < len(module.values):
        other = next(key for parameter, key in module.keys.items() if "_l" in parameter)
        raise InvalidModelError(f"layer {name!r}: {module.keys[cell[0]]!r} is a cell's, {other!r} a layer's; prefix= picks other modules")
    for parameter, key in module.replaced.items():
        if parameter not in module.values:
            raise UnsupportedModelError(
                f"layer {name!r}: {parameter} is stored as {key!r}, by weight norm, weight drop or a parametrisation; remove that before saving"
            )
    return {
        parameter if "_l" in parameter else f"{parameter}_l0": _float32(value, module.keys[parameter]) for parameter, value in module.values.items()
    }


def _depth(name: str, module: _Module) -> int:
    """The number of layers; raises where one of them is missing."""
    numbers = {match["layer"] or "0": key for parameter, key in module.keys.items() if (match := _KEY.fullmatch(parameter))}
    depth = len(numbers)
    for layer in map(str, range(depth)):
        if layer not in numbers:
            beyond = next(key for number, key in numbers.items() if len(number) > 6 or int(number) >= depth or str(int(number)) != number)
            raise ShapeError(f"layer {name!r}: there is {beyond[-200:]!r}, but nothing of layer {layer}: no weight_ih_l{layer}")
    return depth


def _layer(name: str, module: _Module, options: Mapping[str, Any]) -> LSTM | GRU | RNN:
    p, depth = _parameters(name, module), _depth(name, module)
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
    arguments: dict[str, Any] = dict(options)
    if kind is RNN and not {"nonlinearity", "activations"} & set(options):
        warnings.warn(f"layer {name!r} (RNN): a state dict does not tell tanh from relu, and tanh is taken; nonlinearity= says it", stacklevel=3)
    if kind is not RNN:
        arguments.pop("nonlinearity", None)
    if kind is not GRU:
        arguments.pop("reset_after", None)
    read_off: dict[str, Any] = {"num_layers": depth, "bias": "bias_ih_l0" in p, "bidirectional": any(key.endswith("_reverse") for key in p)}
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
