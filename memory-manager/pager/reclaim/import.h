/*
 * Managed memory pager: content on its way into a tier, not from memory
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The fault thread, which QEMU asks, owns the pages (FILLING); the reclaim
 * thread, which alone finds places, stores their content.  So an import goes
 * from one to the other and back:
 *
 *  IDLE    the fault thread's: nothing is in it
 *  POSTED  whoever is first may take it: the reclaim thread to store it, the
 *          fault thread back
 *  TAKEN   the reclaim thread's
 *  STORED  the fault thread's: it publishes the places
 *
 * Meanwhile the content may become unwanted (discarded, or the request given
 * up): that only the fault thread knows, and frees the places in the end.
 */
#ifndef MANAGED_MEMORY_IMPORT_H
#define MANAGED_MEMORY_IMPORT_H

#include "../vm.h"

typedef enum MmImportState {
    MM_IMPORT_IDLE,
    MM_IMPORT_POSTED,
    MM_IMPORT_TAKEN,
    MM_IMPORT_STORED,
    MM_IMPORT__MAX
} MmImportState;

typedef struct MmImport {
    unsigned state;             /* MmImportState, atomic */
    bool hangs;                 /* its store does; atomic, reclaim thread */

    /* the fault thread's; the reclaim thread reads them while it is TAKEN */
    MmRegion *region;           /* with a reference */
    uint64_t page;              /* the first one */
    unsigned nr;                /* pages, up to MM_RING_CONTENT_MAX */
    uint64_t entries[MM_RING_CONTENT_MAX]; /* FILLING; 0: left alone */
    const uint8_t *content;     /* of @nr pages; QEMU may write to it */

    /* the fault thread's alone */
    unsigned slot;              /* of the ring */
    bool given_up;              /* nobody waits for it any more */
    uint32_t cancelled;         /* bit per page: not wanted any more */
    uint64_t since_ns;

    /* written by the reclaim thread while it is TAKEN; 0: no place */
    uint64_t stored[MM_RING_CONTENT_MAX]; /* entry with the place */
    uint32_t checksums[MM_RING_CONTENT_MAX];
} MmImport;

/**
 * mm_import_move: hand it over
 *
 * Asserts that the edge is legal.  False if it is not in state @from any more,
 * which can be of POSTED only.
 */
bool mm_import_move(MmImport *import, MmImportState from, MmImportState to);

/** mm_import_state: at this moment; any thread. */
MmImportState mm_import_state(const MmImport *import);

#endif
