/*
 * fuzz_state.c - the state of a board that a guest has used: what is saved, loaded into another
 * board and saved again is the same to the last bit; and what was changed on the way is refused, or
 * makes a board that a guest can use without harm to us.
 *
 * Input: u16 length of the first script, the script; u8 number of changes (0 to 31), each u8 which
 * part, u16 where, u8 exclusive-or; then the script for the board that took them.
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

/* Part by part first, which tells where. */
static void round_trip(void)
{
    struct error e;
    pc_state_begin(a.pc);
    int first = save(&a);
    vclock_set(&b.f.clock, vclock_now(&a.f.clock));
    struct state_list *l = list_of(&b), *from = list_of(&a);
    lseek(first, 0, SEEK_SET);
    if (state_load(first, l, NULL, &e)) {
        fprintf(stderr, "load: %s\n", e.msg);
        FUZZ_REQUIRE(false);
    }
    for (unsigned n = 0; n < l->nparts; n++)
        same_part(&from->part[n], &l->part[n]);
    int second = save(&b);
    require_same(first, second);
    close(second);
    close(first);
    free(from);
    free(l);
}

/* True: the board has taken all. */
static bool change(struct fuzz_in *in)
{
    struct state_list *l = list_of(&b);
    bool ok = true;
    for (unsigned n = fuzz_u8(in) & 31; n && ok; n--) {
        struct state_part *p = &l->part[fuzz_u8(in) % l->nparts];
        struct state_out out;
        state_out_init(&out, MIB);
        state_save_fields(p->table, p->obj, &out);
        FUZZ_REQUIRE(!out.failed);
        for (unsigned k = 0; k < 4; k++) {
            uint16_t at = fuzz_u16(in);
            out.p[at % out.len] ^= fuzz_u8(in);
        }
        struct state_in from = {.p = out.p, .len = out.len};
        /* Some parts expect to be new: event requests of NVMe are in no pool any more. */
        struct fuzz_board *fresh = &a;
        struct state_list *m = list_of(fresh);
        unsigned place = (unsigned)(p - l->part);
        ok = !state_load_fields(m->part[place].table, m->part[place].obj, &from, NULL);
        free(m);
        state_out_fini(&out);
    }
    free(l);
    return ok;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_in in = {data, size};
    const uint8_t *script;
    uint16_t want = fuzz_u16(&in);
    size_t len = fuzz_take(&in, &script, want);
    fuzz_board_begin(&a, script, len, true);
    fuzz_board_begin(&b, NULL, 0, true);
    fuzz_run(&a.f);
    round_trip();
    fuzz_board_end(&a);
    fuzz_board_begin(&a, NULL, 0, true); /* a new one for what is changed */
    vclock_set(&a.f.clock, vclock_now(&b.f.clock));
    if (change(&in)) {
        a.f.in = in;
        fuzz_run(&a.f);
    }
    fuzz_board_end(&a);
    fuzz_board_end(&b);
    return 0;
}
