"""An archive as an nn.Module: its tensors are parameters and buffers under their names, its forward follows the archive's code."""

from __future__ import annotations

import inspect

import torch

from fastrnn.converters.torch_script.archive import Archive, Instance
from fastrnn.converters.torch_script.interpreter import run
from fastrnn.errors import UnsupportedModelError

MAX_DEPTH = 32


def _place(tensor: torch.Tensor) -> tuple:
    """Tensors that are equal here are one."""
    return tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype


class _Part(torch.nn.Module):
    """The tensors of one object."""


class ScriptedModule(torch.nn.Module):
    """In eval mode, whatever the archive says. Attributes that its code sets are kept; a training flag is not among them."""

    def __init__(self, archive: Archive, name: str):
        super().__init__()
        self._archive, self._name = archive, name
        self._places: dict[int, tuple[torch.nn.Module, set[str]]] = {}
        self._owners: dict[tuple, tuple[torch.nn.Module, str]] = {}  # of the archive's tensors, by where they lie
        self._hang(archive.root, self, 0)
        kind, overload = archive.root.kind, "forward__0"  # of a recurrent layer by itself: the one for tensors, before that for packed ones
        called = overload if f"{kind}.forward" not in archive.code.functions and f"{kind}.{overload}" in archive.code.functions else "forward"
        function = archive.code.function(f"{kind}.{called}")
        self.annotations = {a.arg: a.annotation for a in function.args.args[1:]}
        missing = inspect.Parameter.empty
        defaults = [missing] * (len(self.annotations) - len(function.args.defaults)) + [getattr(d, "value", None) for d in function.args.defaults]
        self._signature = inspect.Signature(
            [inspect.Parameter(n, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=d) for n, d in zip(self.annotations, defaults)]
        )

        def forward(*args, **kwargs):
            bound = self._signature.bind(*args, **kwargs)
            bound.apply_defaults()
            return run(archive, called, list(bound.arguments.values()), self._get, self._put)

        forward.__signature__ = self._signature
        self.forward = forward
        self.eval()
        self.__class__ = type(kind.rpartition(".")[2], (ScriptedModule,), {})  # the name that messages and the model have

    def _hang(self, instance: Instance, module: torch.nn.Module, depth: int) -> None:
        """The tensors of an object and of those in it."""
        if depth > MAX_DEPTH:
            raise UnsupportedModelError(f"{self._name}: modules are nested more than {MAX_DEPTH} deep")
        constants = self._archive.code.constants.get(instance.kind, {})
        parameters, held = set(constants.get("__parameters__") or ()), set()
        self._places[id(instance)] = module, held
        for name, value in instance.attributes.items():
            if isinstance(value, Instance) and id(value) not in self._places:
                part = _Part()
                module.add_module(f"_{name}" if hasattr(module, name) else name, part)
                self._hang(value, part, depth + 1)
            elif isinstance(value, torch.Tensor) and not hasattr(module, name):
                held.add(name)
                self._owners.setdefault(_place(value), (module, name))
                if name in parameters and value.is_floating_point():
                    module.register_parameter(name, torch.nn.Parameter(value, requires_grad=False))
                else:
                    module.register_buffer(name, value)

    def _get(self, instance: Instance, name: str):
        module, held = self._places[id(instance)]
        if name == "training":
            return False
        if name in held:
            return getattr(module, name)
        value = instance.attributes[name]
        if isinstance(value, list) and value and all(isinstance(v, torch.Tensor) for v in value):
            return [getattr(*self._owners[_place(v)]) if _place(v) in self._owners else v for v in value]  # _flat_weights names parameters again
        return value

    def _put(self, instance: Instance, name: str, value) -> None:
        module, held = self._places[id(instance)]
        if name in held and isinstance(value, torch.Tensor):
            setattr(module, name, value)
        elif name != "training":
            raise UnsupportedModelError(f"{self._name}: its code sets {name!r}, which is no buffer")
