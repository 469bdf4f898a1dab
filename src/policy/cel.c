/* Compiled conditions as bytes: written by the compile job, read back by whoever maps a snapshot.
 * The reader believes nothing: every count, offset and type is checked before use. */
#include "policy/cel_node.h"

#include "base/limits.h"
#include "base/reader.h"

#include <stdio.h>

/* u32 magic, u32 nodes, u32 bytes of strings; nodes of 16 bytes {u8 op, u8 0, u16 arguments, u32
 * size, u64 value}; strings. The magic counts facts and operators: a blob of another build is
 * refused. */
enum { MAGIC = 0x43454c00 + CS_CEL_OP_MAX * 3 + CS_FACT_MAX * 257, HEADER = 12, NODE = 16 };

static void put(struct cs_buf *out, uint64_t v, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++) {
        cs_buf_u8(out, (uint8_t)(v >> (8 * i)));
    }
}

static void encode(const struct cs_cel_node *n, uint32_t count, struct cs_buf *out)
{
    uint32_t strings = 0;
    for (uint32_t i = 0; i < count; i++) {
        strings += n[i].op == CS_CEL_STRING ? (uint32_t)n[i].u.s.n : 0;
    }
    put(out, MAGIC, 4);
    put(out, count, 4);
    put(out, strings, 4);
    strings = 0;
    for (uint32_t i = 0; i < count; i++) {
        put(out, n[i].op, 2);
        put(out, n[i].n_args, 2);
        put(out, n[i].size, 4);
        if (n[i].op == CS_CEL_STRING) {
            put(out, strings, 4);
            put(out, n[i].u.s.n, 4);
            strings += (uint32_t)n[i].u.s.n;
        } else {
            put(out, (uint64_t)n[i].u.i, 8);
        }
    }
    for (uint32_t i = 0; i < count; i++) {
        if (n[i].op == CS_CEL_STRING) {
            cs_buf_add(out, n[i].u.s);
        }
    }
}

/* Line and column of a byte offset, both from 1. */
static void place(struct cs_slice text, size_t at, struct cs_cel_mistake *ret)
{
    ret->line = 1;
    ret->column = 1;
    for (size_t i = 0; i < at && i < text.n; i++) {
        if (text.p[i] == '\n') {
            ret->line++;
            ret->column = 1;
        } else {
            ret->column += (text.p[i] & 0xc0) != 0x80;
        }
    }
}

enum cs_err cs_cel_compile(struct cs_slice text, struct cs_arena *a, struct cs_buf *out,
                           struct cs_cel_mistake *ret_mistake)
{
    struct cs_cel_parsed p = {NULL, NULL, 0};
    struct cs_cel_fault f = {0, ""};
    *ret_mistake = (struct cs_cel_mistake){1, 1, ""};
    if (text.n > CS_LIMIT_CONFIG_BYTES) {
        (void)snprintf(ret_mistake->text, sizeof ret_mistake->text, "the condition is too long");
        return CS_ERR_INVALID;
    }
    /* A mistake at the end shall stand behind the last word, not below the block. */
    while (text.n > 0 && strchr(" \t\r\n", text.p[text.n - 1]) != NULL && text.p[text.n - 1] != 0) {
        text.n--;
    }
    uint32_t at = 0;
    enum cs_err err = cs_cel_parse(text, a, &p, &at, ret_mistake->text);
    if (err != CS_OK) {
        place(text, at, ret_mistake);
        return err;
    }
    struct cs_cel c = {p.nodes, p.n, 0};
    if (!cs_cel_check(p.nodes, p.n, &c.families, &f)) {
        place(text, p.at[f.at], ret_mistake);
        (void)snprintf(ret_mistake->text, sizeof ret_mistake->text, "%s", f.text);
        return CS_ERR_INVALID;
    }
    /* With every fact unknown, what is still false is false always. */
    struct cs_facts nothing;
    struct cs_cel_input in;
    memset(&nothing, 0, sizeof nothing);
    for (size_t i = 0; i < CS_FACT_MAX; i++) {
        nothing.v[i].state = CS_FACT_UNKNOWN;
    }
    cs_cel_prepare(&nothing, &in);
    if (cs_cel_eval(&c, &in) == CS_TRI_FALSE) {
        place(text, p.at[0], ret_mistake);
        (void)snprintf(ret_mistake->text, sizeof ret_mistake->text,
                       "this condition is false whatever happens, so the rule can never apply");
        return CS_ERR_INVALID;
    }
    encode(p.nodes, p.n, out);
    return out->bad ? CS_ERR_NO_MEMORY : CS_OK;
}

static bool decode_node(struct cs_reader *r, struct cs_slice strings, struct cs_cel_node *n)
{
    n->op = cs_reader_u8(r);
    uint8_t zero = cs_reader_u8(r);
    n->n_args = cs_reader_u16le(r);
    n->size = cs_reader_u32le(r);
    uint64_t v = cs_reader_u64le(r);
    if (n->op == CS_CEL_STRING) {
        size_t off = (uint32_t)v, len = (size_t)(v >> 32);
        if (off > strings.n || len > strings.n - off) {
            return false;
        }
        n->u.s = cs_slice(strings.p + off, len);
    } else {
        n->u.i = (int64_t)v;
    }
    return zero == 0 && !r->bad;
}

enum cs_err cs_cel_load(struct cs_slice code, struct cs_arena *a, struct cs_cel *ret)
{
    struct cs_reader r = cs_reader(code);
    uint32_t magic = cs_reader_u32le(&r), n = cs_reader_u32le(&r), strings_n = cs_reader_u32le(&r);
    if (r.bad || magic != MAGIC || n == 0 || n > CS_LIMIT_CEL_NODES ||
        cs_reader_left(&r) < (size_t)n * NODE ||
        cs_reader_left(&r) - (size_t)n * NODE != strings_n) {
        return CS_ERR_CORRUPT;
    }
    struct cs_cel_node *nodes = CS_NEW_ARRAY(a, struct cs_cel_node, n);
    if (nodes == NULL) {
        return CS_ERR_NO_MEMORY;
    }
    struct cs_slice strings = cs_slice_from(code, HEADER + (size_t)n * NODE);
    for (uint32_t i = 0; i < n; i++) {
        if (!decode_node(&r, strings, &nodes[i])) {
            return CS_ERR_CORRUPT;
        }
    }
    struct cs_cel_fault f;
    uint32_t families = 0;
    if (!cs_cel_check(nodes, n, &families, &f)) {
        return CS_ERR_CORRUPT;
    }
    cs_cel_lower(nodes, n);
    *ret = (struct cs_cel){nodes, n, families};
    return CS_OK;
}
