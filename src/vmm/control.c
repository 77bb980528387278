/* control.c - the control socket: clients, messages, answers, events. See control.h. */
#define _GNU_SOURCE
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "vmm/control_int.h"

#define NOBODY     65534u         /* user_namespaces(7): ids that have no mapping */
#define EVENTS_MAX (1024u * 1024) /* bytes of the file of events; then it starts anew */

/* ---- sending ---- */

struct message {
    uv_write_t req;
    char text[];
};

static void drop_files(struct client *cl)
{
    while (cl->files)
        close(cl->file[--cl->files]);
}

static void on_closed(uv_handle_t *h)
{
    struct client *cl = h->data;
    drop_files(cl);
    json_decref(cl->args);
    json_decref(cl->id);
    free(cl);
}

static void drop_client(struct client *cl)
{
    struct control *c = cl->c;
    if (cl->closing)
        return;
    cl->closing = true;
    for (unsigned i = 0; i < CONTROL_CLIENTS; i++)
        if (c->client[i] == cl)
            c->client[i] = NULL;
    if (c->typist == cl)
        c->typist = NULL;
    if (c->snapper == cl)
        c->snapper = NULL;
    if (c->keys.owner == cl)
        c->keys.owner = NULL;
    uv_close((uv_handle_t *)&cl->pipe, on_closed);
}

static void on_written(uv_write_t *req, int status)
{
    free(req->data);
}

static void send_text(struct client *cl, const char *text)
{
    size_t n = strlen(text);
    struct message *m = malloc(sizeof *m + n + 2);
    if (cl->closing || !m ||
        uv_stream_get_write_queue_size((uv_stream_t *)&cl->pipe) + n > CONTROL_BACKLOG) {
        if (!cl->closing)
            log_info("control: a client does not read its answers: cut off");
        free(m);
        drop_client(cl);
        return;
    }
    memcpy(m->text, text, n);
    memcpy(m->text + n, "\r\n", 2);
    m->req.data = m;
    uv_buf_t b = uv_buf_init(m->text, (unsigned)n + 2);
    if (uv_write(&m->req, (uv_stream_t *)&cl->pipe, &b, 1, on_written)) {
        free(m);
        drop_client(cl);
    }
}

/* Takes over `o`. */
static void send_json(struct client *cl, json_t *o)
{
    CLEANUP_FREE char *text = o ? json_dumps(o, JSON_COMPACT | JSON_PRESERVE_ORDER) : NULL;
    json_decref(o);
    if (text)
        send_text(cl, text);
    else
        drop_client(cl);
}

void control_send_error(struct client *cl, json_t *id, const char *class, const char *text)
{
    json_t *desc = json_string(text);
    json_t *o = json_pack("{s:{s:s, s:o}}", "error", "class", class, "desc",
                          desc ? desc : json_string("(not UTF-8)"));
    if (o && id)
        json_object_set(o, "id", id);
    send_json(cl, o);
}

static void send_return(struct client *cl, json_t *id, json_t *ret)
{
    json_t *o = json_pack("{s:o}", "return", ret ? ret : json_object());
    if (o && id)
        json_object_set(o, "id", id);
    send_json(cl, o);
}

static void write_event(struct control *c, const char *text)
{
    size_t n = strlen(text);
    if (c->events < 0)
        return;
    if (c->events_size > EVENTS_MAX && ftruncate(c->events, 0) == 0)
        c->events_size = 0;
    if (pwrite(c->events, text, n, (off_t)c->events_size) != (ssize_t)n ||
        pwrite(c->events, "\n", 1, (off_t)(c->events_size + n)) != 1)
        return; /* a full disk; events are no reason to stop */
    c->events_size += n + 1;
}

void control_event(struct control *c, const char *name, json_t *data)
{
    struct timeval now;
    if (!c) {
        json_decref(data);
        return;
    }
    gettimeofday(&now, NULL);
    json_t *o = json_pack("{s:s, s:{s:I, s:I}}", "event", name, "timestamp", "seconds",
                          (json_int_t)now.tv_sec, "microseconds", (json_int_t)now.tv_usec);
    if (o && data)
        json_object_set(o, "data", data);
    json_decref(data);
    CLEANUP_FREE char *text = o ? json_dumps(o, JSON_COMPACT | JSON_PRESERVE_ORDER) : NULL;
    json_decref(o);
    if (!text)
        return;
    write_event(c, text);
    for (unsigned i = 0; i < CONTROL_CLIENTS; i++)
        if (c->client[i] && c->client[i]->negotiated)
            send_text(c->client[i], text);
}

/* ---- commands ---- */

static void end_command(struct client *cl, struct control_call *call, int rc)
{
    if (rc < 0) {
        json_decref(call->ret);
        control_send_error(cl, cl->id, "GenericError", call->e.msg);
    } else {
        send_return(cl, cl->id, call->ret);
    }
    json_decref(cl->args);
    json_decref(cl->id);
    drop_files(cl);
    cl->args = cl->id = NULL;
    cl->command = NULL;
    cl->later = false;
}

/* One "name:kind" or "name?:kind" of a command's list. */
static int check_arg(const char *spec, size_t n, json_t *args, unsigned *seen, struct error *e)
{
    const char kind = spec[n - 1];
    bool optional = spec[n - 3] == '?';
    char name[32];
    snprintf(name, sizeof name, "%.*s", (int)(n - (optional ? 3 : 2)), spec);
    json_t *v = json_object_get(args, name);
    if (!v)
        return optional ? 0 : error_set(e, ERR_USAGE, "Parameter '%s' is missing", name);
    (*seen)++;
    bool ok = kind == 's'   ? json_is_string(v)
              : kind == 'i' ? json_is_integer(v)
              : kind == 'a' ? json_is_array(v)
              : kind == 'o' ? json_is_object(v)
                            : json_is_boolean(v);
    return ok ? 0 : error_set(e, ERR_USAGE, "Invalid parameter type for '%s'", name);
}

static int check_args(const struct control_command *cmd, json_t *args, struct error *e)
{
    unsigned seen = 0;
    for (const char *p = cmd->args; *p;) {
        size_t n = strcspn(p, " ");
        int rc = check_arg(p, n, args, &seen, e);
        if (rc)
            return rc;
        p += n + (p[n] == ' ');
    }
    if (json_object_size(args) > seen)
        return error_set(e, ERR_USAGE, "a parameter is unexpected; '%s' takes: %s", cmd->name,
                         cmd->args[0] ? cmd->args : "nothing");
    return 0;
}

static void start_command(struct client *cl, const struct control_command *cmd)
{
    struct control_call call = {.c = cl->c, .client = cl, .args = cl->args};
    cl->command = cmd;
    cl->later = true; /* answers are ended the same way, now or later */
    int rc = check_args(cmd, cl->args, &call.e);
    if (!rc && cmd->run)
        rc = cmd->run(&call);
    else if (!rc) {
        vm_request(cl->c->vm, VM_REQ_WORK, cmd->name);
        rc = CONTROL_LATER;
    }
    if (rc != CONTROL_LATER && !cl->closing)
        end_command(cl, &call, rc);
    else if (cl->later)
        uv_read_stop((uv_stream_t *)&cl->pipe);
}

static void take_object(struct client *cl, json_t *o)
{
    const char *name = json_string_value(json_object_get(o, "execute"));
    json_t *args = json_object_get(o, "arguments"), *id = json_object_get(o, "id");
    char text[160];
    if (!name) {
        control_send_error(cl, id, "GenericError", "QMP input lacks member 'execute'");
        return;
    }
    if (args && !json_is_object(args)) {
        control_send_error(cl, id, "GenericError",
                           "QMP input member 'arguments' must be an object");
        return;
    }
    const struct control_command *cmd = control_commands;
    while (cmd->name && strcmp(cmd->name, name) != 0)
        cmd++;
    if (!cl->negotiated && strcmp(name, "qmp_capabilities") != 0) {
        control_send_error(cl, id, "CommandNotFound",
                           "Expecting capabilities negotiation with 'qmp_capabilities'");
        return;
    }
    if (!cmd->name) {
        snprintf(text, sizeof text, "The command %.80s has not been found", name);
        control_send_error(cl, id, "CommandNotFound", text);
        return;
    }
    cl->args = args ? json_incref(args) : json_object();
    cl->id = id ? json_incref(id) : NULL;
    start_command(cl, cmd);
}

/* ---- messages ---- */

/* The length of the JSON object that begins at buf, or 0: it is not complete. */
static size_t object_length(const char *buf, size_t len)
{
    size_t depth = 0;
    bool text = false;
    for (size_t i = 0; i < len; i++) {
        if (text && buf[i] == '\\') {
            i++; /* whatever it is */
        } else if (text) {
            text = buf[i] != '"';
        } else if (buf[i] == '"') {
            text = true;
        } else if (buf[i] == '{') {
            depth++;
        } else if (buf[i] == '}' && --depth == 0) {
            return i + 1;
        }
    }
    return 0;
}

static void consume(struct client *cl, size_t n)
{
    memmove(cl->buf, cl->buf + n, cl->len - n);
    cl->len -= n;
}

/* Drops what is no object, up to the end of the line. False: all is dropped. */
static bool skip_garbage(struct client *cl)
{
    char *nl = memchr(cl->buf, '\n', cl->len);
    consume(cl, nl ? (size_t)(nl - cl->buf) + 1 : cl->len);
    cl->skipping = !nl;
    return nl != NULL;
}

static void take_message(struct client *cl, size_t n)
{
    json_error_t je;
    json_t *o = json_loadb(cl->buf, n, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &je);
    consume(cl, n);
    if (!o) {
        char text[JSON_ERROR_TEXT_LENGTH + 32];
        snprintf(text, sizeof text, "JSON parse error, %s", je.text);
        control_send_error(cl, NULL, "GenericError", text);
        return;
    }
    take_object(cl, o);
    json_decref(o);
}

/* What is in the buffer, until a command has to wait. */
static void process(struct client *cl)
{
    while (!cl->later && !cl->closing) {
        size_t blank = 0;
        if (cl->skipping && !skip_garbage(cl))
            return;
        while (blank < cl->len && isspace((unsigned char)cl->buf[blank]))
            blank++;
        consume(cl, blank);
        if (!cl->len)
            return;
        if (cl->buf[0] != '{') {
            control_send_error(cl, NULL, "GenericError",
                               "JSON parse error, expecting an object on a line");
            cl->skipping = true;
            continue;
        }
        size_t n = object_length(cl->buf, cl->len);
        if (n == 0 && cl->len == sizeof cl->buf) {
            control_send_error(cl, NULL, "GenericError", "the command is too long");
            drop_client(cl);
        }
        if (n == 0)
            return;
        take_message(cl, n);
    }
}

static void on_alloc(uv_handle_t *h, size_t want, uv_buf_t *b)
{
    struct client *cl = h->data;
    *b = uv_buf_init((char *)cl->c->chunk,
                     (unsigned)min_u64(sizeof cl->c->chunk, sizeof cl->buf - cl->len));
}

static void on_pipe_closed(uv_handle_t *h)
{
    free(h);
}

/* libuv hands over descriptors as pipes, whatever they are. */
static bool take_file(struct client *cl)
{
    uv_pipe_t *p = malloc(sizeof *p);
    uv_os_fd_t fd;
    if (!p || uv_pipe_init(&cl->c->vm->loop, p, 0)) {
        free(p);
        return false;
    }
    bool ok = !uv_accept((uv_stream_t *)&cl->pipe, (uv_stream_t *)p) &&
              !uv_fileno((const uv_handle_t *)p, &fd);
    int own = ok && cl->files < CONTROL_FILES ? fcntl(fd, F_DUPFD_CLOEXEC, 0) : -1;
    if (own >= 0)
        cl->file[cl->files++] = own;
    uv_close((uv_handle_t *)p, on_pipe_closed);
    return own >= 0;
}

static void on_read(uv_stream_t *s, ssize_t n, const uv_buf_t *b)
{
    struct client *cl = s->data;
    while (n >= 0 && uv_pipe_pending_count(&cl->pipe) > 0)
        if (!take_file(cl))
            n = UV_ENOMEM;
    if (n < 0) {
        drop_client(cl);
        return;
    }
    memcpy(cl->buf + cl->len, b->base, (size_t)n);
    cl->len += (size_t)n;
    process(cl);
}

void control_reply(struct client *cl, struct control_call *call, int rc)
{
    if (cl->closing)
        return;
    end_command(cl, call, rc);
    process(cl);
    if (!cl->closing && !cl->later)
        uv_read_start((uv_stream_t *)&cl->pipe, on_alloc, on_read);
}

void control_parked(struct control *c)
{
    for (unsigned i = 0; c && i < CONTROL_CLIENTS; i++) {
        struct client *cl = c->client[i];
        if (!cl || !cl->later || !cl->command || !cl->command->parked)
            continue;
        struct control_call call = {.c = c, .client = cl, .args = cl->args};
        int rc = cl->command->parked(&call);
        control_reply(cl, &call, rc);
    }
}

/* ---- clients ---- */

/* Ours, or root's, who is nobody to one in a user namespace of its own. The socket's mode says the
 * same, and before. */
static bool may_connect(const uv_pipe_t *pipe)
{
    struct ucred cred;
    socklen_t len = sizeof cred;
    uv_os_fd_t fd;
    if (uv_fileno((const uv_handle_t *)pipe, &fd) ||
        getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) < 0)
        return false;
    return cred.uid == geteuid() || cred.uid == 0 || cred.uid == NOBODY;
}

static void greet(struct client *cl)
{
    json_t *version = json_pack("{s:{s:i, s:i, s:i}, s:s}", "qemu", "major", 0, "minor", 1, "micro",
                                0, "package", "sosia");
    send_json(cl, json_pack("{s:{s:o, s:[]}}", "QMP", "version", version, "capabilities"));
}

/* A place for one more; CONTROL_CLIENTS: there is none. Of those who came and said nothing, the
 * first makes room. */
static unsigned find_slot(struct control *c)
{
    unsigned silent = CONTROL_CLIENTS;
    for (unsigned i = 0; i < CONTROL_CLIENTS; i++) {
        if (!c->client[i])
            return i;
        if (!c->client[i]->negotiated &&
            (silent == CONTROL_CLIENTS || c->client[i]->number < c->client[silent]->number))
            silent = i;
    }
    if (silent < CONTROL_CLIENTS) {
        control_send_error(c->client[silent], NULL, "GenericError",
                           "too many clients, and you have said nothing");
        if (c->client[silent])
            drop_client(c->client[silent]);
    }
    return silent;
}

static void on_connection(uv_stream_t *s, int status)
{
    struct control *c = s->data;
    struct client *cl = status ? NULL : malloc(sizeof *cl);
    if (!cl)
        return;
    memset(cl, 0, offsetof(struct client, buf));
    cl->c = c;
    cl->pipe.data = cl;
    if (uv_pipe_init(&c->vm->loop, &cl->pipe, 1)) {
        free(cl);
        return;
    }
    cl->pipe.data = cl;
    if (uv_accept(s, (uv_stream_t *)&cl->pipe) || !may_connect(&cl->pipe)) {
        drop_client(cl);
        return;
    }
    cl->number = c->clients++;
    unsigned slot = find_slot(c);
    if (slot == CONTROL_CLIENTS) {
        control_send_error(cl, NULL, "GenericError", "too many clients; close another one");
        drop_client(cl);
        return;
    }
    c->client[slot] = cl;
    greet(cl);
    if (!cl->closing)
        uv_read_start((uv_stream_t *)&cl->pipe, on_alloc, on_read);
}

void control_delivered(void *arg)
{
    struct control *c = arg;
    struct client *cl = c->typist;
    struct control_call call = {.c = c, .client = cl};
    c->typist = NULL;
    if (cl)
        control_reply(cl, &call, 0);
}

int control_open(struct control **out, struct vm *vm, int listener, int events, struct error *e)
{
    struct control *c = calloc(1, sizeof *c);
    if (!c) {
        close(listener);
        return error_set(e, ERR_NOMEM, "out of memory for the control socket");
    }
    c->vm = vm;
    c->events = events;
    c->listener.data = c;
    off_t end = events < 0 ? 0 : lseek(events, 0, SEEK_END);
    c->events_size = end > 0 ? (uint64_t)end : 0;
    int rc = uv_pipe_init(&vm->loop, &c->listener, 0);
    if (!rc)
        rc = uv_timer_init(&vm->loop, &c->keys.timer);
    if (!rc)
        rc = uv_pipe_open(&c->listener, listener);
    if (rc)
        close(listener);
    c->listener.data = c->keys.timer.data = c;
    if (!rc)
        rc = uv_listen((uv_stream_t *)&c->listener, CONTROL_CLIENTS, on_connection);
    *out = c; /* its handles are in the loop: control_close() ends it in any case */
    return rc ? error_set(e, ERR_HOST, "the control socket: %s", uv_strerror(rc)) : 0;
}

/* Of the two handles in it. */
static void on_part_closed(uv_handle_t *h)
{
    struct control *c = h->data;
    if (--c->closing == 0)
        free(c);
}

void control_close(struct control *c)
{
    if (!c)
        return;
    for (unsigned i = 0; i < CONTROL_CLIENTS; i++)
        if (c->client[i])
            drop_client(c->client[i]);
    c->closing = 2;
    uv_close((uv_handle_t *)&c->keys.timer, on_part_closed);
    uv_close((uv_handle_t *)&c->listener, on_part_closed);
}
