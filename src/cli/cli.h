/*
 * cli.h - the verbs of the command line: one table, one file per verb.
 *
 * Standard output carries what was asked for (the guest's serial port, help, a verdict); everything
 * else goes to standard error. A verb returns its exit code or ERR_*; main() prints the error, if
 * it has a message (a verb may have told it in its own way), and exits.
 */
#ifndef SOSIA_CLI_CLI_H
#define SOSIA_CLI_CLI_H

#include <stdio.h>

#include "base/error.h"
#include "spec/spec.h"

enum cli_exit {
    CLI_OK = 0,      /* done; for run: the guest powered off or the user left */
    CLI_FAILED = 1,  /* the guest or Sosia failed */
    CLI_USAGE = 2,   /* the command line or the spec file is wrong */
    CLI_LEAKS = 3,   /* disk check: space is lost, no data */
    CLI_DAMAGED = 4, /* disk check: the image is damaged */
    CLI_HOST = 6,    /* this host lacks what is needed */
};

struct cli_verb {
    const char *name;
    const char *args;    /* of the usage line */
    const char *summary; /* one line */
    const char *detail;  /* further lines of `sosia help VERB` */
    /* argv[0] is the verb; 0, ERR_*, or another exit code (enum cli_exit) */
    int (*run)(int argc, char **argv, struct error *e);
    void (*list)(FILE *out); /* verbs of its own, behind the detail; or NULL */
};

extern const struct cli_verb cli_verbs[]; /* ends with a NULL name */

const struct cli_verb *cli_find_verb(const char *name, struct error *e);
void cli_print_usage(FILE *out);
void cli_print_verb(FILE *out, const struct cli_verb *v);

/* What the verbs that take a spec file share: SPEC [--set KEY=VALUE]... [-v]... `run` has more. */
struct cli_spec_args {
    const char *path;
    const char **set; /* owned array of argv's strings */
    unsigned nset;
    int verbose;
    bool run;
    const char *log_code;
    bool perf_map;
};

/* Parses the arguments (a->run: those of `run`), and loads and checks the spec. Whatever fails
 * before a VM exists is ERR_USAGE or ERR_SPEC. On success the caller calls spec_fini(). */
int cli_load_spec(int argc, char **argv, struct cli_spec_args *a, struct spec *s, struct error *e);

int cli_run(int argc, char **argv, struct error *e);
int cli_check(int argc, char **argv, struct error *e);
int cli_spec(int argc, char **argv, struct error *e);
int cli_disk(int argc, char **argv, struct error *e);
void cli_disk_list(FILE *out);
int cli_help(int argc, char **argv, struct error *e);

#endif
