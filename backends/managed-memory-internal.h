/*
 * Managed memory: what the files of QEMU's side share
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * managed-memory.c          the VM's regions: set-up, removal, look-up
 * managed-memory-conn.c     the connection: its state, thread mm-conn
 * managed-memory-attach.c   its set-up: connect, HELLO, resume
 * managed-memory-request.c  requests to the pager
 * managed-memory-tell.c     events and messages, thread mm-tell
 * managed-memory-zap.c      the zap channel, thread mm-zap
 * managed-memory-uffd.c     the userfaultfd
 * managed-memory-ring.c     the ring of requests to the pager
 * managed-memory-discard.c  discards through the ring
 * managed-memory-look.c     where the content of pages is
 * managed-memory-content.c  content to and from where swapped pages are
 * managed-memory-read.c     disk reads into memory that is swapped out
 * managed-memory-handover.c content on storage that another host sees
 * managed-memory-room.c   whether what arrives fits
 * managed-memory-dma.c      counters of mappings for DMA
 * managed-memory-refuse.c   what managed memory cannot be combined with
 * managed-memory-config.c   properties of the two object types
 * managed-memory-key.c      the key with which tiers are encrypted
 *
 * Neither mm-conn nor mm-zap ever takes the BQL or a lock of monitors and
 * chardevs, touches guest memory, writes to standard error or waits for the
 * main loop: the main thread, and whoever holds such a lock, may be blocked in
 * a page fault that only ends when they do their work.
 *
 * Lock order: BQL, region lock, connection lock, request lock.
 */
#ifndef BACKENDS_MANAGED_MEMORY_INTERNAL_H
#define BACKENDS_MANAGED_MEMORY_INTERNAL_H

#include "managed-memory/msg.h"
#include "managed-memory/shared.h"
#include "qemu/rcu.h"
#include "sysemu/hostmem.h"
#include "sysemu/managed-memory.h"

/* A managed RAMBlock */
typedef struct ManagedRegion {
    struct rcu_head rcu;        /* has to be first */

    /* fixed after creation */
    uint32_t id;
    char idstr[MM_IDSTR_LEN];
    uint64_t size;              /* bytes, a multiple of page_size */
    uint32_t page_size;         /* bytes: of what comes and goes at once */
    uint64_t limit;             /* bytes, or MM_LIMIT_NONE */
    uint8_t *hva;
    int fds[MM_REGION_FD__MAX]; /* kept for the next pager */
    const uint64_t *map;        /* entries of the page map, one per 4 KiB */
    uint32_t *dma;              /* counters, size / MM_DMA_CHUNK rounded up */
    unsigned nr_chunks;
    char *owner;                /* QOM path of the backend */

    /* under the BQL */
    bool asked;                 /* a pager may have been made to know it */
    unsigned long *ballooned;   /* managed-memory-balloon.c; NULL: none is */

    /* atomic */
    int refcount;
} ManagedRegion;

/* What both hostmem-managed.c and managed-memory-object.c let users set */
typedef struct ManagedConfig {
    char *path;                 /* attach socket */
    uint64_t limit;             /* bytes, or MM_LIMIT_NONE */
    char *key_secret;           /* ID of a secret object, or NULL */
} ManagedConfig;

/* ---- managed-memory.c ---- */

/**
 * managed_memory_alloc: give a memory backend its managed RAM
 *
 * @backend: its size is set, its memory region is not initialised yet
 * @config: path and key-secret are the same for all backends of a VM; the limit
 *          is what this one adds to the VM's
 * @page_size: the host's, or MANAGED_HUGE_PAGE_SIZE
 * @errp: set on failure; no region is left behind then, but the VM may be
 *        attached, for another try
 *
 * Attaches to the manager when it is the VM's first region.  The memory is
 * served on return, so that prealloc, mbind and the like go through the
 * pager.  Called under the BQL; waits for the manager, for a bounded time.
 */
bool managed_memory_alloc(HostMemoryBackend *backend,
                          const ManagedConfig *config, uint32_t page_size,
                          Error **errp);

/* Of a hugetlb memfd; the only size of huge pages that is managed. */
#define MANAGED_HUGE_PAGE_SIZE (2 * 1024 * 1024)
/* What a guest of such pages needs to run at all, and to get anything done. */
#define MANAGED_HUGE_LIMIT_MIN (8ULL * MANAGED_HUGE_PAGE_SIZE)
#define MANAGED_HUGE_LIMIT_LOW (32ULL * MANAGED_HUGE_PAGE_SIZE)

/**
 * managed_region_find: the region that contains an address
 *
 * In an RCU critical section, which is also how long the result is good for.
 * Returns NULL if @host is not in managed memory.  Any thread.
 */
ManagedRegion *managed_region_find(const void *host);

/**
 * managed_regions_snapshot: all regions in order of address, each referenced
 *
 * Release each one with managed_region_unref(), and the array.  Any thread.
 */
GPtrArray *managed_regions_snapshot(void);

void managed_region_unref(ManagedRegion *region);

/**
 * managed_regions_zap: drop the page table entries of ranges
 *
 * The content stays.  Checks @ranges, which come from the pager, as a whole
 * before it does anything.  Thread mm-zap.  Returns 0 or -errno.
 */
int managed_regions_zap(const MmRange *ranges, unsigned nr);

/**
 * managed_regions_release: make all managed memory ordinary memory
 *
 * Everything is resident and the pager has let go of it.  Thread mm-conn.
 */
void managed_regions_release(void);

/* ---- managed-memory-conn.c ---- */

typedef enum ManagedConnState {
    MANAGED_CONN_NONE,          /* not attached yet */
    MANAGED_CONN_CONNECTED,     /* a pager serves */
    MANAGED_CONN_LOST,          /* EOF: no pager exists */
    MANAGED_CONN_RESUMING,      /* being handed to a new pager */
    MANAGED_CONN_DETACHED,      /* for ever: memory is ordinary again */
} ManagedConnState;

/* Descriptors that belong to the VM and outlive any pager. */
typedef struct ManagedVMFds {
    int state;
    int ring;
    int uffd;
} ManagedVMFds;

typedef struct ManagedConnInfo {
    ManagedConnState state;
    char *path;                 /* owned by whoever asked */
    bool encrypted;             /* what leaves memory */
    uint8_t uuid[MM_UUID_LEN];
    uint8_t cookie[MM_COOKIE_LEN];
    unsigned lost;              /* how often a pager was lost */
    uint64_t stall_last_ms;     /* from the loss until served again */
    uint64_t stall_total_ms;
} ManagedConnInfo;

/**
 * managed_conn_open: be connected to a pager
 *
 * Attaches if that has not happened yet; otherwise checks that socket and key
 * are those in use.  Under the BQL; waits for a bounded time.
 */
bool managed_conn_open(const ManagedConfig *config, Error **errp);

/**
 * managed_conn_check_path: could a lost pager still be replaced?
 *
 * Looks whether the attach socket is where it was and this process may use
 * it; true before the first attachment.  Under the BQL.
 */
bool managed_conn_check_path(Error **errp);

/**
 * managed_conn_epoch: number of the pager that serves, from 1
 *
 * Changes before a pager's successor asks for the regions.  Any thread.
 */
uint64_t managed_conn_epoch(void);

/**
 * managed_conn_wait: wait until a pager serves
 *
 * Returns false if there is none after @timeout_ms.  Not for mm-conn.
 */
bool managed_conn_wait(int timeout_ms);

/** managed_conn_state: the state at this moment, without a lock */
ManagedConnState managed_conn_state(void);

/**
 * managed_conn_if_lost: run a function while no pager can exist
 *
 * Returns what @fn returns, or false without calling it if there is a pager
 * or one is being handed the VM.  @fn must not block.
 */
bool managed_conn_if_lost(bool (*fn)(void *opaque), void *opaque);

/**
 * managed_conn_abort: give up on a pager that does not answer
 *
 * Shuts the connection down, as if the pager were lost.
 */
void managed_conn_abort(void);

/**
 * managed_conn_region_gone: a region was taken out of the table
 *
 * Makes a hand-over that is under way start again, without the region.
 */
void managed_conn_region_gone(void);

/** managed_conn_uffd: the VM's userfaultfd; valid while attached */
int managed_conn_uffd(void);

/** managed_conn_ring: the ring, mapped for ever once attached */
MmRing *managed_conn_ring(void);

/** managed_conn_ring_fd: its memfd, open for ever once attached */
int managed_conn_ring_fd(void);

/** managed_conn_kick: tell the pager that the ring has work */
void managed_conn_kick(void);

/** managed_conn_info: fill in @info; free info->path.  Any thread. */
void managed_conn_info(ManagedConnInfo *info);

/**
 * managed_conn_set_pinned: does another host read what is in the shared file?
 *
 * For the next pager; this one knows by PIN and UNPIN.  Any thread.
 */
void managed_conn_set_pinned(bool pinned);

/** managed_conn_read_state: a copy of the VM's state; false: there is none. */
bool managed_conn_read_state(MmState *state);

/* ---- managed-memory-request.c ---- */

/* A request to the pager */
typedef struct ManagedCall {
    MmMsgType type;
    const void *payload;
    size_t len;                 /* bytes */
    MmMsgType want;             /* expected answer */
    int timeout_ms;             /* for the answer */
    uint64_t epoch;             /* only to this pager; 0: to any */
} ManagedCall;

/**
 * managed_conn_call: send a request and wait for its answer
 *
 * @reply: filled in; mm_msg_clear() it even after an error
 * @errp: says why, including the pager's own words
 *
 * Returns 0; -EREMOTEIO if the pager has refused; -ENOTCONN if there is no
 * pager, or not that one; -ECONNRESET if it was lost meanwhile; -ETIMEDOUT.
 * Not for mm-conn.
 */
int managed_conn_call(const ManagedCall *call, MmMsg *reply, Error **errp);

/** managed_requests_open: a pager listens at the other end of @sock */
void managed_requests_open(int sock, uint64_t epoch);

/** managed_requests_close: it does no more; all that wait get -ECONNRESET */
void managed_requests_close(void);

/** managed_requests_finish: hand an answer to whoever waits.  Takes the fds. */
void managed_requests_finish(MmMsg *msg);

/* ---- managed-memory-attach.c ---- */

#define MANAGED_HELLO_TIMEOUT_MS 10000
#define MANAGED_RESUME_TIMEOUT_MS 30000

/* What a hand-over to a new pager needs; the descriptors stay the caller's. */
typedef struct ManagedResume {
    uint8_t uuid[MM_UUID_LEN];
    uint8_t cookie[MM_COOKIE_LEN];
    ManagedVMFds fds;
    int kick;
    GArray *holds;              /* of ManagedHold */
    GPtrArray *regions;         /* of ManagedRegion */
    uint64_t lost_ns;           /* CLOCK_MONOTONIC: when the pager was lost */
    bool pinned;                /* another host reads the shared file */
    const MmMsgKey *key;        /* or NULL */
} ManagedResume;

/* A descriptor that a pager asked QEMU to keep for its successor. */
typedef struct ManagedHold {
    MmMsgHold what;
    int fd;
} ManagedHold;

/**
 * managed_attach: connect and introduce this VM
 *
 * @path: attach socket
 * @resume: NULL for a new VM
 * @reply: the pager's HELLO_REPLY; mm_msg_clear() it even after an error
 * @on_message: gets what the pager sends before its HELLO_REPLY (HOLD, EVENT)
 *
 * Returns the connected socket, or -1 with @errp set.
 */
int managed_attach(const char *path, const ManagedResume *resume,
                   MmMsg *reply, void (*on_message)(MmMsg *msg),
                   Error **errp);

/**
 * managed_attach_key: have all that leaves memory encrypted
 *
 * @reply: for the answer
 * @on_message: gets what the pager sends before that
 *
 * Between managed_attach() and the userfaultfd.
 */
bool managed_attach_key(int sock, const MmMsgKey *key, MmMsg *reply,
                        void (*on_message)(MmMsg *msg), Error **errp);

/**
 * managed_attach_handover: ask the manager about a file, beside the connection
 *
 * @path: attach socket
 * @want: the expected answer
 * @reply: filled in
 *
 * Returns 0, -ECONNREFUSED if there is no manager, -EAGAIN if it has ended and
 * may have done it, or another error.
 */
int managed_attach_handover(const char *path, const MmMsgHandover *request,
                            int timeout_ms, MmMsgType want, MmMsg *reply,
                            Error **errp);

/**
 * managed_handover_ask: likewise, with what says whose VM it is
 *
 * @request: but for that; filled in
 * @reply: filled in and cleared: the payload can be read, nothing is owned
 *
 * Waits some seconds for a manager that is being restarted.
 */
bool managed_handover_ask(MmMsgHandover *request, MmMsgType want, MmMsg *reply,
                          Error **errp);

/**
 * managed_wait_gone: ask the peer to go and wait until it is gone
 *
 * @sock: connection, stays the caller's
 * @msg: for what still comes
 * @on_message: gets the HOLDs among it
 *
 * However long it takes: until EOF the peer may act on the VM's memory.
 */
void managed_wait_gone(int sock, MmMsg *msg, void (*on_message)(MmMsg *msg));

/**
 * managed_check_memfd: can a memfd from the pager be mapped without danger?
 *
 * @size: it must have at least, in bytes
 * @what: name for the message
 *
 * It must be sealed, else its owner could take pages away under our feet.
 */
bool managed_check_memfd(int fd, uint64_t size, const char *what,
                         Error **errp);

/* ---- managed-memory-zap.c ---- */

/** managed_zap_start: start the thread with its first channel @fd */
void managed_zap_start(int fd);

/** managed_zap_set_channel: use @fd, the channel of a new pager, from now on */
void managed_zap_set_channel(int fd);

/** managed_zap_stop: the thread ends */
void managed_zap_stop(void);

/* ---- managed-memory-uffd.c ---- */

/**
 * managed_uffd_create: a userfaultfd of this process
 *
 * @dev: an open /dev/userfaultfd, or -1 to try the system call
 *
 * Returns the descriptor, or -1 with @errp set.
 */
int managed_uffd_create(int dev, Error **errp);

/** managed_uffd_register: have faults in a range reported */
bool managed_uffd_register(int uffd, void *host, uint64_t size, Error **errp);

/** managed_uffd_unregister: make a range ordinary memory, wake who waits */
void managed_uffd_unregister(int uffd, void *host, uint64_t size);

/* ---- managed-memory-ring.c: any thread ---- */

/* How a request has ended */
typedef enum ManagedRingResult {
    MANAGED_RING_DONE,
    MANAGED_RING_TAKEN_BACK,    /* will never be executed */
    MANAGED_RING_DETACHED,      /* never again, memory is QEMU's now */
} ManagedRingResult;

/* Slots for discards alone: whoever holds the BQL may have to wait for one. */
#define MANAGED_RING_RESERVED 64

/** managed_ring_claim: a slot from @first on for managed_ring_post(), or -1 */
int managed_ring_claim(unsigned first);

/**
 * managed_ring_post: have a request executed
 *
 * @index: from managed_ring_claim()
 * @request: range, kind, buffer and, of FETCH, pages
 *
 * Returns at once; managed_conn_kick() is the caller's.
 */
void managed_ring_post(unsigned index, const MmRingSlot *request);

/**
 * managed_ring_wait: wait for the end of a request
 *
 * @index: of a slot that is posted; free afterwards
 * @deadline_ms: managed_ring_deadline(), or INT64_MAX if it must be executed
 * @request: out: what was posted, and of which pages it is done
 */
ManagedRingResult managed_ring_wait(unsigned index, int64_t deadline_ms,
                                    MmRingSlot *request);

/**
 * managed_ring_buffer_get: pages of the ring's buffer
 *
 * @nr: at least 1
 * @first: filled in: the first one's index
 *
 * Returns false if there are not so many in a row.
 */
bool managed_ring_buffer_get(unsigned nr, unsigned *first);

/** managed_ring_buffer_put: give them back; no request may use them any more */
void managed_ring_buffer_put(unsigned first, unsigned nr);

/** managed_ring_deadline: until when requests wait that need not be done */
int64_t managed_ring_deadline(void);

/** managed_ring_give_up: is such a request to be taken back? */
bool managed_ring_give_up(int64_t deadline_ms);

/* ---- managed-memory-discard.c ---- */

/** managed_discards_skipped: bytes not discarded for lack of a pager */
uint64_t managed_discards_skipped(void);

/* ---- managed-memory-dma.c ---- */

/** managed_dma_init: once, before the first region */
void managed_dma_init(void);

/** managed_dma_held: bytes of @region in chunks that are mapped for DMA */
uint64_t managed_dma_held(const ManagedRegion *region);

/* ---- managed-memory-tell.c: does not wait; any thread ---- */

void managed_tell_lost(const char *path);
void managed_tell_recovered(const char *path, uint64_t stall_ms);
void managed_tell_detached(void);

/** managed_tell_from_pager: pass on what the pager reports */
void managed_tell_from_pager(const MmMsgEvent *event);

/** managed_tell_error: as error_report(), after "managed memory: " */
void managed_tell_error(const char *fmt, ...) G_GNUC_PRINTF(1, 2);

/** managed_tell_info: as info_report(), likewise */
void managed_tell_info(const char *text);

/* ---- softmmu/managed-memory-qmp.c: events, thread mm-tell ---- */

void managed_event_lost(const char *path);
void managed_event_recovered(const char *path, uint64_t stall_ms);
void managed_event_detached(void);

/** managed_event_from_pager: pass on what the pager reports */
void managed_event_from_pager(const MmMsgEvent *event);

/* ---- managed-memory-config.c ---- */

/* How the properties find their object's configuration */
typedef struct ManagedConfigClass {
    ManagedConfig *(*get)(Object *obj);
    bool (*in_use)(Object *obj);        /* too late to change it? */
} ManagedConfigClass;

void managed_config_init(ManagedConfig *config);
void managed_config_clear(ManagedConfig *config);

/** managed_config_allows_huge: is the limit one for huge pages?  May warn. */
bool managed_config_allows_huge(const ManagedConfig *config, Error **errp);

/**
 * managed_config_add_properties: give a class its properties
 *
 * They are path, limit and key-secret.
 *
 * @cc: static, used for ever
 */
void managed_config_add_properties(ObjectClass *oc,
                                   const ManagedConfigClass *cc);

/* ---- managed-memory-key.c ---- */

/**
 * managed_key_derive: the key of this VM
 *
 * @secret: ID of a secret object
 * @uuid: by which the manager knows the VM
 *
 * HMAC-SHA-512 of the UUID with the secret: VMs with the same secret have
 * different keys.  Fails if there is no such secret, or it is too short.
 */
bool managed_key_derive(const char *secret, const uint8_t *uuid,
                        MmMsgKey *key, Error **errp);

/* ---- managed-memory-refuse.c ---- */

/**
 * managed_refuse_first: may the VM get its first managed region?
 *
 * Looks for everything that is there already and conflicts, and makes QEMU
 * refuse what comes later.  Under the BQL.
 */
bool managed_refuse_first(Error **errp);

/** managed_refuse_none: the VM has no managed region any more */
void managed_refuse_none(void);

#endif
