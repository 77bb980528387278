/*
 * int.c - class int: what programs do with integers, branches, calls and short stretches of memory.
 *
 * Nothing here may turn into SIMD code, which is another class: vectorization is off, and the only
 * library calls are those that the benchmark is about.
 */
#include <stdlib.h>
#include <string.h>

#include "pb.h"

static uint64_t random_state;

static void random_seed(uint64_t seed)
{
    random_state = seed;
}

static inline uint64_t random_next(void)
{
    return bench_random(&random_state);
}

static SCALAR void unit_sieve(void)
{
    enum { N = 1000000 };
    static uint8_t *a;
    if (!a)
        a = malloc(N + 1);
    memset(a, 1, N + 1);
    for (int i = 2; i * i <= N; i++)
        if (a[i])
            for (int j = i * i; j <= N; j += i)
                a[j] = 0;
    int c = 0;
    for (int i = 2; i <= N; i++)
        c += a[i];
    bench_sink += c;
}

static int compare_u32(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

static void unit_qsort(void)
{
    enum { N = 40000 };
    static uint32_t a[N];
    random_seed(12345);
    for (int i = 0; i < N; i++)
        a[i] = random_next();
    qsort(a, N, 4, compare_u32);
    bench_sink += a[N / 2];
}

/* The table of the CRC, and text of words with a random byte now and then: the input of three. */
static uint32_t crc_table[256];
static uint8_t blob[1 << 20];

static void blob_fill(void)
{
    if (crc_table[1])
        return;
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t c = i;
        for (int k = 0; k < 8; k++)
            c = c & 1 ? 0xedb88320u ^ (c >> 1) : c >> 1;
        crc_table[i] = c;
    }
    static const char *w[] = {"the ",  "quick ", "virtual ", "machine ", "runs ",
                              "code ", "from ",  "memory ",  "page ",    "table ",
                              "\n",    "int ",   "return ",  "0x1f "};
    size_t p = 0;
    random_seed(99);
    while (p < sizeof blob - 16) {
        const char *s = w[random_next() % 14];
        size_t l = strlen(s);
        memcpy(blob + p, s, l);
        p += l;
        if (random_next() % 11 == 0)
            blob[p++] = random_next();
    }
}

static SCALAR void unit_crc32(void)
{
    blob_fill();
    uint32_t c = ~0u;
    for (size_t i = 0; i < sizeof blob; i++)
        c = crc_table[(c ^ blob[i]) & 255] ^ (c >> 8);
    bench_sink += c;
}

/* FIPS 180-4, 4.2.2. */
static const uint32_t sha256_k[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

#define ROR(x, n) (((x) >> (n)) | ((x) << (32 - (n))))

static SCALAR void unit_sha256(void)
{
    blob_fill();
    uint32_t h[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                     0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    for (size_t o = 0; o + 64 <= sizeof blob / 2; o += 64) {
        uint32_t w[64];
        for (int i = 0; i < 16; i++) {
            uint32_t v;
            memcpy(&v, blob + o + 4 * i, 4);
            w[i] = __builtin_bswap32(v);
        }
        for (int i = 16; i < 64; i++)
            w[i] = w[i - 16] + (ROR(w[i - 15], 7) ^ ROR(w[i - 15], 18) ^ (w[i - 15] >> 3)) +
                   w[i - 7] + (ROR(w[i - 2], 17) ^ ROR(w[i - 2], 19) ^ (w[i - 2] >> 10));
        uint32_t a = h[0], b = h[1], c = h[2], d = h[3], e = h[4], f = h[5], g = h[6], k = h[7];
        for (int i = 0; i < 64; i++) {
            uint32_t t1 = k + (ROR(e, 6) ^ ROR(e, 11) ^ ROR(e, 25)) + ((e & f) ^ (~e & g)) +
                          sha256_k[i] + w[i];
            uint32_t t2 = (ROR(a, 2) ^ ROR(a, 13) ^ ROR(a, 22)) + ((a & b) ^ (a & c) ^ (b & c));
            k = g;
            g = f;
            f = e;
            e = d + t1;
            d = c;
            c = b;
            b = a;
            a = t1 + t2;
        }
        h[0] += a;
        h[1] += b;
        h[2] += c;
        h[3] += d;
        h[4] += e;
        h[5] += f;
        h[6] += g;
        h[7] += k;
    }
    bench_sink += h[0];
}

/* Greedy LZ77 with a table of the latest place of each hash. */
static SCALAR void unit_lz(void)
{
    blob_fill();
    static uint32_t head[1 << 15];
    static uint8_t out[sizeof blob];
    memset(head, 0, sizeof head);
    size_t n = sizeof blob / 4, o = 0;
    for (size_t i = 0; i + 4 < n;) {
        uint32_t v;
        memcpy(&v, blob + i, 4);
        uint32_t h = (v * 2654435761u) >> 17, c = head[h];
        head[h] = i;
        size_t l = 0;
        if (c && i - c < 65536)
            while (i + l < n && l < 255 && blob[c + l] == blob[i + l])
                l++;
        if (l >= 4) {
            out[o++] = 255;
            out[o++] = (i - c) >> 8;
            out[o++] = i - c;
            out[o++] = l;
            i += l;
        } else
            out[o++] = blob[i++];
    }
    bench_sink += o + out[o / 2];
}

/* -O1 and noipa: real calls and returns, none of them inlined. */
__attribute__((noipa, optimize("O1"))) static uint64_t fibonacci(uint64_t n)
{
    return n < 2 ? n : fibonacci(n - 1) + fibonacci(n - 2);
}

static void unit_fib(void)
{
    bench_sink += fibonacci(24);
}

/* An interpreter of bytecode by computed goto: indirect jumps. */
static SCALAR void unit_dispatch(void)
{
    static void *const op[] = {&&op_add, &&op_sub, &&op_xor, &&op_mul,
                               &&op_ld,  &&op_st,  &&op_jnz, &&op_end};
    static uint8_t code[64];
    static int init;
    if (!init) {
        random_seed(7);
        for (int i = 0; i < 62; i++)
            code[i] = random_next() % 6;
        code[62] = 6;
        code[63] = 7;
        init = 1;
    }
    uint64_t a = 1, b = 3, m[16] = {0};
    int n = 8000;
    const uint8_t *p = code;
    goto *op[*p++];
op_add:
    a += b;
    goto *op[*p++];
op_sub:
    b -= a >> 3;
    goto *op[*p++];
op_xor:
    a ^= b << 1;
    goto *op[*p++];
op_mul:
    b = b * 5 + 1;
    goto *op[*p++];
op_ld:
    a += m[b & 15];
    goto *op[*p++];
op_st:
    m[a & 15] = b;
    goto *op[*p++];
op_jnz:
    if (--n)
        p = code;
    goto *op[*p++];
op_end:
    bench_sink += a + b;
}

/* A hash table with linear probing; half of the look-ups find nothing. */
static SCALAR void unit_hash(void)
{
    enum { S = 1 << 16, N = 30000 };
    static uint64_t *k, *v;
    if (!k) {
        k = malloc(S * 8);
        v = malloc(S * 8);
    }
    memset(k, 0, S * 8);
    random_seed(4242);
    for (int i = 0; i < N; i++) {
        uint64_t x = random_next() | 1;
        uint32_t h = (x * 0x9E3779B97F4A7C15ull) >> 48;
        while (k[h] && k[h] != x)
            h = (h + 1) & (S - 1);
        k[h] = x;
        v[h] = i;
    }
    random_seed(4242);
    uint64_t s = 0;
    for (int r = 0; r < 2 * N; r++) {
        uint64_t x = random_next() | 1;
        uint32_t h = (x * 0x9E3779B97F4A7C15ull) >> 48;
        while (k[h] && k[h] != x)
            h = (h + 1) & (S - 1);
        s += v[h];
    }
    bench_sink += s;
}

/* The string functions of libc on short strings. */
static SCALAR void unit_str(void)
{
    static char b[2][4096];
    static int init;
    if (!init) {
        for (int i = 0; i < 4096; i++)
            b[0][i] = (i % 37 == 36) ? 0 : 'a' + i % 23;
        memcpy(b[1], b[0], 4096);
        init = 1;
    }
    size_t s = 0;
    for (int r = 0; r < 300; r++)
        for (int i = 0; i < 4000; i += 37) {
            size_t l = strlen(b[0] + i);
            s += l + !strcmp(b[0] + i, b[1] + i) + (size_t)memchr(b[0] + i, 'z', l);
            char t[64];
            memcpy(t, b[0] + i, l + 1);
            s += t[3];
        }
    bench_sink += s;
}

static SCALAR void unit_div(void)
{
    uint64_t x = 0x123456789abcdefull, s = 0;
    for (int i = 1; i < 100000; i++) {
        s += x / (i + (s & 7));
        s ^= x % (i | 3);
        x += s;
    }
    bench_sink += s;
}

/* 64 x 64 -> 128 bits: squaring modulo 2^64 - 59. */
static SCALAR void unit_mul(void)
{
    uint64_t x = 3, m = 0xffffffffffffffc5ull;
    for (int i = 0; i < 200000; i++) {
        unsigned __int128 p = (unsigned __int128)x * x;
        uint64_t hi = p >> 64, lo = (uint64_t)p;
        unsigned __int128 q = (unsigned __int128)hi * 59 + lo;
        x = (uint64_t)q + (uint64_t)(q >> 64) * 59;
        if (x >= m)
            x -= m;
    }
    bench_sink += x;
}

/* Ways to finish a board of n queens: columns and diagonals taken are bits of c, l and r. */
static int queens(int n, unsigned c, unsigned l, unsigned r)
{
    unsigned all = (1u << n) - 1;
    if (c == all)
        return 1;
    int k = 0;
    for (unsigned p = all & ~(c | l | r); p;) {
        unsigned b = p & -p;
        p ^= b;
        k += queens(n, c | b, (l | b) << 1, (r | b) >> 1);
    }
    return k;
}

static void unit_queens(void)
{
    bench_sink += queens(10, 0, 0, 0);
}

/* rep movsb and rep stosq of 256 bytes to 4 KiB. */
static SCALAR void unit_repmov(void)
{
    static char a[8192], b[8192];
    for (int i = 0; i < 10000; i++) {
        void *d = a, *s = b;
        long n = 256 + (i & 7) * 512;
        __asm__ volatile("rep movsb" : "+D"(d), "+S"(s), "+c"(n)::"memory");
        d = b;
        n = 32;
        __asm__ volatile("rep stosq" : "+D"(d), "+c"(n) : "a"(0L) : "memory");
    }
}

/* Chains through the carry flag, rotates, cmov. */
static SCALAR void unit_flags(void)
{
    uint64_t a = 1, b = 2, c = 3, d = 4;
    for (int i = 0; i < 200000; i++)
        __asm__ volatile("add %1,%0\n adc %2,%1\n adc %3,%2\n sbb %0,%3\n rol $7,%0\n cmp %1,%2\n"
                         "cmovb %3,%1\n inc %2\n adc $0,%0\n"
                         : "+r"(a), "+r"(b), "+r"(c), "+r"(d)::"cc");
    bench_sink += a + b + c + d;
}

const struct bench bench_int[] = {
    {"int/sieve", unit_sieve, 10, NULL},
    {"int/qsort", unit_qsort, 5, NULL},
    {"int/crc32", unit_crc32, 8, NULL},
    {"int/sha256", unit_sha256, 8, NULL},
    {"int/lz", unit_lz, 20, NULL},
    {"int/fib", unit_fib, 80, NULL},
    {"int/dispatch", unit_dispatch, 50, NULL},
    {"int/hash", unit_hash, 20, NULL},
    {"int/str", unit_str, 40, NULL},
    {"int/div", unit_div, 20, NULL},
    {"int/mul", unit_mul, 15, NULL},
    {"int/queens", unit_queens, 70, NULL},
    {"int/repmov", unit_repmov, 10, NULL},
    {"int/flags", unit_flags, 40, NULL},
    {0},
};
