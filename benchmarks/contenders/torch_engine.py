"""PyTorch, one thread, without gradients."""

import torch

NAME = "torch"


def prepare(work):
    """See contenders."""
    torch.set_num_threads(1)
    module = getattr(torch.nn, work.kind.upper())(work.I, work.H).eval()
    module.load_state_dict({name: torch.from_numpy(a) for name, a in work.layer.state_dict().items()})
    x = torch.from_numpy(work.x)

    def run():
        with torch.inference_mode():
            return module(x)[0]

    return run, lambda: run()[:, 0].numpy()
