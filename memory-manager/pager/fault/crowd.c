/*
 * Managed memory pager: whether the host's processors are all wanted
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qemu/cutils.h"
#include "crowd.h"

/* A look costs a microsecond, so one in so many calls. */
#define CALLS_PER_LOOK 8

#define ALL 65536
/* Weight of the newest look. */
#define WEIGHT 64
/*
 * Of the looks of a host with two processors, this many found too many: one
 * vCPU with random accesses, up to a fifth; two, a third; two with skewed ones
 * or with a server and its client, 54 to 60 %.  Spinning for faults gained
 * 30 % of the first, nothing of the second, and cost the last up to a third.
 */
#define CROWDED (ALL * 3 / 8)

void mm_crowd_init(MmCrowd *c, int loadavg_fd, unsigned nr_cpus)
{
    *c = (MmCrowd) { .loadavg_fd = loadavg_fd, .nr_cpus = nr_cpus };
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

void mm_crowd_sample(MmCrowd *c)
{
    if (c->loadavg_fd < 0 || c->calls++ % CALLS_PER_LOOK) {
        return;
    }
    c->share -= c->share / WEIGHT;
    if (nr_running(c->loadavg_fd) > c->nr_cpus) {
        c->share += ALL / WEIGHT;
    }
}

bool mm_crowd_is(const MmCrowd *c)
{
    return c->share > CROWDED;
}
