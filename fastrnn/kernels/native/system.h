/* What is asked of the operating system: a processor given away, locks, threads, how many processors there are. POSIX, and Windows beside it.
 *
 *   fr_lock, fr_signal                      FR_UNLOCKED starts a lock; fr_lock_take, fr_lock_give, fr_signal_wait (which gives the lock meanwhile), fr_signal_wake
 *   fr_thread_start(run, context)           a thread of no name that nobody waits for, which gets no signals; 0, or not, where there is none to be had
 *   fr_processors()                         that this process may use
 *   fr_now_ns()                             on a clock that only goes forward
 *   FR_ON_FORK(before, parent, child)       once, when the library is loaded
 *
 * Windows has been compiled, never run. */
#ifndef FASTRNN_SYSTEM_H
#define FASTRNN_SYSTEM_H
#include <stdint.h>

#ifdef _WIN32
#define WIN32_LEAN_AND_MEAN
#include <windows.h>
#define FR_EXPORT __declspec(dllexport)
#define FR_ON_FORK(before, parent, child)
typedef SRWLOCK fr_lock;
typedef CONDITION_VARIABLE fr_signal;
#define FR_UNLOCKED SRWLOCK_INIT
static inline void fr_yield(void) { SwitchToThread(); }
static inline void fr_lock_start(fr_lock *lock) { InitializeSRWLock(lock); }
static inline void fr_lock_take(fr_lock *lock) { AcquireSRWLockExclusive(lock); }
static inline void fr_lock_give(fr_lock *lock) { ReleaseSRWLockExclusive(lock); }
static inline void fr_signal_start(fr_signal *signal) { InitializeConditionVariable(signal); }
static inline void fr_signal_wait(fr_signal *signal, fr_lock *lock) { SleepConditionVariableSRW(signal, lock, INFINITE, 0); }
static inline void fr_signal_wake(fr_signal *signal) { WakeConditionVariable(signal); }

typedef DWORD fr_thread_result;
static inline int fr_thread_start(fr_thread_result(WINAPI *run)(void *), void *context) {
    const HANDLE thread = CreateThread(NULL, 0, run, context, 0, NULL);
    if (!thread) return 1;
    CloseHandle(thread);
    return 0;
}
#define FR_THREAD(name, context) static DWORD WINAPI name(void *context)

static inline int fr_processors(void) {
    DWORD_PTR mine, all;
    int n = 0;
    if (GetProcessAffinityMask(GetCurrentProcess(), &mine, &all))
        for (; mine; mine &= mine - 1) n++;
    return n < 1 ? 1 : n;
}
static inline int64_t fr_now_ns(void) {
    LARGE_INTEGER ticks, a_second;
    QueryPerformanceCounter(&ticks);
    QueryPerformanceFrequency(&a_second);
    return (int64_t)((double)ticks.QuadPart * 1e9 / (double)a_second.QuadPart);
}

#else
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>
#define FR_EXPORT __attribute__((visibility("default")))
#define FR_ON_FORK(before, parent, child) \
    __attribute__((constructor)) static void fr_watch_forks(void) { pthread_atfork(before, parent, child); }
typedef pthread_mutex_t fr_lock;
typedef pthread_cond_t fr_signal;
#define FR_UNLOCKED PTHREAD_MUTEX_INITIALIZER
static inline void fr_yield(void) { sched_yield(); }
static inline void fr_lock_start(fr_lock *lock) { pthread_mutex_init(lock, NULL); }
static inline void fr_lock_take(fr_lock *lock) { pthread_mutex_lock(lock); }
static inline void fr_lock_give(fr_lock *lock) { pthread_mutex_unlock(lock); }
static inline void fr_signal_start(fr_signal *signal) { pthread_cond_init(signal, NULL); }
static inline void fr_signal_wait(fr_signal *signal, fr_lock *lock) { pthread_cond_wait(signal, lock); }
static inline void fr_signal_wake(fr_signal *signal) { pthread_cond_signal(signal); }

typedef void *fr_thread_result;
static inline int fr_thread_start(fr_thread_result (*run)(void *), void *context) {
    pthread_t thread;
    sigset_t all, before;
    sigfillset(&all); /* signals are for the program's own threads */
    pthread_sigmask(SIG_BLOCK, &all, &before);
    const int failed = pthread_create(&thread, NULL, run, context);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (!failed) pthread_detach(thread);
    return failed;
}
#define FR_THREAD(name, context) static void *name(void *context)

static inline int fr_processors(void) {
#ifdef CPU_COUNT /* Linux, where _GNU_SOURCE came before everything else, as Python.h and threads.h see to */
    cpu_set_t set;
    if (sched_getaffinity(getpid(), sizeof set, &set) == 0) return CPU_COUNT(&set); /* the process's, whatever the caller is pinned to */
#endif
    const long n = sysconf(_SC_NPROCESSORS_ONLN);
    return n < 1 ? 1 : (int)n;
}
static inline int64_t fr_now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}
#endif
#endif
