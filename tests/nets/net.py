"""What a test network is, and the registry that the modules beside this one fill."""

import zlib
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import nn

NETS: dict[str, "Net"] = {}


@dataclass(frozen=True)
class Net:
    """A network, the inputs of a call, and which of their axes may vary.

    build: () -> nn.Module with torch's own random weights. inputs: (batch, steps) -> arguments of forward by name, drawn anew; a value may
    be a tuple of tensors. axes: argument -> {axis: "B" or "T"} (for a tuple, one such dict each); what is not named there is fixed.
    no_onnx: why torch cannot write the network as ONNX, empty where it can; oldest: the first of the tests' opsets in which it can.
    not_newest: why not by torch's newer exporter.
    fixed_in_onnx: its older exporter writes the example's sizes into the file, as it does for nn.MultiheadAttention.
    """

    name: str
    build: Callable[[], nn.Module]
    inputs: Callable[[int, int], dict]
    axes: dict
    no_onnx: str = ""
    oldest: int = 11
    fixed_in_onnx: bool = False
    not_newest: str = ""
    example: tuple[int, int] = (2, 8)
    others: tuple[tuple[int, int], ...] = field(default=((3, 5), (1, 12)))

    def module(self) -> nn.Module:
        """The network in eval mode; every statistic, scale and bias that torch starts at 0 or 1 drawn too."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(zlib.crc32(self.name.encode()))
            module = self.build().eval()
            with torch.no_grad():
                for tensor in [*module.parameters(), *module.buffers()]:
                    if tensor.is_floating_point() and tensor.numel() > 1 and (tensor == tensor.flatten()[0]).all():
                        tensor.copy_(torch.rand_like(tensor) + 0.5)
        return module

    def draw(self, batch: int, steps: int, seed: int = 0) -> dict:
        """Inputs, the same for the same arguments."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed * 1000 + batch * 100 + steps)
            return self.inputs(batch, steps)

    def sizes(self) -> list[tuple[int, int]]:
        """(batch, steps) of the example and of the others that the axes admit."""
        given = {d for a in self.axes.values() for one in (a if isinstance(a, tuple) else (a,)) for d in one.values()}
        batch, steps = self.example
        others = [(b if "B" in given else batch, t if "T" in given else steps) for b, t in self.others]
        return [self.example, *dict.fromkeys(o for o in others if o != self.example)]


def net(
    inputs: Callable,
    no_onnx: str = "",
    oldest: int = 11,
    fixed_in_onnx: bool = False,
    not_newest: str = "",
    example: tuple[int, int] = (2, 8),
    others=((3, 5), (1, 12)),
    **axes,
):
    """Registers a class or a builder of a network under its name; axes by argument of forward."""

    def register(build):
        NETS[build.__name__] = Net(build.__name__, build, inputs, axes, no_onnx, oldest, fixed_in_onnx, not_newest, example, others)
        return build

    return register


def features(n: int, time_first: bool = False) -> Callable:
    """x (B, T, n), or (T, B, n)."""
    return lambda b, t: {"x": torch.randn(t, b, n) if time_first else torch.randn(b, t, n)}


def tokens(n: int) -> Callable:
    """Token ids x (B, T)."""
    return lambda b, t: {"x": torch.randint(0, n, (b, t))}


def lengths(b: int, t: int, ordered: bool = True) -> torch.Tensor:
    """Lengths (B,), from 1 to T, one of them T; longest first, or in some order."""
    given = torch.cat([torch.tensor([t]), torch.randint(1, t + 1, (b - 1,))])
    return given.sort(descending=True).values if ordered else given.flip(0)


BATCH_FIRST, TIME_FIRST = {0: "B", 1: "T"}, {0: "T", 1: "B"}
