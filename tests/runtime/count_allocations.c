/* Counts heap allocations of the whole process; loaded before the C library's own (LD_PRELOAD). */
#define _GNU_SOURCE
#include <stddef.h>

extern void *__libc_malloc(size_t), *__libc_calloc(size_t, size_t), *__libc_realloc(void *, size_t), *__libc_memalign(size_t, size_t);
static long count;

long allocations(void) { return count; }
void *malloc(size_t n) {
    count++;
    return __libc_malloc(n);
}
void *calloc(size_t n, size_t size) {
    count++;
    return __libc_calloc(n, size);
}
void *realloc(void *p, size_t n) {
    count++;
    return __libc_realloc(p, n);
}
void *aligned_alloc(size_t alignment, size_t n) {
    count++;
    return __libc_memalign(alignment, n);
}
int posix_memalign(void **p, size_t alignment, size_t n) {
    count++;
    *p = __libc_memalign(alignment, n);
    return *p ? 0 : 12;
}
