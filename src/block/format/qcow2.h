/*
 * qcow2.h - the image format qcow2 (QEMU's specification docs/interop/qcow2), versions 2 and 3.
 */
#ifndef SOSIA_BLOCK_FORMAT_QCOW2_H
#define SOSIA_BLOCK_FORMAT_QCOW2_H

#include "block/format.h"

/* Positions in format_qcow2.options, which create() reads its values by. */
enum qcow2_option {
    QCOW2_OPT_CLUSTER_SIZE,
    QCOW2_OPT_VERSION,
    QCOW2_OPT_REFCOUNT_BITS,
    QCOW2_OPT_LAZY_REFCOUNTS,
    QCOW2_OPT_EXTENDED_L2,
    QCOW2_OPT_COMPRESSION,
    QCOW2_OPT_DATA_FILE, /* its name; the file itself is the caller's to make, before open() */
    QCOW2_OPT_DATA_FILE_RAW,
    QCOW2_OPT_PREALLOCATION,
    QCOW2_OPTIONS
};

/* What an internal snapshot is; texts are the image's and not to be trusted. */
struct qcow2_snapshot {
    uint64_t l1_offset;
    uint32_t l1_size; /* entries */
    char *id, *name;
    uint32_t date_sec, date_nsec;
    uint64_t vm_clock;      /* ns */
    uint64_t vm_state_size; /* bytes */
    uint64_t disk_size;     /* bytes */
    bool has_disk_size;     /* stored; else the image's own is meant */
};

/* The snapshots of an open image; they live as long as the node. */
const struct qcow2_snapshot *qcow2_snapshots(struct node *n, unsigned *count);

/* Bytes of memory for L2 tables of images opened from now on; at least 64 KiB are used. */
void qcow2_set_cache_size(uint64_t bytes);

#endif
