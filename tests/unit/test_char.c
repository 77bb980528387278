/* test_char.c - terminal and file back ends on pipes, files and a pseudo-terminal. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include <cmocka.h>

#include "char/file.h"
#include "char/terminal.h"
#include "char/tty.h"
#include "char/writer.h"

/* A device with a small input FIFO, as a UART has. */
struct device {
    uint8_t got[8192];
    size_t ngot, room;
    unsigned drained;
    struct char_out out;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static uv_loop_t loop;
static size_t quits;

static void assert_locked(void)
{
    assert_int_not_equal(pthread_mutex_trylock(&lock), 0);
}

static size_t dev_room(void *dev)
{
    assert_locked();
    return ((struct device *)dev)->room;
}

static void dev_push(void *dev, const uint8_t *buf, size_t len)
{
    struct device *d = dev;
    assert_locked();
    assert_true(len <= d->room && d->ngot + len <= sizeof d->got);
    memcpy(d->got + d->ngot, buf, len);
    d->ngot += len;
    d->room -= len;
}

static void dev_drained(void *dev)
{
    assert_locked();
    ((struct device *)dev)->drained++;
}

static struct char_in device_in(struct device *d)
{
    return (struct char_in){dev_room, dev_push, dev_drained, d};
}

static void on_quit(void *arg)
{
    assert_int_equal(pthread_mutex_trylock(&lock), 0); /* called without the lock */
    pthread_mutex_unlock(&lock);
    quits++;
}

static int setup(void **state)
{
    quits = 0;
    signal(SIGPIPE, SIG_IGN);
    return uv_loop_init(&loop);
}

static int teardown(void **state)
{
    return uv_loop_close(&loop);
}

static void spin(unsigned times)
{
    while (times--)
        uv_run(&loop, UV_RUN_NOWAIT);
}

/* What passes a pseudo-terminal arrives when the kernel gets round to it: wait, up to seconds. */
static void spin_until(const size_t *value, size_t want)
{
    for (int i = 0; *value < want && i < 10000; i++) {
        spin(1);
        usleep(500);
    }
    assert_int_equal(*value, want);
}

static void type(int pty, const uint8_t *text, size_t len)
{
    for (size_t i = 0, tries = 0; i < len && tries < 10000; tries++) {
        ssize_t n = write(pty, text + i, len - i);
        if (n > 0)
            i += (size_t)n;
        spin(1);
        usleep(100);
    }
}

static struct char_terminal *open_term(int in, int out, struct device *d)
{
    struct char_terminal_hooks hooks = {.quit = on_quit};
    struct char_terminal *t = NULL;
    struct error e = {0};
    assert_int_equal(char_terminal_open_fds(&t, &loop, in, out, &lock, &hooks, &e), 0);
    char_terminal_set_in(t, device_in(d));
    d->out = char_terminal_out(t);
    return t;
}

static void close_term(struct char_terminal *t)
{
    char_terminal_close(t);
    uv_run(&loop, UV_RUN_DEFAULT);
}

static size_t dev_write(struct device *d, const void *buf, size_t len)
{
    pthread_mutex_lock(&lock);
    size_t n = char_write(&d->out, buf, len);
    pthread_mutex_unlock(&lock);
    return n;
}

static void ready(struct char_terminal *t, struct device *d, size_t room)
{
    struct char_ready r = char_terminal_ready(t);
    pthread_mutex_lock(&lock);
    d->room = room;
    r.fn(r.ctx);
    pthread_mutex_unlock(&lock);
    spin(6);
}

static void test_pipe_input_and_escape(void **state)
{
    struct device d = {.room = 100};
    int p[2];
    assert_int_equal(pipe(p), 0);
    int null = open("/dev/null", O_RDWR);
    struct char_terminal *t = open_term(p[0], null, &d);

    assert_int_equal(write(p[1], "ab\001", 3), 3);
    spin(4);
    assert_int_equal(d.ngot, 2); /* the escape waits for its key */
    assert_int_equal(write(p[1], "\001c\001zd", 5), 5);
    spin(4);
    assert_int_equal(d.ngot, 5); /* Ctrl-A twice is one; an unknown key is swallowed */
    assert_memory_equal(d.got, "ab\001cd", 5);
    assert_int_equal(quits, 0);
    assert_int_equal(write(p[1], "\001x", 2), 2);
    spin(4);
    assert_int_equal(quits, 1);
    assert_int_equal(fcntl(p[0], F_GETFL) & O_NONBLOCK, 0);
    close_term(t);
    close(p[0]);
    close(p[1]);
    close(null);
}

static void test_input_waits_for_room(void **state)
{
    struct device d = {.room = 1};
    char big[6000], expect[6000];
    int p[2];
    assert_int_equal(pipe(p), 0);
    int null = open("/dev/null", O_RDWR);
    struct char_terminal *t = open_term(p[0], null, &d);

    for (size_t i = 0; i < sizeof big; i++)
        expect[i] = big[i] = (char)('a' + i % 26);
    assert_int_equal(write(p[1], big, sizeof big), sizeof big);
    close(p[1]);
    spin(6);
    assert_int_equal(d.ngot, 1);
    ready(t, &d, 16);
    assert_int_equal(d.ngot, 17);
    ready(t, &d, sizeof d.got - d.ngot);
    assert_int_equal(d.ngot, sizeof big); /* nothing lost, although the buffer is smaller */
    assert_memory_equal(d.got, expect, sizeof big);
    assert_int_equal(quits, 0); /* the end of input does not stop the VM */
    close_term(t);
    close(p[0]);
    close(null);
}

static void test_regular_file_input(void **state)
{
    struct device d = {.room = sizeof d.got};
    FILE *f = tmpfile();
    for (int i = 0; i < 5000; i++)
        fputc('x', f);
    fflush(f);
    lseek(fileno(f), 0, SEEK_SET);
    int null = open("/dev/null", O_RDWR);
    struct char_terminal *t = open_term(fileno(f), null, &d);
    spin(10);
    assert_int_equal(d.ngot, 5000);
    close_term(t);
    fclose(f);
    close(null);
}

static void test_closed_input(void **state)
{
    struct device d = {.room = 1};
    int null = open("/dev/null", O_RDWR);
    struct char_terminal *t = open_term(-1, null, &d);
    spin(3);
    assert_int_equal(d.ngot, 0);
    close_term(t);
    t = open_term(999, null, &d); /* a descriptor that is not open */
    spin(3);
    close_term(t);
    close(null);
}

/* A reader that does not read: output stops at the buffer's end and goes on when it reads again. */
static void back_pressure(int read_end, int write_end)
{
    struct device d = {0};
    static uint8_t chunk[10000], sink[100000];
    struct char_terminal *t = open_term(-1, write_end, &d);
    size_t sent = 0, received = 0, n;

    do {
        for (size_t i = 0; i < sizeof chunk; i++)
            chunk[i] = (uint8_t)((sent + i) * 7);
        n = dev_write(&d, chunk, sizeof chunk);
        sent += n;
        spin(2);
    } while (n == sizeof chunk && sent < 4000000);
    assert_true(sent < 4000000);
    assert_int_equal(d.drained, 0);
    assert_int_equal(dev_write(&d, chunk, 1), 0);
    fcntl(read_end, F_SETFL, O_NONBLOCK);
    for (int idle = 0; received < sent && idle < 1000; idle++) {
        ssize_t got = read(read_end, sink, sizeof sink);
        for (ssize_t i = 0; i < got; i++)
            assert_int_equal(sink[i], (uint8_t)((received + (size_t)i) * 7));
        if (got > 0) {
            received += (size_t)got;
            idle = 0;
        }
        spin(2);
    }
    assert_int_equal(received, sent);
    assert_int_equal(d.drained, 1);
    assert_int_equal(fcntl(write_end, F_GETFL) & O_NONBLOCK, 0);
    close_term(t);
}

static void test_output_pipe(void **state)
{
    int p[2];
    assert_int_equal(pipe(p), 0);
    back_pressure(p[0], p[1]);
    close(p[0]);
    close(p[1]);
}

static void test_output_socket(void **state)
{
    int p[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, p), 0);
    back_pressure(p[0], p[1]);
    close(p[0]);
    close(p[1]);
}

static void test_reader_left(void **state)
{
    struct device d = {0};
    uint8_t chunk[4096] = {0};
    int p[2];
    assert_int_equal(pipe(p), 0);
    struct char_terminal *t = open_term(-1, p[1], &d);
    close(p[0]);
    int err = dup(STDERR_FILENO), null = open("/dev/null", O_RDWR);
    dup2(null, STDERR_FILENO); /* the warning is not of interest */
    for (int i = 0; i < 100; i++) {
        dev_write(&d, chunk, sizeof chunk);
        spin(1);
    }
    assert_int_equal(dev_write(&d, chunk, sizeof chunk), sizeof chunk); /* swallowed */
    close_term(t);
    dup2(err, STDERR_FILENO);
    close(err);
    close(null);
    close(p[1]);
}

static void test_close_flushes_to_file(void **state)
{
    struct device d = {0};
    char path[] = "/tmp/sosia-test-XXXXXX", text[50000], back[sizeof text + 1];
    struct char_file *f;
    struct error e = {0};
    int fd = mkstemp(path);

    assert_int_equal(write(fd, "old", 3), 3);
    memset(text, 'q', sizeof text);
    assert_int_equal(char_file_open(&f, path, &loop, &lock, &e), 0);
    char_file_set_in(f, device_in(&d));
    d.out = char_file_out(f);
    assert_int_equal(dev_write(&d, text, sizeof text), sizeof text);
    char_file_close(f); /* before the loop had a turn */
    uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(pread(fd, back, sizeof back, 0), sizeof text);
    assert_memory_equal(back, text, sizeof text);
    unlink(path);
    close(fd);
}

static void test_file_error(void **state)
{
    struct char_file *f;
    struct error e = {0};
    assert_int_equal(char_file_open(&f, "/nonexistent/x", &loop, &lock, &e), ERR_IO);
    assert_non_null(strstr(e.msg, "/nonexistent/x"));
}

static int open_pty(int *terminal)
{
    int pty = posix_openpt(O_RDWR | O_NOCTTY | O_NONBLOCK);
    if (pty < 0 || grantpt(pty) < 0 || unlockpt(pty) < 0)
        return -1;
    *terminal = open(ptsname(pty), O_RDWR | O_NOCTTY);
    return *terminal < 0 ? -1 : pty;
}

static void assert_same_settings(const struct termios *a, const struct termios *b)
{
    assert_int_equal(a->c_iflag, b->c_iflag);
    assert_int_equal(a->c_oflag, b->c_oflag);
    assert_int_equal(a->c_cflag, b->c_cflag);
    assert_int_equal(a->c_lflag, b->c_lflag);
    assert_memory_equal(a->c_cc, b->c_cc, sizeof a->c_cc);
}

static void test_raw_mode(void **state)
{
    struct device d = {.room = 4};
    struct termios before, during, after;
    uint8_t junk[6000];
    int term, pty = open_pty(&term);
    if (pty < 0)
        skip();
    tcgetattr(term, &before);
    struct char_terminal *t = open_term(term, term, &d);
    tcgetattr(term, &during);
    assert_int_equal(during.c_lflag & (ICANON | ECHO | ISIG), 0);
    assert_int_equal(during.c_oflag & OPOST, 0);
    assert_int_equal(fcntl(term, F_GETFL) & O_NONBLOCK, 0);

    struct error e = {0};
    struct char_terminal *second;
    struct char_terminal_hooks hooks = {0};
    assert_int_equal(char_terminal_open_fds(&second, &loop, term, term, &lock, &hooks, &e),
                     ERR_BUSY);

    type(pty, (const uint8_t *)"\003\r", 2); /* Ctrl-C and Enter are the guest's */
    spin_until(&d.ngot, 2);
    assert_memory_equal(d.got, "\003\r", 2);
    memset(junk, 'j', sizeof junk); /* a guest that does not listen: the user can still leave */
    type(pty, junk, sizeof junk);
    type(pty, (const uint8_t *)"\001x", 2);
    spin_until(&quits, 1);

    dev_write(&d, "a\nb", 3);
    close_term(t);
    assert_int_equal(fcntl(pty, F_SETFL, 0), 0);
    assert_int_equal(read(pty, junk, sizeof junk), 3);
    assert_memory_equal(junk, "a\nb", 3); /* untranslated */
    tcgetattr(term, &after);
    assert_same_settings(&before, &after);
    close(term);
    close(pty);
}

static void test_signal_restores(void **state)
{
    static const int signals[] = {SIGTERM, SIGINT, SIGABRT};
    struct termios before, after;
    int term, pty = open_pty(&term);
    if (pty < 0)
        skip();
    tcgetattr(term, &before);
    for (size_t i = 0; i < ARRAY_LEN(signals) + 1; i++) {
        pid_t child = fork();
        if (child == 0) {
            if (char_tty_raw(term, NULL) < 0)
                _exit(1);
            if (i < ARRAY_LEN(signals))
                raise(signals[i]);
            exit(0); /* as any process that forgets to restore */
        }
        int status;
        assert_int_equal(waitpid(child, &status, 0), child);
        if (i < ARRAY_LEN(signals))
            assert_true(WIFSIGNALED(status) && WTERMSIG(status) == signals[i]);
        tcgetattr(term, &after);
        assert_same_settings(&before, &after);
    }
    close(term);
    close(pty);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_pipe_input_and_escape),
        TEST(test_input_waits_for_room),
        TEST(test_regular_file_input),
        TEST(test_closed_input),
        TEST(test_output_pipe),
        TEST(test_output_socket),
        TEST(test_reader_left),
        TEST(test_close_flushes_to_file),
        TEST(test_file_error),
        TEST(test_raw_mode),
        TEST(test_signal_restores),
    };
    return cmocka_run_group_tests_name("char", tests, NULL, NULL);
}
