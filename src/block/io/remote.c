/* remote.c - the thread of a remote disk, and its queue. */
#include "block/io/remote.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/thread.h"

#define THREAD_STACK (512 * KIB) /* TLS takes some of it */

void remote_release(struct remote *r, struct remote_op *op)
{
    if (--op->commands > 0)
        return;
    op->next = r->ready;
    r->ready = op;
}

void remote_woken(struct remote *r)
{
    uint64_t count;
    (void)!read(r->wake, &count, sizeof count);
}

static void start(struct remote *r, struct remote_op *op)
{
    op->commands = 1;
    r->protocol->start(r, op);
    remote_release(r, op);
}

/* Takes what is in the queues. Returns false when the node is being closed. */
static bool take_work(struct remote *r)
{
    pthread_mutex_lock(&r->lock);
    struct remote_op *op = r->first;
    struct blk_req *req = r->head;
    bool closing = r->closing;
    r->first = r->last = NULL;
    r->head = r->tail = NULL;
    pthread_mutex_unlock(&r->lock);
    for (struct remote_op *next; op; op = next) {
        next = op->next;
        start(r, op);
    }
    for (struct blk_req *next; req; req = next) {
        next = req->next;
        struct remote_op *own = r->protocol->make(r, req);
        if (own)
            start(r, own);
        else
            req->done(req, -EAGAIN);
    }
    return !closing;
}

/* False: there was nothing to tell. */
static bool tell_ready(struct remote *r)
{
    if (!r->ready)
        return false;
    while (r->ready) {
        struct remote_op *op = r->ready;
        r->ready = op->next;
        if (op->req) {
            op->req->done(op->req, op->result);
            free(op);
            continue;
        }
        pthread_mutex_lock(&r->lock);
        op->finished = true;
        pthread_cond_broadcast(&r->finished);
        pthread_mutex_unlock(&r->lock);
    }
    return true;
}

static void *run(void *arg)
{
    struct remote *r = arg;
    while (take_work(r))
        if (!tell_ready(r)) /* done() may have submitted the next one */
            r->protocol->talk(r);
    tell_ready(r);
    return NULL;
}

static void wake(struct remote *r)
{
    const uint64_t one = 1;
    if (pthread_equal(pthread_self(), r->thread))
        return;                              /* it looks at the queues before it waits */
    (void)!write(r->wake, &one, sizeof one); /* it cannot be full: it is read before the queues */
}

int remote_perform(struct remote *r, struct remote_op *op)
{
    pthread_mutex_lock(&r->lock);
    op->next = NULL;
    if (r->last)
        r->last->next = op;
    else
        r->first = op;
    r->last = op;
    wake(r);
    while (!op->finished)
        pthread_cond_wait(&r->finished, &r->lock);
    pthread_mutex_unlock(&r->lock);
    return op->result;
}

void remote_submit(struct remote *r, struct blk_req *req)
{
    pthread_mutex_lock(&r->lock);
    req->next = NULL;
    if (r->tail)
        r->tail->next = req;
    else
        r->head = req;
    r->tail = req;
    pthread_mutex_unlock(&r->lock);
    wake(r);
}

int remote_start(struct remote *r, const struct remote_protocol *p, struct error *e)
{
    /* SIGPIPE is blocked, too: a write to a lost connection is an error, no more. */
    const struct thread_options thread = {.name = p->name, .stack = THREAD_STACK};
    *r = (struct remote){.protocol = p, .wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};
    if (r->wake < 0)
        return error_errno(e, ERR_HOST, errno, "cannot make an event descriptor");
    pthread_mutex_init(&r->lock, NULL);
    pthread_cond_init(&r->finished, NULL);
    int err = thread_start(&r->thread, &thread, run, r);
    if (!err)
        return 0;
    pthread_cond_destroy(&r->finished);
    pthread_mutex_destroy(&r->lock);
    close(r->wake);
    return error_errno(e, ERR_HOST, err, "cannot start a thread");
}

void remote_stop(struct remote *r)
{
    pthread_mutex_lock(&r->lock);
    r->closing = true;
    pthread_mutex_unlock(&r->lock);
    wake(r);
    pthread_join(r->thread, NULL);
    pthread_cond_destroy(&r->finished);
    pthread_mutex_destroy(&r->lock);
    close(r->wake);
}
