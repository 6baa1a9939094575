/*
 * qemu-memory-manager: trouble that a pager reports
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Main thread only.
 */
#ifndef MEMORY_MANAGER_CONDITION_H
#define MEMORY_MANAGER_CONDITION_H

#include "qemu/timer.h"
#include "managed-memory/proto.h"

struct MmVM;

/* Conditions of which the last one tells how things are. */
typedef enum MmTopic {
    MM_TOPIC_IO,
    MM_TOPIC_PRESSURE,
    MM_TOPIC_PAGE_LOST,
    MM_TOPIC__MAX
} MmTopic;

typedef struct MmTopicState {
    int64_t since_ms;           /* beginning of the period */
    unsigned reported;          /* in this period */
    unsigned withheld;          /* in this period, @last among them */
    MmMsgEvent last;
} MmTopicState;

typedef struct MmConditions {
    QEMUTimer *timer;
    MmTopicState topics[MM_TOPIC__MAX];
} MmConditions;

void mm_condition_init(struct MmVM *vm);
void mm_condition_clear(struct MmVM *vm);

/** mm_condition_report: log an event of a pager, and tell the QMP clients. */
void mm_condition_report(struct MmVM *vm, const MmMsgEvent *event);

/**
 * mm_condition_refused: log that a QEMU has not got what it asked for
 *
 * @who: asked
 * @why: as QEMU is told; may come from a pager
 */
void mm_condition_refused(const char *who, const char *why);

/** mm_condition_refused_vm: the same for a VM that is known. */
void mm_condition_refused_vm(const struct MmVM *vm, const char *why);

#endif
