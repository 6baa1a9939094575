/*
 * Managed memory pager: taking over from a former pager
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * QEMU hands back what it kept, and may hand back anything: every descriptor
 * is checked to be of the kind that it should be.  Whether a tier's file is the
 * VM's own is in the file, and found out later (reclaim/ready.c).
 */
#include "qemu/osdep.h"
#include <sys/mman.h>
#include "qapi/error.h"
#include "qemu/host-utils.h"
#include "control/control.h"
#include "isolation.h"
#include "region.h"
#include "start.h"
#include "start-internal.h"
#include "tier/tier.h"

static bool receive(MmStarting *s, int sock, MmMsgType type, Error **errp)
{
    int ret = mm_msg_recv(sock, &s->msg, MM_START_TIMEOUT_MS);

    if (ret == 1 && s->msg.hdr.type == type) {
        return true;
    }
    if (ret < 0) {
        error_setg_errno(errp, -ret, "no %s message", mm_msg_type_name(type));
    } else {
        error_setg(errp, "%s instead of a %s message",
                   ret ? mm_msg_type_name(s->msg.hdr.type) : "end",
                   mm_msg_type_name(type));
    }
    mm_msg_clear(&s->msg);
    return false;
}

/* Is @fd an anonymous inode of this kind?  QEMU may pass anything. */
static bool is_anon(MmVM *vm, int fd, const char *kind)
{
    char path[16], target[64] = "";
    ssize_t len;

    snprintf(path, sizeof(path), "%d", fd);
    len = readlinkat(vm->proc_fd, path, target, sizeof(target) - 1);
    return len > 0 && !strcmp(target, kind);
}

static bool adopt_vm_fds(MmStarting *s, Error **errp)
{
    MmVM *vm = s->vm;
    int *fds = s->msg.fds;

    if (!mm_check_memfd(fds[MM_RESUME_FD_STATE], MM_STATE_SIZE, true,
                        "the VM's state", errp) ||
        !mm_check_memfd(fds[MM_RESUME_FD_RING], sizeof(MmRing), false,
                        "the ring", errp)) {
        return false;
    }
    if (!is_anon(vm, fds[MM_RESUME_FD_KICK], "anon_inode:[eventfd]") ||
        !(fcntl(fds[MM_RESUME_FD_KICK], F_GETFL) & O_NONBLOCK) ||
        !is_anon(vm, fds[MM_RESUME_FD_UFFD], "anon_inode:[userfaultfd]") ||
        !mm_uffd_valid(fds[MM_RESUME_FD_UFFD])) {
        error_setg(errp, "QEMU has not handed back the userfaultfd and the "
                   "eventfd that it had");
        return false;
    }
    vm->state_fd = mm_reopen(vm, fds[MM_RESUME_FD_STATE], O_RDWR);
    vm->ring_fd = mm_msg_take_fd(&s->msg, MM_RESUME_FD_RING);
    vm->kick_fd = mm_msg_take_fd(&s->msg, MM_RESUME_FD_KICK);
    vm->uffd = mm_msg_take_fd(&s->msg, MM_RESUME_FD_UFFD);
    if (vm->state_fd < 0) {
        error_setg_errno(errp, -vm->state_fd, "cannot reopen the VM's state");
        return false;
    }
    return true;
}

static bool resume_state(MmStarting *s, Error **errp)
{
    MmVM *vm = s->vm;

    if (!adopt_vm_fds(s, errp) || !mm_start_map(vm, errp)) {
        return false;
    }
    if (vm->state->id.magic != MM_STATE_MAGIC ||
        vm->state->id.version != MM_LAYOUT_VERSION ||
        memcmp(vm->state->id.uuid, vm->id.uuid, sizeof(vm->id.uuid)) ||
        memcmp(vm->state->id.cookie, vm->id.cookie, sizeof(vm->id.cookie))) {
        error_setg(errp, "the state that QEMU has handed back is not this "
                   "VM's");
        return false;
    }
    return true;
}

/*
 * A tier file that comes back from QEMU: ours, closed to others, unnamed.  On
 * shared storage it has a name, and may seem to be another user's (NFS).
 */
static bool is_tier_file(const MmMsgStartTier *conf, const struct stat *st)
{
    return st->st_dev == conf->device && S_ISREG(st->st_mode) &&
           (st->st_mode & 0777) == 0600 &&
           (conf->shared || (st->st_uid == geteuid() && !st->st_nlink));
}

static int resume_file(MmStarting *s, unsigned i, Error **errp)
{
    struct stat st;
    int fd;

    if (fstat(s->msg.fds[0], &st) < 0 || !is_tier_file(&s->tier[i], &st)) {
        error_setg(errp, "QEMU has handed back something else than its file "
                   "in tier '%s'", s->tier[i].name);
        return -1;
    }
    fd = mm_reopen(s->vm, s->msg.fds[0], O_DIRECT |
                   (s->tier[i].lent ? O_RDONLY : O_RDWR));
    if (fd < 0) {
        error_setg_errno(errp, -fd, "cannot reopen the file in tier '%s'",
                         s->tier[i].name);
    }
    return fd;
}

/* What keeps others away from the device; it is opened for transfers later. */
static int resume_device(MmStarting *s, unsigned i, Error **errp)
{
    struct stat st;

    if (fstat(s->msg.fds[0], &st) < 0 || !S_ISBLK(st.st_mode) ||
        st.st_rdev != s->tier[i].device) {
        error_setg(errp, "QEMU has handed back something else than its device "
                   "in tier '%s'", s->tier[i].name);
        return -1;
    }
    return mm_msg_take_fd(&s->msg, 0);
}

static int resume_pool(MmStarting *s, unsigned i, Error **errp)
{
    struct stat st;
    int fd = -EINVAL;

    /* not to be opened unless it is ours: who knows what it is */
    if (fstat(s->msg.fds[0], &st) == 0 && S_ISREG(st.st_mode) &&
        st.st_uid == geteuid()) {
        fd = mm_reopen(s->vm, s->msg.fds[0], O_RDWR);
    }
    if (fd < 0) {
        error_setg_errno(errp, -fd, "cannot reopen the pool of tier '%s'",
                         s->tier[i].name);
        return -1;
    }
    if (!mm_check_memfd(fd, mm_tier_compressed_fd_size(), true,
                        "the compressed tier's pool", errp)) {
        close(fd);
        return -1;
    }
    return fd;
}

static const struct {
    MmHoldKind hold;
    int (*resume)(MmStarting *s, unsigned i, Error **errp);
} kinds[MM_TIER_KIND__MAX] = {
    [MM_TIER_KIND_FILE] = { MM_HOLD_TIER_FILE, resume_file },
    [MM_TIER_KIND_COMPRESSED] = { MM_HOLD_TIER_POOL, resume_pool },
    [MM_TIER_KIND_DEVICE] = { MM_HOLD_TIER_DEVICE, resume_device },
};

/* Index of the tier that a hold belongs to, or that of none. */
static unsigned find_tier(const MmStarting *s, const MmMsgHold *hold)
{
    unsigned i;

    for (i = 0; i < s->nr_tiers; i++) {
        if (s->tier[i].number == hold->index &&
            hold->kind == kinds[s->tier[i].kind].hold) {
            break;
        }
    }
    return i;
}

static bool resume_hold(MmStarting *s, Error **errp)
{
    MmMsgHold hold;
    unsigned i;

    memcpy(&hold, s->msg.payload, sizeof(hold));
    i = find_tier(s, &hold);
    if (i == s->nr_tiers) {
        /* of a tier that the VM has no more: nobody needs it */
        s->vm->dropped[s->vm->nr_dropped++] = hold;
        return true;
    }
    if (s->tier_fd[i] >= 0) {
        error_setg(errp, "QEMU has handed back twice what it had of tier '%s'",
                   s->tier[i].name);
        return false;
    }
    s->tier_fd[i] = kinds[s->tier[i].kind].resume(s, i, errp);
    return s->tier_fd[i] >= 0;
}

static bool resume_region(MmStarting *s, Error **errp)
{
    MmVM *vm = s->vm;
    MmMsgRegion msg;
    MmRegion *region;

    memcpy(&msg, s->msg.payload, sizeof(msg));
    if (!msg.hva || !is_power_of_2(msg.page_size) ||
        msg.hva % msg.page_size || msg.hva + msg.size < msg.hva ||
        mm_vm_overlaps(vm, msg.hva, msg.size)) {
        error_setg(errp, "region %u cannot be at 0x%" PRIx64, msg.id, msg.hva);
        return false;
    }
    region = mm_region_resume(vm, &msg, s->msg.fds, errp);
    if (!region) {
        return false;
    }
    if (vm->regions[region->id]) {
        error_setg(errp, "region %u comes twice", region->id);
        mm_region_free(vm, region);
        return false;
    }
    vm->regions[region->id] = region;
    qatomic_add(&vm->total_size, region->size);
    return true;
}

/* A page that was encrypted cannot be had without it. */
static bool resume_key(MmStarting *s, Error **errp)
{
    MmMsgKey *msg = (void *)s->msg.payload;
    bool ok;

    /* only now: it looks for files, maybe on the disk that does not answer */
    if (!mm_cipher_init(errp)) {
        return false;
    }
    if (!receive(s, s->vm->connection, MM_MSG_KEY, errp)) {
        return false;
    }
    ok = mm_vm_set_key(s->vm, msg->key, errp);
    explicit_bzero(msg, sizeof(*msg));
    mm_msg_clear(&s->msg);
    return ok;
}

static bool receive_each(MmStarting *s, unsigned nr, MmMsgType type,
                         bool (*handle)(MmStarting *s, Error **errp),
                         Error **errp)
{
    while (nr--) {
        bool ok;

        if (!receive(s, s->vm->connection, type, errp)) {
            return false;
        }
        ok = handle(s, errp);
        mm_msg_clear(&s->msg);
        if (!ok) {
            return false;
        }
    }
    return true;
}

static bool has_all_holds(const MmStarting *s, Error **errp)
{
    unsigned i;

    for (i = 0; i < s->nr_tiers; i++) {
        if (s->tier_fd[i] < 0 && !s->tier[i].is_new) {
            error_setg(errp, "QEMU has not handed back what it had of tier "
                       "'%s'", s->tier[i].name);
            return false;
        }
    }
    return true;
}

bool mm_resume(MmStarting *s, Error **errp)
{
    MmMsgResumeVM rvm;

    if (!receive(s, s->vm->connection, MM_MSG_RESUME_VM, errp)) {
        return false;
    }
    memcpy(&rvm, s->msg.payload, sizeof(rvm));
    if (rvm.nr_regions > MM_MAX_REGIONS || rvm.nr_holds > MM_MAX_TIERS) {
        error_setg(errp, "a VM cannot have %u regions and %u held files",
                   rvm.nr_regions, rvm.nr_holds);
        return false;
    }
    if (!resume_state(s, errp)) {
        return false;
    }
    mm_msg_clear(&s->msg);
    s->vm->lost_ns = rvm.lost_ns;
    s->vm->state->pinned = !!rvm.pinned;
    return receive_each(s, rvm.nr_holds, MM_MSG_RESUME_HOLD, resume_hold,
                        errp) && has_all_holds(s, errp) &&
           receive_each(s, rvm.nr_regions, MM_MSG_RESUME_REGION,
                        resume_region, errp) &&
           (!s->vm->state->encrypted || resume_key(s, errp)) &&
           receive(s, s->vm->connection, MM_MSG_RESUME_END, errp);
}
