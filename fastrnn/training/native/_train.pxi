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
