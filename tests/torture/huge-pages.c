/*
 * Torture tests: huge pages of the host
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qemu/units.h"
#include "torture.h"

#define POOL "/sys/kernel/mm/hugepages/hugepages-2048kB/"
/* Of the host, while the pages of a run before are being given back. */
#define TRIES 50

static int before = -1;

static unsigned get(const char *name)
{
    g_autofree char *text = NULL;

    if (!g_file_get_contents(name, &text, NULL, NULL)) {
        g_error("cannot read %s: this host has no huge pages", name);
    }
    return atoi(text);
}

static void set(unsigned nr)
{
    int fd = open(POOL "nr_hugepages", O_WRONLY);
    g_autofree char *text = g_strdup_printf("%u", nr);

    if (fd < 0 || write(fd, text, strlen(text)) < 0) {
        g_error("cannot reserve huge pages: %s", strerror(errno));
    }
    close(fd);
}

static void give_back(void)
{
    set(before);
}

void torture_need_huge_pages(unsigned mib)
{
    unsigned want = mib / 2;
    int tries;

    if (before < 0) {
        before = get(POOL "nr_hugepages");
        atexit(give_back);
    }
    for (tries = 0; get(POOL "free_hugepages") < want; tries++) {
        if (tries == TRIES) {
            g_error("the host has no memory for %u huge pages", want);
        }
        set(get(POOL "nr_hugepages") + want - get(POOL "free_hugepages"));
        g_usleep(20000);
    }
}
