/*
 * Torture tests: a QEMU that lies when it resumes
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * What QEMU hands back to a new pager is hostile input, looked at while the
 * pager still has the manager's rights.  Each lie must be refused, in bounded
 * time and without a crash; afterwards the truth must still be accepted, and
 * every page be right.  Whose a tier's file is takes reading it, so the pager
 * serves with another VM's, but it must leave that alone.
 */
#include "qemu/osdep.h"
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include "qemu/units.h"
#include "qapi/error.h"
#include "rig.h"
#include "rng.h"
#include "torture.h"

#define REFUSE_MS 15000
/* A file that has not changed for so long is at rest; how long to wait. */
#define QUIET_US 300000
#define QUIET_MAX_US 20000000

/* All that a resume consists of; a lie changes some of it. */
typedef struct Story {
    MmMsgResumeVM vm;
    int vm_fds[MM_RESUME_FD__MAX];
    unsigned nr_holds;
    MmMsgHold holds[4];
    int hold_fds[4];
    unsigned nr_regions;
    MmMsgRegion regions[4];
    int region_fds[4][MM_REGION_FD__MAX];
    bool no_end;
    const MmMsgKey *key;
    unsigned nr_keys;
    int temp[8];                /* descriptors to be closed afterwards */
    unsigned nr_temp;
} Story;

typedef struct Lie {
    const char *name;
    void (*tell)(Rig *rig, Rig *other, Story *s);
} Lie;

static void the_truth(Rig *rig, Story *s)
{
    FakeQemu *fq = rig->fq;
    int i;

    memset(s, 0, sizeof(*s));
    s->vm_fds[MM_RESUME_FD_STATE] = fq->fds[MM_HELLO_FD_STATE];
    s->vm_fds[MM_RESUME_FD_RING] = fq->fds[MM_HELLO_FD_RING];
    s->vm_fds[MM_RESUME_FD_KICK] = fq->fds[MM_HELLO_FD_KICK];
    s->vm_fds[MM_RESUME_FD_UFFD] = fq->uffd;
    for (i = 0; i < fq->nr_holds; i++) {
        s->holds[i] = fq->holds[i].what;
        s->hold_fds[i] = fq->holds[i].fd;
    }
    s->nr_holds = s->vm.nr_holds = fq->nr_holds;
    for (i = 0; fq->regions[i]; i++) {
        MmMsgRegion *msg = &s->regions[i];

        msg->id = i;
        msg->page_size = STAMP_PAGE_SIZE;
        msg->size = fq->regions[i]->size;
        msg->limit = fq->regions[i]->limit;
        msg->hva = (uintptr_t)fq->regions[i]->mem;
        snprintf(msg->idstr, sizeof(msg->idstr), "torture%d", i);
        memcpy(s->region_fds[i], fq->regions[i]->fds,
               sizeof(s->region_fds[i]));
    }
    s->nr_regions = s->vm.nr_regions = i;
    s->key = &fake_qemu_key;
    s->nr_keys = fq->encrypted;
}

static void send_story(int sock, const Story *s)
{
    int i;

    mm_msg_send(sock, MM_MSG_RESUME_VM, 0, &s->vm, sizeof(s->vm), s->vm_fds,
                MM_RESUME_FD__MAX);
    for (i = 0; i < s->nr_holds; i++) {
        mm_msg_send(sock, MM_MSG_RESUME_HOLD, 0, &s->holds[i],
                    sizeof(s->holds[i]), &s->hold_fds[i], 1);
    }
    for (i = 0; i < s->nr_regions; i++) {
        mm_msg_send(sock, MM_MSG_RESUME_REGION, 0, &s->regions[i],
                    sizeof(s->regions[i]), s->region_fds[i],
                    MM_REGION_FD__MAX);
    }
    for (i = 0; i < s->nr_keys; i++) {
        mm_msg_send(sock, MM_MSG_KEY, 0, s->key, sizeof(*s->key), NULL, 0);
    }
    if (!s->no_end) {
        mm_msg_send(sock, MM_MSG_RESUME_END, 1, NULL, 0, NULL, 0);
    }
}

/* Descriptors to lie with */

static int keep(Story *s, int fd)
{
    g_assert(fd >= 0 && s->nr_temp < ARRAY_SIZE(s->temp));
    s->temp[s->nr_temp++] = fd;
    return fd;
}

static int a_pipe(Story *s)
{
    int fds[2];

    g_assert(pipe2(fds, O_CLOEXEC) == 0);
    keep(s, fds[1]);
    return keep(s, fds[0]);
}

static int a_file(Story *s, uint64_t size)
{
    int fd = open(torture_dir(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);

    g_assert(fd >= 0 && ftruncate(fd, size) == 0);
    return keep(s, fd);
}

static int unsealed(Story *s, uint64_t size)
{
    int fd = memfd_create("unsealed", MFD_CLOEXEC | MFD_ALLOW_SEALING);

    g_assert(fd >= 0 && ftruncate(fd, size) == 0 && fchmod(fd, 0600) == 0);
    return keep(s, fd);
}

static int sealed(Story *s, uint64_t size)
{
    return keep(s, mm_seal_memfd("sealed", size));
}

static uint64_t fd_size(int fd)
{
    struct stat st;

    g_assert(fstat(fd, &st) == 0);
    return st.st_size;
}

/* Lies about memfds of a region */

static void lie_ram_pipe(Rig *rig, Rig *other, Story *s)
{
    s->region_fds[0][MM_REGION_FD_RAM] = a_pipe(s);
}

static void lie_ram_unsealed(Rig *rig, Rig *other, Story *s)
{
    s->region_fds[0][MM_REGION_FD_RAM] = unsealed(s, s->regions[0].size);
}

static void lie_ram_file(Rig *rig, Rig *other, Story *s)
{
    s->region_fds[0][MM_REGION_FD_RAM] = a_file(s, s->regions[0].size);
}

static void lie_ram_small(Rig *rig, Rig *other, Story *s)
{
    s->region_fds[0][MM_REGION_FD_RAM] = sealed(s, s->regions[0].size / 2);
}

static void lie_map_pipe(Rig *rig, Rig *other, Story *s)
{
    s->region_fds[0][MM_REGION_FD_MAP] = a_pipe(s);
}

static void lie_map_unsealed(Rig *rig, Rig *other, Story *s)
{
    s->region_fds[0][MM_REGION_FD_MAP] =
        unsealed(s, fd_size(s->region_fds[0][MM_REGION_FD_MAP]));
}

static void lie_map_empty(Rig *rig, Rig *other, Story *s)
{
    s->region_fds[0][MM_REGION_FD_MAP] =
        sealed(s, fd_size(s->region_fds[0][MM_REGION_FD_MAP]));
}

static void lie_map_size(Rig *rig, Rig *other, Story *s)
{
    s->region_fds[0][MM_REGION_FD_MAP] =
        sealed(s, fd_size(s->region_fds[0][MM_REGION_FD_MAP]) + 4096);
}

static void lie_map_others(Rig *rig, Rig *other, Story *s)
{
    s->region_fds[0][MM_REGION_FD_MAP] =
        other->fq->regions[0]->fds[MM_REGION_FD_MAP];
}

static void lie_map_exchanged(Rig *rig, Rig *other, Story *s)
{
    int fd = s->region_fds[0][MM_REGION_FD_MAP];

    s->region_fds[0][MM_REGION_FD_MAP] = s->region_fds[1][MM_REGION_FD_MAP];
    s->region_fds[1][MM_REGION_FD_MAP] = fd;
}

static void lie_ram_is_map(Rig *rig, Rig *other, Story *s)
{
    s->region_fds[0][MM_REGION_FD_RAM] = s->region_fds[0][MM_REGION_FD_MAP];
}

static void lie_dma_small(Rig *rig, Rig *other, Story *s)
{
    s->region_fds[0][MM_REGION_FD_DMA] = unsealed(s, 0);
}

static void lie_dma_pipe(Rig *rig, Rig *other, Story *s)
{
    s->region_fds[0][MM_REGION_FD_DMA] = a_pipe(s);
}

/* Lies about regions */

static void lie_region_size(Rig *rig, Rig *other, Story *s)
{
    s->regions[0].size *= 2;
}

static void lie_region_huge(Rig *rig, Rig *other, Story *s)
{
    s->regions[0].size = UINT64_MAX - 4095;
}

static void lie_region_id(Rig *rig, Rig *other, Story *s)
{
    s->regions[0].id = MM_MAX_REGIONS + 5;
}

static void lie_region_twice(Rig *rig, Rig *other, Story *s)
{
    s->regions[1] = s->regions[0];
    memcpy(s->region_fds[1], s->region_fds[0], sizeof(s->region_fds[0]));
}

static void lie_hva_unaligned(Rig *rig, Rig *other, Story *s)
{
    s->regions[0].hva += 1;
}

static void lie_hva_wraps(Rig *rig, Rig *other, Story *s)
{
    s->regions[0].hva = UINT64_MAX - 4095;
}

static void lie_hva_zero(Rig *rig, Rig *other, Story *s)
{
    s->regions[0].hva = 0;
}

static void lie_hva_overlaps(Rig *rig, Rig *other, Story *s)
{
    s->regions[1].hva = s->regions[0].hva + STAMP_PAGE_SIZE;
}

static void lie_page_size(Rig *rig, Rig *other, Story *s)
{
    s->regions[0].page_size = 2 * MiB;
}

/* Lies about the VM */

static void lie_state_pipe(Rig *rig, Rig *other, Story *s)
{
    s->vm_fds[MM_RESUME_FD_STATE] = a_pipe(s);
}

static void lie_state_empty(Rig *rig, Rig *other, Story *s)
{
    s->vm_fds[MM_RESUME_FD_STATE] = sealed(s, MM_STATE_SIZE);
}

static void lie_state_others(Rig *rig, Rig *other, Story *s)
{
    s->vm_fds[MM_RESUME_FD_STATE] = other->fq->fds[MM_HELLO_FD_STATE];
}

static void lie_ring_small(Rig *rig, Rig *other, Story *s)
{
    s->vm_fds[MM_RESUME_FD_RING] = sealed(s, 0);
}

static void lie_kick_pipe(Rig *rig, Rig *other, Story *s)
{
    s->vm_fds[MM_RESUME_FD_KICK] = a_pipe(s);
}

static void lie_kick_blocking(Rig *rig, Rig *other, Story *s)
{
    s->vm_fds[MM_RESUME_FD_KICK] = keep(s, eventfd(0, EFD_CLOEXEC));
}

static void lie_uffd_eventfd(Rig *rig, Rig *other, Story *s)
{
    s->vm_fds[MM_RESUME_FD_UFFD] = keep(s, eventfd(0, EFD_NONBLOCK));
}

static void lie_uffd_pipe(Rig *rig, Rig *other, Story *s)
{
    s->vm_fds[MM_RESUME_FD_UFFD] = a_pipe(s);
}

static void lie_too_many_regions(Rig *rig, Rig *other, Story *s)
{
    s->vm.nr_regions = UINT32_MAX;
}

static void lie_too_many_holds(Rig *rig, Rig *other, Story *s)
{
    s->vm.nr_holds = UINT32_MAX;
}

static void lie_fewer_regions(Rig *rig, Rig *other, Story *s)
{
    s->vm.nr_regions--;
}

static void lie_more_holds(Rig *rig, Rig *other, Story *s)
{
    s->vm.nr_holds++;
}

/* Says nothing more and keeps the connection open. */
static void lie_silence(Rig *rig, Rig *other, Story *s)
{
    s->no_end = true;
}

/* Lies about tier files */

static void lie_hold_others(Rig *rig, Rig *other, Story *s)
{
    s->hold_fds[0] = other->fq->holds[0].fd;
}

static void lie_hold_file(Rig *rig, Rig *other, Story *s)
{
    s->hold_fds[0] = a_file(s, 64 * MiB);
}

static void lie_hold_named(Rig *rig, Rig *other, Story *s)
{
    s->hold_fds[0] = keep(s, open("/etc/passwd", O_PATH | O_CLOEXEC));
}

static void lie_hold_directory(Rig *rig, Rig *other, Story *s)
{
    s->hold_fds[0] = keep(s, open("/", O_PATH | O_CLOEXEC));
}

static void lie_hold_device(Rig *rig, Rig *other, Story *s)
{
    s->hold_fds[0] = keep(s, open("/dev/null", O_PATH | O_CLOEXEC));
}

/* Whoever opens it to look waits for a writer. */
static void lie_hold_fifo(Rig *rig, Rig *other, Story *s)
{
    g_autofree char *path = g_strdup_printf("%s/fifo-%d", torture_dir(),
                                            getpid());

    g_assert(mkfifo(path, 0600) == 0);
    s->hold_fds[0] = keep(s, open(path, O_PATH | O_CLOEXEC));
    unlink(path);
}

static void lie_hold_index(Rig *rig, Rig *other, Story *s)
{
    s->holds[0].index = 7;
}

static void lie_hold_kind(Rig *rig, Rig *other, Story *s)
{
    s->holds[0].kind = MM_HOLD__MAX;
}

static void lie_hold_twice(Rig *rig, Rig *other, Story *s)
{
    s->holds[1] = s->holds[0];
    s->hold_fds[1] = s->hold_fds[0];
    s->nr_holds = s->vm.nr_holds = 2;
}

static void lie_key_none(Rig *rig, Rig *other, Story *s)
{
    s->nr_keys = 0;
}

static void lie_key_twice(Rig *rig, Rig *other, Story *s)
{
    s->nr_keys = 2;
}

#define LIE(name) { #name, lie_##name }
static const Lie lies[] = {
    LIE(ram_pipe), LIE(ram_unsealed), LIE(ram_file), LIE(ram_small),
    LIE(map_pipe), LIE(map_unsealed), LIE(map_empty), LIE(map_size),
    LIE(map_others), LIE(map_exchanged), LIE(ram_is_map), LIE(dma_small),
    LIE(dma_pipe),
    LIE(region_size), LIE(region_huge), LIE(region_id), LIE(region_twice),
    LIE(hva_unaligned), LIE(hva_wraps), LIE(hva_zero), LIE(hva_overlaps),
    LIE(page_size),
    LIE(state_pipe), LIE(state_empty), LIE(state_others), LIE(ring_small),
    LIE(kick_pipe), LIE(kick_blocking), LIE(uffd_eventfd), LIE(uffd_pipe),
    LIE(too_many_regions), LIE(too_many_holds), LIE(fewer_regions),
    LIE(more_holds),
    LIE(hold_named), LIE(hold_directory),
    LIE(hold_device), LIE(hold_fifo), LIE(hold_index), LIE(hold_kind),
    LIE(hold_twice), LIE(key_none), LIE(key_twice),
};

static Rig *new_rig(uint64_t seed)
{
    const RigConfig config = {
        .stamped_mib = { 3, 3 },
        .limit_percent = 25,
        .no_resume = true,
        .encrypted = true,
    };
    Rig *rig = rig_new(&config, seed);

    rig_populate(rig);
    return rig;
}

/* The pager's end, however it comes about; the connection thread ends too. */
static void end_pager(Rig *rig)
{
    bool wanted;

    fake_manager_kill(rig->fm);
    fake_qemu_join_threads(rig->fq);
    fake_manager_reap(rig->fm, -1, &wanted);
}

/* Refused means an error or the end of the connection, then an exit. */
static void expect_refusal(Rig *rig, const char *name)
{
    Error *err = NULL;
    bool wanted;
    int status;

    if (fake_qemu_wait_hello(rig->fq, REFUSE_MS, &err)) {
        verdict_fail(rig->verdict, "lie '%s' was believed", name);
    }
    g_test_message("%s: %s", name, err ? error_get_pretty(err) : "believed");
    error_free(err);
    status = fake_manager_reap(rig->fm, REFUSE_MS, &wanted);
    if (status == -1) {
        verdict_fail(rig->verdict, "lie '%s': the pager lives on", name);
        fake_manager_kill(rig->fm);
        fake_manager_reap(rig->fm, -1, &wanted);
    } else if (WIFSIGNALED(status)) {
        g_autofree char *text = describe_status(status);

        verdict_fail(rig->verdict, "lie '%s' ends in %s", name, text);
    }
}

static void tell_lie(Rig *rig, Rig *other, const Lie *lie)
{
    Error *err = NULL;
    Story story;
    int i;

    the_truth(rig, &story);
    lie->tell(rig, other, &story);
    if (fake_qemu_connect(rig->fq, true, &err)) {
        send_story(rig->fq->sock, &story);
        expect_refusal(rig, lie->name);
    } else {
        verdict_fail(rig->verdict, "%s", error_get_pretty(err));
        error_free(err);
    }
    for (i = 0; i < story.nr_temp; i++) {
        close(story.temp[i]);
    }
}

static void tell_truth(Rig *rig)
{
    Error *err = NULL;

    if (rig_ok(rig) && (!fake_qemu_connect(rig->fq, true, &err) ||
                        fake_qemu_send_resume(rig->fq) ||
                        !fake_qemu_wait_hello(rig->fq, REFUSE_MS, &err))) {
        verdict_fail(rig->verdict, "the truth was not believed: %s",
                     err ? error_get_pretty(err) : "connection closed");
        error_free(err);
    }
    if (rig_ok(rig)) {
        rig->fq->serving = true;
        fake_qemu_start_threads(rig->fq);
    }
}

static void test_lies(void)
{
    Rig *rig = new_rig(torture_seed());
    Rig *other = new_rig(torture_seed());
    int i;

    if (rig_ok(rig) && rig_ok(other)) {
        end_pager(rig);
        for (i = 0; i < ARRAY_SIZE(lies); i++) {
            tell_lie(rig, other, &lies[i]);
        }
        tell_truth(rig);
    }
    rig_check_all(rig);
    rig_check_all(other);
    rig_finish(other);
    rig_finish(rig);
}

static bool same_file(const struct stat *a, const struct stat *b)
{
    return a->st_size == b->st_size && a->st_blocks == b->st_blocks &&
           a->st_mtim.tv_sec == b->st_mtim.tv_sec &&
           a->st_mtim.tv_nsec == b->st_mtim.tv_nsec;
}

/* Its own pager goes on evicting for a while after it was populated. */
static void wait_quiet(Rig *other)
{
    int64_t end = torture_now_us() + QUIET_MAX_US;
    struct stat before, after;

    do {
        g_assert(fstat(other->fq->holds[0].fd, &before) == 0);
        g_usleep(QUIET_US);
        g_assert(fstat(other->fq->holds[0].fd, &after) == 0);
    } while (!same_file(&before, &after) && torture_now_us() < end);
}

static void expect_untouched(Rig *rig, Rig *other)
{
    int victim = other->fq->holds[0].fd;
    struct stat before, after;
    Error *err = NULL;

    g_assert(fstat(victim, &before) == 0);
    if (!fake_qemu_wait_hello(rig->fq, REFUSE_MS, &err)) {
        g_test_message("refused: %s", error_get_pretty(err));
        error_free(err);
        return;
    }
    rig->fq->serving = true;
    fake_qemu_start_threads(rig->fq);
    if (!fake_qemu_wait_event(rig->fq, MM_EVENT_IO_ERROR, 1, REFUSE_MS)) {
        verdict_fail(rig->verdict, "another VM's file is no news");
    }
    if (fake_qemu_add_region(rig->fq, 32 * MiB, 1 * MiB, &err)) {
        verdict_fail(rig->verdict, "space was reserved in another VM's file");
    } else {
        error_free(err);
    }
    g_assert(fstat(victim, &after) == 0);
    if (!same_file(&before, &after)) {
        verdict_fail(rig->verdict, "another VM's file has changed");
    }
    end_pager(rig);
}

/* Lies that only the file's content tells. */
static void tell_of_file(const Lie *lie)
{
    Rig *rig = new_rig(torture_seed());
    Rig *other = new_rig(torture_seed());

    if (rig_ok(rig) && rig_ok(other)) {
        FakeHold *hold = &rig->fq->holds[0];
        int own = fcntl(hold->fd, F_DUPFD_CLOEXEC, 0);
        Error *err = NULL;
        Story story;

        g_assert(own >= 0);
        end_pager(rig);
        the_truth(rig, &story);
        lie->tell(rig, other, &story);
        wait_quiet(other);
        if (fake_qemu_connect(rig->fq, true, &err)) {
            send_story(rig->fq->sock, &story);
            expect_untouched(rig, other);
        } else {
            verdict_fail(rig->verdict, "%s", error_get_pretty(err));
            error_free(err);
        }
        /* the pager has had it replaced by what it was given */
        close(hold->fd);
        hold->fd = own;
        while (story.nr_temp) {
            close(story.temp[--story.nr_temp]);
        }
        tell_truth(rig);
    }
    rig_check_all(rig);
    rig_check_all(other);
    rig_finish(other);
    rig_finish(rig);
}

static void test_others_file(void)
{
    static const Lie lies_of_file[] = { LIE(hold_others), LIE(hold_file) };
    int i;

    for (i = 0; i < ARRAY_SIZE(lies_of_file); i++) {
        tell_of_file(&lies_of_file[i]);
    }
}

/* Bounded by the pager's patience, which is why this is on its own. */
static void test_silence(void)
{
    const Lie lie = LIE(silence);
    Rig *rig = new_rig(torture_seed());

    if (rig_ok(rig)) {
        end_pager(rig);
        tell_lie(rig, NULL, &lie);
        tell_truth(rig);
    }
    rig_check_all(rig);
    rig_finish(rig);
}

/*
 * The map has the right header and garbage in its entries.  That cannot come
 * from QEMU, to which the map is read-only, but the pager must not crash.
 */
static int garbage_map(Story *s, uint64_t rng)
{
    int old = s->region_fds[0][MM_REGION_FD_MAP];
    uint64_t size = fd_size(old), i;
    int fd = sealed(s, size);
    uint64_t *map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd,
                         0);

    g_assert(map != MAP_FAILED);
    g_assert(pread(old, map, size, 0) == size);
    for (i = MM_MAP_HEADER_SIZE / sizeof(*map); i < size / sizeof(*map);
         i++) {
        if (rng_chance(&rng, 50)) {
            map[i] = rng_next(&rng) >> (rng_chance(&rng, 50) ? 0 : 40);
        }
    }
    munmap(map, size);
    return fd;
}

static void touch_garbage(Rig *rig)
{
    MmMsgQueryReply q;

    rig->fq->serving = true;
    rig->fq->may_lose = true;
    fake_qemu_start_threads(rig->fq);
    verdict_mute(rig->verdict, true);
    load_start(rig->load, &(LoadConfig) { .readers = 4, .discards = 2 });
    g_usleep(300000);
    load_abandon(rig->load);
    if (!fake_manager_query(rig->fm, &q)) {
        verdict_fail(rig->verdict, "the pager does not answer any more");
    }
}

static void test_garbage_map(void)
{
    Rig *rig = new_rig(torture_seed());
    Error *err = NULL;
    Story story;
    int i;

    if (rig_ok(rig)) {
        end_pager(rig);
        the_truth(rig, &story);
        story.region_fds[0][MM_REGION_FD_MAP] = garbage_map(&story,
                                                            rig->seed);
        if (fake_qemu_connect(rig->fq, true, &err)) {
            send_story(rig->fq->sock, &story);
        }
        if (fake_qemu_wait_hello(rig->fq, REFUSE_MS, &err)) {
            touch_garbage(rig);
        }
        error_free(err);
        for (i = 0; i < story.nr_temp; i++) {
            close(story.temp[i]);
        }
    }
    rig_finish(rig);
}

void torture_add_hostile_resume(void)
{
    g_test_add_func("/torture/hostile-resume/lies", test_lies);
    g_test_add_func("/torture/hostile-resume/others-file",
                    test_others_file);
    g_test_add_func("/torture/hostile-resume/silence", test_silence);
    g_test_add_func("/torture/hostile-resume/garbage-map", test_garbage_map);
}
