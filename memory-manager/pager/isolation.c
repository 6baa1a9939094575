/*
 * Managed memory pager: giving up rights
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A guest that breaks QEMU can send the pager whatever it likes; a pager that
 * is broken in turn must not be worth more than the guest's own memory.  In
 * stages:
 *
 *  1 start       undumpable, no new privileges
 *  2 namespaces  own mount namespace with an empty root, own network and IPC
 *                namespaces without anything in them, no capabilities
 *  3 seccomp     the system calls of a serving pager; no path can be opened
 *                but descriptors of our own and the state of QEMU's threads,
 *                no process started, no other process touched.  io_uring is
 *                restricted by its rings.
 *
 * A manager without root rights gives its pagers a user namespace for this.
 */
#include "qemu/osdep.h"
#include <link.h>
#include <linux/userfaultfd.h>
#include <sched.h>
#include <seccomp.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <linux/capability.h>
#include "qemu/error-report.h"
#include "qapi/error.h"
#include "isolation.h"

#ifndef UFFDIO_POISON
#define UFFDIO_POISON _IOWR(UFFDIO, 0x08, struct uffdio_zeropage)
#endif
#ifndef PR_SET_IO_FLUSHER
#define PR_SET_IO_FLUSHER 57
#endif
#ifndef OPEN_TREE_CLONE
#define OPEN_TREE_CLONE 1
#define OPEN_TREE_CLOEXEC O_CLOEXEC
#endif

#define LIBRARY_CACHE "/etc/ld.so.cache"

void mm_isolation_harden(void)
{
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
    /* we are part of the way to free memory: do not wait for that way */
    prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0);
    umask(077);
}

static void map_for_good(const char *path, off_t offset, size_t size)
{
    off_t first = QEMU_ALIGN_DOWN(offset, qemu_real_host_page_size());
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    /* what cannot be had is not locked, and that is all */
    if (fd >= 0) {
        mmap(NULL, size + (offset - first), PROT_READ, MAP_SHARED, fd, first);
        close(fd);
    }
}

/* What a program writes to is a copy of its own: the file's page is another. */
static int map_data(struct dl_phdr_info *info, size_t size, void *opaque)
{
    const char *path = info->dlpi_name[0] ? info->dlpi_name : "/proc/self/exe";
    int i;

    for (i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *p = &info->dlpi_phdr[i];

        if (p->p_type == PT_LOAD && (p->p_flags & PF_W) && p->p_filesz) {
            map_for_good(path, p->p_offset, p->p_filesz);
        }
    }
    return 0;
}

/*
 * The program may lie on the disk that does not answer, and so would wait what
 * a successor runs first.  As long as a pager has it locked, both have it, with
 * its libraries and the list by which these are found.
 * Without the right to lock, our buffers need what one may lock all the same.
 */
void mm_isolation_lock_program(void)
{
    struct stat st;

    if (geteuid() == 0) {
        dl_iterate_phdr(map_data, NULL);
        if (stat(LIBRARY_CACHE, &st) == 0) {
            map_for_good(LIBRARY_CACHE, 0, st.st_size);
        }
        mlockall(MCL_CURRENT);
    }
}

/* With our own user in it, so that ownership of files can still be told. */
static bool own_user_namespace(void)
{
    g_autofree char *map = g_strdup_printf("%d %d 1", geteuid(), geteuid());
    int fd;
    bool ok;

    if (unshare(CLONE_NEWUSER) < 0) {
        return false;
    }
    fd = open("/proc/self/uid_map", O_WRONLY | O_CLOEXEC);
    ok = fd >= 0 && write(fd, map, strlen(map)) == strlen(map);
    if (fd >= 0) {
        close(fd);
    }
    return ok;
}

int mm_isolation_detach(const char *path)
{
    int fd = syscall(__NR_open_tree, AT_FDCWD, path,
                     OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);

    return fd < 0 ? -errno : fd;
}

int mm_isolation_proc_fd(Error **errp)
{
    int fd;

    if (geteuid() != 0 && !own_user_namespace()) {
        error_setg_errno(errp, errno, "cannot create a user namespace");
        return -1;
    }
    if (unshare(CLONE_NEWNS) < 0) {
        error_setg_errno(errp, errno, "cannot create a mount namespace");
        return -1;
    }
    fd = mm_isolation_detach("/proc/self/fd");
    if (fd < 0) {
        error_setg_errno(errp, -fd, "cannot detach /proc/self/fd");
    }
    return fd;
}

/* Mounts of ours are not seen outside. */
static int make_private(void)
{
    if (mount(NULL, "/", NULL, MS_PRIVATE | MS_REC, NULL) == 0) {
        return 0;
    }
    /* EINVAL: our root is a folder that nothing is mounted on (chroot) */
    return errno == EINVAL ? mount(NULL, "/proc", NULL, MS_PRIVATE | MS_REC,
                                   NULL) : -1;
}

/* The current folder is the root; what was mounted is out of reach. */
static int enter_root(void)
{
    if (syscall(__NR_pivot_root, ".", ".") == 0) {
        return umount2(".", MNT_DETACH);
    }
    /* the same as above; without capabilities there is no way back, either */
    return errno == EINVAL ? chroot(".") : -1;
}

/* An empty, read-only root. */
static int empty_root(void)
{
    const char *dir = "/proc/self/fdinfo";

    if (make_private() < 0 ||
        mount("tmpfs", dir, "tmpfs",
              MS_NOSUID | MS_NODEV | MS_NOEXEC, "size=0,mode=0500") < 0 ||
        chdir(dir) < 0 || enter_root() < 0 ||
        mount(NULL, "/", NULL,
              MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV |
              MS_NOEXEC, NULL) < 0 ||
        chdir("/") < 0) {
        return -errno;
    }
    return 0;
}

static int drop_capabilities(void)
{
    struct __user_cap_header_struct hdr = {
        .version = _LINUX_CAPABILITY_VERSION_3,
    };
    struct __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = {};
    int cap;

    for (cap = 0; prctl(PR_CAPBSET_READ, cap, 0, 0, 0) >= 0; cap++) {
        if (prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) < 0) {
            return -errno;
        }
    }
    return syscall(SYS_capset, &hdr, none) < 0 ? -errno : 0;
}

bool mm_isolation_namespaces(Error **errp)
{
    int ret;

    if (unshare(CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS) < 0) {
        error_setg_errno(errp, errno, "cannot create namespaces");
        return false;
    }
    ret = empty_root();
    if (ret < 0) {
        error_setg_errno(errp, -ret, "cannot set up an empty root");
        return false;
    }
    ret = drop_capabilities();
    if (ret < 0) {
        error_setg_errno(errp, -ret, "cannot drop capabilities");
        return false;
    }
    return true;
}

/* With any arguments. */
static const int allowed[] = {
    SCMP_SYS(accept4), SCMP_SYS(brk), SCMP_SYS(clock_gettime),
    SCMP_SYS(epoll_ctl),
    SCMP_SYS(epoll_wait), SCMP_SYS(epoll_pwait), SCMP_SYS(exit),
    SCMP_SYS(exit_group),
    SCMP_SYS(fallocate), SCMP_SYS(fchmod), SCMP_SYS(fcntl), SCMP_SYS(fstat),
    SCMP_SYS(fstatfs), SCMP_SYS(ftruncate), SCMP_SYS(futex),
    SCMP_SYS(getpid), SCMP_SYS(getrandom), SCMP_SYS(gettid),
    SCMP_SYS(io_uring_enter), SCMP_SYS(lseek), SCMP_SYS(madvise),
    SCMP_SYS(memfd_create), SCMP_SYS(mlock), SCMP_SYS(mremap), SCMP_SYS(munmap),
    SCMP_SYS(newfstatat), SCMP_SYS(poll), SCMP_SYS(ppoll),
    SCMP_SYS(pread64), SCMP_SYS(pwrite64), SCMP_SYS(read),
    SCMP_SYS(readv), SCMP_SYS(recvmsg), SCMP_SYS(restart_syscall),
    SCMP_SYS(rseq), SCMP_SYS(rt_sigaction), SCMP_SYS(rt_sigprocmask),
    SCMP_SYS(rt_sigreturn), SCMP_SYS(sched_yield), SCMP_SYS(sendmsg),
    SCMP_SYS(set_mempolicy), SCMP_SYS(set_robust_list),
    SCMP_SYS(setsockopt), SCMP_SYS(tgkill), SCMP_SYS(write),
    SCMP_SYS(writev),
#if defined(QEMU_SANITIZE_ADDRESS) || defined(QEMU_SANITIZE_THREAD)
    /* the sanitizer's own, at work and to report; a build for tests */
    SCMP_SYS(clock_nanosleep), SCMP_SYS(gettimeofday), SCMP_SYS(nanosleep),
    SCMP_SYS(open), SCMP_SYS(openat), SCMP_SYS(prlimit64),
    SCMP_SYS(readlink), SCMP_SYS(sched_getaffinity), SCMP_SYS(sigaltstack),
#endif
};

static const unsigned long allowed_ioctls[] = {
    UFFDIO_CONTINUE, UFFDIO_COPY, UFFDIO_POISON, UFFDIO_WAKE,
};

static int allow_openat(scmp_filter_ctx ctx, int dir_fd)
{
    return seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(openat), 1,
                            SCMP_A0(SCMP_CMP_MASKED_EQ, 0xffffffff,
                                    (uint32_t)dir_fd));
}

/*
 * Register memory with our own userfaultfd, which has the highest number, and
 * put nothing in its place: QEMU's would have any memory of QEMU's filled.
 */
static int allow_register(scmp_filter_ctx ctx, int uffd)
{
    uint64_t bound = uffd < 0 ? INT_MAX : uffd;
    int ret = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(close), 1,
                               SCMP_A0(SCMP_CMP_LT, bound));

    if (ret == 0) {
        ret = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(dup3), 1,
                               SCMP_A1(SCMP_CMP_LT, bound));
    }
    if (ret == 0 && uffd >= 0) {
        ret = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(ioctl), 2,
                               SCMP_A0(SCMP_CMP_MASKED_EQ, 0xffffffff,
                                       (uint32_t)uffd),
                               SCMP_A1(SCMP_CMP_MASKED_EQ, 0xffffffff,
                                       (uint32_t)UFFDIO_REGISTER));
    }
    return ret;
}

static int allow_some(scmp_filter_ctx ctx, const MmIsolationFds *fds)
{
    size_t i;
    int ret = 0;

    for (i = 0; ret == 0 && i < ARRAY_SIZE(allowed); i++) {
        ret = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, allowed[i], 0);
    }
    for (i = 0; ret == 0 && i < ARRAY_SIZE(allowed_ioctls); i++) {
        /* the kernel looks at 32 bits of the request */
        ret = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(ioctl), 1,
                               SCMP_A1(SCMP_CMP_MASKED_EQ, 0xffffffff,
                                       (uint32_t)allowed_ioctls[i]));
    }
    if (ret == 0) {
        ret = allow_register(ctx, fds->probe_uffd);
    }
    if (ret == 0) {
        ret = allow_openat(ctx, fds->proc);
    }
    if (ret == 0 && fds->task >= 0) {
        ret = allow_openat(ctx, fds->task);
    }
    if (ret == 0) {
        /* a thread that has just been created names itself */
        ret = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(prctl), 1,
                               SCMP_A0(SCMP_CMP_EQ, PR_SET_NAME));
    }
    if (ret == 0) {
        ret = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(mmap), 1,
                               SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
    }
    if (ret == 0) {
        ret = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(mprotect), 1,
                               SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
    }
    return ret;
}

bool mm_isolation_seccomp(const MmIsolationFds *fds, Error **errp)
{
    scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_KILL_PROCESS);
    int ret = ctx ? 0 : -ENOMEM;

    if (ret == 0) {
        ret = seccomp_attr_set(ctx, SCMP_FLTATR_CTL_TSYNC, 1);
    }
    if (ret == 0) {
        ret = allow_some(ctx, fds);
    }
    if (ret == 0) {
        ret = seccomp_load(ctx);
    }
    if (ctx) {
        seccomp_release(ctx);
    }
    if (ret < 0) {
        error_setg_errno(errp, -ret, "cannot install the seccomp filter");
        return false;
    }
    return true;
}
