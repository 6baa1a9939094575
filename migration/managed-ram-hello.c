/*
 * Managed memory: what a migration says of itself before it sends pages
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The source says which memory it is about, where swapped pages stay, what has
 * to find room, and what the guest is going to want (say).  The destination
 * checks all of it, and makes ready, or refuses (hear).
 */
#include "qemu/osdep.h"
#include "qemu/cutils.h"
#include "qemu/guest-random.h"
#include "qemu/main-loop.h"
#include "qemu/rcu.h"
#include "exec/cpu-common.h"
#include "exec/ramblock.h"
#include "exec/ram_addr.h"
#include "migration/managed-ram-internal.h"
#include "migration/managed-ram-owner.h"
#include "migration/ram.h"
#include "qapi/error.h"
#include "sysemu/managed-memory.h"
#include "sysemu/managed-memory-handover.h"

/* Blocks stay while a guest migrates, so what waits need not hold up RCU. */
uint8_t *managed_ram_host(const ManagedRamBlock *block)
{
    RAMBlock *rb;

    RCU_READ_LOCK_GUARD();
    rb = qemu_ram_block_by_name(block->name);
    return rb ? rb->host : NULL;
}

/* ---- say ---- */

static void find_blocks(ManagedRamHello *hello)
{
    RAMBlock *rb;

    hello->blocks = g_new0(ManagedRamBlock, MANAGED_RAM_BLOCKS_MAX);
    hello->nr_blocks = 0;
    RCU_READ_LOCK_GUARD();
    RAMBLOCK_FOREACH_NOT_IGNORED(rb) {
        if (managed_memory_look(rb->host, 0, NULL) &&
            hello->nr_blocks < MANAGED_RAM_BLOCKS_MAX) {
            ManagedRamBlock *block = &hello->blocks[hello->nr_blocks++];

            pstrcpy(block->name, sizeof(block->name), rb->idstr);
            block->size = rb->used_length;
            if (!managed_memory_seed(rb->host, &block->seed)) {
                block->seed = 0;
            }
        }
    }
}

/* It has to be known to leave before anybody is told of it. */
static bool find_file(ManagedRamHello *hello, Error **errp)
{
    bool ok;

    if (!managed_memory_shared_file(&hello->file)) {
        return true;
    }
    qemu_guest_getrandom_nofail(&hello->file.epoch,
                                sizeof(hello->file.epoch));
    qemu_mutex_lock_iothread();
    ok = managed_ram_owner_lends(&hello->file, errp);
    qemu_mutex_unlock_iothread();
    return ok;
}

/* What the guest is likely to want when it wakes up; some have not slept. */
static void put_wake(GByteArray *out, const ManagedRamHello *hello,
                     unsigned number)
{
    const ManagedRamBlock *block = &hello->blocks[number];
    const uint64_t end = block->size / MANAGED_RAM_PAGE_SIZE;
    g_autofree uint8_t *bits = g_malloc(MANAGED_RAM_WAKE_MAX /
                                        MM_RING_WAKE_BLOCK / 8);
    const uint8_t *host = managed_ram_host(block);
    ManagedRamRun run = {};

    for (; host && run.first < end; run.first += run.nr) {
        size_t len;

        run.nr = MIN(end - run.first, MANAGED_RAM_WAKE_MAX);
        len = DIV_ROUND_UP(run.nr, 8 * MM_RING_WAKE_BLOCK);
        if (managed_memory_wake_blocks(host + run.first * MANAGED_RAM_PAGE_SIZE,
                                       run.nr, bits) &&
            !buffer_is_zero(bits, len)) {
            managed_ram_put_wake(out, number, &run, bits);
        }
    }
}

bool managed_ram_say(ManagedRamHello *hello, GByteArray *out, Error **errp)
{
    ManagedMemoryNeed need;
    unsigned i;

    find_blocks(hello);
    if (!find_file(hello, errp)) {
        return false;
    }
    managed_ram_put_hello(out, hello->blocks, hello->nr_blocks, &hello->file);
    if (managed_memory_encrypted()) {
        managed_ram_put_encrypted(out);
    }
    managed_memory_need(&hello->file, &need);
    managed_ram_put_room(out, &need);
    for (i = 0; i < hello->nr_blocks; i++) {
        put_wake(out, hello, i);
    }
    return true;
}

/* ---- hear ---- */

static bool check_blocks(const ManagedRamHello *hello, Error **errp)
{
    unsigned i;

    RCU_READ_LOCK_GUARD();
    for (i = 0; i < hello->nr_blocks; i++) {
        const ManagedRamBlock *block = &hello->blocks[i];
        RAMBlock *rb = qemu_ram_block_by_name(block->name);

        if (!rb || ramblock_is_ignored(rb)) {
            error_setg(errp, "there is no memory named '%s' here: give it the "
                       "same id as at the source", block->name);
            return false;
        }
        if (rb->used_length != block->size) {
            error_setg(errp, "memory '%s' has %" PRIu64 " bytes at the source, "
                       "%" PRIu64 " here: give both the same",
                       block->name, block->size, (uint64_t)rb->used_length);
            return false;
        }
    }
    return true;
}

/*
 * What there is has checksums by our seed, if it has any; all of it is going to
 * come.
 */
static bool prepare_block(const ManagedRamBlock *block, Error **errp)
{
    const MmPlace none = {};
    uint8_t *host;
    int ret;

    if (!block->seed) {
        return true;
    }
    ret = ram_discard_range(block->name, 0, block->size);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "block '%s' cannot be discarded",
                         block->name);
        return false;
    }
    host = managed_ram_host(block);
    return host && managed_memory_adopt(host, 1, block->seed, &none, errp);
}

static bool borrow_file(ManagedRamHello *hello, Error **errp)
{
    unsigned i;

    if (!managed_memory_lend(&hello->file, &hello->tier, errp)) {
        return false;
    }
    for (i = 0; i < hello->nr_blocks; i++) {
        if (!prepare_block(&hello->blocks[i], errp)) {
            return false;
        }
    }
    return managed_ram_owner_borrows(&hello->file, errp);
}

bool managed_ram_hear_hello(ManagedRamHello *hello, const uint8_t *buf,
                            uint32_t len, Error **errp)
{
    int nr;

    if (hello->blocks) {
        error_setg(errp, "a second HELLO");
        return false;
    }
    hello->blocks = g_new0(ManagedRamBlock, MANAGED_RAM_BLOCKS_MAX);
    hello->nr_blocks = 0;
    nr = managed_ram_get_hello(buf, len, hello->blocks, &hello->file, errp);
    if (nr < 0) {
        return false;
    }
    hello->nr_blocks = nr;
    return check_blocks(hello, errp) &&
           (!hello->file.present || borrow_file(hello, errp));
}

static bool all_managed(const ManagedRamHello *hello)
{
    unsigned i;

    for (i = 0; i < hello->nr_blocks; i++) {
        if (!managed_memory_look(managed_ram_host(&hello->blocks[i]), 0,
                                 NULL)) {
            return false;
        }
    }
    return true;
}

bool managed_ram_hear_room(const ManagedRamHello *hello, const uint8_t *buf,
                           uint32_t len, Error **errp)
{
    ManagedMemoryNeed need;

    return managed_ram_get_room(buf, len, &need, errp) &&
           (!all_managed(hello) || managed_memory_has_room(&need, errp));
}

bool managed_ram_hear_encrypted(Error **errp)
{
    if (managed_memory_used() && !managed_memory_encrypted()) {
        error_setg(errp, "at the source what leaves memory is encrypted, and "
                   "here it would not be: use key-secret= here as well, with "
                   "any key");
        return false;
    }
    return true;
}

bool managed_ram_hear_wake(const ManagedRamHello *hello, const uint8_t *buf,
                           uint32_t len, Error **errp)
{
    ManagedRamRun run;
    uint32_t block;
    uint8_t *host;
    const uint8_t *bits = managed_ram_get_wake(buf, len, hello->blocks,
                                               hello->nr_blocks, &block, &run,
                                               errp);

    if (!bits) {
        return false;
    }
    host = managed_ram_host(&hello->blocks[block]);
    if (host && managed_memory_look(host, 0, NULL)) {
        managed_memory_set_wake_blocks(host + run.first * MANAGED_RAM_PAGE_SIZE,
                                       run.nr, bits);
    }
    return true;
}

void managed_ram_forget(ManagedRamHello *hello)
{
    g_clear_pointer(&hello->blocks, g_free);
    hello->nr_blocks = 0;
    hello->file.present = 0;
}
