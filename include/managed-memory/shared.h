/*
 * Managed memory: layouts of the memfds that QEMU and the pager share
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Every memfd here outlives the pager, because QEMU keeps a descriptor of it.
 * They are sealed (SHRINK, GROW, SEAL), mode 0600 and owned by the manager's
 * user, so that an unprivileged QEMU cannot reopen a read-only one for
 * writing.
 *
 *  state     written by the pager, read-only in QEMU    MmState
 *  page map  written by the pager, read-only in QEMU    MmMapHeader, page-map.h
 *  ring      written by both                            MmRing
 *  dma       written by QEMU, read by the pager         uint32_t counters
 *
 * What QEMU can write is never trusted by the pager: it is copied before it is
 * checked, and the worst that it can do is to harm its own guest.
 */
#ifndef MANAGED_MEMORY_SHARED_H
#define MANAGED_MEMORY_SHARED_H

#include "managed-memory/proto.h"

#define MM_STATE_MAGIC 0x514d4d53   /* "QMMS" */
#define MM_MAP_MAGIC   0x514d4d50   /* "QMMP" */
#define MM_TIER_MAGIC  0x514d4d54   /* "QMMT" */
#define MM_LAYOUT_VERSION 9

/* Ties a memfd or a tier file to one VM; checked when it comes back. */
typedef struct MmIdentity {
    uint32_t magic;
    uint32_t version;           /* MM_LAYOUT_VERSION */
    uint8_t uuid[MM_UUID_LEN];
    uint8_t cookie[MM_COOKIE_LEN];
} MmIdentity;

/* A VM's file on storage that other hosts see */
typedef struct MmSharedFile {
    uint32_t present;           /* 0: the VM has none */
    uint32_t tier;              /* its number */
    uint8_t storage[MM_UUID_LEN];
    uint8_t id[MM_UUID_LEN];
    uint8_t key[MM_COOKIE_LEN];
    char file[MM_FILE_LEN];     /* its name, unless it is released */
    uint64_t epoch;             /* of the migration that it is lent for, or 0 */
} MmSharedFile;

/* Consecutive places in a tier */
typedef struct MmPlaceRange {
    uint32_t tier;              /* its number */
    uint32_t nr;                /* 0: none */
    uint64_t place;             /* the first one */
} MmPlaceRange;

/* Stores that can be under way at once. */
#define MM_STORING 16
/* Stores whose places are kept although they have failed. */
#define MM_QUARANTINE 64

typedef struct MmState {
    MmIdentity id;
    char name[MM_NAME_LEN];
    uint64_t limit;             /* resident limit in bytes; survives pagers */
    uint64_t default_limit;     /* the manager's, for regions without one */
    uint64_t operator_limit;    /* what an operator has said, in bytes */
    uint32_t limit_set;         /* 1: that counts, and not what regions say */
    uint32_t encrypted;         /* 1: the VM has a key, and hands it back */
    uint64_t epoch;             /* counts the pagers that have served */
    uint32_t pinned;            /* 1: there are places that must be kept */
    uint32_t quarantine_next;   /* the oldest one */
    MmSharedFile shared;        /* of this VM, where PIN finds places */
    MmPlaceRange storing[MM_STORING];       /* see pager/reclaim/quarantine.h */
    MmPlaceRange quarantine[MM_QUARANTINE];
    MmStats stats;
} MmState;

#define MM_STATE_SIZE 4096

/*
 * Where the content of a page is: the low bits of an entry of the page map.
 * What the states mean and who may change them is in page-map.h; QEMU looks for
 * pages that are not in memory, and takes what it sees for a hint.
 */
typedef enum MmPageState {
    MM_PAGE_NEVER,
    MM_PAGE_SWAPPED,
    MM_PAGE_FILLING,
    MM_PAGE_RESIDENT,
    MM_PAGE_CANDIDATE,
    MM_PAGE_MAPPING,
    MM_PAGE_WRITEBACK,
    MM_PAGE_DROPPING,
    MM_PAGE_DISCARDING,
    MM_PAGE_LOST,
    MM_PAGE__MAX
} MmPageState;

static inline MmPageState mm_entry_state(uint64_t entry)
{
    return entry & 0xf;
}

/* First page of a page map memfd; entries and checksums follow. */
typedef struct MmMapHeader {
    MmIdentity id;
    uint32_t region;            /* id */
    uint32_t page_size;
    uint64_t nr_pages;
    uint64_t entries_offset;    /* MM_MAP_HEADER_SIZE: entries[nr_pages] */
    uint64_t checksums_offset;  /* uint32_t checksums[nr_pages] */
    uint64_t total_size;        /* of the memfd */
    uint64_t limit;             /* the region's share of the VM's limit */
    uint32_t on_top;            /* 1: on top of what the operator has said */
    uint32_t pad;
    uint64_t seed;              /* of the checksums */
    char idstr[MM_IDSTR_LEN];
} MmMapHeader;

#define MM_MAP_HEADER_SIZE 4096

/* Mappings for DMA are counted per this many bytes of a region. */
#define MM_DMA_CHUNK (2 * 1024 * 1024)

/*
 * What QEMU wants done to pages travels through a ring of slots.  A slot's
 * state is a futex word (shared, not private) and changes by compare-and-swap
 * only:
 *
 *   FREE -> POSTED       QEMU, after it has written the request; then kicks
 *   POSTED -> TAKEN      pager, before it reads the request
 *   TAKEN -> DONE        pager, when it is executed; then wakes
 *   DONE -> FREE         QEMU
 *   POSTED -> FREE       QEMU gives up: the request is never executed
 *   TAKEN -> FREE        QEMU gives up, legal only after EOF on the
 *                        connection, that is when no pager can execute it
 *
 * A new pager executes what it finds TAKEN before what it finds POSTED.
 */
typedef enum MmRingState {
    MM_RING_FREE,
    MM_RING_POSTED,
    MM_RING_TAKEN,
    MM_RING_DONE,
} MmRingState;

/*
 * DISCARD: the pages read as zeros from now on.
 *
 * OVERWRITE: pages that are NEVER or SWAPPED get their content from pages of
 * the buffer behind the slots, and what they had is forgotten; other pages are
 * left alone.
 *
 * LOOK: where the pages' content is goes to one page of the buffer, a byte for
 * each (MmLook).  What is not looked at keeps the byte that QEMU has put there.
 *
 * FETCH: the content of those pages that QEMU has a bit for, and that are
 * SWAPPED or about to be, is copied to pages of the buffer, and they stay where
 * they are.
 *
 * STORE: as OVERWRITE, but the content goes where swapped pages are, and none
 * of it to memory.  Pages that are not stored may have lost what they had:
 * whoever asks writes to them anyway.
 *
 * PIN: where pages are that are in the VM's shared file goes to the buffer
 * (MmPlaces), and stays there whatever becomes of the page, until UNPIN.
 *
 * ADOPT: pages that are NEVER become SWAPPED, and are at these places, in a
 * tier that was lent to the VM.  Those that are not are not known afterwards.
 * The seed is the region's from now on, which it can only be if nothing of it
 * is in memory or in a tier by another one.
 *
 * WAKE_READ: which blocks of MM_RING_WAKE_BLOCK pages the guest is likely to
 * want when it wakes up goes to one page of the buffer, a bit for each, the
 * lowest first.  WAKE_WRITE: the buffer says which.  The range begins with a
 * block, and bit 0 of what has been done says that it has been.
 */
typedef enum MmRingKind {
    MM_RING_DISCARD,
    MM_RING_OVERWRITE,
    MM_RING_LOOK,
    MM_RING_FETCH,
    MM_RING_STORE,
    MM_RING_PIN,
    MM_RING_ADOPT,
    MM_RING_WAKE_READ,
    MM_RING_WAKE_WRITE,
} MmRingKind;

/* Where a page is, and what its content has to be */
typedef struct MmPlace {
    uint64_t place;             /* in the file, in pages after the first one */
    uint32_t checksum;
    uint16_t version;           /* part of what is checked */
    uint8_t tier;               /* number */
    uint8_t known;              /* 0: it is not there */
} MmPlace;

typedef struct MmPlaces {
    uint64_t seed;              /* of the region's checksums */
    uint64_t pad;
    MmPlace page[];             /* of the request's range */
} MmPlaces;

/* What LOOK finds. */
typedef enum MmLook {
    MM_LOOK_CONTENT,            /* in memory, on the way, or not known */
    MM_LOOK_NEVER,              /* never populated, or discarded: zero */
    MM_LOOK_ZERO,               /* swapped out as zeros */
    MM_LOOK_SWAPPED,            /* swapped out: FETCH may have it */
    MM_LOOK_IDLE,               /* next to be swapped out; FETCH likewise */
    MM_LOOK__MAX
} MmLook;

#define MM_RING_CONTENT_MAX 32      /* pages of OVERWRITE, FETCH, STORE */
#define MM_RING_LOOK_MAX 4096       /* pages of LOOK */
#define MM_RING_PLACES_MAX 2047     /* pages of PIN, ADOPT */
#define MM_RING_WAKE_BLOCK 32       /* pages */
/* Pages of WAKE_READ, WAKE_WRITE */
#define MM_RING_WAKE_MAX (MM_RING_WAKE_BLOCK * 8 * 4096)
/* Of the buffer, for so many pages' places */
#define MM_RING_PLACES_PAGES(nr) \
    ((sizeof(MmPlaces) + (nr) * sizeof(MmPlace) + 4095) / 4096)
/* Requests under way at once; others end without anything done */
#define MM_RING_FETCHES 16
#define MM_RING_STORES 4
#define MM_RING_BUFFER_PAGES 1024

typedef struct MmRingSlot {
    uint32_t state;             /* MmRingState, futex word */
    MmRange range;
    uint16_t kind;              /* MmRingKind */
    uint16_t buffer;            /* page of it for the first page, or answer */
    uint32_t pages;             /* bit per page; before DONE: done with it */
} MmRingSlot;

#define MM_RING_SLOTS 256

typedef struct MmRing {
    MmRingSlot slots[MM_RING_SLOTS];
    uint8_t buffer[MM_RING_BUFFER_PAGES][4096];
} MmRing;

QEMU_BUILD_BUG_ON(sizeof(MmState) > MM_STATE_SIZE);
QEMU_BUILD_BUG_ON(sizeof(MmMapHeader) > MM_MAP_HEADER_SIZE);
QEMU_BUILD_BUG_ON(offsetof(MmRing, buffer) % 4096);
QEMU_BUILD_BUG_ON(MM_RING_LOOK_MAX > sizeof_field(MmRing, buffer[0]));

#endif
