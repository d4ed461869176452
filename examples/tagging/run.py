"""What is each character of a line of Python: comment, string, keyword, name, number, operator? A bidirectional LSTM learns it from tokenize.

    python examples/tagging/run.py [--quick] [--out FOLDER]          # a minute; needs fastrnn[examples]

Data: the standard library's own modules, one sequence a logical line, labelled by the standard library's tokenizer; every tenth module is the test.
Prints shares found beside an LSTM that reads forward only and each character's usual kind, and writes tagging.svg, lines as the net sees them.
"""

import argparse
from pathlib import Path

import numpy as np
from labels import CHARACTERS, KINDS, modules, read
from rich.console import Console
from rich.table import Table

import fastrnn as fr
import fastrnn.training as tr
from fastrnn.cli import plot

EMBEDDING, HIDDEN = 24, 48
SHOWN = (
    "for value in values[1:]: print(f'{value!r} # no comment', 0x1F, end='')  # but this is one",
    "def format_in(formatter, not_='a\\'b', *, is_=None) -> 'str | None':",
)
COLOURS = ("#ffffff", "#999999", "#009e73", "#0072b2", "#000000", "#d55e00", "#e69f00")


def network(bidirectional: bool) -> tr.Sequential:
    """A kind for each character; both directions together have as many units as one alone."""
    layer = tr.LSTM(EMBEDDING, HIDDEN if bidirectional else 2 * HIDDEN, bidirectional=bidirectional)
    return tr.Sequential(tr.Embedding(CHARACTERS, EMBEDDING), layer, tr.Linear(layer.gives, len(KINDS)), seed=0)


def fit(net: tr.Sequential, lines: tr.Sequences, epochs: int) -> None:
    """Batches of lines of like lengths."""
    optimiser = tr.Adam(net, lr=1e-2)
    tr.fit(net, tr.cross_entropy, lines, optimiser=optimiser, epochs=epochs, batch_size=32, clip_norm=1.0, schedule=tr.CosineLR(optimiser, epochs))


def shares(found: np.ndarray, labels: np.ndarray) -> list[float]:
    """Accuracy over all characters, and for each kind the share of it that was found."""
    return [float((found == labels).mean()), *(float((found[labels == k] == k).mean()) for k in range(len(KINDS)))]


def tag(session: fr.Session, codes: np.ndarray) -> np.ndarray:
    """The kind of each character of a line, through the engine."""
    return session(codes[:, None])[:, 0].argmax(-1)


def draw(session: fr.Session, path: Path) -> None:
    """Lines in the colours of what they are held for."""
    figure, axes = plot.pyplot().subplots(figsize=(9, 1.1))
    axes.set(xlim=(0, max(map(len, SHOWN))), ylim=(-0.2, len(SHOWN) + 0.8))
    axes.axis("off")
    for row, line in enumerate(SHOWN):
        for column, (character, kind) in enumerate(zip(line, tag(session, np.array([ord(c) for c in line])))):
            axes.text(column, len(SHOWN) - 1 - row, character, family="monospace", color=COLOURS[kind] if kind else "black", fontsize=8)
    for k, (kind, colour) in enumerate(zip(KINDS[1:], COLOURS[1:])):
        axes.text(10 * k, len(SHOWN) + 0.2, kind, color=colour, fontsize=8, weight="bold")
    plot.save(figure, path)


def main() -> None:
    """Two networks and a table of characters."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a few modules, one epoch: whether it runs")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="where the plot goes")
    given = parser.parse_args()
    paths = modules()[:6] if given.quick else modules()
    (xs, ys), (test_xs, test_ys) = read([path for k, path in enumerate(paths) if k % 10]), read(paths[::10])
    if not given.quick:  # enough for a minute
        chosen = np.random.default_rng(0).permutation(len(xs))[:12_000]
        xs, ys = [xs[k] for k in chosen], [ys[k] for k in chosen]
    codes, labels = np.concatenate(test_xs), np.concatenate(test_ys)
    counts = np.zeros((CHARACTERS, len(KINDS)))
    np.add.at(counts, (np.concatenate(xs), np.concatenate(ys)), 1)
    columns = {"usual kind": shares(counts.argmax(1)[codes], labels)}
    for name, bidirectional in (("LSTM, forward", False), ("LSTM, both directions", True)):
        net = network(bidirectional)
        fit(net, tr.Sequences(xs, ys, bucket=True), 1 if given.quick else 3)
        session = fr.compile(net.to_model())
        columns[name] = shares(np.concatenate([tag(session, line) for line in test_xs]), labels)
    shown = Table("found, %", *columns, title=f"{len(codes):,} characters of modules held out")
    for kind, found in zip(("all", *KINDS), zip(*columns.values())):
        shown.add_row(kind, *(f"{100 * share:.1f}" for share in found))
    Console().print(shown)
    given.out.mkdir(parents=True, exist_ok=True)
    draw(session, given.out / "tagging.svg")


if __name__ == "__main__":
    main()
