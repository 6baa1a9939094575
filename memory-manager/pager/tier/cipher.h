/*
 * Managed memory pager: encryption of what leaves memory
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * AES-256 in XTS mode, as for disks: a page takes as much room as before, and
 * is bound to its place, so that equal pages do not look alike.  It does not
 * tell whether content was changed; the page map's checksums do.
 */
#ifndef MANAGED_MEMORY_CIPHER_H
#define MANAGED_MEMORY_CIPHER_H

#include "managed-memory/proto.h"

typedef struct MmCipher MmCipher;

/**
 * mm_cipher_init: have the library look around, which the jail forbids
 *
 * Once, before mm_cipher_new().
 */
bool mm_cipher_init(Error **errp);

/**
 * mm_cipher_new: for one thread's transfers
 *
 * @key: MM_KEY_LEN bytes, copied
 * @tier: number of the tier, so that equal places of two tiers differ
 *
 * Fails if the library does not have the algorithm.
 */
MmCipher *mm_cipher_new(const uint8_t *key, unsigned tier, Error **errp);

/** mm_cipher_free: forget the key, too. */
void mm_cipher_free(MmCipher *cipher);

/**
 * mm_cipher_encrypt: encrypt pages where they are
 *
 * @place: of the first page, the others' follow
 * @buf: @nr_pages pages
 */
void mm_cipher_encrypt(MmCipher *cipher, uint64_t place, uint8_t *buf,
                       unsigned nr_pages);

/** mm_cipher_decrypt: the reverse. */
void mm_cipher_decrypt(MmCipher *cipher, uint64_t place, uint8_t *buf,
                       unsigned nr_pages);

#endif
