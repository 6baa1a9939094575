/*
 * qemu-memory-manager: its configuration file
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MEMORY_MANAGER_CONFIG_FILE_H
#define MEMORY_MANAGER_CONFIG_FILE_H

#include "options.h"

/**
 * mm_config_read: take options from a file
 *
 * @opts: as the defaults are; what the file says takes their place
 * @path: of the file
 *
 * Sections as in QEMU's -readconfig: [manager], whose keys are long options,
 * and one [tier "NAME"] per tier. Values that are wrong end the program as
 * they do on the command line. Returns false and sets @errp if the file cannot
 * be read, or is none of ours.
 */
bool mm_config_read(MmOptions *opts, const char *path, Error **errp);

#endif
