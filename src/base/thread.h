/*
 * thread.h - threads as this program starts them: with a name, a small stack, and signals left to
 * the threads that expect them.
 */
#ifndef SOSIA_BASE_THREAD_H
#define SOSIA_BASE_THREAD_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>

struct thread_options {
    const char *name; /* up to 15 bytes, as ps(1) shows it */
    size_t stack;     /* bytes */
    /* The signals of an instruction's own fault (SIGSEGV, SIGBUS, SIGFPE, SIGILL) stay open: for
     * threads whose handlers make them a guest's. All others are blocked. */
    bool takes_faults;
};

/* 0 or an errno. */
int thread_start(pthread_t *out, const struct thread_options *o, void *(*run)(void *), void *arg);

#endif
