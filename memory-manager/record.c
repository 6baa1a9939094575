/*
 * qemu-memory-manager: the record of a VM that outlives the manager
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * It is one small structure, written by one pwrite() to a file that only the
 * manager's user can read: a manager that is killed leaves it old or new. The
 * run directory does not outlive the host, so nothing is synced.
 */
#include "qemu/osdep.h"
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
        rec->version != MM_RECORD_VERSION ||
        !memchr(rec->name, '\0', sizeof(rec->name))) {
        error_setg(errp, "%s is not a record of this version", path);
        return false;
    }
    return true;
}

int mm_record_lock(const char *path)
{
    int fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    int ret;

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
