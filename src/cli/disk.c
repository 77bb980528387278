/* disk.c - `sosia disk`: the table of its verbs, their options and help. */
#include "cli/disk.h"

#include <getopt.h>
#include <stdlib.h>
#include <string.h>

#include "base/suggest.h"

/* Apart from the characters and 1 that getopt_long() has its own meanings for. */
#define LONG(o) (256 + (o))

static const struct option long_options[] = {
    {"json", no_argument, NULL, LONG(DISK_JSON)},
    {"format", required_argument, NULL, LONG(DISK_FORMAT)},
    {"source-format", required_argument, NULL, LONG(DISK_SOURCE_FORMAT)},
    {"option", required_argument, NULL, LONG(DISK_OPTION)},
    {"backing", required_argument, NULL, LONG(DISK_BACKING)},
    {"backing-format", required_argument, NULL, LONG(DISK_BACKING_FORMAT)},
    {"backing-anywhere", no_argument, NULL, LONG(DISK_ANYWHERE)},
    {"replace", no_argument, NULL, LONG(DISK_REPLACE)},
    {"compress", no_argument, NULL, LONG(DISK_COMPRESS)},
    {"shrink", no_argument, NULL, LONG(DISK_SHRINK)},
    {"keep", no_argument, NULL, LONG(DISK_KEEP)},
    {"mode", required_argument, NULL, LONG(DISK_MODE)},
    {"block-size", required_argument, NULL, LONG(DISK_BLOCK_SIZE)},
    {"depth", required_argument, NULL, LONG(DISK_DEPTH)},
    {"duration", required_argument, NULL, LONG(DISK_DURATION)},
    {"requests", required_argument, NULL, LONG(DISK_REQUESTS)},
    {"destroy-contents", no_argument, NULL, LONG(DISK_DESTROY)},
    {"level", required_argument, NULL, LONG(DISK_LEVEL)},
    {"chunk", required_argument, NULL, LONG(DISK_CHUNK)},
    {"snapshot", required_argument, NULL, LONG(DISK_SNAPSHOT)},
    {"degraded", no_argument, NULL, LONG(DISK_DEGRADED)},
    {NULL, 0, NULL, 0},
};

#define IMAGE_DETAIL                                                                \
    "  --format FORMAT      the image's format, instead of what its content says\n" \
    "  --backing-anywhere   the image may name files outside its folder\n"
#define NEW_DETAIL "  --option NAME=VALUE  an option of the format, may be repeated:\n"

static const struct disk_verb verbs[] = {
    {"create", "FILE SIZE [OPTION]...", "make an empty image, thin",
     "  SIZE                 20G, 512M ...; may be left out with --backing\n"
     "  --format FORMAT      of the new image; by default what the suffix says, else qcow2\n"
     "  --backing FILE       an overlay of this image; the name starts at the new image's folder\n"
     "  --backing-format F   its format, instead of what its content says\n"
     "  --backing-anywhere   it may lie outside the new image's folder\n" NEW_DETAIL,
     DISK_OPT(DISK_FORMAT) | DISK_OPT(DISK_OPTION) | DISK_OPT(DISK_BACKING) |
         DISK_OPT(DISK_BACKING_FORMAT) | DISK_OPT(DISK_ANYWHERE),
     1, 2, disk_create},
    {"info", "FILE [OPTION]...", "show what an image is and what it is made of", IMAGE_DETAIL,
     DISK_OPT(DISK_FORMAT) | DISK_OPT(DISK_ANYWHERE), 1, 1, disk_info},
    {"convert", "FROM TO [OPTION]...", "copy a disk to a new image of any format",
     "  --format FORMAT      of the new image; by default what the suffix says, else qcow2\n"
     "  --source-format F    of the old one, instead of what its content says\n"
     "  --snapshot ID|NAME   the disk as it was at an internal snapshot\n"
     "  --degraded           FROM is a mirror that lacks a member which was in sync\n"
     "  --backing-anywhere   the old image may name files outside its folder\n"
     "  --compress           compress the data, if the format can\n"
     "  --replace            replace an existing file\n" NEW_DETAIL,
     DISK_OPT(DISK_FORMAT) | DISK_OPT(DISK_SOURCE_FORMAT) | DISK_OPT(DISK_ANYWHERE) |
         DISK_OPT(DISK_COMPRESS) | DISK_OPT(DISK_REPLACE) | DISK_OPT(DISK_OPTION) |
         DISK_OPT(DISK_SNAPSHOT) | DISK_OPT(DISK_DEGRADED),
     2, 2, disk_convert},
    {"check", "FILE [--format FORMAT]", "look for damage and lost space",
     "  --format FORMAT      the image's format, instead of what its content says\n"
     "\nThe exit code is 0 (clean), 3 (space is lost) or 4 (damaged).\n",
     DISK_OPT(DISK_FORMAT), 1, 1, disk_check},
    {"repair", "FILE [--format FORMAT]", "put right what check finds",
     "  --format FORMAT      the image's format, instead of what its content says\n"
     "\nThe exit code is that of a check afterwards.\n",
     DISK_OPT(DISK_FORMAT), 1, 1, disk_repair},
    {"resize", "FILE [+|-]SIZE [OPTION]...", "change the size of a disk",
     "  SIZE                 20G; +5G and -5G count from the present size\n"
     "  --shrink             the end of the disk may be cut off\n" IMAGE_DETAIL,
     DISK_OPT(DISK_FORMAT) | DISK_OPT(DISK_ANYWHERE) | DISK_OPT(DISK_SHRINK), 2, 2, disk_resize},
    {"map", "FILE [OPTION]...", "show where the bytes of a disk are", IMAGE_DETAIL,
     DISK_OPT(DISK_FORMAT) | DISK_OPT(DISK_ANYWHERE), 1, 1, disk_map},
    {"commit", "FILE [OPTION]...", "merge an overlay into its backing file",
     "  --keep               do not empty the overlay\n" IMAGE_DETAIL
     "\nOther overlays of the same backing file are damaged by it.\n",
     DISK_OPT(DISK_FORMAT) | DISK_OPT(DISK_ANYWHERE) | DISK_OPT(DISK_KEEP), 1, 1, disk_commit},
    {"compact", "FILE [OPTION]...", "give back the space of zeroes and of unused clusters",
     IMAGE_DETAIL, DISK_OPT(DISK_FORMAT) | DISK_OPT(DISK_ANYWHERE), 1, 1, disk_compact},
    {"raid", "FILE FILE... --level N [OPTION]...", "make an array of images",
     "  --level N            0: striped; 1: mirrored, with the contents of the first image\n"
     "  --chunk SIZE         RAID 0: bytes together on one image, 64K by default\n"
     "  --destroy-contents   the images need not be empty (RAID 1: all but the "
     "first)\n" IMAGE_DETAIL
     "\nThe last 16 KiB of each image say that it is a member of the array.\n",
     DISK_OPT(DISK_FORMAT) | DISK_OPT(DISK_ANYWHERE) | DISK_OPT(DISK_LEVEL) | DISK_OPT(DISK_CHUNK) |
         DISK_OPT(DISK_DESTROY),
     2, RAID_MAX_MEMBERS, disk_raid},
    {"bench", "FILE [OPTION]...", "measure how fast a disk is",
     "  --mode MODE          read, write, randread (the default), randwrite\n"
     "  --block-size SIZE    of a request, 4K by default\n"
     "  --depth N            requests in flight, 16 by default\n"
     "  --duration N         seconds, 5 by default\n"
     "  --requests N         so many requests, however long they take\n"
     "  --destroy-contents   write, which destroys what is on the disk\n" IMAGE_DETAIL,
     DISK_OPT(DISK_FORMAT) | DISK_OPT(DISK_ANYWHERE) | DISK_OPT(DISK_MODE) |
         DISK_OPT(DISK_BLOCK_SIZE) | DISK_OPT(DISK_DEPTH) | DISK_OPT(DISK_DURATION) |
         DISK_OPT(DISK_REQUESTS) | DISK_OPT(DISK_DESTROY),
     1, 1, disk_bench},
    {NULL, NULL, NULL, NULL, 0, 0, 0, NULL},
};

static const char *nth_verb(const void *list, size_t i)
{
    return ((const struct disk_verb *)list)[i].name;
}

static const struct disk_verb *find_verb(const char *name, struct error *e)
{
    for (const struct disk_verb *v = verbs; v->name; v++)
        if (strcmp(v->name, name) == 0)
            return v;
    const char *near = suggest(name, nth_verb, verbs);
    error_set(e, ERR_USAGE, "disk: unknown verb \"%.40s\"; %s%s", name,
              near ? "did you mean " : "`sosia disk --help` lists them", near ? near : "");
    return NULL;
}

static void print_format_options(FILE *out)
{
    for (const struct format *const *f = formats; *f; f++)
        for (const struct format_option *o = (*f)->options; o && o->name; o++) {
            fprintf(out, "      %-6s %s=%s  %s", (*f)->name, o->name, o->def ? o->def : "",
                    o->help);
            for (const char *const *w = o->words; w && *w; w++)
                fprintf(out, "%s%s", w == o->words ? " (" : "|", *w);
            fprintf(out, "%s\n", o->words ? ")" : "");
        }
}

static void print_verb(FILE *out, const struct disk_verb *v)
{
    fprintf(out, "usage: sosia disk %s %s\n\n%s: %s.\n\n%s", v->name, v->args, v->name, v->summary,
            v->detail);
    if (v->opts & DISK_OPT(DISK_OPTION))
        print_format_options(out);
    fprintf(out, "  --json               print JSON, errors too\n");
    if (!(v->opts & DISK_OPT(DISK_FORMAT)))
        return;
    fprintf(out, "\nFormats:\n");
    for (const struct format *const *f = formats; *f; f++)
        fprintf(out, "  %-8s %s\n", (*f)->name, (*f)->help);
}

void cli_disk_list(FILE *out)
{
    for (const struct disk_verb *v = verbs; v->name; v++)
        fprintf(out, "  %-8s %-34s %s\n", v->name, v->args, v->summary);
    fprintf(out, "\n`sosia disk VERB --help` explains one. Manual: sosia-disk(1).\n");
}

static int take_option(struct disk_args *a, const struct disk_verb *v, int c, char **argv,
                       struct error *e)
{
    if (c == ':')
        return error_set(e, ERR_USAGE, "disk %s: %s needs a value", v->name, argv[optind - 1]);
    c -= LONG(0);
    if (c < 0 || c >= DISK_OPTS || (c != DISK_JSON && !(v->opts & DISK_OPT(c))))
        return error_set(e, ERR_USAGE,
                         "disk %s: unknown option \"%.40s\"; see `sosia disk %s "
                         "--help`",
                         v->name, argv[optind - 1], v->name);
    a->given[c] = true;
    if (optarg)
        a->value[c] = optarg;
    if (c == DISK_OPTION)
        a->option[a->noptions++] = optarg;
    return 0;
}

/* "-1G" is a size, not options. */
static bool is_size(const char *arg)
{
    return arg[0] == '-' && arg[1] >= '0' && arg[1] <= '9';
}

static int add_name(struct disk_args *a, const struct disk_verb *v, const char *name,
                    struct error *e)
{
    if (a->npath >= v->max)
        return error_set(e, ERR_USAGE, "disk %s: unexpected argument \"%.40s\"", v->name, name);
    a->path[a->npath++] = name;
    return 0;
}

static int parse(struct disk_args *a, const struct disk_verb *v, int argc, char **argv,
                 struct error *e)
{
    int rc = 0, c;
    opterr = 0;
    optind = 1;
    while (!rc && optind < argc) {
        if (is_size(argv[optind])) {
            rc = add_name(a, v, argv[optind++], e);
            continue;
        }
        c = getopt_long(argc, argv, "-:", long_options, NULL); /* in the order of argv */
        if (c == -1) {
            while (!rc && optind < argc)
                rc = add_name(a, v, argv[optind++], e);
            break;
        }
        rc = c == 1 ? add_name(a, v, optarg, e) : take_option(a, v, c, argv, e);
    }
    if (!rc && a->npath < v->min)
        rc = error_set(e, ERR_USAGE, "disk %s: %s; usage: sosia disk %s %s", v->name,
                       a->npath ? "an argument is missing" : "which image", v->name, v->args);
    return rc;
}

/* The rules of image.h name the spec file's way around them; here there is another. */
static void translate(struct error *e)
{
    size_t n = strlen(e->msg);
    if (strstr(e->msg, "'backing: anywhere'") && !strstr(e->msg, "--backing-anywhere"))
        snprintf(e->msg + n, sizeof e->msg - n, "; here: --backing-anywhere");
}

static int run_verb(const struct disk_verb *v, int argc, char **argv, struct error *e)
{
    struct disk_args a = {.verb = v->name};
    bool json = false;
    for (int i = 1; i < argc; i++)
        json |= strcmp(argv[i], "--json") == 0; /* also if the arguments are wrong */
    a.option = calloc((size_t)argc, sizeof *a.option);
    int rc = a.option ? parse(&a, v, argc, argv, e) : error_set(e, ERR_NOMEM, "out of memory");
    if (!rc)
        rc = v->run(&a, e);
    free(a.option);
    if (rc < 0 && (v->opts & DISK_OPT(DISK_ANYWHERE)))
        translate(e);
    if (rc < 0 && json) {
        cli_print_json_error(e);
        e->msg[0] = '\0'; /* it has been told */
    }
    return rc;
}

int cli_disk(int argc, char **argv, struct error *e)
{
    if (argc < 2)
        return error_set(e, ERR_USAGE, "disk: which verb? `sosia disk --help` lists them");
    const struct disk_verb *v = find_verb(argv[1], e);
    if (!v)
        return ERR_USAGE;
    if (argc > 2 && (strcmp(argv[2], "--help") == 0 || strcmp(argv[2], "-h") == 0)) {
        print_verb(stdout, v);
        return 0;
    }
    return run_verb(v, argc - 1, argv + 1, e);
}
