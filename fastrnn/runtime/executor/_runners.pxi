# Who hands out Runners. Part of _executor.pyx.

@cython.final
cdef class Runners:
    """The runners of one program: each call takes one for itself and gives it back. Safe from many threads, by the GIL. names: the inputs of
    the model that it is a program of, in order."""

    def __cinit__(self, program, names=()):
        self.program, self._first, self._idle = program, Runner(program), []
        given = [slot.name for slot in program.inputs]
        self._leading = given == list(names[:len(given)])
        self.steered = any(slot.value is not None for slot in program.inputs)

    cdef Runner take(self):
        cdef Runner runner = self._first  # the only one there is, while one thread calls
        if not runner.taken:
            runner.taken = True
            return runner
        return <Runner>self._idle.pop() if self._idle else Runner(self.program)

    cdef give(self, Runner runner):
        if runner is self._first:
            runner.taken = False
        elif len(self._idle) < MOST_IDLE:
            self._idle.append(runner)

    def fits(self, sizes, values):
        """Whether the program holds for these sizes, and for what inputs hold, by name."""
        cdef Runner runner = self.take()
        try:
            for slot in self.program.inputs:
                if slot.value is not None and not np.array_equal(slot.value, values[slot.name]):
                    return False
            return runner.resize(sizes)
        finally:
            self.give(runner)

    cdef bint steered_by(self, object given) except -1:
        """Whether the program is for what these inputs, a dict, hold."""
        cdef Runner runner
        cdef int k
        cdef PyObject *value
        if type(given) is not dict:
            return False
        runner = self.take()
        try:
            for k in range(runner.n_inputs):
                if runner.slots[k].wanted != NULL:
                    value = PyDict_GetItem(given, runner._names[k])
                    if value == NULL or not runner._is_like(k, <object>value):
                        return False
            return True
        finally:
            self.give(runner)

    def call(self, sizes, States states, given, out):
        """Runner.call for these sizes by name, by one that is free."""
        cdef Runner runner = self.take()
        try:
            if not runner.resize(sizes):
                raise ShapeError(f"the program does not hold for {sizes}")
            return runner.run(states, given, out)
        finally:
            self.give(runner)

    def run_listed(self, tuple given):
        """Runner.run_listed, by one that is free, where the program takes the first inputs of the model."""
        cdef Runner runner
        if not self._leading:
            return None
        runner = self.take()
        try:
            return runner.run_listed(given)
        finally:
            self.give(runner)

    def run_named(self, inputs):
        """Runner.run_named, by one that is free."""
        cdef Runner runner = self.take()
        try:
            return runner.run_named(inputs)
        finally:
            self.give(runner)
