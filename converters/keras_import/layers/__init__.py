"""One module for each kind of layers; importing them fills the registry.

core.py         Dense, Embedding, Masking, wrappers, what does nothing at inference; activations.py
recurrent.py    SimpleRNN, LSTM, GRU, RNN over cells, Bidirectional; masks.py: steps left out; spelled.py: activations that no cell has
convolution.py  convolutions; pooling.py
normal.py       normalisations
attention.py    attention
merging.py      layers of several inputs; reshaping.py: layers that move entries
functions.py    operations of keras.ops
"""

from fastrnn.converters.keras_import.layers import (  # noqa: F401
    activations,
    attention,
    convolution,
    core,
    functions,
    merging,
    normal,
    pooling,
    recurrent,
    reshaping,
)
