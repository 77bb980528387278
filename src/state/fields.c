/* fields.c - see fields.h. */
#include "state/fields.h"

#include <stdlib.h>
#include <string.h>

#include "base/endian.h"

#define TYPE_SIZE     0x03u
#define TYPE_SIGNED   0x04u
#define TYPE_STRUCT   0x08u
#define TYPE_OPTIONAL 0x80u
#define NAME_MAX_LEN  63u

/* ---- bytes ---- */

void state_out_init(struct state_out *o, size_t limit)
{
    *o = (struct state_out){.limit = limit};
}

void state_out_fini(struct state_out *o)
{
    free(o->p);
    *o = (struct state_out){0};
}

static bool reserve(struct state_out *o, size_t len)
{
    if (o->failed || len > o->limit - o->len) {
        o->failed = true;
        return false;
    }
    if (len <= o->cap - o->len)
        return true;
    size_t cap = (size_t)min_u64(o->limit, max_u64(o->len + len, max_u64(4096, 2 * o->cap)));
    uint8_t *p = realloc(o->p, cap);
    if (!p) {
        o->failed = true;
        return false;
    }
    o->p = p;
    o->cap = cap;
    return true;
}

void state_put(struct state_out *o, const void *p, size_t len)
{
    if (!len || !reserve(o, len))
        return;
    memcpy(o->p + o->len, p, len);
    o->len += len;
}

void state_put_uint(struct state_out *o, uint64_t v, unsigned bytes)
{
    uint64_t le = htole64(v);
    state_put(o, &le, bytes);
}

const uint8_t *state_take(struct state_in *in, size_t len)
{
    if (len > in->len - in->pos)
        return NULL;
    const uint8_t *p = in->p + in->pos;
    in->pos += len;
    return p;
}

bool state_take_uint(struct state_in *in, unsigned bytes, uint64_t *v)
{
    const uint8_t *p = state_take(in, bytes);
    uint64_t le = 0;
    if (!p)
        return false;
    memcpy(&le, p, bytes);
    *v = le64toh(le);
    return true;
}

/* ---- one integer in memory ---- */

static uint64_t get_uint(const void *p, unsigned size)
{
    uint64_t v = 0;
    switch (size) {
    case 1:
        return *(const uint8_t *)p;
    case 2:
        memcpy(&v, p, 2);
        return (uint16_t)v;
    case 4:
        memcpy(&v, p, 4);
        return (uint32_t)v;
    default:
        memcpy(&v, p, 8);
        return v;
    }
}

/* The host is little-endian: x86-64. */
static void put_uint(void *p, uint64_t v, unsigned size)
{
    memcpy(p, &v, size);
}

static unsigned log2_of(unsigned size)
{
    return size == 1 ? 0 : size == 2 ? 1 : size == 4 ? 2 : 3;
}

/* ---- saving ---- */

static uint32_t buffer_len(const struct field *f, const uint8_t *obj)
{
    uint32_t len;
    memcpy(&len, obj + f->len_offset, sizeof len);
    return (uint32_t)min_u64(len, f->cap);
}

static uint8_t type_of(const struct field *f)
{
    uint8_t type = f->optional ? TYPE_OPTIONAL : 0;
    if (f->kind == FIELD_IS_STRUCT)
        return type | TYPE_STRUCT;
    if (f->kind == FIELD_IS_INT)
        type |= TYPE_SIGNED;
    return (uint8_t)(type | log2_of(f->size));
}

static void put_header(const struct field *f, uint32_t count, struct state_out *out)
{
    size_t len = strlen(f->name);
    state_put_uint(out, len, 1);
    state_put(out, f->name, len);
    state_put_uint(out, type_of(f), 1);
    state_put_uint(out, count, 4);
}

/* Where the structs are, and how many. */
static uint8_t *structs_of(const struct field *f, uint8_t *obj, uint32_t *count)
{
    uint8_t *at = obj + f->offset;
    *count = f->count;
    if (f->pointer) {
        memcpy(&at, obj + f->offset, sizeof at);
        *count = at != NULL;
    }
    return at;
}

static void save_structs(const struct field *f, uint8_t *obj, struct state_out *out)
{
    uint32_t count;
    uint8_t *at = structs_of(f, obj, &count);
    put_header(f, count, out);
    size_t mark = out->len;
    state_put_uint(out, 0, 4);
    for (uint32_t n = 0; n < count; n++)
        state_save_fields(f->sub, at + (size_t)n * f->size, out);
    if (!out->failed)
        store_le32(out->p + mark, (uint32_t)(out->len - mark - 4));
}

static void save_field(const struct field *f, uint8_t *obj, struct state_out *out)
{
    uint8_t *at = obj + f->offset;
    const uint8_t *bytes;
    switch (f->kind) {
    case FIELD_IS_NONE:
        return;
    case FIELD_IS_STRUCT:
        save_structs(f, obj, out);
        return;
    case FIELD_IS_VALUE:
        put_header(f, 1, out);
        state_put_uint(out, f->get(obj), 8);
        return;
    case FIELD_IS_BUFFER:
        memcpy(&bytes, at, sizeof bytes);
        put_header(f, bytes ? buffer_len(f, obj) : 0, out);
        if (bytes)
            state_put(out, bytes, buffer_len(f, obj));
        return;
    default: /* integers, as they lie in memory */
        put_header(f, f->count, out);
        state_put(out, at, (size_t)f->size * f->count);
    }
}

static uint16_t version_of(const struct field_table *t)
{
    return t->version ? t->version : 1;
}

void state_save_fields(const struct field_table *t, void *obj, struct state_out *out)
{
    if (t->pre_save)
        t->pre_save(obj);
    state_put_uint(out, version_of(t), 2);
    for (unsigned n = 0; n < t->nfield; n++)
        save_field(&t->field[n], obj, out);
    state_put_uint(out, 0, 1);
}

/* ---- loading ---- */

/* A field as the stream has it, its header read. */
struct item {
    char name[NAME_MAX_LEN + 1];
    uint8_t type;
    uint64_t count;
};

static int cut_off(struct error *e)
{
    return error_set(e, ERR_FORMAT, "ends in the middle");
}

/* 1; 0: the end of the struct. */
static int read_item(struct state_in *in, struct item *it, struct error *e)
{
    uint64_t len, type;
    if (!state_take_uint(in, 1, &len))
        return cut_off(e);
    if (!len)
        return 0;
    if (len > NAME_MAX_LEN)
        return error_set(e, ERR_FORMAT, "a field's name is too long");
    const uint8_t *name = state_take(in, (size_t)len);
    if (!name || !state_take_uint(in, 1, &type) || !state_take_uint(in, 4, &it->count))
        return cut_off(e);
    for (unsigned n = 0; n < len; n++) {
        if (name[n] < '!' || name[n] > '~')
            return error_set(e, ERR_FORMAT, "a field's name is no text");
        it->name[n] = (char)name[n];
    }
    it->name[len] = 0;
    it->type = (uint8_t)type;
    if (type & ~(TYPE_SIZE | TYPE_SIGNED | TYPE_STRUCT | TYPE_OPTIONAL) ||
        (type & TYPE_STRUCT && type & (TYPE_SIZE | TYPE_SIGNED)))
        return error_set(e, ERR_FORMAT, "%s: has no known type", it->name);
    return 1;
}

static int skip_item(const struct item *it, struct state_in *in, struct error *e)
{
    uint64_t len = it->count << (it->type & TYPE_SIZE);
    if (it->type & TYPE_STRUCT && !state_take_uint(in, 4, &len))
        return cut_off(e);
    return state_take(in, (size_t)len) ? 0 : cut_off(e);
}

/* The value of an integer that the stream has in `bytes` bytes. */
static uint64_t widen(uint64_t v, unsigned bytes, bool sign)
{
    unsigned shift = 64 - 8 * bytes;
    return sign ? (uint64_t)((int64_t)(v << shift) >> shift) : v;
}

static bool fits(const struct field *f, uint64_t v, bool sign)
{
    unsigned bits = 8 * f->size;
    if (f->kind == FIELD_IS_BOOL)
        return v <= 1;
    if (f->kind == FIELD_IS_INT) {
        int64_t s = (int64_t)v;
        if (!sign && s < 0) /* beyond the largest signed number */
            return false;
        return bits == 64 || (s >= -(1ll << (bits - 1)) && s < 1ll << (bits - 1));
    }
    if (sign && (int64_t)v < 0)
        return false;
    return (bits == 64 || !(v >> bits)) && (!f->max || v <= f->max);
}

static int bad_value(const struct field *f, uint64_t v, struct error *e)
{
    if (f->max)
        return error_set(e, ERR_FORMAT, "%s: %llu is no valid value: at most %llu", f->name,
                         (unsigned long long)v, (unsigned long long)f->max);
    return error_set(e, ERR_FORMAT, "%s: %lld is no valid value", f->name, (long long)v);
}

static int store_integer(const struct field *f, uint8_t *obj, uint64_t n, uint64_t v,
                         struct error *e)
{
    uint8_t *at = obj + f->offset + n * f->size;
    if (f->kind == FIELD_IS_VALUE)
        return f->set(obj, v) ? 0 : bad_value(f, v, e);
    if (f->same && get_uint(at, f->size) != (f->size == 8 ? v : v & ((1ull << 8 * f->size) - 1)))
        return error_set(e, ERR_STATE,
                         "%s is %llu here and %llu in the saved state: the machines differ",
                         f->name, (unsigned long long)get_uint(at, f->size), (unsigned long long)v);
    put_uint(at, v, f->size);
    return 0;
}

static int load_integers(const struct field *f, uint8_t *obj, const struct item *it,
                         struct state_in *in, struct error *e)
{
    unsigned bytes = 1u << (it->type & TYPE_SIZE);
    bool sign = it->type & TYPE_SIGNED;
    if (it->count != f->count)
        return error_set(e, ERR_FORMAT, "%s: has %llu elements and not %u", f->name,
                         (unsigned long long)it->count, f->count);
    for (uint64_t n = 0; n < it->count; n++) {
        uint64_t v;
        if (!state_take_uint(in, bytes, &v))
            return error_prefix((cut_off(e), e), "%s", f->name);
        v = widen(v, bytes, sign);
        int rc = fits(f, v, sign) ? store_integer(f, obj, n, v, e) : bad_value(f, v, e);
        if (rc)
            return rc;
    }
    return 0;
}

static int load_buffer(const struct field *f, uint8_t *obj, const struct item *it,
                       struct state_in *in, struct error *e)
{
    uint8_t *to;
    memcpy(&to, obj + f->offset, sizeof to);
    if (it->type & (TYPE_SIZE | TYPE_SIGNED) || it->count > (to ? f->cap : 0))
        return error_set(e, ERR_FORMAT, "%s: is not up to %u bytes", f->name, to ? f->cap : 0);
    if (f->same && it->count != buffer_len(f, obj))
        return error_set(e, ERR_STATE, "%s: has another size here: the machines differ", f->name);
    const uint8_t *from = state_take(in, (size_t)it->count);
    if (!from)
        return error_prefix((cut_off(e), e), "%s", f->name);
    if (it->count)
        memcpy(to, from, (size_t)it->count);
    return 0;
}

static int load_struct(const struct field_table *t, uint8_t *obj, struct state_in *in,
                       unsigned depth, struct error *e);

static int load_structs(const struct field *f, uint8_t *obj, const struct item *it,
                        struct state_in *in, unsigned depth, struct error *e)
{
    uint64_t len;
    uint32_t count;
    uint8_t *at = structs_of(f, obj, &count);
    if (it->count != count)
        return error_set(e, ERR_FORMAT, "%s: has %llu elements and not %u", f->name,
                         (unsigned long long)it->count, count);
    if (!state_take_uint(in, 4, &len))
        return error_prefix((cut_off(e), e), "%s", f->name);
    struct state_in part = {.p = state_take(in, (size_t)len), .len = (size_t)len};
    if (!part.p)
        return error_prefix((cut_off(e), e), "%s", f->name);
    for (uint32_t n = 0; n < count; n++) {
        int rc = load_struct(f->sub, at + (size_t)n * f->size, &part, depth + 1, e);
        if (rc && count > 1)
            return error_prefix(e, "%s[%u]", f->name, n);
        if (rc)
            return error_prefix(e, "%s", f->name);
    }
    if (part.pos != part.len)
        return error_set(e, ERR_FORMAT, "%s: is longer than its fields", f->name);
    return 0;
}

static int load_item(const struct field *f, uint8_t *obj, const struct item *it,
                     struct state_in *in, unsigned depth, struct error *e)
{
    if (!(it->type & TYPE_STRUCT) != (f->kind != FIELD_IS_STRUCT))
        return error_set(e, ERR_FORMAT, "%s: is of another type", f->name);
    if (f->kind == FIELD_IS_STRUCT)
        return load_structs(f, obj, it, in, depth, e);
    if (f->kind == FIELD_IS_BUFFER)
        return load_buffer(f, obj, it, in, e);
    return load_integers(f, obj, it, in, e);
}

static int find(const struct field_table *t, const char *name)
{
    for (unsigned n = 0; n < t->nfield; n++)
        if (t->field[n].kind != FIELD_IS_NONE && !strcmp(t->field[n].name, name))
            return (int)n;
    return -1;
}

static int check_complete(const struct field_table *t, uint64_t version, const bool *seen,
                          struct error *e)
{
    for (unsigned n = 0; n < t->nfield; n++) {
        const struct field *f = &t->field[n];
        uint16_t since = f->since ? f->since : 1;
        if (f->kind == FIELD_IS_NONE || seen[n] || f->optional || since > version)
            continue;
        return error_set(e, ERR_FORMAT, "%s: is missing", f->name);
    }
    return 0;
}

static int load_struct(const struct field_table *t, uint8_t *obj, struct state_in *in,
                       unsigned depth, struct error *e)
{
    uint64_t version;
    bool seen[FIELD_MAX_COUNT] = {false};
    struct item it;
    int rc;
    if (depth > STATE_MAX_DEPTH)
        return error_set(e, ERR_FORMAT, "structs are nested too deeply");
    if (!state_take_uint(in, 2, &version))
        return cut_off(e);
    while ((rc = read_item(in, &it, e)) > 0) {
        int n = find(t, it.name);
        if (n >= 0 && seen[n])
            return error_set(e, ERR_FORMAT, "%s: is there twice", it.name);
        if (n >= 0) {
            seen[n] = true;
            rc = load_item(&t->field[n], obj, &it, in, depth, e);
        } else if (it.type & TYPE_OPTIONAL) {
            rc = skip_item(&it, in, e);
        } else {
            rc = error_set(e, ERR_FORMAT,
                           "%s: is not known here: the state was saved by a newer version of sosia",
                           it.name);
        }
        if (rc)
            return rc;
    }
    if (!rc)
        rc = check_complete(t, version, seen, e);
    if (!rc && t->post_load)
        rc = t->post_load(obj, e);
    return rc;
}

int state_load_fields(const struct field_table *t, void *obj, struct state_in *in, struct error *e)
{
    return load_struct(t, obj, in, 0, e);
}
