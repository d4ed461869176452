"""Running programs: whole sequences, streams of single steps, and (later) pools of streams.

    checks.py      what a caller may pass; every refusal is a typed error that names the input
    _executor.pyx  Runner: one program with its own work space; walks the steps without the GIL
    session.py     Session.run over arrays of any batch and length, from many threads
    stream.py      Stream.step and push, states kept in between
    layers.py      fr.LSTM, fr.GRU, fr.RNN
"""
