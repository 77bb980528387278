/* set.c - `sosia set` and `sosia edit`: changes to the spec of a VM. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "catalog/store.h"
#include "cli/vms.h"
#include "spec/edit.h"
#include "spec/source.h"

/* What the host has to say about the new spec is no reason to refuse it, and when it counts. */
static void remark(const struct vm *vm)
{
    struct spec s;
    struct error e = {0};
    struct vm_status status;
    if (vm_spec_load(vm, NULL, 0, &s, &e) == 0) {
        if (spec_check(&s, &e) < 0)
            fprintf(stderr, "sosia: but it could not be started now: %s: %s\n", e.where, e.msg);
        spec_fini(&s);
    }
    vm_status_read(vm, &status);
    if (vm_is_alive(&status))
        fprintf(stderr, "%s is %s: the change counts when it is started next\n", vm->name,
                vm_run_words[status.run]);
}

int cli_set(const struct cli_args *a, struct error *e)
{
    struct catalog c;
    struct vm vm;
    char *text = NULL;
    size_t len;
    int rc = vms_open(&c, a->pos[0], VM_FIND_CHANGE, &vm, e);
    if (rc)
        return rc;
    rc = vm_spec_text(&vm, &text, &len, e);
    for (int i = 1; !rc && i < a->npos; i++) {
        char *now = NULL;
        rc = spec_edit_set(VM_SPEC, text, a->pos[i], &now, e);
        if (!rc) {
            free(text);
            text = now;
        }
    }
    if (!rc)
        rc = vm_spec_write(&vm, text, e);
    if (!rc && cli_has(a, CLI_JSON))
        rc = cli_print_json(vms_json(&vm), e);
    else if (!rc)
        remark(&vm);
    free(text);
    vm_close(&vm);
    catalog_close(&c);
    return rc;
}

/* ---- edit ---- */

static int run_editor(const char *path, struct error *e)
{
    const char *editor = getenv("VISUAL");
    int status;
    if (!editor || !editor[0])
        editor = getenv("EDITOR");
    if (!editor || !editor[0])
        editor = "vi";
    fflush(NULL);
    pid_t pid = fork();
    if (pid < 0)
        return error_errno(e, ERR_HOST, errno, "cannot start the editor");
    if (pid == 0) { /* the editor may be a command line: "code --wait" */
        CLEANUP_FREE char *line = NULL;
        if (asprintf(&line, "%s \"$1\"", editor) >= 0)
            execl("/bin/sh", "sh", "-c", line, "sh", path, (char *)NULL);
        _exit(127);
    }
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            return error_errno(e, ERR_HOST, errno, "the editor");
    if (!WIFEXITED(status) || WEXITSTATUS(status))
        return error_set(e, ERR_HOST, "the editor \"%.60s\" failed; nothing is changed", editor);
    return 0;
}

/* The user's text stays in its file if it is not taken over. */
static int take_over(struct catalog *c, const char *ref, const char *before, const char *path,
                     struct error *e)
{
    CLEANUP_FREE char *text = NULL, *now = NULL;
    size_t len;
    struct vm vm;
    int rc = store_read(AT_FDCWD, path, SPEC_MAX_TEXT, &text, &len, e);
    if (rc)
        return rc;
    if (strcmp(text, before) == 0) {
        fprintf(stderr, "nothing is changed\n");
        return 0;
    }
    rc = catalog_find(c, ref, VM_FIND_CHANGE, &vm, e);
    if (rc)
        return rc;
    rc = vm_spec_text(&vm, &now, &len, e);
    if (!rc && strcmp(now, before) != 0)
        rc = error_set(e, ERR_BUSY, "the spec was changed meanwhile; your text is in %s", path);
    if (!rc)
        rc = vm_spec_write(&vm, text, e);
    if (!rc)
        remark(&vm);
    vm_close(&vm);
    return rc;
}

int cli_edit(const struct cli_args *a, struct error *e)
{
    struct catalog c;
    struct vm vm;
    CLEANUP_FREE char *text = NULL;
    size_t len;
    const char *folder = getenv("TMPDIR");
    CLEANUP_FREE char *path = NULL;
    int rc = vms_open(&c, a->pos[0], VM_FIND_READ, &vm, e);
    if (rc)
        return rc;
    rc = vm_spec_text(&vm, &text, &len, e);
    if (!rc &&
        asprintf(&path, "%s/sosia-edit-XXXXXX.yaml", folder && folder[0] ? folder : "/tmp") < 0) {
        path = NULL;
        rc = error_set(e, ERR_NOMEM, "out of memory");
    }
    int fd = rc ? -1 : mkostemps(path, 5, O_CLOEXEC);
    if (!rc && (fd < 0 || write(fd, text, len) != (ssize_t)len))
        rc = error_file(e, errno, "%s: cannot write it", path);
    if (fd >= 0)
        close(fd);
    if (!rc)
        rc = run_editor(path, e);
    if (!rc)
        rc = take_over(&c, vm.name, text, path, e);
    if (rc == ERR_SPEC || rc == ERR_STATE)
        fprintf(stderr, "sosia: nothing is changed; your text is in %s\n", path);
    else if (rc != ERR_BUSY && fd >= 0)
        unlink(path);
    vm_close(&vm);
    catalog_close(&c);
    return rc;
}
