/*
 * qemu-memory-manager: files that change hands when a VM migrates
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A VM's file on shared storage has one owner, who alone lets its VM run and
 * removes the file, and its name says who that is (shared-file.c).  It changes
 * hands by being renamed, which the file system does for one of those who try:
 *
 *   source                             target
 *   UUID.SOURCE                        LEND: opened to be read
 *   RELEASE: UUID.SOURCE -> UUID.rN
 *                                      CLAIM: UUID.rN -> UUID.TARGET
 *   CLAIM: UUID.rN -> UUID.SOURCE      or so, if the migration has failed
 *
 * N is another number in each migration, or one that has given up waiting for
 * its guest could claim it in a later one, with memory of the past.  Whoever
 * comes second finds no file, and its VM does not run.  Nothing happens by
 * itself, or because time has passed: a file that was released and not claimed
 * stays.
 *
 * The storage may hang, so a rename is done by a thread.  A QEMU that does not
 * wait for the end of a release has its guest go on, and claims the file: that
 * is done when the release has ended, or the file would be nobody's for good.
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/cutils.h"
#include "qemu/error-report.h"
#include "io/task.h"
#include "qom/object.h"
#include "handover.h"
#include "attach.h"
#include "room.h"
#include "shared-file.h"
#include "vm-tiers.h"

/* A rename that is under way; vm->renaming */
typedef struct MmRenaming {
    MmManager *mgr;
    uint8_t vm[MM_UUID_LEN];    /* which may be gone when it ends */
    uint8_t file_id[MM_UUID_LEN];
    bool claim;                 /* or release */
    bool lent;                  /* by another host */
    bool back;                  /* a release that is not wanted any more */
    bool left;                  /* by a VM that has ended, for the other host */
    int sock;                   /* -1: nobody waits */
    uint64_t seq;
    char *dir;
    char from[MM_FILE_LEN];
    char to[MM_FILE_LEN];
    int ret;                    /* written by the thread */
} MmRenaming;

static void answer(int sock, uint64_t seq, Error *err, MmMsgType type,
                   const void *payload, size_t len)
{
    if (sock < 0) {
        if (err) {
            warn_report_err(err);
        }
        return;
    }
    if (err) {
        mm_attach_refuse(sock, seq, EINVAL, error_get_pretty(err));
        error_free(err);
        return;
    }
    mm_msg_send(sock, type, seq, payload, len, NULL, 0);
    close(sock);
}

/* ---- LEND ---- */

static const MmTierConf *find_storage(const MmOptions *opts,
                                      const uint8_t *storage, Error **errp)
{
    g_autofree char *text = NULL;
    QemuUUID uuid;
    unsigned i;

    for (i = 0; i < opts->nr_tiers; i++) {
        if (opts->tiers[i].shared &&
            !memcmp(opts->tiers[i].storage, storage, MM_UUID_LEN)) {
            return &opts->tiers[i];
        }
    }
    memcpy(uuid.data, storage, sizeof(uuid.data));
    text = qemu_uuid_unparse_strdup(&uuid);
    error_setg(errp, "this host has no tier on the storage (%s) on which the "
               "source has content of the VM: give the memory manager one with "
               "--tier file,path=DIR,shared=on or 'qemu-memctl tier-add "
               "--shared', or have the content sent with the source's migration "
               "capability managed-ram switched off", text);
    return NULL;
}

static bool lend(MmVM *vm, const MmMsgHandover *request, MmMsgAmount *number,
                 Error **errp)
{
    const MmTierConf *conf = find_storage(&vm->mgr->opts, request->storage,
                                          errp);
    MmRecordTier tier = {};

    if (!conf) {
        return false;
    }
    if (!mm_shared_is_name(request->file, request->file_id)) {
        error_setg(errp, "'%s' is not the name of a VM's file", request->file);
        return false;
    }
    if (mm_shared_is_ours(request->file)) {
        error_setg(errp, "the source has the same memory manager, or one that "
                   "cannot be told from it, whose file would not change hands; "
                   "switch its migration capability managed-ram off");
        return false;
    }
    mm_tier_describe(conf, &tier.conf);
    snprintf(tier.conf.name, sizeof(tier.conf.name), "%.40s (lent)",
             conf->name);
    tier.conf.is_new = 1;
    tier.conf.lent = 1;
    tier.conf.overcommit = 1;
    tier.conf.size = 0;
    pstrcpy(tier.conf.file, sizeof(tier.conf.file), request->file);
    memcpy(tier.conf.file_id, request->file_id, MM_UUID_LEN);
    memcpy(tier.conf.file_key, request->file_key, MM_COOKIE_LEN);
    pstrcpy(tier.path, sizeof(tier.path), conf->path);
    return mm_vm_tiers_lend(vm, &tier, &number->value, errp);
}

/* ---- RELEASE, CLAIM ---- */

static int rename_it(const MmRenaming *r)
{
    g_autofree char *from = g_build_filename(r->dir, r->from, NULL);
    g_autofree char *to = g_build_filename(r->dir, r->to, NULL);

    if (!rename(from, to)) {
        return 0;
    }
    /*
     * It was us, and the answer was lost: ours, or on the way from NFS.  Nobody
     * else makes such a name, since files with it are not lent.
     */
    return errno == ENOENT && access(to, F_OK) == 0 ? 0 : -errno;
}

static void renaming_thread(QIOTask *task, gpointer opaque)
{
    MmRenaming *r = opaque;

    r->ret = rename_it(r);
}

/* NULL if its QEMU has ended, though the VM may still be there. */
static MmRecordTier *tier_of(const MmRenaming *r, MmVM **vm)
{
    uint32_t i;

    *vm = mm_vm_by_uuid(r->mgr, r->vm);
    if (!*vm || (*vm)->state == MANAGEDVM_STATE_CLOSING) {
        return NULL;
    }
    for (i = 0; i < (*vm)->rec.nr_tiers; i++) {
        if (!memcmp((*vm)->rec.tiers[i].conf.file_id, r->file_id,
                    MM_UUID_LEN)) {
            return &(*vm)->rec.tiers[i];
        }
    }
    return NULL;
}

static void renamed(QIOTask *task, gpointer opaque);

/* @vm: whose it is, or NULL */
static void start_renaming(MmVM *vm, MmRenaming *r)
{
    if (vm) {
        vm->renaming = r;
    }
    qio_task_run_in_thread(qio_task_new(object_get_root(), renamed, r, NULL),
                           renaming_thread, r, NULL, NULL);
}

/* What @r has done is undone. */
static void rename_back(MmVM *vm, const MmRenaming *r)
{
    MmRenaming *back = g_new(MmRenaming, 1);

    *back = *r;
    back->claim = !r->claim;
    back->left = !vm;
    back->back = false;
    back->sock = -1;
    back->dir = g_strdup(r->dir);
    memcpy(back->from, r->to, sizeof(back->from));
    memcpy(back->to, r->from, sizeof(back->to));
    start_renaming(vm, back);
}

/*
 * The VM may have ended meanwhile.  If it has only come here, its guest has not
 * run, and is the other host's if that still has it.  Else what it would own is
 * removed.
 */
static void renamed(QIOTask *task, gpointer opaque)
{
    MmRenaming *r = opaque;
    Error *err = NULL;
    MmVM *vm;
    MmRecordTier *tier = tier_of(r, &vm);

    if (vm) {
        vm->renaming = NULL;
    }
    if (r->ret < 0) {
        error_setg_errno(&err, -r->ret, "the VM's file %s in %s cannot be had: "
                         "%s", r->from, r->dir, r->ret == -ENOENT
                         ? "another host has claimed it, and with it the VM"
                         : "its storage fails");
    } else if (tier) {
        pstrcpy(tier->conf.file, sizeof(tier->conf.file), r->to);
        mm_record_write(vm->record_path, &vm->rec, &err);
        mm_vm_tiers_step(vm);
        if (r->back) {
            rename_back(vm, r);
        }
    } else if (r->claim && r->lent) {
        rename_back(NULL, r);
        error_setg(&err, "the VM has ended");
    } else if (!r->left) {
        /* nobody can claim it: what its QEMU sent has not come to its end */
        mm_shared_remove_named(r->dir, r->to);
        error_setg(&err, "the VM has ended");
    }
    answer(r->sock, r->seq, err, MM_MSG_OK, NULL, 0);
    g_free(r->dir);
    g_free(r);
}

static MmRecordTier *find_file(MmVM *vm, const uint8_t *file_id, Error **errp)
{
    uint32_t i;

    for (i = 0; i < vm->rec.nr_tiers; i++) {
        MmRecordTier *tier = &vm->rec.tiers[i];

        if (tier->conf.shared &&
            !memcmp(tier->conf.file_id, file_id, MM_UUID_LEN)) {
            return tier;
        }
    }
    error_setg(errp, "the VM has no such file on shared storage");
    return NULL;
}

bool mm_handover_settled(const MmVM *vm, Error **errp)
{
    uint32_t i;

    for (i = 0; i < vm->rec.nr_tiers; i++) {
        const MmMsgStartTier *conf = &vm->rec.tiers[i].conf;

        if ((conf->shared || conf->lent) && !mm_shared_is_ours(conf->file)) {
            error_setg(errp, "the VM is migrating, and its file %s on shared "
                       "storage is not this host's: wait until it has arrived "
                       "and runs; where it has left, end its QEMU", conf->file);
            return false;
        }
    }
    return true;
}

static bool begin_renaming(MmVM *vm, int sock, uint64_t seq,
                           const MmMsgHandover *request, Error **errp)
{
    MmRecordTier *tier = find_file(vm, request->file_id, errp);
    bool claim = request->op == MM_HANDOVER_CLAIM;
    MmRenaming *r;

    if (!tier) {
        return false;
    }
    /* each takes a thread */
    if (vm->renaming) {
        /* QEMU has not waited for the release, and its guest goes on */
        vm->renaming->back |= claim && !vm->renaming->claim &&
                              !memcmp(vm->renaming->file_id, request->file_id,
                                      MM_UUID_LEN);
        error_setg(errp, "the VM's file is being renamed already; its storage "
                   "does not answer");
        return false;
    }
    if (!claim && (tier->conf.lent || !mm_shared_is_ours(tier->conf.file))) {
        error_setg(errp, "the VM's file is not its own to be released");
        return false;
    }
    r = g_new(MmRenaming, 1);
    *r = (MmRenaming) {
        .mgr = vm->mgr, .sock = sock, .seq = seq,
        .dir = g_strdup(tier->path), .claim = claim, .lent = tier->conf.lent,
    };
    memcpy(r->file_id, request->file_id, sizeof(r->file_id));
    memcpy(r->vm, vm->rec.uuid, sizeof(r->vm));
    mm_shared_our_name(request->file_id, claim ? r->to : r->from);
    mm_shared_released_name(request->file_id, request->epoch,
                            claim ? r->from : r->to);
    start_renaming(vm, r);
    return true;
}

void mm_handover(MmVM *vm, int sock, uint64_t seq,
                 const MmMsgHandover *request)
{
    MmMsgAmount number;
    Error *err = NULL;

    switch (request->op) {
    case MM_HANDOVER_LEND:
        lend(vm, request, &number, &err);
        answer(sock, seq, err, MM_MSG_AMOUNT, &number, sizeof(number));
        return;
    case MM_HANDOVER_ROOM:
        mm_room(vm, sock, seq, request);
        return;
    case MM_HANDOVER_CLAIM:
    case MM_HANDOVER_RELEASE:
        if (begin_renaming(vm, sock, seq, request, &err)) {
            return;
        }
        break;
    default:
        error_setg(&err, "unknown operation %u", request->op);
        break;
    }
    answer(sock, seq, err, MM_MSG_OK, NULL, 0);
}
