/*
 * error.h - the one error contract of the code base.
 *
 * A fallible function returns 0 (or a count) on success and a negative ERR_* code on failure,
 * after it has filled the caller's `struct error`. Each layer may add one phrase in front with
 * error_prefix(). Only main() prints errors and exits. Passing a NULL `struct error` is allowed.
 */
#ifndef SOSIA_BASE_ERROR_H
#define SOSIA_BASE_ERROR_H

/* Negative codes returned by fallible functions. */
enum err {
    ERR_USAGE = -1,     /* the command line is wrong */
    ERR_SPEC = -2,      /* the spec file is wrong */
    ERR_IO = -3,        /* a system call on a file, socket or device failed */
    ERR_FORMAT = -4,    /* a file's content is not what it should be */
    ERR_NOMEM = -5,     /* out of memory or address space */
    ERR_HOST = -6,      /* this host lacks what is needed */
    ERR_LIMIT = -7,     /* a documented limit is exceeded */
    ERR_BUSY = -8,      /* the resource is in use or overlaps another */
    ERR_STATE = -9,     /* not possible in the present state */
    ERR_NOTFOUND = -10, /* there is no such VM, disk ... */
    ERR_PERM = -11,     /* the user may not do that */
    ERR_TIMEOUT = -12,  /* it took longer than the caller wanted to wait */
    ERR_DAMAGED = -13,  /* what was stored is missing or not what it was */
    ERR_GUEST = -14,    /* the guest ended badly, or was ended */
};

struct error {
    int code;        /* 0 or one of enum err */
    char where[256]; /* "file:line:column", a path, or "" */
    char msg[768];   /* what is wrong, why, and what to do; no trailing newline */
};

/* Fills *e (if not NULL) and returns `code`. */
int error_set(struct error *e, int code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* A failed system call on a file: ERR_PERM where the user may not, ERR_NOTFOUND where there is
 * none, else ERR_IO. As error_errno otherwise. */
int error_file(struct error *e, int errnum, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* As error_set, and appends ": " and strerror(errnum). */
int error_errno(struct error *e, int code, int errnum, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

/* Puts a phrase and ": " in front of the message; returns e->code (or ERR_IO if e is NULL). */
int error_prefix(struct error *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
