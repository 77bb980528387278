/* log.c - see log.h. One write(2) per line, so lines of several threads do not mix. */
#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

static enum log_level max_level = LOG_WARN;
static _Atomic bool raw_mode;

void log_set_level(enum log_level level)
{
    max_level = level;
}

void log_set_raw(bool raw)
{
    atomic_store(&raw_mode, raw);
}

void log_print(enum log_level level, const char *fmt, ...)
{
    static const char *const prefix[] = {"error: ", "warning: ", "", ""};
    if (level > max_level)
        return;
    char line[1024];
    int n = snprintf(line, sizeof line, "sosia: %s", prefix[level]);
    va_list ap;
    va_start(ap, fmt);
    int m = vsnprintf(line + n, sizeof line - (size_t)n - 2, fmt, ap);
    va_end(ap);
    if (m < 0)
        return;
    n += m;
    if (n > (int)sizeof line - 3)
        n = (int)sizeof line - 3;
    if (atomic_load(&raw_mode))
        line[n++] = '\r';
    line[n++] = '\n';
    if (write(STDERR_FILENO, line, (size_t)n) < 0)
        return; /* nobody is left to tell */
}
