"""Handwritten digits read row by row: RNN, GRU and LSTM see eight rows of eight pixels, and say which digit it was.

    python examples/digits/run.py [--quick] [--out FOLDER]          # half a minute; needs fastrnn[examples]

Data: the 1,797 digits that scikit-learn ships (UCI, test set of Alpaydin and Kaynak 1998); the last 360 are the test. Prints a table
of test accuracies beside logistic regression on all pixels, one of a net that answers after each row, and writes digits.svg.
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

HIDDEN, TEST = 64, 360
CELLS = {"RNN": tr.RNN, "GRU": tr.GRU, "LSTM": tr.LSTM}


def fit(net: tr.Sequential, x: np.ndarray, digits: np.ndarray, epochs: int, per_sequence: bool) -> tr.Sequential:
    """Reads x (8, n, 8) row by row; a target for each image, or for each of its rows."""
    data = tr.Sequences(x, digits if per_sequence else np.tile(digits, (8, 1)), per_sequence=per_sequence)
    optimiser = tr.AdamW(net, lr=3e-3, weight_decay=1e-2)
    tr.fit(net, tr.cross_entropy, data, optimiser=optimiser, epochs=epochs, batch_size=32, clip_norm=1.0, schedule=tr.CosineLR(optimiser, epochs))
    return net


def read(net: tr.Sequential, x: np.ndarray) -> np.ndarray:
    """Logits after each row of x (8, n, 8), from a stream that is handed one row at a time: (8, n, 10)."""
    stream = fr.compile(net.to_model()).stream(batch=x.shape[1])
    return np.stack([stream.step(row) for row in x])


def draw(logits: np.ndarray, x: np.ndarray, path: Path) -> None:
    """A few digits, and what the net holds them for as rows come in."""
    pyplot = plot.pyplot()
    figure, grid = pyplot.subplots(2, x.shape[1], figsize=(8, 3), layout="constrained", height_ratios=(1, 1.4))
    for k, (image, certainty) in enumerate(zip(x.swapaxes(0, 1), np.exp(logits - np.logaddexp.reduce(logits, -1, keepdims=True)).swapaxes(0, 1))):
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
    x = np.ascontiguousarray((images / 16).astype(np.float32).reshape(-1, 8, 8).swapaxes(0, 1))
    (known, test), (of_known, of_test) = (x[:, :-TEST], x[:, -TEST:]), (digits[:-TEST], digits[-TEST:])
    shown, epochs = Table("", "parameters", "test accuracy, %", title="one answer, after the last row"), 2 if given.quick else 60
    linear = LogisticRegression(max_iter=2000).fit(images[:-TEST] / 16, of_known)
    shown.add_row("linear, all pixels at once", str(linear.coef_.size + 10), f"{100 * linear.score(images[-TEST:] / 16, of_test):.1f}")
    for name, cell in CELLS.items():
        net = fit(tr.Sequential(cell(8, HIDDEN), tr.Last(), tr.Dropout(0.3), tr.Linear(HIDDEN, 10), seed=0), known, of_known, epochs, True)
        size = sum(array.size for array in net.parameters().values())
        shown.add_row(name, str(size), f"{100 * (net(test).argmax(-1) == of_test).mean():.1f}")
    logits = read(fit(tr.Sequential(tr.GRU(8, HIDDEN), tr.Dropout(0.3), tr.Linear(HIDDEN, 10), seed=0), known, of_known, epochs, False), test)
    rows = Table(*(f"row {row}" for row in range(1, 9)), title="GRU, an answer after each row: test accuracy, %")
    rows.add_row(*(f"{100 * share:.1f}" for share in (logits.argmax(-1) == of_test).mean(1)))
    Console().print(shown, rows)
    given.out.mkdir(parents=True, exist_ok=True)
    draw(logits[:, :8], test[:, :8], given.out / "digits.svg")


if __name__ == "__main__":
    main()
