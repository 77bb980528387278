/* thread.c - starting threads. */
#define _GNU_SOURCE
#include "base/thread.h"

#include <signal.h>

int thread_start(pthread_t *out, const struct thread_options *o, void *(*run)(void *), void *arg)
{
    sigset_t mask, old;
    pthread_attr_t attr;
    int err = pthread_attr_init(&attr);
    if (err)
        return err;
    pthread_attr_setstacksize(&attr, o->stack);
    sigfillset(&mask);
    if (o->takes_faults) {
        sigdelset(&mask, SIGFPE);
        sigdelset(&mask, SIGSEGV);
        sigdelset(&mask, SIGBUS);
        sigdelset(&mask, SIGILL);
    }
    pthread_sigmask(SIG_SETMASK, &mask, &old); /* inherited: there is no moment without it */
    err = pthread_create(out, &attr, run, arg);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    pthread_attr_destroy(&attr);
    if (!err)
        pthread_setname_np(*out, o->name);
    return err;
}
