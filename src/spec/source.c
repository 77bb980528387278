/* source.c - reading spec text, and the caret; see source.h. */
#include "spec/source.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"

#define SHOW_COLUMNS 76 /* characters of the source line that a message shows */

/* Bytes of the UTF-8 character at p (len > 0 bytes follow), its code in *code; 0 if malformed.
 * Shortest forms only, no surrogates, up to U+10FFFF: RFC 3629 section 3. */
static size_t utf8_decode(const unsigned char *p, size_t len, uint32_t *code)
{
    static const uint32_t lowest[] = {0, 0, 0x80, 0x800, 0x10000};
    size_t n = p[0] < 0x80 ? 1 : (p[0] & 0xe0) == 0xc0 ? 2 : (p[0] & 0xf0) == 0xe0 ? 3 : 4;

    if (n == 1) {
        *code = p[0];
        return 1;
    }
    if (n > len || p[0] >= 0xf8 || (p[0] & 0xc0) == 0x80)
        return 0;
    uint32_t c = p[0] & (0x7fu >> n);
    for (size_t i = 1; i < n; i++) {
        if ((p[i] & 0xc0) != 0x80)
            return 0;
        c = c << 6 | (p[i] & 0x3f);
    }
    if (c < lowest[n] || c > 0x10ffff || (c >= 0xd800 && c < 0xe000))
        return 0;
    *code = c;
    return n;
}

/* YAML 1.1 section 4.1.1, c-printable; without the byte order mark, which only begins a file. */
static bool printable(uint32_t c)
{
    if (c < 0x20)
        return c == '\t' || c == '\n' || c == '\r';
    return c < 0x7f || c == 0x85 || (c >= 0xa0 && c != 0xfeff && c != 0xfffe && c != 0xffff);
}

static int check_text(struct spec_source *src, struct error *e)
{
    const unsigned char *p = (const unsigned char *)src->text;
    struct spec_mark at = {src, 0, 0};

    for (size_t i = 0, n; i < src->len; i += n) {
        uint32_t c = 0;
        n = utf8_decode(p + i, src->len - i, &c);
        if (n == 0)
            return spec_error(e, at, NULL, "byte 0x%02x is not UTF-8 text", p[i]);
        if (!printable(c))
            return spec_error(e, at, NULL, "character 0x%02x is not allowed in a spec",
                              (unsigned)c);
        at.column++;
        if (c == '\n') {
            at.line++;
            at.column = 0;
        }
    }
    return 0;
}

static int check_file_text(struct spec_source *src, struct error *e)
{
    if (src->len >= 3 && memcmp(src->text, "\xef\xbb\xbf", 3) == 0) { /* byte order mark */
        src->len -= 3;
        memmove(src->text, src->text + 3, src->len + 1);
    }
    return check_text(src, e);
}

static int read_all(int fd, struct spec_source *src, struct error *e)
{
    size_t cap = 0;

    for (;;) {
        if (src->len == cap) {
            cap = cap ? cap * 2 : 4096;
            char *t = realloc(src->text, cap + 1);
            if (!t)
                return error_set(e, ERR_NOMEM, "out of memory for the spec's text");
            src->text = t;
        }
        ssize_t n = read(fd, src->text + src->len, cap - src->len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return error_errno(e, ERR_IO, errno, "cannot read the spec file");
        src->len += (size_t)n;
        if (src->len > SPEC_MAX_TEXT)
            return error_set(e, ERR_SPEC, "the spec file is larger than %u bytes: is it a disk?",
                             SPEC_MAX_TEXT);
        if (n == 0)
            break;
    }
    src->text[src->len] = 0;
    return 0;
}

int spec_source_file(struct spec_source *src, const char *path, struct error *e)
{
    CLEANUP_CLOSE int fd = -1;
    struct stat st;
    int r;

    *src = (struct spec_source){.name = strdup(path), .is_file = true};
    if (!src->name)
        return error_set(e, ERR_NOMEM, "out of memory for the spec's name");
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) < 0)
        r = error_errno(e, ERR_IO, errno, "cannot open the spec file");
    else if (S_ISDIR(st.st_mode))
        r = error_set(e, ERR_IO, "a directory, where a spec file is expected");
    else
        r = read_all(fd, src, e);
    if (r < 0) {
        if (e)
            snprintf(e->where, sizeof e->where, "%s", path);
        return r;
    }
    return check_file_text(src, e);
}

int spec_source_text(struct spec_source *src, const char *path, const char *text, size_t len,
                     struct error *e)
{
    *src = (struct spec_source){.name = strdup(path), .text = malloc(len + 1), .is_file = true};
    if (!src->name || !src->text)
        return error_set(e, ERR_NOMEM, "out of memory for the spec's text");
    if (len > SPEC_MAX_TEXT)
        return error_set(e, ERR_SPEC, "the spec would be larger than %u bytes", SPEC_MAX_TEXT);
    memcpy(src->text, text, len);
    src->text[len] = 0;
    src->len = len;
    return check_file_text(src, e);
}

int spec_source_set(struct spec_source *src, const char *set, struct error *e)
{
    char quoted[SPEC_QUOTE + 4], name[SPEC_QUOTE + 16];

    snprintf(name, sizeof name, "--set %s", spec_quote(quoted, set, strlen(set)));
    *src = (struct spec_source){.name = strdup(name), .text = strdup(set), .len = strlen(set)};
    if (!src->name || !src->text)
        return error_set(e, ERR_NOMEM, "out of memory for --set");
    int r = check_text(src, e);
    if (r < 0)
        return r;
    const char *eq = strchr(src->text, '=');
    if (!eq)
        return spec_error(e, (struct spec_mark){src, 0, 0}, "for example: --set memory=1G",
                          "expected key=value");
    src->value = (size_t)(eq - src->text) + 1;
    return 0;
}

void spec_source_fini(struct spec_source *src)
{
    free(src->name);
    free(src->text);
    *src = (struct spec_source){0};
}

const char *spec_quote(char buf[SPEC_QUOTE + 4], const char *text, size_t len)
{
    size_t n = len < SPEC_QUOTE ? len : SPEC_QUOTE;

    /* Do not cut a character in two. */
    while (n < len && n > 0 && ((unsigned char)text[n] & 0xc0) == 0x80)
        n--;
    for (size_t i = 0; i < n; i++)
        buf[i] = (unsigned char)text[i] < 0x20 || text[i] == 0x7f ? '?' : text[i];
    memcpy(buf + n, n < len ? "..." : "", n < len ? 4 : 1);
    return buf;
}

/* Appends to the message as much as fits. */
__attribute__((format(printf, 2, 3))) static void append(struct error *e, const char *fmt, ...)
{
    size_t n = strlen(e->msg);
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(e->msg + n, sizeof e->msg - n, fmt, ap);
    va_end(ap);
}

/* The start of line `line`, and its length in *len. */
static const char *find_line(const struct spec_source *src, size_t line, size_t *len)
{
    const char *p = src->text, *end = src->text + src->len, *nl;

    while (line > 0 && (nl = memchr(p, '\n', (size_t)(end - p)))) {
        p = nl + 1;
        line--;
    }
    nl = memchr(p, '\n', (size_t)(end - p));
    *len = (size_t)((nl ? nl : end) - p);
    return p;
}

/* Shows the line with a caret below the column. Of a long line only the surroundings are shown. */
static void append_caret(struct error *e, struct spec_mark at)
{
    char shown[SHOW_COLUMNS * 4 + 1], number[24];
    size_t len, out = 0, column = 0;
    const char *p = find_line(at.src, at.line, &len);
    size_t first = at.column < SHOW_COLUMNS - 8 ? 0 : at.column - SHOW_COLUMNS / 2;

    for (size_t i = 0, n; i < len && column < first + SHOW_COLUMNS; i += n, column++) {
        uint32_t c = 0;
        n = utf8_decode((const unsigned char *)p + i, len - i, &c);
        bool ok = n > 0 && printable(c) && c >= 0x20 && (c < 0x80 || c > 0x9f);
        if (n == 0)
            n = 1;
        if (column < first)
            continue;
        if (ok)
            memcpy(shown + out, p + i, n);
        else
            shown[out] = c == '\t' || c == '\r' ? ' ' : '?';
        out += ok ? n : 1;
    }
    shown[out] = 0;
    if (at.src->is_file)
        snprintf(number, sizeof number, "%5zu", at.line + 1);
    else
        snprintf(number, sizeof number, "--set");
    append(e, "\n%s | %s\n%*s | %*s^", number, shown, (int)strlen(number), "",
           (int)(at.column - first), "");
}

int spec_error(struct error *e, struct spec_mark at, const char *hint, const char *fmt, ...)
{
    if (!e)
        return ERR_SPEC;
    va_list ap;
    va_start(ap, fmt);
    e->code = ERR_SPEC;
    e->where[0] = 0;
    vsnprintf(e->msg, sizeof e->msg, fmt, ap);
    va_end(ap);
    if (at.src && at.src->is_file)
        snprintf(e->where, sizeof e->where, "%s:%zu:%zu", at.src->name, at.line + 1, at.column + 1);
    else if (at.src)
        snprintf(e->where, sizeof e->where, "%s", at.src->name);
    if (at.src && at.src->text)
        append_caret(e, at);
    if (hint)
        append(e, "\n        %s", hint);
    return ERR_SPEC;
}
