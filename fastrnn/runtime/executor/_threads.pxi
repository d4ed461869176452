# The worker threads that all calls of a process share (threads.h). Part of _executor.pyx.

cdef extern from "threads.h":
    ctypedef struct fr_team:
        int n
    int fr_claim(fr_team *, int, bint) nogil
    void fr_release(fr_team *) nogil
    void fr_run_group(fr_team *, const fr_run *, fr_args *, int, int) nogil
    void fr_together(fr_team *, Share, void *) nogil
    void fr_rouse(int) nogil
    int fastrnn_get_num_threads() nogil
    void fastrnn_set_num_threads(int) nogil


cdef int together(int most, bint awake, Share run, void *context) noexcept nogil:
    """run(context, index) once on each of up to `most` threads, the caller's among them; how many there were. awake: of those alone that need not be woken."""
    cdef fr_team team
    fr_claim(&team, most, awake)
    fr_together(&team, run, context)
    fr_release(&team)
    return team.n


cdef void rouse(int most) noexcept nogil:
    """Wakes threads for calls that come soon; they go back to sleep where none does."""
    fr_rouse(most)


def thread_limit():
    """How many threads all calls of this process may use together."""
    return fastrnn_get_num_threads()


def set_thread_limit(int n):
    """Sets it; at least 1."""
    fastrnn_set_num_threads(n)
