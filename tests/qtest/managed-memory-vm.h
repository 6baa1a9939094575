/*
 * Managed memory qtests: VMs and what is in their memory
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Memory is filled with pages of all kinds that the pager treats differently:
 * every fourth page is zero, every fourth consists of one repeated word, and
 * the others have words that tell page and seed, so that a page that is stale
 * or in the wrong place is found.
 */
#ifndef TESTS_MANAGED_MEMORY_VM_H
#define TESTS_MANAGED_MEMORY_VM_H

#include "libqtest.h"
#include "managed-memory-host.h"

#define MM_PAGE 4096
#define MM_MIB ((uint64_t)1024 * 1024)

/**
 * mm_backend: arguments of QEMU that make a managed backend
 *
 * @options: further options that start with a comma, or ""
 *
 * Caller frees the result.
 */
char *mm_backend(const MmHost *host, const char *id, unsigned mib,
                 const char *options);

/**
 * mm_start: start a q35 machine with 32 MiB of managed memory
 *
 * What lies between MM_RAM_START and MM_RAM_END is ordinary RAM. The backend
 * is "mm0", the VM's name is "vm".
 *
 * @options: further options of the backend, as for mm_backend()
 * @args: further arguments of QEMU
 */
QTestState *mm_start(MmHost *host, const char *options, const char *args);

#define MM_RAM_START (2 * MM_MIB)
#define MM_RAM_END (32 * MM_MIB)
#define MM_RAM_SIZE (MM_RAM_END - MM_RAM_START)

/**
 * mm_stop: end QEMU, and see that the manager forgets it
 */
void mm_stop(QTestState *qts, MmHost *host);

/** mm_fill: write pages that @seed determines to [@start, @end) */
void mm_fill(QTestState *qts, uint64_t start, uint64_t end, uint32_t seed);

/** mm_check: see that [@start, @end) is what mm_fill() has written there */
void mm_check(QTestState *qts, uint64_t start, uint64_t end, uint32_t seed);

/** mm_check_zero: see that [@start, @end) is zero */
void mm_check_zero(QTestState *qts, uint64_t start, uint64_t end);

/** mm_pattern: what mm_fill() writes to [@start, @end); free the result */
uint8_t *mm_pattern(uint64_t start, uint64_t end, uint32_t seed);

/** mm_assert_same: fail at the first difference of two buffers */
void mm_assert_same(const uint8_t *is, const uint8_t *should, size_t len,
                    uint64_t addr);

/**
 * mm_qmp_error: run a command that has to fail
 *
 * @fmt: the command, as for qtest_qmp()
 *
 * Returns the error's description; free it.
 */
char *mm_qmp_error(QTestState *qts, const char *fmt, ...) G_GNUC_PRINTF(2, 3);

/**
 * mm_assert_text: fail unless a text contains all of some words
 *
 * @words: texts separated by '|', each has to occur
 */
void mm_assert_text(const char *text, const char *words);

/** mm_qmp: run a command that has to succeed and return what it returns */
QDict *mm_qmp(QTestState *qts, const char *fmt, ...) G_GNUC_PRINTF(2, 3);

/** mm_query: query-managed-memory */
QDict *mm_query(QTestState *qts);

/** mm_query_usage: a number of query-managed-memory's "usage" */
uint64_t mm_query_usage(QTestState *qts, const char *member);

/** mm_query_dma_held: bytes held for DMA, all regions together */
uint64_t mm_query_dma_held(QTestState *qts);

/** mm_query_status: wait until "status" of query-managed-memory is this */
void mm_wait_status(QTestState *qts, const char *status);

/**
 * mm_run_failing: run QEMU with arguments that it must refuse
 *
 * @args: arguments, separated by spaces
 *
 * Fails if it does not end by itself with status 1, and soon. Returns what it
 * has printed; free it.
 */
char *mm_run_failing(const char *args);

/**
 * mm_run_failing_in: the same, with words before QEMU's command
 *
 * @prefix: program and arguments that execute the rest of the line
 */
char *mm_run_failing_in(const char *prefix, const char *args);

/* Reading guest memory in a thread, which may have to wait for a page */
typedef struct MmReader MmReader;

/**
 * mm_reader_start: begin to mm_check() in a thread
 *
 * Until mm_reader_finish() nobody else may use the qtest protocol of @qts;
 * its QMP monitor can be used.
 */
MmReader *mm_reader_start(QTestState *qts, uint64_t start, uint64_t end,
                          uint32_t seed);

/** mm_reader_waits: see that the reader does not come to an end meanwhile */
void mm_reader_waits(MmReader *reader, int ms);

/** mm_reader_finish: wait until all has been read */
void mm_reader_finish(MmReader *reader);

#endif
