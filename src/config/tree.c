/* From libyaml's events to a tree. Called by compile.c with the whole file; libyaml sees nothing
 * but valid UTF-8 within the limit. It must never follow an alias or apply a tag: a configuration
 * that a reviewer reads must mean what it looks like. */
#include "config/tree.h"

#include "base/limits.h"

#include <yaml.h>

enum { DEPTH_MAX = 12, NODES_MAX = 200000 };

#define TAG_ADVICE                                                                                 \
    "tags are not permitted; a condition is written as a block: \"when: |\" and the condition on " \
    "the next line"

struct builder {
    yaml_parser_t parser;
    struct cs_mistakes *m;
    struct cs_arena *arena;
    size_t n_nodes;
    bool stop;
};

static struct cs_cfg_pos pos_of(yaml_mark_t mark)
{
    return (struct cs_cfg_pos){(uint32_t)mark.line + 1, (uint32_t)mark.column + 1};
}

bool cs_yaml_is_null(const struct cs_yaml_node *n)
{
    return n->kind == CS_YAML_SCALAR && n->style == CS_YAML_PLAIN &&
           (n->text.n == 0 || cs_slice_eq_str(n->text, "~") || cs_slice_eq_str(n->text, "null"));
}

/* Place of a byte offset: for what libyaml reports without one. */
static struct cs_cfg_pos place(struct cs_slice text, size_t at)
{
    struct cs_cfg_pos p = {1, 1};
    for (size_t i = 0; i < at && i < text.n; i++) {
        if (text.p[i] == '\n') {
            p.line++;
            p.column = 1;
        } else {
            p.column += (text.p[i] & 0xc0) != 0x80;
        }
    }
    return p;
}

static bool next_event(struct builder *b, struct cs_slice text, yaml_event_t *ret)
{
    if (b->stop) {
        return false;
    }
    if (yaml_parser_parse(&b->parser, ret) != 0) {
        return true;
    }
    b->stop = true;
    if (b->parser.error == YAML_MEMORY_ERROR) {
        b->m->no_memory = true;
        return false;
    }
    if (b->parser.context != NULL && strstr(b->parser.context, "tag") != NULL) {
        cs_mistake(b->m, pos_of(b->parser.context_mark),
                   "\"!\" starts a tag to YAML, and " TAG_ADVICE);
        return false;
    }
    const char *problem = b->parser.problem != NULL ? b->parser.problem : "unknown problem";
    struct cs_cfg_pos at = b->parser.error == YAML_READER_ERROR
                               ? place(text, b->parser.problem_offset)
                               : pos_of(b->parser.problem_mark);
    cs_mistake(b->m, at, "this is not valid YAML: %s", cs_shown(cs_slice_str(problem)));
    return false;
}

static struct cs_yaml_node *new_node(struct builder *b, enum cs_yaml_kind kind,
                                     const yaml_event_t *e)
{
    struct cs_yaml_node *n = NULL;
    if (++b->n_nodes > NODES_MAX) {
        cs_mistake(b->m, pos_of(e->start_mark), "the file has more than %d elements", NODES_MAX);
        b->stop = true;
        return NULL;
    }
    n = CS_NEW(b->arena, struct cs_yaml_node);
    if (n == NULL) {
        b->m->no_memory = true;
        b->stop = true;
        return NULL;
    }
    n->kind = kind;
    n->pos = pos_of(e->start_mark);
    return n;
}

static void check_decoration(struct builder *b, struct cs_yaml_node *n, const yaml_char_t *tag,
                             const yaml_char_t *anchor)
{
    if (tag != NULL) {
        cs_mistake(b->m, n->pos, "\"%s\" is a tag to YAML, and " TAG_ADVICE,
                   cs_shown(cs_slice_str((const char *)tag)));
        n->bad = true;
    }
    if (anchor != NULL) {
        cs_mistake(b->m, n->pos,
                   "\"&%s\" is an anchor, and anchors are not permitted: write the "
                   "value where it is used",
                   cs_shown(cs_slice_str((const char *)anchor)));
        n->bad = true;
    }
}

static struct cs_yaml_node *scalar(struct builder *b, const yaml_event_t *e)
{
    struct cs_yaml_node *n = new_node(b, CS_YAML_SCALAR, e);
    if (n == NULL) {
        return NULL;
    }
    yaml_scalar_style_t style = e->data.scalar.style;
    n->style = style == YAML_PLAIN_SCALAR_STYLE     ? CS_YAML_PLAIN
               : style == YAML_LITERAL_SCALAR_STYLE ? CS_YAML_LITERAL
               : style == YAML_FOLDED_SCALAR_STYLE  ? CS_YAML_FOLDED
                                                    : CS_YAML_QUOTED;
    n->text = cs_arena_dup(b->arena, cs_slice(e->data.scalar.value, e->data.scalar.length));
    if (n->text.p == NULL) {
        b->m->no_memory = true;
        b->stop = true;
        return NULL;
    }
    check_decoration(b, n, e->data.scalar.tag, e->data.scalar.anchor);
    return n;
}

static struct cs_yaml_node *build(struct builder *b, struct cs_slice text, yaml_event_t *e,
                                  unsigned depth);

static void append(struct cs_yaml_node *parent, struct cs_yaml_node *child)
{
    if (parent->last == NULL) {
        parent->first = child;
    } else {
        parent->last->next = child;
    }
    parent->last = child;
    parent->n++;
}

/* Reports a repeated key. Quadratic in the keys of one mapping, which are few but for labels. */
static void check_repeated(struct builder *b, const struct cs_yaml_node *map,
                           const struct cs_yaml_node *key, bool *bad)
{
    for (const struct cs_yaml_node *c = map->first; c != NULL; c = c->next) {
        if (cs_slice_eq(c->key, key->text)) {
            cs_mistake(b->m, key->pos, "\"%s\" is here a second time; the first one is on line %u",
                       cs_shown(key->text), c->key_pos.line);
            *bad = true;
            return;
        }
    }
}

/* A key and its value; false when the file cannot be read on. */
static bool build_pair(struct builder *b, struct cs_slice text, struct cs_yaml_node *map,
                       yaml_event_t *e, unsigned depth)
{
    struct cs_yaml_node *key = build(b, text, e, depth + 1);
    yaml_event_t value_event;
    if (key == NULL || !next_event(b, text, &value_event)) {
        return false;
    }
    struct cs_yaml_node *value = build(b, text, &value_event, depth + 1);
    yaml_event_delete(&value_event);
    if (value == NULL) {
        return false;
    }
    bool bad = key->bad;
    if (key->kind != CS_YAML_SCALAR) {
        cs_mistake(b->m, key->pos, "a key must be a word");
        return true;
    }
    if (cs_slice_eq_str(key->text, "<<") && key->style == CS_YAML_PLAIN) {
        cs_mistake(b->m, key->pos, "merge keys (<<) are not permitted: write the values out");
        return true;
    }
    if (map->n > 1000) {
        cs_mistake(b->m, key->pos, "more than 1000 keys in one mapping");
        b->stop = true;
        return false;
    }
    check_repeated(b, map, key, &bad);
    value->key = key->text;
    value->key_pos = key->pos;
    if (!bad) {
        append(map, value);
    }
    return true;
}

static struct cs_yaml_node *build_map(struct builder *b, struct cs_slice text, yaml_event_t *e,
                                      unsigned depth)
{
    struct cs_yaml_node *n = new_node(b, CS_YAML_MAP, e);
    if (n == NULL) {
        return NULL;
    }
    check_decoration(b, n, e->data.mapping_start.tag, e->data.mapping_start.anchor);
    for (yaml_event_t k; next_event(b, text, &k);) {
        bool end = k.type == YAML_MAPPING_END_EVENT;
        bool ok = end || build_pair(b, text, n, &k, depth);
        yaml_event_delete(&k);
        if (end || !ok) {
            return ok ? n : NULL;
        }
    }
    return NULL;
}

static struct cs_yaml_node *build_list(struct builder *b, struct cs_slice text, yaml_event_t *e,
                                       unsigned depth)
{
    struct cs_yaml_node *n = new_node(b, CS_YAML_LIST, e);
    if (n == NULL) {
        return NULL;
    }
    check_decoration(b, n, e->data.sequence_start.tag, e->data.sequence_start.anchor);
    for (yaml_event_t k; next_event(b, text, &k);) {
        if (k.type == YAML_SEQUENCE_END_EVENT) {
            yaml_event_delete(&k);
            return n;
        }
        struct cs_yaml_node *child = build(b, text, &k, depth + 1);
        yaml_event_delete(&k);
        if (child == NULL) {
            return NULL;
        }
        append(n, child);
    }
    return NULL;
}

/* The node that starts with this event; NULL when the file cannot be read on. */
static struct cs_yaml_node *build(struct builder *b, struct cs_slice text, yaml_event_t *e,
                                  unsigned depth)
{
    if (depth > DEPTH_MAX) {
        cs_mistake(b->m, pos_of(e->start_mark), "nested more than %d levels deep", DEPTH_MAX);
        b->stop = true;
        return NULL;
    }
    switch ((int)e->type) {
    case YAML_SCALAR_EVENT:
        return scalar(b, e);
    case YAML_MAPPING_START_EVENT:
        return build_map(b, text, e, depth);
    case YAML_SEQUENCE_START_EVENT:
        return build_list(b, text, e, depth);
    case YAML_ALIAS_EVENT: {
        struct cs_yaml_node *n = new_node(b, CS_YAML_SCALAR, e);
        cs_mistake(b->m, pos_of(e->start_mark),
                   "\"*%s\" is an alias, and aliases are not permitted: write the value out",
                   cs_shown(cs_slice_str((const char *)e->data.alias.anchor)));
        if (n != NULL) {
            n->bad = true;
        }
        return n;
    }
    default:
        b->stop = true;
        cs_mistake(b->m, pos_of(e->start_mark), "something unexpected");
        return NULL;
    }
}

static void check_directives(struct builder *b, const yaml_event_t *e)
{
    if (e->data.document_start.version_directive != NULL ||
        e->data.document_start.tag_directives.start != e->data.document_start.tag_directives.end) {
        cs_mistake(b->m, pos_of(e->start_mark), "YAML directives (%%…) are not permitted");
    }
}

static struct cs_yaml_node *documents(struct builder *b, struct cs_slice text)
{
    struct cs_yaml_node *root = NULL;
    bool seen = false, done = false;
    for (yaml_event_t e; !done && next_event(b, text, &e);) {
        done = e.type == YAML_STREAM_END_EVENT;
        if (e.type == YAML_DOCUMENT_START_EVENT) {
            check_directives(b, &e);
            if (seen) {
                cs_mistake(b->m, pos_of(e.start_mark),
                           "a second document starts here; the file must be one document");
                done = true;
            }
            seen = true;
        } else if (!done && e.type != YAML_STREAM_START_EVENT &&
                   e.type != YAML_DOCUMENT_END_EVENT) {
            root = build(b, text, &e, 1);
        }
        yaml_event_delete(&e);
    }
    return b->stop ? NULL : root;
}

struct cs_yaml_node *cs_yaml_tree(struct cs_slice text, struct cs_mistakes *m)
{
    struct builder b = {.m = m, .arena = m->arena};
    size_t bad_at = 0;
    uint32_t cp = 0;
    if (text.n > CS_LIMIT_CONFIG_BYTES) {
        cs_mistake(m, (struct cs_cfg_pos){1, 1}, "the file is larger than %d bytes",
                   CS_LIMIT_CONFIG_BYTES);
        return NULL;
    }
    /* SECURITY: libyaml would guess UTF-16 from the first bytes; a reviewer's editor might not. */
    for (size_t at = 0; at < text.n; bad_at = at) {
        if (!cs_utf8_next(text, &at, &cp) || cp == 0) {
            cs_mistake(m, place(text, bad_at), "the file is not UTF-8 text (byte 0x%02x)",
                       text.p[bad_at]);
            return NULL;
        }
    }
    if (yaml_parser_initialize(&b.parser) == 0) {
        m->no_memory = true;
        return NULL;
    }
    yaml_parser_set_encoding(&b.parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&b.parser, text.p, text.n);
    struct cs_yaml_node *root = documents(&b, text);
    yaml_parser_delete(&b.parser);
    if (root == NULL && m->errors == 0 && !m->no_memory) {
        cs_mistake(m, (struct cs_cfg_pos){1, 1}, "the file is empty");
    }
    return root;
}
