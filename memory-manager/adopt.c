/*
 * qemu-memory-manager: VMs of a manager that ran before
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Records whose QEMU or pager still runs become VMs again; what is left of
 * others is removed. Nothing is asked here: a pager that hangs must not keep
 * the manager from starting.
 */
#include "qemu/osdep.h"
#include <sys/stat.h>
#include "qapi/error.h"
#include "qemu/error-report.h"
#include "record.h"
#include "vm.h"

static bool parse_name(const char *name, const char *suffix, QemuUUID *uuid)
{
    g_autofree char *text = NULL;

    if (!g_str_has_suffix(name, suffix)) {
        return false;
    }
    text = g_strndup(name, strlen(name) - strlen(suffix));
    return qemu_uuid_parse(text, uuid) == 0;
}

/* The manager was killed before it has written a record: there is no pager. */
static bool is_empty(const char *path)
{
    struct stat st;

    return lstat(path, &st) == 0 && S_ISREG(st.st_mode) && !st.st_size;
}

static void adopt_record(MmManager *mgr, const QemuUUID *uuid)
{
    g_autofree char *path = mm_rundir_file(&mgr->dir, uuid, MM_SUFFIX_RECORD);
    Error *err = NULL;
    MmRecord rec;

    if (is_empty(path)) {
        unlink(path);
        return;
    }
    if (mm_record_read(path, &rec, &err) &&
        memcmp(rec.uuid, uuid->data, MM_UUID_LEN)) {
        error_setg(&err, "%s is the record of another VM", path);
    }
    if (err) {
        warn_reportf_err(err, "a VM cannot be found again: ");
        return;
    }
    mm_vm_adopt(mgr, &rec);
}

/* A socket without a VM can only be a remainder. */
static void remove_stale_socket(MmManager *mgr, const QemuUUID *uuid)
{
    if (!mm_vm_by_uuid(mgr, uuid->data)) {
        g_autofree char *path = mm_rundir_file(&mgr->dir, uuid,
                                               MM_SUFFIX_SOCKET);

        unlink(path);
    }
}

/* Nor can a lock, unless a pager holds it whose record is damaged. */
static void remove_stale_lock(MmManager *mgr, const QemuUUID *uuid)
{
    g_autofree char *path = mm_rundir_file(&mgr->dir, uuid, MM_SUFFIX_LOCK);
    int lock;

    if (mm_vm_by_uuid(mgr, uuid->data)) {
        return;
    }
    lock = mm_lock_take(path);
    if (lock >= 0) {
        unlink(path);
        close(lock);
    }
}

static void for_each_file(MmManager *mgr, const char *suffix,
                          void (*fn)(MmManager *mgr, const QemuUUID *uuid))
{
    GDir *dir = g_dir_open(mgr->dir.path, 0, NULL);
    const char *name;
    QemuUUID uuid;

    while (dir && (name = g_dir_read_name(dir))) {
        if (parse_name(name, suffix, &uuid)) {
            fn(mgr, &uuid);
        }
    }
    if (dir) {
        g_dir_close(dir);
    }
}

void mm_adopt_vms(MmManager *mgr)
{
    for_each_file(mgr, MM_SUFFIX_RECORD, adopt_record);
    for_each_file(mgr, MM_SUFFIX_SOCKET, remove_stale_socket);
    for_each_file(mgr, MM_SUFFIX_LOCK, remove_stale_lock);
}
