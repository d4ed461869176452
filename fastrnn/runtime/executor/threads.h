/* The worker threads that all sessions of a process share.
 *
 *   fr_claim(team, n, awake)   takes up to n - 1 idle workers, fewer where the limit or other callers leave fewer, and where only those that are awake will do; returns how many
 *                         threads there are
 *   fr_together(team, run, context)   run(context, index) once on each, the caller being index 0; returns when all are done
 *   fr_release(team)      gives the workers back
 *   fr_rouse(n)           wakes up to n - 1 workers, for who will have work for them soon, and waits for none
 *
 * Callers and claimed workers together never exceed the limit: the processors this process may use, or what fastrnn_set_num_threads says. A
 * worker spins for some microseconds after its work and then sleeps. After a fork the child starts with none and makes its own. */
#ifndef FASTRNN_THREADS_H
#define FASTRNN_THREADS_H
#include "system.h"
#include <stdlib.h>
#include "fpmode.h"
#include "sync.h"

#define FR_MOST_THREADS 64
#define FR_IDLE_SPINS 2000 /* pauses: about 40 us on a Zen 4 */

typedef void (*fr_share)(void *context, int index);

typedef struct {
    fr_lock lock;
    fr_signal wake;
    fr_share run;
    void *context;
    int index, claimed, caller_cpu;
    _Atomic int busy, asleep, roused;
    _Atomic int64_t *finished;
} fr_worker;

typedef struct {
    int n; /* threads, the caller's included */
    fr_worker *workers[FR_MOST_THREADS];
} fr_team;

static struct {
    fr_lock lock;
    fr_worker *workers[FR_MOST_THREADS];
    int n_workers, n_claimed, n_callers, limit;
} fr_pool = {.lock = FR_UNLOCKED};

/* How many threads all callers may use together. */
FR_EXPORT int fastrnn_get_num_threads(void) {
    fr_lock_take(&fr_pool.lock);
    if (!fr_pool.limit) fr_pool.limit = fr_processors();
    const int limit = fr_pool.limit;
    fr_lock_give(&fr_pool.lock);
    return limit;
}
FR_EXPORT void fastrnn_set_num_threads(int n) {
    fr_lock_take(&fr_pool.lock);
    fr_pool.limit = n < 1 ? 1 : n;
    fr_lock_give(&fr_pool.lock);
}

/* The system sometimes wakes a worker on the very processor its caller runs on, where the two take turns: then it moves to another one. */
static void fr_step_aside(const fr_worker *w) {
#ifdef __linux__
    cpu_set_t all, one;
    if (sched_getcpu() != w->caller_cpu || sched_getaffinity(0, sizeof all, &all)) return;
    for (int cpu = 0, left = w->index; cpu < CPU_SETSIZE; cpu++)
        if (CPU_ISSET(cpu, &all) && cpu != w->caller_cpu && --left == 0) {
            CPU_ZERO(&one);
            CPU_SET(cpu, &one);
            if (!sched_setaffinity(0, sizeof one, &one)) sched_setaffinity(0, sizeof all, &all);
        }
#else
    (void)w;
#endif
}

static void fr_sleep(fr_worker *w) {
    fr_lock_take(&w->lock);
    atomic_store(&w->asleep, 1);
    while (!atomic_load(&w->busy) && !atomic_load(&w->roused)) fr_signal_wait(&w->wake, &w->lock);
    atomic_store(&w->roused, 0);
    atomic_store(&w->asleep, 0);
    fr_lock_give(&w->lock);
}

FR_THREAD(fr_work, worker) {
    fr_worker *w = worker;
    fr_flush_denormals();
#ifdef __linux__
    cpu_set_t set;
    if (!sched_getaffinity(getpid(), sizeof set, &set)) sched_setaffinity(0, sizeof set, &set);
#endif
    for (int spins = 0;;) {
        if (atomic_load_explicit(&w->busy, memory_order_acquire)) {
            _Atomic int64_t *finished = w->finished;
            fr_step_aside(w);
            w->run(w->context, w->index);
            atomic_store(&w->busy, 0);
            atomic_fetch_add_explicit(finished, 1, memory_order_release);
            spins = 0;
        } else if (++spins < FR_IDLE_SPINS) FR_PAUSE();
        else {
            fr_sleep(w);
            spins = 0;
        }
    }
    return 0;
}

/* A new worker, asleep; NULL where the system gives none. */
static fr_worker *fr_hire(void) {
    fr_worker *w = calloc(1, sizeof *w);
    if (!w) return NULL;
    fr_lock_start(&w->lock);
    fr_signal_start(&w->wake);
    if (fr_thread_start(fr_work, w)) {
        free(w);
        return NULL;
    }
    return w;
}

static int fr_claim(fr_team *team, int n, int awake) {
    team->n = 1;
    const int limit = fastrnn_get_num_threads();
    fr_lock_take(&fr_pool.lock);
    fr_pool.n_callers++;
    for (int k = 0; team->n < n && fr_pool.n_callers + fr_pool.n_claimed < limit; k++) {
        if (k == fr_pool.n_workers) {
            fr_worker *hired = k + 1 < FR_MOST_THREADS && !awake ? fr_hire() : NULL;
            if (!hired) break;
            fr_pool.workers[fr_pool.n_workers++] = hired;
        }
        if (fr_pool.workers[k]->claimed || (awake && atomic_load(&fr_pool.workers[k]->asleep))) continue;
        fr_pool.workers[k]->claimed = 1;
        fr_pool.n_claimed++;
        team->workers[team->n++] = fr_pool.workers[k];
    }
    fr_lock_give(&fr_pool.lock);
    return team->n;
}

static void fr_release(fr_team *team) {
    fr_lock_take(&fr_pool.lock);
    fr_pool.n_callers--;
    fr_pool.n_claimed -= team->n - 1;
    for (int k = 1; k < team->n; k++) team->workers[k]->claimed = 0;
    fr_lock_give(&fr_pool.lock);
    team->n = 0;
}

static void fr_wake(fr_worker *w) {
    fr_lock_take(&w->lock);
    fr_signal_wake(&w->wake);
    fr_lock_give(&w->lock);
}

static void fr_together(fr_team *team, fr_share run, void *context) {
    _Atomic int64_t finished = 0;
#ifdef __linux__
    const int cpu = sched_getcpu();
#else
    const int cpu = -1;
#endif
    for (int k = 1; k < team->n; k++) {
        fr_worker *w = team->workers[k];
        w->run = run, w->context = context, w->index = k, w->caller_cpu = cpu, w->finished = &finished;
        atomic_store(&w->busy, 1);
        if (atomic_load(&w->asleep)) fr_wake(w); /* it set this before it looked at busy for the last time */
    }
    run(context, 0);
    fr_wait(&finished, team->n - 1);
}

static void fr_rouse(int n) {
    fr_team team;
    fr_claim(&team, n, 0);
    for (int k = 1; k < team.n; k++) {
        if (!atomic_load(&team.workers[k]->asleep)) continue;
        atomic_store(&team.workers[k]->roused, 1);
        fr_wake(team.workers[k]);
    }
    fr_release(&team);
}

static void fr_after_fork(void) {
    fr_lock_start(&fr_pool.lock);
    fr_pool.n_workers = fr_pool.n_claimed = fr_pool.n_callers = 0; /* the workers stayed in the parent */
}

static void fr_before_fork(void) { fr_lock_take(&fr_pool.lock); }
static void fr_in_parent(void) { fr_lock_give(&fr_pool.lock); }

FR_ON_FORK(fr_before_fork, fr_in_parent, fr_after_fork)

/* Kernel calls that run at once: each in as many parts as its arguments say, or in fewer where there is no thread for every part; with fewer
 * threads than calls (most_parts 0), whole and in turns. */
typedef struct {
    const fr_run *kernels;
    fr_args *args;
    int n_calls, n_threads, most_parts;
} fr_group;

static void fr_group_share(void *context, int index) {
    const fr_group *group = context;
    if (!group->most_parts) {
        for (int k = index; k < group->n_calls; k += group->n_threads) {
            fr_args whole = group->args[k];
            whole.part = whole.parts = 0;
            group->kernels[k](&whole);
        }
        return;
    }
    for (int k = 0; k < group->n_calls; k++) {
        fr_args part = group->args[k];
        if (part.parts > group->most_parts) part.parts = group->most_parts;
        const int parts = part.parts > 1 ? (int)part.parts : 1;
        if (index < parts) {
            part.part = index;
            group->kernels[k](&part);
            return;
        }
        index -= parts;
    }
}

/* Runs a group on a team. `wanted`: threads for all its parts. */
static void fr_run_group(fr_team *team, const fr_run *kernels, fr_args *args, int n_calls, int wanted) {
    fr_group group = {kernels, args, n_calls, team->n, team->n >= wanted ? wanted : team->n / n_calls};
    for (int k = 0; k < n_calls; k++) {
        if (args[k].barrier) *(int64_t *)args[k].barrier = 0;
        if (args[k].done) *(int64_t *)args[k].done = 0;
    }
    if (team->n > 1) fr_together(team, fr_group_share, &group);
    else fr_group_share(&group, 0);
}
#endif
