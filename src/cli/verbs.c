/* verbs.c - the tables of verbs and options, and the help that follows from them. */
#include <string.h>

#include "base/suggest.h"
#include "cli/cli.h"

const struct cli_option cli_options[CLI_OPTS] = {
    [CLI_JSON] = {"json", 0, NULL, "print JSON, errors too"},
    [CLI_SET] = {"set", 0, "KEY=VALUE",
                 "overrides a key of the spec; VALUE is YAML, may be repeated"},
    [CLI_VERBOSE] = {"verbose", 'v', NULL, "tells more on standard error; -vv tells all"},
    [CLI_LOG_CODE] = {"log-code", 0, "FILE",
                      "writes what the engine jit translates, and how often that runs"},
    [CLI_PERF_MAP] = {"perf-map", 0, NULL, "tells perf(1) about translated code"},
    [CLI_FROM_STATE] = {"state", 0, "FILE", "goes on from a state that was saved before"},
    [CLI_SAVE_TO] = {"save", 0, "FILE", "where Ctrl-A z saves the state"},
    [CLI_DEFAULTS] = {"defaults", 0, NULL, "print a spec file with every key and its default"},
    [CLI_KERNEL] = {"kernel", 0, "FILE", "the spec's `kernel`"},
    [CLI_INITRD] = {"initrd", 0, "FILE", "the spec's `initrd`"},
    [CLI_CMDLINE] = {"cmdline", 0, "TEXT", "the spec's `cmdline`"},
    [CLI_CDROM] = {"cdrom", 0, "FILE", "the spec's `cdrom`"},
    [CLI_DISK] = {"disk", 0, "SIZE|FILE",
                  "a new disk of that size in the VM's folder, or an image that stays where it is; "
                  "may be repeated"},
    [CLI_MEMORY] = {"memory", 0, "SIZE", "the spec's `memory`"},
    [CLI_CPUS] = {"cpus", 0, "NUMBER", "the spec's `cpus`"},
    [CLI_PURGE] = {"purge", 0, NULL, "remove for good, also what is in the trash"},
    [CLI_NAMES] = {"names", 'q', NULL, "print names only"},
    [CLI_LINKED] = {"linked", 0, NULL, "share what is on the disks now, copy what changes"},
    [CLI_FULL] = {"full", 0, NULL, "copy the disks (the default)"},
    [CLI_ATTACH] = {"console", 'c', NULL, "then show the VM's console, as `sosia console` does"},
    [CLI_FORCE] = {"force", 'f', NULL, "pull the plug instead of asking the guest"},
    [CLI_TIMEOUT_S] = {"timeout", 0, "SECONDS", "how long to wait at most"},
    [CLI_FOR] = {"for", 0, "WHAT", "running, stopped or text:REGEX (on the console)"},
    [CLI_FOLLOW] = {"follow", 'f', NULL, "go on with what comes, until the VM ends"},
    [CLI_SERIAL] = {"serial", 0, NULL, "what the guest wrote to its console"},
    [CLI_LINES] = {"lines", 'n', "NUMBER", "only the last lines"},
    [CLI_TEXT] = {"text", 0, NULL, "as text (the only way there is)"},
    [CLI_COPY] = {"copy", 0, NULL, "copy the disks into the VM's folder, as qcow2"},
    [CLI_QEMU] = {"qemu", 0, "COMMAND", "the command line of QEMU, instead of a file"},
    [CLI_DRY_RUN] = {"dry-run", 0, NULL, "print the spec and make nothing"},
};

#define RUN_OPTS    (CLI_OPT(CLI_SET) | CLI_OPT(CLI_VERBOSE))
#define JSON        CLI_OPT(CLI_JSON)
#define SPEC_DETAIL "  SPEC              a spec file, see sosia.yaml(5), or a VM of the catalog\n"
#define VM_DETAIL   "  VM                its name, or the beginning of its name or UUID\n"

#define EACH_DETAIL                                                                          \
    "  VM                its name, or the beginning of its name or UUID; several: each in\n" \
    "                    turn, and one that fails does not keep the others from it\n"

#define EACH_VM .min = 1, .max = -1, .missing = "which VM?", .kind = CLI_ARG_VM
#define ONE_VM  .min = 1, .max = 1, .missing = "which VM?", .kind = CLI_ARG_VM

const struct cli_verb cli_verbs[] = {
    {.name = "create",
     .args = "NAME [SPEC] [OPTION]...",
     .summary = "make a VM",
     .detail = "  NAME              letters, digits, '.', '_' and '-'\n"
               "  SPEC              a spec file to copy; paths in it stay what they are\n",
     .opts = JSON | CLI_OPT(CLI_KERNEL) | CLI_OPT(CLI_INITRD) | CLI_OPT(CLI_CMDLINE) |
             CLI_OPT(CLI_CDROM) | CLI_OPT(CLI_DISK) | CLI_OPT(CLI_MEMORY) | CLI_OPT(CLI_CPUS) |
             CLI_OPT(CLI_SET),
     .min = 1,
     .max = 2,
     .missing = "what shall it be called?",
     .kind = CLI_ARG_FILE,
     .run = cli_create},
    {.name = "import",
     .args = "FILE.vmx | FILE.vbox | - | --qemu COMMAND [NAME] [--copy] [--dry-run]",
     .summary = "make a VM from another program's description of one",
     .detail =
         "  FILE.vmx          a VM of VMware\n"
         "  FILE.vbox         a VM of VirtualBox\n"
         "  -                 a command line of QEMU, from standard input\n"
         "  NAME              what it shall be called; else what it was called\n"
         "\nDisks stay where they are. Standard error tells what was understood, and what was\n"
         "dropped and why.\n",
     .opts = JSON | CLI_OPT(CLI_COPY) | CLI_OPT(CLI_DRY_RUN) | CLI_OPT(CLI_QEMU),
     .max = 2,
     .kind = CLI_ARG_FILE,
     .run = cli_import},
    {.name = "run",
     .args = "SPEC [OPTION]...",
     .summary = "run a VM here until it powers off",
     .detail = SPEC_DETAIL "\nThe guest's serial port is this terminal. Ctrl-A x leaves, Ctrl-A h "
                           "lists the other keys.\n",
     .opts = RUN_OPTS | CLI_OPT(CLI_LOG_CODE) | CLI_OPT(CLI_PERF_MAP) | CLI_OPT(CLI_FROM_STATE) |
             CLI_OPT(CLI_SAVE_TO),
     .min = 1,
     .max = 1,
     .missing = "which spec file?",
     .kind = CLI_ARG_VM_OR_FILE,
     .run = cli_run,
     .plain = true},
    {.name = "ls",
     .args = "[--names]",
     .summary = "list the VMs",
     .detail = "",
     .opts = JSON | CLI_OPT(CLI_NAMES),
     .run = cli_ls},
    {.name = "info",
     .args = "VM",
     .summary = "show what a VM is and how it is",
     .detail = VM_DETAIL,
     .opts = JSON,
     .min = 1,
     .max = 1,
     .missing = "which VM?",
     .kind = CLI_ARG_VM,
     .run = cli_info},
    {.name = "set",
     .args = "VM KEY=VALUE...",
     .summary = "change keys of a VM's spec",
     .detail = VM_DETAIL
     "  KEY=VALUE         VALUE is YAML; without one the key goes, and its default counts\n"
     "\nComments and order stay. What runs is not changed, but what is started next.\n",
     .opts = JSON,
     .min = 2,
     .max = -1,
     .missing = "which VM, and which KEY=VALUE?",
     .kind = CLI_ARG_VM,
     .run = cli_set},
    {.name = "edit",
     .args = "VM",
     .summary = "change a VM's spec with your editor",
     .detail = VM_DETAIL "\nThe editor is $VISUAL, else $EDITOR, else vi. Only a spec without "
                         "mistakes is taken over.\n",
     .min = 1,
     .max = 1,
     .missing = "which VM?",
     .kind = CLI_ARG_VM,
     .run = cli_edit},
    {.name = "spec",
     .args = "[VM | --defaults]",
     .summary = "list the keys of a spec file, or print a VM's",
     .detail = VM_DETAIL,
     .opts = CLI_OPT(CLI_DEFAULTS),
     .max = 1,
     .kind = CLI_ARG_VM,
     .run = cli_spec},
    {.name = "check",
     .args = "SPEC [OPTION]...",
     .summary = "check a spec file and the files it names",
     .detail = SPEC_DETAIL,
     .opts = RUN_OPTS | JSON,
     .min = 1,
     .max = 1,
     .missing = "which spec file?",
     .kind = CLI_ARG_VM_OR_FILE,
     .run = cli_check},
    {.name = "start",
     .args = "VM... [-c]",
     .summary = "start a VM in the background",
     .detail = EACH_DETAIL,
     .opts = JSON | CLI_OPT(CLI_ATTACH),
     EACH_VM,
     .run = cli_start},
    {.name = "stop",
     .args = "VM... [-f] [--timeout SECONDS]",
     .summary = "ask the guest to power off, and wait until it has",
     .detail = EACH_DETAIL,
     .opts = JSON | CLI_OPT(CLI_FORCE) | CLI_OPT(CLI_TIMEOUT_S),
     EACH_VM,
     .run = cli_stop},
    {.name = "restart",
     .args = "VM... [-f] [-c] [--timeout SECONDS]",
     .summary = "stop and start",
     .detail = EACH_DETAIL,
     .opts = JSON | CLI_OPT(CLI_FORCE) | CLI_OPT(CLI_TIMEOUT_S) | CLI_OPT(CLI_ATTACH),
     EACH_VM,
     .run = cli_restart},
    {.name = "reset",
     .args = "VM...",
     .summary = "press the reset button",
     .detail = EACH_DETAIL,
     .opts = JSON,
     EACH_VM,
     .run = cli_reset},
    {.name = "pause",
     .args = "VM...",
     .summary = "stop a VM's processors and its clock",
     .detail = EACH_DETAIL,
     .opts = JSON,
     EACH_VM,
     .run = cli_pause},
    {.name = "resume",
     .args = "VM...",
     .summary = "let a paused VM go on",
     .detail = EACH_DETAIL,
     .opts = JSON,
     EACH_VM,
     .run = cli_resume},
    {.name = "suspend",
     .args = "VM...",
     .summary = "save a VM's state and end its process; start lets it go on",
     .detail = EACH_DETAIL "\n`sosia stop -f` throws the state away.\n",
     .opts = JSON,
     EACH_VM,
     .run = cli_suspend},
    {.name = "wait",
     .args = "VM [--for WHAT] [--timeout SECONDS]",
     .summary = "wait until a VM runs, has stopped, or has written something",
     .detail = VM_DETAIL,
     .opts = JSON | CLI_OPT(CLI_FOR) | CLI_OPT(CLI_TIMEOUT_S),
     ONE_VM,
     .run = cli_wait},
    {.name = "console",
     .args = "VM",
     .summary = "use a VM's console in this terminal",
     .detail =
         VM_DETAIL "\nCtrl-A x leaves it, and the VM goes on. Ctrl-A h lists the other keys.\n",
     ONE_VM,
     .run = cli_console},
    {.name = "logs",
     .args = "VM [-f] [-n NUMBER] [--serial]",
     .summary = "show what a VM's process had to say, or its guest",
     .detail = VM_DETAIL,
     .opts = JSON | CLI_OPT(CLI_FOLLOW) | CLI_OPT(CLI_LINES) | CLI_OPT(CLI_SERIAL),
     ONE_VM,
     .run = cli_logs},
    {.name = "events",
     .args = "VM [-f] [-n NUMBER]",
     .summary = "show what happened to a VM: a JSON object a line",
     .detail = VM_DETAIL,
     .opts = JSON | CLI_OPT(CLI_FOLLOW) | CLI_OPT(CLI_LINES),
     ONE_VM,
     .run = cli_events},
    {.name = "screen",
     .args = "VM [--text]",
     .summary = "show a VM's text screen",
     .detail = VM_DETAIL,
     .opts = JSON | CLI_OPT(CLI_TEXT),
     ONE_VM,
     .run = cli_screen},
    {.name = "type",
     .args = "VM TEXT",
     .summary = "type on a VM's keyboard",
     .detail = VM_DETAIL "  TEXT              characters of a US keyboard; a line end is Enter\n",
     .opts = JSON,
     .min = 2,
     .max = 2,
     .missing = "which VM, and which text?",
     .kind = CLI_ARG_VM,
     .run = cli_type},
    {.name = "key",
     .args = "VM KEY...",
     .summary = "press keys on a VM's keyboard",
     .detail = VM_DETAIL "  KEY               a, f1, ret, esc ...; ctrl-alt-del: all at once\n",
     .opts = JSON,
     .min = 2,
     .max = -1,
     .missing = "which VM, and which key?",
     .kind = CLI_ARG_VM,
     .run = cli_key},
    {.name = "engine",
     .args = "VM jit | interp",
     .summary = "let a running VM go on with another engine",
     .detail = VM_DETAIL,
     .opts = JSON,
     .min = 2,
     .max = 2,
     .missing = "which VM, and which engine?",
     .kind = CLI_ARG_VM,
     .run = cli_engine},
    {.name = "resize",
     .args = "VM DISK SIZE",
     .summary = "make a disk of a running VM larger",
     .detail = VM_DETAIL
     "  DISK              disk0, disk1 ...: in the order of the spec\n"
     "  SIZE              20G, or +4G for so much more\n"
     "\nThe guest sees it at once. For a VM that does not run: `sosia disk resize`.\n",
     .opts = JSON,
     .min = 3,
     .max = 3,
     .missing = "which VM, which disk, and what size?",
     .kind = CLI_ARG_VM,
     .run = cli_resize},
    {.name = "top",
     .args = "",
     .summary = "show what the running VMs take of the host",
     .detail = "\nOn a terminal, again each second; q and Enter leave.\n",
     .opts = JSON,
     .run = cli_top},
    {.name = "clone",
     .args = "VM[@SNAPSHOT] NEWNAME [--linked | --full]",
     .summary = "make a VM from one that does not run, or from a snapshot",
     .detail = VM_DETAIL,
     .opts = JSON | CLI_OPT(CLI_LINKED) | CLI_OPT(CLI_FULL),
     .min = 2,
     .max = 2,
     .missing = "which VM, and what shall the clone be called?",
     .kind = CLI_ARG_VM,
     .run = cli_clone},
    {.name = "snap",
     .args = "VERB VM [SNAPSHOT]...",
     .summary = "keep what a VM is at one moment, and go back to it",
     .detail = VM_DETAIL "  SNAPSHOT          its name; take invents one: s1, s2 ...\n"
                         "\nA VM that runs stands still for a moment, and goes on.\n",
     .opts = JSON | CLI_OPT(CLI_FORCE),
     .min = 2,
     .max = -1,
     .missing = "which verb (take, ls, tree, restore, diff, rm), and which VM?",
     .kind = CLI_ARG_SNAP,
     .run = cli_snap,
     .list = cli_snap_list},
    {.name = "rename",
     .args = "VM NEWNAME",
     .summary = "give a VM another name",
     .detail = VM_DETAIL,
     .opts = JSON,
     .min = 2,
     .max = 2,
     .missing = "which VM, and what shall it be called?",
     .kind = CLI_ARG_VM,
     .run = cli_rename},
    {.name = "rm",
     .args = "VM... [--purge]",
     .summary = "put VMs into the trash",
     .detail = VM_DETAIL "\n`sosia recover` gets them back.\n",
     .opts = JSON | CLI_OPT(CLI_PURGE),
     .min = 1,
     .max = -1,
     .missing = "which VM?",
     .kind = CLI_ARG_VM,
     .run = cli_rm},
    {.name = "recover",
     .args = "[VM [NEWNAME]]",
     .summary = "get a VM back out of the trash, or list what is in it",
     .detail = VM_DETAIL,
     .opts = JSON,
     .max = 2,
     .run = cli_recover},
    {.name = "disk",
     .args = "VERB FILE [ARGUMENT]...",
     .summary = "make, look at and change disk images",
     .detail = "",
     .kind = CLI_ARG_FILE,
     .raw = cli_disk,
     .list = cli_disk_list,
     .plain = true},
    {.name = "doctor",
     .args = "",
     .summary = "tell what this host can do, and how to mend what it cannot",
     .detail = "\nThe exit code is 6 if something is missing that VMs need.\n",
     .opts = JSON,
     .run = cli_doctor},
    {.name = "completion",
     .args = "bash | zsh | fish",
     .summary = "print a script that completes command lines in a shell",
     .detail = "\nFor bash: source <(sosia completion bash)\n",
     .min = 1,
     .max = 1,
     .missing = "for which shell: bash, zsh or fish?",
     .run = cli_completion},
    {.name = "help",
     .args = "[VERB]",
     .summary = "explain a verb",
     .detail = "",
     .max = 1,
     .kind = CLI_ARG_VERB,
     .run = cli_help},
    {.name = NULL},
};

static const char *nth_verb(const void *list, size_t i)
{
    return ((const struct cli_verb *)list)[i].name;
}

const struct cli_verb *cli_find_verb(const char *name, struct error *e)
{
    for (const struct cli_verb *v = cli_verbs; v->name; v++)
        if (strcmp(v->name, name) == 0)
            return v;
    const char *near = suggest(name, nth_verb, cli_verbs);
    if (near)
        error_set(e, ERR_USAGE, "unknown verb \"%.40s\"; did you mean \"%s\"?", name, near);
    else
        error_set(e, ERR_USAGE, "unknown verb \"%.40s\"; `sosia help` lists the verbs", name);
    return NULL;
}

void cli_print_usage(FILE *out)
{
    fprintf(out,
            "usage: sosia VERB [ARGUMENT]...\n"
            "       sosia --help | --version\n\n"
            "Runs virtual machines in an ordinary process: no KVM, no root, no kernel module.\n"
            "\nVerbs:\n");
    for (const struct cli_verb *v = cli_verbs; v->name; v++)
        fprintf(out, "  %-10s %s\n", v->name, v->summary);
    fprintf(out,
            "\n`sosia help VERB` explains one. Manuals: sosia(1), sosia-disk(1), sosia.yaml(5).\n");
}

static void print_option(FILE *out, const struct cli_option *o)
{
    char left[64];
    snprintf(left, sizeof left, "%s%c%s--%s%s%s", o->letter ? "-" : "", o->letter ? o->letter : ' ',
             o->letter ? ", " : "", o->name, o->value ? " " : "", o->value ? o->value : "");
    const char *shown = o->letter ? left : left + 1;
    fprintf(out, strlen(shown) > 17 ? "  %s\n                    %s\n" : "  %-17s %s\n", shown,
            o->help);
}

void cli_print_verb(FILE *out, const struct cli_verb *v)
{
    fprintf(out, "usage: sosia %s %s\n\n%s: %s.\n", v->name, v->args, v->name, v->summary);
    if (v->detail[0])
        fprintf(out, "%s%s", v->detail[0] == '\n' ? "" : "\n", v->detail);
    if (v->opts)
        fprintf(out, "\nOptions:\n");
    for (int o = 0; o < CLI_OPTS; o++)
        if (v->opts & CLI_OPT(o))
            print_option(out, &cli_options[o]);
    if (v->list) {
        fprintf(out, "\nVerbs:\n");
        v->list(out);
    }
}
