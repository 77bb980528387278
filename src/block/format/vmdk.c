/*
 * vmdk.c - VMware's image format, read-only: monolithicSparse, streamOptimized, monolithicFlat,
 * twoGbMaxExtentFlat, twoGbMaxExtentSparse and what else is made of flat, sparse and zero extents.
 * See vmdk_int.h.
 *
 * Files that the descriptor names are opened through the opener, which knows what is allowed.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/endian.h"
#include "block/format/formats.h"
#include "block/format/transfer.h"
#include "block/format/vmdk_int.h"

#define DESCRIPTOR_BEGIN "# Disk DescriptorFile"

static const struct node_ops vmdk_ops;

static struct vmdk *vmdk_of(struct node *n)
{
    return CONTAINER_OF(n, struct vmdk, node);
}

/* ---- using ---- */

/* The extent that holds `offset`, which lies in the disk. */
static const struct vmdk_extent *find_extent(const struct vmdk *v, uint64_t offset)
{
    unsigned low = 0, high = v->nextent - 1;
    while (low < high) {
        unsigned mid = (low + high + 1) / 2;
        if (v->extent[mid].start <= offset)
            low = mid;
        else
            high = mid - 1;
    }
    return &v->extent[low];
}

static int find_run(struct vmdk *v, uint64_t offset, uint64_t len, bool cached,
                    const struct vmdk_extent **in, struct vmdk_run *out)
{
    const struct vmdk_extent *x = *in = find_extent(v, offset);
    uint64_t at = offset - x->start;
    len = min_u64(len, x->len - at);
    if (x->kind == VMDK_SPARSE)
        return vmdk_sparse_find(v, x, at, len, cached, out);
    *out = (struct vmdk_run){
        .kind = x->kind == VMDK_FLAT ? NODE_DATA : NODE_ZERO, .where = x->offset + at, .len = len};
    return 0;
}

static int unpack_run(struct vmdk *v, const struct vmdk_extent *x, struct iov_cursor *c,
                      uint64_t at, const struct vmdk_run *run)
{
    for (uint64_t done = 0; done < run->len;) {
        struct iovec part = {NULL, 0};
        uint64_t got;
        iov_slice(c, run->len - done, &part, 1, &got);
        int rc = vmdk_unpack(v, x, at + done, run->where, part.iov_base, got);
        if (rc)
            return rc;
        iov_advance(c, got);
        done += got;
    }
    return 0;
}

static int vmdk_read(struct node *n, const struct iovec *iov, int niov, uint64_t offset)
{
    struct vmdk *v = vmdk_of(n);
    struct iov_cursor c = {iov, niov, 0};
    uint64_t len = 0;
    iov_total(iov, niov, &len);
    iov_advance(&c, 0);
    while (len > 0) {
        const struct vmdk_extent *x;
        struct vmdk_run run;
        int rc = find_run(v, offset, len, false, &x, &run);
        if (!rc && run.kind == NODE_HOLE)
            rc = transfer_read(n->backing, &c, offset, run.len);
        else if (!rc && run.kind == NODE_ZERO)
            transfer_zero(&c, run.len);
        else if (!rc && run.packed)
            rc = unpack_run(v, x, &c, offset - x->start, &run);
        else if (!rc)
            rc = transfer_read(x->file, &c, run.where, run.len);
        if (rc)
            return rc;
        offset += run.len;
        len -= run.len;
    }
    return 0;
}

static int vmdk_map(struct node *n, uint64_t offset, uint64_t len, struct node_extent *out)
{
    const struct vmdk_extent *x;
    struct vmdk_run run;
    int rc = find_run(vmdk_of(n), offset, len, false, &x, &run);
    if (rc)
        return rc;
    bool placed = run.kind == NODE_DATA && !run.packed;
    *out = (struct node_extent){.kind = run.kind,
                                .len = run.len,
                                .compressed = run.packed && run.kind == NODE_DATA,
                                .placed = placed,
                                .below = placed ? x->file : NULL,
                                .where = placed ? run.where : 0};
    return 0;
}

static bool vmdk_resolve(struct node *n, uint64_t offset, uint64_t len, bool write,
                         struct node_place *out)
{
    const struct vmdk_extent *x;
    struct vmdk_run run;
    if (write || find_run(vmdk_of(n), offset, len, true, &x, &run) ||
        (run.kind == NODE_DATA && run.packed))
        return false;
    *out = (struct node_place){NULL, 0, run.len};
    if (run.kind == NODE_DATA) {
        out->node = x->file;
        out->offset = run.where;
    } else if (run.kind == NODE_HOLE && n->backing) {
        uint64_t size = node_size(n->backing);
        if (offset < size)
            *out = (struct node_place){n->backing, offset, min_u64(run.len, size - offset)};
    }
    return true;
}

/* Everything but the image's own file, which open() leaves alone when it fails. */
static void destroy(struct vmdk *v)
{
    for (unsigned i = 0; i < v->nextent; i++) {
        if (v->extent[i].file != v->file)
            node_close(v->extent[i].file);
        free(v->extent[i].directory);
    }
    node_close(v->node.backing);
    vmdk_desc_free(&v->desc);
    pthread_mutex_destroy(&v->cache);
    free(v->extent);
    free(v->slot);
    free(v->unpacked);
    free(v->path);
    free(v);
}

static void vmdk_close(struct node *n)
{
    struct node *file = vmdk_of(n)->file;
    destroy(vmdk_of(n));
    node_close(file);
}

static const struct node_ops vmdk_ops = {
    .name = "vmdk",
    .read = vmdk_read,
    .map = vmdk_map,
    .resolve = vmdk_resolve,
    .close = vmdk_close,
};

/* ---- opening ---- */

static int read_descriptor(struct vmdk *v, uint64_t at, uint64_t len, struct error *e)
{
    if (len > VMDK_MAX_DESCRIPTOR)
        return error_set(e, ERR_LIMIT, "the descriptor has %" PRIu64 " bytes; %llu are supported",
                         len, VMDK_MAX_DESCRIPTOR);
    if (!range_within(at, len, node_size(v->file)))
        return error_set(e, ERR_FORMAT, "the descriptor does not lie within the file");
    CLEANUP_FREE char *text = malloc(len + 1);
    if (!text)
        return error_set(e, ERR_NOMEM, "out of memory");
    int rc = node_read(v->file, text, len, at);
    if (rc)
        return error_errno(e, ERR_IO, -rc, "cannot read the descriptor");
    return vmdk_desc_parse(text, len, &v->desc, e);
}

static int add_space(struct vmdk *v, unsigned n, struct error *e)
{
    v->extent = calloc(n, sizeof *v->extent);
    v->slot = calloc(VMDK_CACHED_TABLES, sizeof *v->slot);
    return v->extent && v->slot ? 0 : error_set(e, ERR_NOMEM, "out of memory");
}

/* The image's file is its only extent, and has the descriptor in it. */
static int open_embedded(struct vmdk *v, struct error *e)
{
    uint64_t desc = 0, desc_len = 0;
    int rc = add_space(v, 1, e);
    if (rc)
        return rc;
    v->extent[0] = (struct vmdk_extent){.kind = VMDK_SPARSE, .file = v->file};
    v->nextent = 1;
    rc = vmdk_sparse_open(v, &v->extent[0], &desc, &desc_len, e);
    if (rc)
        return rc;
    if (!desc || !desc_len)
        return error_set(e, ERR_FORMAT,
                         "this is one part of an image; open the descriptor that names it, a "
                         "small .vmdk file beside it");
    rc = read_descriptor(v, desc, desc_len, e);
    if (!rc && v->desc.nline > 1)
        return error_set(e, ERR_FORMAT,
                         "the descriptor in it names %u extents, which are to be named by one in "
                         "a file of its own",
                         v->desc.nline);
    v->node.size = v->extent[0].len;
    return rc;
}

static int check_flat(struct vmdk_extent *x, const struct vmdk_line *l, struct error *e)
{
    if (!checked_mul_u64(l->offset, VMDK_SECTOR, &x->offset) ||
        !range_within(x->offset, x->len, node_size(x->file)))
        return error_set(e, ERR_FORMAT,
                         "the file of an extent, '%.200s', is shorter than the descriptor says; it "
                         "was perhaps not copied completely",
                         l->name);
    return 0;
}

static int open_sparse(struct vmdk *v, struct vmdk_extent *x, const struct vmdk_line *l,
                       struct error *e)
{
    uint64_t desc, desc_len, want = x->len;
    int rc = vmdk_sparse_open(v, x, &desc, &desc_len, e);
    if (!rc && x->len != want)
        rc = error_set(e, ERR_FORMAT, "its header and the descriptor do not agree about its size");
    return rc ? error_prefix(e, "%.200s", l->name) : 0;
}

static int open_extent(struct vmdk *v, const struct format_open *o, const struct vmdk_line *l,
                       struct error *e)
{
    struct vmdk_extent *x = &v->extent[v->nextent];
    *x = (struct vmdk_extent){.kind = l->kind, .start = v->node.size};
    if (!checked_mul_u64(l->sectors, VMDK_SECTOR, &x->len) ||
        !checked_add_u64(v->node.size, x->len, &v->node.size) || v->node.size > VMDK_MAX_SIZE)
        return error_set(e, ERR_LIMIT, "the disk is too large");
    v->nextent++;
    if (l->kind == VMDK_ZERO)
        return 0;
    if (!o->opener)
        return error_set(e, ERR_STATE, "the image needs '%.200s', which must not be opened here",
                         l->name);
    int rc = o->opener->open(o->opener, v->path, l->name, "file", true, o->opener->depth + 1,
                             &x->file, e);
    if (rc)
        return rc;
    return l->kind == VMDK_FLAT ? check_flat(x, l, e) : open_sparse(v, x, l, e);
}

/* The image's file is the descriptor. */
static int open_described(struct vmdk *v, const struct format_open *o, struct error *e)
{
    int rc = read_descriptor(v, 0, node_size(v->file), e);
    if (!rc && v->desc.nline == 0)
        rc = error_set(e, ERR_FORMAT, "the descriptor names no extents");
    if (!rc)
        rc = add_space(v, v->desc.nline, e);
    for (unsigned i = 0; !rc && i < v->desc.nline; i++)
        rc = open_extent(v, o, &v->desc.line[i], e);
    return rc;
}

/* A parent that was written to since the image was made on it would show wrong data. */
static int check_parent(struct vmdk *v, struct error *e)
{
    struct node *p = v->node.backing;
    if (p->ops == &vmdk_ops && vmdk_of(p)->desc.cid != v->desc.parent_cid)
        return error_set(e, ERR_FORMAT,
                         "its parent '%.200s' has the content ID %08x, not %08x: it was changed "
                         "since, so the disk is not what it was",
                         v->desc.parent, vmdk_of(p)->desc.cid, v->desc.parent_cid);
    return 0;
}

static int open_parent(struct vmdk *v, const struct format_open *o, struct error *e)
{
    if (v->desc.parent_cid == VMDK_NO_CID || o->no_backing)
        return 0;
    if (!v->desc.parent)
        return error_set(e, ERR_FORMAT, "the image has a parent, whose name it does not say");
    if (!o->opener)
        return error_set(e, ERR_STATE, "the image needs '%.200s', which must not be opened here",
                         v->desc.parent);
    int rc = o->opener->open(o->opener, v->path, v->desc.parent, "vmdk", true, o->opener->depth + 1,
                             &v->node.backing, e);
    return rc ? rc : check_parent(v, e);
}

static int open_parts(struct vmdk *v, const struct format_open *o, struct error *e)
{
    uint8_t magic[4] = {0};
    int rc = node_size(v->file) < 4 ? 0 : node_read(v->file, magic, 4, 0);
    if (rc)
        return error_errno(e, ERR_IO, -rc, "cannot read it");
    rc = load_le32(magic) == VMDK_MAGIC ? open_embedded(v, e) : open_described(v, o, e);
    return rc ? rc : open_parent(v, o, e);
}

static int vmdk_open(struct node *file, const struct format_open *o, struct node **out,
                     struct error *e)
{
    const char *path = o->path ? o->path : "image";
    if (!o->readonly)
        return error_set(e, ERR_FORMAT,
                         "%s: a vmdk image can only be read: say 'readonly: true', or make a qcow2 "
                         "image whose backing file it is",
                         path);
    struct vmdk *v = calloc(1, sizeof *v);
    if (!v)
        return error_set(e, ERR_NOMEM, "%s: out of memory", path);
    v->node = (struct node){.ops = &vmdk_ops, .readonly = true, .fd = -1};
    v->node.alignment = file->alignment;
    v->file = file;
    pthread_mutex_init(&v->cache, NULL);
    v->path = strdup(path);
    struct error why = {0};
    int rc = v->path ? open_parts(v, o, &why) : error_set(&why, ERR_NOMEM, "out of memory");
    if (rc) {
        destroy(v);
        return error_set(e, rc, "%s: %s", path, why.msg);
    }
    *out = &v->node;
    return 0;
}

static bool vmdk_probe(const uint8_t head[FORMAT_PROBE], uint64_t file_size)
{
    return load_le32(head) == VMDK_MAGIC ||
           strncasecmp((const char *)head, DESCRIPTOR_BEGIN, strlen(DESCRIPTOR_BEGIN)) == 0;
}

static struct json_t *vmdk_info(struct node *n)
{
    struct vmdk *v = vmdk_of(n);
    char cid[16], parent[16];
    snprintf(cid, sizeof cid, "%08x", v->desc.cid);
    snprintf(parent, sizeof parent, "%08x", v->desc.parent_cid);
    json_t *type = json_string(v->desc.type); /* NULL if it is no UTF-8 */
    json_t *o = json_pack("{s:o, s:i, s:s}", "create-type", type ? type : json_null(), "extents",
                          (int)v->nextent, "cid", cid);
    if (o && v->desc.parent_cid != VMDK_NO_CID) {
        json_t *name = v->desc.parent ? json_string(v->desc.parent) : NULL;
        json_object_set_new(o, "backing-file", name ? name : json_null());
        json_object_set_new(o, "parent-cid", json_string(parent));
    }
    return o;
}

const struct format format_vmdk = {
    .name = "vmdk",
    .help = "VMware's format, for reading only",
    .suffixes = "vmdk",
    .probe = vmdk_probe,
    .open = vmdk_open,
    .info = vmdk_info,
};
