/*
 * Sanitizers: a program with known errors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Shows that a sanitized build reports what it is there for, and nothing else.
 * The argument names what is wrong with the program this time.
 */
#include "qemu/osdep.h"
#include "qemu/atomic.h"

typedef struct Shared {
    GMutex lock;
    GCond changed;
    bool ready;                 /* protected by lock */
    bool flag;                  /* atomic */
    int value;                  /* ordered by one of them, or by none */
} Shared;

static Shared shared;

static void *by_mutex(void *unused)
{
    g_mutex_lock(&shared.lock);
    shared.value = 1;
    g_mutex_unlock(&shared.lock);
    return NULL;
}

static void *by_cond(void *unused)
{
    shared.value = 1;
    g_mutex_lock(&shared.lock);
    shared.ready = true;
    g_cond_signal(&shared.changed);
    g_mutex_unlock(&shared.lock);
    return NULL;
}

static void *by_atomic(void *unused)
{
    shared.value = 1;
    qatomic_store_release(&shared.flag, true);
    return NULL;
}

/* The reader holds the lock, the writer does not. */
static void *by_nothing(void *unused)
{
    shared.value = 1;
    return NULL;
}

/* An atomic flag that orders nothing. */
static void *by_relaxed(void *unused)
{
    shared.value = 1;
    qatomic_set(&shared.flag, true);
    return NULL;
}

static int read_locked(void)
{
    int value;

    g_mutex_lock(&shared.lock);
    value = shared.value;
    g_mutex_unlock(&shared.lock);
    return value;
}

static int read_signalled(void)
{
    g_mutex_lock(&shared.lock);
    while (!shared.ready) {
        g_cond_wait(&shared.changed, &shared.lock);
    }
    g_mutex_unlock(&shared.lock);
    return shared.value;
}

static int read_flagged(void)
{
    while (!qatomic_load_acquire(&shared.flag)) {
        g_thread_yield();
    }
    return shared.value;
}

static int out_of_bounds(void)
{
    volatile unsigned beyond = 8;   /* volatile: not to be seen through */
    g_autofree char *buffer = g_malloc(8);

    return buffer[beyond];
}

static int used_after_free(void)
{
    char *buffer = g_malloc0(8);
    char *volatile stale = buffer;  /* volatile: not to be seen through */

    g_free(buffer);
    return stale[0];
}

static int undefined_shift(void)
{
    volatile int by = 40;           /* volatile: not to be seen through */

    return 1 << by;
}

static const struct {
    const char *name;
    GThreadFunc writer;
    int (*reader)(void);
} cases[] = {
    { "mutex", by_mutex, read_locked },
    { "cond", by_cond, read_signalled },
    { "atomic", by_atomic, read_flagged },
    { "race", by_nothing, read_locked },
    { "relaxed", by_relaxed, read_flagged },
    { "overflow", NULL, out_of_bounds },
    { "use-after-free", NULL, used_after_free },
    { "shift", NULL, undefined_shift },
};

int main(int argc, char **argv)
{
    int i, value = 0;

    g_mutex_init(&shared.lock);
    g_cond_init(&shared.changed);
    for (i = 0; i < ARRAY_SIZE(cases); i++) {
        if (argc == 2 && !strcmp(argv[1], cases[i].name)) {
            GThread *thread = NULL;

            if (cases[i].writer) {
                thread = g_thread_new("writer", cases[i].writer, NULL);
            }
            value = cases[i].reader();
            if (thread) {
                g_thread_join(thread);
            }
            printf("%d\n", value);
            return EXIT_SUCCESS;
        }
    }
    fprintf(stderr, "usage: canary CASE\n");
    return EXIT_FAILURE;
}
