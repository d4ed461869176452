/* Rows of states, from tens to some thousand bytes: whole lines by vector moves, where a call of memcpy takes as long as the copy. */
#ifndef FASTRNN_ROWS_OF_BYTES_H
#define FASTRNN_ROWS_OF_BYTES_H
#include <stdint.h>
#include <string.h>

static inline void fr_copy_row(char *to, const char *from, int64_t nbytes) {
    for (; nbytes >= 64; nbytes -= 64, to += 64, from += 64) memcpy(to, from, 64);
    for (; nbytes >= 16; nbytes -= 16, to += 16, from += 16) memcpy(to, from, 16);
    if (nbytes) memcpy(to, from, (size_t)nbytes);
}

/* n rows from `base`, row r FR_ELEMENT * at[r] bytes behind it, one behind the other; and back. Of the usual sizes the compiler makes moves without a loop. */
#define FR_ROWS_OF(nbytes, to, from) \
    for (int64_t r = 0; r < n; r++) memcpy(to, from, nbytes)
#define FR_EACH_ROW(to, from) \
    if (nbytes == 64) FR_ROWS_OF(64, to, from); \
    else if (nbytes == 128) FR_ROWS_OF(128, to, from); \
    else if (nbytes >= FR_LONG_ROW) FR_ROWS_OF((size_t)nbytes, to, from); \
    else \
        for (int64_t r = 0; r < n; r++) fr_copy_row(to, from, nbytes)
#define FR_LONG_ROW 256 /* bytes from which on memcpy, which has wider moves, is worth its call */
#define FR_ELEMENT 4
static inline void fr_gather_rows(char *to, const char *base, const int64_t *at, int64_t n, int64_t nbytes) {
    FR_EACH_ROW(to + r * nbytes, base + FR_ELEMENT * at[r]);
}
static inline void fr_scatter_rows(char *base, const int64_t *at, const char *from, int64_t n, int64_t nbytes) {
    FR_EACH_ROW(base + FR_ELEMENT * at[r], from + r * nbytes);
}

/* Asks for a row that is read soon, and written after that. */
static inline void fr_fetch_row(const char *at, int64_t nbytes) {
    for (int64_t k = 0; k < nbytes; k += 64) __builtin_prefetch(at + k, 1);
}
static inline void fr_fetch(const void *at) { __builtin_prefetch(at, 1); }
#endif
