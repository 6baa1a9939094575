/*
 * Torture tests: QEMU's side of one VM, attaching and regions
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <linux/userfaultfd.h>
#include "qemu/lockable.h"
#include "qapi/error.h"
#include "ring.h"
#include "fake-qemu.h"
#include "torture.h"

/* Since Linux 6.1; the headers of the base are older. */
#ifndef USERFAULTFD_IOC_NEW
#define USERFAULTFD_IOC_NEW _IO(0xAA, 0x00)
#endif

#define ATTACH_TIMEOUT_MS 20000
#define EXIT_TIMEOUT_MS 5000
#define RETRIES 200

FakeQemu *fake_qemu_new(FakeManager *fm, Verdict *verdict, uint64_t seed)
{
    FakeQemu *fq = g_new0(FakeQemu, 1);
    int i;

    fq->fm = fm;
    fq->verdict = verdict;
    fq->seed = seed;
    fq->page_size = STAMP_PAGE_SIZE;
    fq->auto_resume = true;
    fq->uffd = fq->sock = -1;
    for (i = 0; i < MM_HELLO_FD__MAX; i++) {
        fq->fds[i] = -1;
    }
    fq->stalls_us = g_array_new(false, false, sizeof(int64_t));
    fq->removed = g_ptr_array_new_with_free_func(g_free);
    qemu_mutex_init(&fq->lock);
    qemu_mutex_init(&fq->request_lock);
    qemu_mutex_init(&fq->ring_lock);
    qemu_mutex_init(&fq->zap_lock);
    qemu_cond_init(&fq->cond);
    return fq;
}

int fake_uffd_new(int dev, Error **errp)
{
    struct uffdio_api api = {
        .api = UFFD_API,
        .features = UFFD_FEATURE_MISSING_SHMEM | UFFD_FEATURE_MINOR_SHMEM |
                    UFFD_FEATURE_THREAD_ID,
    };
    int fd;

    if (dev >= 0) {
        fd = ioctl(dev, USERFAULTFD_IOC_NEW, O_CLOEXEC | O_NONBLOCK);
    } else {
        fd = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
    }
    if (fd < 0 || ioctl(fd, UFFDIO_API, &api)) {
        error_setg_errno(errp, errno, "cannot make a userfaultfd");
        if (fd >= 0) {
            close(fd);
        }
        return -1;
    }
    return fd;
}

/* QEMU must not be able to write what the pager alone may write. */
static bool check_read_only(int fd, const char *what, Error **errp)
{
    if ((fcntl(fd, F_GETFL) & O_ACCMODE) != O_RDONLY) {
        error_setg(errp, "%s came writable", what);
        return false;
    }
    return true;
}

static bool map_shared_state(FakeQemu *fq, Error **errp)
{
    void *state = mmap(NULL, MM_STATE_SIZE, PROT_READ, MAP_SHARED,
                       fq->fds[MM_HELLO_FD_STATE], 0);
    void *ring = mmap(NULL, sizeof(MmRing), PROT_READ | PROT_WRITE, MAP_SHARED,
                      fq->fds[MM_HELLO_FD_RING], 0);

    if (state == MAP_FAILED || ring == MAP_FAILED) {
        error_setg_errno(errp, errno, "cannot map state and ring");
        return false;
    }
    fq->state = state;
    fq->ring = ring;
    if (fq->state->id.magic != MM_STATE_MAGIC ||
        memcmp(fq->state->id.uuid, fq->fm->uuid, MM_UUID_LEN)) {
        error_setg(errp, "state has the wrong identity");
        return false;
    }
    return check_read_only(fq->fds[MM_HELLO_FD_STATE], "state", errp);
}

const MmMsgKey fake_qemu_key = { "a key of a guest that does not exist, two "
                                 "halves of 32 bytes" };

static bool request_ok(FakeQemu *fq, const FakeRequest *rq)
{
    MmMsg reply;
    bool ok = !fake_qemu_request(fq, rq, &reply) &&
              reply.hdr.type == MM_MSG_OK;

    mm_msg_clear(&reply);
    return ok;
}

bool fake_qemu_attach(FakeQemu *fq, Error **errp)
{
    const FakeRequest key = { .type = MM_MSG_KEY, .payload = &fake_qemu_key,
                              .len = sizeof(fake_qemu_key) };
    const FakeRequest rq = { .type = MM_MSG_UFFD, .fd = &fq->uffd };

    if (!fake_qemu_connect(fq, false, errp) ||
        !fake_qemu_wait_hello(fq, ATTACH_TIMEOUT_MS, errp) ||
        !map_shared_state(fq, errp)) {
        return false;
    }
    fq->uffd = fake_uffd_new(fq->fds[MM_HELLO_FD_UFFD_DEV], errp);
    if (fq->uffd < 0) {
        return false;
    }
    fq->serving = true;
    fake_qemu_start_threads(fq);
    if (fq->encrypted && !request_ok(fq, &key)) {
        error_setg(errp, "the key was not taken");
        return false;
    }
    if (!request_ok(fq, &rq)) {
        error_setg(errp, "the userfaultfd was not taken");
        return false;
    }
    return true;
}

/*
 * Asks, and makes MM_MSG_ERROR and unexpected answers an error.  Returns 0,
 * -ECONNRESET (the pager died first, @errp is not set) or -EINVAL.
 */
static int request_type(FakeQemu *fq, const FakeRequest *rq, MmMsgType want,
                        MmMsg *reply, Error **errp)
{
    const char *name = mm_msg_type_name(rq->type);
    int ret = fake_qemu_request(fq, rq, reply);

    if (ret == -ECONNRESET) {
        return ret;
    } else if (ret) {
        error_setg_errno(errp, -ret, "%s failed", name);
    } else if (reply->hdr.type == MM_MSG_ERROR) {
        const MmMsgError *err = (const void *)reply->payload;

        error_setg(errp, "%s refused: %s", name, err->text);
    } else if (reply->hdr.type == want) {
        return 0;
    } else {
        error_setg(errp, "%s answered by %s", name,
                   mm_msg_type_name(reply->hdr.type));
    }
    mm_msg_clear(reply);
    return -EINVAL;
}

static bool check_region_fds(FakeRegion *region, Error **errp)
{
    const int must = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;
    struct stat st;

    if (fstat(region->fds[MM_REGION_FD_RAM], &st) ||
        st.st_size != region->size) {
        error_setg(errp, "guest memory has the wrong size");
        return false;
    }
    if ((fcntl(region->fds[MM_REGION_FD_RAM], F_GET_SEALS) & must) != must) {
        error_setg(errp, "guest memory is not sealed");
        return false;
    }
    return check_read_only(region->fds[MM_REGION_FD_MAP], "page map", errp);
}

static bool map_region(FakeQemu *fq, FakeRegion *region, Error **errp)
{
    uint64_t chunks = DIV_ROUND_UP(region->size, MM_DMA_CHUNK);
    struct uffdio_register reg = {
        .range = { .len = region->size },
        .mode = UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_MINOR,
    };
    void *mem = mmap(NULL, region->size, PROT_READ | PROT_WRITE,
                     MAP_SHARED | MAP_NORESERVE,
                     region->fds[MM_REGION_FD_RAM], 0);
    void *dma = mmap(NULL, chunks * sizeof(uint32_t), PROT_READ | PROT_WRITE,
                     MAP_SHARED, region->fds[MM_REGION_FD_DMA], 0);

    if (mem == MAP_FAILED || dma == MAP_FAILED) {
        error_setg_errno(errp, errno, "cannot map the region");
        return false;
    }
    region->mem = mem;
    region->dma = dma;
    madvise(mem, region->size, MADV_NOHUGEPAGE);
    reg.range.start = (uintptr_t)mem;
    if (ioctl(fq->uffd, UFFDIO_REGISTER, &reg)) {
        error_setg_errno(errp, errno, "cannot register the region");
        return false;
    }
    return true;
}

static void release_region(FakeRegion *region)
{
    int i;

    if (region->mem) {
        munmap(region->mem, region->size);
        munmap(region->dma, DIV_ROUND_UP(region->size, MM_DMA_CHUNK) *
                            sizeof(uint32_t));
    }
    for (i = 0; i < MM_REGION_FD__MAX; i++) {
        if (region->fds[i] >= 0) {
            close(region->fds[i]);
        }
    }
    shadow_free(region->shadow);
    region->shadow = NULL;
    g_free(region->words);
    region->words = NULL;
}

static void free_region(FakeRegion *region)
{
    release_region(region);
    g_free(region);
}

static FakeRegion *new_region(FakeQemu *fq, uint64_t size, uint64_t limit)
{
    FakeRegion *region = g_new0(FakeRegion, 1);
    int i;

    while (fq->regions[region->id]) {
        region->id++;
    }
    region->size = size;
    region->limit = limit;
    for (i = 0; i < MM_REGION_FD__MAX; i++) {
        region->fds[i] = -1;
    }
    return region;
}

/* Returns as request_type(). */
static int ask_for_region(FakeQemu *fq, FakeRegion *region,
                          const unsigned *pager, Error **errp)
{
    MmMsgRegion msg = {
        .id = region->id,
        .page_size = fq->page_size,
        .size = region->size,
        .limit = region->limit,
    };
    const FakeRequest rq = {
        .type = MM_MSG_REGION_ADD, .payload = &msg, .len = sizeof(msg),
        .pager = pager,
    };
    MmMsg reply;
    int i, ret;

    snprintf(msg.idstr, sizeof(msg.idstr), "torture%u", region->id);
    ret = request_type(fq, &rq, MM_MSG_REGION_ADDED, &reply, errp);
    if (ret) {
        return ret;
    }
    for (i = 0; i < MM_REGION_FD__MAX; i++) {
        region->fds[i] = mm_msg_take_fd(&reply, i);
    }
    mm_msg_clear(&reply);
    return check_region_fds(region, errp) ? 0 : -EINVAL;
}

/* If this pager is dead, the resume has told the next one. */
static bool tell(FakeQemu *fq, MmMsgType type, const MmMsgRegionRef *ref,
                 const unsigned *pager, Error **errp)
{
    const FakeRequest rq = {
        .type = type, .payload = ref, .len = sizeof(*ref), .pager = pager,
    };
    MmMsg reply;
    int ret = request_type(fq, &rq, MM_MSG_OK, &reply, errp);

    if (ret == 0) {
        mm_msg_clear(&reply);
    }
    return ret == 0 || ret == -ECONNRESET;
}

/* Returns as request_type(); with its pager the region is gone, too. */
static int try_to_add(FakeQemu *fq, FakeRegion *region, const unsigned *pager,
                      Error **errp)
{
    int ret = ask_for_region(fq, region, pager, errp);

    if (ret) {
        return ret;
    }
    if (!map_region(fq, region, errp)) {
        return -EINVAL;
    }
    return fake_qemu_enter_region(fq, region, *pager) ? 0 : -ECONNRESET;
}

FakeRegion *fake_qemu_add_region(FakeQemu *fq, uint64_t size, uint64_t limit,
                                 Error **errp)
{
    MmMsgRegionRef ref = {};
    int tries;

    for (tries = 0; tries < RETRIES; tries++) {
        FakeRegion *region = new_region(fq, size, limit);
        unsigned pager = fake_qemu_pager(fq);
        int ret = try_to_add(fq, region, &pager, errp);

        if (ret) {
            free_region(region);
            if (ret != -ECONNRESET) {
                return NULL;
            }
            /* the connection thread may not have noticed yet */
            g_usleep(10000);
            continue;
        }
        ref.id = region->id;
        ref.hva = (uintptr_t)region->mem;
        if (!tell(fq, MM_MSG_REGION_READY, &ref, &pager, errp)) {
            fake_qemu_remove_region(fq, region, NULL);
            return NULL;
        }
        return region;
    }
    error_setg(errp, "pagers die while a region is added");
    return NULL;
}

bool fake_qemu_remove_region(FakeQemu *fq, FakeRegion *region, Error **errp)
{
    MmMsgRegionRef ref = { .id = region->id };
    unsigned pager = fake_qemu_take_region(fq, region);
    bool ok = tell(fq, MM_MSG_REGION_REMOVE, &ref, &pager, errp);

    QEMU_LOCK_GUARD(&fq->zap_lock);
    release_region(region);
    return ok;
}

void fake_region_expect_stamps(FakeQemu *fq, FakeRegion *region)
{
    const ShadowPlace place = {
        .region = region->id,
        .nr_pages = region->size / STAMP_PAGE_SIZE,
        .mem = region->mem,
        .ram_fd = region->fds[MM_REGION_FD_RAM],
        .map_fd = region->fds[MM_REGION_FD_MAP],
    };

    region->shadow = shadow_new(fq->verdict, fq->seed, &place);
}

void fake_region_expect_words(FakeRegion *region)
{
    region->words = g_new0(uint64_t,
                           region->size / STAMP_PAGE_SIZE * WORD_LANES);
}

void fake_qemu_release_faults(FakeQemu *fq)
{
    int i;

    QEMU_LOCK_GUARD(&fq->lock);
    for (i = 0; i < MM_MAX_REGIONS; i++) {
        FakeRegion *region = fq->regions[i];
        struct uffdio_range range;

        if (region) {
            range.start = (uintptr_t)region->mem;
            range.len = region->size;
            ioctl(fq->uffd, UFFDIO_UNREGISTER, &range);
            /* who faults meanwhile is left behind by that */
            ioctl(fq->uffd, UFFDIO_WAKE, &range);
        }
    }
}

static void check_pager_exit(FakeQemu *fq)
{
    bool wanted;
    int status;

    if (!fake_manager_pid(fq->fm)) {
        return;
    }
    status = fake_manager_reap(fq->fm, EXIT_TIMEOUT_MS * torture_slowness(),
                               &wanted);
    if (status == -1) {
        verdict_fail(fq->verdict, "the pager lives on after QEMU's end");
    } else if (status && !wanted && !fq->may_die) {
        g_autofree char *text = describe_status(status);

        verdict_fail(fq->verdict, "the pager ended with %s at QEMU's end",
                     text);
    }
}

void fake_qemu_stop(FakeQemu *fq)
{
    WITH_QEMU_LOCK_GUARD(&fq->lock) {
        if (fq->stopping) {
            return;
        }
        fq->stopping = true;
        if (fq->sock >= 0) {
            shutdown(fq->sock, SHUT_RDWR);
        }
    }
    fake_qemu_join_threads(fq);
    if (fq->sock >= 0) {
        close(fq->sock);
        fq->sock = -1;
    }
    check_pager_exit(fq);
}

void fake_qemu_free(FakeQemu *fq)
{
    int i;

    fake_qemu_stop(fq);
    for (i = 0; i < MM_MAX_REGIONS; i++) {
        if (fq->regions[i]) {
            free_region(fq->regions[i]);
        }
    }
    for (i = 0; i < fq->nr_holds; i++) {
        close(fq->holds[i].fd);
    }
    if (fq->state) {
        munmap((void *)fq->state, MM_STATE_SIZE);
        munmap(fq->ring, sizeof(MmRing));
    }
    for (i = 0; i < MM_HELLO_FD__MAX; i++) {
        if (fq->fds[i] >= 0) {
            close(fq->fds[i]);
        }
    }
    if (fq->uffd >= 0) {
        close(fq->uffd);
    }
    g_array_free(fq->stalls_us, true);
    g_ptr_array_free(fq->removed, true);
    qemu_cond_destroy(&fq->cond);
    qemu_mutex_destroy(&fq->lock);
    qemu_mutex_destroy(&fq->request_lock);
    qemu_mutex_destroy(&fq->ring_lock);
    qemu_mutex_destroy(&fq->zap_lock);
    g_free(fq);
}
