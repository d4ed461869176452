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

/* Asks for a row that is read soon. */
static inline void fr_fetch_row(const char *at, int64_t nbytes) {
    for (int64_t k = 0; k < nbytes; k += 64) __builtin_prefetch(at + k);
}
#endif
