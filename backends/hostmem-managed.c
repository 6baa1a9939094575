/*
 * QEMU host memory backend: memory of the external memory manager
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The user's side of managed memory.  All that concerns every hostmem backend
 * (merge, dump, prealloc, host-nodes, policy) is done by hostmem.c after
 * alloc() and goes through the pager like any other use of the memory.
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/error-report.h"
#include "qemu/module.h"
#include "hw/qdev-core.h"
#include "qom/object_interfaces.h"
#include "sysemu/sysemu.h"
#include "backends/managed-memory-internal.h"

OBJECT_DECLARE_SIMPLE_TYPE(HostMemoryBackendManaged, MEMORY_BACKEND_MANAGED)

struct HostMemoryBackendManaged {
    HostMemoryBackend parent_obj;

    ManagedConfig config;
    bool hugetlb;
};

static int warn_if_unused(Object *obj, void *opaque)
{
    if (object_dynamic_cast(obj, TYPE_MEMORY_BACKEND_MANAGED) &&
        !host_memory_backend_is_mapped(MEMORY_BACKEND(obj))) {
        warn_report("%s '%s' is not used by the guest, whose memory is not "
                    "managed thereby; use it with -machine memory-backend=%s, "
                    "-numa node,memdev=%s or a memory device",
                    TYPE_MEMORY_BACKEND_MANAGED,
                    object_get_canonical_path_component(obj),
                    object_get_canonical_path_component(obj),
                    object_get_canonical_path_component(obj));
    }
    return 0;
}

static void warn_of_unused(Notifier *n, void *data)
{
    object_child_foreach(object_get_objects_root(), warn_if_unused, NULL);
}

/* One that is added later is for a device that is added later still. */
static void look_when_machine_is_ready(void)
{
    static Notifier at_start = { .notify = warn_of_unused };

    if (!phase_check(PHASE_MACHINE_READY) && !at_start.node.le_prev) {
        qemu_add_machine_init_done_notifier(&at_start);
    }
}

static void managed_backend_memory_alloc(HostMemoryBackend *backend,
                                         Error **errp)
{
    HostMemoryBackendManaged *m = MEMORY_BACKEND_MANAGED(backend);

    if (!backend->share) {
        error_setg(errp, "%s is always shared, with the memory manager's "
                   "pager; leave out share=off", TYPE_MEMORY_BACKEND_MANAGED);
        return;
    }
    if (m->hugetlb && !managed_config_allows_huge(&m->config, errp)) {
        return;
    }
    if (managed_memory_alloc(backend, &m->config,
                             m->hugetlb ? MANAGED_HUGE_PAGE_SIZE
                                        : qemu_real_host_page_size(), errp)) {
        look_when_machine_is_ready();
    }
}

static ManagedConfig *managed_backend_config(Object *obj)
{
    return &MEMORY_BACKEND_MANAGED(obj)->config;
}

static bool managed_backend_in_use(Object *obj)
{
    return host_memory_backend_mr_inited(MEMORY_BACKEND(obj));
}

static bool managed_backend_get_hugetlb(Object *obj, Error **errp)
{
    return MEMORY_BACKEND_MANAGED(obj)->hugetlb;
}

static void managed_backend_set_hugetlb(Object *obj, bool value, Error **errp)
{
    if (managed_backend_in_use(obj)) {
        error_setg(errp, "property 'hugetlb' of %s cannot be changed later",
                   object_get_typename(obj));
        return;
    }
    MEMORY_BACKEND_MANAGED(obj)->hugetlb = value;
}

static void managed_backend_instance_init(Object *obj)
{
    managed_config_init(managed_backend_config(obj));
    MEMORY_BACKEND(obj)->share = true;
}

static void managed_backend_finalize(Object *obj)
{
    managed_config_clear(managed_backend_config(obj));
}

static void managed_backend_class_init(ObjectClass *oc, void *data)
{
    static const ManagedConfigClass config_class = {
        .get = managed_backend_config,
        .in_use = managed_backend_in_use,
    };

    MEMORY_BACKEND_CLASS(oc)->alloc = managed_backend_memory_alloc;
    managed_config_add_properties(oc, &config_class);
    object_class_property_add_bool(oc, "hugetlb", managed_backend_get_hugetlb,
                                   managed_backend_set_hugetlb);
    object_class_property_set_description(oc, "hugetlb",
        "Use huge pages of the host, 2 MiB each, which come and go as a whole "
        "(default: off)");
}

static const TypeInfo managed_backend_info = {
    .name = TYPE_MEMORY_BACKEND_MANAGED,
    .parent = TYPE_MEMORY_BACKEND,
    .instance_init = managed_backend_instance_init,
    .instance_finalize = managed_backend_finalize,
    .class_init = managed_backend_class_init,
    .instance_size = sizeof(HostMemoryBackendManaged),
};

static void register_types(void)
{
    type_register_static(&managed_backend_info);
}

type_init(register_types);
