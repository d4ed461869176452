"""A trained net plays: chords sampled one step at a time through a stream, written as MIDI and drawn as a piano roll."""

from pathlib import Path

import numpy as np
from rolls import KEYS, LOWEST, write_midi

import fastrnn as fr
from fastrnn.cli import plot


def play(net, opening: np.ndarray, steps: int, temperature: float, seed: int) -> np.ndarray:
    """The opening (n, 88) and `steps` chords after it, (n + steps, 88). Each key is drawn by itself, with p = sigmoid(logit / temperature)."""
    stream, random = fr.compile(net.to_model()).stream(), np.random.default_rng(seed)
    roll = [*opening]
    logits = stream.push(opening[:, None])[-1]
    for _ in range(steps):
        roll.append((random.random(KEYS) < 1 / (1 + np.exp(-logits[0] / temperature))).astype(np.float32))
        logits = stream.step(roll[-1][None])
    return np.stack(roll)


def draw(path: Path, roll: np.ndarray, opening: int, title: str) -> None:
    """Keys over time; what was given and what was drawn, in two colours."""
    figure, axes = plot.pyplot().subplots(figsize=(8, 2.6))
    for begin, end, colour, label in ((0, opening, "#999999", "given"), (opening, len(roll), "#0072b2", "sampled")):
        step, key = np.nonzero(roll[begin:end])
        axes.plot(step + begin, key + LOWEST, "s", markersize=2, color=colour, label=label, markeredgewidth=0)
    axes.set(title=title, xlabel="step", ylabel="MIDI key")
    axes.legend(frameon=False, fontsize=8, loc="lower right", ncols=2)
    plot.save(figure, path)


def perform(net, piece: np.ndarray, folder: Path, opening: int = 8, steps: int = 160, temperature: float = 0.8, seed: int = 0) -> Path:
    """music.mid and music.svg in a folder: the first steps of a piece that the net has not seen, carried on."""
    roll = play(net, piece[:opening], steps, temperature, seed)
    write_midi(folder / "music.mid", roll)
    draw(folder / "music.svg", roll, opening, f"Carried on by the net, temperature {temperature}")
    return folder / "music.mid"
