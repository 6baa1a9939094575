/*
 * Managed memory: which host may run the guest
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A guest whose memory is partly on shared storage must run on one host only,
 * as one with disk images.  QEMU lets go of images, and takes them again, at
 * the right places of a migration, of its failure, of `cont' and of late
 * activation; so this is a block driver without content, whose image is the
 * VM's file on shared storage:
 *
 *   inactivate   RELEASE: the file is nobody's
 *   activate     CLAIM: it is ours, or it was claimed elsewhere, and the guest
 *                does not run here
 *
 *           lends             inactivate
 *   NONE ----------> LENDING ----------> RELEASED
 *    ^ ^---keeps------'  ^---activate-------'
 *    |   borrows
 *    +-----------> BORROWED
 *    '---activate----'
 *
 * As long as it is RELEASED the other host may read what is in the file, so
 * what was told of stays there.
 *
 * What becomes of it on both hosts together is docs/devel/managed-memory.rst's.
 */
#include "qemu/osdep.h"
#include "block/block_int.h"
#include "qapi/error.h"
#include "qemu/error-report.h"
#include "qemu/main-loop.h"
#include "sysemu/block-backend.h"
#include "sysemu/managed-memory-handover.h"
#include "migration/blocker.h"
#include "migration/misc.h"
#include "managed-ram-owner.h"

typedef enum OwnerState {
    OWNER_NONE,                 /* nothing to be released or claimed */
    OWNER_LENDING,
    OWNER_RELEASED,
    OWNER_BORROWED,
    OWNER__MAX
} OwnerState;

#define TO(state) (1u << OWNER_##state)

static const uint8_t edges[OWNER__MAX] = {
    [OWNER_NONE] = TO(LENDING) | TO(BORROWED),
    [OWNER_LENDING] = TO(NONE) | TO(RELEASED),
    [OWNER_RELEASED] = TO(LENDING),
    [OWNER_BORROWED] = TO(NONE),
};

/* Under the BQL */
static struct {
    OwnerState state;           /* set by set_state() only */
    MmSharedFile file;
    BlockBackend *blk;          /* made when it is needed, and kept */
    bool unsure;                /* whether the file is released */
    Error *blocker;             /* while it is BORROWED */
} owner;

static void set_state(OwnerState to)
{
    assert(edges[owner.state] & (1u << to));
    owner.state = to;
}

static int release(BlockDriverState *bs)
{
    Error *err = NULL;

    if (owner.state != OWNER_LENDING) {
        return 0;
    }
    if (!managed_memory_release(&owner.file, &err)) {
        error_reportf_err(err, "managed memory cannot be handed over: ");
        /* it may have been all the same, and only the answer is missing */
        owner.unsure = !managed_memory_claim(&owner.file, NULL);
        return -EIO;
    }
    set_state(OWNER_RELEASED);
    return 0;
}

static void coroutine_fn claim(BlockDriverState *bs, Error **errp)
{
    if (owner.state != OWNER_RELEASED && owner.state != OWNER_BORROWED) {
        return;
    }
    if (!managed_memory_claim(&owner.file, errp)) {
        return;
    }
    if (owner.state == OWNER_BORROWED) {
        set_state(OWNER_NONE);
        migrate_del_blocker(owner.blocker);
        error_free(owner.blocker);
        owner.blocker = NULL;
        return;
    }
    set_state(OWNER_LENDING);
    /* else the migration that has failed says so when it has ended */
    if (migration_is_idle()) {
        managed_ram_owner_keeps();
    }
}

/* Nobody reads or writes it. */
static void child_perm(BlockDriverState *bs, BdrvChild *c, BdrvChildRole role,
                       BlockReopenQueue *queue, uint64_t perm, uint64_t shared,
                       uint64_t *nperm, uint64_t *nshared)
{
    *nperm = 0;
    *nshared = BLK_PERM_ALL;
}

static BlockDriver owner_driver = {
    .format_name = "managed-memory",
    .bdrv_child_perm = child_perm,
    .bdrv_inactivate = release,
    .bdrv_co_invalidate_cache = claim,
};

static bool make_image(bool active, Error **errp)
{
    BlockDriverState *bs;
    int ret;

    if (owner.blk) {
        return true;
    }
    /* read-only: it is none that a snapshot needs */
    bs = bdrv_new_open_driver(&owner_driver, NULL,
                              active ? 0 : BDRV_O_INACTIVE, errp);
    if (!bs) {
        return false;
    }
    owner.blk = blk_new(qemu_get_aio_context(), 0, BLK_PERM_ALL);
    ret = blk_insert_bs(owner.blk, bs, errp);
    bdrv_unref(bs);
    if (ret < 0) {
        blk_unref(owner.blk);
        owner.blk = NULL;
    }
    return ret == 0;
}

bool managed_ram_owner_lends(const MmSharedFile *file, Error **errp)
{
    if (owner.state != OWNER_NONE) {
        error_setg(errp, "this guest's memory is another host's");
        return false;
    }
    if (!make_image(true, errp)) {
        return false;
    }
    if (owner.unsure && !managed_memory_claim(&owner.file, errp)) {
        return false;
    }
    owner.unsure = false;
    owner.file = *file;
    set_state(OWNER_LENDING);
    return true;
}

bool managed_ram_owner_has_left(void)
{
    return owner.state == OWNER_RELEASED;
}

void managed_ram_owner_keeps(void)
{
    if (owner.state == OWNER_LENDING) {
        set_state(OWNER_NONE);
        managed_memory_unpin();
    }
}

bool managed_ram_owner_borrows(const MmSharedFile *file, Error **errp)
{
    if (owner.state != OWNER_NONE || owner.blk) {
        error_setg(errp, "a guest's memory can arrive in a new QEMU only");
        return false;
    }
    /* for a moment only, so no matter of -only-migratable */
    error_setg(&owner.blocker, "this guest has not been claimed yet from the "
               "host that it comes from: have it run first (cont)");
    if (!make_image(false, errp) ||
        migrate_add_blocker_internal(owner.blocker, errp) < 0) {
        error_free(owner.blocker);
        owner.blocker = NULL;
        return false;
    }
    owner.file = *file;
    set_state(OWNER_BORROWED);
    return true;
}
