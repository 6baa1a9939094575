/*
 * Managed memory pager: on which NUMA node a page lands
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The kernel allocates a page where the memory policy of whoever fills it says,
 * and that is the pager.  A policy on the backend (host-nodes=, policy=) lies
 * on the memfd and goes first.  Without one the page belongs on the node of
 * the vCPU that wants it, so the fault thread prefers that node while it fills.
 *
 * Fault thread only, unless a function says otherwise.
 */
#ifndef MANAGED_MEMORY_NODE_H
#define MANAGED_MEMORY_NODE_H

/* No preference: the kernel's default. */
#define MM_NODE_ANY (-1)

typedef struct MmNodes MmNodes;

/**
 * mm_nodes_new: learn the host's nodes
 *
 * @qemu_pid: whose threads fault
 *
 * Before the process is jailed.  Returns NULL on a host with one node, or if
 * QEMU's threads cannot be looked at: every node is as good then.
 */
MmNodes *mm_nodes_new(uint32_t qemu_pid);

/** mm_nodes_task_fd: directory that is read from while serving, or -1. */
int mm_nodes_task_fd(const MmNodes *nodes);

/**
 * mm_nodes_of_thread: node on which a thread runs, or MM_NODE_ANY
 *
 * @nodes: may be NULL
 * @tid: in the pager's PID namespace
 * @now_ns: monotonic time; an answer is remembered for a while
 */
int mm_nodes_of_thread(MmNodes *nodes, uint32_t tid, uint64_t now_ns);

/** mm_nodes_prefer: fill pages on this node from now on; @nodes may be NULL. */
void mm_nodes_prefer(MmNodes *nodes, int node);

#endif
