"""Trains the character model that the project ships, in torch, on the standard library's own sources; then exports it.

    python examples/characters/train.py          # about five minutes on one core; needs fastrnn[torch]

Embedding(97, 32) -> GRU(32, 128) -> Linear(128, 97): 78,000 parameters. Every tenth module is held out. Writes
char_gru.safetensors (the model as fastrnn.from_torch makes it), char_gru.onnx (as torch's exporter writes it, with the state as input h
and output h_n) and expected.npz (a text and torch's logits for it) beside this file.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from text import VOCABULARY, encode, library_sources
from torch import nn

HERE = Path(__file__).parent
EMBEDDING, HIDDEN, BATCH, STEPS = 32, 128, 32, 100


class CharGRU(nn.Module):
    """Next-character logits, with the state carried by the caller."""

    def __init__(self):
        super().__init__()
        self.embedding, self.gru, self.head = nn.Embedding(VOCABULARY, EMBEDDING), nn.GRU(EMBEDDING, HIDDEN), nn.Linear(HIDDEN, VOCABULARY)

    def forward(self, tokens, state=None):
        """tokens (T, B) -> logits (T, B, vocabulary), state."""
        y, state = self.gru(self.embedding(tokens), state)
        return self.head(y), state


def corpus() -> tuple[np.ndarray, np.ndarray]:
    """Token ids of the training and of the held-out modules."""
    texts = [encode(path.read_text(encoding="utf-8", errors="replace")) for path in library_sources()]
    return np.concatenate([t for k, t in enumerate(texts) if k % 10]), np.concatenate(texts[::10])


def bits_per_character(model, tokens) -> float:
    """Mean surprise on a text."""
    with torch.no_grad():
        logits, _ = model(torch.from_numpy(tokens[:-1, None]))
        return float(nn.functional.cross_entropy(logits[:, 0], torch.from_numpy(tokens[1:]))) / np.log(2)


def train(iterations: int) -> CharGRU:
    """Truncated backpropagation over BATCH parallel strands of the corpus."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    model, (training, held_out) = CharGRU(), corpus()
    optimiser = torch.optim.AdamW(model.parameters(), lr=4e-3, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 6e-3, total_steps=iterations)
    strands = training[: len(training) // BATCH * BATCH].reshape(BATCH, -1).T.copy()
    position, state, started = 0, None, time.perf_counter()
    for iteration in range(1, iterations + 1):
        if position + STEPS + 1 > len(strands):
            position, state = 0, None
        chunk = torch.from_numpy(strands[position : position + STEPS + 1])
        position += STEPS
        logits, state = model(chunk[:-1], None if state is None else state.detach())
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), chunk[1:].flatten())
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        if iteration % 250 == 0 or iteration == iterations:
            print(
                f"{iteration:5d}/{iterations}  {loss.item() / np.log(2):.3f} bits/char in training, "
                f"{bits_per_character(model, held_out[:50_000]):.3f} held out, {time.perf_counter() - started:.0f} s",
                flush=True,
            )
    return model.eval()


def export(model: CharGRU) -> None:
    """Writes the model and what torch answers for a text it has not seen."""
    import fastrnn as fr

    converted = fr.from_torch(nn.Sequential(model.embedding, model.gru, model.head))
    converted.save(HERE / "char_gru.safetensors")
    example = torch.zeros(2, 1, dtype=torch.int64), torch.zeros(1, 1, HIDDEN)
    # the older exporter: the newer one writes GRUs as linear_before_reset=0, another function
    torch.onnx.export(
        model,
        example,
        HERE / "char_gru.onnx",
        input_names=["tokens", "h"],
        output_names=["logits", "h_n"],
        opset_version=17,
        dynamo=False,
        dynamic_axes={"tokens": {0: "T", 1: "B"}, "h": {1: "B"}, "logits": {0: "T", 1: "B"}, "h_n": {1: "B"}},
    )
    tokens = corpus()[1][:2_000]
    with torch.no_grad():
        logits, _ = model(torch.from_numpy(tokens[:200, None]))
    np.savez_compressed(HERE / "expected.npz", tokens=tokens[:200].astype(np.uint8), logits=logits[:, 0].numpy())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--iterations", type=int, default=5_000)
    parser.add_argument("--checkpoint", type=Path, help="where to keep torch's own state dict; read instead of training where it exists")
    arguments = parser.parse_args()
    if arguments.checkpoint and arguments.checkpoint.exists():
        trained = CharGRU()
        trained.load_state_dict(torch.load(arguments.checkpoint, weights_only=True))
    else:
        trained = train(arguments.iterations)
        if arguments.checkpoint:
            torch.save(trained.state_dict(), arguments.checkpoint)
    export(trained.eval())
