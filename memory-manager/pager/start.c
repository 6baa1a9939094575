/*
 * Managed memory pager: from START to the first fault
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The only part of the pager that runs with the manager's rights.  It receives
 * descriptors, checks what they are, opens tier files, and reopens for writing
 * what QEMU kept read-only.  Of what is in them, only identities are looked at
 * while it has them.
 */
#include "qemu/osdep.h"
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include "qemu/cutils.h"
#include "qapi/error.h"
#include "huge-presence.h"
#include "control/control.h"
#include "isolation.h"
#include "region.h"
#include "start.h"
#include "start-internal.h"
#include "tier/tier.h"

static bool receive_tier(MmStarting *s)
{
    static const uint8_t max_fds[MM_TIER_KIND__MAX] = {
        [MM_TIER_KIND_FILE] = 1,
        [MM_TIER_KIND_DEVICE] = MM_TIER_DEVICE_FD__MAX,
    };
    MmMsgStartTier *tier;
    unsigned i;

    if (s->nr_tiers == MM_MAX_TIERS) {
        return false;
    }
    tier = &s->tier[s->nr_tiers];
    memcpy(tier, s->msg.payload, sizeof(*tier));
    for (i = 0; i < s->nr_tiers; i++) {
        if (s->tier[i].number == tier->number) {
            return false;
        }
    }
    s->tier_claim[s->nr_tiers] = mm_msg_take_fd(&s->msg,
                                                MM_TIER_DEVICE_FD_CLAIM);
    s->tier_dir[s->nr_tiers++] = mm_msg_take_fd(&s->msg, 0);
    return tier->number < MM_MAX_TIERS &&
           tier->kind < MM_TIER_KIND__MAX &&
           tier->algorithm < MM_ALGORITHM__MAX && tier->share <= 100 &&
           s->msg.nr_fds <= max_fds[tier->kind];
}

static bool receive_start(MmStarting *s, int control, Error **errp)
{
    MmVM *vm = s->vm;

    for (;;) {
        int ret = mm_msg_recv(control, &s->msg, MM_START_TIMEOUT_MS);

        if (ret == 1 && s->msg.hdr.type == MM_MSG_START_TIER &&
            receive_tier(s)) {
            mm_msg_clear(&s->msg);
            continue;
        }
        if (ret == 1 && s->msg.hdr.type == MM_MSG_START) {
            break;
        }
        mm_msg_clear(&s->msg);
        error_setg(errp, "the manager does not say what to do");
        return false;
    }
    memcpy(&s->start, s->msg.payload, sizeof(s->start));
    vm->control = control;
    vm->connection = mm_msg_take_fd(&s->msg, MM_START_FD_CONNECTION);
    vm->listen = mm_msg_take_fd(&s->msg, MM_START_FD_LISTEN);
    vm->lock_fd = mm_msg_take_fd(&s->msg, MM_START_FD_LOCK);
    vm->uffd_dev = mm_msg_take_fd(&s->msg, MM_START_FD_UFFD_DEV);
    vm->probe_uffd = mm_presence_uffd_new(vm->uffd_dev);
    vm->id.version = MM_LAYOUT_VERSION;
    memcpy(vm->id.uuid, s->start.uuid, sizeof(vm->id.uuid));
    memcpy(vm->id.cookie, s->start.cookie, sizeof(vm->id.cookie));
    memcpy(vm->name, s->start.name, sizeof(vm->name));
    vm->qemu_pid = s->start.qemu_pid;
    vm->sample_interval_ns = s->start.sample_interval_ns;
    return true;
}

bool mm_start_map(MmVM *vm, Error **errp)
{
    vm->state = mmap(NULL, MM_STATE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED,
                     vm->state_fd, 0);
    vm->ring = mmap(NULL, sizeof(MmRing), PROT_READ | PROT_WRITE, MAP_SHARED,
                    vm->ring_fd, 0);
    if (vm->state == MAP_FAILED || vm->ring == MAP_FAILED) {
        error_setg_errno(errp, errno, "cannot map the VM's state");
        return false;
    }
    return true;
}

static bool fresh_vm(MmStarting *s, Error **errp)
{
    MmVM *vm = s->vm;

    if (!mm_cipher_init(errp)) {
        return false;
    }
    vm->uffd = -1;
    vm->state_fd = mm_seal_memfd("managed-state", MM_STATE_SIZE);
    vm->ring_fd = mm_seal_memfd("managed-ring", sizeof(MmRing));
    vm->kick_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    /* as for what QEMU may write to in a region: not to pass for the state */
    if (vm->state_fd < 0 || vm->ring_fd < 0 || vm->kick_fd < 0 ||
        fchmod(vm->ring_fd, 0) < 0) {
        error_setg(errp, "cannot create the VM's state");
        return false;
    }
    if (!mm_start_map(vm, errp)) {
        return false;
    }
    vm->state->id = vm->id;
    vm->state->id.magic = MM_STATE_MAGIC;
    memcpy(vm->state->name, vm->name, sizeof(vm->state->name));
    vm->state->limit = s->start.limit;
    vm->state->default_limit = s->start.limit;
    return true;
}

#define TIER_FILE_FLAGS (O_RDWR | O_DIRECT | O_CLOEXEC)

/* The manager removes it. */
static int named_tier_file(int dir, const char *name)
{
    int fd = openat(dir, name, O_CREAT | O_EXCL | TIER_FILE_FLAGS, 0600);

    return fd < 0 ? -errno : fd;
}

/* Of another host's pager; its manager removes it, or who claims it. */
static int lent_tier_file(int dir, const char *name)
{
    int fd = openat(dir, name, O_RDONLY | O_DIRECT | O_CLOEXEC | O_NOFOLLOW |
                    O_NONBLOCK);
    struct stat st;

    if (fd < 0) {
        return -errno;
    }
    /* as every pager that takes over is going to want it */
    if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) ||
        (st.st_mode & 0777) != 0600) {
        close(fd);
        return -EINVAL;
    }
    return fd;
}

/* Unnamed from birth where the file system can, else unlinked at once. */
static int unnamed_tier_file(int dir)
{
    /* O_EXCL: it can never be given a name */
    int fd = openat(dir, ".", O_TMPFILE | O_EXCL | TIER_FILE_FLAGS, 0600);

    if (fd < 0 && (errno == EOPNOTSUPP || errno == EISDIR)) {
        g_autofree char *name = g_strdup_printf(".pager-%d", getpid());

        fd = openat(dir, name, O_CREAT | O_EXCL | TIER_FILE_FLAGS, 0600);
        if (fd >= 0) {
            unlinkat(dir, name, 0);
        }
    }
    return fd < 0 ? -errno : fd;
}

/* For people: the manager only hands over a descriptor. */
static char *tier_path(const MmStarting *s, unsigned i)
{
    char target[PATH_MAX];
    g_autofree char *fd = g_strdup_printf("%d", s->tier_dir[i]);
    ssize_t len = readlinkat(s->vm->proc_fd, fd, target, sizeof(target) - 1);

    if (len < 0) {
        return g_strdup("?");
    }
    target[len] = '\0';
    if (g_str_has_suffix(target, " (deleted)")) {
        target[len - strlen(" (deleted)")] = '\0';
    }
    return g_strdup(target);
}

/* A file system may tell anything about a directory that was removed. */
static void tier_file_error(const MmStarting *s, unsigned i, int err,
                            Error **errp)
{
    ERRP_GUARD();
    const char *name = s->tier[i].name;
    g_autofree char *path = tier_path(s, i);
    struct stat st;

    if (fstat(s->tier_dir[i], &st) == 0 && !st.st_nlink) {
        error_setg(errp, "the directory of tier '%s', %s, was removed while "
                   "the memory manager ran; restart the manager, which makes "
                   "it anew", name, path);
        return;
    }
    if (s->tier[i].lent) {
        error_setg_errno(errp, err, "cannot open %s in tier '%s' (%s), where "
                         "the VM's former host has put content",
                         s->tier[i].file, name, path);
        return;
    }
    error_setg_errno(errp, err, "cannot create a file in tier '%s' (%s)",
                     name, path);
    error_append_hint(errp, "The tier's directory has to be writable by the "
                      "memory manager, on a file system that knows "
                      "O_DIRECT.\n");
}

static MmTier *open_compressed(MmStarting *s, unsigned i, Error **errp)
{
    bool is_new = s->tier_fd[i] < 0;
    uint64_t size = mm_tier_compressed_fd_size();
    int fd = is_new ? mm_seal_memfd("managed-pool", size) : s->tier_fd[i];

    if (fd < 0) {
        error_setg_errno(errp, -fd, "cannot create the pool of tier '%s'",
                         s->tier[i].name);
        return NULL;
    }
    return mm_tier_compressed_open(fd, &s->tier[i], &s->vm->id, is_new, errp);
}

static MmTier *open_file(MmStarting *s, unsigned i, Error **errp)
{
    const MmMsgStartTier *conf = &s->tier[i];
    bool is_new = s->tier_fd[i] < 0;
    int fd = !is_new ? s->tier_fd[i]
             : conf->lent ? lent_tier_file(s->tier_dir[i], conf->file)
             : conf->shared ? named_tier_file(s->tier_dir[i], conf->file)
                            : unnamed_tier_file(s->tier_dir[i]);
    MmTier *tier;

    if (fd < 0) {
        tier_file_error(s, i, -fd, errp);
        return NULL;
    }
    tier = mm_tier_file_open(fd, conf, &s->vm->id, is_new, errp);
    if (!tier) {
        close(fd);
    }
    return tier;
}

/*
 * Of a former pager, locks are on the node that QEMU has kept: there may be
 * another one for the device by now.
 */
static int device_fd(MmStarting *s, unsigned i, int claim)
{
    struct stat ours, kept;

    if (s->tier_dir[i] >= 0 && fstat(s->tier_dir[i], &ours) == 0 &&
        fstat(claim, &kept) == 0 && ours.st_dev == kept.st_dev &&
        ours.st_ino == kept.st_ino) {
        return fcntl(s->tier_dir[i], F_DUPFD_CLOEXEC, 0);
    }
    return mm_reopen(s->vm, claim, O_RDWR | O_DIRECT);
}

/*
 * A device that is gone must not hold up pages that lie elsewhere: transfers by
 * the claim fail, like those of any disk that fails.
 */
static int without_device(MmStarting *s, unsigned i, int claim, int err)
{
    mm_vm_event(s->vm, MM_EVENT_IO_ERROR, UINT32_MAX, err,
                "the device of tier '%s' cannot be opened: %s; vCPUs wait for "
                "what is in it, until it is back and another pager is started",
                s->tier[i].name, strerror(err));
    return fcntl(claim, F_DUPFD_CLOEXEC, 0);
}

static MmTier *open_device(MmStarting *s, unsigned i, Error **errp)
{
    bool is_new = s->tier_fd[i] < 0;
    int claim = is_new ? s->tier_claim[i] : s->tier_fd[i];
    int fd = claim < 0 ? -ENODEV : device_fd(s, i, claim);
    MmTier *tier;

    if (fd < 0 && !is_new) {
        fd = without_device(s, i, claim, -fd);
    }
    if (fd < 0) {
        error_setg(errp, "the device of tier '%s' cannot be opened, or is in "
                   "use", s->tier[i].name);
        return NULL;
    }
    tier = mm_tier_file_open(fd, &s->tier[i], &s->vm->id, is_new, errp);
    if (!tier) {
        close(fd);
        return NULL;
    }
    /* if there is a new claim, QEMU has lost the old one */
    tier->hold_fd = fcntl(s->tier_claim[i] >= 0 ? s->tier_claim[i] : claim,
                          F_DUPFD_CLOEXEC, 0);
    if (tier->hold_fd < 0) {
        error_setg_errno(errp, errno, "cannot keep the device of tier '%s'",
                         s->tier[i].name);
        return NULL;
    }
    return tier;
}

static MmTier *open_by_kind(MmStarting *s, unsigned i, Error **errp)
{
    switch (s->tier[i].kind) {
    case MM_TIER_KIND_COMPRESSED:
        return open_compressed(s, i, errp);
    case MM_TIER_KIND_DEVICE:
        return open_device(s, i, errp);
    default:
        return open_file(s, i, errp);
    }
}

static void close_given(int fd)
{
    if (fd >= 0) {
        close(fd);
    }
}

/*
 * A tier that a running VM was to get is not worth the VM: what is in none of
 * the others stays in memory.
 */
static void do_without(MmStarting *s, unsigned i, Error *err)
{
    mm_vm_event(s->vm, MM_EVENT_IO_ERROR, UINT32_MAX, 0,
                "the VM does not get tier '%s': %s", s->tier[i].name,
                error_get_pretty(err));
    error_free(err);
}

static bool open_tier(MmStarting *s, unsigned i, Error **errp)
{
    Error *err = NULL;
    MmTier *tier = open_by_kind(s, i, &err);

    close_given(s->tier_dir[i]);
    close_given(s->tier_claim[i]);
    if (tier) {
        tier->drain = s->tier[i].draining ? MM_DRAIN_GOING : MM_DRAIN_NO;
        mm_vm_add_tier(s->vm, tier);
        if (s->vm->state->pinned && tier->ops->pin_all) {
            tier->ops->pin_all(tier);
        }
    } else if (s->start.resume && s->tier[i].is_new && s->tier_fd[i] < 0) {
        do_without(s, i, err);
    } else {
        error_propagate(errp, err);
        return false;
    }
    return true;
}

/* Where QEMU learns what it may tell another host. */
static void describe_shared(const MmStarting *s)
{
    MmSharedFile *shared = &s->vm->state->shared;
    unsigned i;

    *shared = (MmSharedFile) {};
    for (i = 0; i < s->nr_tiers && !shared->present; i++) {
        const MmMsgStartTier *conf = &s->tier[i];
        const MmTier *tier = s->vm->by_number[conf->number];

        if (tier && tier->ops->pin) {
            shared->tier = conf->number;
            memcpy(shared->storage, conf->storage, sizeof(shared->storage));
            memcpy(shared->id, conf->file_id, sizeof(shared->id));
            memcpy(shared->key, conf->file_key, sizeof(shared->key));
            memcpy(shared->file, conf->file, sizeof(shared->file));
            shared->present = 1;
        }
    }
}

static void resume_limit(MmVM *vm)
{
    vm->limit.unit = mm_control_unit(vm);
    vm->state->limit = mm_control_limit(vm);
    mm_limit_set(&vm->limit, vm->state->limit == MM_LIMIT_NONE
                 ? UINT64_MAX : vm->state->limit / MM_PAGE_SIZE);
}

static bool take_up(MmStarting *s, int control, Error **errp)
{
    MmVM *vm = s->vm;
    unsigned i;

    if (!receive_start(s, control, errp)) {
        return false;
    }
    mm_msg_clear(&s->msg);
    if (s->start.resume ? !mm_resume(s, errp) : !fresh_vm(s, errp)) {
        return false;
    }
    mm_msg_clear(&s->msg);
    for (i = 0; i < s->nr_tiers; i++) {
        if (!open_tier(s, i, errp)) {
            return false;
        }
    }
    describe_shared(s);
    if (s->start.resume) {
        resume_limit(vm);
        mm_vm_resize(vm, 0);
    }
    return true;
}

MmVM *mm_start(int control, Error **errp)
{
    g_autofree MmStarting *s = g_new0(MmStarting, 1);
    MmVM *vm = g_new0(MmVM, 1);
    Error *err = NULL;
    unsigned i;

    s->vm = vm;
    for (i = 0; i < MM_MAX_TIERS; i++) {
        s->tier_fd[i] = -1;
    }
    vm->connection = -1;
    g_mutex_init(&vm->regions_lock);
    g_mutex_init(&vm->events_lock);
    g_mutex_init(&vm->sample_lock);
    g_mutex_init(&vm->places_lock);
    g_cond_init(&vm->places_cond);
    vm->proc_fd = mm_isolation_proc_fd(&err);
    vm->control_wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (vm->proc_fd < 0 || !take_up(s, control, &err)) {
        if (vm->connection >= 0) {
            /* what is left unread would turn our answer into a reset */
            do {
                mm_msg_clear(&s->msg);
            } while (mm_msg_recv(vm->connection, &s->msg, 0) > 0);
            mm_msg_send_error(vm->connection, s->start.hello_seq, EINVAL,
                              error_get_pretty(err));
        }
        error_propagate(errp, err);
        return NULL;
    }
    vm->nodes = mm_nodes_new(vm->qemu_pid);
    vm->hello_seq = s->start.hello_seq;
    vm->proto_version = s->start.version;
    return vm;
}

static int send_hold(MmVM *vm, const MmTier *tier)
{
    MmMsgHold hold = { .kind = tier->ops->hold, .index = tier->number };
    int fd = tier->hold_fd >= 0 ? fcntl(tier->hold_fd, F_DUPFD_CLOEXEC, 0)
                                : mm_reopen(vm, tier->fd, O_PATH);
    int ret;

    if (fd < 0) {
        return fd;
    }
    ret = mm_msg_send(vm->connection, MM_MSG_HOLD, 0, &hold, sizeof(hold),
                      &fd, 1);
    close(fd);
    return ret;
}

static int send_holds(MmVM *vm)
{
    unsigned i;

    for (i = 0; i < vm->nr_dropped; i++) {
        int ret = mm_msg_send(vm->connection, MM_MSG_HOLD, 0, &vm->dropped[i],
                              sizeof(vm->dropped[i]), NULL, 0);

        if (ret < 0) {
            return ret;
        }
    }
    for (i = 0; i < vm->nr_tiers; i++) {
        int ret = send_hold(vm, vm->tiers[i]);

        if (ret < 0) {
            return ret;
        }
    }
    return 0;
}

bool mm_start_reply(MmVM *vm, Error **errp)
{
    MmMsgHelloReply reply = { .version = vm->proto_version };
    int fds[MM_HELLO_FD__MAX];
    int zap[2];
    int ret;

    memcpy(reply.uuid, vm->id.uuid, sizeof(reply.uuid));
    memcpy(reply.cookie, vm->id.cookie, sizeof(reply.cookie));
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, zap) < 0) {
        error_setg_errno(errp, errno, "cannot create the zap channel");
        return false;
    }
    vm->zap_fd = zap[0];
    fds[MM_HELLO_FD_STATE] = mm_reopen(vm, vm->state_fd, O_RDONLY);
    fds[MM_HELLO_FD_RING] = vm->ring_fd;
    fds[MM_HELLO_FD_KICK] = vm->kick_fd;
    fds[MM_HELLO_FD_ZAP] = zap[1];
    fds[MM_HELLO_FD_UFFD_DEV] = vm->uffd_dev;
    ret = fds[MM_HELLO_FD_STATE] < 0 ? fds[MM_HELLO_FD_STATE]
                                     : send_holds(vm);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "cannot hand QEMU what it has to keep");
        return false;
    }
    ret = mm_msg_send(vm->connection, MM_MSG_HELLO_REPLY, vm->hello_seq,
                      &reply, sizeof(reply), fds,
                      vm->uffd_dev >= 0 ? MM_HELLO_FD__MAX
                                        : MM_HELLO_FD_UFFD_DEV);
    close(fds[MM_HELLO_FD_STATE]);
    close(zap[1]);
    if (vm->uffd_dev >= 0) {
        close(vm->uffd_dev);
        vm->uffd_dev = -1;
    }
    if (ret < 0) {
        error_setg_errno(errp, -ret, "QEMU is gone");
        return false;
    }
    if (vm->lost_ns) {
        vm->state->stats.last_stall_ns =
            g_get_monotonic_time() * 1000 - vm->lost_ns;
    }
    qatomic_set(&vm->serving, true);
    return true;
}
