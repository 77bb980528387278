/* test_state.c - field tables: what goes round comes back the same, and whatever is cut off,
 * changed or foreign is refused with a message. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "state/fields.h"

/* ---- a part with everything that a part can have ---- */

struct inner {
    uint8_t index; /* below 4 */
    int64_t when;
};

struct part {
    uint16_t word;
    bool on[3];
    int32_t offset;
    uint8_t grid[2][4];
    struct inner one, many[2], *other;
    uint32_t used;
    uint8_t *buf;
    const char *choice; /* of words */
    unsigned derived, saves;
};

#define CAPACITY 16u

static const char *const words[] = {"none", "some", "all"};

static uint64_t get_choice(const void *dev)
{
    const struct part *p = dev;
    uint64_t n = 0;
    while (words[n] != p->choice)
        n++;
    return n;
}

static bool set_choice(void *dev, uint64_t v)
{
    struct part *p = dev;
    p->choice = v < ARRAY_LEN(words) ? words[v] : NULL;
    return p->choice;
}

static void pre_save(void *dev)
{
    struct part *p = dev;
    p->saves++;
}

static int post_load(void *dev, struct error *e)
{
    struct part *p = dev;
    p->derived = p->word * 2u;
    return p->word == 666 ? error_set(e, ERR_FORMAT, "word: is not to be") : 0;
}

static const struct field inner_fields[] = {
    FIELD(struct inner, index, .max = 3),
    FIELD(struct inner, when),
};
static const struct field_table inner_table = FIELD_TABLE(struct inner, "inner", inner_fields);

static const struct field part_fields[] = {
    FIELD(struct part, word),
    FIELD_ARRAY(struct part, on),
    FIELD(struct part, offset),
    FIELD_ARRAY2(struct part, grid),
    FIELD_STRUCT(struct part, one, inner_table),
    FIELD_STRUCTS(struct part, many, inner_table),
    FIELD_POINTER(struct part, other, inner_table),
    FIELD(struct part, used, .max = CAPACITY),
    FIELD_BUFFER(struct part, buf, used, CAPACITY),
    FIELD_VALUE(struct part, choice, get_choice, set_choice),
    FIELD_NONE(struct part, derived),
    FIELD_NONE(struct part, saves),
};
static const struct field_table part_table =
    FIELD_TABLE(struct part, "part", part_fields, .pre_save = pre_save, .post_load = post_load);

static struct part *new_part(void)
{
    struct part *p = calloc(1, sizeof *p);
    p->other = calloc(1, sizeof *p->other);
    p->buf = calloc(1, CAPACITY);
    p->choice = words[0];
    return p;
}

static struct part *used_part(void)
{
    struct part *p = new_part();
    p->word = 0xbeef;
    p->on[1] = true;
    p->offset = -5;
    memcpy(p->grid, "abcdefgh", 8);
    p->one = (struct inner){3, INT64_MIN};
    p->many[1] = (struct inner){2, 99};
    p->other->when = 1;
    p->used = 5;
    memcpy(p->buf, "bytes", 5);
    p->choice = words[2];
    return p;
}

static void free_part(struct part *p)
{
    free(p->other);
    free(p->buf);
    free(p);
}

static struct state_out saved(const struct field_table *t, void *obj)
{
    struct state_out out;
    state_out_init(&out, 1 << 20);
    state_save_fields(t, obj, &out);
    assert_false(out.failed);
    return out;
}

static int load(const struct field_table *t, void *obj, const struct state_out *out,
                struct error *e)
{
    struct state_in in = {.p = out->p, .len = out->len};
    int rc = state_load_fields(t, obj, &in, e);
    if (!rc)
        assert_int_equal(in.pos, in.len);
    return rc;
}

static void comes_back_the_same(void **state)
{
    struct part *p = used_part(), *q = new_part();
    struct state_out first = saved(&part_table, p);
    assert_int_equal(p->saves, 1);
    assert_int_equal(load(&part_table, q, &first, NULL), 0);
    assert_int_equal(q->word, 0xbeef);
    assert_true(q->on[1] && !q->on[0]);
    assert_int_equal(q->offset, -5);
    assert_memory_equal(q->grid, "abcdefgh", 8);
    assert_int_equal(q->one.when, INT64_MIN);
    assert_int_equal(q->many[1].index, 2);
    assert_int_equal(q->other->when, 1);
    assert_memory_equal(q->buf, "bytes", 6);
    assert_ptr_equal(q->choice, words[2]);
    assert_int_equal(q->derived, 0xbeef * 2);
    struct state_out second = saved(&part_table, q);
    assert_int_equal(first.len, second.len);
    assert_memory_equal(first.p, second.p, first.len);
    state_out_fini(&first);
    state_out_fini(&second);
    free_part(p);
    free_part(q);
}

static void cut_off_anywhere_is_refused(void **state)
{
    struct part *p = used_part();
    struct state_out out = saved(&part_table, p);
    for (size_t len = 0; len < out.len; len++) {
        struct part *q = new_part();
        uint8_t *exact = malloc(len + !len); /* reading beyond it is seen by sanitizers */
        memcpy(exact, out.p, len);
        struct state_in in = {.p = exact, .len = len};
        struct error e = {0};
        assert_int_equal(state_load_fields(&part_table, q, &in, &e), ERR_FORMAT);
        assert_true(e.msg[0]);
        free(exact);
        free_part(q);
    }
    state_out_fini(&out);
    free_part(p);
}

/* Whatever the change makes of it, it ends; and what is taken is valid. */
static void changed_anywhere_stays_within_bounds(void **state)
{
    struct part *p = used_part();
    struct state_out out = saved(&part_table, p);
    for (size_t at = 0; at < out.len; at++) {
        for (unsigned bit = 0; bit < 8; bit++) {
            struct part *q = new_part();
            out.p[at] ^= (uint8_t)(1u << bit);
            struct state_in in = {.p = out.p, .len = out.len};
            if (!state_load_fields(&part_table, q, &in, NULL)) {
                assert_true(q->one.index < 4 && q->used <= CAPACITY && q->choice);
                assert_true(*(uint8_t *)&q->on[0] <= 1);
            }
            out.p[at] ^= (uint8_t)(1u << bit);
            free_part(q);
        }
    }
    state_out_fini(&out);
    free_part(p);
}

static void hooks_refuse(void **state)
{
    struct part *p = used_part();
    struct error e;
    p->word = 666;
    struct state_out out = saved(&part_table, p);
    assert_int_equal(load(&part_table, p, &out, &e), ERR_FORMAT);
    assert_string_equal(e.msg, "word: is not to be");
    state_out_fini(&out);
    free_part(p);
}

static void errors_name_the_place(void **state)
{
    struct part *p = used_part();
    struct error e;
    p->many[1].index = 9;
    struct state_out out = saved(&part_table, p);
    assert_int_equal(load(&part_table, p, &out, &e), ERR_FORMAT);
    assert_string_equal(e.msg, "many[1]: index: 9 is no valid value: at most 3");
    state_out_fini(&out);
    free_part(p);
}

static void a_pointer_is_there_on_both_sides(void **state)
{
    struct part *p = used_part();
    struct error e;
    struct state_out out = saved(&part_table, p);
    free(p->other);
    p->other = NULL;
    assert_int_equal(load(&part_table, p, &out, &e), ERR_FORMAT);
    state_out_fini(&out);
    out = saved(&part_table, p);
    assert_int_equal(load(&part_table, p, &out, &e), 0);
    state_out_fini(&out);
    free_part(p);
}

/* ---- versions ---- */

struct v1 {
    uint8_t size;
    uint16_t both;
};
struct v2 {
    uint32_t size; /* wider */
    uint16_t both, added, hint;
};
static const struct field v1_fields[] = {FIELD(struct v1, size), FIELD(struct v1, both)};
static const struct field_table v1_table = FIELD_TABLE(struct v1, "v", v1_fields);
static const struct field v2_fields[] = {
    FIELD(struct v2, size),
    FIELD(struct v2, both),
    FIELD(struct v2, added, .since = 2),
    FIELD(struct v2, hint, .since = 2, .optional = true),
};
static const struct field_table v2_table = FIELD_TABLE(struct v2, "v", v2_fields, .version = 2);
static const struct field v2_hint_fields[] = {
    FIELD(struct v2, size),
    FIELD(struct v2, both),
    FIELD(struct v2, hint, .since = 2, .optional = true),
    FIELD_NONE(struct v2, added),
};
static const struct field_table v2_hint_table =
    FIELD_TABLE(struct v2, "v", v2_hint_fields, .version = 2);

static void older_versions_are_read(void **state)
{
    struct v1 old = {200, 7};
    struct v2 new = {.added = 3, .hint = 4};
    struct state_out out = saved(&v1_table, &old);
    assert_int_equal(load(&v2_table, &new, &out, NULL), 0);
    assert_int_equal(new.size, 200);
    assert_int_equal(new.both, 7);
    assert_int_equal(new.added, 3); /* as after power-on */
    state_out_fini(&out);
}

static void newer_fields_are_errors_unless_optional(void **state)
{
    struct v1 old = {0};
    struct v2 new = {200, 7, 1, 2};
    struct error e;
    struct state_out out = saved(&v2_table, &new);
    assert_int_equal(load(&v1_table, &old, &out, &e), ERR_FORMAT);
    assert_non_null(strstr(e.msg, "added"));
    assert_non_null(strstr(e.msg, "newer version"));
    state_out_fini(&out);
    out = saved(&v2_hint_table, &new);
    assert_int_equal(load(&v1_table, &old, &out, &e), 0);
    assert_int_equal(old.size, 200);
    state_out_fini(&out);
    new.size = 256; /* does not fit any more */
    out = saved(&v2_hint_table, &new);
    assert_int_equal(load(&v1_table, &old, &out, &e), ERR_FORMAT);
    state_out_fini(&out);
}

static void missing_and_double_fields_are_errors(void **state)
{
    static const struct field_table less = {
        .name = "v", .version = 2, .size = sizeof(struct v2), .field = v2_fields, .nfield = 2};
    struct v2 new = {0};
    struct error e;
    struct state_out out = saved(&less, &new);
    assert_int_equal(load(&v2_table, &new, &out, &e), ERR_FORMAT);
    assert_string_equal(e.msg, "added: is missing");
    state_out_fini(&out);
    static const struct field twice_fields[] = {FIELD(struct v1, both), FIELD(struct v1, both)};
    static const struct field_table twice = FIELD_TABLE(struct v1, "v", twice_fields);
    struct v1 old = {0};
    out = saved(&twice, &old);
    assert_int_equal(load(&v1_table, &old, &out, &e), ERR_FORMAT);
    assert_string_equal(e.msg, "both: is there twice");
    state_out_fini(&out);
}

static void machines_that_differ_are_told_apart(void **state)
{
    static const struct field same_fields[] = {FIELD(struct v1, size, .same = true),
                                               FIELD(struct v1, both)};
    static const struct field_table same = FIELD_TABLE(struct v1, "v", same_fields);
    struct v1 x = {1, 2}, y = {3, 4};
    struct error e;
    struct state_out out = saved(&same, &x);
    assert_int_equal(load(&same, &y, &out, &e), ERR_STATE);
    assert_int_equal(y.size, 3);
    state_out_fini(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(comes_back_the_same),
        cmocka_unit_test(cut_off_anywhere_is_refused),
        cmocka_unit_test(changed_anywhere_stays_within_bounds),
        cmocka_unit_test(hooks_refuse),
        cmocka_unit_test(errors_name_the_place),
        cmocka_unit_test(a_pointer_is_there_on_both_sides),
        cmocka_unit_test(older_versions_are_read),
        cmocka_unit_test(newer_fields_are_errors_unless_optional),
        cmocka_unit_test(missing_and_double_fields_are_errors),
        cmocka_unit_test(machines_that_differ_are_told_apart),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
