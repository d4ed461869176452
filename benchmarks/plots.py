"""The plots of a report: against the peers, against the bound, and growth with hidden size, batch and time."""

from __future__ import annotations

from pathlib import Path

from cases import GROWTH, PLOTTED
from contenders import NAMES, PEERS

from fastrnn.cli import plot

LAYERS = ("step", "sequence", "batch", "ragged", "push")
PLOTS = {"layers": LAYERS, "models": ("model",), "pool": ("pool", "open_loop"), "bound": LAYERS, "growth": ("step", "sequence", "batch")}
GROWS = {"H": "hidden size", "B": "batch", "T": "time steps"}


def wanted(tables: dict[str, list[dict]]) -> list[str]:
    """Plots that these tables have something for."""
    return [name for name, parts in PLOTS.items() if any(part in tables for part in parts)]


def cases_of(tables: dict[str, list[dict]], parts) -> list[dict]:
    """Cases of several tables, in order."""
    return [case for part in parts for case in tables.get(part, [])]


def median(case: dict | None, engine: str) -> float | None:
    """Microseconds, None where there are none."""
    return None if case is None else case["us"].get(engine, {}).get("us")


def against_peers(cases: list[dict], title: str, path: Path) -> None:
    """Bars, one an engine."""
    us = {engine: [median(case, engine) for case in cases] for engine in NAMES}
    plot.bars(
        path,
        title,
        [case["case"] for case in cases],
        {e: values for e, values in us.items() if any(values)},
        [case.get("bound_us") for case in cases],
    )


def against_bound(cases: list[dict], path: Path) -> None:
    """The share of the bound that fastrnn and the fastest peer reach."""
    cases = [case for case in cases if case.get("bound_us")]
    figure, axes = plot.pyplot().subplots(figsize=(8, 1 + 0.22 * len(cases)))
    mine = [100 * case["bound_us"] / median(case, "fastrnn") for case in cases]
    theirs = [100 * case["bound_us"] / min(filter(None, (median(case, e) for e in PEERS))) for case in cases]
    axes.barh(range(len(cases)), mine, 0.7, color=plot.COLOURS["fastrnn"], label="fastrnn")
    axes.plot(theirs, range(len(cases)), "o", color=plot.COLOURS["onnxruntime"], markersize=4, label="fastest peer")
    axes.set_yticks(range(len(cases)), [case["case"] for case in cases])
    axes.set_ylim(len(cases) - 0.5, -0.5)
    axes.axvline(100, color="black", linewidth=1)
    axes.set_xlabel("share of the roofline reached, %")
    axes.legend(frameon=False, fontsize=8, loc="lower right")
    plot.save(figure, path)


def growth(cases: list[dict], path: Path) -> None:
    """Time over one size, the others fixed."""
    found = {case["case"]: case for case in cases}
    figure, grid = plot.pyplot().subplots(2, 2, figsize=(8, 6.5), layout="constrained")
    for axes, (title, (letter, wanted_cases)) in zip(grid.flat, GROWTH.items()):
        points = [(getattr(case, letter), found.get(str(case))) for case in wanted_cases]
        for engine in NAMES:
            line = [(size, median(case, engine)) for size, case in points if median(case, engine)]
            if line:
                axes.plot(*zip(*line), "o-", markersize=3, linewidth=1, color=plot.COLOURS[engine], label=engine)
        bound = [(size, case["bound_us"]) for size, case in points if case and case.get("bound_us")]
        if bound:
            axes.plot(*zip(*bound), "--", linewidth=1, color="black", label="roofline")
        axes.set_xscale("log", base=2 if letter != "T" else 10)
        axes.set_yscale("log")
        axes.set_title(title, fontsize=9)
        axes.set_xlabel(GROWS[letter])
        axes.set_ylabel("microseconds")
    grid.flat[0].legend(frameon=False, fontsize=7)
    plot.save(figure, path)


def pools(tables: dict[str, list[dict]], path: Path) -> None:
    """Frames a second over how many streams are ready; and the tail of the waits over the load."""
    kinds = {case["case"].split(",")[0]: None for case in tables.get("pool", [])}
    figure, grid = plot.pyplot().subplots(1, len(kinds) + 1, figsize=(4 * (len(kinds) + 1), 3.5), layout="constrained", squeeze=False)
    for axes, kind in zip(grid[0], kinds):
        cases = sorted((case for case in tables["pool"] if case["case"].startswith(kind)), key=lambda case: case["rows"])
        for engine in NAMES:
            line = [(case["rows"], 1e6 * case["rows"] / median(case, engine)) for case in cases if median(case, engine)]
            if line:
                axes.plot(*zip(*line), "o-", markersize=3, linewidth=1, color=plot.COLOURS[engine], label=engine)
        bound = [(case["rows"], 1e6 * case["rows"] / case["bound_us"]) for case in cases if case.get("bound_us")]
        if bound:
            axes.plot(*zip(*bound), "--", linewidth=1, color="black", label="roofline")
        axes.set(title=f"{kind} of many streams", xlabel="streams ready", ylabel="frames a second", xscale="log", yscale="log")
        axes.legend(frameon=False, fontsize=7)
    axes, loaded = grid[0][-1], sorted(tables.get("open_loop", []), key=lambda case: case["load"])
    for engine in NAMES:
        for which, style in (("p50", ":"), ("p99", "-"), ("p99.9", "--")):
            line = [(100 * case["load"], case["waits"][engine][which]) for case in loaded if engine in case["waits"]]
            if line:
                axes.plot(*zip(*line), style, marker="o", markersize=3, linewidth=1, color=plot.COLOURS[engine], label=f"{engine}, {which}")
    axes.set(title="waits of callers on their own clocks", xlabel="load, % of the pool's rate", ylabel="microseconds", yscale="log")
    axes.legend(frameon=False, fontsize=6, loc="upper left", bbox_to_anchor=(1, 1))
    plot.save(figure, path)


def draw(tables: dict[str, list[dict]], folder: Path) -> None:
    """Every plot that there is something for."""
    layers, plotted = cases_of(tables, LAYERS), set(map(str, PLOTTED))
    makers = {
        "layers": lambda path: against_peers([case for case in layers if case["case"] in plotted], "One layer, one thread", path),
        "models": lambda path: against_peers(tables["model"], "Real models, batch 1, one thread", path),
        "pool": lambda path: pools(tables, path),
        "bound": lambda path: against_bound(layers, path),
        "growth": lambda path: growth(layers, path),
    }
    for name in wanted(tables):
        makers[name](folder / f"{name}.svg")
