/*
 * qemu-memory-manager: VMs' files on storage that other hosts see
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A file that another host is to open has to have a name, and does not vanish
 * with its VM.  Its name says whose it is:
 *
 *   UUID.OWNER    UUID: made up for this file; OWNER: the manager that has to
 *                 remove it; r and a number, if it was released (handover.c)
 *
 * The owner removes it when its VM has ended, and nobody else ever does: what
 * a host has left behind that does not come back is for people to remove.
 * Host and run directory make the owner, so a manager that is started again
 * knows its own.  In case two hosts are so alike that they take each other's
 * files for their own: a pager holds a lock on its file, and one that is locked
 * is left alone.
 *
 * Who knows the file's key, which is in its first page, may have it; other
 * users cannot read that.
 */
#include "qemu/osdep.h"
#include <sys/random.h>
#include "qapi/error.h"
#include "qemu/cutils.h"
#include "qemu/error-report.h"
#include "qemu/uuid.h"
#include "shared-file.h"
#include "vm.h"

#define STORAGE_NAME ".qemu-memory-storage"
#define OWNER_LEN 16
#define LOCK_WAIT_MS 2000
#define LOCK_LOOK_MS 20

typedef struct Removal {
    char *path;
    bool left_behind;
} Removal;

static char owner[OWNER_LEN + 1];
static GThreadPool *remover;

static void remove_file(gpointer data, gpointer opaque);

void mm_shared_init(const char *run_dir)
{
    g_autofree char *machine = NULL;
    g_autofree char *hash = NULL;
    g_autofree char *all = NULL;

    g_file_get_contents("/etc/machine-id", &machine, NULL, NULL);
    all = g_strdup_printf("%s\n%s", machine ?: g_get_host_name(), run_dir);
    hash = g_compute_checksum_for_string(G_CHECKSUM_SHA256, all, -1);
    pstrcpy(owner, sizeof(owner), hash);
    /* one thread: if the storage hangs, one that does is enough */
    remover = g_thread_pool_new(remove_file, NULL, 1, false, NULL);
}

/* ---- which storage ---- */

static int read_storage(int dirfd, QemuUUID *uuid)
{
    char text[UUID_FMT_LEN + 1] = "";
    int fd = openat(dirfd, STORAGE_NAME, O_RDONLY | O_CLOEXEC | O_NOFOLLOW |
                    O_NONBLOCK);
    ssize_t n;

    if (fd < 0) {
        return -errno;
    }
    n = pread(fd, text, UUID_FMT_LEN, 0);
    close(fd);
    return n == UUID_FMT_LEN && qemu_uuid_parse(text, uuid) == 0 ? 0 : -EINVAL;
}

/* Whoever looks sees all of it or nothing. */
static int write_storage(int dirfd)
{
    g_autofree char *temp = NULL;
    g_autofree char *text = NULL;
    QemuUUID uuid;
    int fd, ret = 0;

    qemu_uuid_generate(&uuid);
    text = qemu_uuid_unparse_strdup(&uuid);
    temp = g_strdup_printf("%s.%s", STORAGE_NAME, text);
    fd = openat(dirfd, temp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (fd < 0) {
        return -errno;
    }
    if (pwrite(fd, text, UUID_FMT_LEN, 0) != UUID_FMT_LEN || fsync(fd) ||
        (linkat(dirfd, temp, dirfd, STORAGE_NAME, 0) && errno != EEXIST)) {
        ret = -errno;
    }
    close(fd);
    unlinkat(dirfd, temp, 0);
    return ret;
}

bool mm_shared_identify(MmTierConf *tier, Error **errp)
{
    ERRP_GUARD();
    QemuUUID uuid;
    int ret = read_storage(tier->dirfd, &uuid);

    if (ret == -ENOENT) {
        ret = write_storage(tier->dirfd) ?: read_storage(tier->dirfd, &uuid);
    }
    if (ret < 0) {
        error_setg_errno(errp, -ret, "tier '%s': cannot tell which storage %s "
                         "is on by %s in it", tier->name, tier->path,
                         STORAGE_NAME);
        error_append_hint(errp, ret == -EINVAL
                          ? "The file holds a UUID, by which hosts know that "
                            "they see the same storage. If no VM uses it, "
                            "remove the file to have another one made.\n"
                          : "The manager has to be able to write to the "
                            "folder: by NFS, that takes no_root_squash.\n");
        return false;
    }
    memcpy(tier->storage, uuid.data, sizeof(tier->storage));
    return true;
}

/* ---- files ---- */

static void name_file(const uint8_t *file_id, const char *whose, char *name)
{
    char text[UUID_FMT_LEN + 1];
    QemuUUID uuid;

    memcpy(uuid.data, file_id, sizeof(uuid.data));
    qemu_uuid_unparse(&uuid, text);
    snprintf(name, MM_FILE_LEN, "%s.%s", text, whose);
}

void mm_shared_our_name(const uint8_t *file_id, char *name)
{
    name_file(file_id, owner, name);
}

void mm_shared_released_name(const uint8_t *file_id, uint64_t epoch,
                             char *name)
{
    g_autofree char *whose = g_strdup_printf("r%015" PRIx64, epoch >> 4);

    name_file(file_id, whose, name);
}

bool mm_shared_is_name(const char *name, const uint8_t *file_id)
{
    char expected[MM_FILE_LEN];
    const char *tail = name + UUID_FMT_LEN + 1;

    mm_shared_our_name(file_id, expected);
    return strlen(name) == strlen(expected) &&
           !strncmp(name, expected, UUID_FMT_LEN + 1) &&
           strspn(tail, "0123456789abcdef") == OWNER_LEN;
}

bool mm_shared_name_file(MmMsgStartTier *conf, Error **errp)
{
    QemuUUID uuid;

    qemu_uuid_generate(&uuid);
    if (getrandom(conf->file_key, sizeof(conf->file_key), 0) !=
        sizeof(conf->file_key)) {
        error_setg_errno(errp, errno, "cannot get random bytes");
        return false;
    }
    memcpy(conf->file_id, uuid.data, sizeof(conf->file_id));
    mm_shared_our_name(conf->file_id, conf->file);
    return true;
}

/*
 * Returns 0 if no pager has it, or -errno.  That of one that has just ended is
 * locked until the kernel has taken its ring apart.
 */
static int check_unlocked(const char *path)
{
    int fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    int waited_ms = 0;
    int ret;

    if (fd < 0) {
        return -errno;
    }
    while ((ret = qemu_lock_fd(fd, 0, 0, true)) == -EAGAIN &&
           waited_ms < LOCK_WAIT_MS) {
        g_usleep(LOCK_LOOK_MS * 1000);
        waited_ms += LOCK_LOOK_MS;
    }
    close(fd);
    return ret;
}

static void remove_file(gpointer data, gpointer opaque)
{
    Removal *removal = data;
    int ret = removal->left_behind ? check_unlocked(removal->path) : 0;

    if (ret < 0) {
        warn_report("%s has no VM here, but may be in use, and is not removed: "
                    "%s", removal->path, strerror(-ret));
    } else if (unlink(removal->path) < 0 && errno != ENOENT) {
        warn_report("cannot remove %s, of a VM that has ended: %s; remove it, "
                    "or restart the manager when its storage is back",
                    removal->path, strerror(errno));
    } else if (removal->left_behind) {
        info_report("%s was left behind, and has been removed", removal->path);
    }
    g_free(removal->path);
    g_free(removal);
}

static void push_removal(const char *dir, const char *file, bool left_behind)
{
    Removal *removal = g_new(Removal, 1);

    *removal = (Removal) {
        .path = g_build_filename(dir, file, NULL),
        .left_behind = left_behind,
    };
    g_thread_pool_push(remover, removal, NULL);
}

bool mm_shared_is_ours(const char *name)
{
    g_autofree char *text = g_strndup(name, UUID_FMT_LEN);
    QemuUUID uuid;

    return strlen(name) == UUID_FMT_LEN + 1 + OWNER_LEN &&
           name[UUID_FMT_LEN] == '.' &&
           g_str_equal(name + UUID_FMT_LEN + 1, owner) &&
           qemu_uuid_parse(text, &uuid) == 0;
}

void mm_shared_remove_named(const char *dir, const char *file)
{
    push_removal(dir, file, false);
}

void mm_shared_remove(const MmRecordTier *tier)
{
    if (mm_shared_is_ours(tier->conf.file)) {
        push_removal(tier->path, tier->conf.file, false);
    }
}

static bool any_vm_has(MmManager *mgr, const char *name)
{
    MmVM *vm;
    uint32_t i;

    QTAILQ_FOREACH(vm, &mgr->vms, next) {
        for (i = 0; i < vm->rec.nr_tiers; i++) {
            /* it may have been claimed without the record's knowing */
            if (!strncmp(vm->rec.tiers[i].conf.file, name, UUID_FMT_LEN)) {
                return true;
            }
        }
    }
    return false;
}

void mm_shared_sweep(MmManager *mgr, const MmTierConf *tier)
{
    GDir *dir = tier->shared ? g_dir_open(tier->path, 0, NULL) : NULL;
    const char *name;

    while (dir && (name = g_dir_read_name(dir))) {
        if (mm_shared_is_ours(name) && !any_vm_has(mgr, name)) {
            push_removal(tier->path, name, true);
        }
    }
    if (dir) {
        g_dir_close(dir);
    }
}
