/*
 * qemu-memory-manager: the run directory
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Main thread only.
 */
#ifndef MEMORY_MANAGER_RUNDIR_H
#define MEMORY_MANAGER_RUNDIR_H

#include "qemu/uuid.h"

typedef struct MmRunDir {
    char *path;
    int lock_fd;                /* manager.lock, held while we run */
} MmRunDir;

/**
 * mm_rundir_open: create the directory if needed, check it and lock it
 *
 * @dir: filled in
 * @path: absolute
 *
 * Returns false if another manager has it, or if others could replace what is
 * in it.
 */
bool mm_rundir_open(MmRunDir *dir, const char *path, Error **errp);

/** mm_rundir_file: path of a VM's file, with @suffix; free with g_free(). */
char *mm_rundir_file(const MmRunDir *dir, const QemuUUID *uuid,
                     const char *suffix);

#define MM_SUFFIX_LOCK ".lock"
#define MM_SUFFIX_RECORD ".vm"
#define MM_SUFFIX_SOCKET ".sock"

/**
 * mm_listen: make a listening unix socket, replacing a stale one
 *
 * @path: where
 * @type: SOCK_STREAM or SOCK_SEQPACKET
 * @mode: access mode, in force from the first moment on
 *
 * Returns a non-blocking descriptor, or -1.
 */
int mm_listen(const char *path, int type, mode_t mode, Error **errp);

/**
 * mm_connect: connect to a SOCK_SEQPACKET socket without waiting
 *
 * Returns a non-blocking descriptor, or -errno.
 */
int mm_connect(const char *path);

#endif
