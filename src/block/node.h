/*
 * node.h - what a disk is made of.
 *
 * A node is a run of bytes with operations that may block: a file, a remote disk, an image format
 * over other nodes, or a layer that changes how one behaves. Nodes form a tree; a node owns those
 * below it and closes them. The VM's disk is the topmost node with disk.c in front, which makes it
 * asynchronous (block.h); the tool `sosia disk` and the tests use nodes directly.
 *
 * Rules:
 *  1. Operations other than open and close may be called from any number of threads at once; a node
 *     locks what is its own. What overlapping operations do is the caller's affair: disk.c never
 *     lets a write, zero or discard overlap anything else that is in flight.
 *  2. Offsets and lengths lie within `size`; the public functions below see to it. A node that
 *     `grows` (a file) reads as zeroes beyond its end, and a write or zero there extends it.
 *  3. Results are 0 or -errno. A transfer is done completely or fails; a failed write leaves each
 *     of its bytes old or new.
 *  4. Flush: what was written before (acknowledged, by any thread) is durable when it returns 0. A
 *     node whose flush failed once fails every later one (fsync may report a loss only once).
 *  5. Everything that a format reads from a file is hostile: checked, bounded in memory and in
 *     time.
 *  6. A node that cannot answer at once in `resolve` says false; between a `resolve` and the end of
 *     the I/O at its place disk.c lets no write, zero or discard into the same granule.
 */
#ifndef SOSIA_BLOCK_NODE_H
#define SOSIA_BLOCK_NODE_H

#include <stdbool.h>
#include <sys/uio.h>

#include "base/error.h"
#include "base/types.h"

struct node;
struct blk_req;

enum node_kind {
    NODE_HOLE, /* not allocated here: the backing node shows, or zeroes where there is none */
    NODE_ZERO, /* known to read as zeroes */
    NODE_DATA,
};

struct node_extent {
    enum node_kind kind;
    uint64_t len;       /* bytes from the offset asked for, at least 1 */
    bool compressed;    /* DATA that lies in no place of its own */
    bool placed;        /* DATA: `below` and `where` are valid */
    struct node *below; /* the node that holds it */
    uint64_t where;     /* offset there */
    unsigned depth;     /* 0: this node; n: its nth backing node */
};

/* Where to do I/O without the help of the nodes above; see resolve. */
struct node_place {
    struct node *node; /* the node itself, or one below; NULL: the bytes read as zeroes */
    uint64_t offset;
    uint64_t len; /* bytes from the offset asked for, at least 1 */
};

#define NODE_FUA       (1u << 0) /* durable when it returns */
#define NODE_MAY_UNMAP (1u << 1) /* zero: giving space back is welcome */

struct node_ops {
    const char *name; /* as `sosia disk info` shows it: "qcow2", "file", "throttle" */
    int (*read)(struct node *n, const struct iovec *iov, int niov, uint64_t offset);
    int (*write)(struct node *n, const struct iovec *iov, int niov, uint64_t offset,
                 unsigned flags);
    int (*flush)(struct node *n);
    int (*zero)(struct node *n, uint64_t offset, uint64_t len, unsigned flags);
    /* The bytes become whatever the node likes best; those of a thin image read as zeroes (never
     * as the backing node's: they would come to life again). */
    int (*discard)(struct node *n, uint64_t offset, uint64_t len);
    /* What is at `offset`, for at most `len` bytes, of this node alone. NULL: all DATA. */
    int (*map)(struct node *n, uint64_t offset, uint64_t len, struct node_extent *out);
    /* Changes `size`. New bytes read as zeroes. NULL: it cannot. */
    int (*resize)(struct node *n, uint64_t size, struct error *e);
    /* Never blocks on I/O: where bytes that are already in their place are to be read or written,
     * for as much of `len` as lies together: in this node, which has `submit` or an `fd`, or in
     * one below. False: only read() or write() can do it. NULL: never. What may be
     * written in its place write() leaves there, too, until a zero or discard touches its granule.
     */
    bool (*resolve)(struct node *n, uint64_t offset, uint64_t len, bool write,
                    struct node_place *out);
    /* Asynchronous READ and WRITE for nodes that resolve to themselves and have no `fd`: done() is
     * called on a thread of the node's, later, with no lock held. Never blocks. -EAGAIN: it is to
     * be done by read() or write(). NULL: it has none. */
    void (*submit)(struct node *n, struct blk_req *req);
    /* Of a layer over one node: node_push() on that one. NULL: it is none. */
    void (*push)(struct node *n, struct node *overlay);
    /* Of an image that nobody will write to any more: as `close` leaves it, durable, and others may
     * read it. NULL: a flush does that. */
    int (*freeze)(struct node *n);
    /* Somebody waits for all that is in flight (true, then false): delays made on purpose end.
     * NULL: it makes none. */
    void (*hurry)(struct node *n, bool on);
    void (*close)(struct node *n); /* flushes if it was written; frees it and those below */
};

struct node {
    const struct node_ops *ops;
    uint64_t size; /* bytes; read by any thread, written by resize under its lock */
    bool readonly;
    bool grows;           /* rule 2 */
    uint32_t alignment;   /* of offsets and lengths that are not copied around; 0, 1: none */
    uint32_t granularity; /* allocated as one (a cluster), a power of two; 0, 1: bytes */
    bool writes_block;    /* what is written to `fd` makes the writer wait, even without a disk */
    bool write_tried;     /* `writes_block` is known */
    int fd;               /* of one that resolves to itself and has no `submit`: for preadv() ... */
    struct node *backing; /* shown in HOLEs; or NULL. Not necessarily owned: a layer shows that of
                           * the node below */
};

static inline uint64_t node_size(const struct node *n)
{
    return __atomic_load_n(&n->size, __ATOMIC_RELAXED);
}

/* The same with checks of range and rights: -EINVAL, -EROFS. A NULL zero is done by writing
 * zeroes, a NULL discard not at all. */
int node_read(struct node *n, void *buf, size_t len, uint64_t offset);
int node_readv(struct node *n, const struct iovec *iov, int niov, uint64_t offset);
int node_write(struct node *n, const void *buf, size_t len, uint64_t offset, unsigned flags);
int node_writev(struct node *n, const struct iovec *iov, int niov, uint64_t offset, unsigned flags);
int node_zero(struct node *n, uint64_t offset, uint64_t len, unsigned flags);
int node_discard(struct node *n, uint64_t offset, uint64_t len);
int node_flush(struct node *n);
/* What is at `offset` through all backing nodes: HOLE means that it reads as zeroes and takes no
 * space anywhere. */
int node_map(struct node *n, uint64_t offset, uint64_t len, struct node_extent *out);
int node_resize(struct node *n, uint64_t size, struct error *e);
/* Follows `resolve` down to a node that resolves to itself, or to zeroes. */
bool node_resolve(struct node *n, uint64_t offset, uint64_t len, bool write,
                  struct node_place *out);
/* Puts `overlay`, which has no backing node, in the place of the image in the tree whose top *top
 * is; the image becomes its backing node, and nobody writes to it any more. Nothing is in flight.
 */
void node_push(struct node **top, struct node *overlay);
int node_freeze(struct node *n);
void node_hurry(struct node *n, bool on);
/* NULL is allowed. Errors of the last flush are logged. */
void node_close(struct node *n);

#endif
