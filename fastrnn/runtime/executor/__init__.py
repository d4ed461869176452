"""Programs, run: addresses filled in, steps walked without the GIL.

_executor.pyx    Runner: one program with its own work space
_runners.pxi     Runners: hands them out, one to a call
_binding.pxi     a Runner made of a program: where each address and number goes
_at_once.pxi     a step that brings nothing to decide
_resizing.pxi    a call that brings other sizes; resize.h: what C computes then
_memory.pxi      work space, and the states of a stream; rows_of_bytes.h: copies of them
_threads.pxi     steps shared by threads; threads.h: the workers that all sessions share; threads.py: their limit, and threadpoolctl's say in it
"""
