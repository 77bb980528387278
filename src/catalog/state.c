/* state.c - see state.h. */
#include "catalog/state.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "base/cleanup.h"
#include "catalog/store.h"

#define MAX_STATE (1u * 1024 * 1024)

/* RFC 9562, 5.4: version 4, variant 10. */
static void format_uuid(const uint8_t b[16], char out[37])
{
    snprintf(out, 37, "%02x%02x%02x%02x-%02x%02x-4%01x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", b[0],
             b[1], b[2], b[3], b[4], b[5], b[6] & 15, b[7], (b[8] & 0x3f) | 0x80, b[9], b[10],
             b[11], b[12], b[13], b[14], b[15]);
}

int vm_state_new(struct vm_state *s, struct error *e)
{
    uint8_t b[16];
    *s = (struct vm_state){.created = (int64_t)time(NULL)};
    if (getrandom(b, sizeof b, 0) != sizeof b)
        return error_errno(e, ERR_IO, errno, "no random numbers");
    format_uuid(b, s->uuid);
    s->root = json_pack("{s:i, s:s, s:I}", "version", VM_STATE_VERSION, "uuid", s->uuid, "created",
                        (json_int_t)s->created);
    return s->root ? 0 : error_set(e, ERR_NOMEM, "out of memory");
}

static bool is_uuid(const char *s)
{
    for (int i = 0; i < 36; i++)
        if (i == 8 || i == 13 || i == 18 || i == 23 ? s[i] != '-' : !isxdigit((unsigned char)s[i]))
            return false;
    return !s[36];
}

static int damaged(int dir, const char *why, struct error *e)
{
    char path[STORE_PATH];
    return error_set(e, ERR_DAMAGED, "%s: %s; restore it from a backup of the VM's folder",
                     store_path(dir, VM_STATE_FILE, path), why);
}

static int take(int dir, struct vm_state *s, struct error *e)
{
    const char *uuid = json_string_value(json_object_get(s->root, "uuid"));
    json_int_t version = json_integer_value(json_object_get(s->root, "version"));
    if (version > VM_STATE_VERSION)
        return error_set(e, ERR_HOST, "%s is of version %lld, made by a newer Sosia; use that",
                         VM_STATE_FILE, (long long)version);
    if (version < 1 || !uuid || !is_uuid(uuid))
        return damaged(dir, "is not what the tool wrote", e);
    memcpy(s->uuid, uuid, sizeof s->uuid);
    s->created = json_integer_value(json_object_get(s->root, "created"));
    return 0;
}

int vm_state_load(int dir, struct vm_state *s, struct error *e)
{
    CLEANUP_FREE char *text = NULL;
    size_t len;
    *s = (struct vm_state){0};
    int rc = store_read(dir, VM_STATE_FILE, MAX_STATE, &text, &len, e);
    if (rc == ERR_NOTFOUND)
        return damaged(dir, "is missing", e);
    if (rc)
        return rc;
    s->root = json_loadb(text, len, JSON_REJECT_DUPLICATES, NULL);
    rc = json_is_object(s->root) ? take(dir, s, e) : damaged(dir, "is no JSON object", e);
    if (rc)
        vm_state_fini(s);
    return rc;
}

int vm_state_save(int dir, const struct vm_state *s, bool fresh, struct error *e)
{
    CLEANUP_FREE char *text = json_dumps(s->root, JSON_INDENT(2) | JSON_PRESERVE_ORDER);
    if (!text)
        return error_set(e, ERR_NOMEM, "out of memory");
    return (fresh ? store_write_new : store_write)(dir, VM_STATE_FILE, text, strlen(text), e);
}

void vm_state_fini(struct vm_state *s)
{
    json_decref(s->root);
    s->root = NULL;
}
