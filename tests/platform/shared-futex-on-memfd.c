/*
 * A futex in a memfd that two processes map works between them: the waiter is
 * woken by the other process, does not sleep when the word has changed
 * already, and gives up after its timeout when nobody comes.  A private futex
 * at the same place is not woken.
 *
 * Architecture: QEMU waits for the acknowledgement of a discard with a futex
 * in the shared ring, and with a timeout, since the pager may be dead.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#define _GNU_SOURCE
#include "platform.h"

#include <limits.h>
#include <time.h>
#include <unistd.h>
#include <linux/futex.h>
#include <sys/mman.h>
#include <sys/syscall.h>

enum {
    POSTED = 1,
    DONE = 2,
};

#define TIMEOUT_MS  100

/* Wait while the word is POSTED; returns 0 or -errno. */
static int futex_wait(uint32_t *word, int flags, int timeout_ms)
{
    struct timespec ts = {
        timeout_ms / 1000, timeout_ms % 1000 * 1000000L
    };

    if (syscall(SYS_futex, word, FUTEX_WAIT | flags, POSTED, &ts, NULL, 0)) {
        return -errno;
    }
    return 0;
}

static int futex_wake(uint32_t *word, int flags)
{
    return SYS(syscall(SYS_futex, word, FUTEX_WAKE | flags, INT_MAX, NULL,
                       NULL, 0));
}

/* Keep waking the word until a waiter was found, or time is up. */
static int wake_until_found(uint32_t *word, int flags, int timeout_ms)
{
    int woken = 0;

    for (int ms = 0; ms < timeout_ms && !woken; ms++) {
        sleep_ms(1);
        woken = futex_wake(word, flags);
    }
    return woken;
}

/* A waiter in another process, with a mapping of its own. */
static pid_t start_waiter(int memfd, int flags, int want, int timeout_ms)
{
    pid_t pid = child_start();

    if (pid == 0) {
        uint32_t *word = (uint32_t *)map_shared(memfd, PAGE_BYTES);
        int err = futex_wait(word, flags, timeout_ms);

        FACT_CHECK(err == want, "the waiter got: %s, instead of: %s",
                   strerror(-err), strerror(-want));
        _exit(FACT_HOLDS);
    }
    return pid;
}

int main(void)
{
    int memfd = memfd_new(PAGE_BYTES);
    uint32_t *word = (uint32_t *)map_shared(memfd, PAGE_BYTES);
    int64_t start;
    pid_t waiter;

    __atomic_store_n(word, POSTED, __ATOMIC_SEQ_CST);
    waiter = start_waiter(memfd, 0, 0, PATIENCE_MS);
    FACT_CHECK(wake_until_found(word, 0, PATIENCE_MS) == 1,
               "the wake found no waiter in the other process");
    child_expect_success(waiter);

    waiter = start_waiter(memfd, FUTEX_PRIVATE_FLAG, -ETIMEDOUT, BLOCKED_MS);
    FACT_CHECK(wake_until_found(word, FUTEX_PRIVATE_FLAG, BLOCKED_MS) == 0,
               "a private futex was woken by another process");
    child_expect_success(waiter);

    start = now_ns();
    FACT_CHECK(futex_wait(word, 0, TIMEOUT_MS) == -ETIMEDOUT,
               "waiting for nobody did not time out");
    FACT_CHECK(now_ns() - start >= TIMEOUT_MS * (int64_t)1000000,
               "the timeout came too early");

    __atomic_store_n(word, DONE, __ATOMIC_SEQ_CST);
    FACT_CHECK(futex_wait(word, 0, PATIENCE_MS) == -EAGAIN,
               "slept although the word had changed");
    return FACT_HOLDS;
}
