/*
 * log.h - diagnostics on standard error. Standard output belongs to the guest.
 *
 * log_info() is shown with -v, log_debug() with -vv. log_guest() is for what a guest does wrong:
 * one call site is printed once per process and counted after that, so a hostile guest cannot flood
 * the host's log.
 */
#ifndef SOSIA_BASE_LOG_H
#define SOSIA_BASE_LOG_H

#include <stdatomic.h>
#include <stdbool.h>

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };

/* Highest level that is printed; LOG_WARN unless told. Set it before threads start. */
void log_set_level(enum log_level level);

/* Lines end with CR LF while the terminal is in raw mode. */
void log_set_raw(bool raw);

void log_print(enum log_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#define log_error(...) log_print(LOG_ERROR, __VA_ARGS__)
#define log_warn(...)  log_print(LOG_WARN, __VA_ARGS__)
#define log_info(...)  log_print(LOG_INFO, __VA_ARGS__)
#define log_debug(...) log_print(LOG_DEBUG, __VA_ARGS__)

#define log_guest(...)                                                            \
    do {                                                                          \
        static _Atomic unsigned log_count_;                                       \
        if (atomic_fetch_add_explicit(&log_count_, 1, memory_order_relaxed) == 0) \
            log_print(LOG_INFO, "guest: " __VA_ARGS__);                           \
    } while (0)

#endif
