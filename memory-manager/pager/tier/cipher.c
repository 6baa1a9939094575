/*
 * Managed memory pager: encryption of what leaves memory
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include <gcrypt.h>
#include "qemu/bswap.h"
#include "qapi/error.h"
#include "../page-map.h"
#include "cipher.h"

struct MmCipher {
    gcry_cipher_hd_t handle;
    uint64_t tier;
};

/* What XTS calls a tweak: which sector of which disk it is. */
typedef struct Tweak {
    uint64_t place;
    uint64_t tier;
} Tweak;

QEMU_BUILD_BUG_ON(sizeof(Tweak) != 16);

bool mm_cipher_init(Error **errp)
{
    if (!gcry_check_version(GCRYPT_VERSION)) {
        error_setg(errp, "libgcrypt is older than " GCRYPT_VERSION ", with "
                   "which this program was built; install that");
        return false;
    }
    /* there is nobody to keep it from: other processes cannot look at this */
    gcry_control(GCRYCTL_DISABLE_SECMEM, 0);
    gcry_control(GCRYCTL_INITIALIZATION_FINISHED, 0);
    return true;
}

MmCipher *mm_cipher_new(const uint8_t *key, unsigned tier, Error **errp)
{
    MmCipher *cipher = g_new0(MmCipher, 1);
    gcry_error_t err;

    cipher->tier = tier;
    err = gcry_cipher_open(&cipher->handle, GCRY_CIPHER_AES256,
                           GCRY_CIPHER_MODE_XTS, 0);
    if (!err) {
        err = gcry_cipher_setkey(cipher->handle, key, MM_KEY_LEN);
    }
    if (err) {
        error_setg(errp, "cannot encrypt with AES-256-XTS: %s",
                   gcry_strerror(err));
        mm_cipher_free(cipher);
        return NULL;
    }
    return cipher;
}

void mm_cipher_free(MmCipher *cipher)
{
    gcry_cipher_close(cipher->handle);
    g_free(cipher);
}

/* Whole pages of one key: what is right for one of them is so for all. */
static void each_page(MmCipher *cipher, uint64_t place, uint8_t *buf,
                      unsigned nr_pages,
                      gcry_error_t (*fn)(gcry_cipher_hd_t handle, void *out,
                                         size_t out_len, const void *in,
                                         size_t in_len))
{
    unsigned i;

    for (i = 0; i < nr_pages; i++, buf += MM_PAGE_SIZE) {
        Tweak tweak = {
            .place = cpu_to_le64(place + i),
            .tier = cpu_to_le64(cipher->tier),
        };
        gcry_error_t err = gcry_cipher_setiv(cipher->handle, &tweak,
                                             sizeof(tweak));

        if (!err) {
            err = fn(cipher->handle, buf, MM_PAGE_SIZE, NULL, 0);
        }
        assert(!err);
    }
}

void mm_cipher_encrypt(MmCipher *cipher, uint64_t place, uint8_t *buf,
                       unsigned nr_pages)
{
    each_page(cipher, place, buf, nr_pages, gcry_cipher_encrypt);
}

void mm_cipher_decrypt(MmCipher *cipher, uint64_t place, uint8_t *buf,
                       unsigned nr_pages)
{
    each_page(cipher, place, buf, nr_pages, gcry_cipher_decrypt);
}
