"""fastrnn's model file: safetensors, tensors as tensors and the graph as JSON under the metadata key "fastrnn"."""

from __future__ import annotations

import errno
import json
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors import numpy as tensors

from fastrnn.cells.activations import ACTIVATIONS, Activation
from fastrnn.errors import FastRNNError, InvalidModelError, ShapeError, UnsupportedModelError
from fastrnn.model.absent import refuse_absent
from fastrnn.model.graph import MAX_DEPTH, Graph, Model, Node, State, Value
from fastrnn.model.ops import DTYPES, Spec

KEY, VERSION = "fastrnn", 2
_GRAPH_KEYS = {"version", "name", "inputs", "outputs", "states", "nodes", "declared"}
_NODE_KEYS = {"op", "name", "inputs", "outputs", "attributes"}
MAX_HEADER_BYTES, MAX_TENSORS = 1 << 20, 4096


def _plain(value: object) -> Any:
    """An attribute as JSON; activations as [name, parameters], subgraphs as {"nodes", "outputs"}, bodies with their "inputs"."""
    if isinstance(value, Graph):
        inputs = {"inputs": list(value.inputs)} if value.inputs else {}
        return {"nodes": [_node(n) for n in value.nodes], "outputs": list(value.outputs), **inputs}
    if isinstance(value, Activation):
        formula = ACTIVATIONS[value.kind]
        return [value.kind, {k: getattr(value, k) for k in ("alpha", "beta") if getattr(formula, k) is not None}]
    return [_plain(v) for v in value] if isinstance(value, (list, tuple)) else value


def _node(node: Node) -> dict[str, Any]:
    return {
        "op": node.op,
        "name": node.name,
        "inputs": list(node.inputs),
        "outputs": list(node.outputs),
        "attributes": {k: _plain(v) for k, v in node.attributes.items()},
    }


def _graph(model: Model) -> dict[str, Any]:
    """All of a model but its weights, as JSON has it."""
    return {
        "version": VERSION,
        "name": model.name,
        "inputs": [{"name": v.name, "dtype": v.dtype, "shape": list(v.shape), "optional": v.optional} for v in model.inputs],
        "outputs": list(model.output_names),
        "states": [[s.input, s.output, s.index] for s in model.states],
        "declared": {name: [spec.dtype, list(spec.shape or ())] for name, spec in model.declared.items()},
        "nodes": [_node(n) for n in model.nodes],
    }


def fingerprint(model: Model) -> str:
    """A text that two models share only where graph and weights are equal: the same in every process and on every machine."""
    import hashlib  # an import that only exported streams need

    refuse_absent(model, "fingerprint")
    digest = hashlib.blake2b(json.dumps(_graph(model), sort_keys=True).encode(), digest_size=20)
    for name, a in sorted(model.weights.items()):
        digest.update(json.dumps([name, a.dtype.name, a.shape]).encode())
        digest.update(np.ascontiguousarray(a, a.dtype.newbyteorder("<")).data)
    return digest.hexdigest()


def save(model: Model, path: str | os.PathLike[str]) -> None:
    """Writes the model to `path` by temporary file, fsync and rename: the old file or the new one, never half of one."""
    if Path(path).suffix.lower() != ".safetensors":
        raise UnsupportedModelError(f"{path}: models are written as .safetensors alone, by which load knows them")
    refuse_absent(model, "save")
    graph = _graph(model)
    for name in (*model.weights, *model.input_names, *(n for node in model.nodes for n in node.outputs)):
        if name == "__metadata__" or not name.isascii() and not _encodable(name):
            raise UnsupportedModelError(f"a file cannot hold the name {name!r}")
    if len(model.weights) > MAX_TENSORS:
        raise UnsupportedModelError(f"{len(model.weights)} weights; a file holds at most {MAX_TENSORS}")
    data = tensors.save({name: np.require(a, requirements="C") for name, a in model.weights.items()}, {KEY: json.dumps(graph)})
    if struct.unpack("<Q", data[:8])[0] > MAX_HEADER_BYTES:
        raise UnsupportedModelError(f"the graph does not fit a file header of {MAX_HEADER_BYTES} bytes")
    write_whole(path, data)


def _encodable(name: str) -> bool:
    try:
        return bool(name.encode())
    except UnicodeEncodeError:
        return False


def write_whole(path: str | os.PathLike[str], data: bytes) -> None:
    """Puts bytes in a file by temporary file, fsync and rename: the old file or the new one, never half of one."""
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, "there is no such folder to write to", str(path.parent))
    import tempfile  # with what it brings, a tenth of an import, for those who only read

    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    if os.name == "nt":  # which opens no folders
        return
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def check_header(path: Path) -> tuple[dict[str, Any], int]:
    """A safetensors header, and where the tensors start. Raises InvalidModelError unless one of bounded size, with bounded tensors and no name
    twice, starts the file."""
    with open(path, "rb") as file:
        start, size = file.read(8), os.fstat(file.fileno()).st_size
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else None
        if length is None or length > min(size - 8, MAX_HEADER_BYTES):
            raise InvalidModelError(f"{path}: not a safetensors file, truncated, or with a header over {MAX_HEADER_BYTES} bytes")
        try:
            header = json.loads(file.read(length), object_pairs_hook=_once)
        except (ValueError, RecursionError) as error:
            raise InvalidModelError(f"{path}: the header is no JSON: {error}") from error
    if not isinstance(header, dict) or len(header) > MAX_TENSORS + 1:
        raise InvalidModelError(f"{path}: the header is no table of at most {MAX_TENSORS} tensors")
    return header, 8 + length


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """A JSON object in which no name stands twice: readers differ in which one they take."""
    table = dict(pairs)
    if len(table) < len(pairs):
        raise ValueError("a name stands twice in an object")
    return table


def load(path: str | os.PathLike[str]) -> Model:
    """Reads a model; raises InvalidModelError where the file is malformed, before anything of a claimed size is allocated."""
    path = Path(path)
    check_header(path)
    try:
        from safetensors import safe_open

        with safe_open(path, "numpy") as file:
            metadata = file.metadata() or {}
        if KEY not in metadata:
            raise InvalidModelError(f"{path}: no fastrnn graph in the metadata; fastrnn.from_state_dict reads recurrent layers from a state dict")
        weights = tensors.load_file(path)
    except (SafetensorError, KeyError, TypeError, AttributeError) as error:
        raise InvalidModelError(f"{path}: {error}") from error
    try:
        graph = json.loads(metadata[KEY], object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise InvalidModelError(f"{path}: the graph is no JSON: {error}") from error
    return _model(graph, weights, path)


def _model(graph: Any, weights: dict[str, np.ndarray], path: Path) -> Model:
    version = graph.get("version") if isinstance(graph, dict) else None
    if version != VERSION or type(version) is not int:
        raise UnsupportedModelError(f"{path}: file version {version!r}; this fastrnn reads version {VERSION}")
    for name, array in weights.items():
        if str(array.dtype) not in DTYPES:
            raise UnsupportedModelError(f"{path}: weight {name!r} is {array.dtype}")
    try:
        _refuse_unknown(graph, _GRAPH_KEYS, path)
        return Model(
            inputs=tuple(Value(str(v["name"]), str(v["dtype"]), _shape(v["shape"]), bool(v["optional"])) for v in graph["inputs"]),
            output_names=tuple(map(str, graph["outputs"])),
            nodes=_nodes(graph["nodes"], path, 0),
            weights=weights,
            states=tuple(State(str(i), str(o), None if k is None else int(k)) for i, o, k in graph["states"]),
            name=str(graph["name"]),
            declared={str(name): Spec(str(dtype), _shape(shape)) for name, (dtype, shape) in graph["declared"].items()},
        )
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError) as error:
        if isinstance(error, ShapeError):  # shapes in a file that do not fit are a fault of the file
            raise InvalidModelError(f"{path}: {error}") from error
        if isinstance(error, FastRNNError):
            raise
        raise InvalidModelError(f"{path}: malformed graph: {type(error).__name__}: {error}") from error


def _refuse_unknown(part: Any, keys: set[str], path: Path) -> None:
    if unknown := sorted(set(part) - keys):
        raise UnsupportedModelError(f"{path}: unknown entries in the graph: {', '.join(unknown)}")


def _nodes(given: Any, path: Path, depth: int) -> tuple[Node, ...]:
    if depth > MAX_DEPTH:
        raise InvalidModelError(f"{path}: subgraphs are nested more than {MAX_DEPTH} deep")
    nodes = []
    for n in given:
        _refuse_unknown(n, _NODE_KEYS, path)
        attributes = {str(k): _attribute(v, path, depth) for k, v in n["attributes"].items()}
        nodes.append(Node(str(n["op"]), str(n["name"]), tuple(map(str, n["inputs"])), tuple(map(str, n["outputs"])), attributes))
    return tuple(nodes)


def _attribute(value: Any, path: Path, depth: int) -> Any:
    if not isinstance(value, dict):
        return value
    _refuse_unknown(value, {"nodes", "outputs", "inputs"}, path)
    return Graph(_nodes(value["nodes"], path, depth + 1), tuple(map(str, value["outputs"])), tuple(map(str, value.get("inputs", ()))))


def _shape(dims: Any) -> tuple[int | str, ...]:
    for dim in dims:
        if not isinstance(dim, str) and not (isinstance(dim, int) and not isinstance(dim, bool) and dim >= 0):
            raise ValueError(f"dimension {dim!r}")
    return tuple(dims)
