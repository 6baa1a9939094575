/*
 * qemu-memory-manager: tiers that are a block device per VM
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The manager opens the devices: pagers are in the VM's cgroup, which may not
 * be allowed to.  The kernel lets one open a device exclusively; that one is
 * the VM's QEMU, which gets the descriptor from the first pager and keeps it as
 * long as it lives.  So neither a mount nor another VM can have the device,
 * whatever becomes of pagers and managers.
 *
 * To open a device of some drivers can wait, and the manager with it, while the
 * device's errors are being handled (SCSI); device mapper, NVMe, RBD and virtio
 * do not wait.
 */
#include "qemu/osdep.h"
#include <sys/stat.h>
#include "qapi/error.h"
#include "tier-device.h"

/*
 * It comes from QEMU, which may be hostile, and must not lead elsewhere.  One
 * that has no room for more may have been cut, and be another VM's.
 */
static bool name_will_do(const char *name)
{
    const char *p;

    if (strlen(name) >= MM_NAME_LEN - 1) {
        return false;
    }

    for (p = name; *p; p++) {
        if (!g_ascii_isalnum(*p) && !strchr("+-_.", *p)) {
            return false;
        }
    }
    return *name && *name != '.';
}

char *mm_device_path(const char *path, const char *vm_name, Error **errp)
{
    g_auto(GStrv) parts = g_strsplit(path, MM_DEVICE_NAME, -1);

    if (parts[0] && parts[1] && !name_will_do(vm_name)) {
        error_setg(errp, "the VM's name, '%s', is part of the path of its "
                   "device, %s; start QEMU with -name and 1 to %d letters, "
                   "digits, '+', '-', '_' and '.', not first", vm_name, path,
                   MM_NAME_LEN - 2);
        return NULL;
    }
    return g_strjoinv(vm_name, parts);
}

bool mm_device_find(MmRecordTier *tier, const char *vm_name, Error **errp)
{
    g_autofree char *path = mm_device_path(tier->path, vm_name, errp);
    struct stat st;

    if (!path) {
        return false;
    }
    if (stat(path, &st)) {
        error_setg_errno(errp, errno, "tier '%s' has no device %s for this "
                         "VM, make it first (lvcreate, for instance)",
                         tier->conf.name, path);
        return false;
    }
    if (!S_ISBLK(st.st_mode)) {
        error_setg(errp, "tier '%s': %s is no block device; for files in a "
                   "directory there are tiers of type 'file'",
                   tier->conf.name, path);
        return false;
    }
    tier->conf.device = st.st_rdev;
    return true;
}

static bool is_that_device(int fd, const MmRecordTier *tier)
{
    struct stat st;

    return fstat(fd, &st) == 0 && S_ISBLK(st.st_mode) &&
           st.st_rdev == tier->conf.device;
}

/*
 * The same node, whatever the path leads to by now.  With this access mode it
 * can be neither read nor written: QEMU keeps it.
 */
static int claim_device(int fd)
{
    g_autofree char *path = g_strdup_printf("/proc/self/fd/%d", fd);

    return open(path, O_ACCMODE | O_EXCL | O_CLOEXEC);
}

unsigned mm_device_open(const MmRecordTier *tier, const char *vm_name,
                        bool claim, int fds[2], Error **errp)
{
    g_autofree char *path = mm_device_path(tier->path, vm_name, errp);

    if (!path) {
        return 0;
    }
    fds[0] = open(path, O_RDWR | O_DIRECT | O_CLOEXEC);
    if (fds[0] < 0) {
        error_setg_errno(errp, errno, "cannot open %s, the device of tier '%s'",
                         path, tier->conf.name);
        return 0;
    }
    if (!is_that_device(fds[0], tier)) {
        error_setg(errp, "%s, in tier '%s', is another device by now", path,
                   tier->conf.name);
        close(fds[0]);
        return 0;
    }
    fds[1] = claim_device(fds[0]);
    if (fds[1] < 0 && claim) {
        error_setg_errno(errp, errno, "cannot have %s, the device of tier "
                         "'%s', for this VM alone%s", path, tier->conf.name,
                         errno == EBUSY ? ": it is mounted, or another VM "
                         "has it" : "");
        close(fds[0]);
        return 0;
    }
    return fds[1] < 0 ? 1 : 2;
}
