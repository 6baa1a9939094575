/*
 * Managed memory: telling what happens, thread mm-tell
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * An event goes out under the monitor's and a chardev's locks, a message into
 * a pipe that may be full.  Whoever holds such a lock may wait for a page (a
 * guest's virtconsole on the chardev of the monitor does), and the page for
 * thread mm-conn.  So mm-conn only queues what there is to tell, and this
 * thread, for which nobody waits, tells it.  If it is held up for long, the
 * oldest is forgotten.
 */
#include "qemu/osdep.h"
#include "qemu/error-report.h"
#include "qemu/lockable.h"
#include "qemu/queue.h"
#include "qemu/thread.h"
#include "managed-memory-internal.h"

#define MAX_QUEUED 256

typedef enum TellKind {
    TELL_LOST,
    TELL_RECOVERED,
    TELL_DETACHED,
    TELL_PAGER_EVENT,
    TELL_ERROR,
    TELL_INFO,
} TellKind;

typedef struct Tell {
    TellKind kind;
    char *text;                 /* a message, or the manager's path */
    uint64_t stall_ms;
    MmMsgEvent event;
    QSIMPLEQ_ENTRY(Tell) next;
} Tell;

static struct {
    QemuMutex lock;
    QemuCond added;
    /* under the lock */
    QSIMPLEQ_HEAD(, Tell) queue;
    unsigned nr;
    bool running;
} tell = {
    .queue = QSIMPLEQ_HEAD_INITIALIZER(tell.queue),
};

static void __attribute__((constructor)) managed_tell_init(void)
{
    qemu_mutex_init(&tell.lock);
    qemu_cond_init(&tell.added);
}

static void tell_free(Tell *t)
{
    g_free(t->text);
    g_free(t);
}

static void tell_now(const Tell *t)
{
    switch (t->kind) {
    case TELL_LOST:
        managed_event_lost(t->text);
        break;
    case TELL_RECOVERED:
        managed_event_recovered(t->text, t->stall_ms);
        break;
    case TELL_DETACHED:
        managed_event_detached();
        break;
    case TELL_PAGER_EVENT:
        managed_event_from_pager(&t->event);
        break;
    case TELL_ERROR:
        error_report("managed memory: %s", t->text);
        break;
    case TELL_INFO:
        info_report("managed memory: %s", t->text);
        break;
    }
}

static Tell *take_locked(void)
{
    Tell *t = QSIMPLEQ_FIRST(&tell.queue);

    if (t) {
        QSIMPLEQ_REMOVE_HEAD(&tell.queue, next);
        tell.nr--;
    }
    return t;
}

static void *tell_thread(void *opaque)
{
    for (;;) {
        Tell *t;

        WITH_QEMU_LOCK_GUARD(&tell.lock) {
            while (!(t = take_locked())) {
                qemu_cond_wait(&tell.added, &tell.lock);
            }
        }
        tell_now(t);
        tell_free(t);
    }
    return NULL;
}

static void start_locked(void)
{
    QemuThread thread;

    if (!tell.running) {
        tell.running = true;
        qemu_thread_create(&thread, "mm-tell", tell_thread, NULL,
                           QEMU_THREAD_DETACHED);
    }
}

static void add(TellKind kind, char *text, uint64_t stall_ms,
                const MmMsgEvent *event)
{
    Tell *t = g_new0(Tell, 1);

    t->kind = kind;
    t->text = text;
    t->stall_ms = stall_ms;
    if (event) {
        t->event = *event;
    }
    QEMU_LOCK_GUARD(&tell.lock);
    if (tell.nr == MAX_QUEUED) {
        tell_free(take_locked());
    }
    QSIMPLEQ_INSERT_TAIL(&tell.queue, t, next);
    tell.nr++;
    start_locked();
    qemu_cond_signal(&tell.added);
}

void managed_tell_lost(const char *path)
{
    add(TELL_LOST, g_strdup(path), 0, NULL);
}

void managed_tell_recovered(const char *path, uint64_t stall_ms)
{
    add(TELL_RECOVERED, g_strdup(path), stall_ms, NULL);
}

void managed_tell_detached(void)
{
    add(TELL_DETACHED, NULL, 0, NULL);
}

void managed_tell_from_pager(const MmMsgEvent *event)
{
    add(TELL_PAGER_EVENT, NULL, 0, event);
}

void managed_tell_error(const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    add(TELL_ERROR, g_strdup_vprintf(fmt, ap), 0, NULL);
    va_end(ap);
}

void managed_tell_info(const char *text)
{
    add(TELL_INFO, g_strdup(text), 0, NULL);
}
