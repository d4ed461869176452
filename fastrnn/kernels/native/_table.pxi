# cython: language_level=3
from libc.stdint cimport int64_t
from fastrnn.kernels.native._args cimport fr_args, fr_kernel

cdef extern from "table.h":
    int _LANES "LANES"
    const fr_kernel fr_table[]

LANES = _LANES
SIZEOF_ARGS = sizeof(fr_args)


def kernels():
    """(name, address of run, address of work_bytes) of every kernel."""
    result, k = [], 0
    while fr_table[k].name != NULL:
        result.append(((<bytes>fr_table[k].name).decode(), <size_t>fr_table[k].run, <size_t>fr_table[k].work_bytes))
        k += 1
    return result


def offsets():
    """Byte offset of every field of the argument struct, to hold against contract.ARGS."""
    cdef fr_args a
    cdef size_t base = <size_t>&a
    return {
        "T": <size_t>&a.T - base, "B": <size_t>&a.B - base, "I": <size_t>&a.I - base, "H": <size_t>&a.H - base, "P": <size_t>&a.P - base,
        "x": <size_t>&a.x - base, "y": <size_t>&a.y - base, "x_t": <size_t>&a.x_t - base, "x_b": <size_t>&a.x_b - base,
        "y_t": <size_t>&a.y_t - base, "y_b": <size_t>&a.y_b - base, "w_x": <size_t>&a.w_x - base, "w_h": <size_t>&a.w_h - base,
        "w_u": <size_t>&a.w_u - base, "w_p": <size_t>&a.w_p - base, "bias": <size_t>&a.bias - base, "peephole": <size_t>&a.peephole - base,
        "h0": <size_t>&a.h0 - base, "c0": <size_t>&a.c0 - base, "hn": <size_t>&a.hn - base, "cn": <size_t>&a.cn - base,
        "h0_b": <size_t>&a.h0_b - base, "c0_b": <size_t>&a.c0_b - base, "hn_b": <size_t>&a.hn_b - base, "cn_b": <size_t>&a.cn_b - base,
        "lengths": <size_t>&a.lengths - base, "order": <size_t>&a.order - base, "work": <size_t>&a.work - base,
        "chunk": <size_t>&a.chunk - base, "ahead": <size_t>&a.ahead - base, "sweep": <size_t>&a.sweep - base, "part": <size_t>&a.part - base, "parts": <size_t>&a.parts - base,
        "barrier": <size_t>&a.barrier - base, "ready": <size_t>&a.ready - base, "done": <size_t>&a.done - base, "reverse": <size_t>&a.reverse - base, "input_forget": <size_t>&a.input_forget - base,
        "clip": <size_t>&a.clip - base, "scale": <size_t>&a.scale - base, "act": <size_t>&a.act[0] - base,
        "x2": <size_t>&a.x2 - base, "x2_t": <size_t>&a.x2_t - base, "x2_b": <size_t>&a.x2_b - base, "axes": <size_t>&a.axes - base, "x3": <size_t>&a.x3 - base, "x4": <size_t>&a.x4 - base,
        "x5": <size_t>&a.x5 - base, "x6": <size_t>&a.x6 - base, "x7": <size_t>&a.x7 - base, "x8": <size_t>&a.x8 - base,
    }
