/* tree.c - libyaml's events to a bounded tree; see tree.h for what is refused. */
#include "spec/tree.h"

#include <stdlib.h>
#include <string.h>
#include <yaml.h>

struct builder {
    yaml_parser_t yaml;
    const struct spec_source *src;
    size_t nodes;
    size_t seen_index, seen_offset; /* of the last mark that was looked for: character, byte */
    struct error *e;
};

static struct spec_mark mark_of(const struct builder *b, yaml_mark_t m)
{
    /* An override's key is ASCII when we get here, so bytes before the value are columns. */
    return (struct spec_mark){b->src, m.line, m.column + (m.line == 0 ? b->src->value : 0)};
}

/* Where the mark points: libyaml counts characters. Marks come in order but for those of ends, so
 * counting goes on from the last one. */
static size_t offset_of(struct builder *b, yaml_mark_t m)
{
    const struct spec_source *src = b->src;
    if (m.index < b->seen_index || !b->seen_index)
        b->seen_index = 0, b->seen_offset = src->value;
    for (; b->seen_index < m.index && b->seen_offset < src->len; b->seen_index++)
        do
            b->seen_offset++;
        while (b->seen_offset < src->len &&
               ((unsigned char)src->text[b->seen_offset] & 0xc0) == 0x80);
    return b->seen_offset;
}

/* The byte that the mark points at, or 0 at the end. */
static char byte_at(struct builder *b, yaml_mark_t m)
{
    size_t i = offset_of(b, m);
    return i < b->src->len ? b->src->text[i] : 0;
}

static int syntax_error(struct builder *b)
{
    const yaml_parser_t *y = &b->yaml;
    const char *problem = y->problem ? y->problem : "cannot be read";
    const char *hint = NULL;

    if (y->error == YAML_MEMORY_ERROR)
        return error_set(b->e, ERR_NOMEM, "out of memory for the spec");
    if (byte_at(b, y->problem_mark) == '\t')
        hint = "a tab cannot indent YAML: use spaces";
    else if (y->context && strstr(y->context, "quoted scalar"))
        hint = "is a closing quote missing?";
    else if (y->error == YAML_SCANNER_ERROR && strstr(problem, "mapping values"))
        hint = "a text with \": \" in it needs quotes; keys of one map start in one column";
    return spec_error(b->e, mark_of(b, y->problem_mark), hint, "not valid YAML: %s%s%s",
                      y->context ? y->context : "", y->context ? ", " : "", problem);
}

static int next_event(struct builder *b, yaml_event_t *ev)
{
    return yaml_parser_parse(&b->yaml, ev) ? 0 : syntax_error(b);
}

static int refuse(struct builder *b, const yaml_event_t *ev, const char *what)
{
    return spec_error(b->e, mark_of(b, ev->start_mark), NULL, "%s are not used in a spec", what);
}

static int fill_text(struct builder *b, struct spec_node *node, const yaml_event_t *ev)
{
    const char *text = (const char *)ev->data.scalar.value;
    size_t len = ev->data.scalar.length;
    bool plain = ev->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;

    if (strlen(text) != len) /* "\0" in double quotes */
        return spec_error(b->e, node->at, NULL, "a NUL character is not allowed in a spec");
    if (plain && (len == 0 || strcmp(text, "~") == 0 || strcmp(text, "null") == 0))
        return 0;
    node->kind = SPEC_NODE_TEXT;
    node->len = len;
    node->text = strdup(text);
    return node->text ? 0 : error_set(b->e, ERR_NOMEM, "out of memory for the spec");
}

static int build_node(struct builder *b, struct spec_node *node, const yaml_event_t *ev,
                      unsigned depth);

/* Reads children until the event that ends the collection. Recursion ends at SPEC_MAX_DEPTH. */
static int build_children(struct builder *b, struct spec_node *node, yaml_event_type_t end,
                          unsigned depth)
{
    if (depth >= SPEC_MAX_DEPTH)
        return spec_error(b->e, node->at, NULL, "nested more than %u levels deep", SPEC_MAX_DEPTH);
    for (;;) {
        yaml_event_t ev;
        int r = next_event(b, &ev);
        if (r < 0)
            return r;
        if (ev.type == end) {
            /* That of a block is where the next thing begins. */
            const struct spec_node *last = node->nchild ? &node->child[node->nchild - 1] : NULL;
            node->to = node->flow || !last ? offset_of(b, ev.end_mark) : last->to;
            yaml_event_delete(&ev);
            return 0;
        }
        struct spec_node *c = realloc(node->child, (node->nchild + 1) * sizeof *c);
        if (c) {
            node->child = c;
            c += node->nchild++;
            r = build_node(b, c, &ev, depth + 1);
        } else {
            r = error_set(b->e, ERR_NOMEM, "out of memory for the spec");
        }
        yaml_event_delete(&ev);
        if (r < 0)
            return r;
    }
}

static int build_node(struct builder *b, struct spec_node *node, const yaml_event_t *ev,
                      unsigned depth)
{
    *node = (struct spec_node){.at = mark_of(b, ev->start_mark)};
    node->from = offset_of(b, ev->start_mark);
    node->to = offset_of(b, ev->end_mark);
    if (++b->nodes > SPEC_MAX_NODES)
        return spec_error(b->e, node->at, NULL, "more than %u values", SPEC_MAX_NODES);
    switch (ev->type) {
    case YAML_SCALAR_EVENT:
        if (ev->data.scalar.anchor)
            return refuse(b, ev, "anchors");
        if (ev->data.scalar.tag)
            return refuse(b, ev, "tags");
        return fill_text(b, node, ev);
    case YAML_SEQUENCE_START_EVENT:
        if (ev->data.sequence_start.anchor)
            return refuse(b, ev, "anchors");
        if (ev->data.sequence_start.tag)
            return refuse(b, ev, "tags");
        node->kind = SPEC_NODE_LIST;
        node->flow = ev->data.sequence_start.style == YAML_FLOW_SEQUENCE_STYLE;
        return build_children(b, node, YAML_SEQUENCE_END_EVENT, depth);
    case YAML_MAPPING_START_EVENT:
        if (ev->data.mapping_start.anchor)
            return refuse(b, ev, "anchors");
        if (ev->data.mapping_start.tag)
            return refuse(b, ev, "tags");
        node->kind = SPEC_NODE_MAP;
        node->flow = ev->data.mapping_start.style == YAML_FLOW_MAPPING_STYLE;
        return build_children(b, node, YAML_MAPPING_END_EVENT, depth);
    case YAML_ALIAS_EVENT:
        return refuse(b, ev, "aliases");
    default: /* the parser delivers nothing else inside a document */
        return spec_error(b->e, node->at, NULL, "not valid YAML");
    }
}

/* One document or none, then the end of the stream. */
static int build_stream(struct builder *b, struct spec_node *root)
{
    unsigned documents = 0;

    for (;;) {
        yaml_event_t ev;
        int r = next_event(b, &ev);
        if (r < 0)
            return r;
        yaml_event_type_t type = ev.type;
        if (type == YAML_DOCUMENT_START_EVENT && documents++)
            r = spec_error(b->e, mark_of(b, ev.start_mark), NULL,
                           "a second document: a spec file describes one VM");
        else if (type != YAML_STREAM_START_EVENT && type != YAML_DOCUMENT_START_EVENT &&
                 type != YAML_DOCUMENT_END_EVENT && type != YAML_STREAM_END_EVENT)
            r = build_node(b, root, &ev, 0);
        yaml_event_delete(&ev);
        if (r < 0 || type == YAML_STREAM_END_EVENT)
            return r;
    }
}

int spec_tree_parse(const struct spec_source *src, struct spec_node *root, struct error *e)
{
    struct builder b = {.src = src, .e = e};

    *root = (struct spec_node){.at = {src, 0, src->value}};
    if (!yaml_parser_initialize(&b.yaml))
        return error_set(e, ERR_NOMEM, "out of memory for the spec");
    yaml_parser_set_encoding(&b.yaml, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&b.yaml, (const unsigned char *)src->text + src->value,
                                 src->len - src->value);
    int r = build_stream(&b, root);
    yaml_parser_delete(&b.yaml);
    return r;
}

void spec_tree_fini(struct spec_node *node)
{
    for (size_t i = 0; i < node->nchild; i++)
        spec_tree_fini(&node->child[i]);
    free(node->child);
    free(node->text);
    *node = (struct spec_node){0};
}

const char *spec_node_kind_name(const struct spec_node *node)
{
    static const char *const names[] = {"nothing", "a single value", "a list", "a map"};
    return names[node->kind];
}
