/*
 * Torture tests: QEMU's side of one VM
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A second implementation of what QEMU does with a pager, written from the
 * protocol alone: attaching, regions, the zap thread, keeping descriptors,
 * and resuming with a new pager when the old one is gone.
 *
 * Threads: the test's main thread attaches and stops; regions are added and
 * removed by one thread at a time; the connection thread receives everything
 * and resumes; the zap thread answers the zap channel.  Workers (load.h) touch
 * memory, the ring and the DMA counters.
 */
#ifndef TORTURE_FAKE_QEMU_H
#define TORTURE_FAKE_QEMU_H

#include "managed-memory/shared.h"
#include "fake-manager.h"
#include "shadow.h"

/* Words of a page that one thread each counts up in, see workers.c. */
#define WORD_LANES 8

typedef struct FakeRegion {
    /* fixed once the region is ready */
    uint32_t id;
    uint64_t size;              /* bytes */
    uint64_t limit;             /* bytes or MM_LIMIT_NONE */
    int fds[MM_REGION_FD__MAX];
    uint8_t *mem;
    uint32_t *dma;              /* counters; atomic */

    /* what is expected in the region: one of the two, or nothing */
    Shadow *shadow;
    uint64_t *words;            /* [page * WORD_LANES + lane], lane's owner */
} FakeRegion;

typedef struct FakeHold {
    MmMsgHold what;
    int fd;
} FakeHold;

#define FQ_MAX_HOLDS 32

typedef struct FakeQemu {
    /* fixed after creation */
    FakeManager *fm;
    Verdict *verdict;
    uint64_t seed;
    bool auto_resume;           /* the connection thread resumes by itself */
    bool may_die;               /* the pager may kill itself (failpoints) */
    bool may_lose;              /* the tier lies: lost pages are no failure */
    bool hostile;               /* says what it likes, ignores what it hears */
    bool encrypted;             /* has fake_qemu_key */
    uint32_t page_size;         /* of its regions: STAMP_PAGE_SIZE, or huge */

    /* fixed after attaching */
    int uffd;
    int fds[MM_HELLO_FD__MAX];  /* the zap channel: replaced by a resume */
    const MmState *state;
    MmRing *ring;

    /* protected by lock */
    QemuMutex lock;
    QemuCond cond;              /* anything below has changed */
    FakeRegion *regions[MM_MAX_REGIONS];
    unsigned nr_regions;
    GPtrArray *removed;         /* workers may still look at these */
    FakeHold holds[FQ_MAX_HOLDS];
    unsigned nr_holds;
    bool serving;               /* connected to a pager that serves */
    bool stopping;
    bool deserted;              /* no pager, and none will come */
    uint64_t reply_seq;         /* what fq_request() waits for, or 0 */
    int reply_ret;
    MmMsg *reply;
    unsigned nr_events[MM_EVENT__MAX];
    MmMsgEvent last_event;
    bool detached;              /* and the pager is gone */
    unsigned resumes;
    GArray *stalls_us;          /* int64_t: connection lost until served */

    /* protected by request_lock, held across a request */
    QemuMutex request_lock;

    /* owned by whoever attaches or resumes; sock is also sent on by others */
    int sock;
    uint64_t seq;               /* atomic */
    QemuThread conn_thread;
    QemuThread zap_thread;
    bool have_conn_thread;
    bool detaching;             /* DETACHED has been answered */
    bool have_zap_thread;

    /* protected by ring_lock */
    QemuMutex ring_lock;
    uint8_t slot_used[MM_RING_SLOTS];
    bool slot_give_up[MM_RING_SLOTS];   /* take it back at the next EOF */
    bool ring_ended;            /* there is no pager, and none will come */

    /* held while pages are zapped, and while a region goes away */
    QemuMutex zap_lock;

    /* atomic */
    bool zap_paused;            /* the zap thread does not answer */
    bool may_leave;             /* the pager may end in order */
    uint64_t pages_zapped;
} FakeQemu;

/** fake_qemu_pager: which pager serves, once there is one. */
unsigned fake_qemu_pager(FakeQemu *fq);

/**
 * fake_qemu_enter_region: into the table, which the next resume goes by
 *
 * Fails if @pager, which knows of it, is not the one that serves any more.
 */
bool fake_qemu_enter_region(FakeQemu *fq, FakeRegion *region, unsigned pager);

/** fake_qemu_take_region: out of it; returns the pager that still has it. */
unsigned fake_qemu_take_region(FakeQemu *fq, FakeRegion *region);

/** fake_qemu_new: a VM without a pager; @fm stays the caller's. */
FakeQemu *fake_qemu_new(FakeManager *fm, Verdict *verdict, uint64_t seed);

/**
 * fake_qemu_attach: start a pager and attach to it
 *
 * Makes the userfaultfd, starts the threads.
 */
bool fake_qemu_attach(FakeQemu *fq, Error **errp);

/**
 * fake_qemu_add_region: add, map and register a region
 *
 * @size: in bytes
 * @limit: in bytes, or MM_LIMIT_NONE
 */
FakeRegion *fake_qemu_add_region(FakeQemu *fq, uint64_t size, uint64_t limit,
                                 Error **errp);

/**
 * fake_qemu_remove_region: the mirror of fake_qemu_add_region()
 *
 * No worker uses the region, but they may run; so the region itself stays
 * allocated, without memory and descriptors.
 */
bool fake_qemu_remove_region(FakeQemu *fq, FakeRegion *region, Error **errp);

/** fake_region_expect_stamps: the region gets a shadow. */
void fake_region_expect_stamps(FakeQemu *fq, FakeRegion *region);

/** fake_region_expect_words: the region gets counting words. */
void fake_region_expect_words(FakeRegion *region);

/**
 * fake_qemu_request: ask the pager on the connection
 *
 * @reply: filled in, release with mm_msg_clear()
 *
 * Not for the connection thread.  Returns 0, -ETIMEDOUT, or -ECONNRESET if
 * the pager died before it answered.
 */
int fake_qemu_request(FakeQemu *fq, const FakeRequest *rq, MmMsg *reply);

/** fake_qemu_wait_resumes: wait for @n resumes, or until none will come. */
bool fake_qemu_wait_resumes(FakeQemu *fq, unsigned n, int timeout_ms);

/** fake_qemu_wait_event: wait for the @n-th event of a kind. */
bool fake_qemu_wait_event(FakeQemu *fq, MmEventKind kind, unsigned n,
                          int timeout_ms);

/** fake_qemu_wait_detached: wait for a pager that detaches to be gone. */
bool fake_qemu_wait_detached(FakeQemu *fq, int timeout_ms);

/**
 * fake_qemu_release_faults: let all waiting threads go on with zeros
 *
 * For runs that have failed: nothing that is read afterwards means anything.
 */
void fake_qemu_release_faults(FakeQemu *fq);

/**
 * fake_qemu_stop: what happens when QEMU exits, the threads' end included
 *
 * No worker may run.  The pager must end by itself, in time and in order;
 * otherwise that is noted in the verdict.
 */
void fake_qemu_stop(FakeQemu *fq);

/** fake_qemu_free: fake_qemu_stop(), if that is still to do, and free. */
void fake_qemu_free(FakeQemu *fq);

/* For fake-qemu.c, fake-conn.c and the hostile tests. */

/** fake_qemu_key: of all that are encrypted. */
extern const MmMsgKey fake_qemu_key;

/** fake_qemu_connect: start a pager on a new connection. */
bool fake_qemu_connect(FakeQemu *fq, bool resume, Error **errp);

/** fake_qemu_send_resume: all RESUME messages, from what @fq keeps. */
int fake_qemu_send_resume(FakeQemu *fq);

/**
 * fake_qemu_wait_hello: receive until HELLO_REPLY, and take its descriptors
 *
 * Only while there is no connection thread, or in it.
 */
bool fake_qemu_wait_hello(FakeQemu *fq, int timeout_ms, Error **errp);

/** fake_qemu_start_threads, fake_qemu_join_threads: connection and zap. */
void fake_qemu_start_threads(FakeQemu *fq);
void fake_qemu_join_threads(FakeQemu *fq);

/** fake_zap_start, fake_zap_join: the zap thread of the current channel. */
void fake_zap_start(FakeQemu *fq);
void fake_zap_join(FakeQemu *fq);

/** fake_uffd_new: a userfaultfd from @dev, or by the system call if -1. */
int fake_uffd_new(int dev, Error **errp);

#endif
