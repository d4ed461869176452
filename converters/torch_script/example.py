"""Example inputs for a TorchScript module: tensors of two and three axes whose last is a width that some weight has, until its code takes one. Tried without computing anything."""

from __future__ import annotations

import ast
import itertools

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from fastrnn.errors import FastRNNError, UnsupportedModelError

REFUSALS = (RuntimeError, ValueError, IndexError, TypeError, AssertionError, KeyError)
MOST_TRIED = 128
BATCHES, STEPS = (3, 1), 5


def _shapes(annotation: ast.expr | None, widths: list[int], states: list[int], batch: int):
    """Shapes that an argument of this type may have, nested as it is."""
    text = "Tensor" if annotation is None else ast.unparse(annotation)
    if text == "Tensor":
        leading = (
            [(STEPS, batch), (batch, STEPS), (batch,), ()] if states else [(batch,), (STEPS, batch), (batch, STEPS), ()]
        )  # recurrent layers take unbatched rows, too
        return [(*lead, width) for width in widths for lead in leading]
    if text.startswith("Optional["):
        return [None]
    if text.startswith("Tuple[") and set(text[6:-1].replace(" ", "").split(",")) == {"Tensor"}:
        n = len(text[6:-1].split(","))
        return [tuple([("state", layers, batch, width)] * n) for width in states for layers in (1, 2, 3, 4)]
    raise UnsupportedModelError(f"an argument of type {text} has to be given as an example")


def find_example(module) -> tuple | None:
    """Arguments that the module takes, float32; None where there are none to be found. Raises UnsupportedModelError for arguments of other types, and where its code cannot be followed
    with any."""
    tensors = [t for _, t in itertools.chain(module.named_parameters(), module.named_buffers())]
    widths = list(dict.fromkeys(int(t.shape[1]) for t in tensors if t.dim() >= 2))
    states = list(dict.fromkeys(int(t.shape[1]) for name, t in module.named_parameters() if "weight_hh" in name or "weight_hr" in name))
    refused: list[FastRNNError] = []
    for batch in BATCHES:
        choices = [_shapes(a, widths, states, batch) for a in module.annotations.values()]
        for shapes in itertools.islice(itertools.product(*choices), MOST_TRIED):
            if _takes(module, shapes, refused):
                generator = torch.Generator().manual_seed(0)
                return tuple(_made(s, lambda size, generator=generator: torch.randn(size, generator=generator) / 2) for s in shapes)
    if refused:
        raise refused[0]
    return None


def _made(shape, make):
    if shape is None:
        return None
    return tuple(make(s[1:]) for s in shape) if shape and isinstance(shape[0], tuple) else make(shape)


def _takes(module, shapes, refused: list[FastRNNError]) -> bool:
    """Whether the module's code runs with inputs of these shapes; its buffers stay as they are, since what runs is shapes alone. refused: told why the code itself is not followed."""
    with FakeTensorMode(allow_non_fake_inputs=True) as mode, torch.no_grad():
        named = {name: mode.from_tensor(t.detach().clone()) for name, t in itertools.chain(module.named_parameters(), module.named_buffers())}
        try:
            torch.func.functional_call(module, named, tuple(_made(s, torch.empty) for s in shapes))
        except FastRNNError as error:
            refused.append(error)
            return False
        except REFUSALS:
            return False
    return True
