/*
 * Managed memory pager: on which NUMA node a page lands
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Where a thread runs is the "processor" field of its /proc stat file, read
 * through a detached mount of QEMU's task directory: the jail has no other
 * /proc.  A read costs as much as a fault, so the answer is kept for a while.
 * KVM has some faults made by kernel threads, which are not QEMU's: for those
 * the best guess is where the last of QEMU's threads runs now that has faulted
 * itself.  With one vCPU, or vCPUs on one node, that is right.
 */
#include "qemu/osdep.h"
#include <numa.h>
#include <numaif.h>
#include "qemu/bitops.h"
#include "../isolation.h"
#include "node.h"

#define CACHE_SIZE 64
#define CACHE_NS 100000000ULL   /* 100 ms: threads do not move that often */

/* Fields of the stat file behind the command's closing parenthesis. */
#define PROCESSOR_FIELD 37

struct MmNodes {
    int task_fd;
    int nr_cpus;
    int *node_of_cpu;
    int preferred;
    uint32_t last_tid;          /* QEMU's thread that faulted last, or 0 */
    struct {
        uint32_t tid;
        int node;
        uint64_t until_ns;
    } cache[CACHE_SIZE];
};

MmNodes *mm_nodes_new(uint32_t qemu_pid)
{
    g_autofree char *path = g_strdup_printf("/proc/%u/task", qemu_pid);
    MmNodes *nodes;
    int cpu, task_fd;

    if (numa_available() < 0 || numa_max_node() == 0) {
        return NULL;
    }
    task_fd = mm_isolation_detach(path);
    if (task_fd < 0) {
        return NULL;
    }
    nodes = g_new0(MmNodes, 1);
    nodes->task_fd = task_fd;
    nodes->preferred = MM_NODE_ANY;
    nodes->nr_cpus = numa_num_possible_cpus();
    nodes->node_of_cpu = g_new(int, nodes->nr_cpus);
    for (cpu = 0; cpu < nodes->nr_cpus; cpu++) {
        nodes->node_of_cpu[cpu] = numa_node_of_cpu(cpu);
    }
    return nodes;
}

int mm_nodes_task_fd(const MmNodes *nodes)
{
    return nodes ? nodes->task_fd : -1;
}

static int read_processor(const MmNodes *nodes, uint32_t tid)
{
    char buf[1024], path[32];
    const char *field;
    ssize_t len;
    int fd, i;

    snprintf(path, sizeof(path), "%u/stat", tid);
    fd = openat(nodes->task_fd, path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return -1;
    }
    len = read(fd, buf, sizeof(buf) - 1);
    close(fd);
    if (len <= 0) {
        return -1;
    }
    buf[len] = '\0';
    field = strrchr(buf, ')');
    for (i = 0; field && i < PROCESSOR_FIELD; i++) {
        field = strchr(field + 1, ' ');
    }
    return field ? atoi(field + 1) : -1;
}

/* MM_NODE_ANY if it is not one of QEMU's threads. */
static int node_of(MmNodes *nodes, uint32_t tid, uint64_t now_ns)
{
    unsigned slot = tid % CACHE_SIZE;
    int cpu;

    if (nodes->cache[slot].tid != tid ||
        nodes->cache[slot].until_ns < now_ns) {
        cpu = read_processor(nodes, tid);
        nodes->cache[slot].tid = tid;
        nodes->cache[slot].until_ns = now_ns + CACHE_NS;
        nodes->cache[slot].node = cpu >= 0 && cpu < nodes->nr_cpus
                                  ? nodes->node_of_cpu[cpu] : MM_NODE_ANY;
    }
    return nodes->cache[slot].node;
}

int mm_nodes_of_thread(MmNodes *nodes, uint32_t tid, uint64_t now_ns)
{
    int node;

    if (!nodes) {
        return MM_NODE_ANY;
    }
    node = node_of(nodes, tid, now_ns);
    if (node != MM_NODE_ANY) {
        nodes->last_tid = tid;
    } else if (nodes->last_tid) {
        node = node_of(nodes, nodes->last_tid, now_ns);
    }
    return node;
}

void mm_nodes_prefer(MmNodes *nodes, int node)
{
    unsigned long mask[1024 / BITS_PER_LONG] = {};

    if (!nodes || node == nodes->preferred) {
        return;
    }
    if (node == MM_NODE_ANY || node >= 1024) {
        set_mempolicy(MPOL_DEFAULT, NULL, 0);
    } else {
        mask[node / BITS_PER_LONG] = 1UL << (node % BITS_PER_LONG);
        set_mempolicy(MPOL_PREFERRED, mask, 1024);
    }
    nodes->preferred = node;
}
