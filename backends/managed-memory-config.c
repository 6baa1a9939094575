/*
 * Managed memory: properties that its object types have in common
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/cutils.h"
#include "qemu/error-report.h"
#include "qapi/qapi-builtin-visit.h"
#include "qapi/visitor.h"
#include "qemu/units.h"
#include "qom/object.h"
#include "backends/managed-memory-internal.h"

void managed_config_init(ManagedConfig *config)
{
    config->path = g_strdup(MM_DEFAULT_ATTACH_PATH);
    config->limit = MM_LIMIT_NONE;
}

void managed_config_clear(ManagedConfig *config)
{
    g_free(config->path);
    g_free(config->key_secret);
}

static bool check_unused(Object *obj, const ManagedConfigClass *cc,
                         const char *name, Error **errp)
{
    if (cc->in_use(obj)) {
        error_setg(errp, "property '%s' of %s cannot be changed later; the "
                   "limit of a VM can, with managed-memory-set-limit", name,
                   object_get_typename(obj));
        return false;
    }
    return true;
}

static void get_path(Object *obj, Visitor *v, const char *name, void *opaque,
                     Error **errp)
{
    const ManagedConfigClass *cc = opaque;

    visit_type_str(v, name, &cc->get(obj)->path, errp);
}

/*
 * Whenever a pager is lost the socket is looked for again, and -daemonize has
 * changed to "/" by then.  Symbolic links are left for the kernel to follow.
 */
static char *absolute_path(const char *path)
{
    g_autofree char *cwd = NULL;

    if (g_path_is_absolute(path)) {
        return g_strdup(path);
    }
    cwd = g_get_current_dir();
    return g_build_filename(cwd, path, NULL);
}

static void set_path(Object *obj, Visitor *v, const char *name, void *opaque,
                     Error **errp)
{
    const ManagedConfigClass *cc = opaque;
    g_autofree char *path = NULL;

    if (check_unused(obj, cc, name, errp) &&
        visit_type_str(v, name, &path, errp)) {
        g_free(cc->get(obj)->path);
        cc->get(obj)->path = absolute_path(path);
    }
}

static void get_limit(Object *obj, Visitor *v, const char *name, void *opaque,
                      Error **errp)
{
    const ManagedConfigClass *cc = opaque;
    uint64_t limit = cc->get(obj)->limit;

    if (limit == MM_LIMIT_NONE) {
        limit = 0;
    }
    visit_type_size(v, name, &limit, errp);
}

static void set_limit(Object *obj, Visitor *v, const char *name, void *opaque,
                      Error **errp)
{
    const ManagedConfigClass *cc = opaque;
    uint64_t limit;

    if (!check_unused(obj, cc, name, errp) ||
        !visit_type_size(v, name, &limit, errp)) {
        return;
    }
    if (limit && limit < MM_LIMIT_MIN) {
        error_setg(errp, "property '%s' of %s: no guest can run in %" PRIu64
                   " bytes, it must be at least %d KiB, or 0 for no limit",
                   name, object_get_typename(obj), limit,
                   (int)(MM_LIMIT_MIN / KiB));
        error_append_hint(errp, "Sizes have a unit, such as 512M.\n");
        return;
    }
    cc->get(obj)->limit = limit ?: MM_LIMIT_NONE;
}

bool managed_config_allows_huge(const ManagedConfig *config, Error **errp)
{
    g_autofree char *limit = size_to_str(config->limit);

    if (config->limit < MANAGED_HUGE_LIMIT_MIN) {
        g_autofree char *least = size_to_str(MANAGED_HUGE_LIMIT_MIN);

        error_setg(errp, "property 'limit': no guest with huge pages can run "
                   "with a limit of %s, it must be at least %s", limit, least);
        return false;
    }
    if (config->limit < MANAGED_HUGE_LIMIT_LOW) {
        warn_report("guests with huge pages hardly run with a limit of %s",
                    limit);
    }
    return true;
}

static void get_key_secret(Object *obj, Visitor *v, const char *name,
                           void *opaque, Error **errp)
{
    const ManagedConfigClass *cc = opaque;
    char *none = (char *)"";
    char *secret = cc->get(obj)->key_secret;

    visit_type_str(v, name, secret ? &secret : &none, errp);
}

static void set_key_secret(Object *obj, Visitor *v, const char *name,
                           void *opaque, Error **errp)
{
    const ManagedConfigClass *cc = opaque;
    char *secret = NULL;

    if (check_unused(obj, cc, name, errp) &&
        visit_type_str(v, name, &secret, errp)) {
        g_free(cc->get(obj)->key_secret);
        cc->get(obj)->key_secret = secret;
    }
}

void managed_config_add_properties(ObjectClass *oc,
                                   const ManagedConfigClass *cc)
{
    object_class_property_add(oc, "path", "string", get_path, set_path, NULL,
                              (void *)cc);
    object_class_property_set_description(oc, "path",
        "Attach socket of qemu-memory-manager (default: "
        MM_DEFAULT_ATTACH_PATH ")");
    object_class_property_add(oc, "limit", "size", get_limit, set_limit, NULL,
                              (void *)cc);
    object_class_property_set_description(oc, "limit",
        "How much of this memory may be resident, 0 if there is no limit of "
        "its own (default: none; ex: 512M)");
    object_class_property_add(oc, "key-secret", "string", get_key_secret,
                              set_key_secret, NULL, (void *)cc);
    object_class_property_set_description(oc, "key-secret",
        "ID of a secret of at least 32 random bytes: what leaves the host's "
        "memory is encrypted with it (default: none)");
}
