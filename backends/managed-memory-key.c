/*
 * Managed memory: the key with which tiers are encrypted
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "crypto/hmac.h"
#include "crypto/secret_common.h"
#include "backends/managed-memory-internal.h"

/* As many bits as AES-256 has; a password has far fewer. */
#define SECRET_MIN 32

static bool secret_long_enough(const char *secret, size_t len, Error **errp)
{
    ERRP_GUARD();

    if (len < SECRET_MIN) {
        error_setg(errp, "the secret '%s' has %zu bytes, a key for managed "
                   "memory needs at least %d random ones", secret, len,
                   SECRET_MIN);
        error_append_hint(errp, "'openssl rand -base64 32' makes some.\n");
        return false;
    }
    return true;
}

bool managed_key_derive(const char *secret, const uint8_t *uuid,
                        MmMsgKey *key, Error **errp)
{
    ERRP_GUARD();
    static const char label[] = "managed memory tier key";
    struct iovec iov[] = {
        { .iov_base = (char *)label, .iov_len = sizeof(label) },
        { .iov_base = (uint8_t *)uuid, .iov_len = MM_UUID_LEN },
    };
    g_autoptr(QCryptoHmac) hmac = NULL;
    g_autofree uint8_t *bytes = NULL;
    uint8_t *result = key->key;
    size_t len, result_len = sizeof(key->key);
    bool ok;

    if (qcrypto_secret_lookup(secret, &bytes, &len, errp) < 0) {
        error_prepend(errp, "key-secret: ");
        return false;
    }
    ok = secret_long_enough(secret, len, errp);
    if (ok) {
        hmac = qcrypto_hmac_new(QCRYPTO_HASH_ALG_SHA512, bytes, len, errp);
        ok = hmac && qcrypto_hmac_bytesv(hmac, iov, ARRAY_SIZE(iov), &result,
                                         &result_len, errp) == 0;
    }
    explicit_bzero(bytes, len);
    return ok;
}
