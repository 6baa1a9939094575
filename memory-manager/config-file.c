/*
 * qemu-memory-manager: its configuration file
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Read before the command line, which has the last word.
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qapi/qmp/qdict.h"
#include "qapi/qmp/qstring.h"
#include "qemu/config-file.h"
#include "qemu/option.h"
#include "config-file.h"

static MmOptions *target;       /* of the file that is being read */

/* The parser takes a value without quotes for an empty one. */
static bool has_values(const QDict *section, Error **errp)
{
    const QDictEntry *entry;

    for (entry = qdict_first(section); entry;
         entry = qdict_next(section, entry)) {
        if (!*qdict_get_str(section, qdict_entry_key(entry))) {
            error_setg(errp, "'%s' has no value; write it as NAME = \"VALUE\", "
                       "with quotes and blanks", qdict_entry_key(entry));
            return false;
        }
    }
    return true;
}

static void take_manager(const QDict *section, Error **errp)
{
    const QDictEntry *entry;

    for (entry = qdict_first(section); entry;
         entry = qdict_next(section, entry)) {
        const char *key = qdict_entry_key(entry);
        const char *value = qdict_get_str(section, key);

        if (!mm_options_set(target, key, value)) {
            error_setg(errp, "[manager] has no parameter '%s'; it is a long "
                       "option that takes a value, and tiers have sections of "
                       "their own", key);
            return;
        }
    }
}

static void take_tier(QDict *section, Error **errp)
{
    const char *name = qdict_get_try_str(section, "id");
    QemuOpts *o;

    if (target->nr_tiers == MM_MAX_TIERS) {
        error_setg(errp, "there can be %d tiers, not more", MM_MAX_TIERS);
        return;
    }
    if (name) {
        qdict_put_str(section, "name", name);
        qdict_del(section, "id");
    }
    o = qemu_opts_from_qdict(&mm_tier_opts, section, errp);
    if (o) {
        target->nr_tiers += mm_tier_from_opts(&target->tiers[target->nr_tiers],
                                              o, errp);
        qemu_opts_del(o);
    }
}

static void take_section(const char *group, QDict *section, void *opaque,
                         Error **errp)
{
    if (!has_values(section, errp)) {
        return;
    }
    if (g_str_equal(group, "manager")) {
        take_manager(section, errp);
    } else if (g_str_equal(group, "tier")) {
        take_tier(section, errp);
    } else {
        error_setg(errp, "there is no section [%s]; there are [manager] and "
                   "[tier \"NAME\"]", group);
    }
}

bool mm_config_read(MmOptions *opts, const char *path, Error **errp)
{
    ERRP_GUARD();
    int ret;

    target = opts;
    ret = qemu_read_config_file(path, take_section, errp);
    if (ret < 0 && !*errp) {
        error_setg_errno(errp, -ret, "it cannot be read");
    }
    if (*errp) {
        error_prepend(errp, "%s: ", path);
        error_append_hint(errp, "Lines are [manager], [tier \"NAME\"], "
                          "key = \"value\" (with the quotes), or begin with "
                          "#.\n");
    }
    return !*errp;
}
