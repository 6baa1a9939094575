/*
 * Torture tests: the manager's side of one VM
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The pager is started with posix_spawn(), since this process has guest
 * memory registered with a userfaultfd and threads that wait for faults: a
 * fork would copy page tables for nothing.  All our descriptors are
 * close-on-exec; the pager gets its control socket as CHILD_CONTROL_FD.
 */
#include "qemu/osdep.h"
#include <glib/gstdio.h>
#include <poll.h>
#include <spawn.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include "qemu/cutils.h"
#include "qemu/lockable.h"
#include "qapi/error.h"
#include "fake-manager.h"
#include "torture.h"
#include "without-uring.h"

#define CHILD_CONTROL_FD 3
#define CHILD_COUNT_FD 4
#define CHILD_HEAL_FD 5

static unsigned nr_managers;    /* atomic: makes the names unique */

static void make_identity(FakeManager *fm)
{
    unsigned nr = qatomic_fetch_inc(&nr_managers);
    int i;

    snprintf(fm->name, sizeof(fm->name), "torture-%d-%u", getpid(), nr);
    for (i = 0; i < MM_UUID_LEN; i++) {
        fm->uuid[i] = g_random_int();
        fm->cookie[i] = g_random_int();
    }
}

/* The compressed one comes first and has not the first number. */
static void configured_tiers(FakeManager *fm)
{
    const MmMsgStartTier compressed = {
        .number = 1,
        .kind = MM_TIER_KIND_COMPRESSED,
        .algorithm = fm->config.algorithm,
        .size = fm->config.compressed_size,
        .name = "compressed",
    };
    const MmMsgStartTier file = {
        .overcommit = fm->config.overcommit,
        .size = fm->config.tier_size,
        .name = "torture",
    };

    if (compressed.size) {
        fm->tiers[fm->nr_tiers++] = compressed;
    }
    fm->tiers[fm->nr_tiers++] = file;
}

FakeManager *fake_manager_new(const PagerConfig *config)
{
    FakeManager *fm = g_new0(FakeManager, 1);

    qemu_mutex_init(&fm->lock);
    qemu_mutex_init(&fm->control_lock);
    fm->config = *config;
    fm->control = -1;
    fm->count_fd = fm->heal_fd = -1;
    make_identity(fm);
    fm->dir = g_strdup_printf("%s/run-XXXXXX", torture_dir());
    g_assert(g_mkdtemp(fm->dir));
    fm->own_tier_dir = !config->tier_dir;
    fm->tier_dir = fm->own_tier_dir ? g_strdup_printf("%s/tier", fm->dir)
                                    : g_strdup(config->tier_dir);
    if (fm->own_tier_dir) {
        g_assert(g_mkdir(fm->tier_dir, 0700) == 0);
    }
    configured_tiers(fm);
    return fm;
}

MmMsgStartTier *fake_manager_tier(FakeManager *fm, unsigned number)
{
    unsigned i;

    for (i = 0; i < fm->nr_tiers; i++) {
        if (fm->tiers[i].number == number) {
            return &fm->tiers[i];
        }
    }
    g_assert_not_reached();
}

void fake_manager_add_tier(FakeManager *fm, unsigned number, uint64_t size)
{
    MmMsgStartTier *tier = &fm->tiers[0];

    g_assert(fm->nr_tiers < MM_MAX_TIERS);
    memmove(tier + 1, tier, fm->nr_tiers++ * sizeof(*tier));
    *tier = (MmMsgStartTier) {
        .number = number, .is_new = 1, .kind = MM_TIER_KIND_FILE, .size = size,
    };
    snprintf(tier->name, sizeof(tier->name), "added-%u", number);
}

void fake_manager_remove_tier(FakeManager *fm, unsigned number)
{
    MmMsgStartTier *tier = fake_manager_tier(fm, number);

    fm->nr_tiers--;
    memmove(tier, tier + 1, (fm->tiers + fm->nr_tiers - tier) * sizeof(*tier));
}

static char *lock_path(FakeManager *fm)
{
    return g_strdup_printf("%s/vm.lock", fm->dir);
}

static char *socket_path(FakeManager *fm)
{
    return g_strdup_printf("%s/vm.sock", fm->dir);
}

void fake_manager_arm(FakeManager *fm, const char *failpoint)
{
    g_free(fm->failpoint);
    fm->failpoint = g_strdup(failpoint);
    if (fm->heal_fd >= 0) {
        close(fm->heal_fd);
    }
    fm->heal_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
}

void fake_manager_heal(FakeManager *fm)
{
    uint64_t one = 1;

    g_assert(write(fm->heal_fd, &one, sizeof(one)) == sizeof(one));
}

static void disarm(FakeManager *fm)
{
    g_clear_pointer(&fm->failpoint, g_free);
    fm->count_fd = -1;
}

bool fake_manager_free(FakeManager *fm)
{
    g_autofree char *lock = lock_path(fm);
    g_autofree char *socket = socket_path(fm);
    bool clean = true, wanted;

    fake_manager_kill(fm);
    if (fm->pid) {
        fake_manager_reap(fm, -1, &wanted);
    }
    if (fm->control >= 0) {
        close(fm->control);
    }
    unlink(lock);
    unlink(socket);
    if (fm->own_tier_dir && rmdir(fm->tier_dir)) {
        g_printerr("%s: left behind: %s\n", fm->tier_dir, strerror(errno));
        clean = false;
    }
    if (rmdir(fm->dir)) {
        g_printerr("%s: left behind: %s\n", fm->dir, strerror(errno));
        clean = false;
    }
    qemu_mutex_destroy(&fm->lock);
    qemu_mutex_destroy(&fm->control_lock);
    disarm(fm);
    if (fm->heal_fd >= 0) {
        close(fm->heal_fd);
    }
    g_free(fm->tier_dir);
    g_free(fm->dir);
    g_free(fm);
    return clean;
}

/* Held by no living process but the pager, once we have closed our copy. */
static int open_lock(FakeManager *fm, Error **errp)
{
    g_autofree char *path = lock_path(fm);
    struct flock fl = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
    int fd;

    g_assert(mkfifo(path, 0600) == 0 || errno == EEXIST);
    fd = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0 || fcntl(fd, F_OFD_SETLK, &fl)) {
        error_setg_errno(errp, errno, "lock of the dead pager still held");
        if (fd >= 0) {
            close(fd);
        }
        return -1;
    }
    return fd;
}

static int open_listener(FakeManager *fm)
{
    g_autofree char *path = socket_path(fm);
    struct sockaddr_un sun = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    unlink(path);
    pstrcpy(sun.sun_path, sizeof(sun.sun_path), path);
    g_assert(fd >= 0);
    g_assert(bind(fd, (struct sockaddr *)&sun, sizeof(sun)) == 0);
    g_assert(listen(fd, 8) == 0);
    return fd;
}

int fake_manager_connect(FakeManager *fm, int flags)
{
    g_autofree char *path = socket_path(fm);
    struct sockaddr_un sun = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | flags, 0);

    pstrcpy(sun.sun_path, sizeof(sun.sun_path), path);
    g_assert(fd >= 0);
    if (connect(fd, (struct sockaddr *)&sun, sizeof(sun))) {
        close(fd);
        return -1;
    }
    return fd;
}

static char **pager_environ(FakeManager *fm)
{
    char **env = g_get_environ();

    if (fm->failpoint) {
        env = g_environ_setenv(env, "MM_FAILPOINT", fm->failpoint, true);
        env = g_environ_setenv(env, "MM_FAILPOINT_HEAL_FD",
                               stringify(CHILD_HEAL_FD), true);
    }
    if (fm->config.mutation) {
        env = g_environ_setenv(env, "MM_MUTATION", fm->config.mutation, true);
    }
    if (fm->config.jail_probe) {
        env = g_environ_setenv(env, "MM_JAIL_PROBE", fm->config.jail_probe,
                               true);
    }
    if (fm->count_fd >= 0) {
        env = g_environ_setenv(env, "MM_FAILPOINT_COUNT_FD",
                               stringify(CHILD_COUNT_FD), true);
    }
    return env;
}

static bool spawn_pager(FakeManager *fm, int control, Error **errp)
{
    const char *binary = fm->config.binary ?: torture_pager();
    g_autofree char *self = g_file_read_link("/proc/self/exe", NULL);
    char *wrapped[] = { self, (char *)WITHOUT_URING_OPTION, (char *)binary,
                        (char *)"--control",
                        (char *)stringify(CHILD_CONTROL_FD), NULL };
    char **argv = fm->config.no_uring ? wrapped : wrapped + 2;
    g_auto(GStrv) env = pager_environ(fm);
    posix_spawn_file_actions_t actions;
    pid_t pid;
    int ret;

    posix_spawn_file_actions_init(&actions);
    if (fm->count_fd >= 0) {
        posix_spawn_file_actions_adddup2(&actions, fm->count_fd,
                                         CHILD_COUNT_FD);
    }
    if (fm->failpoint) {
        posix_spawn_file_actions_adddup2(&actions, fm->heal_fd,
                                         CHILD_HEAL_FD);
    }
    posix_spawn_file_actions_adddup2(&actions, control, CHILD_CONTROL_FD);
    QEMU_LOCK_GUARD(&fm->lock);
    g_assert(!fm->pid);
    ret = posix_spawn(&pid, argv[0], &actions, NULL, argv, env);
    posix_spawn_file_actions_destroy(&actions);
    disarm(fm);
    if (ret) {
        error_setg_errno(errp, ret, "cannot start %s", binary);
        return false;
    }
    fm->pid = pid;
    fm->death_wanted = false;
    qatomic_inc(&fm->nr_starts);
    return true;
}

/* Of files, all pagers but the first get only the new ones from us. */
static void send_start_tiers(FakeManager *fm, int control, bool resume)
{
    int dir = open(fm->tier_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    struct stat st;
    unsigned i;

    for (i = 0; i < fm->nr_tiers; i++) {
        MmMsgStartTier *tier = &fm->tiers[i];
        bool is_file = tier->kind == MM_TIER_KIND_FILE;

        bool with_dir = is_file && (tier->is_new || !resume);

        if (with_dir) {
            g_assert(dir >= 0 && fstat(dir, &st) == 0);
            tier->device = st.st_dev;
        }
        mm_msg_send(control, MM_MSG_START_TIER, 0, tier, sizeof(*tier), &dir,
                    with_dir);
    }
    if (dir >= 0) {
        close(dir);
    }
}

static MmMsgStart start_message(FakeManager *fm, bool resume,
                                uint64_t hello_seq)
{
    MmMsgStart start = {
        .version = MM_PROTO_VERSION_MAX,
        .resume = resume,
        .hello_seq = hello_seq,
        .qemu_pid = getpid(),
        .qemu_uid = getuid(),
        .limit = fm->config.limit ?: MM_LIMIT_NONE,
        .sample_interval_ns = fm->config.sample_ms * 1000000ULL,
    };

    memcpy(start.uuid, fm->uuid, sizeof(start.uuid));
    memcpy(start.cookie, fm->cookie, sizeof(start.cookie));
    pstrcpy(start.name, sizeof(start.name), fm->name);
    return start;
}

static void replace_control(FakeManager *fm, int control)
{
    QEMU_LOCK_GUARD(&fm->control_lock);
    if (fm->control >= 0) {
        close(fm->control);
    }
    fm->control = control;
    memset(&fm->info, 0, sizeof(fm->info));
}

bool fake_manager_start(FakeManager *fm, int connection, bool resume,
                        uint64_t hello_seq, Error **errp)
{
    MmMsgStart start = start_message(fm, resume, hello_seq);
    int fds[MM_START_FD__MAX];
    int pair[2];
    int nr_fds = MM_START_FD_UFFD_DEV;
    int i;
    bool ok;

    fds[MM_START_FD_CONNECTION] = connection;
    fds[MM_START_FD_LOCK] = open_lock(fm, errp);
    if (fds[MM_START_FD_LOCK] < 0) {
        close(connection);
        return false;
    }
    fds[MM_START_FD_LISTEN] = open_listener(fm);
    fds[MM_START_FD_UFFD_DEV] = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
    if (fds[MM_START_FD_UFFD_DEV] >= 0) {
        nr_fds++;
    }
    g_assert(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) == 0);
    replace_control(fm, pair[0]);
    ok = spawn_pager(fm, pair[1], errp);
    close(pair[1]);
    if (ok) {
        /* a pager that dies at once is noticed on the connection */
        send_start_tiers(fm, pair[0], resume);
        mm_msg_send(pair[0], MM_MSG_START, 0, &start, sizeof(start), fds,
                    nr_fds);
    }
    for (i = 0; i < nr_fds; i++) {
        close(fds[i]);
    }
    return ok;
}

/* Returns 1 if @msg answers @seq, 0 if it is something else, -errno. */
static int control_recv(FakeManager *fm, uint64_t seq, MmMsg *msg,
                        int timeout_ms)
{
    int ret = mm_msg_recv(fm->control, msg, timeout_ms);

    if (ret <= 0) {
        return ret == 0 || ret == -EPIPE ? -ECONNRESET : ret;
    }
    if (msg->hdr.type == MM_MSG_CONTROL_INFO) {
        memcpy(&fm->info, msg->payload, sizeof(fm->info));
    }
    return msg->hdr.seq == seq;
}

static int control_wait(FakeManager *fm, uint64_t seq, MmMsg *reply,
                        int timeout_ms)
{
    int64_t end = torture_now_us() + timeout_ms * 1000LL;

    for (;;) {
        int left = MAX((end - torture_now_us()) / 1000, 0);
        int ret = control_recv(fm, seq, reply, left);

        if (ret) {
            return MIN(ret, 0);
        }
        mm_msg_clear(reply);
    }
}

int fake_manager_request(FakeManager *fm, const FakeRequest *rq,
                         MmMsg *reply)
{
    int ret;

    reply->nr_fds = 0;
    QEMU_LOCK_GUARD(&fm->control_lock);
    ret = mm_msg_send(fm->control, rq->type, ++fm->seq, rq->payload, rq->len,
                      rq->fd, rq->fd != NULL);
    if (ret) {
        return -ECONNRESET;
    }
    return control_wait(fm, fm->seq, reply, FAKE_REQUEST_MS);
}

bool fake_manager_query(FakeManager *fm, MmMsgQueryReply *reply)
{
    const FakeRequest rq = { .type = MM_MSG_QUERY };
    MmMsg msg;
    bool ok;

    ok = fake_manager_request(fm, &rq, &msg) == 0 &&
         msg.hdr.type == MM_MSG_QUERY_REPLY;
    if (ok) {
        memcpy(reply, msg.payload, sizeof(*reply));
    }
    mm_msg_clear(&msg);
    return ok;
}

bool fake_manager_set_limit(FakeManager *fm, uint64_t bytes)
{
    const MmMsgAmount amount = { .value = bytes };
    const FakeRequest rq = { MM_MSG_SET_LIMIT, &amount, sizeof(amount) };
    MmMsg msg;
    bool ok;

    ok = fake_manager_request(fm, &rq, &msg) == 0 &&
         msg.hdr.type == MM_MSG_OK;
    mm_msg_clear(&msg);
    return ok;
}

bool fake_manager_wait_serving(FakeManager *fm, int timeout_ms)
{
    const FakeRequest rq = { .type = MM_MSG_CONTROL_HELLO };
    int64_t end = torture_now_us() + timeout_ms * 1000LL;
    MmMsg msg;

    while (torture_now_us() < end) {
        if (fake_manager_request(fm, &rq, &msg)) {
            mm_msg_clear(&msg);
            return false;
        }
        mm_msg_clear(&msg);
        if (fm->info.serving) {
            return true;
        }
        g_usleep(1000);
    }
    return false;
}

void fake_manager_kill(FakeManager *fm)
{
    QEMU_LOCK_GUARD(&fm->lock);
    if (fm->pid) {
        fm->death_wanted = true;
        kill(fm->pid, SIGKILL);
    }
}

static bool wait_pid(pid_t pid, int timeout_ms)
{
    struct pollfd pfd = {
        .fd = syscall(SYS_pidfd_open, pid, 0),
        .events = POLLIN,
    };
    int ret;

    g_assert(pfd.fd >= 0);
    ret = TEMP_FAILURE_RETRY(poll(&pfd, 1, timeout_ms));
    close(pfd.fd);
    return ret == 1;
}

int fake_manager_reap(FakeManager *fm, int timeout_ms, bool *wanted)
{
    pid_t pid = fake_manager_pid(fm);
    int status;

    g_assert(pid);
    if (!wait_pid(pid, timeout_ms)) {
        return -1;
    }
    QEMU_LOCK_GUARD(&fm->lock);
    g_assert(TEMP_FAILURE_RETRY(waitpid(pid, &status, 0)) == pid);
    *wanted = fm->death_wanted;
    fm->pid = 0;
    return status;
}

int fake_manager_control(FakeManager *fm)
{
    return fm->control;
}

pid_t fake_manager_pid(FakeManager *fm)
{
    QEMU_LOCK_GUARD(&fm->lock);
    return fm->pid;
}

char *describe_status(int status)
{
    if (WIFSIGNALED(status)) {
        return g_strdup_printf("signal %d (%s)", WTERMSIG(status),
                               strsignal(WTERMSIG(status)));
    }
    return g_strdup_printf("exit status %d", WEXITSTATUS(status));
}
