/*
 * qemu-memory-manager: is there room for a guest that arrives?
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A VM for whose memory space is reserved when it attaches has it.  If its last
 * tier is overcommitted, all that can be said is what is free now, as if nobody
 * else wanted it: less than what arrives needs is too little for sure.
 *
 * The storage may hang, so a thread looks.
 */
#include "qemu/osdep.h"
#include <sys/statvfs.h>
#include "io/task.h"
#include "qom/object.h"
#include "room.h"
#include "tier-device.h"

/* What one tier can have */
typedef struct Share {
    char *path;                 /* of a folder or a device */
    bool device;
    uint64_t most;              /* bytes that the VM may have in it */
} Share;

/* Storage that several tiers may be on */
typedef struct Storage {
    dev_t dev;
    uint64_t left;              /* bytes that nobody has yet */
} Storage;

typedef struct Room {
    MmManager *mgr;
    uint8_t vm[MM_UUID_LEN];    /* which may be gone when it ends */
    int sock;
    uint64_t seq;
    unsigned nr;
    Share shares[MM_MAX_TIERS];
    uint64_t bytes;             /* the thread adds to it */
} Room;

static uint64_t add(uint64_t a, uint64_t b)
{
    return a > UINT64_MAX - b ? UINT64_MAX : a + b;
}

static uint64_t multiply(uint64_t a, uint64_t b)
{
    return b && a > UINT64_MAX / b ? UINT64_MAX : a * b;
}

static uint64_t device_size(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    off_t size = fd < 0 ? -1 : lseek(fd, 0, SEEK_END);

    if (fd >= 0) {
        close(fd);
    }
    return size < 0 ? UINT64_MAX : size;
}

/* What cannot be asked does not stand in the way. */
static uint64_t take(const Share *share, Storage *storages, unsigned *nr)
{
    struct statvfs vfs;
    struct stat st;
    uint64_t bytes;
    unsigned i = 0;

    if (share->device) {
        return MIN(share->most, device_size(share->path));
    }
    if (stat(share->path, &st) || statvfs(share->path, &vfs)) {
        return share->most;
    }
    while (i < *nr && storages[i].dev != st.st_dev) {
        i++;
    }
    if (i == *nr) {
        storages[(*nr)++] = (Storage) {
            .dev = st.st_dev, .left = multiply(vfs.f_bavail, vfs.f_frsize),
        };
    }
    bytes = MIN(share->most, storages[i].left);
    storages[i].left -= bytes;
    return bytes;
}

static void look(QIOTask *task, gpointer opaque)
{
    Storage storages[MM_MAX_TIERS];
    Room *room = opaque;
    unsigned i, nr = 0;

    for (i = 0; i < room->nr; i++) {
        room->bytes = add(room->bytes, take(&room->shares[i], storages, &nr));
    }
}

static void answer(int sock, uint64_t seq, uint64_t bytes)
{
    const MmMsgAmount amount = { .value = bytes };

    mm_msg_send(sock, MM_MSG_AMOUNT, seq, &amount, sizeof(amount), NULL, 0);
    close(sock);
}

static void looked(QIOTask *task, gpointer opaque)
{
    Room *room = opaque;
    MmVM *vm = mm_vm_by_uuid(room->mgr, room->vm);
    unsigned i;

    if (vm) {
        vm->looks_for_room = false;
    }
    answer(room->sock, room->seq, room->bytes);
    for (i = 0; i < room->nr; i++) {
        g_free(room->shares[i].path);
    }
    g_free(room);
}

static bool takes(const MmMsgStartTier *conf)
{
    return !conf->draining && !conf->lent;
}

/* Does nobody else get the space that the VM may need? */
static bool is_reserved(const MmRecord *rec)
{
    bool overcommit = true;
    uint32_t i;

    for (i = 0; i < rec->nr_tiers; i++) {
        if (takes(&rec->tiers[i].conf)) {
            overcommit = rec->tiers[i].conf.overcommit;
        }
    }
    return !overcommit;
}

static void add_tier(Room *room, const MmVM *vm, const MmRecordTier *tier,
                     const MmMsgHandover *request)
{
    bool device = tier->conf.kind == MM_TIER_KIND_DEVICE;
    uint64_t bytes = tier->conf.share ? request->size / 100 * tier->conf.share
                                      : tier->conf.size ?: UINT64_MAX;
    char *path;

    if (tier->conf.kind == MM_TIER_KIND_COMPRESSED) {
        room->bytes = add(room->bytes, multiply(bytes, request->shrinks));
        return;
    }
    path = device ? mm_device_path(tier->path, vm->rec.name, NULL)
                  : g_strdup(tier->path);
    if (path) {
        room->shares[room->nr++] = (Share) {
            .path = path, .device = device, .most = bytes,
        };
    }
}

void mm_room(MmVM *vm, int sock, uint64_t seq, const MmMsgHandover *request)
{
    const MmRecord *rec = &vm->rec;
    Room *room;
    uint32_t i;

    /* each takes a thread; who asks again has given up the one before */
    if (vm->looks_for_room || is_reserved(rec)) {
        answer(sock, seq, MM_LIMIT_NONE);
        return;
    }
    room = g_new0(Room, 1);
    room->mgr = vm->mgr;
    memcpy(room->vm, rec->uuid, sizeof(room->vm));
    room->sock = sock;
    room->seq = seq;
    for (i = 0; i < rec->nr_tiers; i++) {
        if (takes(&rec->tiers[i].conf)) {
            add_tier(room, vm, &rec->tiers[i], request);
        }
    }
    vm->looks_for_room = true;
    qio_task_run_in_thread(qio_task_new(object_get_root(), looked, room, NULL),
                           look, room, NULL, NULL);
}
