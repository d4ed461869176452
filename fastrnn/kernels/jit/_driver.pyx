# cython: language_level=3
"""The time loop of compiled kernels, by its address, and the layout of the tables that it and their tiles share: driver.h says what each is."""

from libc.stdint cimport int64_t, intptr_t

cdef extern from *:
    """
    #include "driver.h"
    #define FR_NAME(name) #name " "
    static const char fr_rows[] = FR_ROWS(FR_NAME), fr_words[] = FR_WORDS(FR_NAME), fr_facts[] = FR_FACTS(FR_NAME);
    enum { FR_WORDS_OF_KIND = FR_COUNTS * sizeof(fr_kind) / 8 };
    """
    const char *fr_rows
    const char *fr_words
    const char *fr_facts
    int FR_STATES, FR_LEVELS, FR_MOST_ROWS, FR_WORDS_OF_KIND
    void fr_drive() nogil

ROWS = tuple(fr_rows.decode().split())
WORDS = tuple(fr_words.decode().split())
FACTS = tuple(fr_facts.decode().split())
STATES, LEVELS, MOST_ROWS, WORDS_OF_KIND = FR_STATES, FR_LEVELS, FR_MOST_ROWS, FR_WORDS_OF_KIND


def address() -> int:
    """Of ``void drive(const Args *, const table *)``, which a kernel's bind takes."""
    return <int64_t><intptr_t>&fr_drive
