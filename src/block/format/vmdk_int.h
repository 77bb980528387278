/*
 * vmdk_int.h - what the files of the format vmdk share (VMware's "Virtual Disk Format 5.0").
 *
 * A disk is a list of extents that follow each other. A flat extent is bytes of a file; a sparse
 * one a file with a directory of grain tables, whose entries say where each grain (64 KiB as a
 * rule) lies. A text, the descriptor, names them: it is a file of its own, or is embedded in the
 * only extent's file. Everything is little-endian and counted in sectors of 512 bytes.
 *
 * Nothing is ever written, so all but the caches at the end of `struct vmdk` is constant once the
 * image is open and read without a lock.
 */
#ifndef SOSIA_BLOCK_FORMAT_VMDK_INT_H
#define SOSIA_BLOCK_FORMAT_VMDK_INT_H

#include <pthread.h>

#include "block/format.h"

#define VMDK_SECTOR         512u
#define VMDK_MAGIC          0x564d444bu /* "KDMV" in the file */
#define VMDK_NO_CID         0xffffffffu /* parentCID of an image that has no parent */
#define VMDK_MAX_DESCRIPTOR (64 * KIB)
#define VMDK_MAX_EXTENTS    256u /* each keeps a file open */
#define VMDK_MAX_TABLE      512u /* entries of a grain table */
#define VMDK_MAX_GRAIN      (2 * MIB)
#define VMDK_MAX_DIRECTORY  (16 * MIB) /* bytes, of all extents together */
#define VMDK_MAX_SIZE       ((uint64_t)INT64_MAX & -(uint64_t)VMDK_MAX_GRAIN)
#define VMDK_CACHED_TABLES  128u /* 4 GiB of a disk with grains of 64 KiB; 256 KiB of memory */

enum vmdk_kind { VMDK_FLAT, VMDK_SPARSE, VMDK_ZERO };

/* A line of the descriptor; texts are the image's and not to be trusted. */
struct vmdk_line {
    enum vmdk_kind kind;
    uint64_t sectors, offset; /* offset: where a flat extent begins in its file */
    char *name;               /* NULL: ZERO needs none */
};

struct vmdk_desc {
    char type[32]; /* createType */
    uint32_t cid, parent_cid;
    char *parent; /* parentFileNameHint; NULL: none */
    struct vmdk_line *line;
    unsigned nline;
};

/* Reads the text, `len` bytes that need not end with a NUL. ERR_FORMAT, ERR_LIMIT, ERR_NOMEM;
 * whatever it returns, vmdk_desc_free() frees the rest. */
int vmdk_desc_parse(const char *text, size_t len, struct vmdk_desc *d, struct error *e);
void vmdk_desc_free(struct vmdk_desc *d);

struct vmdk_extent {
    enum vmdk_kind kind;
    struct node *file;
    uint64_t start, len; /* in the disk, bytes */
    uint64_t offset;     /* FLAT: in the file, bytes */
    /* SPARSE */
    uint64_t grain;      /* bytes, a power of two */
    uint32_t table;      /* entries of a grain table, a power of two */
    uint32_t *directory; /* sectors of the grain tables, in the host's byte order */
    uint32_t ndirectory;
    bool zeroed, compressed, markers;
};

struct vmdk_slot {
    unsigned extent;
    uint32_t number;
    bool valid;
    uint32_t entry[VMDK_MAX_TABLE];
};

struct vmdk {
    struct node node;
    char *path;
    struct node *file; /* the image's own; that of an extent, too, if the descriptor is embedded */
    struct vmdk_desc desc;
    struct vmdk_extent *extent;
    unsigned nextent;
    uint64_t directories; /* bytes of them so far */

    pthread_mutex_t cache; /* of what follows */
    struct vmdk_slot *slot;
    uint8_t *unpacked; /* the grain that was decompressed last, or NULL */
    const struct vmdk_extent *unpacked_from;
    uint64_t unpacked_at; /* where it begins in the extent */
};

/* A stretch of the disk that lies in one extent and is of one kind. */
struct vmdk_run {
    enum node_kind kind;
    bool packed;
    uint64_t where; /* DATA: in the extent's file; of the grain's beginning if it is packed */
    uint64_t len;
};

/* Fills in a SPARSE extent from its file's header. *desc, *desc_len: where the header says that the
 * descriptor is, in bytes; 0: nowhere. ERR_FORMAT, ERR_LIMIT, ERR_IO, ERR_NOMEM. */
int vmdk_sparse_open(struct vmdk *v, struct vmdk_extent *x, uint64_t *desc, uint64_t *desc_len,
                     struct error *e);
/* What is at `offset` of a SPARSE extent, for at most `len` bytes, which lie in it. -EIO, -ENOMEM;
 * with `cached` -EAGAIN instead of reading from the file. */
int vmdk_sparse_find(struct vmdk *v, const struct vmdk_extent *x, uint64_t offset, uint64_t len,
                     bool cached, struct vmdk_run *out);
/* Decompresses the grain at `offset` of the extent, which is packed at `where`, and copies `len`
 * bytes from its `skip`th on. */
int vmdk_unpack(struct vmdk *v, const struct vmdk_extent *x, uint64_t offset, uint64_t where,
                void *to, uint64_t len);

#endif
