/*
 * fuzz_state.c - the state of a board that a guest has used: what is saved, loaded into another
 * board and saved again is the same to the last bit, and both boards stay the same under one
 * script; and what was changed on the way is refused, or makes a board that a guest can use without
 * harm to us.
 *
 * Input: u16 length of the first script, with 8000h: parts are changed, with 4000h: the whole
 * stream goes round, memory and all; the script; if parts are changed u8 how many (0 to 3), a u8
 * for each; then for each change u16 where, u8 exclusive-or; then the script for the board that
 * took them.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "board.h"
#include "state/fields.h"

static struct fuzz_board a, b;

static struct state_list *list_of(struct fuzz_board *board)
{
    struct state_list *l = calloc(1, sizeof *l);
    FUZZ_REQUIRE(l);
    pc_state_list(board->pc, l);
    return l;
}

static int save(struct fuzz_board *board)
{
    struct error e;
    int fd = memfd_create("state", MFD_CLOEXEC);
    struct state_list *l = list_of(board);
    FUZZ_REQUIRE(fd >= 0);
    if (state_save(fd, l, NULL, &e)) {
        fprintf(stderr, "save: %s\n", e.msg);
        FUZZ_REQUIRE(false);
    }
    free(l);
    return fd;
}

static void require_same(int x, int y)
{
    off_t len = lseek(x, 0, SEEK_END);
    FUZZ_REQUIRE(len == lseek(y, 0, SEEK_END));
    void *p = mmap(NULL, (size_t)len, PROT_READ, MAP_SHARED, x, 0);
    void *q = mmap(NULL, (size_t)len, PROT_READ, MAP_SHARED, y, 0);
    FUZZ_REQUIRE(p != MAP_FAILED && q != MAP_FAILED && !memcmp(p, q, (size_t)len));
    munmap(p, (size_t)len);
    munmap(q, (size_t)len);
}

static void same_part(struct state_part *x, struct state_part *y)
{
    struct state_out p, q;
    state_out_init(&p, MIB);
    state_out_init(&q, MIB);
    state_save_fields(x->table, x->obj, &p);
    state_save_fields(y->table, y->obj, &q);
    size_t n = 0;
    while (n < p.len && n < q.len && p.p[n] == q.p[n])
        n++;
    if (p.len != q.len || n < p.len) {
        size_t from = n > 200 ? n - 200 : 0;
        fprintf(stderr, "%s: differs at byte %zu, after: ", x->name, n);
        for (; from < n; from++)
            fputc(p.p[from] >= ' ' && p.p[from] <= '~' ? p.p[from] : '.', stderr);
        fputc('\n', stderr);
        FUZZ_REQUIRE(false);
    }
    state_out_fini(&p);
    state_out_fini(&q);
}

/* Part by part, without the memory of the video card: this is what takes time. */
static void round_trip(struct state_list *x, struct state_list *y)
{
    for (unsigned n = 0; n < x->nparts; n++) {
        struct state_out out;
        struct error e;
        state_out_init(&out, MIB);
        state_save_fields(x->part[n].table, x->part[n].obj, &out);
        struct state_in in = {.p = out.p, .len = out.len};
        if (state_load_fields(y->part[n].table, y->part[n].obj, &in, &e)) {
            fprintf(stderr, "load: %s: %s\n", x->part[n].name, e.msg);
            FUZZ_REQUIRE(false);
        }
        state_out_fini(&out);
    }
    for (unsigned n = 0; n < x->nparts; n++)
        same_part(&x->part[n], &y->part[n]);
}

/* What else a guest could notice. */
static void copy_rest(void)
{
    static const uint8_t zero[PAGE_SIZE];
    for (unsigned n = 0; n < a.f.ndisk; n++) {
        if (a.f.disk[n].written)
            memcpy(b.f.disk[n].data, a.f.disk[n].data, FUZZ_DISK_SIZE);
        b.f.disk[n].blk.size = a.f.disk[n].blk.size;
    }
    for (unsigned at = 0; at < VGA_VRAM_SIZE; at += PAGE_SIZE)
        if (memcmp(a.pc->vga.vram + at, zero, PAGE_SIZE) != 0)
            memcpy(b.pc->vga.vram + at, a.pc->vga.vram + at, PAGE_SIZE);
    b.f.out_room = a.f.out_room;
}

/* Both boards go on with the same script, and stay the same: nothing that matters was left out. */
static void go_on(struct state_list *x, struct state_list *y, const struct fuzz_in *in)
{
    copy_rest();
    a.f.in = b.f.in = *in;
    fuzz_run(&a.f);
    fuzz_run(&b.f);
    for (unsigned n = 0; n < x->nparts; n++)
        same_part(&x->part[n], &y->part[n]);
    FUZZ_REQUIRE(!memcmp(a.f.ram.host, b.f.ram.host, a.f.ram.total));
}

static void whole_trip(struct state_list *y)
{
    struct error e;
    int first = save(&a);
    lseek(first, 0, SEEK_SET);
    if (state_load(first, y, NULL, &e)) {
        fprintf(stderr, "load: %s\n", e.msg);
        FUZZ_REQUIRE(false);
    }
    int second = save(&b);
    require_same(first, second);
    close(second);
    close(first);
}

/* Loads all parts, some of them changed. True: the board has taken all. */
static bool changed_trip(struct state_list *x, struct state_list *y, struct fuzz_in *in)
{
    uint8_t changes = fuzz_u8(in) & 3, which[3];
    for (unsigned n = 0; n < changes; n++)
        which[n] = (uint8_t)(fuzz_u8(in) % x->nparts);
    for (unsigned n = 0; n < x->nparts; n++) {
        struct state_out out;
        state_out_init(&out, MIB);
        state_save_fields(x->part[n].table, x->part[n].obj, &out);
        FUZZ_REQUIRE(!out.failed);
        for (unsigned k = 0; k < changes; k++) {
            if (which[k] != n)
                continue;
            uint16_t at = fuzz_u16(in);
            out.p[at % out.len] ^= fuzz_u8(in);
        }
        struct state_in from = {.p = out.p, .len = out.len};
        int rc = state_load_fields(y->part[n].table, y->part[n].obj, &from, NULL);
        state_out_fini(&out);
        if (rc)
            return false;
    }
    return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_in in = {data, size};
    const uint8_t *script;
    uint16_t want = fuzz_u16(&in);
    size_t len = fuzz_take(&in, &script, want & 0x3fff);
    fuzz_board_begin(&a, script, len, true);
    fuzz_board_begin(&b, NULL, 0, true);
    fuzz_run(&a.f);
    pc_state_begin(a.pc);
    vclock_set(&b.f.clock, vclock_now(&a.f.clock));
    memcpy(b.f.ram.host, a.f.ram.host, a.f.ram.total);
    struct state_list *x = list_of(&a), *y = list_of(&b);
    if (want & 0x4000) {
        whole_trip(y);
    } else if (!(want & 0x8000)) {
        round_trip(x, y);
        go_on(x, y, &in);
    } else if (changed_trip(x, y, &in)) {
        b.f.in = in;
        fuzz_run(&b.f);
    }
    free(x);
    free(y);
    fuzz_board_end(&a);
    fuzz_board_end(&b);
    return 0;
}
