/*
 * url.h - telling names of remote disks from paths.
 */
#ifndef SOSIA_BASE_URL_H
#define SOSIA_BASE_URL_H

#include <stdbool.h>
#include <string.h>

static inline bool url_is_nbd(const char *name)
{
    return strncmp(name, "nbd://", 6) == 0 || strncmp(name, "nbds://", 7) == 0 ||
           strncmp(name, "nbd+unix://", 11) == 0 || strncmp(name, "nbds+unix://", 12) == 0;
}

static inline bool url_is_iscsi(const char *name)
{
    return strncmp(name, "iscsi://", 8) == 0;
}

static inline bool url_is_remote(const char *name)
{
    return url_is_nbd(name) || url_is_iscsi(name);
}

#endif
