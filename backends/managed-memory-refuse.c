/*
 * Managed memory: what it cannot be combined with
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Managed memory works because every access to a page that is not there ends
 * in a fault that the pager serves.  Two things break that without anybody
 * noticing: whoever pins pages keeps using them after the pager has replaced
 * them, and whoever maps the memory in another process sees zeros.  Some
 * features use userfaultfd themselves.  All of these are refused with managed
 * memory, whichever comes first, and each message says what to do instead.
 *
 * Much of it is known to QEMU as "discarding of RAM must not happen", and is
 * covered by ram_block_discard_require(); the rest is listed here.
 *
 * All functions run under the BQL, except managed_refuse_none().
 */
#include "qemu/osdep.h"
#include "hw/core/cpu.h"
#include "hw/qdev-core.h"
#include "migration/migration.h"
#include "net/net.h"
#include "qapi/error.h"
#include "qemu/cutils.h"
#include "qemu/error-report.h"
#include "sysemu/kvm.h"
#include "sysemu/sysemu.h"
#include "backends/managed-memory-internal.h"

#define SHMEM_ENABLED "/sys/kernel/mm/transparent_hugepage/shmem_enabled"

#define OTHER_PROCESS "another process maps guest memory and would find " \
                      "zeros where pages are swapped out"
#define PINS "it pins guest memory"
#define BLOB "blob resources (udmabuf) pin guest memory"
#define VOLATILE "managed memory does not persist"
#define ORDINARY "give the guest an ordinary memory backend"

/* Objects that conflict, by the start of their type's name */
typedef struct Conflict {
    const char *prefix;
    const char *flag;           /* only if this property is true */
    const char *link;           /* only if this link leads ... */
    const char *linked;         /* ... to this type, or to managed memory */
    const char *why;
    const char *instead;
} Conflict;

static const Conflict conflicts[] = {
    {
        .prefix = "vfio-", .why = PINS,
        .instead = "use an emulated or virtio device, or " ORDINARY,
    }, {
        .prefix = "vhost-vdpa", .why = PINS,
        .instead = "use a virtio device, or " ORDINARY,
    }, {
        .prefix = "vhost-scsi", .why = PINS,
        .instead = "use virtio-scsi, or " ORDINARY,
    }, {
        .prefix = "vhost-user-", .why = OTHER_PROCESS,
        .instead = "use the corresponding virtio device, or " ORDINARY,
    }, {
        .prefix = "virtio-crypto", .why = OTHER_PROCESS,
        .link = "cryptodev", .linked = "cryptodev-vhost-user",
        .instead = "use cryptodev-backend-builtin, or " ORDINARY,
    }, {
        .prefix = "x-pci-proxy-dev", .why = OTHER_PROCESS,
        .instead = "run the device in this process, or " ORDINARY,
    }, {
        .prefix = "pvrdma", .why = PINS,
        .instead = "use another network device, or " ORDINARY,
    }, {
        .prefix = "virtio-gpu", .why = BLOB, .flag = "blob",
        .instead = "leave out blob=on",
    }, {
        .prefix = "virtio-vga", .why = BLOB, .flag = "blob",
        .instead = "leave out blob=on",
    }, {
        .prefix = "virtio-pmem", .why = VOLATILE, .link = "memdev",
        .instead = "use memory-backend-file",
    }, {
        .prefix = "nvdimm", .why = VOLATILE, .link = "memdev",
        .instead = "use memory-backend-file",
    }, {
        .prefix = "nvme", .why = VOLATILE, .link = "pmrdev",
        .instead = "use memory-backend-file",
    },
};

/* Migration capabilities that conflict */
static const struct {
    MigrationCapability capability;
    const char *why;
} bad_capabilities[] = {
    { MIGRATION_CAPABILITY_POSTCOPY_RAM,
      "it needs the faults that the memory manager serves" },
    { MIGRATION_CAPABILITY_BACKGROUND_SNAPSHOT,
      "it needs the faults that the memory manager serves" },
    { MIGRATION_CAPABILITY_X_COLO, "it keeps a second copy of guest memory" },
    { MIGRATION_CAPABILITY_COMPRESS,
      "its threads may overtake what is sent of swapped pages; multifd can "
      "compress (multifd-compression)" },
    { MIGRATION_CAPABILITY_XBZRLE,
      "it compares with what was sent before, which swapped pages are not" },
    { MIGRATION_CAPABILITY_X_IGNORE_SHARED,
      "it would leave out the guest's memory, which is shared" },
};

static bool discard_required;

/* ---- devices and other objects ---- */

static bool is_managed(Object *memdev)
{
    MemoryRegion *mr;

    if (!object_dynamic_cast(memdev, TYPE_MEMORY_BACKEND)) {
        return false;
    }
    mr = host_memory_backend_get_memory(MEMORY_BACKEND(memdev));
    RCU_READ_LOCK_GUARD();
    return mr && managed_region_find(memory_region_get_ram_ptr(mr));
}

static bool applies(const Conflict *conflict, Object *obj)
{
    if (!strstart(object_get_typename(obj), conflict->prefix, NULL)) {
        return false;
    }
    if (conflict->flag) {
        return object_property_get_bool(obj, conflict->flag, NULL);
    }
    if (conflict->link) {
        Object *to = object_property_get_link(obj, conflict->link, NULL);

        return to && (conflict->linked ?
                      object_dynamic_cast(to, conflict->linked) != NULL :
                      is_managed(to));
    }
    return true;
}

static bool check_object(Object *obj, Error **errp)
{
    unsigned i;

    for (i = 0; i < ARRAY_SIZE(conflicts); i++) {
        const Conflict *conflict = &conflicts[i];

        if (applies(conflict, obj)) {
            error_setg(errp, "%s cannot be used with managed memory: %s; %s",
                       object_get_typename(obj), conflict->why,
                       conflict->instead);
            return false;
        }
    }
    return true;
}

static int check_child(Object *obj, void *opaque)
{
    return check_object(obj, opaque) ? 0 : -1;
}

/* Nested page tables of KVM hold on to pages without telling anybody. */
static bool check_nested(Object *cpu, Error **errp)
{
    static const char *const names[] = { "svm", "vmx" };
    unsigned i;

    for (i = 0; kvm_enabled() && i < ARRAY_SIZE(names); i++) {
        if (object_property_get_bool(cpu, names[i], NULL)) {
            error_setg(errp, "nested virtualization cannot be used with "
                       "managed memory: inner guests pin memory of the outer "
                       "one; add %s=off to -cpu", names[i]);
            return false;
        }
    }
    return true;
}

bool managed_memory_allows_device(Object *dev, Error **errp)
{
    if (!managed_memory_used()) {
        return true;
    }
    /* Others have been checked, or will be, when the machine is complete. */
    if (DEVICE(dev)->hotplugged && object_dynamic_cast(dev, TYPE_CPU) &&
        !check_nested(dev, errp)) {
        return false;
    }
    return check_object(dev, errp);
}

bool managed_memory_allows_vhost_user(Error **errp)
{
    if (managed_memory_used()) {
        error_setg(errp, "vhost-user cannot be used with managed memory: %s; "
                   "use virtio with a backend in this process or in the "
                   "kernel, or %s", OTHER_PROCESS, ORDINARY);
        return false;
    }
    return true;
}

/* ---- the rest of this VM ---- */

bool managed_memory_allows_migration(const bool *caps, Error **errp)
{
    unsigned i;

    for (i = 0; managed_memory_used() && i < ARRAY_SIZE(bad_capabilities);
         i++) {
        if (caps[bad_capabilities[i].capability]) {
            error_setg(errp, "migration capability %s cannot be used with "
                       "managed memory: %s; switch it off",
                       MigrationCapability_str(bad_capabilities[i].capability),
                       bad_capabilities[i].why);
            return false;
        }
    }
    return true;
}

void managed_memory_report_pinning(void)
{
    if (qatomic_read(&discard_required)) {
        error_report("managed memory cannot be combined with what pins guest "
                     "memory (VFIO, vDPA, SEV, RDMA, COLO, nvme:// and some "
                     "blkio drivers); do without it, or %s", ORDINARY);
    }
}

static bool check_migration(Error **errp)
{
    const bool *caps = migrate_get_current()->enabled_capabilities;
    unsigned i;

    for (i = 0; i < ARRAY_SIZE(bad_capabilities); i++) {
        if (caps[bad_capabilities[i].capability]) {
            error_setg(errp, "managed memory cannot be used with migration "
                       "capability %s: %s; switch it off first",
                       MigrationCapability_str(bad_capabilities[i].capability),
                       bad_capabilities[i].why);
            return false;
        }
    }
    return true;
}

/* Every queue of every netdev counts as one: there may be thousands. */
static int count_netdevs(void)
{
    return qemu_find_net_clients_except(NULL, NULL, NET_CLIENT_DRIVER_NIC, 0);
}

static bool check_netdevs(Error **errp)
{
    int i, nr = count_netdevs();
    g_autofree NetClientState **clients = g_new(NetClientState *, nr);

    qemu_find_net_clients_except(NULL, clients, NET_CLIENT_DRIVER_NIC, nr);
    for (i = 0; i < nr; i++) {
        if (clients[i]->info->type == NET_CLIENT_DRIVER_VHOST_USER) {
            error_setg(errp, "managed memory cannot be used with vhost-user "
                       "(netdev '%s'): %s; use another netdev",
                       clients[i]->name, OTHER_PROCESS);
            return false;
        }
    }
    return true;
}

/* ---- the host ---- */

static bool check_host(Error **errp)
{
    g_autofree char *shmem = NULL;

    if (qemu_real_host_page_size() != 4096) {
        error_setg(errp, "managed memory needs a host with pages of 4 KiB");
        return false;
    }
    if (enable_mlock) {
        error_setg(errp, "managed memory cannot be locked: leave out "
                   "-overcommit mem-lock=on");
        return false;
    }
    if (g_file_get_contents(SHMEM_ENABLED, &shmem, NULL, NULL) &&
        (strstr(shmem, "[always]") || strstr(shmem, "[force]"))) {
        error_setg(errp, "managed memory cannot use huge pages, which this "
                   "host forces on all shared memory; write 'advise' or "
                   "'never' to " SHMEM_ENABLED);
        return false;
    }
    return true;
}

void managed_memory_check_confined(void)
{
    Error *err = NULL;

    if (!managed_conn_check_path(&err)) {
        error_report_err(err);
        exit(EXIT_FAILURE);
    }
}

/* ---- first and last region ---- */

static bool check_nested_all(Error **errp)
{
    CPUState *cpu;

    CPU_FOREACH(cpu) {
        if (!check_nested(OBJECT(cpu), errp)) {
            return false;
        }
    }
    return true;
}

static void check_nested_at_start(Notifier *n, void *data)
{
    Error *err = NULL;

    if (managed_memory_used() && !check_nested_all(&err)) {
        error_report_err(err);
        exit(EXIT_FAILURE);
    }
}

static bool check_cpus(Error **errp)
{
    static Notifier at_start = { .notify = check_nested_at_start };

    if (phase_check(PHASE_MACHINE_READY)) {
        return check_nested_all(errp);
    }
    if (!at_start.node.le_prev) {
        qemu_add_machine_init_done_notifier(&at_start);
    }
    return true;
}

bool managed_refuse_first(Error **errp)
{
    ERRP_GUARD();

    if (!check_host(errp) || !check_migration(errp) || !check_netdevs(errp) ||
        !check_cpus(errp) ||
        object_child_foreach_recursive(object_get_root(), check_child, errp)) {
        return false;
    }
    if (ram_block_discard_require(true)) {
        error_setg(errp, "managed memory cannot be combined with what pins "
                   "guest memory, and something of that kind is in use "
                   "(VFIO, vDPA, SEV, RDMA, COLO, nvme:// or blkio); remove "
                   "it first");
        return false;
    }
    if (qatomic_xchg(&discard_required, true)) {
        /* A detach has not come to its managed_refuse_none() yet. */
        ram_block_discard_require(false);
    }
    return true;
}

void managed_refuse_none(void)
{
    if (qatomic_xchg(&discard_required, false)) {
        ram_block_discard_require(false);
    }
}
