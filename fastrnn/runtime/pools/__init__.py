"""Many streams of one model, and a batched step for whichever are ready.

pool.step(handles, x)
  handles -> slots            _pool.pyx     one row of states a stream; which are open, which are named twice
  rows -> tiles               tiling.py     by programs for so many rows; apart.py: which axis rows are, and whether the model keeps them apart
  states found where they lie (in_place.py) or gathered, the program run, those put back      _tile.pxi
pool.push(handles, chunk, lengths)
  rows and steps -> parts     parts.py      in which the same rows take the same steps

pool.py      Pool: planning, chunks, states
blob.py      a stream as bytes
_table.pxi   which streams are open, by handle
_arrays.pxi  the caller's arrays
"""
