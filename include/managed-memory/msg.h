/*
 * Managed memory: sending and receiving messages
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Shared by QEMU, the manager, the pager and the tests.  Any thread may call
 * any function; a datagram is sent or received as a whole, so several threads
 * may send on one socket.
 */
#ifndef MANAGED_MEMORY_MSG_H
#define MANAGED_MEMORY_MSG_H

#include "managed-memory/proto.h"

/* A received message; MmMsg owns its descriptors until they are taken. */
typedef struct MmMsg {
    MmMsgHeader hdr;
    int nr_fds;
    int fds[MM_MSG_MAX_FDS];
    union {
        uint64_t align;
        uint8_t payload[MM_MSG_MAX - sizeof(MmMsgHeader)];
    };
} MmMsg;

/**
 * mm_msg_send: send one message
 *
 * @sock: SOCK_SEQPACKET socket
 * @type: MmMsgType
 * @seq: sequence number for the header
 * @payload: @len bytes, may be NULL if @len is 0
 * @len: payload size in bytes
 * @fds: @nr_fds descriptors that stay the caller's, may be NULL
 * @nr_fds: 0..MM_MSG_MAX_FDS
 *
 * Blocks while the socket's buffer is full, unless the socket is non-blocking
 * (-EAGAIN then).  Never raises SIGPIPE.
 *
 * Returns 0, or -errno (-EPIPE or -ECONNRESET: the peer is gone).
 */
int mm_msg_send(int sock, MmMsgType type, uint64_t seq,
                const void *payload, size_t len,
                const int *fds, int nr_fds);

/**
 * mm_msg_try_send: send what nobody has asked for, without waiting
 *
 * Returns 0 or -errno; -EAGAIN: the peer does not read.
 */
int mm_msg_try_send(int sock, MmMsgType type, const void *payload, size_t len);

/**
 * mm_msg_send_error: answer a request with MM_MSG_ERROR
 *
 * @sock: SOCK_SEQPACKET socket
 * @seq: of the request
 * @err: positive errno value
 * @text: explanation for people, cut to fit
 */
int mm_msg_send_error(int sock, uint64_t seq, int err, const char *text);

/**
 * mm_msg_recv: receive one message
 *
 * @sock: SOCK_SEQPACKET socket
 * @msg: filled in; release with mm_msg_clear() even after an error
 * @timeout_ms: how long to wait, -1 for ever
 *
 * Checks the framing and that type, payload size and number of descriptors
 * fit together (mm_msg_check()).
 *
 * Returns 1, or 0 on EOF, or -errno (-ETIMEDOUT, -EPROTO: malformed, also if
 * the datagram is empty).
 */
int mm_msg_recv(int sock, MmMsg *msg, int timeout_ms);

/**
 * mm_msg_check: does the payload have the size and descriptors of its type?
 *
 * @msg: header, nr_fds and payload are looked at
 *
 * Text members are checked to be NUL-terminated, counts to lie in range.
 * Pure: no I/O.  Returns true if well-formed.
 */
bool mm_msg_check(const MmMsg *msg);

/**
 * mm_msg_take_fd: take a descriptor out of a message
 *
 * Returns the descriptor, now the caller's, or -1 if there is none at @index.
 */
int mm_msg_take_fd(MmMsg *msg, int index);

/** mm_msg_clear: close the descriptors that were not taken. */
void mm_msg_clear(MmMsg *msg);

/** mm_msg_type_name: the type's name for logs and errors, never NULL. */
const char *mm_msg_type_name(uint32_t type);

/**
 * mm_seal_memfd: create a sealed memfd of a fixed size
 *
 * @name: shown in /proc
 * @size: in bytes, rounded up to pages by the caller
 *
 * Mode 0600, seals SHRINK, GROW and SEAL.  Returns the descriptor or -errno.
 */
int mm_seal_memfd(const char *name, uint64_t size);

/** mm_seal_huge_memfd: the same, of huge pages of 2 MiB; none is taken yet. */
int mm_seal_huge_memfd(const char *name, uint64_t size);

#endif
