/* disk_info.c - `sosia disk info`: what an image is, what it is made of, who uses it. */
#include "cli/disk.h"

#include <fcntl.h>
#include <string.h>

#include "base/cleanup.h"
#include "block/chain.h"
#include "block/io/lock.h"

static json_t *link_json(const struct chain_link *l)
{
    json_t *o =
        json_pack("{s:o, s:s, s:I, s:I, s:I}", "file", cli_json_text(l->path), "format",
                  l->format ? l->format->name : "unknown", "virtual-size", (json_int_t)l->size,
                  "allocated-size", (json_int_t)l->allocated, "file-size", (json_int_t)l->length);
    if (l->info)
        json_object_set(o, "format-specific", l->info);
    if (l->raid)
        json_object_set(o, "raid", l->raid);
    return o;
}

static int print_json(const struct chain *c, const char *who, bool writes, struct error *e)
{
    json_t *o = link_json(&c->link[0]);
    json_t *list = json_array();
    for (unsigned i = 1; i < c->n; i++)
        json_array_append_new(list, link_json(&c->link[i]));
    json_object_set_new(o, "backing-chain", list);
    json_object_set_new(o, "locked-by", cli_json_text(who[0] ? who : NULL));
    json_object_set_new(o, "lock", who[0] ? json_string(writes ? "write" : "read") : json_null());
    return cli_print_json(o, e);
}

/* A text of an image: its control characters are not for the terminal. */
static void print_text(const char *s)
{
    for (; *s; s++)
        putchar((unsigned char)*s < 32 || *s == 127 ? '?' : *s);
}

static void print_value(const json_t *v)
{
    char *text = json_dumps(v, JSON_ENCODE_ANY | JSON_COMPACT);
    if (json_is_string(v))
        print_text(json_string_value(v));
    else if (json_is_boolean(v))
        printf("%s", json_is_true(v) ? "yes" : "no");
    else
        print_text(text ? text : "?");
    free(text);
}

static void print_snapshots(json_t *list)
{
    size_t i;
    json_t *s;
    json_array_foreach(list, i, s)
    {
        char text[32];
        const char *id = json_string_value(json_object_get(s, "id"));
        const char *name = json_string_value(json_object_get(s, "name"));
        printf("  snapshot:   ");
        print_text(id ? id : "?");
        printf(" \"");
        print_text(name ? name : "?");
        printf("\", disk of %s\n",
               size_format(text, (uint64_t)json_integer_value(json_object_get(s, "disk-size"))));
    }
}

/* The members as this one knows them: of two that differ the one with more events is right. */
static void print_raid(const json_t *raid)
{
    char text[32];
    size_t i;
    json_t *m;
    json_int_t self = json_integer_value(json_object_get(raid, "member"));
    printf("  array:      RAID %d, %s of each member, events %lld, %s\n",
           (int)json_integer_value(json_object_get(raid, "level")),
           size_format(text, (uint64_t)json_integer_value(json_object_get(raid, "size"))),
           (long long)json_integer_value(json_object_get(raid, "events")),
           json_string_value(json_object_get(raid, "uuid")));
    json_array_foreach(json_object_get(raid, "members"), i, m)
    {
        const json_t *done = json_object_get(m, "done");
        printf("  member %zu:   %s", i, json_string_value(json_object_get(m, "state")));
        if (done)
            printf(", %s done", size_format(text, (uint64_t)json_integer_value(done)));
        printf("%s\n", (json_int_t)i == self ? " (this one)" : "");
    }
}

static void print_link(const struct chain_link *l)
{
    char virtual[32], allocated[32];
    const char *key;
    json_t *v;
    print_text(l->path);
    printf("\n  format:     %s\n  size:       %s (%llu bytes)\n  on disk:    %s\n",
           l->format ? l->format->name : "unknown", size_format(virtual, l->size),
           (unsigned long long)l->size, size_format(allocated, l->allocated));
    json_object_foreach(l->info, key, v)
    {
        if (strcmp(key, "snapshots") == 0 || json_is_null(v))
            continue;
        printf("  %s: ", key);
        print_value(v);
        putchar('\n');
    }
    print_snapshots(json_object_get(l->info, "snapshots"));
    if (l->raid)
        print_raid(l->raid);
}

int disk_info(const struct disk_args *a, struct error *e)
{
    struct chain c;
    char who[128] = "";
    bool writes = false;
    int rc = chain_load(&c, a->path[0], a->value[DISK_FORMAT], a->given[DISK_ANYWHERE], e);
    if (!rc) {
        CLEANUP_CLOSE int fd = open(a->path[0], O_RDONLY | O_CLOEXEC | O_NONBLOCK);
        if (fd >= 0)
            lock_holder(fd, who, sizeof who, &writes);
    }
    if (!rc && a->given[DISK_JSON])
        rc = print_json(&c, who, writes, e);
    else if (!rc)
        for (unsigned i = 0; i < c.n; i++) {
            printf("%s", i ? "backed by " : "");
            print_link(&c.link[i]);
            if (i == 0 && who[0])
                printf("  used by:    %s, which %s it\n", who, writes ? "writes" : "reads");
        }
    chain_free(&c);
    return rc;
}
