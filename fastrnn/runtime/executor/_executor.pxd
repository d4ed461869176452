# cython: language_level=3
"""What the executor's objects hold."""

cimport cython
cimport numpy as cnp
from libc.stdint cimport int64_t
from fastrnn.kernels.native._args cimport fr_args, fr_run, fr_work_bytes

cdef extern from "resize.h":
    ctypedef struct fr_formula:
        int operation, a, b
    ctypedef struct fr_guard:
        int value, zero, holds
    ctypedef struct fr_range:
        int64_t start, length

ctypedef void (*Share)(void *, int) noexcept nogil  # fr_share of threads.h, whose workers belong to _executor alone

cdef int together(int most, bint awake, Share run, void *context) noexcept nogil
cdef void rouse(int most) noexcept nogil

cdef bint is_array(object value) noexcept

cdef enum:
    MAX_RANK = 8
    RUN_KERNEL = 0
    RUN_PYTHON = 1
    JUMP = 2
    CHECK = 3
    TOGETHER = 4

cdef struct Control:     # a step: a kernel call by default
    int kind, target     # JUMP: where to; TOGETHER: threads for all parts of all calls
    char *data           # JUMP: the condition, NULL for none; CHECK: the integers
    int64_t count, low, high  # TOGETHER: count calls

cdef struct Slot:        # an input or output; sizes are for those at hand
    int dtype, rank, limited
    cnp.npy_intp dims[MAX_RANK]
    int size[MAX_RANK]   # the value that is this dimension
    int low_value, high_value
    int64_t low, high, count
    size_t itemsize, nbytes
    int state            # which of a stream's states; -1 where the caller brings the array
    char *checked        # copy of integers that were checked: the caller's could change under the kernels
    char *wanted         # content that the input must have; NULL for any

cdef struct Patch:       # an address in the arguments that moves with a slot
    char **field
    int slot, offset

cdef struct Place:       # an address that moves when sizes change: into a block, or of memory that stays
    char **field
    char *base
    int block, offset

cdef struct Scalar:      # a number in the arguments or a table that changes with sizes
    void *field
    int value, is_float

cdef struct Commit:      # a state's new value goes back to where the next step reads it
    char *source
    int64_t nbytes


@cython.final
cdef class Workspace:
    cdef char *data
    cdef int64_t nbytes, moved
    cdef object _array
    cdef int reserve(self, int64_t nbytes) except -1


@cython.final
cdef class States:
    cdef readonly object layout
    cdef readonly object block
    cdef char *data
    cdef int64_t *offsets


@cython.final
cdef class Runner:
    cdef Slot *slots
    cdef Patch *patches
    cdef Place *places
    cdef Scalar *scalars
    cdef Commit *commits
    cdef char **bases
    cdef fr_run *kernels
    cdef fr_work_bytes *asks
    cdef int *asking
    cdef Control *controls
    cdef fr_args *args
    cdef fr_formula *formulas
    cdef fr_guard *guards
    cdef fr_range *ranges
    cdef int64_t *values
    cdef int64_t *block_bytes
    cdef int64_t *block_offsets
    cdef char **block_at
    cdef int *events
    cdef int n_inputs, n_slots, n_patches, n_places, n_scalars, n_commits, n_steps, n_free_inputs, n_free_outputs, only_input, only_output
    cdef int most_threads, first, n_values, n_guarded, n_guards, n_dimensions, n_blocks, n_kept, n_events, n_asking, estimate
    cdef int64_t release_ns, work_moved
    cdef bint release, sized, settled, taken, plain
    cdef char *work_at
    cdef readonly object program
    cdef Workspace _work, _kept
    cdef object _args_array, _meeting, _keep, _formulas
    cdef list _python, _names, _owned, _tables

    cdef bint _is_like(self, int k, object value) noexcept
    cdef bint _fits(self, int k, object value) noexcept
    cdef bint is_settled_in(self) noexcept
    cdef bint resize_to(self, object dimensions) except -1
    cdef object _input(self, int k, object value)
    cdef object _output(self, int k, object out)
    cdef int _check_apart(self, int k, char *start, int other) except -1
    cdef object run_listed(self, tuple given)
    cdef int _bind_states(self, States states) except -1
    cdef object run(self, States states, object given, object out)
    cdef object _inputs(self, object given)
    cdef int _execute(self, States states) except -1
    cdef int start(self) noexcept nogil
    cdef bint run_kernels(self) noexcept nogil
    cdef int run_steps(self) except -1
    cdef int _walk(self, int k) noexcept nogil
    cdef bint _within(self, Control *control) noexcept nogil
    cdef object _outside(self, int k)
    cdef object _array(self, object view)
    cdef int _run_python(self, int k) except -1


@cython.final
cdef class Runners:
    cdef readonly object program
    cdef readonly bint steered
    cdef bint _leading
    cdef Runner _first
    cdef list _idle
    cdef bint steered_by(self, object given) except -1
    cdef Runner take(self)
    cdef give(self, Runner runner)


cdef object at_once(Runner self, States states, object dimensions, object given, object out)
