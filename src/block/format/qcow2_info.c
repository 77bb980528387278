/* qcow2_info.c - what `disk info` says of a qcow2 image. */
#include <jansson.h>

#include "block/format/qcow2_int.h"

/* Text from an image may be no UTF-8, which JSON cannot hold. */
static json_t *text(const char *s)
{
    json_t *t = s ? json_string(s) : json_null();
    return t ? t : json_string("(not UTF-8)");
}

static json_t *snapshot_info(const struct qcow2_snapshot *s)
{
    return json_pack("{s:o, s:o, s:I, s:I, s:I, s:I, s:I}", "id", text(s->id), "name",
                     text(s->name), "date-sec", (json_int_t)s->date_sec, "date-nsec",
                     (json_int_t)s->date_nsec, "vm-clock-nsec", (json_int_t)s->vm_clock,
                     "vm-state-size", (json_int_t)s->vm_state_size, "disk-size",
                     (json_int_t)s->disk_size);
}

struct json_t *qcow2_info(struct node *n)
{
    struct qcow2 *q = qcow2_of(n);
    json_t *o = json_pack("{s:i, s:I, s:i, s:b, s:b, s:s, s:b, s:b}", "version", (int)q->version,
                          "cluster-size", (json_int_t)q->cluster, "refcount-bits", 1 << q->order,
                          "lazy-refcounts", qcow2_lazy(q), "extended-l2", q->ext_l2,
                          "compression-type", q->compression ? "zstd" : "zlib", "dirty",
                          (q->incompat & QCOW2_INCOMPAT_DIRTY) != 0, "corrupt",
                          (q->incompat & QCOW2_INCOMPAT_CORRUPT) != 0);
    if (!o)
        return NULL;
    if (q->backing_name) {
        json_object_set_new(o, "backing-file", text(q->backing_name));
        json_object_set_new(o, "backing-format", text(q->backing_format));
    }
    if (qcow2_external(q)) {
        json_object_set_new(o, "data-file", text(q->data_name));
        json_object_set_new(o, "data-file-raw", json_boolean(q->raw_data));
    }
    if (q->nbitmaps && (q->autoclear & QCOW2_AUTOCLEAR_BITMAPS))
        json_object_set_new(o, "bitmaps", json_integer(q->nbitmaps));
    json_t *list = json_array();
    for (uint32_t i = 0; i < q->nsnap; i++)
        json_array_append_new(list, snapshot_info(&q->snap[i]));
    json_object_set_new(o, "snapshots", list);
    return o;
}
