/*
 * Managed memory pager: pages that are overwritten without having been read
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A guest's disk read overwrites whole pages.  If they are not in memory, the
 * kernel would have us fetch their old content for nothing, one page after the
 * other.  So QEMU reads into a buffer that it shares with us, and has us put
 * what is there in place of what the pages had.
 *
 * A page goes from its old content to the new at once (UFFDIO_COPY): nobody
 * sees anything else, and if we die before, it still has the old content.
 * QEMU may change the buffer meanwhile, and would harm its own guest only.
 *
 * Nothing here waits.  What cannot be placed, or is neither NEVER nor SWAPPED,
 * is left alone; QEMU writes to it as to any other page.
 */
#include "qemu/osdep.h"
#include "qemu/atomic.h"
#include "qemu/bitops.h"
#include "qemu/host-utils.h"
#include "../region.h"
#include "../test-hooks.h"
#include "fault-internal.h"

QEMU_BUILD_BUG_ON(MM_RING_CONTENT_MAX > 32);  /* bits of done */

/* Take pages of [@page, @page + @nr), up to the first that is not to be had. */
static unsigned take(MmRegion *region, uint64_t page, unsigned nr,
                     uint64_t *filling)
{
    unsigned i;

    for (i = 0; i < nr; i++) {
        uint64_t entry = mm_map_get(&region->map, page + i);

        filling[i] = mm_entry_with_state(entry, MM_PAGE_FILLING);
        if ((mm_entry_state(entry) != MM_PAGE_NEVER &&
             mm_entry_state(entry) != MM_PAGE_SWAPPED) ||
            !mm_map_cas(&region->map, page + i, entry, filling[i])) {
            break;
        }
    }
    return i;
}

/* Returns a bit for each page that has its new content. */
static uint32_t place(MmFault *f, MmRegion *region, uint64_t page, unsigned nr,
                      const uint64_t *filling, const void *src)
{
    MmPlaced placed;

    mm_failpoint(MM_FP_FILLING);
    placed = mm_place_pages(f, region, page, filling, src, nr);
    /* its old content can still be had: who waits for the page tries again */
    placed.reason = MM_WAIT_BUSY;
    mm_not_placed(f, region, page, filling, nr, &placed);
    return placed.nr ? MAKE_64BIT_MASK(0, placed.nr) & ~placed.others : 0;
}

void mm_overwrite(MmFault *f, MmRegion *region, const MmRingSlot *request,
                  uint32_t *done)
{
    uint64_t filling[MM_RING_CONTENT_MAX];
    uint64_t page = request->range.first_page;
    unsigned nr = request->range.nr_pages, i, taken;
    const uint8_t *src;

    if (mm_region_is_huge(region) || nr > MM_RING_CONTENT_MAX ||
        request->buffer + nr > MM_RING_BUFFER_PAGES) {
        return;
    }
    src = f->vm->ring->buffer[request->buffer];
    mm_region_reconcile(f->vm, region, page, nr);
    nr = mm_fault_room(f, nr);
    mm_nodes_prefer(f->vm->nodes, MM_NODE_ANY);
    for (i = 0; i < nr; i += taken + 1) {
        taken = take(region, page + i, nr - i, filling);
        if (taken) {
            *done |= place(f, region, page + i, taken, filling,
                                          src + i * MM_PAGE_SIZE) << i;
        }
    }
    MM_STAT_ADD(f->vm, pages_overwritten, ctpop32(*done));
}
