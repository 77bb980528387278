/*
 * disk_gate.c - keeps requests that overlap apart. See the invariants in disk_core.h.
 */
#include "block/disk_core.h"

static bool overlap(const struct blk_note *a, const struct blk_note *b)
{
    return a->from < b->to && b->from < a->to;
}

/* One that this request has to wait for. Of those that wait themselves only older ones count. */
static struct blk_req *find_blocker(const struct disk *d, const struct blk_req *req)
{
    const struct blk_note *me = &req->note;
    if (me->reads && d->nwriting == 0)
        return NULL;
    for (struct blk_req *r = d->active; r; r = r->note.next) {
        const struct blk_note *it = &r->note;
        if (r != req && !(me->reads && it->reads) && overlap(me, it) &&
            (it->started || it->seq < me->seq))
            return r;
    }
    return NULL;
}

static bool must_wait(const struct disk *d, struct blk_req *req)
{
    struct blk_req *on = find_blocker(d, req);
    if (!on)
        return false;
    struct req_list waiters = {on->note.waiters, on->note.last_waiter};
    req_push(&waiters, req);
    on->note.waiters = waiters.head;
    on->note.last_waiter = waiters.tail;
    return true;
}

static void expand(const struct disk *d, struct blk_note *note)
{
    note->from &= ~(d->granule - 1);
    if (note->to < UINT64_MAX - d->granule)
        note->to = (note->to + d->granule - 1) & ~(d->granule - 1);
    note->expanded = true;
}

static void try_start(struct disk *d, struct blk_req *req)
{
    if (must_wait(d, req))
        return;
    enum disk_way way = disk_fast(d, req);
    if (way == DISK_SLOW && !req->note.reads && !req->note.expanded && d->granule > 1) {
        expand(d, &req->note);
        if (must_wait(d, req))
            return;
    }
    if (way != DISK_SENT)
        disk_slow(d, req);
    req->note.started = true;
}

static void describe(struct disk *d, struct blk_req *req)
{
    struct blk_note *note = &req->note;
    note->reads = req->op == BLK_READ;
    note->from = req->offset;
    note->to = req->offset + req->len;
    note->seq = d->seq;
}

bool disk_gate_open(struct disk *d, struct blk_req *req)
{
    describe(d, req);
    return !find_blocker(d, req);
}

void disk_gate_enter(struct disk *d, struct blk_req *req)
{
    struct blk_note *note = &req->note;
    describe(d, req);
    d->seq++;
    note->next = d->active;
    if (d->active)
        d->active->note.prev = req;
    d->active = req;
    d->nwriting += !note->reads;
    try_start(d, req);
}

void disk_gate_leave(struct disk *d, struct blk_req *req)
{
    struct blk_note *note = &req->note;
    if (note->prev)
        note->prev->note.next = note->next;
    else
        d->active = note->next;
    if (note->next)
        note->next->note.prev = note->prev;
    d->nwriting -= !note->reads;
    struct req_list waiters = {note->waiters, note->last_waiter};
    for (struct blk_req *w; (w = req_pop(&waiters));)
        try_start(d, w);
}
