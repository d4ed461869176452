# cython: language_level=3
"""One direction of a layer, forward or backward, over packed rows."""
cimport numpy as np
from libc.stdint cimport int64_t, uintptr_t

import numpy

from fastrnn.training.native import GATES

np.import_array()

cdef extern from "train.h":
    int _LANES "LANES"
    ctypedef struct fr_piece:
        pass
    ctypedef struct fr_direction "fr_direction_float":  # that of double differs in what pointers point to
        int64_t B, H, P, n_pieces, by_h
        const fr_piece *pieces
        void *gates
        void *h
        void *c
        void *extra
        void *dh
        void *dh0
        void *dc
        void *da
        void *scratch
        const void *w_h
        const void *w_p
        const void *peepholes
        const void *b_n
        void *d_peepholes
        void *panels
        int relu
        int coupled
    void fr_run_float(int kind, int back, const fr_direction *d) noexcept nogil
    void fr_run_double(int kind, int back, void *d) noexcept nogil


cdef void *at(np.ndarray a):
    return np.PyArray_DATA(a) if a is not None else NULL


def run(int kind, bint back, np.ndarray pieces, int64_t B, np.ndarray h, np.ndarray w_h, np.ndarray gates=None, np.ndarray c=None, np.ndarray extra=None,
        np.ndarray dh=None, np.ndarray dh0=None, np.ndarray dc=None, np.ndarray da=None, np.ndarray w_p=None, np.ndarray peepholes=None,
        np.ndarray b_n=None, np.ndarray d_peepholes=None, bint relu=False, bint coupled=False):
    """Runs the time loop of one direction; instance.h says what the arrays are, and what kind means.

    All are of one dtype, float32 or float64, and C-contiguous, but for h, dh, dh0 and da, whose rows have one stride. What a kind has no use for is None.
    Checks nothing; takes memory for packed weights; releases the GIL.
    """
    cdef fr_direction d
    cdef bint single = np.PyArray_TYPE(h) == np.NPY_FLOAT
    cdef int64_t size = 4 if single else 8, gates_H = w_h.shape[0], H = gates_H // <int64_t>GATES[kind], P = w_h.shape[1], lanes = 4 * _LANES // size
    dtype = numpy.float32 if single else numpy.float64
    # Each matrix padded to whole vectors of columns, either way round, and a cache line to begin on one.
    cdef np.ndarray room = numpy.empty((gates_H + H + 4 * lanes) * (P + 2 * lanes) + 2 * lanes * H + 16, dtype), scratch = numpy.empty(B * H if back else 0, dtype)
    d.B, d.H, d.P, d.n_pieces, d.by_h = B, H, P, pieces.shape[0], h.strides[0] // size
    d.pieces = <const fr_piece *>at(pieces)
    d.gates, d.h, d.c, d.extra = at(gates), at(h), at(c), at(extra)
    d.dh, d.dh0, d.dc, d.da, d.scratch = at(dh), at(dh0), at(dc), at(da), at(scratch)
    d.w_h, d.w_p, d.peepholes, d.b_n = at(w_h), at(w_p), at(peepholes), at(b_n)
    d.d_peepholes, d.panels = at(d_peepholes), <void *>((<uintptr_t>at(room) + 63) // 64 * 64)
    d.relu, d.coupled = relu, coupled
    with nogil:
        if single:
            fr_run_float(kind, back, &d)
        else:
            fr_run_double(kind, back, <void *>&d)


cdef extern from "train.h":
    int FR_MOST_PORTS, TILE_VECTORS
    ctypedef struct fr_place:
        pass
    ctypedef struct fr_instruction:
        pass
    ctypedef struct fr_code "fr_code_float":
        int64_t n, n_ports, n_constants, n_slots
        const fr_instruction *instructions
        const fr_place *ports
        const void *constants
    ctypedef struct fr_cell "fr_cell_float":
        int64_t B, H, P, G, n_pieces, by_h, by_c, by_x, by_s, by_dx, by_ds
        int64_t first_h, n_h, first_2, n_2
        const fr_piece *pieces
        void *gates
        void *h
        void *c
        void *extra
        void *dh
        void *dh0
        void *dc
        void *dx
        void *ds
        const void *x
        const void *s
        void *da
        void *scratch
        const void *w_h
        const void *w_2
        const void *w_p
        const void *parameters
        void *d_parameters
        void *panels
        void *slots
        fr_code pointwise, operand
    void fr_run_cell_float(int back, const fr_cell *d) noexcept nogil
    void fr_run_cell_double(int back, void *d) noexcept nogil


cdef int64_t by_row(np.ndarray a, int64_t size):
    return a.strides[0] // size if a is not None else 0


cdef int64_t set_code(fr_code *to, code):
    """The slots that it needs."""
    if code is None:
        to.n = to.n_ports = to.n_constants = 0
        return 0
    to.n, to.n_ports, to.n_constants, to.n_slots = len(code.instructions), len(code.places), len(code.constants), code.n_slots
    to.instructions, to.ports, to.constants = <const fr_instruction *>at(code.instructions), <const fr_place *>at(code.places), at(code.constants)
    return code.n_slots


def run_cell(bint back, np.ndarray pieces, int64_t B, pointwise, operand, np.ndarray gates, np.ndarray h, np.ndarray parameters, int64_t first_h, np.ndarray w_h,
             int64_t first_2, np.ndarray w_2, np.ndarray w_p=None, np.ndarray c=None, np.ndarray extra=None, np.ndarray x=None, np.ndarray s=None,
             np.ndarray dh=None, np.ndarray dh0=None, np.ndarray dc=None, np.ndarray dx=None, np.ndarray ds=None, np.ndarray d_parameters=None):
    """Runs the time loop of one direction of any cell; cell.h says what the arrays are. pointwise, operand: of training/cellcode.py, of the pass that is run.

    All arrays are of one dtype, float32 or float64, and C-contiguous, but for h, dh, dh0, x, s, dx and ds, which are so within rows. w_h, w_2 have no rows where no
    gate reads them. What a cell has no use for is None. Checks nothing; takes memory for packed weights and a step; releases the GIL.
    """
    cdef fr_cell d
    cdef bint single = np.PyArray_TYPE(h) == np.NPY_FLOAT
    cdef int64_t size = 4 if single else 8, lanes = 4 * _LANES // size, H = parameters.shape[1], P = h.shape[1] if w_p is None else w_p.shape[0], GH = gates.shape[1], slots
    dtype = numpy.float32 if single else numpy.float64
    d.B, d.H, d.P, d.G, d.n_pieces = B, H, P, GH // H, pieces.shape[0]
    d.by_h, d.by_c, d.by_x, d.by_s, d.by_dx, d.by_ds = by_row(h, size), by_row(c, size), by_row(x, size), by_row(s, size), by_row(dx, size), by_row(ds, size)
    d.first_h, d.n_h, d.first_2, d.n_2 = first_h, w_h.shape[0] // H, first_2, w_2.shape[0] // H
    d.pieces = <const fr_piece *>at(pieces)
    d.gates, d.h, d.c, d.extra, d.x, d.s = at(gates), at(h), at(c), at(extra), at(x), at(s)
    d.dh, d.dh0, d.dc, d.dx, d.ds = at(dh), at(dh0), at(dc), at(dx), at(ds)
    d.w_h, d.w_2, d.w_p, d.parameters, d.d_parameters = at(w_h), at(w_2), at(w_p), at(parameters), at(d_parameters)
    slots = max(set_code(&d.pointwise, pointwise), set_code(&d.operand, operand)) * TILE_VECTORS * lanes
    # Each matrix padded to whole vectors of columns, either way round, and a cache line to begin on one.
    cdef np.ndarray room = numpy.empty(slots + (GH + 3 * lanes) * (max(P, H) + lanes) + (P + lanes) * (H + lanes) + 16, dtype)
    cdef np.ndarray scratch = numpy.empty(B * H if back else 0, dtype), da = numpy.empty(B * GH, dtype) if back and d.n_2 else None
    d.slots = <void *>((<uintptr_t>at(room) + 63) // 64 * 64)
    d.panels = <void *>(<char *>d.slots + slots * size)
    d.scratch, d.da = at(scratch), at(da)
    with nogil:
        if single:
            fr_run_cell_float(back, &d)
        else:
            fr_run_cell_double(back, <void *>&d)


cdef extern from "train.h":
    int BLOCK_ROWS
    void fr_project_float(const void *x, int64_t by_x, int64_t n, const void *w, int64_t by_w, int64_t depth, int64_t columns, const void *bias, void *out,
                          int64_t by_out, void *panels) noexcept nogil
    void fr_project_double(const void *x, int64_t by_x, int64_t n, const void *w, int64_t by_w, int64_t depth, int64_t columns, const void *bias, void *out,
                           int64_t by_out, void *panels) noexcept nogil
    void fr_add_outer_float(const void *a, int64_t by_a, int64_t n_a, const void *b, int64_t by_b, int64_t n_b, int64_t n, void *out, void *panels) noexcept nogil
    void fr_add_outer_double(const void *a, int64_t by_a, int64_t n_a, const void *b, int64_t by_b, int64_t n_b, int64_t n, void *out, void *panels) noexcept nogil


def project(np.ndarray x, np.ndarray w, np.ndarray bias, np.ndarray out):
    """out (N, C) = x (N, I) times w (C, I) transposed, and bias (C). All of one dtype and C-contiguous within rows. Checks nothing; takes memory for w, packed;
    releases the GIL."""
    cdef bint single = np.PyArray_TYPE(out) == np.NPY_FLOAT
    cdef int64_t size = 4 if single else 8, lanes = 4 * _LANES // size, by_x = by_row(x, size), by_w = by_row(w, size), by_out = by_row(out, size)
    cdef int64_t n = x.shape[0], depth = x.shape[1], columns = w.shape[0]
    cdef np.ndarray room = numpy.empty((columns + lanes) * depth + 16, out.dtype)
    cdef void *from_x = at(x)
    cdef void *from_w = at(w)
    cdef void *from_bias = at(bias)
    cdef void *to = at(out)
    cdef void *panels = <void *>((<uintptr_t>at(room) + 63) // 64 * 64)
    with nogil:
        if single:
            fr_project_float(from_x, by_x, n, from_w, by_w, depth, columns, from_bias, to, by_out, panels)
        else:
            fr_project_double(from_x, by_x, n, from_w, by_w, depth, columns, from_bias, to, by_out, panels)


def add_outer(np.ndarray a, np.ndarray b, np.ndarray out):
    """out (A, C) += a (N, A) transposed times b (N, C). All of one dtype, out C-contiguous, a and b within rows. Checks nothing; takes memory for some rows of b;
    releases the GIL."""
    cdef bint single = np.PyArray_TYPE(out) == np.NPY_FLOAT
    cdef int64_t size = 4 if single else 8, lanes = 4 * _LANES // size, by_a = by_row(a, size), by_b = by_row(b, size)
    cdef int64_t n = a.shape[0], n_a = a.shape[1], n_b = b.shape[1]
    cdef np.ndarray room = numpy.empty((n_b + lanes) * BLOCK_ROWS + 16, out.dtype)
    cdef void *from_a = at(a)
    cdef void *from_b = at(b)
    cdef void *to = at(out)
    cdef void *panels = <void *>((<uintptr_t>at(room) + 63) // 64 * 64)
    with nogil:
        if single:
            fr_add_outer_float(from_a, by_a, n_a, from_b, by_b, n_b, n, to, panels)
        else:
            fr_add_outer_double(from_a, by_a, n_a, from_b, by_b, n_b, n, to, panels)
