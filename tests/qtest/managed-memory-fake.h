/*
 * Managed memory qtests: a manager and pager that obey the test
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The test itself speaks the protocol, step by step, while a command of QEMU
 * is under way: qtest_qmp_send(), then what the peer says, then
 * qtest_qmp_receive(). Everything that QEMU has to send is waited for, for a
 * bounded time. Nobody serves faults: guest memory must not be touched.
 */
#ifndef TESTS_MANAGED_MEMORY_FAKE_H
#define TESTS_MANAGED_MEMORY_FAKE_H

#include "managed-memory/msg.h"
#include "managed-memory/shared.h"

typedef struct MmFake {
    char *dir;
    char *path;                 /* of the attach socket */
    int listener;
    int sock;                   /* the connection, or -1 */
    int zap;                    /* our end of the zap channel, or -1 */
    MmMsg *msg;                 /* the last one that was received */
} MmFake;

/** mm_fake_new: listen on a socket of its own */
MmFake *mm_fake_new(void);

/** mm_fake_free: close all, as if all processes had died */
void mm_fake_free(MmFake *fake);

/** mm_fake_accept: wait for QEMU to connect */
void mm_fake_accept(MmFake *fake);

/** mm_fake_close: end the connection and the zap channel */
void mm_fake_close(MmFake *fake);

/**
 * mm_fake_recv: receive a message of this type; it is in fake->msg then
 *
 * Its descriptors are closed by the next call. Returns its payload.
 */
const void *mm_fake_recv(MmFake *fake, MmMsgType type);

/** mm_fake_recv_end: see that QEMU has closed the connection */
void mm_fake_recv_end(MmFake *fake);

/** mm_fake_send: send a message, with the sequence number of fake->msg */
void mm_fake_send(MmFake *fake, MmMsgType type, const void *payload,
                  size_t len, const int *fds, int nr_fds);

/** mm_fake_send_raw: send any datagram, with @nr_fds descriptors */
void mm_fake_send_raw(MmFake *fake, const void *data, size_t len, int nr_fds);

/** mm_fake_ok: answer OK to fake->msg */
void mm_fake_ok(MmFake *fake);

/** mm_fake_error: answer ERROR to fake->msg */
void mm_fake_error(MmFake *fake, int err, const char *text);

/* How the answer to HELLO is to differ from a good one */
typedef struct MmFakeHello {
    uint32_t version;           /* 0: the right one */
    int nr_fds;                 /* 0: the right number */
    uint64_t ring_size;         /* 0: the right one */
    bool unsealed_ring;
    bool readonly_ring;
    uint8_t uuid;               /* each byte of the UUID */
} MmFakeHello;

/** mm_fake_hello: answer the HELLO or RESUME_END in fake->msg */
void mm_fake_hello(MmFake *fake, const MmFakeHello *how);

/** mm_fake_attach: accept, receive HELLO, answer, receive the userfaultfd */
void mm_fake_attach(MmFake *fake);

/* How the answer to REGION_ADD is to differ from a good one */
typedef struct MmFakeRegion {
    uint64_t ram_size;          /* 0: the right one */
    uint64_t map_size;
    uint64_t dma_size;
    bool unsealed_ram;
    bool unsealed_map;
    bool unsealed_dma;
    bool pipe;                  /* for memory */
    int nr_fds;                 /* 0: the right number */
} MmFakeRegion;

/** mm_fake_region: receive REGION_ADD and answer it */
void mm_fake_region(MmFake *fake, const MmFakeRegion *how);

/** mm_fake_add_region: serve an object-add to its end */
void mm_fake_add_region(MmFake *fake);

/**
 * mm_fake_resume: accept QEMU again, and what it hands over
 *
 * @nr_regions, @nr_holds: what it has to bring
 *
 * Does not answer yet: that is mm_fake_hello().
 */
void mm_fake_resume(MmFake *fake, unsigned nr_regions, unsigned nr_holds);

#endif
