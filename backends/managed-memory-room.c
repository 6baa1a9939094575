/*
 * Managed memory: does a guest that migrates fit where it arrives?
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * What is in memory here and in tiers that the other host does not see goes to
 * its memory, within the limit there, and to its tiers.  That it fits there
 * now does not keep others from taking the room before it has arrived; that it
 * does not fit is known before anything is sent.
 */
#include "qemu/osdep.h"
#include "qemu/cutils.h"
#include "qemu/error-report.h"
#include "qapi/error.h"
#include "backends/managed-memory-internal.h"
#include "sysemu/managed-memory-handover.h"

#define ANSWER_MS 10000
/* If it is not known, more than guests' memory usually does. */
#define SHRINKS 4

static bool query(MmMsgQueryReply *answer)
{
    const ManagedCall call = {
        .type = MM_MSG_QUERY, .want = MM_MSG_QUERY_REPLY,
        .timeout_ms = ANSWER_MS,
    };
    g_autofree MmMsg *reply = g_new0(MmMsg, 1);
    int ret = managed_conn_call(&call, reply, NULL);

    if (ret == 0) {
        memcpy(answer, reply->payload, sizeof(*answer));
    }
    mm_msg_clear(reply);
    return ret == 0;
}

void managed_memory_need(const MmSharedFile *file, ManagedMemoryNeed *need)
{
    g_autofree MmMsgQueryReply *here = g_new(MmMsgQueryReply, 1);
    uint64_t content = 0, used = 0;
    unsigned i;

    *need = (ManagedMemoryNeed) { .shrinks = SHRINKS };
    if (!query(here)) {
        return;
    }
    need->bytes = here->resident;
    for (i = 0; i < MM_MAX_TIERS; i++) {
        if (here->compressed & (1u << i)) {
            content += here->tier_content[i];
            used += here->tier_used[i];
        }
        if (!file->present || file->tier != i) {
            need->bytes += here->tier_content[i];
        }
    }
    if (used) {
        /* what fits here is not to be refused by hosts like this one */
        need->shrinks = MIN(MAX(DIV_ROUND_UP(content, used), SHRINKS),
                            UINT32_MAX);
    }
}

static bool ask_for_room(const MmMsgQueryReply *here,
                         const ManagedMemoryNeed *need, uint64_t *bytes)
{
    MmMsgHandover request = {
        .op = MM_HANDOVER_ROOM, .size = here->size, .shrinks = need->shrinks,
    };
    g_autofree MmMsg *reply = g_new0(MmMsg, 1);
    Error *err = NULL;

    if (!managed_handover_ask(&request, MM_MSG_AMOUNT, reply, &err)) {
        error_prepend(&err, "not known whether the guest that arrives fits: ");
        warn_report_err(err);
        return false;
    }
    *bytes = ((const MmMsgAmount *)reply->payload)->value;
    return true;
}

bool managed_memory_has_room(const ManagedMemoryNeed *need, Error **errp)
{
    g_autofree MmMsgQueryReply *here = g_new(MmMsgQueryReply, 1);
    uint64_t outside, room;

    if (!query(here) || need->bytes <= here->limit) {
        return true;
    }
    outside = need->bytes - here->limit;
    if (ask_for_room(here, need, &room) && room < outside) {
        g_autofree char *bytes = size_to_str(need->bytes);
        g_autofree char *limit = size_to_str(here->limit);
        g_autofree char *tiers = size_to_str(room);

        error_setg(errp, "the guest needs %s, but here are only its limit of "
                   "%s and room for %s in its tiers; start QEMU "
                   "here with a higher limit=, make room on the tiers' storage, "
                   "or give this host another tier", bytes, limit, tiers);
        return false;
    }
    return true;
}
