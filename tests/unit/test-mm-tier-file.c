/*
 * Unit tests: file tier
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * What the contract of tiers does not say: whose file it is, how space is
 * taken, and what happens when the file system has none left.  A small tmpfs
 * in a mount namespace of our own is the disk that is full.
 */
#include "qemu/osdep.h"
#include <sched.h>
#include <sys/mount.h>
#include <sys/vfs.h>
#include "qapi/error.h"
#include "mm-unit.h"
#include "tier-rig.h"

#define MIB (1024 * 1024)
#define DISK_MIB 8

static MmTier *open_tier(int fd, const MmIdentity *id, bool is_new)
{
    const MmMsgStartTier start = { .overcommit = 1, .name = "test" };
    Error *err = NULL;
    MmTier *tier = mm_tier_file_open(fd, &start, id, is_new, &err);

    g_assert_true(!tier == !!err);
    error_free(err);
    return tier ? rig_keep(tier) : NULL;
}

/* Is the file that VM's, says its next pager? */
static bool proves(int fd, const MmIdentity *id)
{
    MmTier *tier = open_tier(fd, id, false);
    uint8_t page[MM_PAGE_SIZE] QEMU_ALIGNED(MM_PAGE_SIZE);

    g_assert_nonnull(tier);
    g_assert_false(tier->proven);
    return pread(fd, page, sizeof(page), 0) == sizeof(page) &&
           tier->ops->is_own(tier, page);
}

static void test_identity(void)
{
    int fd = rig_open_file(g_get_tmp_dir());
    int plain = open("/dev/zero", O_RDWR | O_CLOEXEC);
    MmIdentity other = rig_identity;
    int i;

    /* an empty file is nobody's */
    g_assert_false(proves(fd, &rig_identity));
    g_assert_nonnull(open_tier(fd, &rig_identity, true));
    g_assert_true(proves(fd, &rig_identity));
    for (i = 0; i < MM_UUID_LEN; i++) {
        other.uuid[i]++;
        g_assert_false(proves(fd, &other));
        other = rig_identity;
        other.cookie[i]++;
        g_assert_false(proves(fd, &other));
        other = rig_identity;
    }
    /* written by another layout */
    other.version++;
    g_assert_nonnull(open_tier(fd, &other, true));
    g_assert_false(proves(fd, &rig_identity));
    g_assert_false(proves(plain, &rig_identity));
    /* the first page only half there */
    g_assert_nonnull(open_tier(fd, &rig_identity, true));
    g_assert_cmpint(ftruncate(fd, MM_PAGE_SIZE / 2), ==, 0);
    g_assert_false(proves(fd, &rig_identity));
    close(plain);
    close(fd);
}

/* A file that other hosts see is known by what it was given, and only that. */
static void test_shared_identity(void)
{
    MmMsgStartTier start = {
        .overcommit = 1, .shared = 1, .name = "test",
        .file_id = { 1, 2, 3 }, .file_key = { 4, 5, 6 },
    };
    uint8_t page[MM_PAGE_SIZE] QEMU_ALIGNED(MM_PAGE_SIZE);
    int fd = rig_open_file(g_get_tmp_dir());
    MmIdentity *found = (void *)page;
    MmTier *tier = mm_tier_file_open(fd, &start, &rig_identity, true,
                                     &error_abort);

    rig_keep(tier);
    g_assert_cmpint(pread(fd, page, sizeof(page), 0), ==, sizeof(page));
    g_assert_true(tier->ops->is_own(tier, page));
    g_assert_cmpmem(found->uuid, MM_UUID_LEN, start.file_id, MM_UUID_LEN);
    g_assert_cmpmem(found->cookie, MM_COOKIE_LEN, start.file_key,
                    MM_COOKIE_LEN);
    g_assert_false(proves(fd, &rig_identity));
    found->cookie[0]++;
    g_assert_false(tier->ops->is_own(tier, page));
    close(fd);
}

static void test_new_file_on_full_disk(void)
{
    int fd = open("/dev/full", O_RDWR | O_CLOEXEC);

    g_assert_null(open_tier(fd, &rig_identity, true));
    close(fd);
}

/* A write that the device refuses, through either queue. */
static void check_refused(RigQueue kind)
{
    TierRig *rig = rig_new(g_get_tmp_dir(), kind, 0, true);
    int full = open("/dev/full", O_RDWR | O_CLOEXEC);
    MmTierQueue *queue;

    if (!rig) {
        return;
    }
    g_assert_cmpint(rig_transfer(rig, true, 0, 4), ==, 0);
    queue = kind == RIG_THREADS
        ? mm_queue_threads_new(rig->tier, full, 4, rig->wake_fd)
        : mm_queue_uring_new(rig->tier, full, rig->arena,
                             MM_TIER_IO_PAGES * MM_PAGE_SIZE, 4,
                             rig->wake_fd, &error_abort);
    if (queue->ops->start) {
        queue->ops->start(queue);
    }
    rig->queue = queue;
    g_assert_cmpint(rig_transfer(rig, true, 0, 4), ==, -ENOSPC);
    close(full);
    rig_free(rig);
}

static void test_refused_write(void)
{
    check_refused(RIG_URING);
    check_refused(RIG_THREADS);
}

/* Too large for the process's limit: short first, then refused. */
static void check_short_write(RigQueue kind)
{
    TierRig *rig = rig_new(g_get_tmp_dir(), kind, 0, true);
    const struct rlimit none = { RLIM_INFINITY, RLIM_INFINITY };
    struct rlimit some = { 5 * MM_PAGE_SIZE, RLIM_INFINITY };

    if (!rig) {
        return;
    }
    signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &some);
    g_assert_cmpint(rig_transfer(rig, true, 0, 4), ==, 0);
    g_assert_cmpint(rig_transfer(rig, true, 0, 5), <, 0);
    g_assert_cmpint(rig_transfer(rig, true, 0, 32), <, 0);
    g_assert_cmpint(rig_transfer(rig, true, 4, 1), <, 0);
    setrlimit(RLIMIT_FSIZE, &none);
    g_assert_cmpint(rig_transfer(rig, true, 0, 32), ==, 0);
    rig_free(rig);
}

static void test_short_write(void)
{
    check_short_write(RIG_URING);
    check_short_write(RIG_THREADS);
}

/* Without io_uring the tier works on threads. */
static void try_without_uring(void)
{
    struct rlimit normal, few;
    TierRig *rig;

    /* one descriptor is lacking when the ring is to be made */
    g_assert_cmpint(getrlimit(RLIMIT_NOFILE, &normal), ==, 0);
    few = normal;
    rig = rig_new(g_get_tmp_dir(), RIG_THREADS, 0, true);
    few.rlim_cur = count_fds() - 1;
    while (fcntl(few.rlim_cur - 1, F_GETFD) < 0) {
        g_assert_cmpint(dup(rig->wake_fd), >=, 0);
    }
    setrlimit(RLIMIT_NOFILE, &few);
    rig->queue = rig->tier->ops->queue_new(rig->tier, rig->arena,
                                           MM_TIER_IO_PAGES * MM_PAGE_SIZE, 2,
                                           rig->wake_fd, &error_abort);
    g_assert_nonnull(rig->queue);
    setrlimit(RLIMIT_NOFILE, &normal);
    rig->queue->ops->start(rig->queue);
    rig_fill(rig->arena, 7);
    g_assert_cmpint(rig_transfer(rig, true, 3, 1), ==, 0);
    memset(rig->arena, 0, MM_PAGE_SIZE);
    g_assert_cmpint(rig_transfer(rig, false, 3, 1), ==, 0);
    g_assert_true(rig_is(rig->arena, 7));
}

static void test_without_uring(void)
{
    g_test_trap_subprocess("/mm/tier-file/without-uring/subprocess/try", 0,
                           0);
    g_test_trap_assert_passed();
    g_test_trap_assert_stderr("*using threads instead*");
}

static char *mount_disk(void)
{
    char *dir = g_strdup_printf("%s/disk-XXXXXX", g_get_tmp_dir());
    g_autofree char *size = g_strdup_printf("size=%dm", DISK_MIB);

    g_assert_nonnull(g_mkdtemp(dir));
    if (unshare(CLONE_NEWNS) < 0 ||
        mount(NULL, "/", NULL, MS_PRIVATE | MS_REC, NULL) < 0 ||
        mount("tmpfs", dir, "tmpfs", 0, size) < 0) {
        g_test_skip("needs the right to mount a file system");
        rmdir(dir);
        g_free(dir);
        return NULL;
    }
    return dir;
}

static void unmount_disk(char *dir)
{
    umount2(dir, MNT_DETACH);
    rmdir(dir);
    g_free(dir);
}

/* Take all that is left of the disk; returns the file that does. */
static int fill_disk(const char *dir)
{
    int fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    off_t size;

    for (size = 0; fallocate(fd, 0, size, MM_PAGE_SIZE) == 0;
         size += MM_PAGE_SIZE) {
        continue;
    }
    g_assert_cmpint(errno, ==, ENOSPC);
    return fd;
}

static uint64_t disk_free_bytes(const char *dir)
{
    struct statfs fs;

    g_assert_cmpint(statfs(dir, &fs), ==, 0);
    return (uint64_t)fs.f_bavail * fs.f_bsize;
}

static unsigned store_until_full(TierRig *rig)
{
    uint64_t place;
    unsigned nr, pages = 0;

    while ((nr = rig_alloc(rig, 16, &place))) {
        /* no room is told by alloc(), never by a store */
        g_assert_cmpint(rig_transfer(rig, true, place, nr), ==, 0);
        pages += nr;
    }
    return pages;
}

/* T4: what has been reserved is there, however full the disk gets. */
static void test_reserved_space_stays(void)
{
    char *dir = mount_disk();
    TierRig *rig;
    Error *err = NULL;
    int ballast;

    if (!dir) {
        return;
    }
    rig = rig_new(dir, RIG_THREADS, 0, false);
    g_assert_true(rig->tier->ops->reserve(rig->tier, 3 * MIB, &error_abort));
    ballast = fill_disk(dir);
    g_assert_cmpuint(store_until_full(rig), ==, 3 * MIB / MM_PAGE_SIZE);
    g_assert_false(rig->tier->ops->reserve(rig->tier, 4 * MIB, &err));
    g_assert_nonnull(strstr(error_get_pretty(err), "cannot reserve"));
    error_free(err);
    /* room again: service resumes */
    close(ballast);
    g_assert_true(rig->tier->ops->reserve(rig->tier, 4 * MIB, &error_abort));
    /* and what there is beyond that, though it is less than a step */
    g_assert_cmpuint(store_until_full(rig), >=, MIB / MM_PAGE_SIZE);
    g_assert_cmpuint(disk_free_bytes(dir), <, MIB);
    rig_free(rig);
    unmount_disk(dir);
}

/* Nothing is promised, and nothing is handed out that is not there. */
static void test_overcommitted_disk_fills(void)
{
    char *dir = mount_disk();
    TierRig *rig;
    int ballast;

    if (!dir) {
        return;
    }
    rig = rig_new(dir, RIG_THREADS, 0, true);
    /* any size: it is not looked at */
    g_assert_true(rig->tier->ops->reserve(rig->tier, UINT64_MAX / 2,
                                          &error_abort));
    ballast = fill_disk(dir);
    g_assert_cmpuint(store_until_full(rig), ==, 0);
    close(ballast);
    rig_free(rig);
    unmount_disk(dir);
}

/* A tier's size need not be a whole number of pages or steps. */
/* What a full tier has handed out, its next pager finds, to the last place. */
static void test_full_and_adopted(void)
{
    const MmMsgStartTier start = {
        .overcommit = 1, .size = 1 * MIB, .name = "full",
    };
    TierRig *rig = rig_new(g_get_tmp_dir(), RIG_THREADS, start.size, true);
    MmTierIO io = { .store = true, .nr_pages = MM_TIER_IO_PAGES };
    uint64_t last = 0;
    MmTier *next;

    while (rig->queue->ops->alloc(rig->queue, &io) == 0) {
        last = MAX(last, io.place + io.nr_pages - 1);
        io.nr_pages = MM_TIER_IO_PAGES;
    }
    g_assert_cmpint(last, ==, start.size / MM_PAGE_SIZE - 1);
    next = rig_keep(mm_tier_file_open(rig->fd, &start, &rig_identity, false,
                                      &error_abort));
    g_assert_true(next->ops->claim(next, last));
    g_assert_false(next->ops->claim(next, last + 1));
    rig_free(rig);
}

static void test_odd_sizes(void)
{
    static const uint64_t sizes[] = {
        1, MM_PAGE_SIZE - 1, MM_PAGE_SIZE, MM_PAGE_SIZE + 1, MIB + 5,
    };
    uint64_t place;
    int i;

    for (i = 0; i < ARRAY_SIZE(sizes); i++) {
        TierRig *rig = rig_new(g_get_tmp_dir(), RIG_THREADS, sizes[i], true);
        unsigned pages = 0, nr;

        while ((nr = rig_alloc(rig, 32, &place))) {
            pages += nr;
        }
        g_assert_cmpuint(pages, ==, sizes[i] / MM_PAGE_SIZE);
        g_assert_cmpuint(rig_size(rig), <=, sizes[i]);
        rig_free(rig);
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/mm/tier-file/identity", test_identity);
    g_test_add_func("/mm/tier-file/shared-identity", test_shared_identity);
    g_test_add_func("/mm/tier-file/new-on-full-disk",
                    test_new_file_on_full_disk);
    g_test_add_func("/mm/tier-file/refused-write", test_refused_write);
    g_test_add_func("/mm/tier-file/short-write", test_short_write);
    g_test_add_func("/mm/tier-file/without-uring", test_without_uring);
    g_test_add_func("/mm/tier-file/without-uring/subprocess/try",
                    try_without_uring);
    g_test_add_func("/mm/tier-file/reserved-space-stays",
                    test_reserved_space_stays);
    g_test_add_func("/mm/tier-file/overcommitted-disk-fills",
                    test_overcommitted_disk_fills);
    g_test_add_func("/mm/tier-file/full-and-adopted", test_full_and_adopted);
    g_test_add_func("/mm/tier-file/odd-sizes", test_odd_sizes);
    return g_test_run();
}
