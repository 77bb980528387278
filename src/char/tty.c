/* tty.c - see tty.h. What a handler uses is set before it is installed and async-signal-safe. */
#include "char/tty.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <termios.h>

#include "base/log.h"
#include "base/types.h"

static const int fatal[] = {SIGHUP, SIGINT,  SIGQUIT, SIGTERM, SIGABRT,
                            SIGBUS, SIGSEGV, SIGILL,  SIGFPE,  SIGXCPU};
static struct termios saved;
static int saved_fd;
static atomic_bool raw;

static void set_saved(void)
{
    if (atomic_exchange(&raw, false))
        tcsetattr(saved_fd, TCSANOW, &saved);
}

static void on_fatal(int sig)
{
    int err = errno;
    set_saved();
    signal(sig, SIG_DFL);
    raise(sig); /* delivered when this handler returns */
    errno = err;
}

/* Takes the signals that would kill us, and gives back those that are still ours. */
static void take_signals(void)
{
    for (size_t i = 0; i < ARRAY_LEN(fatal); i++) {
        struct sigaction old, act = {.sa_handler = on_fatal};
        sigemptyset(&act.sa_mask);
        if (sigaction(fatal[i], NULL, &old) == 0 && old.sa_handler == SIG_DFL)
            sigaction(fatal[i], &act, NULL);
    }
}

static void give_back_signals(void)
{
    for (size_t i = 0; i < ARRAY_LEN(fatal); i++) {
        struct sigaction cur;
        if (sigaction(fatal[i], NULL, &cur) == 0 && cur.sa_handler == on_fatal)
            signal(fatal[i], SIG_DFL);
    }
}

int char_tty_raw(int fd, struct error *e)
{
    static bool at_exit;
    struct termios t;

    if (atomic_load(&raw))
        return error_set(e, ERR_BUSY, "the terminal is in use already");
    if (tcgetattr(fd, &saved) < 0)
        return error_errno(e, ERR_IO, errno, "cannot read the terminal's settings");
    saved_fd = fd;
    t = saved;
    cfmakeraw(&t);
    take_signals();
    if (!at_exit && atexit(char_tty_restore) == 0)
        at_exit = true;
    atomic_store(&raw, true);
    if (tcsetattr(fd, TCSANOW, &t) < 0) {
        int err = errno;
        char_tty_restore();
        return error_errno(e, ERR_IO, err, "cannot set the terminal to raw mode");
    }
    log_set_raw(true);
    return 0;
}

void char_tty_restore(void)
{
    if (!atomic_load(&raw))
        return;
    set_saved();
    give_back_signals();
    log_set_raw(false);
}
