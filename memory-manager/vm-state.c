/*
 * qemu-memory-manager: states of a VM and the ways between them
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "vm-state.h"

#define TO(state) (1u << MANAGEDVM_STATE_##state)

/* The diagram in vm.h. */
static const unsigned edges[MANAGEDVM_STATE__MAX] = {
    [MANAGEDVM_STATE_ADOPTING] = TO(STARTING) | TO(SERVING) | TO(LOST) |
                                 TO(CLOSING),
    [MANAGEDVM_STATE_STARTING] = TO(SERVING) | TO(LOST) | TO(CLOSING),
    [MANAGEDVM_STATE_SERVING] = TO(LOST) | TO(CLOSING),
    [MANAGEDVM_STATE_LOST] = TO(STARTING) | TO(CLOSING),
    [MANAGEDVM_STATE_CLOSING] = 0,
};

bool mm_vm_edge_is_legal(ManagedVMState from, ManagedVMState to)
{
    return edges[from] & (1u << to);
}
