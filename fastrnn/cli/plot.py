"""Bars of microseconds, as SVG or PNG."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from fastrnn.errors import MissingDependencyError

# Colours that are told apart without red and green (Okabe and Ito 2008); fastrnn first.
COLOURS = {"fastrnn": "#0072b2", "fastrnn bfloat16": "#56b4e9", "fastrnn int8": "#cc79a7",
           "onnxruntime": "#e69f00", "openvino": "#009e73", "torch": "#d55e00", "numpy": "#999999", "reference": "#999999"}  # fmt: skip


SUFFIXES = (".svg", ".png")
DPI = 150  # of a .png: twice what a page shows it at


def pyplot(purpose: str = "a plot"):
    """Matplotlib without a screen, its SVG text as text and the same from run to run. purpose: what MissingDependencyError says needs it."""
    try:
        import matplotlib
    except ModuleNotFoundError as error:
        raise MissingDependencyError("matplotlib", "plot", purpose) from error
    matplotlib.use("agg")
    matplotlib.rcParams |= {"svg.fonttype": "none", "svg.hashsalt": "fastrnn", "axes.spines.top": False, "axes.spines.right": False, "font.size": 9}
    from matplotlib import pyplot

    return pyplot


def save(figure, path) -> None:
    """Writes a .svg or .png without a date, so that it changes only where the figures do; the SVG with coordinates to a hundredth of a point, in half the space."""
    if Path(path).suffix == ".png":
        figure.savefig(path, dpi=DPI, metadata={"Software": None}, bbox_inches="tight")
    else:
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None}, bbox_inches="tight")
        Path(path).write_text(re.sub(r"(\d\.\d\d)\d+", r"\1", text.getvalue()), encoding="utf-8")
    pyplot().close(figure)


def bars(path, title: str, labels: Sequence[str], us: Mapping[str, Sequence[float | None]], bounds: Sequence[float | None] = ()) -> None:
    """A group of bars for each label, one an engine (None: none), on a logarithmic axis of microseconds; bounds as ticks across a group."""
    figure, axes = pyplot().subplots(figsize=(8, 1 + len(labels) * (0.12 * len(us) + 0.14)))
    height = 0.8 / len(us)
    for k, (engine, values) in enumerate(us.items()):
        at = [n - 0.4 + (k + 0.5) * height for n, value in enumerate(values) if value]
        axes.barh(at, [value for value in values if value], height, label=engine, color=COLOURS.get(engine))
    marks = [(n, bound) for n, bound in enumerate(bounds) if bound]
    if marks:
        axes.vlines([b for _, b in marks], [n - 0.45 for n, _ in marks], [n + 0.45 for n, _ in marks], color="black", linewidth=1, label="roofline")
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.set_xscale("log")
    axes.set_xlabel("microseconds, median")
    axes.set_title(title)
    axes.legend(frameon=False, fontsize=8)
    save(figure, path)
