/*
 * Unit tests: a socket with a peer that sends what it likes
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MSG_LINK_H
#define MSG_LINK_H

#include "managed-memory/msg.h"

/* The most descriptors that the kernel lets through in one message. */
#define SCM_MAX 253

typedef struct Link {
    int peer;                   /* who sends what it likes */
    int sock;                   /* under test */
    unsigned fds_before;
    MmMsg msg;
} Link;

/** link_new: a pair of connected sockets. */
Link *link_new(void);

/** link_free: close both; no other descriptor may have been left behind. */
void link_free(Link *link);

/** link_send: @len bytes and @nr_fds descriptors, by the system call alone. */
void link_send(Link *link, const void *data, size_t len, unsigned nr_fds);

/** link_receive: what mm_msg_recv() makes of it, in link->msg. */
int link_receive(Link *link);

#endif
