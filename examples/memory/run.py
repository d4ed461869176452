"""The adding and the copying problem over 100 and 400 steps: a plain RNN fails, LSTM and GRU succeed.

    python examples/memory/run.py [--quick] [--only adding] [--out FOLDER]          # a quarter of an hour; needs fastrnn[examples]

Writes results.json, results.md and results.svg beside this file. Losses are those of batches drawn anew, so of training and test alike.
"""

import argparse
import json
import sys
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.markdown import Markdown
from rich.progress import Progress
from tasks import BLANK, SYMBOLS, adding, copying

import fastrnn.training as tr
from fastrnn.cli import plot

HIDDEN, BATCH, CLIP, WINDOW = 64, 32, 1.0, 50
CELLS = {"RNN": tr.RNN, "LSTM": tr.LSTM, "GRU": tr.GRU}
RATES = {"RNN": 1e-3, "LSTM": 5e-3, "GRU": 5e-3}  # an RNN is thrown about by more
COLOURS = {"RNN": "#999999", "GRU": "#e69f00", "LSTM": "#0072b2"}
# What a net reaches that remembers nothing, when to stop, and the most batches.
TASKS = {"adding": (1 / 6, 0.002, 1500), "copying": (float(np.log(SYMBOLS)), 0.05, 4000)}
LOSSES = {"adding": "mean squared error", "copying": "cross-entropy of the recalled symbols, nats"}


def remember(layer, T: int, random: np.random.Generator) -> None:
    """Half the units start with memories of 1 to T steps: their keeping gates get biases log U(1, T) (Tallec and Ollivier 2018).

    An RNN has no gate to keep with.
    """
    own, slow = layer.parameters(), HIDDEN // 2
    bias = np.log(random.uniform(1, T, slow))
    if isinstance(layer, tr.LSTM):  # i f g o
        own["bias_ih_l0"][HIDDEN : HIDDEN + slow], own["bias_ih_l0"][:slow] = bias, -bias
    elif isinstance(layer, tr.GRU):  # r z n: z keeps
        own["bias_ih_l0"][HIDDEN : HIDDEN + slow] = bias


def network(task: str, cell: str, T: int, seed: int) -> tr.Sequential:
    """One layer, and an answer at the end, or at every step."""
    layer = CELLS[cell](2 if task == "adding" else SYMBOLS + 2, HIDDEN)
    answer = (tr.Last(), tr.Linear(HIDDEN, 1)) if task == "adding" else (tr.Linear(HIDDEN, SYMBOLS),)
    net = tr.Sequential(layer, *answer, seed=seed)
    remember(layer, T, np.random.default_rng(seed))
    return net


def train(task: str, T: int, cell: str, batches: int, on_batch, seed: int = 0) -> dict:
    """Batches drawn anew until the mean loss of the last 50 is as low as wanted; each 50's mean."""
    enough = TASKS[task][1]
    net, random = network(task, cell, T, seed), np.random.default_rng(seed)
    optimiser, losses, curve = tr.Adam(net, lr=RATES[cell]), [], []
    for k in range(batches):
        if task == "adding":
            x, target = adding(random, T, BATCH)
            loss, grads = tr.value_and_grad(net, tr.mean_squared_error, x, target)
        else:
            x, target = copying(random, T, BATCH)
            loss, grads = tr.value_and_grad(net, tr.cross_entropy, x, target, mask=target != BLANK)
        tr.clip_grad_norm(grads, CLIP)
        optimiser.step(grads)
        losses.append(loss)
        if (k + 1) % WINDOW == 0:
            curve.append(float(np.mean(losses[-WINDOW:])))
            on_batch(k + 1, curve[-1])
            if curve[-1] < enough:
                break
    return {"task": task, "T": T, "cell": cell, "batches": len(losses), "loss": curve[-1], "curve": curve}


def table(runs: list[dict]) -> str:
    """Markdown."""
    lines = ["| problem | T | cell | loss at the end | remembering nothing | batches of 32 |", "|---|---|---|---|---|---|"]
    lines += [f"| {r['task']} | {r['T']} | {r['cell']} | **{r['loss']:.4f}** | {TASKS[r['task']][0]:.4f} | {r['batches']} |" for r in runs]
    losses = "; ".join(f"{task}: {name}" for task, name in LOSSES.items())
    return "\n".join([*lines, "", f"Losses: {losses}; means of the last {WINDOW} batches.", ""])


def draw(runs: list[dict], path: Path) -> None:
    """Losses over batches, a panel a task and length."""
    panels = list(dict.fromkeys((r["task"], r["T"]) for r in runs))
    figure, grid = plot.pyplot().subplots(1, len(panels), figsize=(2.6 * len(panels), 2.8), squeeze=False, layout="constrained")
    for axes, (task, T) in zip(grid.flat, panels):
        for run in (r for r in runs if (r["task"], r["T"]) == (task, T)):
            axes.plot(WINDOW * np.arange(1, len(run["curve"]) + 1), run["curve"], color=COLOURS[run["cell"]], linewidth=1, label=run["cell"])
        axes.axhline(TASKS[task][0], color="black", linewidth=0.7, linestyle="--")
        axes.set(title=f"{task}, T = {T}", xlabel="batches", yscale="log")
    grid.flat[0].legend(frameon=False, fontsize=8)
    plot.save(figure, path)


def main() -> None:
    """All problems, lengths and cells."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=TASKS, help="one of the problems")
    parser.add_argument("--quick", action="store_true", help="adding over 20 steps, few batches: whether it runs")
    parser.add_argument("--out", type=Path, help="where results go: beside this file, or with --quick in a new folder")
    given = parser.parse_args()
    cases = [("adding", 20)] if given.quick else [(task, T) for task in TASKS if given.only in (None, task) for T in (100, 400)]
    runs = []
    with Progress(console=Console(stderr=True)) as bar:
        for task, T in cases:
            for cell in CELLS:
                batches = 300 if given.quick else TASKS[task][2]
                row = bar.add_task(f"{task} T={T} {cell}", total=batches)
                runs.append(train(task, T, cell, batches, partial(show, bar, row, f"{task} T={T} {cell}")))
    out = given.out or (Path(tempfile.mkdtemp()) if given.quick else Path(__file__).parent)
    out.mkdir(parents=True, exist_ok=True)
    rounded = [{key: np.round(value, 5).tolist() if isinstance(value, (float, list)) else value for key, value in run.items()} for run in runs]
    (out / "results.json").write_text("[\n" + ",\n".join(map(json.dumps, rounded)) + "\n]\n")
    (out / "results.md").write_text(table(runs))
    draw(runs, out / "results.svg")
    sys.stdout.reconfigure(errors="replace")  # rich shortens words with an ellipsis, which not every locale has
    Console().print(Markdown(table(runs)))


def show(bar: Progress, row, name: str, batches: int, loss: float) -> None:
    """Where a run stands."""
    bar.update(row, completed=batches, description=f"{name} {loss:.4f}")


if __name__ == "__main__":
    main()
