/*
 * simd.c - class simd: vectors, from SSE2 to AVX2, and the instructions for cryptography.
 */
#include <immintrin.h>

#include "pb.h"

#define TARGET(features) __attribute__((noinline, target(features)))
#define ALIGNED          __attribute__((aligned(64)))

enum { FLOATS = 8192, BYTES = 65536 };
static float fa[FLOATS] ALIGNED, fb[FLOATS] ALIGNED;
static uint8_t ba[BYTES] ALIGNED, bb[BYTES] ALIGNED, bc[BYTES] ALIGNED;

static const __m128i *vec(const uint8_t *p)
{
    return (const __m128i *)(const void *)p;
}

static const __m256i *vec32(const uint8_t *p)
{
    return (const __m256i *)(const void *)p;
}

static PLAIN void unit_sse2fp(void)
{
    __m128 k = _mm_set1_ps(0.999f);
    for (int r = 0; r < 200; r++)
        for (int i = 0; i < FLOATS; i += 4) {
            __m128 x = _mm_load_ps(fa + i), y = _mm_load_ps(fb + i);
            _mm_store_ps(fa + i, _mm_add_ps(_mm_mul_ps(x, k), y));
        }
    bench_sink += (uint64_t)fa[3];
}

/* Blends bytes and sums differences, as code for pixels does. */
static PLAIN void unit_sse2int(void)
{
    __m128i z = _mm_setzero_si128(), acc = z, w = _mm_set1_epi16(77);
    for (int r = 0; r < 50; r++)
        for (int i = 0; i < BYTES; i += 16) {
            __m128i a = _mm_load_si128(vec(ba + i)), b = _mm_load_si128(vec(bb + i));
            __m128i lo = _mm_mullo_epi16(_mm_unpacklo_epi8(a, z), w);
            __m128i hi = _mm_mullo_epi16(_mm_unpackhi_epi8(b, z), w);
            __m128i p = _mm_packus_epi16(_mm_srli_epi16(lo, 8), _mm_srli_epi16(hi, 8));
            acc = _mm_add_epi64(acc, _mm_sad_epu8(p, _mm_avg_epu8(a, b)));
            _mm_store_si128((void *)(bc + i), _mm_or_si128(p, _mm_cmpeq_epi8(a, b)));
        }
    bench_sink += (uint64_t)_mm_cvtsi128_si64(acc);
}

static TARGET("ssse3,sse4.1") void unit_sse4(void)
{
    __m128i m = _mm_set_epi8(3, 2, 1, 0, 7, 6, 5, 4, 11, 10, 9, 8, 15, 14, 13, 12);
    __m128i acc = _mm_setzero_si128();
    for (int r = 0; r < 50; r++)
        for (int i = 0; i < BYTES; i += 16) {
            __m128i a = _mm_shuffle_epi8(_mm_load_si128(vec(ba + i)), m);
            acc = _mm_add_epi32(acc, _mm_max_epi32(_mm_mullo_epi32(a, a), _mm_cvtepu8_epi32(a)));
        }
    bench_sink += (uint64_t)_mm_cvtsi128_si64(acc);
}

static bool has_sse4(void)
{
    return __builtin_cpu_supports("ssse3") && __builtin_cpu_supports("sse4.1");
}

static TARGET("avx2,fma") void unit_avx2fp(void)
{
    __m256 k = _mm256_set1_ps(0.999f);
    for (int r = 0; r < 400; r++)
        for (int i = 0; i < FLOATS; i += 8) {
            __m256 x = _mm256_load_ps(fa + i), y = _mm256_load_ps(fb + i);
            _mm256_store_ps(fa + i, _mm256_fmadd_ps(x, k, y));
        }
    bench_sink += (uint64_t)fa[3];
}

static TARGET("avx2") void unit_avx2int(void)
{
    __m256i acc = _mm256_setzero_si256(), w = _mm256_set1_epi16(77), z = acc;
    for (int r = 0; r < 100; r++)
        for (int i = 0; i < BYTES; i += 32) {
            __m256i a = _mm256_load_si256(vec32(ba + i)), b = _mm256_load_si256(vec32(bb + i));
            __m256i p = _mm256_mullo_epi16(_mm256_unpacklo_epi8(a, z), w);
            p = _mm256_srli_epi16(p, 8);
            acc = _mm256_add_epi64(acc, _mm256_sad_epu8(p, _mm256_avg_epu8(a, b)));
            _mm256_store_si256((void *)(bc + i), _mm256_permute4x64_epi64(p, 0x1b));
        }
    bench_sink += (uint64_t)_mm256_extract_epi64(acc, 1);
}

static bool has_avx2(void)
{
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

/* AES, CRC32 and carry-less multiplication. */
static TARGET("aes,sse4.2,pclmul") void unit_crypto(void)
{
    __m128i k = _mm_set1_epi32(0x1234567), s = k;
    uint64_t c = 0;
    for (int r = 0; r < 4; r++)
        for (int i = 0; i < BYTES; i += 16) {
            s = _mm_xor_si128(s, _mm_load_si128(vec(ba + i)));
            for (int j = 0; j < 4; j++)
                s = _mm_aesenc_si128(s, k);
            c = _mm_crc32_u64(c, (uint64_t)_mm_cvtsi128_si64(s));
            k = _mm_xor_si128(k, _mm_clmulepi64_si128(s, k, 0x10));
        }
    bench_sink += c;
}

static bool has_crypto(void)
{
    return __builtin_cpu_supports("aes") && __builtin_cpu_supports("pclmul") &&
           __builtin_cpu_supports("sse4.2");
}

const struct bench bench_simd[] = {
    {"simd/sse2fp", unit_sse2fp, 60, NULL},
    {"simd/sse2int", unit_sse2int, 40, NULL},
    {"simd/sse4", unit_sse4, 100, has_sse4},
    {"simd/avx2fp", unit_avx2fp, 40, has_avx2},
    {"simd/avx2int", unit_avx2int, 40, has_avx2},
    {"simd/crypto", unit_crypto, 100, has_crypto},
    {0},
};
