# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
"""The hot half of runtime.streams.stream.Stream: a step or a chunk without Python between the call and the kernels."""

cimport numpy as cnp
from libc.stdint cimport int64_t
from fastrnn.runtime.executor._executor cimport Runner, Runners, States, at_once

from fastrnn.runtime import checks

cnp.import_array()


cdef class StreamCore:
    """What runtime.streams.stream.Stream is built on: states, and which programs take a step and a chunk. Nothing is allocated when `out` is given."""

    def _bind(self, Runners step, sizes):
        """The program of a step, and its free dimensions."""
        self._step, self._step_sizes = step, sizes

    def _bind_chunk(self, Runners chunk, sizes, int time, int64_t steps):
        """The program of a chunk of so many steps, its free dimensions, and which of them the number of steps is; -1: it is for that many alone."""
        self._chunk, self._chunk_sizes, self._time, self._chunk_steps = chunk, sizes, time, steps

    def _hold(self, States memory):
        """The memory of the states; None once it is closed."""
        self._memory = memory

    def _prepare(self, x):
        """Binds the step's program by what the step brings."""
        raise TypeError("streams come from Session.stream")

    def _step_program(self):
        """The program bound for a step; None where it is not known yet."""
        return None if self._step is None else self._step.program

    cdef object step_now(self, object x, object out):
        """A step by the program bound for it."""
        cdef Runner runner = self._step.take()
        try:
            if not runner.resize_to(self._step_sizes):
                raise AssertionError("a program that was made for a stream does not hold for it")
            return runner.run(self._memory if runner.n_commits else None, x, out)
        finally:
            self._step.give(runner)

    def _run_step(self, x, out):
        """A step while nobody else may call the stream, whose step is bound."""
        result = None if self._step.steered else at_once(self._step._first, self._memory, self._step_sizes, x, out)
        return self.step_now(x, out) if result is None else result

    def _run_chunk(self, x, out):
        """A chunk by the program bound for it, which must hold for its sizes."""
        cdef Runner runner = self._chunk.take()
        try:
            if not runner.resize_to(self._chunk_sizes):
                return NotImplemented
            return runner.run(self._memory if runner.n_commits else None, x, out)
        finally:
            self._chunk.give(runner)

    def step(self, x, *, out=None):
        """One step. x: the input, or a dict of several; out: where to write, else new arrays. Raises BusyError in a second thread."""
        if self._busy:
            raise checks.busy()
        if self._step is not None and not self._step.steered and self._memory is not None:
            result = at_once(self._step._first, self._memory, self._step_sizes, x, out)
            if result is not None:
                return result
        self._busy = True
        try:
            if self._memory is None:
                raise self._unusable()
            if self._step is None or self._step.steered and not self._step.steered_by(x):
                self._prepare(x)
            return self.step_now(x, out)
        finally:
            self._busy = False

    def push(self, x, *, resets=None, out=None):
        """A chunk of steps, (T', ...) for each input; returns outputs (T', ...). The same bits as T' calls of step.

        x: an array, or a dict of several inputs. resets: (T', B) bool, where a row starts afresh before that step, as by reset(rows). out: an array or
        tuple to write into.
        Ctrl-C: where the model has a time axis, KeyboardInterrupt comes when the chunk is over and its states have moved; elsewhere at once, the states as before.
        """
        if self._busy:
            raise checks.busy()
        self._busy = True
        try:
            if self._memory is None:
                raise self._unusable()
            return self._push_now(x, out) if resets is None else self._push_resets(x, resets, out)
        finally:
            self._busy = False

    def _push_now(self, x, out):
        """A chunk while nobody else may call the stream."""
        cdef int64_t steps
        if self._chunk is not None and cnp.PyArray_Check(x) and cnp.PyArray_NDIM(<cnp.ndarray>x):
            steps = cnp.PyArray_DIM(<cnp.ndarray>x, 0)
            if steps == self._chunk_steps or self._time >= 0 and steps > 1:
                if self._time >= 0:
                    (<int64_t *>cnp.PyArray_DATA(<cnp.ndarray>self._chunk_sizes))[self._time] = steps
                    self._chunk_steps = steps
                result = self._run_chunk(x, out)
                if result is not NotImplemented:
                    return result
        return self._push(x, out)

    def _unusable(self):
        """The error for a stream without states: it was closed."""
        return checks.closed() if hasattr(self, "_form") else TypeError("streams come from Session.stream")

    def _push(self, x, out):
        raise TypeError("streams come from Session.stream")

    def _push_resets(self, x, resets, out):
        raise TypeError("streams come from Session.stream")

    def __reduce__(self):
        raise TypeError("a Stream cannot be copied or pickled; keep stream.state, and assign it to another stream")

    def _exclusive(self, function):
        """function() while no other thread may call the stream."""
        if self._busy:
            raise checks.busy()
        if self._memory is None:
            raise self._unusable()
        self._busy = True
        try:
            return function()
        finally:
            self._busy = False
