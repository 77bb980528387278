/* ls.c - `sosia ls` and `sosia info`: what VMs there are, and how they are. */
#include <dirent.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "block/size.h"
#include "cli/vms.h"

/* All that is told about a VM; what cannot be read is told as such. */
struct facts {
    struct vm_status status;
    struct vm_state state;
    struct spec spec;
    bool has_state, has_spec;
    struct error wrong; /* the first thing that cannot be read */
};

static void get_facts(const struct vm *vm, struct facts *f)
{
    struct error e = {0};
    *f = (struct facts){0};
    vm_status_read(vm, &f->status);
    f->has_state = vm_state_load(vm->dir, &f->state, &f->wrong) == 0;
    f->has_spec = vm_spec_load(vm, NULL, 0, &f->spec, &e) == 0;
    if (f->has_state && !f->has_spec)
        f->wrong = e;
}

static void drop_facts(struct facts *f)
{
    if (f->has_state)
        vm_state_fini(&f->state);
    if (f->has_spec)
        spec_fini(&f->spec);
}

/* The beginning of an error, without the source line and its caret. */
static const char *first_line(struct error *e)
{
    e->msg[strcspn(e->msg, "\n")] = 0;
    return e->msg;
}

static json_t *time_json(int64_t t)
{
    char text[40];
    struct tm tm;
    time_t when = (time_t)t;
    if (!t || !gmtime_r(&when, &tm) || !strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &tm))
        return json_null();
    return json_string(text);
}

static json_t *facts_json(const struct vm *vm, struct facts *f)
{
    const struct vm_status *s = &f->status;
    bool alive = vm_is_alive(s);
    json_t *o = json_pack("{s:o, s:s?, s:s}", "name", cli_json_text(vm->name), "uuid",
                          f->has_state ? f->state.uuid : NULL, "state", vm_run_words[s->run]);
    json_object_set_new(o, "pid", alive ? json_integer(s->pid) : json_null());
    json_object_set_new(o, "started", time_json(s->started));
    json_object_set_new(o, "ended", alive ? json_null() : time_json(s->ended));
    json_object_set_new(o, "reason", cli_json_text(!alive && s->reason[0] ? s->reason : NULL));
    json_object_set_new(o, "cpus", f->has_spec ? json_integer(f->spec.cpus) : json_null());
    json_object_set_new(o, "memory",
                        f->has_spec ? json_integer((json_int_t)f->spec.memory) : json_null());
    json_object_set_new(o, "problem", cli_json_text(f->wrong.code ? first_line(&f->wrong) : NULL));
    return o;
}

/* ---- ls ---- */

static const char *since(const struct vm_status *s, char out[64])
{
    char age[32];
    int64_t from = vm_is_alive(s) ? s->started : s->ended;
    if (!from && !s->started)
        return "-";
    vms_age(age, (int64_t)time(NULL) - (from ? from : s->started));
    snprintf(out, 64, vm_is_alive(s) ? "%s" : "%s ago", age);
    return out;
}

static void add_row(struct table *t, const struct vm *vm, struct facts *f)
{
    char text[64];
    table_add(t, vm->name);
    table_add(t, f->wrong.code ? "damaged" : vm_run_words[f->status.run]);
    snprintf(text, sizeof text, "%u", f->spec.cpus);
    table_add(t, f->has_spec ? text : "-");
    table_add(t, f->has_spec ? size_format(text, f->spec.memory) : "-");
    table_add(t, since(&f->status, text));
    snprintf(text, sizeof text, "%.8s", f->state.uuid);
    table_add(t, f->has_state ? text : "-");
}

static int list_all(const struct cli_args *a, int folder, struct vm_names *list, struct error *e)
{
    struct table t = {.columns = 6};
    json_t *all = cli_has(a, CLI_JSON) ? json_array() : NULL;
    static const char *const heads[] = {"NAME", "STATE", "CPUS", "MEMORY", "SINCE", "UUID"};
    for (unsigned i = 0; !all && list->n && i < ARRAY_LEN(heads); i++)
        table_add(&t, heads[i]);
    for (size_t i = 0; i < list->n; i++) {
        struct vm vm;
        struct facts f;
        struct error gone;
        if (vm_open(folder, list->name[i], VM_FIND_READ, &vm, &gone))
            continue;
        get_facts(&vm, &f);
        if (all)
            json_array_append_new(all, facts_json(&vm, &f));
        else
            add_row(&t, &vm, &f);
        drop_facts(&f);
        vm_close(&vm);
    }
    if (all)
        return cli_print_json(json_pack("{s:o}", "vms", all), e);
    table_print(&t);
    return 0;
}

int cli_ls(const struct cli_args *a, struct error *e)
{
    struct catalog c;
    struct vm_names list;
    int rc = catalog_open(&c, false, e);
    if (rc)
        return rc;
    rc = catalog_list(c.vms, &list, e);
    if (!rc && cli_has(a, CLI_NAMES))
        for (size_t i = 0; i < list.n; i++)
            puts(list.name[i]);
    else if (!rc)
        rc = list_all(a, c.vms, &list, e);
    catalog_list_free(&list);
    catalog_close(&c);
    return rc;
}

/* ---- info ---- */

static json_t *disks_json(const struct spec *s)
{
    json_t *list = json_array();
    for (unsigned i = 0; i < s->ndisk; i++) {
        struct stat st;
        const struct spec_disk *d = &s->disk[i];
        bool there = stat(d->file, &st) == 0;
        json_t *o = json_pack("{s:o, s:b, s:b}", "file", cli_json_text(d->file), "readonly",
                              d->readonly, "there", there);
        if (there)
            json_object_set_new(o, "allocated-size", json_integer((json_int_t)st.st_blocks * 512));
        json_array_append_new(list, o);
    }
    return list;
}

static void print_line(const char *what, const char *text)
{
    printf("%-9s ", what);
    for (; *text; text++)
        putchar((unsigned char)*text < 32 || *text == 127 ? '?' : *text);
    putchar('\n');
}

static void print_disks(const struct spec *s)
{
    char text[32];
    for (unsigned i = 0; i < s->ndisk; i++) {
        struct stat st;
        bool there = stat(s->disk[i].file, &st) == 0;
        print_line(i ? "" : "disks", s->disk[i].file);
        printf("          %s%s\n",
               there ? size_format(text, (uint64_t)st.st_blocks * 512) : "is missing",
               there ? " on the host" : "");
    }
}

static void print_info(const struct vm *vm, struct facts *f)
{
    const struct vm_status *s = &f->status;
    char text[64], line[400];
    print_line("name", vm->name);
    print_line("uuid", f->has_state ? f->state.uuid : "not known");
    snprintf(line, sizeof line, "%s%s%s", vm_run_words[s->run],
             !vm_is_alive(s) && s->reason[0] ? ": " : "", vm_is_alive(s) ? "" : s->reason);
    print_line("state", line);
    if (s->started)
        print_line("since", since(s, text));
    if (vm_is_alive(s)) {
        snprintf(line, sizeof line, "%d", s->pid);
        print_line("process", line);
    }
    if (f->has_spec) {
        snprintf(line, sizeof line, "%u", f->spec.cpus);
        print_line("cpus", line);
        print_line("memory", size_format(text, f->spec.memory));
        print_disks(&f->spec);
    }
    print_line("folder", vm->path);
    if (f->wrong.code)
        print_line("problem", first_line(&f->wrong));
}

int cli_info(const struct cli_args *a, struct error *e)
{
    struct catalog c;
    struct vm vm;
    struct facts f;
    int rc = vms_open(&c, a->pos[0], VM_FIND_READ, &vm, e);
    if (rc)
        return rc;
    get_facts(&vm, &f);
    if (cli_has(a, CLI_JSON)) {
        json_t *o = facts_json(&vm, &f);
        json_object_set_new(o, "folder", cli_json_text(vm.path));
        json_object_set_new(o, "disks", f.has_spec ? disks_json(&f.spec) : json_null());
        rc = cli_print_json(o, e);
    } else {
        print_info(&vm, &f);
    }
    drop_facts(&f);
    vm_close(&vm);
    catalog_close(&c);
    return rc;
}
