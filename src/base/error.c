/* error.c - filling struct error; see error.h for the contract. */
#include "base/error.h"

#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

int error_set(struct error *e, int code, const char *fmt, ...)
{
    if (!e)
        return code;
    va_list ap;
    va_start(ap, fmt);
    e->code = code;
    e->where[0] = 0;
    vsnprintf(e->msg, sizeof e->msg, fmt, ap);
    va_end(ap);
    return code;
}

/* What the user can do, where the system's words do not tell. */
static const char *advice(int errnum)
{
    switch (errnum) {
    case ENOSPC:
        return "; make room there, and try again";
    case EDQUOT:
        return "; make room within your quota, and try again";
    case EFBIG:
        return "; `ulimit -f`, or what the file system can hold, is the limit";
    case EROFS:
        return "; mount it writable, or use another folder";
    case EACCES:
        return "; it is another user's, or its mode forbids it";
    default:
        return "";
    }
}

int error_errno(struct error *e, int code, int errnum, const char *fmt, ...)
{
    if (!e)
        return code;
    va_list ap;
    va_start(ap, fmt);
    e->code = code;
    e->where[0] = 0;
    int n = vsnprintf(e->msg, sizeof e->msg, fmt, ap);
    va_end(ap);
    if (n >= 0 && (size_t)n < sizeof e->msg)
        snprintf(e->msg + n, sizeof e->msg - (size_t)n, ": %s%s", strerror(errnum), advice(errnum));
    return code;
}

int error_file(struct error *e, int errnum, const char *fmt, ...)
{
    bool denied = errnum == EACCES || errnum == EPERM || errnum == EROFS;
    int code = denied ? ERR_PERM : errnum == ENOENT ? ERR_NOTFOUND : ERR_IO;
    char what[512];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(what, sizeof what, fmt, ap);
    va_end(ap);
    return error_errno(e, code, errnum, "%s", what);
}

int error_prefix(struct error *e, const char *fmt, ...)
{
    if (!e)
        return ERR_IO;
    char old[sizeof e->msg];
    memcpy(old, e->msg, sizeof old);
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(e->msg, sizeof e->msg, fmt, ap);
    va_end(ap);
    if (n >= 0 && (size_t)n + 3 < sizeof e->msg) { /* what does not fit is cut off */
        size_t room = sizeof e->msg - (size_t)n - 3, len = strnlen(old, room);
        memcpy(e->msg + n, ": ", 2);
        memcpy(e->msg + n + 2, old, len);
        e->msg[(size_t)n + 2 + len] = 0;
    }
    return e->code;
}
