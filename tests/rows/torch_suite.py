"""PyTorch's own databases of modules and operators (torch.testing._internal): what from_torch makes of each of their inputs."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator

import torch
from onnx_suite import Outcome
from torch.testing._internal.common_methods_invocations import op_db
from torch.testing._internal.common_modules import module_db
from torch.utils._pytree import tree_flatten, tree_unflatten

import fastrnn as fr


class Bound(torch.nn.Module):
    """A module, or a function, with some arguments given; tensors, those in lists among them, are what is left."""

    def __init__(self, function, args, kwargs):
        super().__init__()
        self.function, self.kwargs = function, kwargs
        self.leaves, self.spec = tree_flatten(tuple(args))

    def forward(self, *tensors):
        """Tensors in the places where they were."""
        left = iter(tensors)
        return self.function(*tree_unflatten([next(left) if isinstance(a, torch.Tensor) else a for a in self.leaves], self.spec), **self.kwargs)


def modules() -> Iterator[tuple[str, torch.nn.Module, tuple]]:
    """Name, module in eval mode and arguments of every input of every module that takes float32."""
    for info in module_db:
        if torch.float32 not in info.dtypes:
            continue
        for k, given in enumerate(info.module_inputs_func(info, device="cpu", dtype=torch.float32, requires_grad=False, training=False)):
            torch.manual_seed(0)
            module, arguments = info.module_cls(*given.constructor_input.args, **given.constructor_input.kwargs).eval(), given.forward_input
            yield f"{info.name}#{k}", Bound(module, arguments.args, arguments.kwargs).eval() if arguments.kwargs else module, tuple(arguments.args)


def operators() -> Iterator[tuple[str, torch.nn.Module, tuple]]:
    """Name, function and tensors of the first input of every operator on float32."""
    for info in op_db:
        if not info.supports_dtype(torch.float32, "cpu"):
            continue
        torch.manual_seed(0)
        sample = next(iter(info.sample_inputs("cpu", torch.float32)), None)
        if sample is not None:
            args = (sample.input, *sample.args)
            yield (
                f"{info.name}{info.variant_test_name and '.'}{info.variant_test_name}",
                Bound(info.op, args, sample.kwargs).eval(),
                tuple(a for a in tree_flatten(args)[0] if isinstance(a, torch.Tensor)),
            )


def run(name: str, module: torch.nn.Module, args: tuple) -> Outcome:
    """pass, refused (typed errors that name the reason), torch (which refuses it itself), or what else."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with torch.no_grad():
                module(*args)
        except Exception as error:  # noqa: BLE001  (torch's own)
            return Outcome(name, "torch", str(error))
        try:
            fr.compile(fr.from_torch(module, args))  # which compares it with the module on several inputs
        except fr.FastRNNError as error:
            return Outcome(name, "refused", f"{type(error).__name__}: {error}")
        except Exception as error:  # noqa: BLE001  (whatever it is, it is counted)
            return Outcome(name, type(error).__name__, str(error))
    return Outcome(name, "pass")


def counted(found) -> Counter:
    """How many ended how."""
    return Counter(outcome.how for outcome in found)
