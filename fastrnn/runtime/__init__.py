"""Running programs: whole sequences, streams of single steps, on one thread or several.

    checks.py      what a caller may pass; every refusal is a typed error that names the input
    _executor.pyx  Runner: one program with its own work space; walks the steps without the GIL
                   _at_once.pxi: a step that brings nothing to decide; _binding.pxi: made of a program; _resizing.pxi: other sizes;
                   _runners.pxi: handed out; _memory.pxi: what it owns; _threads.pxi
    _stream.pyx    the hot half of a stream
    session.py     Session.run over arrays of any batch and length, from many threads
    pools/         Session.pool: many streams, one step for whichever are ready
    stream.py      Stream.step and push, states kept in between
    episodes.py    where rows start afresh, in layers and streams
    forms.py       what the streams of a session share; states.py: where their states lie
    resize.h       what the executor computes when a call brings other sizes
    rows_of_bytes.h  copies of states
    threads.h      the worker threads that all sessions share; threads.py their limit, and threadpoolctl's say in it
    layers.py      fr.LSTM, fr.GRU, fr.RNN
"""

from fastrnn.runtime import threads

threads.announce(only_if_imported=True)
