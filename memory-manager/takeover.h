/*
 * qemu-memory-manager: replacing the pager of a VM
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Main thread only.
 */
#ifndef MEMORY_MANAGER_TAKEOVER_H
#define MEMORY_MANAGER_TAKEOVER_H

#include "vm.h"

/**
 * mm_takeover_begin: a QEMU wants to resume its VM
 *
 * @peer: whose cookie and process were checked; its socket is the takeover's
 *        from now on
 *
 * Starts a pager as soon as the old one is proven dead, or refuses. One that
 * is under way is refused in favour of this one.
 */
void mm_takeover_begin(MmVM *vm, const MmHelloPeer *peer);

/** mm_takeover_continue: the pager has ended; look again, if QEMU waits. */
void mm_takeover_continue(MmVM *vm);

/** mm_takeover_abort: refuse the QEMU that waits, if there is one. */
void mm_takeover_abort(MmVM *vm, const char *why);

#endif
