"""PyTorch without gradients: torch.nn's layer; ragged rows as a packed sequence, padded again afterwards."""

NAME = "torch"


def module(case):
    """The layer with the case's weights."""
    import torch

    torch.set_num_threads(1)
    layer = getattr(torch.nn, case.kind.upper())(case.I, case.H).eval()
    layer.load_state_dict({name: torch.from_numpy(a) for name, a in case.parameters.items()})
    return layer


def prepare(case):
    """See contenders."""
    import torch
    from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

    layer, x, state = module(case), torch.from_numpy(case.x), None
    lengths = None if case.lengths is None else torch.from_numpy(case.lengths)

    def whole():
        with torch.inference_mode():
            return layer(x)[0]

    def packed():
        with torch.inference_mode():
            y, _ = layer(pack_padded_sequence(x, lengths, enforce_sorted=False))
            return pad_packed_sequence(y, total_length=case.T)[0]

    def carry():
        nonlocal state
        with torch.inference_mode():
            state = layer(x, state)[1]

    once = whole if lengths is None else packed
    return carry if case.carried else once, lambda: once().numpy()


def any_size(case):
    """See contenders."""
    import torch
    from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

    layer = module(case)

    def call(x, lengths=None):
        with torch.inference_mode():
            if lengths is None:
                return layer(torch.from_numpy(x))[0].numpy()
            y, _ = layer(pack_padded_sequence(torch.from_numpy(x), torch.from_numpy(lengths), enforce_sorted=False))
            return pad_packed_sequence(y, total_length=len(x))[0].numpy()

    return call


def opener(case):
    """See contenders."""
    import torch

    layer = module(case)

    def start():
        state = None

        def step(x):
            nonlocal state
            with torch.inference_mode():
                y, state = layer(torch.from_numpy(x[None]), state)
                return y[0].numpy()

        return step

    return start
