"""Trains a character model on the standard library's sources with fastrnn alone, then writes Python: temperature and top-k, a character a step.

    python examples/characters/write.py [--quick] [--seconds 45] [--temperature 0.6] [--top-k 10] [--start "class "]

Embedding(97, 32) -> GRU(32, 128) -> Linear(128, 97), as the model that run.py converts. Every tenth module is held out. Prints how well the
model predicts it, in bits a character, and what it writes at several temperatures. Needs fastrnn[cli].
"""

import argparse
import sys
import time

import numpy as np
from rich.console import Console
from rich.progress import Progress, TimeElapsedColumn
from rich.syntax import Syntax
from text import VOCABULARY, decode, encode, library_sources

import fastrnn as fr
import fastrnn.training as tr

EMBEDDING, HIDDEN, STRANDS, STEPS, RATE = 32, 128, 32, 64, 6e-3


def corpus() -> tuple[np.ndarray, np.ndarray]:
    """Token ids to train on, and those of the modules held out."""
    texts = [encode(path.read_text(encoding="utf-8", errors="replace")) for path in library_sources()]
    return np.concatenate([text for k, text in enumerate(texts) if k % 10]), np.concatenate(texts[::10])


def train(tokens: np.ndarray, seconds: float) -> tuple[tr.Sequential, int]:
    """Truncated backpropagation over parallel strands of the text for so long; the net, and how many characters it has read."""
    net = tr.Sequential(tr.Embedding(VOCABULARY, EMBEDDING), tr.GRU(EMBEDDING, HIDDEN), tr.Linear(HIDDEN, VOCABULARY), seed=0)
    strands = tokens[: len(tokens) // STRANDS * STRANDS].reshape(STRANDS, -1).T.copy()
    optimiser, state, at, read, began = tr.AdamW(net, lr=RATE, weight_decay=1e-3), tr.State(), 0, 0, time.perf_counter()
    with Progress(*Progress.get_default_columns(), TimeElapsedColumn(), console=Console(stderr=True)) as bar:
        task = bar.add_task("training", total=seconds)
        while (passed := time.perf_counter() - began) < seconds:
            if at + STEPS >= len(strands):
                at = 0
                state.reset()
            chunk = strands[at : at + STEPS + 1]
            loss, grads = tr.value_and_grad(net, tr.cross_entropy, chunk[:-1], chunk[1:], state=state)
            tr.clip_grad_norm(grads, 1.0)
            optimiser.lr = RATE * max(0.05, 1 - passed / seconds)
            optimiser.step(grads)
            at, read = at + STEPS, read + STEPS * STRANDS
            bar.update(task, completed=passed, description=f"{read / 1e6:.1f} M characters, {loss / np.log(2):.2f} bits")
    return net, read


def bits(net: tr.Sequential, tokens: np.ndarray) -> float:
    """Mean surprise on a text."""
    return tr.value(net, tr.cross_entropy, tokens[:-1, None], tokens[1:, None]) / np.log(2)


def sample(logits: np.ndarray, random: np.random.Generator, temperature: float, top_k: int) -> int:
    """A token drawn from the k likeliest, p proportional to exp(logit / temperature)."""
    likeliest = np.argpartition(logits, -top_k)[-top_k:]
    p = np.exp((logits[likeliest] - logits.max()) / np.float64(temperature))
    return int(random.choice(likeliest, p=p / p.sum()))


def write(stream: fr.Stream, start: str, characters: int, temperature: float, top_k: int, seed: int = 0) -> str:
    """The start carried on."""
    random, tokens = np.random.default_rng(seed), list(encode(start))
    stream.reset()
    logits = stream.push(np.array(tokens)[:, None])[-1, 0]
    for _ in range(characters):
        tokens.append(sample(logits, random, temperature, top_k))
        logits = stream.step(np.array(tokens[-1:]))[0]
    return decode(tokens)


def main() -> None:
    """Trains, measures, writes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=45, help="how long to train")
    parser.add_argument("--quick", action="store_true", help="train for two seconds: whether it runs")
    parser.add_argument("--temperature", type=float, nargs="*", default=[0.3, 0.6, 1.0], help="below 1: safer; above: bolder")
    parser.add_argument("--top-k", type=int, default=20, help="from how many characters each is drawn")
    parser.add_argument("--start", default="class Stream:\n    def ", help="what is carried on")
    given = parser.parse_args()
    training, held_out = corpus()
    net, read = train(training, 2 if given.quick else given.seconds)
    sys.stdout.reconfigure(errors="replace")  # what is written may hold characters that a locale lacks
    console = Console()
    console.print(f"read {read / 1e6:.1f} million characters; {bits(net, held_out[:50_000]):.2f} bits a character on modules held out")
    stream, began = fr.compile(net.to_model()).stream(), time.perf_counter()
    for temperature in given.temperature:
        text = write(stream, given.start, 300, temperature, min(given.top_k, VOCABULARY))
        console.rule(f"temperature {temperature}, the {given.top_k} likeliest")
        console.print(Syntax(text, "python", background_color="default"))
    console.rule(f"{1e6 * (time.perf_counter() - began) / 300 / max(1, len(given.temperature)):.0f} us a character, drawing it included")


if __name__ == "__main__":
    main()
