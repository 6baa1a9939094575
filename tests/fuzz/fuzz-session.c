/*
 * Fuzz target: a whole session of a hostile QEMU
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The pager without its threads: what they do is done here, step by step, in
 * the order that the input says.  Messages from QEMU and from managers, with
 * all kinds of descriptors, come through real sockets; regions are mapped and
 * registered with a real userfaultfd, so that pages are filled, zapped,
 * written to a real tier and read back; the discard ring is written at any
 * time.
 *
 * After each session all counters must agree with a look at every page, every
 * place must be somebody's, and when the regions are gone, nothing may be
 * left: no page, no place, no descriptor.
 *
 * mm_fault_call() is wrapped by the linker: the fault thread is this one.
 */
#include "qemu/osdep.h"
#include <linux/userfaultfd.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include "memory-manager/pager/control/control.h"
#include "memory-manager/pager/fault/fault-internal.h"
#include "memory-manager/pager/reclaim/reclaim-internal.h"
#include "memory-manager/pager/region.h"
#include "tests/unit/vm-rig.h"
#include "fuzz.h"

#define MAX_STEPS 200
#define MAX_PAGES 1500
#define MAX_REGIONS 4
#define TIER_SIZE (4 * 1024 * 1024)

typedef enum Step {
    STEP_QEMU,                  /* a message that makes some sense */
    STEP_QEMU_RAW,
    STEP_MANAGER,
    STEP_MANAGER_RAW,
    STEP_RING,
    STEP_DISCARD,
    STEP_FAULT,
    STEP_REAP,
    STEP_RECLAIM,
    STEP_PROGRESS,
    STEP_DMA,
    STEP__MAX
} Step;

typedef struct Session {
    MmControl *c;
    int qemu;                   /* the peers' ends */
    int manager;
    int zap;
    int uffd;                   /* QEMU's */
    bool zap_answered;          /* an answer is waiting in the channel */
    bool over;
    void *mem[MM_MAX_REGIONS];  /* as QEMU has mapped it */
    uint64_t size[MM_MAX_REGIONS];
} Session;

/* As they were before the first session. */
static MmVM *vm, clean_vm;
static MmFault clean_fault;
static MmReclaim clean_reclaim;
static MmControl control;
static MmMsg message;

void __wrap_mm_fault_call(MmVM *v, MmFaultWork *fn, void *opaque)
{
    fn(v, opaque);
}

static int make_pair(int *peer)
{
    int pair[2];

    g_assert(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC |
                        SOCK_NONBLOCK, 0, pair) == 0);
    *peer = pair[1];
    return pair[0];
}

static int make_uffd(void)
{
    struct uffdio_api api = {
        .api = UFFD_API, .features = UFFD_FEATURE_MINOR_SHMEM,
    };
    int fd = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);

    if (fd >= 0 && ioctl(fd, UFFDIO_API, &api) < 0) {
        close(fd);
        fd = -1;
    }
    return fd;
}

static void drain(int fd)
{
    static uint8_t buffer[MM_MSG_MAX];
    struct msghdr mh = {
        .msg_iov = &(struct iovec) { buffer, sizeof(buffer) },
        .msg_iovlen = 1,
    };

    /* without room for descriptors, those that come are closed */
    while (recvmsg(fd, &mh, 0) > 0) {
        continue;
    }
}

static void session_init(Session *s)
{
    memset(s, 0, sizeof(*s));
    *vm = clean_vm;
    *vm->fault = clean_fault;
    *vm->reclaim = clean_reclaim;
    memset(vm->state, 0, MM_STATE_SIZE);
    memset(vm->ring->slots, 0, sizeof(vm->ring->slots));
    vm->state->limit = vm->state->default_limit = MM_LIMIT_NONE;
    mm_unwake(vm->control_wake_fd);
    mm_unwake(vm->fault->wake_fd);
    memset(&control, 0, sizeof(control));
    s->c = &control;
    s->c->vm = vm;
    s->c->msg = &message;
    s->c->long_sock = -1;
    vm->connection = make_pair(&s->qemu);
    vm->control = make_pair(&s->manager);
    vm->zap_fd = make_pair(&s->zap);
    s->uffd = make_uffd();
}

static int some_fd(Session *s, FuzzInput *in)
{
    switch (fuzz_u8(in) % 6) {
    case 0:
        return open("/dev/null", O_RDWR | O_CLOEXEC);
    case 1:
        return eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    case 2:
        return memfd_create("fuzz", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    case 3:
        return dup(s->qemu);
    default:
        return dup(s->uffd >= 0 ? s->uffd : STDIN_FILENO);
    }
}

/* By the system call: mm_msg_send() would refuse some of it. */
static void send_message(Session *s, FuzzInput *in, int sock,
                         const MmMsgHeader *hdr, const void *payload,
                         size_t len)
{
    struct iovec iov[] = {
        { (void *)hdr, sizeof(*hdr) }, { (void *)payload, len },
    };
    char control_data[CMSG_SPACE(4 * sizeof(int))] = {};
    struct msghdr mh = { .msg_iov = iov, .msg_iovlen = 2 };
    struct cmsghdr *cmsg = (void *)control_data;
    int nr = fuzz_u8(in) % 5, fd[4], i;

    nr = hdr->type == MM_MSG_UFFD ? 1 : nr == 4 ? 2 : nr == 3 ? 1 : 0;
    for (i = 0; i < nr; i++) {
        fd[i] = some_fd(s, in);
        ((int *)CMSG_DATA(cmsg))[i] = fd[i];
    }
    if (nr) {
        mh.msg_control = control_data;
        mh.msg_controllen = CMSG_SPACE(nr * sizeof(int));
        cmsg->cmsg_level = SOL_SOCKET;
        cmsg->cmsg_type = SCM_RIGHTS;
        cmsg->cmsg_len = CMSG_LEN(nr * sizeof(int));
    }
    sendmsg(sock, &mh, MSG_NOSIGNAL);
    for (i = 0; i < nr; i++) {
        close(fd[i]);
    }
}

/*
 * No large sizes that are legal: they cost time and nothing else.  The absurd
 * ones are refused.
 */
static uint64_t some_size(FuzzInput *in)
{
    static const uint64_t absurd[] = {
        0, 1, MM_PAGE_SIZE + 1, 1ULL << 63, (16ULL << 40) + MM_PAGE_SIZE,
        UINT64_MAX, UINT64_MAX - MM_PAGE_SIZE + 1,
    };
    uint16_t raw = fuzz_u16(in);

    return raw > 60000 ? absurd[raw % ARRAY_SIZE(absurd)]
                       : raw % MAX_PAGES * (uint64_t)MM_PAGE_SIZE;
}

static uint64_t some_limit(FuzzInput *in)
{
    uint16_t raw = fuzz_u16(in);

    return raw > 65000 ? MM_LIMIT_NONE : raw > 64000 ? fuzz_u64(in)
                       : raw % MAX_PAGES * (uint64_t)MM_PAGE_SIZE;
}

static uint32_t some_region(FuzzInput *in)
{
    uint8_t raw = fuzz_u8(in);

    return raw > 250 ? MM_MAX_REGIONS + raw - 251 : raw % MAX_REGIONS;
}

/* What QEMU does before REGION_READY; returns the address. */
static uint64_t map_region(Session *s, uint32_t id)
{
    MmRegion *region = id < MM_MAX_REGIONS ? vm->pending[id] : NULL;
    struct uffdio_register reg = {
        .mode = UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_MINOR,
    };
    void *mem;

    if (!region || s->mem[id]) {
        return 0;
    }
    mem = mmap(NULL, region->size, PROT_READ | PROT_WRITE, MAP_SHARED,
               region->ram_fd, 0);
    g_assert(mem != MAP_FAILED);
    reg.range.start = (uintptr_t)mem;
    reg.range.len = region->size;
    ioctl(s->uffd, UFFDIO_REGISTER, &reg);
    s->mem[id] = mem;
    s->size[id] = region->size;
    return (uintptr_t)mem;
}

static size_t sensible_payload(Session *s, FuzzInput *in, uint32_t type,
                               void *payload)
{
    MmMsgRegion *region = payload;
    MmMsgRegionRef *ref = payload;
    MmMsgAmount *amount = payload;

    switch (type) {
    case MM_MSG_REGION_ADD:
        region->id = some_region(in);
        region->page_size = fuzz_u8(in) > 250 ? fuzz_u16(in) : MM_PAGE_SIZE;
        region->size = some_size(in);
        region->limit = some_limit(in);
        strcpy(region->idstr, "fuzz");
        return sizeof(*region);
    case MM_MSG_REGION_READY:
        ref->id = some_region(in);
        ref->hva = map_region(s, ref->id);
        if (fuzz_u8(in) > 250) {
            ref->hva = fuzz_u64(in);
        }
        return sizeof(*ref);
    case MM_MSG_REGION_REMOVE:
    case MM_MSG_QUERY_REGION:
        ref->id = some_region(in);
        return sizeof(*ref);
    case MM_MSG_SET_LIMIT:
    case MM_MSG_EVICT:
        amount->value = some_limit(in);
        return sizeof(*amount);
    case MM_MSG_KEY:
        return sizeof(MmMsgKey);
    default:
        return 0;
    }
}

static size_t raw_payload(FuzzInput *in, uint32_t type, void *payload)
{
    size_t len = fuzz_u16(in) % 1200;

    fuzz_take(in, payload, len);
    if (type == MM_MSG_REGION_ADD) {
        ((MmMsgRegion *)payload)->size = some_size(in);
    }
    return len;
}

static void step_message(Session *s, FuzzInput *in, bool qemu, bool raw)
{
    static const uint32_t sensible[2][10] = {
        { MM_MSG_CONTROL_HELLO, MM_MSG_QUERY, MM_MSG_QUERY_REGION,
          MM_MSG_SET_LIMIT, MM_MSG_EVICT, MM_MSG_SWAP_IN, MM_MSG_DETACH,
          MM_MSG_GIVE_UP, MM_MSG_PREFETCH, MM_MSG_PREFETCH },
        { MM_MSG_UFFD, MM_MSG_REGION_ADD, MM_MSG_REGION_ADD,
          MM_MSG_REGION_READY, MM_MSG_REGION_READY, MM_MSG_REGION_REMOVE,
          MM_MSG_SET_LIMIT, MM_MSG_OK, MM_MSG_KEY, MM_MSG_UNPIN },
    };
    uint64_t payload[200] = {};
    uint8_t what = fuzz_u8(in);
    MmMsgHeader hdr = {
        .type = raw ? what % (MM_MSG__MAX + 1) : sensible[qemu][what % 10],
        .seq = what,
    };
    size_t len = raw ? raw_payload(in, hdr.type, payload)
                     : sensible_payload(s, in, hdr.type, payload);

    hdr.len = len;
    send_message(s, in, qemu ? s->qemu : s->manager, &hdr, payload, len);
    if (qemu) {
        s->over = mm_msg_recv(vm->connection, s->c->msg, 0) != 1 ||
                  !mm_session_handle(s->c);
    } else if (mm_msg_recv(vm->control, s->c->msg, 0) == 1) {
        mm_manager_handle(s->c, vm->control);
    }
    mm_msg_clear(s->c->msg);
    drain(s->qemu);
    drain(s->manager);
}

static void step_ring(FuzzInput *in)
{
    MmRingSlot *slot = &vm->ring->slots[fuzz_u8(in) % MM_RING_SLOTS];

    slot->range.region = some_region(in);
    slot->range.first_page = fuzz_u16(in);
    slot->range.nr_pages = fuzz_u16(in);
    if (slot->range.nr_pages > 65000) {
        slot->range.first_page = fuzz_u64(in);
        slot->range.nr_pages = fuzz_u64(in);
    }
    slot->kind = fuzz_u8(in) % 3;
    slot->buffer = fuzz_u16(in) % (MM_RING_BUFFER_PAGES + 8);
    qatomic_set(&slot->state, fuzz_u8(in) % 5);
    vm->fault->kicked = true;
}

/* What fault_thread() does about one fault. */
static void step_fault(FuzzInput *in)
{
    MmRegion *region = vm->regions[fuzz_u8(in) % MAX_REGIONS];
    uint64_t page = fuzz_u16(in);
    MmWaitReason reason;

    if (!region || vm->uffd < 0) {
        return;
    }
    page %= region->nr_pages;
    mm_region_reconcile_chunk(vm, region, page / MM_CHUNK_PAGES);
    vm->fault->now_ns = g_get_monotonic_time() * 1000;
    vm->fault->tid = 1 + page % 7;
    mm_replay_look(vm->fault);
    reason = mm_serve_page(vm->fault, region, page);
    if (reason != MM_WAIT_NONE) {
        mm_waiters_add(&vm->fault->waiters,
                       region->hva + page * MM_PAGE_SIZE, vm->fault->tid,
                       vm->fault->now_ns, reason);
    } else if (fuzz_u8(in) % 2 && vm_rig_present(region, page)) {
        /* content that is neither zero nor the same throughout */
        g_assert(pwrite(region->ram_fd, &page, sizeof(page),
                        page * MM_PAGE_SIZE + 8) == sizeof(page));
    }
    while (mm_serve_ahead(vm->fault) || mm_swap_in_ahead(vm->fault) ||
           mm_replay_step(vm->fault)) {
        continue;
    }
}

static void step_reap(void)
{
    struct pollfd pfd = { .fd = vm->fault->wake_fd, .events = POLLIN };

    while (!QLIST_EMPTY(&vm->fault->busy_loads)) {
        g_assert(poll(&pfd, 1, 20000) == 1);
        mm_unwake(vm->fault->wake_fd);
        mm_load_reap(vm->fault);
    }
}

static void zap(Session *s, const MmMsgZap *zap)
{
    uint32_t i;

    for (i = 0; i < zap->nr_ranges; i++) {
        const MmRange *range = &zap->ranges[i];

        if (s->mem[range->region]) {
            madvise(s->mem[range->region] + range->first_page * MM_PAGE_SIZE,
                    (uint64_t)range->nr_pages * MM_PAGE_SIZE, MADV_DONTNEED);
        }
    }
}

static void step_reclaim(Session *s, FuzzInput *in)
{
    MmReclaim *r = vm->reclaim;
    unsigned want = 1 + fuzz_u8(in) * 2;
    bool force = fuzz_u8(in) % 2;

    if (!s->zap_answered) {
        mm_msg_send(s->zap, MM_MSG_ZAP_DONE, r->zap_seq + 1, NULL, 0, NULL,
                    0);
        s->zap_answered = true;
    }
    if (mm_fifo_room(&r->fifo) > MM_ZAP_PAGES &&
        mm_scan_candidates(r, MIN(want, MM_ZAP_PAGES), force) > 0) {
        s->zap_answered = false;
        g_assert(mm_msg_recv(s->zap, &message, 0) == 1);
        zap(s, (MmMsgZap *)message.payload);
    }
    if (fuzz_u8(in) % 2 && (r->fifo.nr || mm_writeback_busy(r))) {
        do {
            mm_writeback(r);
        } while (mm_writeback_busy(r));
    }
}

/* What the other threads tell the control thread, and what it makes of it. */
static void step_progress(Session *s)
{
    MmMsgEvent event;
    bool again;

    qatomic_set(&vm->fault->swapping_in, false);
    qatomic_set(&vm->reclaim->evicting, false);
    qatomic_set(&vm->reclaim_resting, true);
    while (mm_vm_take_event(vm, &event, &again)) {
        g_assert(memchr(event.text, 0, sizeof(event.text)));
    }
    mm_long_progress(s->c);
    drain(s->qemu);
    drain(s->manager);
}

static void step_dma(FuzzInput *in)
{
    MmRegion *region = vm->regions[fuzz_u8(in) % MAX_REGIONS];
    uint32_t count = fuzz_u8(in) % 3;

    if (region) {
        g_assert(pwrite(region->dma_fd, &count, sizeof(count),
                        fuzz_u8(in) % 3 * sizeof(count)) == sizeof(count));
    }
}

static void run_step(Session *s, FuzzInput *in)
{
    switch (fuzz_u8(in) % STEP__MAX) {
    case STEP_QEMU:
        step_message(s, in, true, false);
        break;
    case STEP_QEMU_RAW:
        step_message(s, in, true, true);
        break;
    case STEP_MANAGER:
        step_message(s, in, false, false);
        break;
    case STEP_MANAGER_RAW:
        step_message(s, in, false, true);
        break;
    case STEP_RING:
        step_ring(in);
        break;
    case STEP_DISCARD:
        mm_ring_poll(vm->fault);
        break;
    case STEP_FAULT:
        step_fault(in);
        break;
    case STEP_REAP:
        step_reap();
        break;
    case STEP_RECLAIM:
        step_reclaim(s, in);
        break;
    case STEP_PROGRESS:
        step_progress(s);
        break;
    default:
        step_dma(in);
        break;
    }
}

static void remove_all(Session *s)
{
    uint64_t size = 0;
    int i;

    for (i = 0; i < MM_MAX_REGIONS; i++) {
        MmRegion *pending = vm->pending[i], *region = vm->regions[i];

        size += (pending ? pending->size : 0) + (region ? region->size : 0);
        if (pending) {
            mm_region_put(vm, pending);
        }
        if (region) {
            mm_fault_remove_region(vm, region);
            mm_region_put(vm, region);
        }
        if (s->mem[i]) {
            munmap(s->mem[i], s->size[i]);
        }
    }
    g_assert(vm->total_size == size);
}

static void session_end(Session *s)
{
    step_reap();
    vm_rig_check(vm);
    g_assert(vm->state->limit == MM_LIMIT_NONE ||
             vm->state->limit >= MM_LIMIT_MIN_PAGES * MM_PAGE_SIZE);
    remove_all(s);
    g_assert(vm->total_resident == 0);
    g_assert(vm_rig_used(vm) == 0);
    if (vm->uffd >= 0) {
        close(vm->uffd);
    }
    close(s->uffd);
    close(vm->connection);
    close(vm->control);
    close(vm->zap_fd);
    close(s->qemu);
    close(s->manager);
    close(s->zap);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    FuzzInput in = { .data = data, .size = size };
    int next_fd = fuzz_next_fd();
    Session s;
    int i;

    session_init(&s);
    for (i = 0; i < MAX_STEPS && in.size && !s.over; i++) {
        run_step(&s, &in);
    }
    session_end(&s);
    g_assert(fuzz_next_fd() == next_fd);
    return 0;
}

/* A region comes, is used, evicted, discarded, read back, and goes. */
static const uint8_t seed_life[] = {
    STEP_QEMU, 0, 0, 4,                                 /* UFFD */
    STEP_QEMU, 1, 0, 0, 200, 1, 100, 0, 0,              /* REGION_ADD */
    STEP_QEMU, 3, 0, 0, 0,                              /* REGION_READY */
    STEP_FAULT, 0, 0, 0, 1, STEP_FAULT, 0, 8, 0, 1,
    STEP_FAULT, 0, 24, 0, 1, STEP_FAULT, 0, 56, 0, 1,
    STEP_FAULT, 0, 200, 0, 1, STEP_FAULT, 0, 100, 1, 1,
    STEP_RECLAIM, 40, 1, 1, STEP_RECLAIM, 40, 1, 1,
    STEP_RECLAIM, 40, 1, 1, STEP_DMA, 0, 1, 0,
    STEP_FAULT, 0, 0, 0, 1, STEP_FAULT, 0, 8, 0, 0, STEP_REAP,
    STEP_RING, 3, 0, 0, 0, 60, 0, 1, STEP_DISCARD, STEP_DISCARD,
    STEP_MANAGER, 4, 10, 0, 0, STEP_PROGRESS,           /* EVICT */
    STEP_MANAGER, 1, 0, STEP_MANAGER, 2, 0, 0,          /* QUERY */
    STEP_FAULT, 0, 24, 0, 0, STEP_RING, 4, 0, 20, 0, 9, 0, 1,
    STEP_DISCARD, STEP_REAP,
    STEP_QEMU, 6, 100, 0, 0,                            /* SET_LIMIT */
    STEP_MANAGER, 6, 0, STEP_PROGRESS, STEP_QEMU, 7, 0, /* DETACH, OK */
    STEP_QEMU, 5, 0, 0,                                 /* REGION_REMOVE */
};

static void write_seeds(void)
{
    uint8_t two[2 * sizeof(seed_life)];

    fuzz_seed("life", seed_life, sizeof(seed_life));
    /* the first half of it, and what comes then */
    fuzz_seed("short", seed_life, sizeof(seed_life) / 2);
    memcpy(two, seed_life, sizeof(seed_life) / 2);
    memcpy(two + sizeof(seed_life) / 2, seed_life, sizeof(seed_life));
    fuzz_seed("twice", two, sizeof(seed_life) * 3 / 2);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    fuzz_start(*argc, *argv, write_seeds);
    vm = vm_rig_new(g_get_tmp_dir(), TIER_SIZE);
    clean_vm = *vm;
    clean_fault = *vm->fault;
    clean_reclaim = *vm->reclaim;
    return 0;
}
