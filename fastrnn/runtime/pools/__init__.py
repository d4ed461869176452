"""Many streams of one model, and a batched step for whichever are ready.

    pool.step(handles, x)
      handles -> slots            _pool.pyx     one row of states a stream; which are open, which are named twice
      rows -> tiles               tiling.py     of at most MOST_ROWS rows, by programs for so many; which axis rows are, and whether the model keeps them apart
      states gathered, the program run, states put back      _tile.pxi
    pool.push(handles, chunk, lengths)
      rows and steps -> parts     parts.py      in which the same rows take the same steps

    pool.py      Pool: planning, chunks, states
    blob.py      a stream as bytes
    _arrays.pxi  the caller's arrays
"""
