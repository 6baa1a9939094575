/*
 * Managed memory pager: faults that could not be resolved at once
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "waiters.h"

void mm_waiters_init(MmWaiters *w)
{
    memset(w, 0, sizeof(*w));
    g_mutex_init(&w->lock);
}

void mm_waiters_add(MmWaiters *w, uint64_t addr, uint32_t tid,
                    uint64_t since_ns, MmWaitReason reason)
{
    g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&w->lock);
    MmWaiter *waiter;
    unsigned i;

    for (i = 0; i < w->nr; i++) {
        waiter = &w->waiter[i];
        if (waiter->tid == tid && waiter->addr == addr) {
            waiter->reason = reason;
            return;
        }
    }
    if (i == MM_MAX_WAITERS) {
        w->overflow = true;
        return;
    }
    w->waiter[w->nr++] = (MmWaiter) {
        .addr = addr, .since_ns = since_ns, .tid = tid, .reason = reason,
    };
}

void mm_waiters_remove(MmWaiters *w, uint64_t addr, uint64_t len,
                       void (*fn)(void *opaque, uint64_t since_ns),
                       void *opaque)
{
    unsigned i = 0;

    if (!w->nr) {
        return;
    }
    g_mutex_lock(&w->lock);
    while (i < w->nr) {
        if (w->waiter[i].addr - addr < len) {
            fn(opaque, w->waiter[i].since_ns);
            w->waiter[i] = w->waiter[--w->nr];
        } else {
            i++;
        }
    }
    g_mutex_unlock(&w->lock);
}

bool mm_waiters_failed(const MmWaiters *w, uint64_t addr)
{
    unsigned i;

    for (i = 0; i < w->nr; i++) {
        if (w->waiter[i].addr == addr && w->waiter[i].failed) {
            return true;
        }
    }
    return false;
}

bool mm_waiters_set_reason(MmWaiters *w, uint64_t addr, MmWaitReason reason)
{
    g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&w->lock);
    bool found = false;
    unsigned i;

    for (i = 0; i < w->nr; i++) {
        if (w->waiter[i].addr == addr) {
            w->waiter[i].reason = reason;
            w->waiter[i].failed |= reason == MM_WAIT_ERROR;
            found = true;
        }
    }
    return found;
}

void mm_waiters_count(MmWaiters *w, uint32_t *threads, uint64_t *oldest_ns)
{
    g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&w->lock);
    unsigned i, k;

    *oldest_ns = 0;
    *threads = 0;
    for (i = 0; i < w->nr; i++) {
        for (k = 0; k < i && w->waiter[k].tid != w->waiter[i].tid; k++) {
            continue;
        }
        *threads += k == i;
        if (!*oldest_ns || w->waiter[i].since_ns < *oldest_ns) {
            *oldest_ns = w->waiter[i].since_ns;
        }
    }
}
