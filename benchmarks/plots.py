"""The plots of a report: against the peers, against the bound, and growth with hidden size, batch and time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from cases import GROWTH, PLOTTED
from contenders import NAMES, PEERS

from fastrnn.cli import plot

LAYERS, GROWN = ("step", "sequence", "batch", "ragged", "push"), ("step", "sequence", "batch")  # tables
MODELS, USE, POOLS = ("model", "convolution"), ("drawn", "opened", "crowd"), ("pool", "open_loop")
GROWS = {"H": "hidden size", "B": "batch", "T": "time steps"}


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


def bounded(tables: dict[str, list[dict]]) -> list[dict]:
    """Layers with a bound and a peer to set beside it."""
    return [case for case in cases_of(tables, LAYERS) if case.get("bound_us") and any(median(case, engine) for engine in PEERS)]


def against_bound(cases: list[dict], path: Path) -> None:
    """The share of the bound that fastrnn and the fastest peer reach."""
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


def growing(tables: dict[str, list[dict]]) -> dict[str, tuple[str, list[tuple[int, dict]]]]:
    """Panels of growth, by title: the letter of the size, and cases over it, where there are at least two to draw a line through."""
    found = {case["case"]: case for case in cases_of(tables, GROWN)}
    panels = {
        title: (letter, [(getattr(case, letter), found[str(case)]) for case in cases if str(case) in found])
        for title, (letter, cases) in GROWTH.items()
    }
    return {title: panel for title, panel in panels.items() if len(panel[1]) > 1}


def growth(panels: dict[str, tuple[str, list[tuple[int, dict]]]], path: Path) -> None:
    """Time over one size, the others fixed."""
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    figure, grid = plot.pyplot().subplots(rows, columns, figsize=(4 * columns, 3.25 * rows), layout="constrained", squeeze=False)
    for axes in grid.flat[len(panels) :]:
        axes.set_axis_off()
    for axes, (title, (letter, points)) in zip(grid.flat, panels.items()):
        for engine in NAMES:
            line = [(size, median(case, engine)) for size, case in points if median(case, engine)]
            if line:
                axes.plot(*zip(*line), "o-", markersize=3, linewidth=1, color=plot.COLOURS[engine], label=engine)
        bound = [(size, case["bound_us"]) for size, case in points if case.get("bound_us")]
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
    """Frames a second over how many streams are ready, a panel a layer; and the tail of the waits over the load."""
    ready, loaded = tables.get("pool", []), sorted(tables.get("open_loop", []), key=lambda case: case["load"])
    kinds = list({case["case"].split(",")[0]: None for case in ready})
    panels = len(kinds) + bool(loaded)
    figure, grid = plot.pyplot().subplots(1, panels, figsize=(4 * panels, 3.5), layout="constrained", squeeze=False)
    for axes, kind in zip(grid[0], kinds):
        cases = sorted((case for case in ready if case["case"].startswith(kind)), key=lambda case: case["rows"])
        for engine in NAMES:
            line = [(case["rows"], 1e6 * case["rows"] / median(case, engine)) for case in cases if median(case, engine)]
            if line:
                axes.plot(*zip(*line), "o-", markersize=3, linewidth=1, color=plot.COLOURS[engine], label=engine)
        bound = [(case["rows"], 1e6 * case["rows"] / case["bound_us"]) for case in cases if case.get("bound_us")]
        if bound:
            axes.plot(*zip(*bound), "--", linewidth=1, color="black", label="roofline")
        axes.set(title=f"{kind} of many streams", xlabel="streams ready", ylabel="frames a second", xscale="log", yscale="log")
        axes.legend(frameon=False, fontsize=7)
    if loaded:
        axes = grid[0][-1]
        for engine in NAMES:
            for which, style in (("p50", ":"), ("p99", "-"), ("p99.9", "--")):
                line = [(100 * case["load"], case["waits"][engine][which]) for case in loaded if engine in case["waits"]]
                if line:
                    axes.plot(*zip(*line), style, marker="o", markersize=3, linewidth=1, color=plot.COLOURS[engine], label=f"{engine}, {which}")
        axes.set(title="waits of callers on their own clocks", xlabel="load, % of the pool's rate", ylabel="microseconds", yscale="log")
        axes.legend(frameon=False, fontsize=6, loc="upper left", bbox_to_anchor=(1, 1))
    plot.save(figure, path)


def makers(tables: dict[str, list[dict]]) -> dict[str, Callable[[Path], None]]:
    """What draws each plot that these tables have something for."""
    plotted = set(map(str, PLOTTED))
    layers = [case for case in cases_of(tables, LAYERS) if case["case"] in plotted]
    models, used, bounds, panels = cases_of(tables, MODELS), cases_of(tables, USE), bounded(tables), growing(tables)
    made: dict[str, tuple[object, Callable[[Path], None]]] = {
        "layers": (layers, lambda path: against_peers(layers, "One layer, one thread", path)),
        "models": (models, lambda path: against_peers(models, "Real models, one thread", path)),
        "use": (used, lambda path: against_peers(used, "Use as it comes, one thread", path)),
        "pool": (cases_of(tables, POOLS), lambda path: pools(tables, path)),
        "bound": (bounds, lambda path: against_bound(bounds, path)),
        "growth": (panels, lambda path: growth(panels, path)),
    }
    return {name: maker for name, (something, maker) in made.items() if something}


def draw(tables: dict[str, list[dict]], folder: Path) -> None:
    """Every plot that there is something for; one of an earlier run that there is nothing for any more goes."""
    found = makers(tables)
    for path in folder.glob("*.svg"):
        if path.stem not in found:
            path.unlink()
    for name, maker in found.items():
        maker(folder / f"{name}.svg")
