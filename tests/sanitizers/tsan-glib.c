/*
 * Sanitizers: what ThreadSanitizer has to know about glib
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The distribution's glib is not instrumented, and its mutexes are made of
 * futexes: without help ThreadSanitizer sees threads that touch the same
 * memory and nothing that orders them.  The program is linked with --wrap for
 * each function below, so that every lock is announced; whatever is not
 * ordered by one is still a race, and is reported.
 *
 * Not suppressions: nothing is hidden from the tool here.
 */
#include <glib.h>
#include <sanitizer/tsan_interface.h>
#include "tsan-glib.h"

void __wrap_g_mutex_init(GMutex *mutex)
{
    __real_g_mutex_init(mutex);
    __tsan_mutex_create(mutex, 0);
}

void __wrap_g_mutex_clear(GMutex *mutex)
{
    __tsan_mutex_destroy(mutex, 0);
    __real_g_mutex_clear(mutex);
}

void __wrap_g_mutex_lock(GMutex *mutex)
{
    __tsan_mutex_pre_lock(mutex, 0);
    __real_g_mutex_lock(mutex);
    __tsan_mutex_post_lock(mutex, 0, 0);
}

gboolean __wrap_g_mutex_trylock(GMutex *mutex)
{
    gboolean locked;

    __tsan_mutex_pre_lock(mutex, __tsan_mutex_try_lock);
    locked = __real_g_mutex_trylock(mutex);
    __tsan_mutex_post_lock(mutex, locked ? __tsan_mutex_try_lock
                                         : __tsan_mutex_try_lock |
                                           __tsan_mutex_try_lock_failed, 0);
    return locked;
}

void __wrap_g_mutex_unlock(GMutex *mutex)
{
    __tsan_mutex_pre_unlock(mutex, 0);
    __real_g_mutex_unlock(mutex);
    __tsan_mutex_post_unlock(mutex, 0);
}

/* Inside, the mutex is unlocked and locked again. */
void __wrap_g_cond_wait(GCond *cond, GMutex *mutex)
{
    __tsan_mutex_pre_unlock(mutex, 0);
    __tsan_mutex_post_unlock(mutex, 0);
    __real_g_cond_wait(cond, mutex);
    __tsan_mutex_pre_lock(mutex, 0);
    __tsan_mutex_post_lock(mutex, 0, 0);
}
