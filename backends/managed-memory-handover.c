/*
 * Managed memory: content that stays where it is while its guest migrates
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * What concerns pages goes through the ring to the pager, what concerns whose
 * the file is to the manager, on a connection of its own.
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/timer.h"
#include "backends/managed-memory-internal.h"
#include "sysemu/managed-memory-handover.h"

#define PAGE_SIZE_4K 4096
/* Of a pager, or of the storage, for what is no matter of pages */
#define ANSWER_MS 10000
#define LOOK_MS 5
/* With other pagers, if one after the other dies */
#define ADOPT_TRIES 5
/* Of a manager, that is not there */
#define RESTART_MS 3000

bool managed_memory_shared_file(MmSharedFile *file)
{
    g_autofree MmState *state = g_new(MmState, 1);

    if (!managed_memory_used() || !managed_conn_read_state(state)) {
        return false;
    }
    *file = state->shared;
    file->file[sizeof(file->file) - 1] = '\0';
    /* each VM has a key of its own, and another one there */
    file->present &= !state->encrypted;
    return file->present;
}

bool managed_memory_encrypted(void)
{
    g_autofree MmState *state = g_new(MmState, 1);

    return managed_memory_used() && managed_conn_read_state(state) &&
           state->encrypted;
}

bool managed_memory_seed(const void *host, uint64_t *seed)
{
    const ManagedRegion *region;

    RCU_READ_LOCK_GUARD();
    region = managed_memory_used() ? managed_region_find(host) : NULL;
    return region && region->page_size == PAGE_SIZE_4K &&
           pread(region->fds[MM_REGION_FD_MAP], seed, sizeof(*seed),
                 offsetof(MmMapHeader, seed)) == sizeof(*seed);
}

/* ---- pages ---- */

static bool find_range(const uint8_t *host, unsigned nr, MmRange *range)
{
    const ManagedRegion *region;

    RCU_READ_LOCK_GUARD();
    region = managed_region_find(host);
    if (!region || region->page_size != PAGE_SIZE_4K) {
        return false;
    }
    *range = (MmRange) {
        .region = region->id, .nr_pages = nr,
        .first_page = (host - region->hva) / PAGE_SIZE_4K,
    };
    return true;
}

/* Returns whether it has been executed; @request is as it was then. */
static bool execute(MmRingSlot *request, int64_t deadline_ms)
{
    int slot = managed_ring_claim(MANAGED_RING_RESERVED);

    if (slot < 0) {
        return false;
    }
    managed_ring_post(slot, request);
    managed_conn_kick();
    return managed_ring_wait(slot, deadline_ms, request) == MANAGED_RING_DONE;
}

void managed_memory_pin(const void *host, unsigned nr, MmPlace *places)
{
    MmRingSlot request = { .kind = MM_RING_PIN };
    unsigned pages = MM_RING_PLACES_PAGES(nr), buffer;
    MmPlaces *answer;

    assert(nr <= MM_RING_PLACES_MAX);
    memset(places, 0, nr * sizeof(*places));
    if (managed_conn_state() != MANAGED_CONN_CONNECTED ||
        !find_range(host, nr, &request.range) ||
        !managed_ring_buffer_get(pages, &buffer)) {
        return;
    }
    answer = (MmPlaces *)managed_conn_ring()->buffer[buffer];
    memset(answer, 0, pages * PAGE_SIZE_4K);
    request.buffer = buffer;
    /* before any is told of, whichever pager does */
    managed_conn_set_pinned(true);
    if (execute(&request, managed_ring_deadline())) {
        memcpy(places, answer->page, nr * sizeof(*places));
    }
    managed_ring_buffer_put(buffer, pages);
}

void managed_memory_unpin(void)
{
    const ManagedCall call = {
        .type = MM_MSG_UNPIN, .want = MM_MSG_OK, .timeout_ms = ANSWER_MS,
    };
    g_autofree MmMsg *reply = g_new0(MmMsg, 1);

    /* the next pager begins without */
    managed_conn_set_pinned(false);
    managed_conn_call(&call, reply, NULL);
    mm_msg_clear(reply);
}

static bool all_adopted(const MmPlaces *answer, const MmPlace *places,
                        unsigned nr)
{
    unsigned i;

    for (i = 0; i < nr; i++) {
        if (places[i].known && !answer->page[i].known) {
            return false;
        }
    }
    return true;
}

/* The answer, or what is to be written, is in @blocks. */
static bool wake_request(MmRingKind kind, const void *host, unsigned nr,
                         uint8_t *answer, const uint8_t *blocks)
{
    size_t len = DIV_ROUND_UP(nr, 8 * MM_RING_WAKE_BLOCK);
    MmRingSlot request = { .kind = kind };
    unsigned buffer;
    bool ok;

    assert(nr <= MM_RING_WAKE_MAX);
    if (managed_conn_state() != MANAGED_CONN_CONNECTED ||
        !find_range(host, nr, &request.range) ||
        !managed_ring_buffer_get(1, &buffer)) {
        return false;
    }
    request.buffer = buffer;
    if (blocks) {
        memcpy(managed_conn_ring()->buffer[buffer], blocks, len);
    }
    ok = execute(&request, managed_ring_deadline()) && request.pages;
    if (ok && answer) {
        memcpy(answer, managed_conn_ring()->buffer[buffer], len);
    }
    managed_ring_buffer_put(buffer, 1);
    return ok;
}

bool managed_memory_wake_blocks(const void *host, unsigned nr, uint8_t *blocks)
{
    return wake_request(MM_RING_WAKE_READ, host, nr, blocks, NULL);
}

void managed_memory_set_wake_blocks(const void *host, unsigned nr,
                                    const uint8_t *blocks)
{
    wake_request(MM_RING_WAKE_WRITE, host, nr, NULL, blocks);
}

/* ---- the file ---- */

/* It has not begun, or its end has interrupted what can be done again. */
static bool may_ask_again(const MmMsgHandover *request, int ret)
{
    return ret == -ECONNREFUSED ||
           (ret == -EAGAIN && request->op != MM_HANDOVER_LEND);
}

/* Returns what managed_attach_handover() has returned last. */
static int ask_manager(MmMsgHandover *request, MmMsgType want, MmMsg *reply,
                       Error **errp)
{
    int64_t now, end = 0;
    ManagedConnInfo info;
    Error *err = NULL;
    int ret;

    managed_conn_info(&info);
    memcpy(request->uuid, info.uuid, sizeof(request->uuid));
    memcpy(request->cookie, info.cookie, sizeof(request->cookie));
    /* a manager that is being restarted is back soon */
    for (;;) {
        ret = managed_attach_handover(info.path, request, ANSWER_MS, want,
                                      reply, &err);
        mm_msg_clear(reply);
        now = qemu_clock_get_ms(QEMU_CLOCK_REALTIME);
        end = end ?: now + RESTART_MS;
        if (!may_ask_again(request, ret) || now >= end) {
            break;
        }
        error_free(err);
        err = NULL;
        g_usleep(LOOK_MS * 1000);
    }
    error_propagate(errp, err);
    g_free(info.path);
    return ret;
}

bool managed_handover_ask(MmMsgHandover *request, MmMsgType want, MmMsg *reply,
                          Error **errp)
{
    return ask_manager(request, want, reply, errp) == 0;
}

/*
 * Has the pager that serves a tier, and seen that it is what it should be?  One
 * that has just died does not say so.
 */
static bool look_for_tier(unsigned number, bool *has, bool *proven)
{
    const ManagedCall call = {
        .type = MM_MSG_QUERY, .want = MM_MSG_QUERY_REPLY,
        .timeout_ms = ANSWER_MS,
    };
    g_autofree MmMsg *reply = g_new0(MmMsg, 1);
    int ret = managed_conn_call(&call, reply, NULL);
    const MmMsgQueryReply *query = (const void *)reply->payload;

    *has = ret == 0 && query->tiers & (1u << number);
    *proven = *has && query->proven & (1u << number);
    mm_msg_clear(reply);
    return ret == 0;
}

/* The next pager has it, or none ever will. */
static bool wait_for_tier(unsigned number, uint64_t epoch, Error **errp)
{
    int64_t end = qemu_clock_get_ms(QEMU_CLOCK_REALTIME) + ANSWER_MS;
    bool has, proven;

    while (qemu_clock_get_ms(QEMU_CLOCK_REALTIME) < end) {
        if (managed_conn_epoch() != epoch &&
            managed_conn_state() == MANAGED_CONN_CONNECTED &&
            look_for_tier(number, &has, &proven)) {
            if (!has) {
                error_setg(errp, "the file in which the source has content of "
                           "the VM cannot be opened; the memory manager's log "
                           "says why");
                return false;
            }
            if (proven) {
                return true;
            }
        }
        g_usleep(LOOK_MS * 1000);
    }
    error_setg(errp, "the file in which the source has content of the VM could "
               "not be read within %d s, or is not what the source says: both "
               "hosts need the same release, and to see the same storage",
               ANSWER_MS / 1000);
    return false;
}

/* The tier of the first page that is known, once a pager has read its file */
static bool wait_for_places(const MmPlace *places, unsigned nr)
{
    unsigned i;

    for (i = 0; i < nr; i++) {
        if (places[i].known) {
            return wait_for_tier(places[i].tier, UINT64_MAX, NULL);
        }
    }
    return false;
}

bool managed_memory_adopt(void *host, unsigned nr, uint64_t seed,
                          const MmPlace *places, Error **errp)
{
    MmRingSlot request = { .kind = MM_RING_ADOPT };
    unsigned pages = MM_RING_PLACES_PAGES(nr), buffer;
    MmPlaces *content;
    unsigned tries = 0;
    bool ok;

    assert(nr <= MM_RING_PLACES_MAX);
    if (!find_range(host, nr, &request.range) ||
        !managed_memory_discard(host, (size_t)nr * PAGE_SIZE_4K) ||
        !managed_ring_buffer_get(pages, &buffer)) {
        error_setg(errp, "content on shared storage cannot be had in this "
                   "memory");
        return false;
    }
    content = (MmPlaces *)managed_conn_ring()->buffer[buffer];
    request.buffer = buffer;
    do {
        MmRingSlot slot = request;

        content->seed = seed;
        memcpy(content->page, places, nr * sizeof(*places));
        /* there is no other way to have it: as a fault, it waits for a pager */
        ok = execute(&slot, INT64_MAX) && slot.pages &&
             all_adopted(content, places, nr);
        /* one that has just taken over has not read the source's file yet */
    } while (!ok && tries++ < ADOPT_TRIES && wait_for_places(places, nr));
    if (!ok) {
        error_setg(errp, "pages 0x%" PRIx64 " +0x%x of region %u cannot be at "
                   "the places that the source says", request.range.first_page,
                   nr, request.range.region);
    }
    managed_ring_buffer_put(buffer, pages);
    return ok;
}

/* Until a pager serves; once it answers it has told the manager, too. */
static void wait_served(void)
{
    int64_t end = qemu_clock_get_ms(QEMU_CLOCK_REALTIME) + ANSWER_MS;
    bool has, proven;

    while (qemu_clock_get_ms(QEMU_CLOCK_REALTIME) < end &&
           !(managed_conn_wait(ANSWER_MS) && look_for_tier(0, &has, &proven))) {
        g_usleep(LOOK_MS * 1000);
    }
}

/*
 * The manager gives a VM another pager, so it needs one that serves.  Returns 0
 * or -errno; @epoch: of the pager that is going to be replaced.
 */
static int ask_to_lend(MmMsgHandover *request, MmMsg *reply, uint64_t *epoch,
                       Error **errp)
{
    unsigned tries = 0;
    Error *err = NULL;
    int ret;

    for (;;) {
        wait_served();
        *epoch = managed_conn_epoch();
        ret = ask_manager(request, MM_MSG_AMOUNT, reply, &err);
        if (ret != -EREMOTEIO || *epoch == managed_conn_epoch() ||
            tries++ == ADOPT_TRIES) {
            break;
        }
        /* it has died meanwhile */
        error_free(err);
        err = NULL;
    }
    error_propagate(errp, err);
    return ret;
}

bool managed_memory_lend(const MmSharedFile *file, unsigned *tier,
                         Error **errp)
{
    MmMsgHandover request = { .op = MM_HANDOVER_LEND };
    g_autofree MmMsg *reply = g_new0(MmMsg, 1);
    uint64_t epoch, number;

    memcpy(request.storage, file->storage, sizeof(request.storage));
    memcpy(request.file_id, file->id, sizeof(request.file_id));
    memcpy(request.file_key, file->key, sizeof(request.file_key));
    memcpy(request.file, file->file, sizeof(request.file));
    if (!managed_memory_used()) {
        error_setg(errp, "this VM has no managed memory here, but content on "
                   "shared storage at the source; give it memory of the same "
                   "kind, or switch the source's migration capability "
                   "managed-ram off");
        return false;
    }
    if (ask_to_lend(&request, reply, &epoch, errp) < 0) {
        return false;
    }
    number = ((const MmMsgAmount *)reply->payload)->value;
    if (number >= MM_MAX_TIERS) {
        error_setg(errp, "the memory manager has no number for a tier");
        return false;
    }
    *tier = number;
    return wait_for_tier(number, epoch, errp);
}

static bool change_owner(MmHandoverOp op, const MmSharedFile *file,
                         Error **errp)
{
    MmMsgHandover request = { .op = op, .epoch = file->epoch };
    g_autofree MmMsg *reply = g_new0(MmMsg, 1);

    memcpy(request.file_id, file->id, sizeof(request.file_id));
    return managed_handover_ask(&request, MM_MSG_OK, reply, errp);
}

bool managed_memory_release(const MmSharedFile *file, Error **errp)
{
    return change_owner(MM_HANDOVER_RELEASE, file, errp);
}

bool managed_memory_claim(const MmSharedFile *file, Error **errp)
{
    return change_owner(MM_HANDOVER_CLAIM, file, errp);
}
