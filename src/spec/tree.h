/*
 * tree.h - spec text as a small tree with marks.
 *
 * Scalars stay text: only the schema gives them a type. What makes YAML surprising or unbounded is
 * refused with a message: anchors, aliases, tags, several documents, more than SPEC_MAX_DEPTH
 * levels or SPEC_MAX_NODES nodes.
 */
#ifndef SOSIA_SPEC_TREE_H
#define SOSIA_SPEC_TREE_H

#include "spec/source.h"

#define SPEC_MAX_DEPTH 8
#define SPEC_MAX_NODES 1000

enum spec_node_kind { SPEC_NODE_NULL, SPEC_NODE_TEXT, SPEC_NODE_LIST, SPEC_NODE_MAP };

struct spec_node {
    enum spec_node_kind kind;
    struct spec_mark at;
    size_t from, to;         /* bytes of the source's text that it is written in */
    bool flow;               /* LIST, MAP: in brackets or braces */
    char *text;              /* TEXT: NUL-terminated, and no NUL before that */
    size_t len;              /* of text */
    struct spec_node *child; /* LIST: the items. MAP: key, value, key, value ... */
    size_t nchild;
};

/* Parses the source's value; *root is freed with spec_tree_fini() whatever the result. An empty
 * document is a NULL node. ERR_SPEC, ERR_NOMEM. */
int spec_tree_parse(const struct spec_source *src, struct spec_node *root, struct error *e);
void spec_tree_fini(struct spec_node *node);

/* "a text", "a list", "a map", "nothing": for messages. */
const char *spec_node_kind_name(const struct spec_node *node);

#endif
