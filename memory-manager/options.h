/*
 * qemu-memory-manager: what the command line says
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MEMORY_MANAGER_OPTIONS_H
#define MEMORY_MANAGER_OPTIONS_H

#include "tier-conf.h"

/*
 * Fixed once the command line is parsed, but for the tiers, which tiers.c
 * changes; paths are absolute.
 */
typedef struct MmOptions {
    char *run_dir;
    char *qmp_path;
    char *pager_path;
    char *pid_file;
    char *log_file;
    mode_t attach_mode;
    gid_t attach_gid;
    uint64_t limit;             /* bytes, or MM_LIMIT_NONE */
    uint32_t max_vms_per_user;
    bool pager_in_vm_cgroup;
    uint32_t wss_interval_s;    /* 0: working sets are not estimated */
    MmTierConf tiers[MM_MAX_TIERS];
    unsigned nr_tiers;
} MmOptions;

/**
 * mm_options_parse_early: what has to be known before there are threads
 *
 * Prints and exits for --help and --version. Returns whether to daemonize.
 */
bool mm_options_parse_early(int argc, char **argv);

/**
 * mm_options_set: as the long option @name on the command line
 *
 * Returns false if there is none that takes a value. Prints and exits if the
 * value is wrong.
 */
bool mm_options_set(MmOptions *opts, const char *name, const char *value);

/**
 * mm_options_parse: parse the configuration file and the command line
 *
 * @opts: filled in, with defaults for what is not given
 *
 * Prints and exits on errors, for which the monitor has to be set up. Trace
 * and log options take effect at once.
 */
void mm_options_parse(MmOptions *opts, int argc, char **argv);

#endif
