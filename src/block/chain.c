/* chain.c - the members of a chain of images, one by one. */
#define _GNU_SOURCE
#include "block/chain.h"

#include <jansson.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "block/layer/raid_super.h"

char *chain_join(const char *from, const char *name)
{
    CLEANUP_FREE char *copy = strdup(from);
    char *joined = NULL;
    if (name[0] == '/')
        return strdup(name);
    if (!copy)
        return NULL;
    const char *folder = dirname(copy);
    if (strcmp(folder, ".") == 0 && from[0] != '.')
        return strdup(name);
    return asprintf(&joined, "%s/%s", folder, name) < 0 ? NULL : joined;
}

static char *text_of(const json_t *info, const char *key)
{
    const char *s = json_string_value(json_object_get(info, key));
    return s ? strdup(s) : NULL;
}

static json_t *raid_json(struct node *n)
{
    struct raid_super s;
    char uuid[2 * RAID_UUID + 1];
    bool found = false;
    if (raid_super_read(n, &s, &found) || !found)
        return NULL;
    for (unsigned i = 0; i < RAID_UUID; i++)
        snprintf(uuid + 2 * i, 3, "%02x", s.uuid[i]);
    json_t *members = json_array();
    for (unsigned i = 0; i < s.slots; i++)
        json_array_append_new(
            members, s.member[i].state == RAID_REBUILDING
                         ? json_pack("{s:s, s:I}", "state", "rebuilding", "done",
                                     (json_int_t)s.member[i].rebuilt)
                         : json_pack("{s:s}", "state", raid_state_name(s.member[i].state)));
    return json_pack("{s:i, s:s, s:i, s:I, s:I, s:I, s:o}", "level", (int)s.level, "uuid", uuid,
                     "member", (int)s.slot, "size", (json_int_t)s.size, "chunk",
                     (json_int_t)s.chunk, "events", (json_int_t)s.events, "members", members);
}

/* Of the file alone. */
static int look(struct chain_link *l, const char *format, struct error *e)
{
    struct image_options o = {.format = format,
                              .readonly = true,
                              .unlocked = true,
                              .check = true,
                              .no_backing = true,
                              .allow_outside = true};
    struct node *n = NULL;
    struct stat st;
    int rc = image_open(l->path, &o, &n, e);
    if (rc)
        return rc;
    l->format = format_find(n->ops->name);
    l->size = node_size(n);
    if (l->format && l->format->info)
        l->info = l->format->info(n);
    l->raid = raid_json(n);
    l->backing = text_of(l->info, "backing-file");
    l->backing_format = text_of(l->info, "backing-format");
    node_close(n);
    if (stat(l->path, &st) == 0) {
        l->length = S_ISREG(st.st_mode) ? (uint64_t)st.st_size : 0;
        l->allocated = S_ISREG(st.st_mode) ? (uint64_t)st.st_blocks * 512 : 0;
    }
    return 0;
}

/* That the whole chain may be opened, by the rules of image.h. */
static int may_open(const char *path, const char *format, bool allow_outside, struct error *e)
{
    struct image_options o = {.format = format,
                              .readonly = true,
                              .unlocked = true,
                              .check = true,
                              .allow_outside = allow_outside};
    struct node *n = NULL;
    int rc = image_open(path, &o, &n, e);
    if (!rc)
        node_close(n);
    return rc;
}

int chain_load(struct chain *c, const char *path, const char *format, bool allow_outside,
               struct error *e)
{
    memset(c, 0, sizeof *c);
    c->link[0].path = strdup(path);
    for (;;) {
        struct chain_link *l = &c->link[c->n];
        if (!l->path)
            return error_set(e, ERR_NOMEM, "%s: out of memory", path);
        int rc = look(l, format, e);
        if (rc) {
            free(l->path);
            l->path = NULL;
            return rc;
        }
        c->n++;
        if (c->n == 1 && l->backing && (rc = may_open(path, format, allow_outside, e)))
            return rc;
        if (!l->backing || c->n == FORMAT_MAX_DEPTH)
            return 0;
        c->link[c->n].path = chain_join(l->path, l->backing);
        format = l->backing_format;
    }
}

void chain_free(struct chain *c)
{
    for (unsigned i = 0; i < c->n; i++) {
        struct chain_link *l = &c->link[i];
        free(l->path);
        free(l->backing);
        free(l->backing_format);
        json_decref(l->info);
        json_decref(l->raid);
    }
    c->n = 0;
}
