"""Model to Model: what follows from constants and shapes is computed, and what runs better as another op becomes one.

    Model --quantized.py-->  products of dequantized bytes as products of bytes
          --fold.py------->  what constants and shapes decide: values, branches of If, runs of loops laid out, dead nodes dropped
                counted.py       how often a Loop runs that constants end, and what it hands on that only counts
          --recognise.py-->  recurrent layers in the place of cells that are spelled out
                algebra.py       Form: what nodes compute, multiplied out
                reading.py       reads nodes in order into Forms, and finds cells among them
                cell_steps.py    the equations of RNN, LSTM and GRU, found in the Form of a new state
                loops.py         a Loop or a Scan over one cell
                chains.py        cells one after another, and a single one
                placing.py       the layer, and the views that bring values to its layout
          --kept.py------->  steps whose states are multiplied by (1 - done) before, one after another, as one layer
          --rewrites/----->  small patterns that run better as another op, ops without a kernel as others that have one
          --narrow.py----->  weights of bfloat16 and int8 in the place of float32, and back

To add a pattern: a function in rewrites/. To add a cell that is recognised: its equation in cell_steps.py.
"""
