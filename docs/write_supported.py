"""Writes docs/supported.md: what fastrnn reads and what runs it, out of the registries themselves. python docs/write_supported.py"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import onnx

from fastrnn.converters.keras_import.registry import FUNCTIONS as KERAS_FUNCTIONS
from fastrnn.converters.keras_import.registry import LAYERS as KERAS_LAYERS
from fastrnn.converters.onnx_import.importer import NEWEST, OLDEST
from fastrnn.converters.onnx_import.registry import IMPORTERS, MICROSOFT, REFUSED
from fastrnn.converters.tflite_import.registry import OPERATORS
from fastrnn.converters.tflite_import.registry import REFUSED as REFUSED_BY_TFLITE
from fastrnn.model.ops import OPS
from fastrnn.model.ops.foreign import NAMES as FOREIGN
from fastrnn.model.ops.foreign import PREFIX
from fastrnn.plan.emit.emitter import EMIT
from fastrnn.plan.graph.rewrites import REWRITES
from fastrnn.plan.lowering.views import VIEWS
from fastrnn.plan.route import REPEATING

TARGET = Path(__file__).parent / "supported.md"
SHAPES = ("Shape", "Size", "Range", "ConstantOfShape", "Constant")
RECAST = ("CastLike",)  # folding makes it a Cast


def ran_by(op: str) -> str:
    """Who runs an op of ONNX's default domain, in float32."""
    if op in SHAPES and op in IMPORTERS:
        return "before anything runs, where shapes and constants decide it"
    if op in ("If", "Concat", *REPEATING, *RECAST) or op in EMIT or op in REWRITES or PREFIX + op in REWRITES:
        return "compiled"
    if op in VIEWS:
        return "views: nothing to compute"
    if op in OPS and op in IMPORTERS:
        return "NumPy"
    if op in FOREIGN:
        return "the onnx package's reference implementation"
    if op in IMPORTERS:
        return "taken apart into other ops as the file is read"
    return f"refused: {REFUSED.get(op, 'not supported')}"


def onnx_ops() -> dict[str, list[str]]:
    """The ops of ONNX's default domain by who runs them."""
    found: dict[str, list[str]] = {}
    for op in sorted({s.name for s in onnx.defs.get_all_schemas() if s.domain == ""}):
        found.setdefault(ran_by(op), []).append(op)
    first = (
        "compiled",
        "views: nothing to compute",
        "before anything runs, where shapes and constants decide it",
        "taken apart into other ops as the file is read",
        "NumPy",
        "the onnx package's reference implementation",
    )
    return {key: found[key] for key in (*first, *sorted(found.keys() - set(first))) if key in found}


def operators_of_torch() -> list[tuple[str, list[str]]]:
    """ATen's operators that have a converter of their own, of real and of complex numbers."""
    from fastrnn.converters.torch_export import importer  # noqa: F401  (fills the registry)
    from fastrnn.converters.torch_export.ops.complex import ALIKE, COMPLEX
    from fastrnn.converters.torch_export.registry import CONVERTERS

    return [("read", sorted(CONVERTERS)), ("of complex numbers", sorted(COMPLEX.keys() | ALIKE & CONVERTERS.keys()))]


def table(head: str, rows: Iterable[tuple[str, Iterable[str]]]) -> list[str]:
    """A table of names."""
    return [f"| {head} | |", "|---|---|", *(f"| {key} | {', '.join(names)} |" for key, names in rows), ""]


def text() -> str:
    """The page."""
    microsoft = sorted(name.removeprefix(MICROSOFT) for name in IMPORTERS if name.startswith(MICROSOFT))
    refused: dict[str, list[str]] = {}
    for name, why in REFUSED_BY_TFLITE.items():
        refused.setdefault(f"refused: {why}", []).append(name)
    return "\n".join(
        [
            "# What is supported",
            "",
            "Written by `docs/write_supported.py` out of the registries; a test holds it to them. Anything that is not here is refused by name. `session.explain()` says what runs a model of your own.",
            "",
            f"## ONNX, opsets {OLDEST} to {NEWEST}",
            "",
            f"Who runs an op in float32, by onnx {onnx.__version__}; another dtype, or a form that a kernel lacks, goes through NumPy: BatchNormalization with computed statistics, "
            "Pow by computed integers, padding that wraps around more than once.",
            "",
            *table("ops of the default domain", onnx_ops().items()),
            *table("ops of ONNX Runtime's own domain", [("read", microsoft)]),
            "## PyTorch",
            "",
            "Operators of ATen with a converter of their own; others are taken apart by torch.export as torch defines them, where that ends in these.",
            "",
            *table("operators", operators_of_torch()),
            "## Keras",
            "",
            *table("layers", [("read", sorted(KERAS_LAYERS)), ("functions", sorted(KERAS_FUNCTIONS))]),
            "## TensorFlow Lite",
            "",
            *table("operators", [("read", sorted(OPERATORS)), *refused.items()]),
        ]
    )


if __name__ == "__main__":
    TARGET.write_text(text(), encoding="utf-8")
