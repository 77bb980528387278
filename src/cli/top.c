/* top.c - `sosia top`: what the running VMs take of the host. */
#include <dirent.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "block/size.h"
#include "cli/vms.h"

#define PERIOD_MS 1000
#define FIRST_MS  300 /* from the first sample to the second, where there are but two */

struct sample {
    char name[VM_NAME_MAX + 1];
    struct vm_status status;
    uint64_t ticks, resident; /* of the host's CPUs; bytes */
};

struct samples {
    struct sample *vm;
    size_t n;
    struct timespec at;
};

/* proc(5): utime and stime are fields 14 and 15 of stat, the resident set is field 24, in pages. */
static bool read_process(int pid, struct sample *s)
{
    char path[40], line[1024];
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    FILE *f = fopen(path, "re");
    size_t n = f ? fread(line, 1, sizeof line - 1, f) : 0;
    if (f)
        fclose(f);
    line[n] = 0;
    char *p = strrchr(line, ')');
    unsigned long long value[22] = {0};
    if (!p)
        return false;
    p += 3; /* ") " and the state's letter */
    for (unsigned i = 0; i < 21 && p; i++)
        value[i] = strtoull(p, &p, 10);
    s->ticks = value[10] + value[11];
    s->resident = value[20] * (uint64_t)sysconf(_SC_PAGESIZE);
    return true;
}

static void take_one(int folder, const char *name, struct samples *all)
{
    struct vm vm;
    struct error gone;
    struct sample *s = &all->vm[all->n];
    if (vm_open(folder, name, VM_FIND_READ, &vm, &gone))
        return;
    *s = (struct sample){0};
    snprintf(s->name, sizeof s->name, "%.*s", VM_NAME_MAX, name);
    vm_status_read(&vm, &s->status);
    all->n += vm_is_alive(&s->status) && read_process(s->status.pid, s);
    vm_close(&vm);
}

static int take(struct samples *all, struct error *e)
{
    struct catalog c;
    struct vm_names list;
    *all = (struct samples){0};
    int rc = catalog_open(&c, false, e);
    if (rc)
        return rc;
    rc = catalog_list(c.vms, &list, e);
    if (!rc) {
        all->vm = calloc(list.n + 1, sizeof *all->vm);
        rc = all->vm ? 0 : error_set(e, ERR_NOMEM, "out of memory");
    }
    for (size_t i = 0; !rc && i < list.n; i++)
        take_one(c.vms, list.name[i], all);
    clock_gettime(CLOCK_MONOTONIC, &all->at);
    catalog_list_free(&list);
    catalog_close(&c);
    return rc;
}

/* Percent of one CPU of the host since the sample before; negative: not known yet. */
static double load(const struct samples *before, const struct samples *now, const struct sample *s)
{
    double seconds = (double)(now->at.tv_sec - before->at.tv_sec) +
                     (double)(now->at.tv_nsec - before->at.tv_nsec) / 1e9;
    for (size_t i = 0; i < before->n; i++)
        if (before->vm[i].status.pid == s->status.pid && seconds > 0)
            return (double)(s->ticks - before->vm[i].ticks) * 100 / (double)sysconf(_SC_CLK_TCK) /
                   seconds;
    return -1;
}

static int print_json(const struct samples *before, const struct samples *now, struct error *e)
{
    json_t *list = json_array();
    for (size_t i = 0; i < now->n; i++) {
        const struct sample *s = &now->vm[i];
        json_array_append_new(list, json_pack("{s:s, s:s, s:i, s:f, s:I}", "name", s->name, "state",
                                              vm_run_words[s->status.run], "pid", s->status.pid,
                                              "cpu-percent", load(before, now, s), "resident",
                                              (json_int_t)s->resident));
    }
    return cli_print_json(json_pack("{s:o}", "vms", list), e);
}

static void print_table(const struct samples *before, const struct samples *now)
{
    static const char *const heads[] = {"NAME", "STATE", "CPU%", "MEMORY", "SINCE", "PROCESS"};
    struct table t = {.columns = ARRAY_LEN(heads)};
    char text[64];
    for (unsigned i = 0; i < ARRAY_LEN(heads); i++)
        table_add(&t, heads[i]);
    for (size_t i = 0; i < now->n; i++) {
        const struct sample *s = &now->vm[i];
        double percent = load(before, now, s);
        table_add(&t, s->name);
        table_add(&t, vm_run_words[s->status.run]);
        snprintf(text, sizeof text, "%.1f", percent);
        table_add(&t, percent < 0 ? "-" : text);
        table_add(&t, size_format(text, s->resident & ~(MIB - 1)));
        table_add(&t, vms_age(text, (int64_t)time(NULL) - s->status.started));
        snprintf(text, sizeof text, "%d", s->status.pid);
        table_add(&t, text);
    }
    table_print(&t);
}

/* True: the user wants to leave (q, or the end of the input). */
static bool wait_key(int ms)
{
    struct pollfd p = {.fd = isatty(STDIN_FILENO) ? STDIN_FILENO : -1, .events = POLLIN};
    char c;
    return poll(&p, 1, ms) > 0 && (read(STDIN_FILENO, &c, 1) <= 0 || c == 'q');
}

int cli_top(const struct cli_args *a, struct error *e)
{
    struct samples before, now;
    bool live = isatty(STDOUT_FILENO) && !cli_has(a, CLI_JSON);
    int rc = take(&before, e);
    bool leave = !rc && wait_key(FIRST_MS);
    while (!rc && !leave) {
        rc = take(&now, e);
        if (rc)
            break;
        if (live)
            printf("\033[H\033[J");
        if (cli_has(a, CLI_JSON))
            rc = print_json(&before, &now, e);
        else
            print_table(&before, &now);
        if (live)
            printf("\nq and Enter leave\n");
        fflush(stdout);
        free(before.vm);
        before = now;
        leave = !live || wait_key(PERIOD_MS);
    }
    free(before.vm);
    return rc;
}
