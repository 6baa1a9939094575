/*
 * Managed memory pager: compressing single pages
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MANAGED_MEMORY_CODEC_H
#define MANAGED_MEMORY_CODEC_H

#include "managed-memory/proto.h"

/* Working memory of one thread; nothing is allocated per page. */
typedef struct MmCodec MmCodec;

/** mm_codec_new: @algorithm is an MmAlgorithm; NULL if there is no such. */
MmCodec *mm_codec_new(unsigned algorithm);

/**
 * mm_codec_pack: compress a page
 *
 * @page: MM_PAGE_SIZE bytes
 * @out: where to
 * @room: bytes there
 *
 * Returns the bytes it takes, or 0 if it does not fit.
 */
size_t mm_codec_pack(MmCodec *codec, const void *page, void *out, size_t room);

/**
 * mm_codec_unpack: the reverse
 *
 * @in: what mm_codec_pack() has made; may be damaged
 * @size: bytes of it
 * @page: MM_PAGE_SIZE bytes
 *
 * Returns whether it was a whole page.
 */
bool mm_codec_unpack(MmCodec *codec, const void *in, size_t size, void *page);

#endif
