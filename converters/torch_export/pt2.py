"""torch.export's .pt2 archives, read so that nothing in them can run.

torch.export.load unpickles example inputs, falling back to weights_only=False, and any weight or constant marked as pickled; it hands
expressions to a parser that evaluates them, and loads compiled libraries. So it gets a copy, in memory, with nothing in it but the raw weights
and the program's description, whose expressions are checked; example inputs are read with weights_only=True and written anew.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from pathlib import Path

import torch

from fastrnn.converters.archive import entries_of
from fastrnn.errors import FastRNNError, InvalidModelError, UnsupportedModelError

KEPT = ("archive_format", "archive_version", "byteorder", ".data/version", ".data/serialization_id")
MODEL, SAMPLES = "models/model.json", "data/sample_inputs/model.pt"
CONFIGS = ("data/weights/model_weights_config.json", "data/constants/model_constants_config.json")
MAX_DESCRIPTION = 64 << 20  # bytes of JSON
# What torch writes of sizes: numbers, its symbols, and functions of them.
_EXPRESSION = re.compile(r"[\w\s+\-*/%(),<>=!&|~]{0,10000}")
_NAME = re.compile(r"[A-Za-z_]\w*")
_QUOTED = re.compile(r"'([suz]f?\d+)'")  # Symbol('s77')
_WORDS, _TEXT = re.compile(r"[\w.+:\-]*"), re.compile(r"[\x20-\x7e\n]*")
_SYMBOL = re.compile(r"[suz]f?\d+|int_oo|True|False")
FUNCTIONS = {"Mod", "FloorDiv", "CeilDiv", "CleanDiv", "PythonMod", "Min", "Max", "Eq", "Ne", "Lt", "Le", "Gt", "Ge", "And", "Or", "Not", "Pow",
             "PowByNatural", "IntTrueDiv",
             "FloatTrueDiv", "Where", "ToFloat", "TruncToInt", "FloorToInt", "CeilToInt", "RoundToInt", "Abs", "Symbol", "Integer", "Float", "Mul",
             "Add", "Rational",
             "OpaqueUnaryFn_sqrt", "ModularIndexing", "LShift", "RShift", "Identity", "floor", "ceiling", "integer", "positive", "nonnegative"}  # fmt: skip


def read_program(path: Path):
    """The ExportedProgram of a .pt2 file. Raises UnsupportedModelError for what would run code, InvalidModelError for a malformed file."""
    try:
        clean = _cleaned(path)
    except (FastRNNError, FileNotFoundError, PermissionError, IsADirectoryError):
        raise
    except Exception as error:  # zipfile and json raise many types on damaged bytes
        raise InvalidModelError(f"{path}: a damaged .pt2 archive: {error!r}") from error
    try:
        return torch.export.load(clean)
    except Exception as error:  # torch raises many types; all mean that the file is no whole program
        raise InvalidModelError(f"{path}: torch.export cannot load it: {(str(error).strip().splitlines() or [type(error).__name__])[0]}") from error


def _cleaned(path: Path) -> io.BytesIO:
    """A copy of the archive that holds only what is known and harmless."""
    files, result = _files(path), io.BytesIO()
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(result, "w") as copy:

        def put(name: str, data: bytes):
            copy.writestr(f"archive/{name}", data)

        for name in KEPT:
            if name in files:
                put(name, archive.read(files[name]))
        if MODEL not in files:
            raise InvalidModelError(f"{path}: holds no {MODEL}")
        put(MODEL, json.dumps(_checked(path, _parsed(path, archive, files[MODEL]))).encode())
        for config in CONFIGS:
            if config not in files:
                raise InvalidModelError(f"{path}: holds no {config}")
            payloads = _parsed(path, archive, files[config])
            for name in _payloads(path, payloads, config):
                if name not in files:
                    raise InvalidModelError(f"{path}: {config} names {name}, which is not there")
                put(name, archive.read(files[name]))
            put(config, json.dumps(payloads).encode())
        put(SAMPLES, _samples(path, archive.read(files[SAMPLES]) if SAMPLES in files else b""))
    result.seek(0)
    return result


def _files(path: Path) -> dict[str, zipfile.ZipInfo]:
    """Entries by their names below the archive's one folder."""
    files: dict[str, zipfile.ZipInfo] = {}
    for info in entries_of(path).values():
        folder, _, name = info.filename.partition("/")
        if name in files or not folder:
            raise InvalidModelError(f"{path}: {info.filename!r} stands twice, or outside a folder")
        if info.compress_type != zipfile.ZIP_STORED:
            raise InvalidModelError(f"{path}: {info.filename!r} is compressed; torch stores entries as they are")
        if name.startswith("data/aotinductor/") or "serialized_exported_program" in info.filename:
            raise UnsupportedModelError(
                f"{path}: holds compiled code or torch's format before 2.8 ({info.filename}); save the program anew with torch.export.save"
            )
        files[name] = info
    return files


def _parsed(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> dict:
    if info.file_size > MAX_DESCRIPTION:
        raise InvalidModelError(f"{path}: {info.filename} has {info.file_size:,} bytes; at most {MAX_DESCRIPTION:,} are read")
    content = json.loads(archive.read(info))
    if not isinstance(content, dict):
        raise InvalidModelError(f"{path}: {info.filename} holds no JSON object")
    return content


def _payloads(path: Path, content: dict, config: str) -> list[str]:
    """Names of the raw tensors that a config lists; pickled ones are refused."""
    folder, names = config.rsplit("/", 1)[0], {}
    for key, payload in content["config"].items():
        name = payload["path_name"]
        if payload["use_pickle"] is not False or not re.fullmatch(r"(weight|tensor)_\d+", name):
            raise UnsupportedModelError(f"{path}: {key!r} is a pickled object, which is not read since that could run code")
        names[f"{folder}/{name}"] = None
    return list(names)


def _checked(path: Path, program: dict) -> dict:
    """The description without guards, which torch would run as Python. torch makes Python out of the rest too, so all text in it must be names and
    every expression arithmetic on sizes."""
    program = program | {"guards_code": []}
    waiting: list[tuple[str, object]] = [("", program)]
    while waiting:
        key, item = waiting.pop()
        if isinstance(item, dict):
            if isinstance(item.get("metadata"), dict):
                trace = item["metadata"].get("stack_trace")
                item["metadata"] = {"stack_trace": re.sub(r"[^\x20-\x7e\n]", "?", trace)} if isinstance(trace, str) else {}
            waiting += [("", name) for name in item] + list(item.items())
        elif isinstance(item, list):
            waiting += [(key, part) for part in item]
        elif key in ("in_spec", "out_spec", "context") and item:
            waiting.append(("", json.loads(item)))
        elif key == "expr_str":
            _check_expression(path, item)
        elif isinstance(item, str) and not (_TEXT if key in ("as_string", "as_strings", "stack_trace") else _WORDS).fullmatch(item):
            raise InvalidModelError(f"{path}: {item[:80]!r} is no name of an exported program")
    return program


def _check_expression(path: Path, text) -> None:
    text = _QUOTED.sub(r"\1", text) if isinstance(text, str) else text
    if not isinstance(text, str) or not _EXPRESSION.fullmatch(text) or any(not (_SYMBOL.fullmatch(n) or n in FUNCTIONS) for n in _NAME.findall(text)):
        raise InvalidModelError(f"{path}: {str(text)[:80]!r} is no expression of sizes")


def _samples(path: Path, data: bytes) -> bytes:
    """Example inputs, read by torch's restricted unpickler and written anew; none where there are none."""
    if not data:
        return data
    try:
        samples = torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")
    except Exception as error:  # torch raises many types; all mean that only running the pickle would show what it holds
        raise UnsupportedModelError(
            f"{path}: its example inputs are more than tensors and containers, and reading them could run code; save the program without: "
            "program.example_inputs = None, then torch.export.save"
        ) from error
    result = io.BytesIO()
    torch.save(samples, result)
    return result.getvalue()
