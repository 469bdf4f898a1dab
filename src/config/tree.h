/* YAML as a tree of places and texts; what a configuration must not have (tags, anchors, aliases,
 * merge keys, repeated keys, several documents, great depth) is reported here. Private to config/.
 */
#ifndef CS_CONFIG_TREE_H
#define CS_CONFIG_TREE_H

#include "config/mistakes.h"

enum cs_yaml_kind { CS_YAML_SCALAR, CS_YAML_MAP, CS_YAML_LIST };
enum cs_yaml_style { CS_YAML_PLAIN, CS_YAML_QUOTED, CS_YAML_LITERAL, CS_YAML_FOLDED };

struct cs_yaml_node {
    enum cs_yaml_kind kind;
    enum cs_yaml_style style;
    bool bad; /* reported already: do not report again */
    struct cs_cfg_pos pos;
    struct cs_slice text;      /* SCALAR, in the arena */
    struct cs_cfg_pos key_pos; /* in a MAP */
    struct cs_slice key;
    struct cs_yaml_node *first, *last, *next;
    size_t n; /* children */
};

/* NULL when the text is not YAML, is empty, or memory is out: then there is at least one mistake,
 * or m->no_memory. */
struct cs_yaml_node *cs_yaml_tree(struct cs_slice text, struct cs_mistakes *m);
/* Written without a value: nothing, ~ or null. */
bool cs_yaml_is_null(const struct cs_yaml_node *n);

#endif
