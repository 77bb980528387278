/*
 * save_driver.c - as `sosia run SPEC [--set KEY=VALUE]...`, but the VM is saved all the time, and
 * goes on. Every eighth state is read back by a VM of its own, and what that one saves must be the
 * same.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "vmm/vm.h"

#define EVERY_MS           20
#define SANITIZED_EVERY_MS 60 /* a save takes as many times as long; not with SOSIA_TEST_LONG=1 */

static struct {
    struct spec spec;
    struct vm vm;
    uv_timer_t timer;
    char path[64];
    unsigned saves, compared;
    const char *trouble;
} d;

static void complain(const char *what, const struct error *e)
{
    fprintf(stderr, "save_driver: %s: %s\n", what, e->msg);
    d.trouble = what;
}

/* The calendar's time is another, and with it two checksums of a section, and those of the end. */
#define CALENDAR_BYTES 40

static bool same(FILE *a, FILE *b)
{
    unsigned differ = 0;
    int x, y;
    rewind(a);
    rewind(b);
    do {
        x = fgetc(a);
        y = fgetc(b);
        differ += x != y;
    } while (x != EOF && y != EOF);
    return x == y && differ <= CALENDAR_BYTES;
}

/* Another VM, which never runs, takes the state and gives it back. */
static void compare(void)
{
    struct error e;
    struct spec quiet = d.spec;
    quiet.serial = SPEC_SERIAL_NONE; /* the terminal is taken */
    struct vm *other = malloc(sizeof *other);
    FILE *was = fopen(d.path, "rb"), *now = tmpfile();
    int rc = vm_create(other, &quiet, NULL, &e);
    if (rc) {
        complain("there cannot be another VM", &e);
        return;
    }
    rc = vm_load_file(other, d.path, &e);
    if (!rc)
        rc = vmm_save(other, fileno(now), NULL, &e);
    if (rc)
        complain("a state cannot be read back", &e);
    else if (!same(was, now))
        d.trouble = "a state that was read back differs";
    if (!rc)
        d.compared++;
    vm_destroy(other);
    free(other);
    fclose(was);
    fclose(now);
}

static void saved(void *arg, int rc, const struct error *e)
{
    if (rc == ERR_STATE) /* it ended meanwhile */
        return;
    if (rc)
        complain("not saved", e);
    else if (d.saves++ % 8 == 1)
        compare();
}

static void on_timer(uv_timer_t *t)
{
    const struct vm_save s = {.path = d.path, .then = VM_SAVE_RESUME, .done = saved};
    struct error e;
    if (vm_save(&d.vm, &s, &e) && e.code != ERR_BUSY)
        complain("not begun", &e);
}

int main(int argc, char **argv)
{
    const uint64_t begun = uv_hrtime();
    struct error e = {0};
    const char *set[8];
    unsigned nset = 0;
    for (int n = 3; n + 1 < argc && nset < ARRAY_LEN(set); n += 2)
        set[nset++] = argv[n + 1];
    snprintf(d.path, sizeof d.path, "/tmp/sosia-save-driver.%d", (int)getpid());
    signal(SIGPIPE, SIG_IGN);
    int rc = argc < 3 ? error_set(&e, ERR_USAGE, "run SPEC [--set KEY=VALUE]...")
                      : spec_load(argv[2], set, nset, &d.spec, &e);
    if (!rc)
        rc = spec_check(&d.spec, &e);
    if (!rc)
        rc = vm_create(&d.vm, &d.spec, NULL, &e);
    if (rc) {
        fprintf(stderr, "save_driver: %s\n", e.msg);
        return 1;
    }
    uv_timer_init(&d.vm.loop, &d.timer);
    const unsigned every =
        SOSIA_SANITIZED && !getenv("SOSIA_TEST_LONG") ? SANITIZED_EVERY_MS : EVERY_MS;
    uv_timer_start(&d.timer, on_timer, every, every);
    rc = vm_run(&d.vm, &e);
    vm_destroy(&d.vm);
    spec_fini(&d.spec);
    unlink(d.path);
    fprintf(stderr, "save_driver: %u saves, %u read back\n", d.saves, d.compared);
    if (rc)
        complain("the VM failed", &e);
    if (!rc && !d.saves && uv_hrtime() - begun > NS_PER_SEC / 2)
        d.trouble = "it was never saved";
    if (d.trouble)
        fprintf(stderr, "save_driver: %s\n", d.trouble);
    return d.trouble != NULL;
}
