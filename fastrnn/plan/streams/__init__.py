"""Models along time, a chunk at a call: which values keep time steps apart, and what has to be remembered between calls.

    streaming.py  steppable(): hidden states exposed as inputs and outputs, time axes found; what a model is refused for
    timeline.py   Timeline: how many entries each value is behind or ahead of the input's, and the histories that follow
    lookback.py   ops that mix time steps and stream all the same: windows, padding, recurrent layers
    context.py    with_context(): frames that overlap, as a state of the model
    keep.py       keeping(): rows that start afresh in the middle of a chunk, by an input of the layers
    guess.py      which outputs are states for which inputs, where a file does not say
    flow.py       numbers entries and follows them through views and recurrent layers

To add an op that streams though it mixes time steps: a function in lookback.py.
"""
