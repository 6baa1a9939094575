# SPDX-License-Identifier: GPL-2.0-or-later
"""What the manager says about a VM.

The only place of the functional tests that knows the form of the reply to
query-managed-vms (memory-manager/qapi/memory-manager.json). All amounts of
memory are in bytes.
"""


class VmState:
    """One VM of a query-managed-vms reply."""

    def __init__(self, reply):
        self.reply = reply
        self.uuid = reply["uuid"]
        self.name = reply["name"]
        self.state = reply["state"]
        self.qemu_pid = reply["qemu-pid"]
        self.pager_pid = reply.get("pager-pid")
        self.stale = reply["stale"]
        self.size = reply["size"]
        self.limit = reply.get("limit")
        self.hard_limit = reply.get("hard-limit")
        self.resident = reply["resident"]
        self.zero = reply["zero"]
        self.swapped = reply["swapped"]
        self.never_populated = reply["never-populated"]
        self.faults = reply["faults"]
        self.pages = reply["pages"]
        self.errors = reply["errors"]
        self.latency_us = {name[:-3]: value
                           for name, value in reply["latency"].items()
                           if name.endswith("-us")}
        self.stalled_threads = reply["stalled-threads"]
        self.oldest_fault_ms = reply["oldest-fault-ms"]
        self.last_stall_ms = reply["last-stall-ms"]
        self.pager_starts = reply["pager-starts"]
        self.tier_content = sum(tier["content"] for tier in reply["tiers"])

    @property
    def is_served(self):
        """Whether a pager serves the VM's faults now."""
        return self.state == "serving" and not self.stale

    @property
    def all_faults(self):
        """Number of faults served; the other counters are subsets."""
        return sum(self.faults[kind]
                   for kind in ("missing", "minor", "zero", "swap-in"))

    @property
    def accounted(self):
        """Bytes that are in one of the states; size, when all is quiet."""
        return (self.resident + self.zero + self.swapped
                + self.never_populated)
