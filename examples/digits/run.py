"""Handwritten digits read row by row: RNN, GRU and LSTM see eight rows of eight pixels, and say which digit it was.

    python examples/digits/run.py [--quick] [--out FOLDER]          # ten seconds; needs fastrnn[examples]

Data: the 1,797 digits that scikit-learn ships (UCI, test set of Alpaydin and Kaynak 1998); the last 360, by other writers, are the test. Prints a
table of test accuracies after each row, read by a stream one row at a time, beside logistic regression on all pixels, and writes digits.svg.
"""

import argparse
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

import fastrnn as fr
import fastrnn.training as tr
from fastrnn.cli import plot

HIDDEN, TEST, VALID = 48, 360, 200
CELLS = {"RNN": tr.RNN, "GRU": tr.GRU, "LSTM": tr.LSTM}


def fit(cell: str, x: np.ndarray, digits: np.ndarray, epochs: int) -> tr.Sequential:
    """Reads x (n, 8, 8) row by row; answers after the last."""
    net = tr.Sequential(CELLS[cell](8, HIDDEN), tr.Last(), tr.Dropout(0.2), tr.Linear(HIDDEN, 10), seed=0)
    rows = [tr.Sequences(x[part].swapaxes(0, 1), digits[part], per_sequence=True) for part in (slice(VALID, None), slice(VALID))]
    tr.fit(net, tr.cross_entropy, *rows, optimiser=tr.AdamW(net, lr=5e-3, weight_decay=1e-2), epochs=epochs, batch_size=32, clip_norm=1.0, patience=10)
    return net


def read(net: tr.Sequential, x: np.ndarray) -> np.ndarray:
    """Logits after each row, (8, n, 10): the layer and the readout without Last, stepped."""
    stream = fr.compile(tr.Sequential(net.layers[0], net.layers[-1]).to_model()).stream(batch=len(x))
    return np.stack([stream.step(np.ascontiguousarray(x[:, row])) for row in range(8)])


def draw(logits: np.ndarray, x: np.ndarray, path: Path) -> None:
    """A few digits, and what the net holds them for as rows come in."""
    pyplot = plot.pyplot()
    figure, grid = pyplot.subplots(2, len(x), figsize=(8, 3), layout="constrained", height_ratios=(1, 1.4))
    for k, (image, certainty) in enumerate(zip(x, np.exp(logits - np.logaddexp.reduce(logits, -1, keepdims=True)).swapaxes(0, 1))):
        grid[0, k].imshow(image, cmap="Greys")
        grid[1, k].imshow(certainty, cmap="Blues", vmin=0, vmax=1, aspect="auto")
        grid[0, k].set(xticks=[], yticks=[])
        grid[1, k].set(xticks=range(0, 10, 3), yticks=[])
    grid[1, 0].set(xlabel="held for", ylabel="after row", yticks=range(0, 8, 2), yticklabels=range(1, 9, 2))
    plot.save(figure, path)


def main() -> None:
    """Three cells, a table, a picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="two epochs: whether it runs")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="where the plot goes")
    given = parser.parse_args()
    images, digits = load_digits(return_X_y=True)
    x = (images / 16).astype(np.float32).reshape(-1, 8, 8)
    shown = Table(*("", *(f"row {row}" for row in range(1, 9))), title="test accuracy, %, after each row")
    for cell in CELLS:
        net = fit(cell, x[:-TEST], digits[:-TEST], 2 if given.quick else 60)
        logits = read(net, x[-TEST:])
        shown.add_row(cell, *(f"{100 * share:.1f}" for share in (logits.argmax(-1) == digits[-TEST:]).mean(1)))
    linear = LogisticRegression(max_iter=2000).fit(images[:-TEST] / 16, digits[:-TEST]).score(images[-TEST:] / 16, digits[-TEST:])
    shown.add_row("all pixels, linear", *[""] * 7, f"{100 * linear:.1f}")
    Console().print(shown)
    given.out.mkdir(parents=True, exist_ok=True)
    draw(logits[:, :8], x[-TEST:][:8], given.out / "digits.svg")


if __name__ == "__main__":
    main()
