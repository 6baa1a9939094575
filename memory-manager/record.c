/*
 * qemu-memory-manager: record and lock of a VM, which outlive the manager
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The record is one small structure, written by one pwrite() to a file that
 * only the manager's user can read: a manager that is killed leaves it old or
 * new. The run directory does not outlive the host, so nothing is synced.
 *
 * A restarted manager believes the record, so no pager may get at it. The lock
 * is another file, and of a kind that cannot hold anything: the pager needs a
 * description that is open for writing, and could write to a regular file, or
 * fill the file system that it is in. A pipe takes a lock as any file, but has
 * no size; what is written to it stays in a buffer that ends with the pager.
 */
#include "qemu/osdep.h"
#include <sys/stat.h>
#include "qapi/error.h"
#include "record.h"

bool mm_record_write(const char *path, const MmRecord *rec, Error **errp)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    bool ok;

    if (fd < 0) {
        error_setg_errno(errp, errno, "cannot open %s", path);
        return false;
    }
    errno = 0;
    ok = pwrite(fd, rec, sizeof(*rec), 0) == sizeof(*rec);
    if (!ok) {
        error_setg_errno(errp, errno ?: ENOSPC, "cannot write %s", path);
    }
    close(fd);
    return ok;
}

/* A start time of 0 would stand for any process that has the PID now. */
static bool names_processes(const MmRecord *rec)
{
    return rec->qemu_pid && rec->qemu_start &&
           (!rec->pager_pid || rec->pager_start);
}

static bool names_tiers(const MmRecord *rec)
{
    uint32_t i;

    for (i = 0; i < MIN(rec->nr_tiers, MM_MAX_TIERS); i++) {
        const MmRecordTier *tier = &rec->tiers[i];

        if (tier->conf.number >= MM_MAX_TIERS ||
            tier->conf.kind >= MM_TIER_KIND__MAX ||
            !memchr(tier->conf.name, '\0', MM_NAME_LEN) ||
            !memchr(tier->conf.file, '\0', MM_FILE_LEN) ||
            !memchr(tier->path, '\0', MM_RECORD_PATH_LEN)) {
            return false;
        }
    }
    return i && i == rec->nr_tiers;
}

bool mm_record_read(const char *path, MmRecord *rec, Error **errp)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    ssize_t n;

    if (fd < 0) {
        error_setg_errno(errp, errno, "cannot open %s", path);
        return false;
    }
    n = pread(fd, rec, sizeof(*rec), 0);
    close(fd);
    if (n != sizeof(*rec) || rec->magic != MM_RECORD_MAGIC ||
        rec->version != MM_RECORD_VERSION || !names_processes(rec) ||
        !names_tiers(rec) ||
        !memchr(rec->name, '\0', sizeof(rec->name))) {
        error_setg(errp, "%s is not a record of this version", path);
        return false;
    }
    return true;
}

int mm_lock_take(const char *path)
{
    int fd, ret;

    if (mkfifo(path, 0600) && errno != EEXIST) {
        return -errno;
    }
    fd = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0) {
        return -errno;
    }
    ret = qemu_lock_fd(fd, 0, 0, true);
    if (ret < 0) {
        close(fd);
        return ret == -EACCES ? -EAGAIN : ret;
    }
    return fd;
}

MmRecordTier *mm_record_tier(MmRecord *rec, const char *name)
{
    uint32_t i;

    for (i = 0; i < rec->nr_tiers; i++) {
        if (g_str_equal(rec->tiers[i].conf.name, name)) {
            return &rec->tiers[i];
        }
    }
    return NULL;
}
