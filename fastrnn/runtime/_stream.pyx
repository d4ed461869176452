# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
"""The hot half of runtime.stream.Stream: a step or a chunk without Python between the call and the kernels."""

cimport numpy as cnp
from libc.stdint cimport int64_t
from fastrnn.runtime._executor cimport Runner

from fastrnn.runtime import checks

cnp.import_array()


cdef class StreamCore:
    """What runtime.stream.Stream is built on; nothing is allocated when `out` is given."""

    def _bind(self, Runner step):
        self._step = step

    def _prepare(self, x):
        """Binds the step's program by what the first step brings."""
        raise TypeError("streams come from Session.stream")

    def _step_runner(self):
        return self._step

    def step(self, x, *, out=None):
        """One step. x: the input, or a dict of several; out: where to write, else new arrays. Raises BusyError in a second thread."""
        if self._busy:
            raise checks.busy()
        self._busy = True
        try:
            if self._step is None:
                self._prepare(x)
            return self._step.run(x, out)
        finally:
            self._busy = False

    def push(self, x, *, out=None):
        """A chunk of steps, (T', ...) for each input; returns outputs (T', ...). The same bits as T' calls of step.

        x: an array, or a dict of several inputs. out: an array or tuple to write into.
        """
        if self._busy:
            raise checks.busy()
        self._busy = True
        try:
            if self._chunk is not None and cnp.PyArray_Check(x) and cnp.PyArray_NDIM(x) and cnp.PyArray_DIM(x, 0) == self._chunk_steps:
                return self._chunk.run(x, out)
            return self._push(x, out)
        finally:
            self._busy = False

    def _bind_chunk(self, Runner chunk, int64_t steps):
        """The program that chunks of so many steps take at once."""
        self._chunk, self._chunk_steps = chunk, steps

    def _push(self, x, out):
        raise TypeError("streams come from Session.stream")

    def __reduce__(self):
        raise TypeError("a Stream cannot be copied or pickled; keep stream.state, and assign it to another stream")

    def _exclusive(self, function):
        """function() while no other thread may call the stream."""
        if self._busy:
            raise checks.busy()
        self._busy = True
        try:
            return function()
        finally:
            self._busy = False
