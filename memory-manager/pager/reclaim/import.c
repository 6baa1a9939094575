/*
 * Managed memory pager: storing content that comes from QEMU
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * An import goes the way of a batch that leaves memory, but for its beginning
 * and its end: its content is in the ring's buffer, and its pages are the fault
 * thread's.
 */
#include "qemu/osdep.h"
#include "../fault/fault.h"
#include "reclaim-internal.h"

static const uint8_t edges[MM_IMPORT__MAX] = {
    [MM_IMPORT_IDLE] = 1u << MM_IMPORT_POSTED,
    [MM_IMPORT_POSTED] = 1u << MM_IMPORT_TAKEN | 1u << MM_IMPORT_IDLE,
    [MM_IMPORT_TAKEN] = 1u << MM_IMPORT_STORED,
    [MM_IMPORT_STORED] = 1u << MM_IMPORT_IDLE,
};

bool mm_import_move(MmImport *import, MmImportState from, MmImportState to)
{
    bool moved;

    assert(edges[from] & (1u << to));
    moved = qatomic_cmpxchg(&import->state, from, to) == from;
    assert(moved || from == MM_IMPORT_POSTED);
    return moved;
}

MmImportState mm_import_state(const MmImport *import)
{
    return qatomic_load_acquire(&import->state);
}

static MmImport *posted(MmReclaim *r)
{
    unsigned i;

    for (i = 0; i < MM_RING_STORES; i++) {
        if (mm_import_state(&r->imports[i]) == MM_IMPORT_POSTED) {
            return &r->imports[i];
        }
    }
    return NULL;
}

/* Nothing has a place, so far. */
static void forget(MmImport *import)
{
    memset(import->stored, 0, sizeof(import->stored));
}

static void give_back(MmReclaim *r, MmImport *import)
{
    mm_import_move(import, MM_IMPORT_TAKEN, MM_IMPORT_STORED);
    mm_fault_imported(r->vm);
}

bool mm_import_wants(MmReclaim *r)
{
    return posted(r) && mm_writeback_idle(r);
}

static void add_piece(MmBatch *b, const MmImport *import, unsigned i)
{
    MmPiece *p = &b->p[b->nr];

    *p = (MmPiece) {
        .page = import->page + i, .entry = import->entries[i],
        .base = mm_entry_next_version(import->entries[i]),
        .buf = b->buf + b->nr * MM_PAGE_SIZE,
    };
    b->nr++;
    /* what it is now counts, whatever QEMU does to it afterwards */
    memcpy(p->buf, import->content + i * MM_PAGE_SIZE, MM_PAGE_SIZE);
    mm_store_is_fill(p);
}

bool mm_import_take(MmReclaim *r, MmBatch *b)
{
    MmImport *import = posted(r);
    unsigned i;

    if (!import ||
        !mm_import_move(import, MM_IMPORT_POSTED, MM_IMPORT_TAKEN)) {
        return false;
    }
    forget(import);
    qatomic_set(&import->hangs, false);
    if (qatomic_read(&r->vm->reclaim_rests)) {
        give_back(r, import);
        return false;
    }
    b->import = import;
    b->nr = 0;
    for (i = 0; i < import->nr; i++) {
        if (import->entries[i]) {
            add_piece(b, import, i);
        }
    }
    return true;
}

void mm_import_hangs(MmReclaim *r, MmBatch *b)
{
    qatomic_set(&b->import->hangs, true);
    mm_fault_imported(r->vm);
}

void mm_import_stored(MmReclaim *r, MmBatch *b)
{
    MmImport *import = b->import;
    unsigned k;

    for (k = 0; k < b->nr; k++) {
        const MmPiece *p = &b->p[k];
        unsigned i = p->page - import->page;

        if (p->stored) {
            import->stored[i] = p->stored;
            import->checksums[i] = mm_store_checksum(&import->region->map, p);
        }
        mm_move_forget(r, import->region, p->page);
    }
    b->import = NULL;
    give_back(r, import);
}
