/*
 * Managed memory pager: whether the host's processors are all wanted
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include <linux/magic.h>
#include <linux/openat2.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include "qemu/cutils.h"
#include "crowd.h"

/* A look costs a microsecond, and more where there are many processors. */
#define LOOK_NS 1000000ULL

#define ALL 65536
/* The newest look is one of so many. */
#define LOOKS 64
/*
 * Of the looks of a host with two processors, this many found too many: one
 * vCPU with random accesses, up to a fifth; two, a third; two with skewed ones
 * or with a server and its client, 54 to 60 %.  Spinning for faults gained
 * 30 % of the first, nothing of the second, and took a quarter of the server's
 * time.
 */
#define CROWDED (ALL * 3 / 8)

int mm_crowd_open_loadavg(void)
{
    struct open_how how = {
        .flags = O_RDONLY | O_CLOEXEC, .resolve = RESOLVE_NO_XDEV,
    };
    struct statfs fs;
    int fd = -1, proc_fd = open("/proc", O_PATH | O_DIRECTORY | O_CLOEXEC);

    if (proc_fd >= 0 && fstatfs(proc_fd, &fs) == 0 &&
        fs.f_type == PROC_SUPER_MAGIC) {
        fd = syscall(SYS_openat2, proc_fd, "loadavg", &how, sizeof(how));
    }
    if (proc_fd >= 0) {
        close(proc_fd);
    }
    return fd;
}

/* The 4th word of loadavg, "running/all"; 0 if there is none. */
static unsigned long nr_running(int fd)
{
    char buf[128];
    ssize_t len = TEMP_FAILURE_RETRY(pread(fd, buf, sizeof(buf) - 1, 0));
    const char *word = buf, *end;
    unsigned long nr;
    int i;

    buf[MAX(len, 0)] = '\0';
    for (i = 0; word && i < 3; i++) {
        word = strchr(word, ' ');
        word = word ? word + 1 : NULL;
    }
    return word && qemu_strtoul(word, &end, 10, &nr) == 0 ? nr : 0;
}

void mm_crowd_init(MmCrowd *c, int loadavg_fd, unsigned nr_cpus)
{
    *c = (MmCrowd) { .loadavg_fd = loadavg_fd, .nr_cpus = nr_cpus };
    /* what the kernel allocates for that is there from now on */
    nr_running(loadavg_fd);
}

void mm_crowd_sample(MmCrowd *c, uint64_t now_ns)
{
    if (c->loadavg_fd < 0 ||
        (c->looked_ns && now_ns - c->looked_ns < LOOK_NS)) {
        return;
    }
    c->looked_ns = now_ns;
    c->share -= c->share / LOOKS;
    if (nr_running(c->loadavg_fd) > c->nr_cpus) {
        c->share += ALL / LOOKS;
    }
}

bool mm_crowd_is(const MmCrowd *c)
{
    return c->share > CROWDED;
}
