/*
 * fp.c - class fp: scalar floating point, in SSE2's registers and on the x87's stack.
 */
#include <math.h>

#include "pb.h"

static SCALAR void unit_matmul(void)
{
    enum { N = 96 };
    static double a[N][N], b[N][N], c[N][N];
    for (int i = 0; i < N; i++)
        for (int j = 0; j < N; j++) {
            a[i][j] = i + j;
            b[i][j] = i - j * 0.5;
        }
    for (int i = 0; i < N; i++)
        for (int j = 0; j < N; j++) {
            double s = 0;
            for (int k = 0; k < N; k++)
                s += a[i][k] * b[k][j];
            c[i][j] = s;
        }
    bench_sink += (uint64_t)(int64_t)c[3][5];
}

static int escape(double cr, double ci)
{
    double zr = 0, zi = 0;
    int i = 0;
    while (i < 100 && zr * zr + zi * zi < 4) {
        double q = zr * zr - zi * zi + cr;
        zi = 2 * zr * zi + ci;
        zr = q;
        i++;
    }
    return i;
}

static SCALAR void unit_mandel(void)
{
    int t = 0;
    for (int y = 0; y < 64; y++)
        for (int x = 0; x < 64; x++)
            t += escape(x / 32.0 - 1.5, y / 32.0 - 1.0);
    bench_sink += (uint64_t)t;
}

/* A body: position, velocity, mass. */
enum { BODIES = 5, MASS = 6 };

static inline void attract(double *p, double *q)
{
    double dx = p[0] - q[0], dy = p[1] - q[1], dz = p[2] - q[2];
    double d2 = dx * dx + dy * dy + dz * dz, m = 1e-6 / (d2 * sqrt(d2));
    p[3] -= dx * q[MASS] * m;
    p[4] -= dy * q[MASS] * m;
    p[5] -= dz * q[MASS] * m;
    q[3] += dx * p[MASS] * m;
    q[4] += dy * p[MASS] * m;
    q[5] += dz * p[MASS] * m;
}

static SCALAR void unit_nbody(void)
{
    static double p[BODIES][7];
    if (p[0][0] == 0)
        for (int i = 0; i < BODIES; i++)
            for (int k = 0; k < 7; k++)
                p[i][k] = 1.0 + i * 0.7 + k * 0.13 * (i + 1);
    for (int s = 0; s < 10000; s++) {
        for (int i = 0; i < BODIES; i++)
            for (int j = i + 1; j < BODIES; j++)
                attract(p[i], p[j]);
        for (int i = 0; i < BODIES; i++)
            for (int k = 0; k < 3; k++)
                p[i][k] += 1e-6 * p[i][k + 3];
    }
    bench_sink += (uint64_t)p[0][0];
}

static SCALAR void unit_libm(void)
{
    double s = 0;
    for (int i = 1; i < 10000; i++)
        s += sin(i * 0.01) + exp(-i * 1e-4) + log(i) + pow(i, 0.3);
    bench_sink += (uint64_t)s;
}

/* Between integers, doubles and floats; comparisons. */
static SCALAR void unit_conv(void)
{
    float f = 0;
    int64_t k = 0;
    for (int i = 0; i < 200000; i++) {
        double d = i * 0.5 + (double)k;
        f += (float)d;
        k += (int64_t)d & 3;
        if (f > 1e6f)
            f = 0;
    }
    bench_sink += (uint64_t)k + (uint64_t)f;
}

static SCALAR void unit_x87(void)
{
    long double a = 1, b = 0.5L, s = 0;
    for (int i = 1; i < 200000; i++) {
        s += a / (i + b);
        a = a * 0.9999L + b;
    }
    bench_sink += (uint64_t)s;
}

const struct bench bench_fp[] = {
    {"fp/matmul", unit_matmul, 20, NULL},
    {"fp/mandel", unit_mandel, 20, NULL},
    {"fp/nbody", unit_nbody, 15, NULL},
    {"fp/libm", unit_libm, 40, NULL},
    {"fp/conv", unit_conv, 10, NULL},
    {"fp/x87", unit_x87, 15, NULL},
    {0},
};
