/*
 * Managed memory for guests that are described with memfd backends
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Management software such as libvirt generates memory-backend-memfd objects
 * and knows nothing of managed ones.  One more argument, -object
 * managed-memory,id=ID, has the memory manager serve every shared memfd
 * backend that is created after it, with no other change.
 *
 * The object's limit is that of all these backends together.  The first ones
 * get as much of it as they can use, the later ones what is left, so that
 * plugging in memory does not raise it.
 *
 * A guest that is started with the object but without such a backend would
 * have all of its memory on the host, unnoticed: it does not start.
 *
 * Everything here runs under the BQL.
 */
#include "qemu/osdep.h"
#include "hw/qdev-core.h"
#include "qapi/error.h"
#include "qemu/cutils.h"
#include "qemu/error-report.h"
#include "qemu/module.h"
#include "qemu/notify.h"
#include "qom/object_interfaces.h"
#include "sysemu/sysemu.h"
#include "backends/managed-memory-internal.h"

OBJECT_DECLARE_SIMPLE_TYPE(ManagedMemory, MANAGED_MEMORY)

struct ManagedMemory {
    Object parent_obj;

    ManagedConfig config;
    Notifier machine_done;
};

/* The one object of this type, once complete */
static ManagedMemory *managed_memory;

/* Counts regions of memfd backends, and how much of the limit they have. */
static unsigned count_regions(uint64_t *given)
{
    g_autoptr(GPtrArray) regions = managed_regions_snapshot();
    unsigned i, count = 0;

    *given = 0;
    for (i = 0; i < regions->len; i++) {
        ManagedRegion *region = regions->pdata[i];
        Object *owner = object_resolve_path(region->owner, NULL);

        if (owner && !object_dynamic_cast(owner, TYPE_MEMORY_BACKEND_MANAGED)) {
            count++;
            *given += region->limit;
        }
        managed_region_unref(region);
    }
    return count;
}

bool managed_memory_alloc_memfd(HostMemoryBackend *backend, bool hugetlb,
                                uint64_t hugetlbsize, Error **errp)
{
    ManagedMemory *m = managed_memory;
    ManagedConfig config;
    uint64_t given;

    if (!m || !backend->share) {
        return false;
    }
    if (hugetlb && hugetlbsize && hugetlbsize != MANAGED_HUGE_PAGE_SIZE) {
        g_autofree char *text = size_to_str(hugetlbsize);

        error_setg(errp, "huge pages of %s cannot be managed memory; use "
                   "hugetlbsize=2M, or leave out -object %s", text,
                   TYPE_MANAGED_MEMORY);
        return true;
    }
    if (hugetlb && !managed_config_allows_huge(&m->config, errp)) {
        return true;
    }
    config = m->config;
    if (config.limit != MM_LIMIT_NONE) {
        count_regions(&given);
        config.limit -= MIN(config.limit, given);
    }
    managed_memory_alloc(backend, &config,
                         hugetlb ? MANAGED_HUGE_PAGE_SIZE
                                 : qemu_real_host_page_size(), errp);
    return true;
}

static void check_serves(Notifier *notifier, void *data)
{
    uint64_t given;

    if (count_regions(&given) == 0) {
        error_report("-object %s serves no memory: the guest has no "
                     "memory-backend-memfd with share=on",
                     TYPE_MANAGED_MEMORY);
        error_printf("libvirt makes such memory with <memoryBacking>"
                     "<source type='memfd'/><access mode='shared'/>"
                     "</memoryBacking>; without libvirt use -object %s\n",
                     TYPE_MEMORY_BACKEND_MANAGED);
        exit(EXIT_FAILURE);
    }
}

static void managed_memory_complete(UserCreatable *uc, Error **errp)
{
    if (managed_memory) {
        error_setg(errp, "there is an object of type %s already; one serves "
                   "all backends", TYPE_MANAGED_MEMORY);
        return;
    }
    managed_memory = MANAGED_MEMORY(uc);
    /* at run time it is for what is plugged in later */
    if (!phase_check(PHASE_MACHINE_READY)) {
        managed_memory->machine_done.notify = check_serves;
        qemu_add_machine_init_done_notifier(&managed_memory->machine_done);
    }
}

static bool managed_memory_can_be_deleted(UserCreatable *uc)
{
    uint64_t given;

    return count_regions(&given) == 0;
}

static ManagedConfig *managed_memory_config(Object *obj)
{
    return &MANAGED_MEMORY(obj)->config;
}

static bool managed_memory_complete_already(Object *obj)
{
    return managed_memory == MANAGED_MEMORY(obj);
}

static void managed_memory_instance_init(Object *obj)
{
    managed_config_init(managed_memory_config(obj));
}

static void managed_memory_finalize(Object *obj)
{
    if (managed_memory == MANAGED_MEMORY(obj)) {
        if (managed_memory->machine_done.notify) {
            qemu_remove_machine_init_done_notifier(
                &managed_memory->machine_done);
        }
        managed_memory = NULL;
    }
    managed_config_clear(managed_memory_config(obj));
}

static void managed_memory_class_init(ObjectClass *oc, void *data)
{
    static const ManagedConfigClass config_class = {
        .get = managed_memory_config,
        .in_use = managed_memory_complete_already,
    };
    UserCreatableClass *ucc = USER_CREATABLE_CLASS(oc);

    ucc->complete = managed_memory_complete;
    ucc->can_be_deleted = managed_memory_can_be_deleted;
    managed_config_add_properties(oc, &config_class);
}

static const TypeInfo managed_memory_info = {
    .name = TYPE_MANAGED_MEMORY,
    .parent = TYPE_OBJECT,
    .instance_init = managed_memory_instance_init,
    .instance_finalize = managed_memory_finalize,
    .class_init = managed_memory_class_init,
    .instance_size = sizeof(ManagedMemory),
    .interfaces = (InterfaceInfo[]) {
        { TYPE_USER_CREATABLE },
        { }
    },
};

static void register_types(void)
{
    type_register_static(&managed_memory_info);
}

type_init(register_types);
