/*
 * Managed memory pager: file and device tiers
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * One file per VM, read and written with O_DIRECT: the host's page
 * cache would hold what was just moved out of memory a second time.  QEMU
 * holds an O_PATH descriptor, and the file has no name, so it lives exactly as
 * long as its VM, however pagers and managers end.  On storage that other hosts
 * see it has a name, and the manager removes it.
 *
 * Or one block device per VM, which QEMU has claimed for as long as it runs.
 * It is used like a file that has been written before, by whomever: nothing is
 * read but what the VM has stored.
 *
 * Or, for a while after a migration, the file of another host's pager, which
 * is only read.  A device and such a file have a size that is not for us to
 * change; places in them are there when they are claimed.
 *
 * Layout: one page with the VM's identity, then page-sized slots.  The
 * identity keeps a hostile QEMU from handing back some other file.  There is
 * no allocation data in the file: which slot holds what is the page maps'
 * knowledge alone.
 *
 * Space of a file is taken in steps with fallocate(), so that a store cannot
 * meet a full disk: what has been reserved is there (T4), what is overcommitted
 * is asked for when it is needed and refused by alloc() when it is not to be
 * had.
 */
#include "qemu/osdep.h"
#include <sys/vfs.h>
#include "qemu/cutils.h"
#include "qemu/units.h"
#include "qapi/error.h"
#include "../page-map.h"
#include "tier.h"
#include "slot-alloc.h"

#define GROW_STEP (64 * MiB)
#define GROW_STEP_MIN (1 * MiB)
/*
 * Slots of a device that a page map may name however small the device is now;
 * what a hostile QEMU hands back must not take any amount of memory.
 */
#define CLAIM_MAX (1ULL << 28)
/* How long a device may take to be free of the VM that had it before. */
#define LOCK_WAIT_MS 2000
#define LOCK_LOOK_MS 5

typedef struct MmTierFile {
    MmTier base;

    /* fixed after open */
    bool sized;                 /* it has the size that it has, see above */
    bool overcommit;
    MmIdentity id;              /* what is in its first page */

    /* held while the file grows, and across that I/O; mm_tier_file_alloc() */
    GMutex grow_lock;
    /* protected by grow_lock */
    uint64_t max_size;          /* bytes of slots, whole pages */
    bool stunted;               /* it may be cut off, so it does not grow */

    MmSlotAlloc slots;
} MmTierFile;

static MmTierFile *to_file(const MmTier *tier)
{
    return container_of(tier, MmTierFile, base);
}

static uint64_t whole_pages(uint64_t size)
{
    return size ? QEMU_ALIGN_DOWN(size, MM_PAGE_SIZE)
                : MM_PLACE_MAX * MM_PAGE_SIZE;
}

/* They may get larger while they are used.  Called with grow_lock held. */
static uint64_t max_size_locked(const MmTierFile *file)
{
    off_t end;

    if (!file->sized) {
        return file->max_size;
    }
    end = lseek(file->base.fd, 0, SEEK_END);
    return end < 2 * MM_PAGE_SIZE ? 0
           : MIN(file->max_size, whole_pages(end - MM_PAGE_SIZE));
}

/*
 * Is there room for @bytes more?  fallocate() finds out only when it has taken
 * all that is left, and others need that.
 */
static bool has_room(const MmTierFile *file, uint64_t bytes)
{
    struct statfs fs;

    return fstatfs(file->base.fd, &fs) < 0 ||
           bytes / fs.f_bsize < fs.f_bavail;
}

/*
 * What fallocate() has taken before it was refused goes back.  If it was not
 * refused, but has failed, all may be carried out when the storage is back, as
 * a store may (reclaim/quarantine.h): then the file may be longer than it need
 * be, but it must not be cut off with something behind its end.
 */
static int give_back(MmTierFile *file, uint64_t total, int err)
{
    if ((err == ENOSPC || err == EDQUOT || err == EFBIG) &&
        ftruncate(file->base.fd, (total + 1) * MM_PAGE_SIZE) < 0) {
        file->stunted = true;
        return -errno;
    }
    return -err;
}

/*
 * The tier's bytes are guest pages; slot 0 lies behind the identity page.
 * Called with grow_lock held.
 */
static int grow_to_locked(MmTierFile *file, uint64_t bytes)
{
    uint64_t used, total;
    int ret;

    bytes = ROUND_UP(bytes, MM_PAGE_SIZE);
    mm_slots_count(&file->slots, &used, &total);
    if (bytes <= total * MM_PAGE_SIZE) {
        return 0;
    }
    if (bytes > max_size_locked(file)) {
        return -EFBIG;
    }
    if (file->stunted) {
        return -EIO;        /* not for lack of room */
    }
    if (file->sized) {
        mm_slots_grow(&file->slots, bytes / MM_PAGE_SIZE);
        return 0;
    }
    if (!has_room(file, bytes - total * MM_PAGE_SIZE)) {
        return -ENOSPC;
    }
    ret = TEMP_FAILURE_RETRY(fallocate(file->base.fd, 0, MM_PAGE_SIZE,
                                       bytes));
    if (ret < 0 && errno == EOPNOTSUPP && file->overcommit) {
        ret = 0;        /* nothing is promised: writing makes it longer */
    }
    if (ret < 0) {
        return give_back(file, total, errno);
    }
    mm_slots_grow(&file->slots, bytes / MM_PAGE_SIZE);
    return 0;
}

/* By a step, or what there is room for. */
static void grow_locked(MmTierFile *file)
{
    uint64_t max = max_size_locked(file);
    uint64_t used, total, step = GROW_STEP;
    int ret;

    mm_slots_count(&file->slots, &used, &total);
    do {
        ret = grow_to_locked(file, MIN(total * MM_PAGE_SIZE + step, max));
        step /= 2;
    } while (ret == -ENOSPC && step >= GROW_STEP_MIN);
}

static bool file_reserve(MmTier *tier, uint64_t bytes, Error **errp)
{
    MmTierFile *file = to_file(tier);
    uint64_t max_size;
    int ret;

    if (file->overcommit) {
        return true;
    }
    if (!qatomic_load_acquire(&tier->proven)) {
        error_setg(errp, "tier '%s' was not taken over from the former pager "
                   "yet, and cannot reserve anything; try again when its "
                   "disk answers", tier->name);
        return false;
    }
    g_mutex_lock(&file->grow_lock);
    ret = grow_to_locked(file, bytes);
    max_size = max_size_locked(file);
    g_mutex_unlock(&file->grow_lock);
    if (ret < 0) {
        g_autofree char *wanted = size_to_str(bytes);
        g_autofree char *most = size_to_str(max_size);

        if (ret == -EFBIG && max_size < file->max_size) {
            error_setg(errp, "tier '%s' has %s for this VM, but %s may be "
                       "swapped out; raise the resident limit, enlarge the "
                       "device, or let the manager overcommit the tier "
                       "(overcommit=on)", tier->name, most, wanted);
        } else if (ret == -EFBIG) {
            error_setg(errp, "tier '%s' is limited to %s per VM, but %s may "
                       "be swapped out; raise the resident limit, or let the "
                       "manager overcommit the tier (overcommit=on)",
                       tier->name, most, wanted);
        } else {
            error_setg(errp, "tier '%s' cannot reserve %s: %s; make room, "
                       "raise the resident limit, or let the manager "
                       "overcommit the tier (overcommit=on)",
                       tier->name, wanted, strerror(-ret));
        }
    }
    return ret == 0;
}

/* A file never gets smaller: what is behind the new end may be in use. */
static bool file_resize(MmTier *tier, uint64_t size, unsigned share,
                        uint64_t vm_size, Error **errp)
{
    MmTierFile *file = to_file(tier);
    uint64_t used, total;
    bool fits;

    if (share) {
        error_setg(errp, "the size of tier '%s', a %s, is no share of the "
                   "VM's memory; give it in bytes", tier->name,
                   tier->ops->type);
        return false;
    }
    g_mutex_lock(&file->grow_lock);
    mm_slots_count(&file->slots, &used, &total);
    fits = total * MM_PAGE_SIZE <= whole_pages(size);
    if (fits) {
        file->max_size = whole_pages(size);
    }
    g_mutex_unlock(&file->grow_lock);
    if (!fits) {
        g_autofree char *has = size_to_str(total * MM_PAGE_SIZE);

        error_setg(errp, "tier '%s' has taken %s of its storage already, and "
                   "does not give it back; drain it instead", tier->name, has);
    }
    return fits;
}

int mm_tier_file_alloc(MmTierQueue *queue, MmTierIO *io)
{
    MmTierFile *file = to_file(queue->tier);
    unsigned got = mm_slots_alloc(&file->slots, io->nr_pages, &io->place);

    /* while a reservation hangs in the file system, do without more */
    if (!got && g_mutex_trylock(&file->grow_lock)) {
        grow_locked(file);
        g_mutex_unlock(&file->grow_lock);
        got = mm_slots_alloc(&file->slots, io->nr_pages, &io->place);
    }
    io->nr_pages = got;
    return got ? 0 : -ENOSPC;
}

static void file_free(MmTier *tier, uint64_t place, unsigned nr)
{
    mm_slots_free(&to_file(tier)->slots, place, nr);
}

static void file_withdraw(MmTier *tier, uint64_t place, unsigned nr)
{
    mm_slots_withdraw(&to_file(tier)->slots, place, nr);
}

static void file_readmit(MmTier *tier, uint64_t place, unsigned nr)
{
    mm_slots_readmit(&to_file(tier)->slots, place, nr);
}

/*
 * What a former pager has stored may lie behind what the tier may have now, or
 * behind the end of a device that is not back yet: it is in use all the same.
 */
static void extend_to(MmTierFile *file, uint64_t place)
{
    const uint64_t step = GROW_STEP / MM_PAGE_SIZE;
    uint64_t used, total, most;

    g_mutex_lock(&file->grow_lock);
    mm_slots_count(&file->slots, &used, &total);
    /* on storage of other hosts, each look is a round trip */
    if (place >= total) {
        most = max_size_locked(file) / MM_PAGE_SIZE;
        if (file->base.lent) {
            most = MIN(most, CLAIM_MAX);
        }
        if (place < (file->base.lent ? most : MAX(most, CLAIM_MAX))) {
            uint64_t wanted = ROUND_UP(place + 1, step);

            mm_slots_grow(&file->slots, place < most
                          ? MIN(MAX(wanted, 2 * total), most) : wanted);
        }
    }
    g_mutex_unlock(&file->grow_lock);
}

static bool file_claim(MmTier *tier, uint64_t place)
{
    MmTierFile *file = to_file(tier);

    if (file->sized) {
        extend_to(file, place);
    }
    return mm_slots_claim(&file->slots, place);
}

/*
 * The lock belongs to the open file description that the transfers use, and
 * lasts as long as the last of them does, whoever has submitted it.
 */
static int lock_file(int fd, short type)
{
    struct flock lock = { .l_type = type, .l_whence = SEEK_SET };

    return fcntl(fd, F_OFD_SETLK, &lock) < 0 ? -errno : 0;
}

static bool file_pin(MmTier *tier, uint64_t place)
{
    return mm_slots_pin(&to_file(tier)->slots, place);
}

static void file_pin_all(MmTier *tier)
{
    mm_slots_pin_all(&to_file(tier)->slots);
}

static void file_unpin(MmTier *tier)
{
    mm_slots_unpin(&to_file(tier)->slots);
}

static bool file_settled(MmTier *tier)
{
    return tier->lent || lock_file(tier->fd, F_WRLCK) == 0;
}

/*
 * A new file is nobody else's: what fails is the file system.  A device may
 * still get what the pager of a VM that has ended was writing; the kernel needs
 * some milliseconds to take a process's transfers apart.
 */
static bool can_lock(int fd, const char *name, Error **errp)
{
    int ret = lock_file(fd, F_WRLCK);
    int waited_ms;

    for (waited_ms = 0; ret == -EAGAIN && waited_ms < LOCK_WAIT_MS;
         waited_ms += LOCK_LOOK_MS) {
        g_usleep(LOCK_LOOK_MS * 1000);
        ret = lock_file(fd, F_WRLCK);
    }
    ret = ret ?: lock_file(fd, F_UNLCK);
    if (ret == -EAGAIN) {
        error_setg(errp, "the device of tier '%s' has not ended the writes of "
                   "a VM that had it before; try again when it answers", name);
    } else if (ret < 0) {
        error_setg_errno(errp, -ret, "what tier '%s' has for this VM cannot "
                         "be locked; use a file system that has locks", name);
    }
    return ret == 0;
}

static void file_usage(MmTier *tier, MmTierUsage *usage)
{
    mm_slots_count(&to_file(tier)->slots, &usage->pages, &usage->size);
    usage->used = usage->pages * MM_PAGE_SIZE;
    usage->size *= MM_PAGE_SIZE;
}

static MmTierQueue *file_queue_new(MmTier *tier, void *arena,
                                   size_t arena_size, unsigned depth,
                                   int wake_fd, Error **errp)
{
    Error *local_err = NULL;
    MmTierQueue *queue;
    int fd = tier->fd;

    queue = mm_queue_uring_new(tier, fd, arena, arena_size, depth, wake_fd,
                               &local_err);
    if (!queue) {
        warn_reportf_err(local_err, "using threads instead: ");
        queue = mm_queue_threads_new(tier, fd, depth, wake_fd);
    }
    return queue;
}

static bool file_is_own(MmTier *tier, const void *page)
{
    const MmIdentity *found = page;
    const MmIdentity *own = &to_file(tier)->id;

    return found->magic == MM_TIER_MAGIC &&
           found->version == MM_LAYOUT_VERSION &&
           !memcmp(found->uuid, own->uuid, sizeof(own->uuid)) &&
           !memcmp(found->cookie, own->cookie, sizeof(own->cookie));
}

#define OPS_OF(type_name, hold_kind)        \
    .type = type_name,                      \
    .max_pages = MM_TIER_IO_PAGES,          \
    .outside = true,                        \
    .hold = hold_kind,                      \
    .reserve = file_reserve,                \
    .is_own = file_is_own,                  \
    .resize = file_resize,                  \
    .free = file_free,                      \
    .withdraw = file_withdraw,              \
    .readmit = file_readmit,                \
    .claim = file_claim,                    \
    .settled = file_settled,                \
    .usage = file_usage,                    \
    .queue_new = file_queue_new

static const MmTierOps file_ops = { OPS_OF("file", MM_HOLD_TIER_FILE) };
static const MmTierOps device_ops = {
    OPS_OF("device", MM_HOLD_TIER_DEVICE)
};
static const MmTierOps shared_ops = {
    OPS_OF("file", MM_HOLD_TIER_FILE),
    .pin = file_pin,
    .pin_all = file_pin_all,
    .unpin = file_unpin,
};

static const MmTierOps *ops_of(const MmMsgStartTier *start)
{
    return start->kind == MM_TIER_KIND_DEVICE ? &device_ops
           : start->shared && !start->lent ? &shared_ops : &file_ops;
}

/* O_DIRECT wants page-aligned memory. */
typedef union IdentityPage {
    MmIdentity id;
    uint8_t bytes[MM_PAGE_SIZE];
} QEMU_ALIGNED(MM_PAGE_SIZE) IdentityPage;

static bool write_identity(int fd, const MmIdentity *id, Error **errp)
{
    IdentityPage page = { .id = *id };
    ssize_t ret;

    page.id.magic = MM_TIER_MAGIC;
    ret = TEMP_FAILURE_RETRY(pwrite(fd, &page, sizeof(page), 0));
    if (ret != MM_PAGE_SIZE) {
        error_setg_errno(errp, ret < 0 ? errno : ENOSPC,
                         "cannot write to the tier's file");
        return false;
    }
    return true;
}

/* A former pager's file: what it has allocated is there to be claimed. */
static bool adopt_size(MmTierFile *file, Error **errp)
{
    struct stat st;

    if (file->sized) {
        return true;    /* there is as much as is claimed, see extend_to() */
    }
    if (fstat(file->base.fd, &st) < 0) {
        error_setg_errno(errp, errno, "cannot look at the tier's file");
        return false;
    }
    /* all of it, whatever the tier may have now: something may be in it */
    if (st.st_size > MM_PAGE_SIZE) {
        mm_slots_grow(&file->slots, st.st_size / MM_PAGE_SIZE - 1);
    }
    return true;
}

/* On storage that others see there is nothing of a VM's but its content. */
static MmIdentity identity(const MmMsgStartTier *start, const MmIdentity *vm)
{
    MmIdentity id = *vm;

    if (start->shared) {
        memcpy(id.uuid, start->file_id, sizeof(id.uuid));
        memcpy(id.cookie, start->file_key, sizeof(id.cookie));
    }
    return id;
}

MmTier *mm_tier_file_open(int fd, const MmMsgStartTier *start,
                          const MmIdentity *id, bool is_new, Error **errp)
{
    MmTierFile *file = g_new0(MmTierFile, 1);

    file->sized = start->lent || start->kind == MM_TIER_KIND_DEVICE;
    file->base.ops = ops_of(start);
    file->base.lent = start->lent;
    file->base.number = start->number;
    pstrcpy(file->base.name, sizeof(file->base.name), start->name);
    file->base.fd = fd;
    file->base.hold_fd = -1;
    file->overcommit = start->overcommit;
    file->id = identity(start, id);
    file->max_size = whole_pages(start->size);
    g_mutex_init(&file->grow_lock);
    mm_slots_init(&file->slots);
    mm_throttle_init(&file->base.throttle);
    mm_throttle_set(&file->base.throttle, &start->io);

    is_new &= !start->lent;
    file->base.proven = is_new;
    if (is_new ? !can_lock(fd, start->name, errp) ||
                 !write_identity(fd, &file->id, errp)
               : !adopt_size(file, errp)) {
        mm_throttle_destroy(&file->base.throttle);
        mm_slots_destroy(&file->slots);
        g_free(file);
        return NULL;
    }
    return &file->base;
}
