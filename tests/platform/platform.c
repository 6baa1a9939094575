/*
 * Shared helpers of the kernel-fact programs (see platform.h)
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#define _GNU_SOURCE
#include "platform.h"

#include <dirent.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

static void print_line(const char *prefix, const char *fmt, va_list ap)
{
    fputs(prefix, stdout);
    vprintf(fmt, ap);
    putchar('\n');
    fflush(stdout);
}

void fact_info(const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    print_line("", fmt, ap);
    va_end(ap);
}

void fact_skip(const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    print_line("SKIP: ", fmt, ap);
    va_end(ap);
    _exit(FACT_SKIP);
}

void fact_fail_at(const char *file, int line, const char *fmt, ...)
{
    char prefix[256];
    va_list ap;

    snprintf(prefix, sizeof(prefix), "FAIL: %s:%d: ", file, line);
    va_start(ap, fmt);
    print_line(prefix, fmt, ap);
    va_end(ap);
    _exit(FACT_BROKEN);
}

/* Memory */

int memfd_new(size_t bytes)
{
    int fd = SYS(memfd_create("fact", MFD_CLOEXEC | MFD_ALLOW_SEALING));

    SYS(ftruncate(fd, bytes));
    return fd;
}

uint8_t *map_shared(int fd, size_t bytes)
{
    void *addr = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

    FACT_CHECK(addr != MAP_FAILED, "mmap: %s", strerror(errno));
    return addr;
}

uint8_t *page_alloc(size_t pages, int value)
{
    uint8_t *buf = aligned_alloc(PAGE_BYTES, pages * PAGE_BYTES);

    FACT_CHECK(buf, "out of memory");
    return memset(buf, value, pages * PAGE_BYTES);
}

void punch(int fd, size_t page, size_t pages)
{
    SYS(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                  page * PAGE_BYTES, pages * PAGE_BYTES));
}

bool page_present(int fd, size_t page)
{
    off_t at = page * PAGE_BYTES;
    off_t data = lseek(fd, at, SEEK_DATA);

    FACT_CHECK(data >= 0 || errno == ENXIO, "SEEK_DATA: %s", strerror(errno));
    return data == at;
}

size_t allocated_pages(int fd)
{
    struct stat st;

    SYS(fstat(fd, &st));
    return st.st_blocks * (size_t)512 / PAGE_BYTES;
}

void read_page(int fd, size_t page, void *buf)
{
    ssize_t n = pread(fd, buf, PAGE_BYTES, page * PAGE_BYTES);

    FACT_CHECK(n == (ssize_t)PAGE_BYTES, "pread of page %zu: %zd", page, n);
}

uint8_t load_byte(const void *addr)
{
    return __atomic_load_n((const uint8_t *)addr, __ATOMIC_SEQ_CST);
}

void store_byte(void *addr, uint8_t value)
{
    __atomic_store_n((uint8_t *)addr, value, __ATOMIC_SEQ_CST);
}

/* userfaultfd */

void uffd_handshake(int uffd, uint64_t features)
{
    struct uffdio_api api = { .api = UFFD_API, .features = features };

    if (ioctl(uffd, UFFDIO_API, &api)) {
        fact_skip("this kernel lacks a userfaultfd feature out of 0x%llx: %s",
                  (unsigned long long)features, strerror(errno));
    }
}

int uffd_open(uint64_t features)
{
    int uffd = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);

    if (uffd < 0) {
        fact_skip("no userfaultfd: %s (run as root, or set "
                  "vm.unprivileged_userfaultfd=1)", strerror(errno));
    }
    uffd_handshake(uffd, features);
    return uffd;
}

int uffd_open_missing_minor(void)
{
    return uffd_open(UFFD_FEATURE_MISSING_SHMEM | UFFD_FEATURE_MINOR_SHMEM);
}

void uffd_register(int uffd, void *addr, size_t bytes, uint64_t mode)
{
    struct uffdio_register reg = {
        .range = { (uintptr_t)addr, bytes },
        .mode = mode,
    };

    SYS(ioctl(uffd, UFFDIO_REGISTER, &reg));
}

bool uffd_next(int uffd, struct uffd_msg *msg, int timeout_ms)
{
    int64_t deadline = now_ns() + timeout_ms * (int64_t)1000000;
    int left = timeout_ms;

    while (left >= 0) {
        struct pollfd pfd = { .fd = uffd, .events = POLLIN };

        if (poll(&pfd, 1, left) > 0 &&
            read(uffd, msg, sizeof(*msg)) == (ssize_t)sizeof(*msg)) {
            return true;
        }
        if (now_ns() >= deadline) {
            return false;
        }
        left = (deadline - now_ns()) / 1000000;
    }
    return false;
}

/* Translate the signed byte count of a fill ioctl into pages and -errno. */
static int fill_result(int ret, int64_t bytes, size_t *done)
{
    int err = ret ? -errno : 0;

    if (done) {
        *done = bytes > 0 ? bytes / PAGE_BYTES : 0;
    }
    return err;
}

int uffd_copy(int uffd, void *dst, const void *src, size_t pages,
              uint64_t mode, size_t *done)
{
    struct uffdio_copy copy = {
        .dst = (uintptr_t)dst,
        .src = (uintptr_t)src,
        .len = pages * PAGE_BYTES,
        .mode = mode,
    };
    int ret = ioctl(uffd, UFFDIO_COPY, &copy);

    return fill_result(ret, copy.copy, done);
}

int uffd_continue(int uffd, void *addr, size_t pages, uint64_t mode,
                  size_t *done)
{
    struct uffdio_continue cont = {
        .range = { (uintptr_t)addr, pages * PAGE_BYTES },
        .mode = mode,
    };
    int ret = ioctl(uffd, UFFDIO_CONTINUE, &cont);

    return fill_result(ret, cont.mapped, done);
}

void uffd_wake(int uffd, void *addr, size_t pages)
{
    struct uffdio_range range = { (uintptr_t)addr, pages * PAGE_BYTES };

    SYS(ioctl(uffd, UFFDIO_WAKE, &range));
}

uint8_t *msg_page(const struct uffd_msg *msg)
{
    FACT_CHECK(msg->event == UFFD_EVENT_PAGEFAULT,
               "expected a page fault, got event 0x%x", msg->event);
    return (uint8_t *)(uintptr_t)(msg->arg.pagefault.address &
                                  ~(uint64_t)(PAGE_BYTES - 1));
}

bool msg_is_minor(const struct uffd_msg *msg)
{
    return msg->arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_MINOR;
}

static void *toucher_thread(void *opaque)
{
    Toucher *t = opaque;

    atomic_store(&t->tid, (int)syscall(SYS_gettid));
    t->value = load_byte(t->addr);
    atomic_store(&t->done, true);
    return NULL;
}

void toucher_start(Toucher *t, const uint8_t *addr)
{
    memset(t, 0, sizeof(*t));
    t->addr = addr;
    FACT_CHECK(!pthread_create(&t->thread, NULL, toucher_thread, t),
               "cannot create a thread");
    pthread_detach(t->thread);
}

bool toucher_returned(Toucher *t, int timeout_ms)
{
    for (int ms = 0; ms < timeout_ms && !atomic_load(&t->done); ms++) {
        sleep_ms(1);
    }
    return atomic_load(&t->done);
}

/* Processes */

static void die_with_parent(pid_t parent)
{
    SYS(prctl(PR_SET_PDEATHSIG, SIGKILL));
    if (getppid() != parent) {
        _exit(FACT_BROKEN);
    }
}

pid_t child_start(void)
{
    pid_t parent = getpid();
    pid_t pid = SYS(fork());

    if (pid == 0) {
        die_with_parent(parent);
    }
    return pid;
}

int child_wait(pid_t pid)
{
    int status;

    SYS(waitpid(pid, &status, 0));
    return status;
}

void child_expect_success(pid_t pid)
{
    int status = child_wait(pid);

    FACT_CHECK(WIFEXITED(status), "a child process died of signal %d",
               WTERMSIG(status));
    if (WEXITSTATUS(status) != FACT_HOLDS) {
        _exit(WEXITSTATUS(status));
    }
}

void child_kill(pid_t pid)
{
    SYS(kill(pid, SIGKILL));
    child_wait(pid);
}

void become_nobody(void)
{
    pid_t parent = getppid();

    SYS(setgroups(0, NULL));
    SYS(setresgid(NOBODY_UID, NOBODY_UID, NOBODY_UID));
    SYS(setresuid(NOBODY_UID, NOBODY_UID, NOBODY_UID));
    /* A change of credentials clears the death signal. */
    die_with_parent(parent);
}

void need_root(const char *why)
{
    if (geteuid() != 0) {
        fact_skip("needs root: %s", why);
    }
}

void send_fd(int sock, int fd)
{
    char token = 'f';
    struct iovec iov = { &token, 1 };
    char control[CMSG_SPACE(sizeof(int))] = { 0 };
    struct msghdr msg = {
        .msg_iov = &iov,
        .msg_iovlen = 1,
        .msg_control = control,
        .msg_controllen = sizeof(control),
    };
    struct cmsghdr *c = CMSG_FIRSTHDR(&msg);

    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(c), &fd, sizeof(int));
    SYS(sendmsg(sock, &msg, 0));
}

int recv_fd(int sock)
{
    char token;
    struct iovec iov = { &token, 1 };
    char control[CMSG_SPACE(sizeof(int))] = { 0 };
    struct msghdr msg = {
        .msg_iov = &iov,
        .msg_iovlen = 1,
        .msg_control = control,
        .msg_controllen = sizeof(control),
    };
    struct cmsghdr *c;
    int fd;

    SYS(recvmsg(sock, &msg, MSG_CMSG_CLOEXEC));
    c = CMSG_FIRSTHDR(&msg);
    FACT_CHECK(c, "the peer sent no descriptor");
    memcpy(&fd, CMSG_DATA(c), sizeof(int));
    return fd;
}

void send_token(int fd)
{
    SYS(write(fd, "t", 1));
}

bool wait_token(int fd)
{
    struct pollfd pfd = { .fd = fd, .events = POLLIN };
    char token;

    FACT_CHECK(poll(&pfd, 1, PATIENCE_MS) > 0, "the other process is stuck");
    return read(fd, &token, 1) == 1;
}

const char *scratch_dir(void)
{
    const char *dir = getenv("TMPDIR");

    return dir && *dir ? dir : ".";
}

int scratch_file(int extra_flags)
{
    int fd = open(scratch_dir(), O_RDWR | O_TMPFILE | O_CLOEXEC | extra_flags,
                  0600);

    if (fd < 0) {
        fact_skip("no unnamed file with these flags in %s: %s (set TMPDIR to "
                  "a folder on a local disk)", scratch_dir(), strerror(errno));
    }
    return fd;
}

void scratch_folder(char *path, size_t size)
{
    snprintf(path, size, "%s/core-XXXXXX", scratch_dir());
    FACT_CHECK(mkdtemp(path), "mkdtemp: %s", strerror(errno));
}

void scratch_folder_remove(const char *path)
{
    DIR *dir = opendir(path);
    struct dirent *entry;

    FACT_CHECK(dir, "opendir: %s", strerror(errno));
    while ((entry = readdir(dir))) {
        unlinkat(dirfd(dir), entry->d_name, 0);
    }
    closedir(dir);
    SYS(rmdir(path));
}

/* Time */

int64_t now_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return ts.tv_sec * (int64_t)1000000000 + ts.tv_nsec;
}

void sleep_ms(int ms)
{
    struct timespec ts = { ms / 1000, ms % 1000 * 1000000L };

    nanosleep(&ts, NULL);
}
