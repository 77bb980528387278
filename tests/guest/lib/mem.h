/*
 * mem.h - memory and page tables of a payload. 64-bit payloads run with the first 4 GiB mapped to
 * themselves, supervisor only; 32-bit ones without paging.
 */
#ifndef MEM_H
#define MEM_H

#include "guest.h"

void mem_init(void);
void *page_alloc(void); /* a zeroed page, never freed */
void *pages_alloc(unsigned n, unsigned align);

#ifdef __x86_64__
#define P_P  1ull
#define P_W  2ull
#define P_U  4ull
#define P_A  0x20ull
#define P_D  0x40ull
#define P_PS 0x80ull
#define P_G  0x100ull
#define P_NX (1ull << 63)

#define TEST_VA 0x8000000000ull /* from here on nothing is mapped: 512 GiB */

/* The entry that maps `va` at this level (1: 4 KiB, 2: 2 MiB, 3: 1 GiB, 4: PML4); the levels above
 * are made if they are missing, with every right. */
volatile uint64_t *entry_of(uint64_t va, unsigned level);
void map_page(uint64_t va, uint64_t pa, uint64_t flags);
extern uint64_t *pml4;
#endif

/* ---- user mode ---- */

/* A program for user mode between two labels: USER(name, "code"). It starts at its first byte, with
 * the argument in [R/E]DI, and ends by the first trap, such as INT $0x80. */
#define USER(name, code)                    \
    extern const char name[], name##_end[]; \
    __asm__(".pushsection .rodata\n" #name ":\n" code "\n" #name "_end:\n.popsection")

#define user(name, arg) user_run(name, (size_t)(name##_end - name), (ulong)(arg))
/* In the mode of the payload, flat segments, IF = 0. Returns the vector. */
unsigned user_run(const void *code, size_t len, ulong arg);
void user_frame(struct frame *f, const void *code, size_t len, ulong arg);
#ifdef __x86_64__
#define USER_CODE  0x10000000000ull /* one page; the next is not mapped */
#define USER_STACK 0x10000010000ull /* top; 4 pages */
#endif

#endif
