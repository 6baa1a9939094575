/*
 * Managed memory pager: requests of QEMU
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * QEMU is hostile: a guest may have broken it.  It gets at its own memory and
 * nothing else, whatever it says; what makes no sense is answered with an
 * error, what is out of order ends the connection.
 */
#include "qemu/osdep.h"
#include <sys/ioctl.h>
#include <linux/userfaultfd.h>
#include "qemu/cutils.h"
#include "qapi/error.h"
#include "../fault/fault.h"
#include "../reclaim/reclaim.h"
#include "../region.h"
#include "../test-hooks.h"
#include "control.h"

/*
 * Its log is where people look for why a VM has not started.  One that does not
 * read is not waited for: QEMU could make us do so for ever.
 */
static void tell_managers(MmControl *c, const char *text)
{
    MmMsgError error = { .err = EINVAL };
    int i;

    pstrcpy(error.text, sizeof(error.text), text);
    for (i = 0; i < MM_MAX_MANAGERS; i++) {
        if (c->managers[i] >= 0) {
            mm_msg_try_send(c->managers[i], MM_MSG_ERROR, &error,
                            sizeof(error));
        }
    }
}

static void answer_error(MmControl *c, Error *err)
{
    tell_managers(c, error_get_pretty(err));
    mm_msg_send_error(c->vm->connection, c->msg->hdr.seq, EINVAL,
                      error_get_pretty(err));
    error_free(err);
}

static void answer_ok(MmControl *c)
{
    mm_msg_send(c->vm->connection, MM_MSG_OK, c->msg->hdr.seq, NULL, 0,
                NULL, 0);
}

bool mm_uffd_valid(int fd)
{
    struct uffdio_range range = {};
    int flags = fcntl(fd, F_GETFL);

    /* an empty range is invalid; what is no userfaultfd does not say so */
    return flags >= 0 && (flags & O_NONBLOCK) &&
           ioctl(fd, UFFDIO_WAKE, &range) < 0 && errno == EINVAL;
}

/* Only where nothing can have been written yet. */
static bool handle_key(MmControl *c)
{
    MmMsgKey *msg = (void *)c->msg->payload;
    Error *err = NULL;
    bool ok;

    if (c->vm->uffd >= 0 || c->vm->key) {
        return false;
    }
    ok = mm_vm_set_key(c->vm, msg->key, &err);
    explicit_bzero(msg, sizeof(*msg));
    if (ok) {
        answer_ok(c);
    } else {
        answer_error(c, err);
    }
    return true;
}

static bool handle_uffd(MmControl *c)
{
    MmVM *vm = c->vm;

    if (vm->uffd >= 0 || !mm_uffd_valid(c->msg->fds[0])) {
        return false;
    }
    vm->uffd = mm_msg_take_fd(c->msg, 0);
    mm_fault_watch_uffd(vm);
    answer_ok(c);
    return true;
}

static bool handle_region_add(MmControl *c)
{
    const MmMsgRegion *msg = (const void *)c->msg->payload;
    MmMsgRegionRef ref = { .id = msg->id };
    MmVM *vm = c->vm;
    Error *err = NULL;
    MmRegion *region;
    int fds[MM_REGION_FD__MAX];

    if (vm->uffd < 0 || msg->id >= MM_MAX_REGIONS ||
        vm->regions[msg->id] || vm->pending[msg->id]) {
        return false;
    }
    region = mm_region_new(vm, msg, &err);
    if (region && !mm_control_region_comes(vm, region, &err)) {
        mm_region_free(vm, region);
        region = NULL;
    }
    if (!region) {
        answer_error(c, err);
        return true;
    }
    mm_failpoint(MM_FP_REGION_ADD);
    fds[MM_REGION_FD_RAM] = region->ram_fd;
    fds[MM_REGION_FD_MAP] = mm_reopen(vm, region->map_fd, O_RDONLY);
    fds[MM_REGION_FD_DMA] = region->dma_fd;
    if (fds[MM_REGION_FD_MAP] < 0) {
        return false;
    }
    mm_msg_send(vm->connection, MM_MSG_REGION_ADDED, c->msg->hdr.seq,
                &ref, sizeof(ref), fds, ARRAY_SIZE(fds));
    close(fds[MM_REGION_FD_MAP]);
    return true;
}

static bool handle_region_ready(MmControl *c)
{
    const MmMsgRegionRef *ref = (const void *)c->msg->payload;
    MmVM *vm = c->vm;
    MmRegion *region = ref->id < MM_MAX_REGIONS ? vm->pending[ref->id] : NULL;

    if (!region || !ref->hva ||
        ref->hva % (region->unit_pages * MM_PAGE_SIZE) ||
        ref->hva + region->size < ref->hva ||
        mm_vm_overlaps(vm, ref->hva, region->size)) {
        return false;
    }
    region->hva = ref->hva;
    mm_fault_call(vm, mm_fault_add_region, region);
    vm->pending[ref->id] = NULL;
    answer_ok(c);
    return true;
}

static void remove_region(MmControl *c, MmRegion *region)
{
    MmVM *vm = c->vm;

    if (vm->pending[region->id]) {
        vm->pending[region->id] = NULL;
    } else {
        mm_fault_call(vm, mm_fault_remove_region, region);
    }
    mm_control_region_gone(vm, region);
    /* before the work of freeing it: QEMU waits */
    answer_ok(c);
    mm_region_put(vm, region);
}

/*
 * QEMU wants to be sure that the region is gone, and cannot always know how far
 * we got with it: its predecessor may have added it, its REGION_ADD may have
 * been too late.  What is not there is gone.
 */
static bool handle_region_remove(MmControl *c)
{
    const MmMsgRegionRef *ref = (const void *)c->msg->payload;
    MmRegion *region;

    if (ref->id >= MM_MAX_REGIONS) {
        return false;
    }
    region = c->vm->pending[ref->id] ?: c->vm->regions[ref->id];
    if (region) {
        remove_region(c, region);
    } else {
        answer_ok(c);
    }
    return true;
}

static bool handle_set_limit(MmControl *c)
{
    const MmMsgAmount *amount = (const void *)c->msg->payload;
    Error *err = NULL;

    if (mm_control_set_limit(c->vm, amount->value, &err)) {
        answer_ok(c);
    } else {
        answer_error(c, err);
    }
    return true;
}

static bool handle_query(MmControl *c)
{
    MmMsgQueryReply reply;

    mm_control_query(c->vm, &reply);
    mm_msg_send(c->vm->connection, MM_MSG_QUERY_REPLY, c->msg->hdr.seq,
                &reply, sizeof(reply), NULL, 0);
    return true;
}

static bool handle_unpin(MmControl *c)
{
    MmVM *vm = c->vm;
    unsigned i;

    for (i = 0; i < vm->nr_tiers; i++) {
        if (vm->tiers[i]->ops->unpin) {
            vm->tiers[i]->ops->unpin(vm->tiers[i]);
        }
    }
    qatomic_set(&vm->state->pinned, 0);
    /* there may be room again */
    mm_reclaim_wake(vm);
    answer_ok(c);
    return true;
}

/* The answer to DETACHED, the only request of ours. */
static bool handle_answer(MmControl *c)
{
    if (!c->detach_sent) {
        return false;
    }
    mm_long_detached(c, c->msg->hdr.type == MM_MSG_OK);
    return c->msg->hdr.type != MM_MSG_OK;
}

bool mm_session_handle(MmControl *c)
{
    switch (c->msg->hdr.type) {
    case MM_MSG_KEY:
        return handle_key(c);
    case MM_MSG_UFFD:
        return handle_uffd(c);
    case MM_MSG_REGION_ADD:
        return handle_region_add(c);
    case MM_MSG_REGION_READY:
        return handle_region_ready(c);
    case MM_MSG_REGION_REMOVE:
        return handle_region_remove(c);
    case MM_MSG_SET_LIMIT:
        return handle_set_limit(c);
    case MM_MSG_QUERY:
        return handle_query(c);
    case MM_MSG_UNPIN:
        return handle_unpin(c);
    case MM_MSG_OK:
    case MM_MSG_ERROR:
        return handle_answer(c);
    default:
        return false;
    }
}
