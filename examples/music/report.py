"""The table and the plot of a rerun, beside what was published."""

import statistics
from pathlib import Path

from fastrnn.cli import plot

# Chung et al. 2014, table 2 (these cells and sizes; rolls made by others); Bai et al. 2018, table 1 (these very rolls; larger nets).
PUBLISHED = {
    "jsb_chorales": {"Chung 2014": {"tanh": 9.1, "GRU": 8.5, "LSTM": 8.7}, "Bai 2018": {"tanh": 8.91, "GRU": 8.43, "LSTM": 8.45}},
    "nottingham": {"Chung 2014": {"tanh": 3.1, "GRU": 3.2, "LSTM": 3.2}, "Bai 2018": {"tanh": 4.05, "GRU": 3.46, "LSTM": 3.29}},
}
TITLES = {"jsb_chorales": "JSB Chorales", "nottingham": "Nottingham"}
COLOURS = {"tanh": "#999999", "GRU": "#e69f00", "LSTM": "#0072b2"}


def median(runs: list[dict], key: str) -> float:
    """Over seeds."""
    return statistics.median(run[key] for run in runs)


def grouped(runs: list[dict]) -> dict[tuple[str, str], list[dict]]:
    """Runs by data and cell, in order."""
    found: dict[tuple[str, str], list[dict]] = {}
    for run in runs:
        found.setdefault((run["data"], run["cell"]), []).append(run)
    return found


def table(runs: list[dict]) -> str:
    """Medians over seeds, in Markdown."""
    seeds = len({run["seed"] for run in runs})
    head = ("data", "cell", "train", "valid", "test", "test, each seed", "epochs", "CPU seconds", "Chung 2014, test", "Bai 2018, test")
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for (data, cell), of in grouped(runs).items():
        each = ", ".join(f"{run['test']:.2f}" for run in of)
        row = (TITLES[data], cell, f"{median(of, 'train'):.2f}", f"{median(of, 'valid'):.2f}", f"**{median(of, 'test'):.2f}**", each,
               f"{median(of, 'epochs'):.0f}", f"{median(of, 'seconds'):.0f}", *(f"{figures[cell]}" for figures in PUBLISHED[data].values()))  # fmt: skip
        lines.append("| " + " | ".join(row) + " |")
    best = []
    for data in dict.fromkeys(run["data"] for run in runs):
        best.append(f"{TITLES[data]}: {min((median(of, 'test'), cell) for (d, cell), of in grouped(runs).items() if d == data)[1]}")
    unit = f"Medians of {seeds} seeds; negative log-likelihood in nats a predicted step."
    return "\n".join([*lines, "", f"{unit} The lowest test figure: {'; '.join(best)}.", ""])


def draw(runs: list[dict], path: Path) -> None:
    """For each data set: validation over epochs, and test figures of all seeds beside the published ones."""
    names = list(dict.fromkeys(run["data"] for run in runs))
    figure, grid = plot.pyplot().subplots(len(names), 2, figsize=(8, 3 * len(names)), squeeze=False, layout="constrained", width_ratios=(3, 2))
    for (curves, dots), data in zip(grid, names):
        for place, (cell, colour) in enumerate(COLOURS.items()):
            of = [run for run in runs if run["data"] == data and run["cell"] == cell]
            for run in of:
                seconds = [k * run["seconds"] / len(run["curve"]) for k in range(1, len(run["curve"]) + 1)]
                curves.plot(seconds, run["curve"], color=colour, linewidth=1, label=cell if run is of[0] else None)
            dots.plot([place] * len(of), [run["test"] for run in of], "o", color=colour, markersize=5)
            for mark, (source, figures) in zip("x+", PUBLISHED[data].items()):
                dots.plot([place + 0.2], [figures[cell]], mark, color="black", markersize=6, label=source if not place else None)
        last = max(run["curve"][-1] for run in runs if run["data"] == data)
        curves.set(title=f"{TITLES[data]}: validation", xlabel="CPU seconds of training", ylabel="nats a step")
        curves.set(ylim=(None, last * 1.25), xscale="log")
        dots.set(title="test: three seeds, and published", xticks=range(len(COLOURS)), xticklabels=COLOURS)
        curves.legend(frameon=False, fontsize=8)
        dots.legend(frameon=False, fontsize=8)
    plot.save(figure, path)
