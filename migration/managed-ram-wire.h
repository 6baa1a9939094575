/*
 * Managed memory: records of the migration section "managed-ram"
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The format is in docs/interop/managed-memory.rst.  Nothing here knows guest
 * memory: what comes from the stream is hostile, and is checked for what can
 * be checked without it.
 */
#ifndef MIGRATION_MANAGED_RAM_WIRE_H
#define MIGRATION_MANAGED_RAM_WIRE_H

#include "managed-memory/shared.h"
#include "sysemu/managed-memory-handover.h"

#define MANAGED_RAM_VERSION 4
#define MANAGED_RAM_PAGE_SIZE 4096
#define MANAGED_RAM_HEADER_LEN 8
/* Of a payload: bytes that no record has more of */
#define MANAGED_RAM_PAYLOAD_MAX (256 * 1024)
#define MANAGED_RAM_NAME_MAX 255
/* Of one record */
#define MANAGED_RAM_BLOCKS_MAX 128
#define MANAGED_RAM_RUNS_MAX 4000
#define MANAGED_RAM_DATA_MAX 32 /* pages */
#define MANAGED_RAM_PLACES_MAX MM_RING_PLACES_MAX /* pages */
#define MANAGED_RAM_WAKE_MAX MM_RING_WAKE_MAX /* pages */
/* What a page of one value throughout repeats, in bytes */
#define MANAGED_RAM_VALUE_LEN 8

typedef enum ManagedRamType {
    MANAGED_RAM_END,
    MANAGED_RAM_HELLO,
    MANAGED_RAM_NEVER,
    MANAGED_RAM_ZERO,
    MANAGED_RAM_DATA,
    MANAGED_RAM_SYNC,
    MANAGED_RAM_PLACES,
    MANAGED_RAM_FILL,
    MANAGED_RAM_ROOM,
    MANAGED_RAM_WAKE,
    MANAGED_RAM_ENCRYPTED,
    MANAGED_RAM__MAX
} ManagedRamType;

typedef struct ManagedRamHeader {
    uint16_t type;              /* ManagedRamType, or one that is not known */
    bool skippable;             /* by who does not know it */
    uint32_t len;               /* of the payload in bytes */
} ManagedRamHeader;

typedef struct ManagedRamBlock {
    char name[MANAGED_RAM_NAME_MAX + 1];
    uint64_t size;              /* bytes in use */
    uint64_t seed;              /* of its pages' checksums; 0: no PLACES */
} ManagedRamBlock;

/* Pages of MANAGED_RAM_PAGE_SIZE bytes, at least one */
typedef struct ManagedRamRun {
    uint64_t first;
    uint64_t nr;
} ManagedRamRun;

/** managed_ram_put_end: append an END record to @out. */
void managed_ram_put_end(GByteArray *out);

/** managed_ram_put_sync: append a SYNC record to @out. */
void managed_ram_put_sync(GByteArray *out);

/**
 * managed_ram_put_hello: append a HELLO
 *
 * @nr: at most MANAGED_RAM_BLOCKS_MAX
 * @file: what PLACES are in, present or not
 */
void managed_ram_put_hello(GByteArray *out, const ManagedRamBlock *blocks,
                           unsigned nr, const MmSharedFile *file);

/** managed_ram_put_encrypted: append an ENCRYPTED record to @out. */
void managed_ram_put_encrypted(GByteArray *out);

/** managed_ram_put_room: append a ROOM record to @out. */
void managed_ram_put_room(GByteArray *out, const ManagedMemoryNeed *need);

/**
 * managed_ram_put_runs: append a NEVER or ZERO record
 *
 * @block: index in the HELLO
 * @nr: 1 to MANAGED_RAM_RUNS_MAX
 */
void managed_ram_put_runs(GByteArray *out, ManagedRamType type, uint32_t block,
                          const ManagedRamRun *runs, unsigned nr);

/**
 * managed_ram_put_data: append a DATA record
 *
 * @block: index in the HELLO
 * @run: at most MANAGED_RAM_DATA_MAX pages
 * @content: as many
 */
void managed_ram_put_data(GByteArray *out, uint32_t block,
                          const ManagedRamRun *run, const uint8_t *content);

/**
 * managed_ram_put_fill: append a FILL record
 *
 * @block: index in the HELLO
 * @run: at most MANAGED_RAM_DATA_MAX pages
 * @value: what they consist of, as it is in memory
 */
void managed_ram_put_fill(GByteArray *out, uint32_t block,
                          const ManagedRamRun *run,
                          const uint8_t value[MANAGED_RAM_VALUE_LEN]);

/**
 * managed_ram_put_places: append a PLACES record
 *
 * @block: index in the HELLO
 * @run: at most MANAGED_RAM_PLACES_MAX pages
 * @places: of all of them, all known
 */
void managed_ram_put_places(GByteArray *out, uint32_t block,
                            const ManagedRamRun *run, const MmPlace *places);

/**
 * managed_ram_put_wake: append a WAKE record
 *
 * @block: index in the HELLO
 * @run: at most MANAGED_RAM_WAKE_MAX pages; begins with a block of
 *       MM_RING_WAKE_BLOCK
 * @blocks: a bit for each of these
 */
void managed_ram_put_wake(GByteArray *out, uint32_t block,
                          const ManagedRamRun *run, const uint8_t *blocks);

/** managed_ram_get_header: of MANAGED_RAM_HEADER_LEN bytes at @buf. */
bool managed_ram_get_header(const uint8_t *buf, ManagedRamHeader *header,
                            Error **errp);

/**
 * managed_ram_get_hello: the payload of a HELLO
 *
 * @blocks: MANAGED_RAM_BLOCKS_MAX, filled in; all names differ
 * @file: filled in: where PLACES are, if present
 *
 * Returns how many blocks there are, or -1.
 */
int managed_ram_get_hello(const uint8_t *buf, uint32_t len,
                          ManagedRamBlock *blocks, MmSharedFile *file,
                          Error **errp);

/** managed_ram_get_room: the payload of ROOM. */
bool managed_ram_get_room(const uint8_t *buf, uint32_t len,
                          ManagedMemoryNeed *need, Error **errp);

/**
 * managed_ram_get_runs: the payload of NEVER or ZERO
 *
 * @blocks: of the HELLO, @nr_blocks of them
 * @block: filled in: index of the one that all runs are in, within its size
 * @runs: MANAGED_RAM_RUNS_MAX, filled in
 *
 * Returns how many runs there are, or -1.
 */
int managed_ram_get_runs(const uint8_t *buf, uint32_t len,
                         const ManagedRamBlock *blocks, unsigned nr_blocks,
                         uint32_t *block, ManagedRamRun *runs, Error **errp);

/**
 * managed_ram_get_data: the payload of DATA
 *
 * @blocks, @nr_blocks, @block: as managed_ram_get_runs()
 * @run: filled in: at most MANAGED_RAM_DATA_MAX pages
 *
 * Returns the content of these pages, within @buf, or NULL.
 */
const uint8_t *managed_ram_get_data(const uint8_t *buf, uint32_t len,
                                    const ManagedRamBlock *blocks,
                                    unsigned nr_blocks, uint32_t *block,
                                    ManagedRamRun *run, Error **errp);

/**
 * managed_ram_get_fill: the payload of FILL
 *
 * @blocks, @nr_blocks, @block: as managed_ram_get_runs()
 * @run: filled in: at most MANAGED_RAM_DATA_MAX pages
 *
 * Returns their value, MANAGED_RAM_VALUE_LEN bytes within @buf, or NULL.
 */
const uint8_t *managed_ram_get_fill(const uint8_t *buf, uint32_t len,
                                    const ManagedRamBlock *blocks,
                                    unsigned nr_blocks, uint32_t *block,
                                    ManagedRamRun *run, Error **errp);

/**
 * managed_ram_get_places: the payload of PLACES
 *
 * @blocks, @nr_blocks, @block: as managed_ram_get_runs()
 * @run: filled in: at most MANAGED_RAM_PLACES_MAX pages
 * @places: MANAGED_RAM_PLACES_MAX, filled in but for the tier
 */
bool managed_ram_get_places(const uint8_t *buf, uint32_t len,
                            const ManagedRamBlock *blocks, unsigned nr_blocks,
                            uint32_t *block, ManagedRamRun *run,
                            MmPlace *places, Error **errp);

/**
 * managed_ram_get_wake: the payload of WAKE
 *
 * @blocks, @nr_blocks, @block: as managed_ram_get_runs()
 * @run: filled in: at most MANAGED_RAM_WAKE_MAX pages, as in put
 *
 * Returns the bits, within @buf, or NULL.
 */
const uint8_t *managed_ram_get_wake(const uint8_t *buf, uint32_t len,
                                    const ManagedRamBlock *blocks,
                                    unsigned nr_blocks, uint32_t *block,
                                    ManagedRamRun *run, Error **errp);

#endif
