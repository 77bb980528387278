/*
 * import.h - a VM from another program's description of one: what it says in Sosia's terms, and
 * what of it was left behind and why.
 *
 * A parser is a function of its text alone: it opens no file. The text is hostile: a spec that
 * comes out has only values that the spec's own parser takes, and notes have only characters that a
 * terminal may see. Whoever takes the result looks at the disks (`plan`) before a guest does.
 */
#ifndef SOSIA_CATALOG_IMPORT_H
#define SOSIA_CATALOG_IMPORT_H

#include "base/error.h"
#include "base/types.h"
#include "spec/spec.h"

#define IMPORT_MAX_TEXT  (1u * 1024 * 1024) /* bytes of a description */
#define IMPORT_MAX_NOTES 200                /* of each kind; more are counted */

struct import_note {
    char from[80];  /* what the description says: a key, an option */
    char text[320]; /* what became of it, or why nothing did */
};

struct import_notes {
    struct import_note *note; /* allocated */
    unsigned n, more;         /* `more`: how many there was no room for */
};

struct import {
    char *title;                  /* what the description calls the VM, any text; or NULL */
    struct spec spec;             /* paths as they are written; memory and cpus 0: not said */
    bool overlay[SPEC_MAX_DISKS]; /* what the guest writes must not reach the image */
    struct import_notes took, dropped;
    bool remote; /* names of disks may be URLs: the user wrote them here and now */
    bool nomem;  /* a note or a text is missing for want of memory */
};

/* A number of digits alone; NULL: it is none. */
bool import_number(const char *text, uint64_t *n);

/* Parsers. `text` is NUL-terminated behind `len` bytes. The caller calls import_fini() in any case.
 * ERR_FORMAT: it is no such description; ERR_LIMIT: larger than IMPORT_MAX_TEXT; ERR_NOMEM. */
int import_vmx(struct import *m, const char *text, size_t len, struct error *e);
int import_qemu(struct import *m, const char *text, size_t len, struct error *e);
int import_vbox(struct import *m, const char *text, size_t len, struct error *e);
void import_fini(struct import *m);

/* The text of a spec file. `name`: of the VM, for a comment. ERR_NOMEM. */
int import_spec_text(const struct import *m, const char *name, char **out, struct error *e);
/* The title as a name that a VM can have; "" if nothing of it is left. */
#define IMPORT_NAME 64
void import_name(const char *title, char out[IMPORT_NAME]);

/* ---- for the parsers ---- */

void import_took(struct import *m, const char *from, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
void import_drop(struct import *m, const char *from, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* The same once for all keys that begin alike. */
void import_drop_once(struct import *m, const char *from, const char *why);

/* 0, or ERR_LIMIT or ERR_FORMAT (a NUL in it). */
int import_check_text(const char *text, size_t len, struct error *e);
/* Puts a text into a field of the spec that has room for `max` bytes, or drops it. */
bool import_text(struct import *m, const char *from, const char *key, const char *value, size_t max,
                 char **field);
/* A path likewise. `what` is the key of the spec. */
bool import_path(struct import *m, const char *from, const char *what, const char *value,
                 char **field);
/* The guest writes to a floppy as it is, so a description from elsewhere may not say which file. */
void import_drop_floppy(struct import *m, const char *from, const char *file);
void import_memory(struct import *m, const char *from, uint64_t bytes);
void import_cpus(struct import *m, const char *from, uint64_t n);

struct import_disk {
    const char *file;
    enum spec_bus bus;
    bool cdrom, readonly, overlay;
    const char *format; /* one of spec_format_words */
};
/* A disk or a CD-ROM, on another bus if there is no room on this one. */
void import_disk(struct import *m, const char *from, const struct import_disk *d);

#endif
