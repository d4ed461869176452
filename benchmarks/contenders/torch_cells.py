"""The gallery's cells as loops in PyTorch, as one writes them with care: all of x projected at once, gates of a step in one product. Eager, and scripted."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Step(nn.Module):
    """One step: forward(over_x (B, G H), x (B, I), h, dt) -> the new states. Parameters have torch's names; r is the matrix over h, transposed."""

    def __init__(self, state: dict[str, Tensor]):
        super().__init__()
        none = torch.zeros(0)
        self.r = state["weight_hh_l0"].T.contiguous() if "weight_hh_l0" in state else none
        self.b = state.get("bias_hh_l0", none)
        vectors = [state[name] for name in state if name.startswith("weight_") and state[name].dim() == 1]
        self.u, self.v = [*vectors, none, none][:2]


class Mgu(Step):
    def forward(self, a: Tensor, x: Tensor, h: list[Tensor], dt: Tensor) -> list[Tensor]:
        H = h[0].shape[1]
        f = torch.sigmoid(a[:, :H] + h[0] @ self.r[:, :H] + self.b[:H])
        n = torch.tanh(a[:, H:] + (f * h[0]) @ self.r[:, H:] + self.b[H:])
        return [h[0] + f * (n - h[0])]


class Ligru(Step):
    def forward(self, a: Tensor, x: Tensor, h: list[Tensor], dt: Tensor) -> list[Tensor]:
        z, n = (a + torch.addmm(self.b, h[0], self.r)).chunk(2, 1)
        n = torch.relu(n)
        return [n + torch.sigmoid(z) * (h[0] - n)]


class Janet(Step):
    def forward(self, a: Tensor, x: Tensor, h: list[Tensor], dt: Tensor) -> list[Tensor]:
        f, n = (a + torch.addmm(self.b, h[0], self.r)).chunk(2, 1)
        return [torch.sigmoid(f) * h[0] + (1 - torch.sigmoid(f - 1)) * torch.tanh(n)]


class Ugrnn(Step):
    def forward(self, a: Tensor, x: Tensor, h: list[Tensor], dt: Tensor) -> list[Tensor]:
        g, n = (a + torch.addmm(self.b, h[0], self.r)).chunk(2, 1)
        n = torch.tanh(n)
        return [n + torch.sigmoid(g) * (h[0] - n)]


class Indrnn(Step):
    def forward(self, a: Tensor, x: Tensor, h: list[Tensor], dt: Tensor) -> list[Tensor]:
        return [torch.relu(a + self.u * h[0])]


class Sru(Step):
    def forward(self, a: Tensor, x: Tensor, h: list[Tensor], dt: Tensor) -> list[Tensor]:
        n, f, r = a.chunk(3, 1)
        f, r = torch.sigmoid(f + self.u * h[1]), torch.sigmoid(r + self.v * h[1])
        c = n + f * (h[1] - n)
        return [x + r * (c - x), c]


class CoupledLstm(Step):
    def forward(self, a: Tensor, x: Tensor, h: list[Tensor], dt: Tensor) -> list[Tensor]:
        i, g, o = (a + torch.addmm(self.b, h[0], self.r)).chunk(3, 1)
        i = torch.sigmoid(i + self.u * h[1])
        c = h[1] + i * (torch.tanh(g) - h[1])
        return [torch.sigmoid(o + self.v * c) * torch.tanh(c), c]


class DecayLstm(Step):
    def forward(self, a: Tensor, x: Tensor, h: list[Tensor], dt: Tensor) -> list[Tensor]:
        i, f, g, o = (a + torch.addmm(self.b, h[0], self.r)).chunk(4, 1)
        decay = torch.exp(-torch.relu(self.u * dt[:, None] + self.v))
        c = torch.sigmoid(f) * (h[1] * decay) + torch.sigmoid(i) * torch.tanh(g)
        return [torch.sigmoid(o) * torch.tanh(c), c]


class ClippedLstm(Step):
    def forward(self, a: Tensor, x: Tensor, h: list[Tensor], dt: Tensor) -> list[Tensor]:
        i, f, g, o = (a + torch.addmm(self.b, h[0], self.r)).chunk(4, 1)
        c = torch.maximum(torch.minimum(torch.sigmoid(f) * h[1] + torch.sigmoid(i) * torch.tanh(g), self.u), -self.u)
        return [torch.sigmoid(o) * torch.tanh(c), c]


class Leaky(Step):
    def forward(self, a: Tensor, x: Tensor, h: list[Tensor], dt: Tensor) -> list[Tensor]:
        return [h[0] + self.u * (torch.tanh(a + torch.addmm(self.b, h[0], self.r)) - h[0])]


STEPS = {"mgu": Mgu, "ligru": Ligru, "janet": Janet, "ugrnn": Ugrnn, "indrnn": Indrnn, "sru": Sru, "coupled_lstm": CoupledLstm, "decay_lstm": DecayLstm,
         "clipped_lstm": ClippedLstm, "leaky": Leaky}  # fmt: skip


class Loop(nn.Module):
    """y (T, B, H) of x (T, B, I) and, for a cell that takes it, dt (T, B), states zero.

    unbind: steps are cut out of the projected input by one unbind. Indexed, as most loops have it, each step's gradient is a zero tensor of the whole input's size,
    which is a third to a half of the time of a training step.
    """

    def __init__(self, step: Step, w: Tensor, b: Tensor, n_states: int, units: int):
        super().__init__()
        self.step, self.w, self.b, self.n, self.units = step, w.T.contiguous(), b, n_states, units

    def forward(self, x: Tensor, dt: Tensor, unbind: bool = False) -> Tensor:
        projected = x @ self.w + self.b
        steps = list(projected.unbind(0)) if unbind else [projected[t] for t in range(x.shape[0])]
        h = [torch.zeros(x.shape[1], self.units) for _ in range(self.n)]
        rows: list[Tensor] = []
        for t in range(x.shape[0]):
            h = self.step(steps[t], x[t], h, dt[t])
            rows.append(h[0])
        return torch.stack(rows)


def loops(cell, layer) -> tuple[nn.Module, nn.Module]:
    """A cell's loop with a fastrnn.Recurrent's parameters: eager and scripted."""
    state = {name: torch.from_numpy(a) for name, a in layer.state_dict().items()}
    w, H = state["weight_ih_l0"], layer.options.hidden_size
    bias = dict(zip(cell.biased("x"), state["bias_ih_l0"].split(H)))
    b = torch.cat([bias.get(gate, torch.zeros(H)) for gate in cell.x_gates])
    loop = Loop(STEPS[cell.name](state), w, b, len(cell.states), H).eval()
    return loop, torch.jit.script(loop)
