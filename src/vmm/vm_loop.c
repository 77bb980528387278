/*
 * vm_loop.c - the event loop: the timer queue on a timerfd, requests, signals.
 */
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "base/log.h"
#include "vmm/vm.h"

/* Any thread, device lock held: the earliest deadline moved. */
static void set_timer(struct vm *vm, ns_t deadline)
{
    bool armed = deadline != INT64_MAX && !vm->paused;
    ns_t left = armed ? deadline - vclock_now(&vm->clock) : 0;
    if (armed && left < 1)
        left = 1; /* 0 would disarm */
    struct itimerspec t = {.it_value = {left / NS_PER_SEC, left % NS_PER_SEC}};
    if (timerfd_settime(vm->timer_fd, 0, &t, NULL) < 0)
        log_error("cannot set the timer: %s", strerror(errno));
}

static void timer_kick(void *arg)
{
    struct vm *vm = arg;
    set_timer(vm, timerq_next(&vm->timers));
}

static void on_timer(uv_poll_t *p, int status, int events)
{
    (void)status;
    (void)events;
    struct vm *vm = p->data;
    uint64_t expirations;
    if (read(vm->timer_fd, &expirations, sizeof expirations) < 0)
        return; /* re-armed meanwhile by another thread */
    vm_lock_devices(vm);
    set_timer(vm, timerq_run(&vm->timers));
    vm_unlock_devices(vm);
}

void vm_pause(struct vm *vm, bool pause)
{
    vm->pause_wanted = pause;
    vm_request(vm, VM_REQ_WORK, pause ? "pause" : "resume");
}

void vm_loop_pause(struct vm *vm)
{
    if (vm->paused == vm->pause_wanted)
        return;
    pthread_mutex_lock(&vm->lock);
    vm->paused = vm->pause_wanted;
    if (vm->paused)
        vclock_pause(&vm->clock);
    else
        vclock_resume(&vm->clock);
    vm->clock_stands = false; /* of a state that was saved during the pause */
    timer_kick(vm);
    pthread_mutex_unlock(&vm->lock);
    control_event(vm->control, vm->paused ? "STOP" : "RESUME", NULL);
    if (vm->service && vm->service->changed)
        vm->service->changed(vm->service->arg, vm->paused ? VMM_PAUSED : VMM_RESUMED);
}

static void on_signal(uv_signal_t *s, int signum)
{
    vm_request(s->data, VM_REQ_SIGNAL, strsignal(signum));
}

static int loop_error(struct error *e, int rc)
{
    return error_set(e, ERR_HOST, "cannot set up the event loop: %s", uv_strerror(rc));
}

int vm_loop_init(struct vm *vm, struct error *e)
{
    static const int signals[] = {SIGTERM, SIGHUP, SIGINT};
    vm->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    if (vm->timer_fd < 0)
        return error_errno(e, ERR_HOST, errno, "cannot create a timer");
    int rc = uv_poll_init(&vm->loop, &vm->timer_poll, vm->timer_fd);
    if (!rc) {
        vm->timer_poll.data = vm;
        rc = uv_poll_start(&vm->timer_poll, UV_READABLE, on_timer);
    }
    if (!rc)
        rc = uv_timer_init(&vm->loop, &vm->catch_up);
    vm->catch_up.data = vm;
    if (!rc)
        rc = vm_snap_init(vm);
    for (unsigned n = 0; !rc && n < ARRAY_LEN(signals); n++) {
        rc = uv_signal_init(&vm->loop, &vm->signal[n]);
        if (rc)
            break;
        vm->signal[n].data = vm;
        vm->nsignal = n + 1;
        rc = uv_signal_start(&vm->signal[n], on_signal, signals[n]);
    }
    if (rc)
        return loop_error(e, rc);
    pthread_mutex_lock(&vm->lock);
    vm->timers.kick = timer_kick;
    vm->timers.kick_arg = vm;
    timer_kick(vm);
    pthread_mutex_unlock(&vm->lock);
    return 0;
}

static void close_any(uv_handle_t *h, void *arg)
{
    (void)arg;
    if (!uv_is_closing(h))
        uv_close(h, NULL);
}

void vm_loop_fini(struct vm *vm)
{
    uv_walk(&vm->loop, close_any, NULL);
    uv_run(&vm->loop, UV_RUN_DEFAULT);
    int rc = uv_loop_close(&vm->loop);
    if (rc)
        log_error("event loop: %s", uv_strerror(rc));
    if (vm->timer_fd >= 0)
        close(vm->timer_fd);
    vm->timer_fd = -1;
}
