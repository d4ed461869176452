"""Chung et al. 2014 rerun: tanh RNN, GRU and LSTM of equal size on polyphonic music, three seeds each, beside the published figures.

    OMP_NUM_THREADS=1 python examples/music/run.py [--data FOLDER] [--only jsb_chorales] [--quick] [--out FOLDER]     # needs fastrnn[examples]

Each cell predicts the next step's 88 keys from the steps before; scored by binary cross-entropy summed over keys, a predicted step.
Writes results.json, results.md and results.svg, and a chorale that the best net on JSB makes up, music.mid and music.svg.
The data is not shipped: jsb_chorales.npz and nottingham.npz are looked for in ../shared/data, beside the repository, or in FASTRNN_SHARED/data.
"""

import argparse
import json
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
from play import perform
from report import draw, table
from rich.console import Console
from rich.markdown import Markdown
from rich.progress import Progress
from rolls import FOLDER, read

import fastrnn.training as tr

DATA = ("jsb_chorales", "nottingham")
CELLS = {  # units as in the paper: each layer has between 18,000 and 19,100 parameters
    "tanh": lambda: tr.RNN(88, 100),
    "GRU": lambda: tr.GRU(88, 46, reset_after=False),
    "LSTM": lambda: tr.LSTM(88, 36, peepholes=True),
}
SEEDS = (0, 1, 2)
BATCH, CLIP = 16, 1.0
CHUNK = 100  # steps between two updates; states are carried on
RATE = 4e-3
# Epochs without a better validation figure: after more than the first, the rate is halved; after the second, training ends. JSB's are short.
WAIT, PATIENCE = {"jsb_chorales": 5, "nottingham": 3}, {"jsb_chorales": 12, "nottingham": 8}
loss = partial(tr.binary_cross_entropy, over="steps")


def pairs(pieces: list[np.ndarray]) -> tr.Sequences:
    """Each piece without its last step, and without its first: what is read and what is predicted."""
    return tr.Sequences([roll[:-1] for roll in pieces], [roll[1:] for roll in pieces], bucket=True)


def train(data: str, cell: str, seed: int, parts: dict[str, tr.Sequences], epochs: int, on_epoch=None) -> tuple[tr.Sequential, dict]:
    """A net at its best epoch, and what it reached on each part."""
    layer = CELLS[cell]()
    net = tr.Sequential(layer, tr.Linear(layer.gives, 88), seed=seed)
    optimiser, began = tr.Adam(net, lr=RATE), time.process_time()
    history = tr.fit(
        net,
        loss,
        parts["train"],
        parts["valid"],
        optimiser=optimiser,
        epochs=epochs,
        batch_size=BATCH,
        clip_norm=CLIP,
        tbptt=CHUNK,
        schedule=tr.ReduceOnPlateau(optimiser, 0.5, WAIT[data]),
        patience=PATIENCE[data],
        seed=seed,
        progress=False,
        on_epoch=on_epoch,
    )
    seconds = time.process_time() - began
    figures = {part: tr.evaluate(net, loss, sequences) for part, sequences in parts.items()}
    return net, {"data": data, "cell": cell, "seed": seed, "epochs": history.best_epoch + 1, "seconds": seconds, "curve": history.valid, **figures}


def show(bar: Progress, task, name: str, history: tr.History) -> None:
    """Where a run stands."""
    bar.update(task, description=f"{name}: epoch {len(history.valid)}, valid {history.valid[-1]:.3f}")


def compare(folder: Path, names: tuple[str, ...], seeds: tuple[int, ...], epochs: int) -> tuple[dict[str, tr.Sequential], list[dict]]:
    """Every cell from every seed on every data set: the best net on each by validation, and all figures."""
    runs, best = [], {}
    with Progress(console=Console(stderr=True)) as bar:
        task = bar.add_task("", total=len(names) * len(CELLS) * len(seeds))
        for data in names:
            parts = {part: pairs(pieces) for part, pieces in read(data, folder).items()}
            for cell in CELLS:
                for seed in seeds:
                    net, run = train(data, cell, seed, parts, epochs, partial(show, bar, task, f"{data} {cell} seed {seed}"))
                    if data not in best or run["valid"] < best[data][1]:
                        best[data] = net, run["valid"]
                    bar.console.print(f"{data} {cell} seed {seed}: test {run['test']:.3f} after {run['epochs']} epochs")
                    runs.append(run)
                    bar.advance(task)
    return {data: net for data, (net, _) in best.items()}, runs


def main() -> None:
    """The whole comparison, and a piece of music."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=FOLDER, help="folder of jsb_chorales.npz and nottingham.npz")
    parser.add_argument("--only", choices=DATA, help="one of the data sets; results of the other are kept")
    parser.add_argument("--quick", action="store_true", help="JSB, one seed, two epochs: whether it runs, not what it reaches")
    parser.add_argument("--out", type=Path, help="where results go: beside this file, or with --quick in a new folder")
    given = parser.parse_args()
    out = given.out or (Path(tempfile.mkdtemp()) if given.quick else Path(__file__).parent)
    names = (given.only,) if given.only else DATA[:1] if given.quick else DATA
    nets, runs = compare(given.data, names, SEEDS[:1] if given.quick else SEEDS, 2 if given.quick else 200)
    out.mkdir(parents=True, exist_ok=True)
    if given.only and (out / "results.json").exists():
        others = [run for run in json.loads((out / "results.json").read_text()) if run["data"] not in names]
        runs = sorted(runs + others, key=lambda run: DATA.index(run["data"]))
    (out / "results.json").write_text("[\n" + ",\n".join(json.dumps(rounded(run)) for run in runs) + "\n]\n")
    (out / "results.md").write_text(table(runs))
    draw(runs, out / "results.svg")
    sys.stdout.reconfigure(errors="replace")  # rich shortens words with an ellipsis, which not every locale has
    Console().print(Markdown(table(runs)))
    if names[0] == DATA[0]:
        print(f"music: {perform(nets[DATA[0]], read(DATA[0], given.data)['test'][0], out)}")


def rounded(run: dict) -> dict:
    """Figures to four places, for a file."""
    return {key: np.round(value, 4).tolist() if isinstance(value, (float, list)) else value for key, value in run.items()}


if __name__ == "__main__":
    main()
