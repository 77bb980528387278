/*
 * cli.h - the verbs of the command line: one table, which feeds the parser, the help, the
 * completion of shells and the tests of the manual; a file for each verb or family of verbs.
 *
 * Standard output carries what was asked for (the guest's serial port, a list, JSON); everything
 * else goes to standard error. A verb returns its exit code or ERR_*; main() prints the error, if
 * it has a message (a verb may have told it in its own way), as text or as JSON, and exits.
 */
#ifndef SOSIA_CLI_CLI_H
#define SOSIA_CLI_CLI_H

#include <stdio.h>

#include "base/error.h"
#include "base/types.h"
#include "spec/spec.h"

enum cli_exit {
    CLI_OK = 0,        /* done; for run: the guest powered off or the user left */
    CLI_FAILED = 1,    /* the guest or Sosia failed */
    CLI_USAGE = 2,     /* the command line or the spec file is wrong */
    CLI_NOTFOUND = 3,  /* there is no such VM */
    CLI_STATE = 4,     /* not possible in the VM's present state */
    CLI_DENIED = 5,    /* the user may not */
    CLI_HOST = 6,      /* this host lacks what is needed */
    CLI_TIMEOUT = 7,   /* it took too long */
    CLI_INTEGRITY = 8, /* something stored is missing or damaged */
    CLI_LEAKS = 3,     /* disk check: space is lost, no data */
    CLI_DAMAGED = 4,   /* disk check: the image is damaged */
};

enum cli_opt {
    CLI_JSON,
    CLI_SET,
    CLI_VERBOSE,
    CLI_LOG_CODE,
    CLI_PERF_MAP,
    CLI_FROM_STATE,
    CLI_SAVE_TO,
    CLI_DEFAULTS,
    CLI_KERNEL,
    CLI_INITRD,
    CLI_CMDLINE,
    CLI_CDROM,
    CLI_DISK,
    CLI_MEMORY,
    CLI_CPUS,
    CLI_PURGE,
    CLI_NAMES,
    CLI_LINKED,
    CLI_FULL,
    CLI_ATTACH,
    CLI_FORCE,
    CLI_TIMEOUT_S,
    CLI_FOR,
    CLI_FOLLOW,
    CLI_SERIAL,
    CLI_LINES,
    CLI_TEXT,
    CLI_COPY,
    CLI_DRY_RUN,
    CLI_QEMU,
    CLI_OPTS
};
#define CLI_OPT(o) (1ull << (o))

struct cli_option {
    const char *name;
    char letter;       /* or 0 */
    const char *value; /* what it takes, for people; NULL: nothing */
    const char *help;
};
extern const struct cli_option cli_options[CLI_OPTS];

struct cli_verb;

struct cli_args {
    const struct cli_verb *verb;
    int npos;
    const char **pos; /* owned; the strings are argv's */
    unsigned count[CLI_OPTS];
    const char *value[CLI_OPTS]; /* the last one */
    struct cli_given {
        enum cli_opt opt;
        const char *value;
    } * given; /* all in their order; owned */
    unsigned ngiven;
};

/* What a positional argument is, for completion. */
enum cli_kind {
    CLI_ARG_NONE,
    CLI_ARG_VM,
    CLI_ARG_FILE,
    CLI_ARG_VERB,
    CLI_ARG_VM_OR_FILE,
    CLI_ARG_SNAP
};

struct cli_verb {
    const char *name;
    const char *args;    /* of the usage line */
    const char *summary; /* one line */
    const char *detail;  /* further lines of `sosia help VERB`, before the options */
    uint64_t opts;       /* CLI_OPT() of each */
    int min, max;        /* positional arguments; max -1: any number */
    const char *missing; /* asked if there are too few */
    enum cli_kind kind;
    /* 0, ERR_*, or another exit code (enum cli_exit) */
    int (*run)(const struct cli_args *a, struct error *e);
    /* Instead: one that parses for itself. argv[0] is the verb. */
    int (*raw)(int argc, char **argv, struct error *e);
    void (*list)(FILE *out); /* verbs of its own, behind the detail; or NULL */
    bool plain; /* wrong states are failures: its exit codes 3 and 4 mean something else or nothing
                 */
};

extern const struct cli_verb cli_verbs[]; /* ends with a NULL name */

/* main.c: on standard error. */
void cli_print_error(const struct error *e);

const struct cli_verb *cli_find_verb(const char *name, struct error *e);
void cli_print_usage(FILE *out);
void cli_print_verb(FILE *out, const struct cli_verb *v);

/* args.c. argv[0] is the verb. ERR_USAGE. The caller frees in any case. */
int cli_parse(const struct cli_verb *v, int argc, char **argv, struct cli_args *a, struct error *e);
void cli_args_free(struct cli_args *a);
/* The values of an option that may be repeated, allocated (not the strings). */
const char **cli_values(const struct cli_args *a, enum cli_opt o, unsigned *n);
/* Seconds, "90" or "1.5", or `def`, as milliseconds. */
int cli_seconds(const struct cli_args *a, enum cli_opt o, int64_t def_ms, int64_t *ms,
                struct error *e);

static inline bool cli_has(const struct cli_args *a, enum cli_opt o)
{
    return a->count[o] > 0;
}

/* load.c: the spec that the first argument names: a file, or a VM of the catalog; with each --set.
 * Whatever fails before a VM exists is ERR_USAGE, ERR_SPEC or ERR_NOTFOUND. On success the caller
 * calls spec_fini(). */
bool cli_is_file(const char *arg);
int cli_load_spec(const struct cli_args *a, struct spec *s, struct error *e);

int cli_run(const struct cli_args *a, struct error *e);
int cli_check(const struct cli_args *a, struct error *e);
int cli_spec(const struct cli_args *a, struct error *e);
int cli_help(const struct cli_args *a, struct error *e);
int cli_completion(const struct cli_args *a, struct error *e);
int cli_disk(int argc, char **argv, struct error *e);
void cli_disk_list(FILE *out);
int cli_snap(const struct cli_args *a, struct error *e);
void cli_snap_list(FILE *out);
int cli_create(const struct cli_args *a, struct error *e);
int cli_import(const struct cli_args *a, struct error *e);
int cli_ls(const struct cli_args *a, struct error *e);
int cli_info(const struct cli_args *a, struct error *e);
int cli_set(const struct cli_args *a, struct error *e);
int cli_edit(const struct cli_args *a, struct error *e);
int cli_rename(const struct cli_args *a, struct error *e);
int cli_rm(const struct cli_args *a, struct error *e);
int cli_start(const struct cli_args *a, struct error *e);
int cli_stop(const struct cli_args *a, struct error *e);
int cli_restart(const struct cli_args *a, struct error *e);
int cli_reset(const struct cli_args *a, struct error *e);
int cli_pause(const struct cli_args *a, struct error *e);
int cli_resume(const struct cli_args *a, struct error *e);
int cli_engine(const struct cli_args *a, struct error *e);
int cli_resize(const struct cli_args *a, struct error *e);
int cli_wait(const struct cli_args *a, struct error *e);
int cli_console(const struct cli_args *a, struct error *e);
int cli_logs(const struct cli_args *a, struct error *e);
int cli_events(const struct cli_args *a, struct error *e);
int cli_screen(const struct cli_args *a, struct error *e);
int cli_type(const struct cli_args *a, struct error *e);
int cli_key(const struct cli_args *a, struct error *e);
int cli_clone(const struct cli_args *a, struct error *e);
int cli_top(const struct cli_args *a, struct error *e);
int cli_doctor(const struct cli_args *a, struct error *e);
int cli_suspend(const struct cli_args *a, struct error *e);
int cli_recover(const struct cli_args *a, struct error *e);

#endif
