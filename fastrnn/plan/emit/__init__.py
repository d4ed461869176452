"""One function an op: a node becomes kernel calls over views. planner.py imports those below, which registers them under their ops' names.

    emitter.py      Emitter: kernel, refusal and function of an op; the registry EMIT; argument records
    elementwise.py  elementwise ops, alone or fused, as one chain
    rows.py         rows times packed weights, and what is fused behind: what the next two call
    matrix.py       matrix products
    convolution.py  convolutions, depthwise and transposed ones
    quantized.py    bytes with a scale and a zero point, to and fro
    pooling.py      pooling, space to depth, normalisations of channels
    normal.py       normalisation, softmax and reductions
    recurrent.py    RNN, LSTM, GRU and cells of one's own
    selecting.py    ArgMax, TopK, CumSum, GatherElements, GatherND
    indexing.py     Pad, Tile, Gather, ScatterND: copies by place; entries taken and put by a Loop's counter

To add an op: a function under @emits in the file that it is of a kind with.
"""
