/*
 * Managed memory pager: compressing single pages
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * On pages of program files, zstd at this level costs two to three times what
 * lz4 does, and takes pages that lz4 does not make small enough.
 */
#include "qemu/osdep.h"
#include <lz4.h>
#include <zstd.h>
#include "../page-map.h"
#include "codec.h"

#define LZ4_ACCELERATION 1
#define ZSTD_LEVEL 1

struct MmCodec {
    void *lz4_state;            /* lz4, else NULL */
    ZSTD_CCtx *zstd_out;
    ZSTD_DCtx *zstd_in;
};

MmCodec *mm_codec_new(unsigned algorithm)
{
    MmCodec *codec = g_new0(MmCodec, 1);

    switch (algorithm) {
    case MM_ALGORITHM_LZ4:
        codec->lz4_state = g_malloc(LZ4_sizeofState());
        return codec;
    case MM_ALGORITHM_ZSTD:
        codec->zstd_out = ZSTD_createCCtx();
        codec->zstd_in = ZSTD_createDCtx();
        return codec;
    default:
        g_free(codec);
        return NULL;
    }
}

size_t mm_codec_pack(MmCodec *codec, const void *page, void *out, size_t room)
{
    size_t size;

    if (codec->lz4_state) {
        return LZ4_compress_fast_extState(codec->lz4_state, page, out,
                                          MM_PAGE_SIZE, room,
                                          LZ4_ACCELERATION);
    }
    size = ZSTD_compressCCtx(codec->zstd_out, out, room, page, MM_PAGE_SIZE,
                             ZSTD_LEVEL);
    return ZSTD_isError(size) ? 0 : size;
}

bool mm_codec_unpack(MmCodec *codec, const void *in, size_t size, void *page)
{
    if (codec->lz4_state) {
        return LZ4_decompress_safe(in, page, size, MM_PAGE_SIZE) ==
               MM_PAGE_SIZE;
    }
    return ZSTD_decompressDCtx(codec->zstd_in, page, MM_PAGE_SIZE, in,
                               size) == MM_PAGE_SIZE;
}
