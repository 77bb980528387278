/* vms.c - see vms.h. */
#include "cli/vms.h"

#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "catalog/launch.h"

int vms_open(struct catalog *c, const char *ref, enum vm_find how, struct vm *vm, struct error *e)
{
    int rc = catalog_open(c, false, e);
    if (rc)
        return rc;
    rc = catalog_find(c, ref, how, vm, e);
    if (rc)
        catalog_close(c);
    return rc;
}

json_t *vms_json(const struct vm *vm)
{
    struct vm_status status;
    struct vm_state state;
    struct error unused;
    vm_status_read(vm, &status);
    bool known = vm_state_load(vm->dir, &state, &unused) == 0;
    json_t *o = json_pack("{s:o, s:s?, s:s}", "name", cli_json_text(vm->name), "uuid",
                          known ? state.uuid : NULL, "state", vm_run_words[status.run]);
    if (known)
        vm_state_fini(&state);
    return o;
}

int vms_done(const struct cli_args *a, const struct vm *vm, struct error *e, const char *fmt, ...)
{
    va_list ap;
    if (cli_has(a, CLI_JSON))
        return cli_print_json(vms_json(vm), e);
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fputc('\n', stderr);
    return 0;
}

static int do_one(const struct cli_args *a, const char *ref, enum vm_find how, vms_work *work,
                  json_t *all, struct error *e)
{
    struct catalog c;
    struct vm vm;
    char said[VMS_SAID] = "";
    int rc = vms_open(&c, ref, how, &vm, e);
    if (rc)
        return rc;
    rc = work(a, &vm, said, e);
    if (!rc && all && cli_has(a, CLI_JSON))
        rc = json_array_append_new(all, vms_json(&vm)) ? error_set(e, ERR_NOMEM, "out of memory")
                                                       : 0;
    else if (!rc && said[0])
        rc = vms_done(a, &vm, e, "%s", said);
    vm_close(&vm);
    catalog_close(&c);
    return rc;
}

static void tell_error(const struct cli_args *a, const char *ref, json_t *all, struct error *e)
{
    if (cli_has(a, CLI_JSON))
        json_array_append_new(
            all, json_pack("{s:o, s:o}", "name", cli_json_text(ref), "error", cli_json_error(e)));
    else
        cli_print_error(e);
    e->msg[0] = 0;
}

int vms_each(const struct cli_args *a, enum vm_find how, vms_work *work, struct error *e)
{
    int first = 0;
    if (a->npos == 1)
        return do_one(a, a->pos[0], how, work, NULL, e);
    json_t *all = json_array();
    for (int i = 0; i < a->npos; i++) {
        *e = (struct error){0};
        int rc = do_one(a, a->pos[i], how, work, all, e);
        if (rc)
            tell_error(a, a->pos[i], all, e);
        first = first ? first : rc;
    }
    if (cli_has(a, CLI_JSON))
        cli_print_json(json_pack("{s:o}", "vms", all), e);
    else
        json_decref(all);
    return first;
}

void vms_last_line(const struct vm *vm, char *out, size_t size)
{
    char tail[1024];
    size_t n = 0;
    CLEANUP_CLOSE int fd = openat(vm->dir, VM_LOG_CONSOLE, O_RDONLY | O_CLOEXEC);
    off_t end = fd < 0 ? 0 : lseek(fd, 0, SEEK_END);
    off_t from = end > (off_t)sizeof tail - 1 ? end - ((off_t)sizeof tail - 1) : 0;
    ssize_t got = end > 0 ? pread(fd, tail, sizeof tail - 1, from) : 0;
    out[0] = 0;
    tail[got > 0 ? got : 0] = 0;
    char *stop = tail + strlen(tail);
    while (stop > tail && (unsigned char)stop[-1] <= ' ')
        *--stop = 0;
    char *line = strrchr(tail, '\n');
    for (line = line ? line + 1 : tail; *line && n < size - 1; line++) {
        if (*line == 27 && line[1] == '[') { /* ECMA-48 5.4: up to a byte from 0x40 */
            for (line += 2; *line && !(*line >= '@' && *line <= '~'); line++)
                continue;
            if (!*line)
                break;
        } else if ((unsigned char)*line >= ' ' && *line != 127) {
            out[n++] = *line;
        }
    }
    out[n] = 0;
}

const char *vms_age(char out[32], int64_t s)
{
    static const struct {
        int64_t from, unit;
        const char *name;
    } steps[] = {{2 * 86400, 86400, "days"}, {2 * 3600, 3600, "h"}, {120, 60, "min"}, {0, 1, "s"}};
    if (s < 0)
        s = 0;
    for (unsigned i = 0; i < ARRAY_LEN(steps); i++)
        if (s >= steps[i].from) {
            snprintf(out, 32, "%lld %s", (long long)(s / steps[i].unit), steps[i].name);
            break;
        }
    return out;
}

void table_add(struct table *t, const char *text)
{
    if (t->n == t->cap) {
        size_t cap = t->cap ? t->cap * 2 : 64;
        char **grown = realloc(t->cell, cap * sizeof *grown);
        if (!grown) {
            t->failed = true;
            return;
        }
        t->cell = grown;
        t->cap = cap;
    }
    char *copy = strdup(text);
    t->failed |= !copy;
    if (!copy)
        return;
    for (char *c = copy; *c; c++) /* not for the terminal to obey */
        if ((unsigned char)*c < 32 || *c == 127)
            *c = '?';
    t->cell[t->n++] = copy;
}

void table_print(struct table *t)
{
    size_t width[TABLE_COLUMNS] = {0};
    for (size_t i = 0; i < t->n; i++)
        width[i % t->columns] = max_u64(width[i % t->columns], strlen(t->cell[i]));
    for (size_t i = 0; i < t->n; i++) {
        if (i % t->columns == t->columns - 1)
            printf("%s\n", t->cell[i]);
        else
            printf("%-*s  ", (int)width[i % t->columns], t->cell[i]);
        free(t->cell[i]);
    }
    free(t->cell);
    *t = (struct table){.columns = t->columns};
}
