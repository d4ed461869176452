"""Running programs: whole sequences, streams of single steps, on one thread or several.

layers.py      fr.LSTM, fr.GRU, fr.RNN
sensitivity.py what each node's small weights cost; progress.py: a bar while that takes long
session.py     Session.run over arrays of any batch and length, from many threads
streams/       Stream.step and push, states kept in between
pools/         Session.pool: many streams, one step for whichever are ready
executor/      what all of them run programs by
checks.py      what a caller may pass; every refusal is a typed error that names the input
"""

from fastrnn.runtime.executor import threads

threads.announce(only_if_imported=True)
