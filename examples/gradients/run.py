"""How far back a loss reaches: the norm of dL/dh_t over 200 steps in an RNN, an LSTM and a GRU, and what clipping does where it explodes.

    python examples/gradients/run.py [--quick] [--out FOLDER]          # ten seconds; needs fastrnn[plot]

Untrained nets read noise, and the loss looks at the last step alone. Prints norms, spectral radii and saturation; writes flow.svg and clipping.svg.
"""

import argparse
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

import fastrnn.training as tr
from fastrnn.cli import plot
from fastrnn.training.diagnostics import hidden_gradients, saturation, spectral_radius

STEPS, BATCH, INPUTS, HIDDEN, OPEN = 200, 32, 4, 64, 5.0
COLOURS = ("#999999", "#d55e00", "#0072b2", "#56b4e9", "#e69f00", "#f0c808")


def rnn(radius: float) -> tr.RNN:
    """A tanh RNN with a random recurrent matrix of this spectral radius, and inputs small enough to leave tanh steep."""
    layer = tr.RNN(INPUTS, HIDDEN, seed=1)
    own = layer.parameters()
    own["weight_hh_l0"][...] = np.random.default_rng(1).standard_normal((HIDDEN, HIDDEN))
    own["weight_hh_l0"] *= radius / spectral_radius(layer)["a"]
    own["weight_ih_l0"] *= 0.1
    return layer


def keeping(layer, gate: slice):
    """A gated layer whose keeping gate starts nearly open, at sigmoid(5) = 0.993."""
    layer.parameters()["bias_ih_l0"][gate] = OPEN
    return layer


def layers() -> dict[str, tr.Layer]:
    """Untrained layers by name."""
    kept = slice(HIDDEN, 2 * HIDDEN)  # f of an LSTM, z of a GRU
    found = {"RNN, radius 0.9": rnn(0.9), "RNN, radius 2": rnn(2.0)}
    for name, cell, gate in (("LSTM", tr.LSTM, "f"), ("GRU", tr.GRU, "z")):
        found[name], found[f"{name}, {gate} open"] = cell(INPUTS, HIDDEN, seed=1), keeping(cell(INPUTS, HIDDEN, seed=1), kept)
    return found


def last_step(prediction: np.ndarray, target: np.ndarray) -> tuple[float, np.ndarray]:
    """A loss with gradient 1 by every output."""
    return float(prediction.sum()), np.ones_like(prediction)


def flow(path: Path) -> tuple[Table, Table]:
    """Norms of dL/dh_t over how far back t is, drawn and in a table; and one of what gates do."""
    x = np.random.default_rng(0).standard_normal((STEPS, BATCH, INPUTS)).astype(np.float32)
    figure, axes = plot.pyplot().subplots(figsize=(7, 3.6))
    shown = Table("", *(f"{back} back" for back in (1, 50, 100, 199)), title="norm of dL/dh_t, relative to the last step's")
    gates = Table("", "spectral radius", "nearly closed / open, %", title="recurrent matrices, and values of gates")
    for colour, (name, layer) in zip(COLOURS, layers().items()):
        norms = hidden_gradients(tr.Sequential(layer, tr.Last()), last_step, x, np.zeros(BATCH)).mean(1)[::-1]
        norms /= norms[0]
        axes.plot(norms, color=colour, linewidth=1.5, label=name)
        shown.add_row(name, *(f"{norms[back]:.1e}" for back in (1, 50, 100, 199)))
        radii = [f"{gate} {radius:.2f}" for gate, radius in spectral_radius(layer).items()]
        shares = [f"{gate} {100 * low:.0f}/{100 * high:.0f}" for gate, (low, high) in saturation(layer, x).items()]
        gates.add_row(name, " ".join(radii), " ".join(shares))
    axes.set(
        yscale="log", ylim=(1e-12, 1e12), title="How far back the loss reaches", xlabel="steps before the loss", ylabel="norm of dL/dh, relative"
    )
    axes.legend(frameon=False, fontsize=8, ncols=3, loc="upper left")
    plot.save(figure, path)
    return shown, gates


def train(clip: float | None, updates: int) -> tuple[list[float], list[float]]:
    """An RNN of radius 2 learns by SGD to tell the mean of its inputs at every step; losses, and norms of the gradient before clipping."""
    net, random = tr.Sequential(rnn(2.0), tr.Linear(HIDDEN, 1, seed=1)), np.random.default_rng(0)
    optimiser, losses, norms = tr.SGD(net, lr=0.05), [], []
    for _ in range(updates):
        x = random.standard_normal((STEPS, BATCH, INPUTS)).astype(np.float32)
        loss, grads = tr.value_and_grad(net, tr.mean_squared_error, x, x.mean(2, keepdims=True))
        losses.append(loss)
        norms.append(tr.clip_grad_norm(grads, np.finfo(np.float32).max if clip is None else clip))
        optimiser.step(grads)
    return losses, norms


def clipping(path: Path, updates: int) -> None:
    """Losses and norms with and without clipping."""
    figure, (left, right) = plot.pyplot().subplots(1, 2, figsize=(8, 3), layout="constrained")
    for clip, colour, name in ((None, "#d55e00", "not clipped"), (1.0, "#0072b2", "norm clipped to 1")):
        losses, norms = train(clip, updates)
        left.plot(losses, color=colour, linewidth=1, label=name)
        right.plot(norms, color=colour, linewidth=1, label=name)
    right.axhline(1, color="black", linewidth=0.7, linestyle="--")
    left.set(yscale="log", xlabel="updates", ylabel="mean squared error", title="RNN of radius 2, SGD")
    right.set(yscale="log", xlabel="updates", ylabel="norm before clipping", title="its gradient")
    left.legend(frameon=False, fontsize=8)
    plot.save(figure, path)


def main() -> None:
    """Both plots and the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few updates: whether it runs")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="where the plots go")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    Console().print(*flow(given.out / "flow.svg"))
    clipping(given.out / "clipping.svg", 10 if given.quick else 250)


if __name__ == "__main__":
    main()
