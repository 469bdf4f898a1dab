/* From the tree to the model, driven by config.def: no key is named in this file. Called by
 * compile.c. It must never stop at the first mistake, and never report one twice. */
#include "config/model.h"
#include "config/values.h"

#include "base/assert.h"

#include <stdio.h>

enum section {
    SECTION_NONE,
#define CS_SECTION(id, type, where) SECTION_##id,
#include "config/config.def"
#undef CS_SECTION
    SECTION_MAX
};

enum type {
    TYPE_ANY,
    TYPE_INT,
    TYPE_TEXT,
    TYPE_PATH,
    TYPE_NAME,
    TYPE_TARGET_NAME,
    TYPE_ADDRESS,
    TYPE_URL,
    TYPE_SECRET,
    TYPE_DURATION,
    TYPE_WORD,
    TYPE_WHEN,
    TYPE_TEXTS,
    TYPE_ARGUMENTS,
    TYPE_LABELS,
    TYPE_MAP,
    TYPE_MAP_OR_OFF,
    TYPE_PATH_OR_MAP,
    TYPE_LIST,
};

enum need { NEED_OPTIONAL, NEED_REQUIRED, NEED_LATER };

struct row {
    enum section section;
    const char *key;
    enum type type;
    size_t offset;
    enum section sub;
    const char *words;
    enum need need;
    const char *help;
};

/* Section → struct, so that a row's offset can be written by member name alone. */
#define CS_SECTION(id, type, where) typedef struct cs_cfg_##type section_##id;
#include "config/config.def"
#undef CS_SECTION

static const struct row rows[] = {
#define CS_KEY(section, key, type, member, sub, words, need, help)                                 \
    {SECTION_##section, key,   TYPE_##type, offsetof(section_##section, member),                   \
     SECTION_##sub,     words, NEED_##need, help},
#include "config/config.def"
#undef CS_KEY
};

static const struct {
    size_t size;
    const char *where;
} sections[SECTION_MAX] = {
#define CS_SECTION(id, type, where) [SECTION_##id] = {sizeof(struct cs_cfg_##type), where},
#include "config/config.def"
#undef CS_SECTION
};

struct rd {
    struct cs_mistakes *m;
    struct cs_arena *arena;
};

static void read_section(struct rd *r, enum section id, const struct cs_yaml_node *n, void *ret);

static const char *what_is(const struct cs_yaml_node *n)
{
    return n->kind == CS_YAML_MAP    ? "a mapping"
           : n->kind == CS_YAML_LIST ? "a list"
           : cs_yaml_is_null(n)      ? "nothing"
                                     : "a single value";
}

/* ---- single values ---- */

/* The text of a scalar that is not empty; false with a mistake otherwise. */
static bool scalar(struct rd *r, const char *key, const struct cs_yaml_node *n, const char *right)
{
    if (n->bad) {
        return false;
    }
    if (n->kind != CS_YAML_SCALAR) {
        cs_mistake(r->m, n->pos, "\"%s\" must be %s, not %s", key, right, what_is(n));
        return false;
    }
    if (cs_yaml_is_null(n) || n->text.n == 0) {
        cs_mistake(r->m, n->pos, "\"%s\" is empty; it must be %s", key, right);
        return false;
    }
    return true;
}

static const char *check_text(enum type type, struct cs_slice s)
{
    switch ((int)type) {
    case TYPE_PATH:
        return cs_value_path(s);
    case TYPE_NAME:
        return cs_value_name(s);
    case TYPE_TARGET_NAME:
        return cs_value_target_name(s);
    case TYPE_ADDRESS:
        return cs_value_address(s);
    case TYPE_URL:
        return cs_value_url(s);
    default:
        return cs_value_text(s);
    }
}

static void read_text(struct rd *r, const struct row *row, const struct cs_yaml_node *n,
                      struct cs_cfg_text *ret)
{
    ret->pos = n->pos;
    ret->set = true;
    if (!scalar(r, row->key, n, "a text")) {
        return;
    }
    const char *right = row->type == TYPE_SECRET ? NULL : check_text(row->type, n->text);
    if (row->type == TYPE_SECRET) {
        right = cs_value_secret(n->text, &ret->v);
        if (right != NULL) {
            /* SECURITY: the value is not shown: it may well be a password. */
            cs_mistake(r->m, n->pos, "\"%s\" must be %s", row->key, right);
        }
        return;
    }
    if (right != NULL) {
        cs_mistake(r->m, n->pos, "\"%s\" is \"%s\", but must be %s", row->key, cs_shown(n->text),
                   right);
        return;
    }
    ret->v = n->text;
}

static void read_number(struct rd *r, const struct row *row, const struct cs_yaml_node *n,
                        struct cs_cfg_number *ret)
{
    static const char right[] = "a number from 0 to 1000000";
    ret->pos = n->pos;
    const char *wrong = right;
    ret->set = true;
    if (!scalar(r, row->key, n, row->type == TYPE_INT ? "a number" : "a time such as \"15m\"")) {
        ret->set = false;
        return;
    }
    if (row->type == TYPE_DURATION) {
        wrong = cs_value_duration(n->text, &ret->v);
    } else if (n->style == CS_YAML_PLAIN && n->text.n <= 7 && cs_slice_to_u64(n->text, &ret->v)) {
        wrong = NULL;
    }
    if (wrong != NULL) {
        ret->set = false;
        cs_mistake(r->m, n->pos, "\"%s\" is \"%s\", but must be %s", row->key, cs_shown(n->text),
                   wrong);
    }
}

/* One of row->words; those with "!" are known but not in this version. */
static void read_word(struct rd *r, const struct row *row, const struct cs_yaml_node *n,
                      struct cs_cfg_text *ret)
{
    char right[120];
    size_t len = 0;
    ret->pos = n->pos;
    ret->set = true;
    right[0] = 0;
    bool good = n->kind == CS_YAML_SCALAR && !n->bad;
    for (struct cs_slice rest = cs_slice_str(row->words); rest.n > 0;) {
        size_t k = cs_slice_find(rest, '|');
        struct cs_slice word = cs_slice_head(rest, k);
        bool later = word.p[0] == '!';
        word = cs_slice_from(word, later ? 1 : 0);
        rest = cs_slice_from(rest, k + 1);
        if (good && cs_slice_eq(word, n->text)) {
            ret->v = word;
            if (later) {
                ret->v = CS_SLICE_NULL;
                cs_mistake(r->m, n->pos, "not in this version: \"%s: %s\"", row->key,
                           cs_shown(word));
            }
            return;
        }
        if (!later) {
            int w = snprintf(right + len, sizeof right - len, "%s\"%.*s\"", len > 0 ? " or " : "",
                             CS_SLICE_FMT(word));
            len += w > 0 ? (size_t)w : 0;
        }
    }
    if (scalar(r, row->key, n, right)) {
        cs_mistake(r->m, n->pos, "\"%s\" is \"%s\", but must be %s", row->key, cs_shown(n->text),
                   right);
    }
}

static void read_when(struct rd *r, const struct row *row, const struct cs_yaml_node *n,
                      struct cs_cfg_text *ret)
{
    static const char right[] = "a block: \"when: |\" and the condition on the next line";
    ret->pos = n->pos;
    ret->set = true;
    if (n->bad) {
        return;
    }
    if (n->kind != CS_YAML_SCALAR || n->style != CS_YAML_LITERAL) {
        cs_mistake(r->m, n->pos, "\"%s\" must be written as %s", row->key, right);
    } else if (cs_slice_trim(n->text).n == 0) {
        cs_mistake(r->m, n->pos,
                   "the condition is empty; leave \"%s\" out if the rule shall "
                   "always apply",
                   row->key);
    } else {
        ret->v = n->text;
    }
}

/* ---- several values ---- */

static void read_texts(struct rd *r, const struct row *row, const struct cs_yaml_node *n,
                       struct cs_cfg_texts *ret)
{
    ret->pos = n->pos;
    ret->set = true;
    if (n->bad) {
        return;
    }
    if (n->kind != CS_YAML_LIST || n->n == 0) {
        cs_mistake(r->m, n->pos,
                   "\"%s\" must be a list with at least one name, such as [agents], "
                   "not %s",
                   row->key, n->kind == CS_YAML_LIST ? "an empty list" : what_is(n));
        return;
    }
    ret->v = CS_NEW_ARRAY(r->arena, struct cs_cfg_text, n->n);
    r->m->no_memory |= ret->v == NULL;
    for (const struct cs_yaml_node *c = n->first; c != NULL && ret->v != NULL; c = c->next) {
        struct cs_cfg_text *t = &ret->v[ret->n];
        read_text(r, row, c, t);
        bool set = row->type == TYPE_TEXTS; /* the arguments of a command may repeat */
        for (size_t i = 0; set && i < ret->n && t->v.n > 0 && i < 1000; i++) {
            if (cs_slice_eq(ret->v[i].v, t->v)) {
                cs_mistake(r->m, t->pos, "\"%s\" is in this list twice", cs_shown(t->v));
                break;
            }
        }
        ret->n += t->v.n > 0;
    }
}

static void read_labels(struct rd *r, const struct row *row, const struct cs_yaml_node *n,
                        struct cs_cfg_labels *ret)
{
    ret->pos = n->pos;
    ret->set = true;
    if (n->bad) {
        return;
    }
    if (n->kind != CS_YAML_MAP || n->n == 0) {
        cs_mistake(r->m, n->pos, "\"%s\" must be a mapping of words, such as { env: prod }, not %s",
                   row->key, n->kind == CS_YAML_MAP ? "an empty one" : what_is(n));
        return;
    }
    ret->keys = CS_NEW_ARRAY(r->arena, struct cs_cfg_text, n->n);
    ret->values = CS_NEW_ARRAY(r->arena, struct cs_cfg_text, n->n);
    if (ret->keys == NULL || ret->values == NULL) {
        r->m->no_memory = true;
        return;
    }
    static const struct row label = {.key = "a label", .type = TYPE_TARGET_NAME};
    for (const struct cs_yaml_node *c = n->first; c != NULL; c = c->next) {
        struct cs_cfg_text *key = &ret->keys[ret->n], *value = &ret->values[ret->n];
        struct cs_yaml_node k = {.kind = CS_YAML_SCALAR, .pos = c->key_pos, .text = c->key};
        read_text(r, &label, &k, key);
        read_text(r, &label, c, value);
        ret->n += key->v.n > 0 && value->v.n > 0;
    }
}

static void read_list(struct rd *r, const struct row *row, const struct cs_yaml_node *n,
                      struct cs_cfg_list *ret)
{
    ret->pos = n->pos;
    ret->set = true;
    if (n->bad) {
        return;
    }
    if (n->kind != CS_YAML_LIST) {
        cs_mistake(r->m, n->pos, "\"%s\" must be a list (each element starts with \"- \"), not %s",
                   row->key, what_is(n));
        return;
    }
    ret->v = cs_arena_array(r->arena, n->n + 1, sections[row->sub].size);
    if (ret->v == NULL) {
        r->m->no_memory = true;
        return;
    }
    for (const struct cs_yaml_node *c = n->first; c != NULL; c = c->next) {
        read_section(r, row->sub, c, (uint8_t *)ret->v + ret->n * sections[row->sub].size);
        ret->n++;
    }
}

/* ---- sections ---- */

static const struct row *find_row(enum section id, struct cs_slice key)
{
    for (size_t i = 0; i < CS_ARRAY_LEN(rows); i++) {
        if (rows[i].section == id && cs_slice_eq_str(key, rows[i].key)) {
            return &rows[i];
        }
    }
    return NULL;
}

/* Are the two one slip of the finger apart (one character more, less, other, or two swapped)? */
static bool near(struct cs_slice a, struct cs_slice b)
{
    size_t head = 0, tail = 0, min = CS_MIN(a.n, b.n), max = CS_MAX(a.n, b.n);
    while (head < min && a.p[head] == b.p[head]) {
        head++;
    }
    while (tail < min - head && a.p[a.n - 1 - tail] == b.p[b.n - 1 - tail]) {
        tail++;
    }
    return max - head - tail <= 1 || (a.n == b.n && a.n - head - tail == 2 &&
                                      a.p[head] == b.p[head + 1] && a.p[head + 1] == b.p[head]);
}

static void unknown_key(struct rd *r, enum section id, const struct cs_yaml_node *n)
{
    char known[200];
    size_t len = 0;
    const char *where = sections[id].where;
    known[0] = 0;
    for (size_t i = 0; i < CS_ARRAY_LEN(rows); i++) {
        if (rows[i].section != id || rows[i].need == NEED_LATER) {
            continue;
        }
        if (near(n->key, cs_slice_str(rows[i].key))) {
            cs_mistake(r->m, n->key_pos, "unknown key \"%s\"%s%s; did you mean \"%s\"?",
                       cs_shown(n->key), where[0] != 0 ? " in " : "", where, rows[i].key);
            return;
        }
        int w = snprintf(known + len, sizeof known - len, "%s%s", len > 0 ? ", " : "", rows[i].key);
        len = CS_MIN(sizeof known - 1, len + (w > 0 ? (size_t)w : 0));
    }
    cs_mistake(r->m, n->key_pos, "unknown key \"%s\"%s%s; known are: %s", cs_shown(n->key),
               where[0] != 0 ? " in " : "", where, known);
}

static void read_map_or_off(struct rd *r, const struct row *row, const struct cs_yaml_node *n,
                            struct cs_cfg_head *ret)
{
    if (n->kind == CS_YAML_SCALAR && !n->bad) {
        ret->pos = n->pos;
        ret->set = true;
        ret->off = cs_slice_eq_str(n->text, "off");
        ret->bad = !ret->off;
        if (!ret->off) {
            cs_mistake(r->m, n->pos,
                       "\"%s\" must be \"off\" or { certificate: FILE, key: FILE }, not \"%s\"",
                       row->key, cs_shown(n->text));
        }
        return;
    }
    read_section(r, row->sub, n, ret);
}

/* A path alone stands for { file: PATH }. */
static void read_path_or_map(struct rd *r, const struct row *row, const struct cs_yaml_node *n,
                             void *ret)
{
    if (n->kind != CS_YAML_SCALAR) {
        read_section(r, row->sub, n, ret);
        return;
    }
    const struct row *file = find_row(row->sub, CS_SLICE_LIT("file"));
    const struct row as = {.key = row->key, .type = TYPE_PATH};
    struct cs_cfg_head *head = ret;
    cs_assert(file != NULL);
    head->pos = n->pos;
    head->set = true;
    read_text(r, &as, n, (void *)((uint8_t *)ret + file->offset));
    head->bad = ((struct cs_cfg_text *)(void *)((uint8_t *)ret + file->offset))->v.n == 0;
}

static void read_value(struct rd *r, const struct row *row, const struct cs_yaml_node *n, void *at)
{
    switch (row->type) {
    case TYPE_INT:
    case TYPE_DURATION:
        read_number(r, row, n, at);
        break;
    case TYPE_TEXT:
    case TYPE_PATH:
    case TYPE_NAME:
    case TYPE_TARGET_NAME:
    case TYPE_ADDRESS:
    case TYPE_URL:
    case TYPE_SECRET:
        read_text(r, row, n, at);
        break;
    case TYPE_WORD:
        read_word(r, row, n, at);
        break;
    case TYPE_WHEN:
        read_when(r, row, n, at);
        break;
    case TYPE_TEXTS:
    case TYPE_ARGUMENTS:
        read_texts(r, row, n, at);
        break;
    case TYPE_LABELS:
        read_labels(r, row, n, at);
        break;
    case TYPE_MAP:
        read_section(r, row->sub, n, at);
        break;
    case TYPE_MAP_OR_OFF:
        read_map_or_off(r, row, n, at);
        break;
    case TYPE_PATH_OR_MAP:
        read_path_or_map(r, row, n, at);
        break;
    case TYPE_LIST:
        read_list(r, row, n, at);
        break;
    case TYPE_ANY:
        break;
    }
}

static const struct cs_yaml_node *child(const struct cs_yaml_node *map, const char *key)
{
    for (const struct cs_yaml_node *c = map->first; c != NULL; c = c->next) {
        if (cs_slice_eq_str(c->key, key)) {
            return c;
        }
    }
    return NULL;
}

static void check_required(struct rd *r, enum section id, const struct cs_yaml_node *n)
{
    /* What this version lacks has been reported; that it then misses its other half is no news. */
    bool later = false;
    for (size_t i = 0; i < CS_ARRAY_LEN(rows); i++) {
        later |= rows[i].section == id && rows[i].need == NEED_LATER && child(n, rows[i].key);
    }
    for (size_t i = 0; i < CS_ARRAY_LEN(rows); i++) {
        if (rows[i].section == id && rows[i].need == NEED_REQUIRED &&
            child(n, rows[i].key) == NULL && !(later && rows[i].type == TYPE_MAP)) {
            const char *where = sections[id].where;
            cs_mistake(r->m, n->pos, "\"%s\" is missing%s%s: %s", rows[i].key,
                       where[0] != 0 ? " in " : "", where, rows[i].help);
        }
    }
}

static void read_section(struct rd *r, enum section id, const struct cs_yaml_node *n, void *ret)
{
    struct cs_cfg_head *head = ret;
    head->pos = n->pos;
    head->set = true;
    head->bad = n->bad || n->kind != CS_YAML_MAP;
    if (n->bad) {
        return;
    }
    if (n->kind != CS_YAML_MAP) {
        cs_mistake(r->m, n->pos, "%s must be a mapping (key: value), not %s",
                   id == SECTION_TOP ? "the file" : sections[id].where, what_is(n));
        return;
    }
    for (const struct cs_yaml_node *c = n->first; c != NULL; c = c->next) {
        const struct row *row = find_row(id, c->key);
        if (row == NULL) {
            unknown_key(r, id, c);
        } else if (row->need == NEED_LATER) {
            cs_mistake(r->m, c->key_pos, "not in this version: \"%s\"%s%s", row->key,
                       sections[id].where[0] != 0 ? " in " : "", sections[id].where);
        } else {
            read_value(r, row, c, (uint8_t *)ret + row->offset);
        }
    }
    check_required(r, id, n);
}

bool cs_cfg_read(const struct cs_yaml_node *root, struct cs_mistakes *m, struct cs_arena *a,
                 struct cs_cfg_top *ret)
{
    struct rd r = {m, a};
    memset(ret, 0, sizeof *ret);
    read_section(&r, SECTION_TOP, root, ret);
    return !m->no_memory;
}

/* ---- the documentation ---- */

void cs_config_keys_text(struct cs_buf *out)
{
    static const char *const types[] = {[TYPE_ANY] = "",
                                        [TYPE_INT] = "number",
                                        [TYPE_TEXT] = "text",
                                        [TYPE_PATH] = "path",
                                        [TYPE_NAME] = "name",
                                        [TYPE_TARGET_NAME] = "name",
                                        [TYPE_ADDRESS] = "address",
                                        [TYPE_URL] = "URL",
                                        [TYPE_SECRET] = "secret",
                                        [TYPE_DURATION] = "time",
                                        [TYPE_WORD] = "word",
                                        [TYPE_WHEN] = "CEL block",
                                        [TYPE_TEXTS] = "list",
                                        [TYPE_ARGUMENTS] = "list",
                                        [TYPE_PATH_OR_MAP] = "path or mapping",
                                        [TYPE_LABELS] = "labels",
                                        [TYPE_MAP] = "mapping",
                                        [TYPE_MAP_OR_OFF] = "mapping or `off`",
                                        [TYPE_LIST] = "list of mappings"};
    for (unsigned id = SECTION_NONE + 1; id < SECTION_MAX; id++) {
        const char *where = sections[id].where;
        size_t later = 0;
        cs_buf_printf(out, "\n### %s%s%s\n\n| key | type | needed | meaning |\n|---|---|---|---|\n",
                      where[0] != 0 ? "`" : "", where[0] != 0 ? where : "Top level",
                      where[0] != 0 ? "`" : "");
        for (size_t i = 0; i < CS_ARRAY_LEN(rows); i++) {
            if (rows[i].section == id && rows[i].need != NEED_LATER) {
                cs_buf_printf(out, "| `%s` | %s | %s | %s |\n", rows[i].key, types[rows[i].type],
                              rows[i].need == NEED_REQUIRED ? "yes" : "", rows[i].help);
            }
        }
        for (size_t i = 0; i < CS_ARRAY_LEN(rows); i++) {
            if (rows[i].section == id && rows[i].need == NEED_LATER) {
                cs_buf_printf(out, "%s`%s`",
                              later++ > 0 ? ", " : "\nNot in this version: ", rows[i].key);
            }
        }
        cs_buf_str(out, later > 0 ? ".\n" : "");
    }
}
