/* catalog.c - the folders of the catalog, and finding a VM in them; see catalog.h. */
#define _GNU_SOURCE
#include "catalog/catalog.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/suggest.h"
#include "catalog/lock.h"
#include "catalog/state.h"
#include "catalog/store.h"

#define UUID_LEAST 4 /* characters of a UUID that may stand for it */

/* ---- the home folder ---- */

static char *home_path(void)
{
    const char *home = getenv("SOSIA_HOME"), *data = getenv("XDG_DATA_HOME");
    const char *user = getenv("HOME");
    char *out = NULL;
    if (home && home[0])
        return strdup(home);
    /* XDG Base Directory Specification: relative paths are to be ignored. */
    if (data && data[0] == '/')
        return asprintf(&out, "%s/sosia", data) < 0 ? NULL : out;
    if (user && user[0] == '/')
        return asprintf(&out, "%s/.local/share/sosia", user) < 0 ? NULL : out;
    return NULL;
}

/* mkdir -p */
static int make_path(char *path, struct error *e)
{
    for (char *slash = path + 1; (slash = strchr(slash, '/')); slash++) {
        *slash = 0;
        int r = mkdir(path, 0777);
        *slash = '/';
        if (r < 0 && errno != EEXIST && errno != EROFS && errno != EACCES)
            break; /* the next step says what is wrong */
    }
    if (mkdir(path, 0700) < 0 && errno != EEXIST)
        return error_file(e, errno, "%s: cannot make the folder for VMs", path);
    return 0;
}

/* Root acts on another user's VMs as that user: what is made there is that user's, who can go on
 * with it, and what a spec names is opened with that user's rights. In a container whose ids do not
 * reach the owner, root stays root. */
static int become_owner(const struct catalog *c, struct error *e)
{
    struct stat st;
    if (geteuid() != 0 || fstat(c->home_fd, &st) < 0 || st.st_uid == 0)
        return 0;
    const struct passwd *p = getpwuid(st.st_uid);
    gid_t gid = p ? p->pw_gid : st.st_gid;
    if ((p ? initgroups(p->pw_name, gid) : setgroups(0, NULL)) < 0 || setgid(gid) < 0 ||
        setuid(st.st_uid) < 0)
        return errno == EINVAL || errno == EPERM
                   ? 0
                   : error_errno(e, ERR_HOST, errno, "%s: cannot become the owner", c->home);
    prctl(PR_SET_DUMPABLE, 1); /* or its files in /proc stay root's */
    return 0;
}

static int open_folders(struct catalog *c, bool make, struct error *e)
{
    int rc = make ? make_path(c->home, e) : 0;
    if (rc)
        return rc;
    c->home_fd = open(c->home, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (c->home_fd < 0 && errno == ENOENT)
        return 0; /* nothing there yet */
    if (c->home_fd < 0)
        return error_file(e, errno, "%s: cannot open the folder of the VMs", c->home);
    rc = become_owner(c, e);
    if (rc)
        return rc;
    c->vms = store_folder(c->home_fd, "vms", make, e);
    if (c->vms < 0 && (make || c->vms != ERR_NOTFOUND))
        return c->vms;
    c->trash = store_folder(c->home_fd, "trash", make, e);
    if (c->trash < 0 && (make || c->trash != ERR_NOTFOUND))
        return c->trash;
    return 0;
}

int catalog_open(struct catalog *c, bool make, struct error *e)
{
    *c = (struct catalog){.home = home_path(), .home_fd = -1, .vms = -1, .trash = -1, .lock = -1};
    if (!c->home)
        return error_set(e, ERR_USAGE,
                         "no home folder is known; set SOSIA_HOME to a folder for "
                         "VMs");
    int rc = open_folders(c, make, e);
    if (rc)
        catalog_close(c);
    return rc;
}

static void close_fd(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

void catalog_close(struct catalog *c)
{
    close_fd(&c->home_fd);
    close_fd(&c->vms);
    close_fd(&c->trash);
    close_fd(&c->lock);
    free(c->home);
    c->home = NULL;
}

int catalog_lock(struct catalog *c, struct error *e)
{
    int fd = vm_lock_open(c->home_fd, true, e);
    if (fd < 0)
        return fd;
    int rc = vm_lock_wait(fd, VM_LOCK_VERB, c->home, e);
    if (rc)
        close(fd);
    else
        c->lock = fd;
    return rc;
}

/* ---- names ---- */

static bool is_name(const char *name)
{
    size_t n = 0;
    for (; name[n]; n++)
        if (!isalnum((unsigned char)name[n]) && (n == 0 || !strchr("._-", name[n])))
            return false;
    return n > 0 && n <= VM_NAME_MAX;
}

int catalog_check_name(const char *name, struct error *e)
{
    if (is_name(name))
        return 0;
    return error_set(e, ERR_USAGE,
                     "\"%.80s\" cannot be the name of a VM; up to %d letters, digits, '.', '_' and "
                     "'-', the first a letter or digit",
                     name, VM_NAME_MAX);
}

size_t catalog_trash_name(const char *name)
{
    const char *dot = strrchr(name, '.');
    return dot && dot > name && strlen(dot) == 9 && strspn(dot + 1, "0123456789abcdef") == 8
               ? (size_t)(dot - name)
               : 0;
}

static int compare_names(const void *a, const void *b)
{
    return strverscmp(*(char *const *)a, *(char *const *)b);
}

static int add_name(struct vm_names *list, size_t *cap, const char *name)
{
    if (list->n == *cap) {
        *cap = *cap ? *cap * 2 : 64;
        char **grown = realloc(list->name, *cap * sizeof *grown);
        if (!grown)
            return -1;
        list->name = grown;
    }
    list->name[list->n] = strdup(name);
    return list->name[list->n++] ? 0 : -1;
}

int catalog_list(int folder, struct vm_names *list, struct error *e)
{
    size_t cap = 0;
    *list = (struct vm_names){0};
    if (folder < 0)
        return 0;
    DIR *d = store_list(folder, ".");
    if (!d)
        return error_file(e, errno, "cannot read the folder of the VMs");
    int rc = 0;
    for (struct dirent *f; !rc && (f = readdir(d));)
        if ((is_name(f->d_name) || catalog_trash_name(f->d_name)) && f->d_name[0] != '.' &&
            (f->d_type == DT_DIR || f->d_type == DT_UNKNOWN))
            rc = add_name(list, &cap, f->d_name);
    closedir(d);
    if (rc) {
        catalog_list_free(list);
        return error_set(e, ERR_NOMEM, "out of memory");
    }
    if (list->n)
        qsort(list->name, list->n, sizeof *list->name, compare_names);
    return 0;
}

void catalog_list_free(struct vm_names *list)
{
    for (size_t i = 0; i < list->n; i++)
        free(list->name[i]);
    free(list->name);
    *list = (struct vm_names){0};
}

/* ---- one VM ---- */

static int no_such(const char *name, struct error *e)
{
    return error_set(e, ERR_NOTFOUND, "there is no VM \"%.80s\"; `sosia ls` lists them", name);
}

/* Not renamed or removed between opening and locking. */
static bool is_same(int folder, const char *name, int dir)
{
    struct stat a, b;
    return fstatat(folder, name, &a, AT_SYMLINK_NOFOLLOW) == 0 && fstat(dir, &b) == 0 &&
           a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

int vm_open(int folder, const char *name, enum vm_find how, struct vm *vm, struct error *e)
{
    static const char *const written[] = {VM_SPEC, VM_STATE_FILE, NULL};
    char path[STORE_PATH];
    *vm = (struct vm){.dir = -1, .lock = -1};
    snprintf(vm->name, sizeof vm->name, "%s", name);
    vm->dir = openat(folder, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    if (vm->dir < 0 && (errno == ENOENT || errno == ENOTDIR))
        return no_such(name, e);
    if (vm->dir < 0)
        return error_file(e, errno, "%s: cannot open the VM's folder",
                          store_path(folder, name, path));
    vm->path = strdup(store_path(folder, name, path));
    int rc = vm->path ? 0 : error_set(e, ERR_NOMEM, "out of memory");
    if (!rc) {
        vm->lock = vm_lock_open(vm->dir, how == VM_FIND_CHANGE, e);
        rc = vm->lock < 0 ? vm->lock : 0;
    }
    if (rc == ERR_NOTFOUND)
        rc = error_set(e, ERR_DAMAGED, "%s is missing; if this is a VM, make an empty file there",
                       store_path(vm->dir, VM_LOCK_FILE, path));
    if (!rc && how == VM_FIND_CHANGE)
        rc = vm_lock_wait(vm->lock, VM_LOCK_VERB, name, e);
    if (!rc && !is_same(folder, name, vm->dir))
        rc = no_such(name, e);
    if (rc)
        vm_close(vm);
    else if (how == VM_FIND_CHANGE)
        store_sweep(vm->dir, written);
    return rc;
}

void vm_close(struct vm *vm)
{
    close_fd(&vm->dir);
    close_fd(&vm->lock);
    free(vm->path);
    vm->path = NULL;
}

void vm_unlock(struct vm *vm)
{
    vm_lock_drop(vm->lock, VM_LOCK_VERB);
}

/* ---- finding one ---- */

struct match {
    const char *first;
    unsigned count;
    char all[200];
};

static void add_match(struct match *m, const char *name)
{
    size_t n = strlen(m->all);
    if (!m->count++)
        m->first = name;
    if (m->count <= 5)
        snprintf(m->all + n, sizeof m->all - n, "%s%.30s", n ? ", " : "", name);
    else if (m->count == 6)
        snprintf(m->all + n, sizeof m->all - n, " ...");
}

static void match_uuids(int folder, const struct vm_names *list, const char *ref, struct match *m)
{
    size_t n = strlen(ref);
    if (n < UUID_LEAST || strspn(ref, "0123456789abcdefABCDEF-") != n)
        return;
    for (size_t i = 0; i < list->n; i++) {
        struct vm_state s;
        struct error unused;
        CLEANUP_CLOSE int dir = openat(folder, list->name[i], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (dir < 0 || vm_state_load(dir, &s, &unused))
            continue;
        if (strncasecmp(s.uuid, ref, n) == 0)
            add_match(m, list->name[i]);
        vm_state_fini(&s);
    }
}

static const char *nth_name(const void *list, size_t i)
{
    const struct vm_names *l = list;
    return i < l->n ? l->name[i] : NULL;
}

static int find_in(int folder, const struct vm_names *list, const char *ref, const char **name,
                   struct error *e)
{
    struct match m = {0};
    for (size_t i = 0; i < list->n; i++)
        if (strncmp(list->name[i], ref, strlen(ref)) == 0)
            add_match(&m, list->name[i]);
    if (!m.count)
        match_uuids(folder, list, ref, &m);
    *name = m.first;
    if (m.count == 1)
        return 0;
    if (m.count > 1)
        return error_set(e, ERR_USAGE, "\"%.60s\" could be any of: %s", ref, m.all);
    const char *near = suggest(ref, nth_name, list);
    if (near)
        return error_set(e, ERR_NOTFOUND, "there is no VM \"%.80s\"; did you mean \"%s\"?", ref,
                         near);
    return no_such(ref, e);
}

static int find(int folder, const char *ref, enum vm_find how, struct vm *vm, struct error *e)
{
    struct vm_names list;
    const char *name;
    *vm = (struct vm){.dir = -1, .lock = -1};
    if (folder < 0 || !ref[0])
        return no_such(ref, e);
    if (is_name(ref)) {
        int rc = vm_open(folder, ref, how, vm, e);
        if (rc != ERR_NOTFOUND)
            return rc;
    }
    int rc = catalog_list(folder, &list, e);
    if (!rc)
        rc = find_in(folder, &list, ref, &name, e);
    if (!rc)
        rc = vm_open(folder, name, how, vm, e);
    catalog_list_free(&list);
    return rc;
}

int catalog_find(const struct catalog *c, const char *ref, enum vm_find how, struct vm *vm,
                 struct error *e)
{
    return find(c->vms, ref, how, vm, e);
}

int catalog_find_trash(const struct catalog *c, const char *ref, struct vm *vm, struct error *e)
{
    int rc = find(c->trash, ref, VM_FIND_CHANGE, vm, e);
    if (rc == ERR_NOTFOUND)
        return error_set(e, rc, "there is no VM \"%.80s\" in the trash; `sosia recover` lists them",
                         ref);
    return rc;
}
