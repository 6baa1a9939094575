/*
 * qemu-memory-manager: who connects to attach.sock
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Main thread only.
 */
#ifndef MEMORY_MANAGER_ATTACH_H
#define MEMORY_MANAGER_ATTACH_H

#include "manager.h"

/** mm_attach_listen: let QEMUs connect. */
bool mm_attach_listen(MmManager *mgr, Error **errp);

/**
 * mm_attach_refuse: answer HELLO with ERROR and close
 *
 * @sock: from a QEMU; is closed such that the QEMU can read the answer
 * @seq: of HELLO
 * @err: positive errno value
 * @text: explanation for people
 */
void mm_attach_refuse(int sock, uint64_t seq, int err, const char *text);

/** mm_attach_close: stop to listen, and remove the socket. */
void mm_attach_close(MmManager *mgr);

#endif
