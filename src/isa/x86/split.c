/*
 * split.c - read-modify-write accesses that are not one access of the host: those that cross a
 * page, and those outside RAM.
 *
 * SDM volume 3, 8.1.2.2: the integrity of a bus lock is not affected by the alignment. One such
 * access at a time is carried out in the whole process, so LOCKed ones are atomic against each
 * other. Against an access to only one of the two pages they are not; programs do not lock the same
 * bytes in both ways.
 *
 * Between begin and end the access may fault: another vCPU may change the page tables. Raising ends
 * it. Lock order: this one before the device lock.
 */
#include <pthread.h>

#include "isa/x86/access.h"

static pthread_mutex_t one_at_a_time = PTHREAD_MUTEX_INITIALIZER;

void x86_split_begin(struct x86_cpu *c)
{
    pthread_mutex_lock(&one_at_a_time);
    c->in_split = true;
}

void x86_split_end(struct x86_cpu *c)
{
    c->in_split = false;
    pthread_mutex_unlock(&one_at_a_time);
}
