/* The values of parameters as rules see them: the fact sql.params, a list of texts. Called by the
 * gate for each Bind, and where an action's form is read: the fact itself does not travel. Pure but
 * for the memory it is given.
 *
 * SECURITY: a value that has no certain text leaves the whole fact unknown, which denies and holds
 * match and allows do not. It must never give a text that the server would read as another value.
 */
#include "action/action.h"

#include <stdio.h>

enum { VALUE_TEXT = 48 };

enum form {
    FORM_NONE = 0,
    FORM_BOOL,
    FORM_INT,
    FORM_UNSIGNED,
    FORM_TEXT,
    FORM_UUID,
};

/* Of PostgreSQL (pg_type.dat): numbers of built-in types are the same on every server. */
static const struct type_row {
    uint32_t type;
    uint8_t form;
    uint8_t bytes; /* of the binary form; 0: any */
} types[] = {
    {16, FORM_BOOL, 1},     /* bool */
    {20, FORM_INT, 8},      /* int8 */
    {21, FORM_INT, 2},      /* int2 */
    {23, FORM_INT, 4},      /* int4 */
    {26, FORM_UNSIGNED, 4}, /* oid */
    {19, FORM_TEXT, 0},     /* name */
    {25, FORM_TEXT, 0},     /* text */
    {114, FORM_TEXT, 0},    /* json */
    {142, FORM_TEXT, 0},    /* xml */
    {705, FORM_TEXT, 0},    /* unknown */
    {1042, FORM_TEXT, 0},   /* bpchar */
    {1043, FORM_TEXT, 0},   /* varchar */
    {2950, FORM_UUID, 16},  /* uuid */
};

static const struct type_row *row_of(const struct cs_param *param)
{
    for (size_t i = 0; i < CS_ARRAY_LEN(types); i++) {
        if (types[i].type == param->type &&
            (types[i].bytes == 0 || types[i].bytes == param->bytes.n)) {
            return &types[i];
        }
    }
    return NULL;
}

static uint64_t big_endian(struct cs_slice s)
{
    uint64_t v = 0;
    for (size_t i = 0; i < s.n; i++) {
        v = v << 8 | s.p[i];
    }
    return v;
}

static int64_t signed_of(struct cs_slice s)
{
    uint64_t v = big_endian(s);
    unsigned bits = (unsigned)s.n * 8;
    if (bits < 64 && (v >> (bits - 1) & 1) != 0) {
        v |= UINT64_MAX << bits;
    }
    return (int64_t)v;
}

static int print_uuid(struct cs_slice s, char out[static VALUE_TEXT])
{
    char hex[2 * 16 + 1];
    cs_hex(s, hex);
    return snprintf(out, VALUE_TEXT, "%.8s-%.4s-%.4s-%.4s-%.12s", hex, hex + 8, hex + 12, hex + 16,
                    hex + 20);
}

/* As the server would write it in text format. */
static bool words_of(const struct cs_param *param, struct cs_arena *mem, struct cs_slice *ret)
{
    char out[VALUE_TEXT];
    int n = 0;
    const struct type_row *row = row_of(param);
    switch (row != NULL ? (enum form)row->form : FORM_NONE) {
    case FORM_TEXT:
        *ret = param->bytes;
        return cs_utf8_valid(param->bytes);
    case FORM_BOOL:
        *ret = param->bytes.p[0] != 0 ? CS_SLICE_LIT("t") : CS_SLICE_LIT("f");
        return true;
    case FORM_INT:
        n = snprintf(out, sizeof out, "%lld", (long long)signed_of(param->bytes));
        break;
    case FORM_UNSIGNED:
        n = snprintf(out, sizeof out, "%llu", (unsigned long long)big_endian(param->bytes));
        break;
    case FORM_UUID:
        n = print_uuid(param->bytes, out);
        break;
    case FORM_NONE:
    default:
        return false;
    }
    *ret = cs_arena_dup(mem, cs_slice(out, (size_t)n));
    return ret->p != NULL;
}

static bool value_of(const struct cs_param *param, struct cs_arena *mem, struct cs_slice *ret)
{
    if (param->null) {
        *ret = CS_SLICE_LIT("");
        return true;
    }
    if (param->format == 0) {
        *ret = param->bytes;
        return cs_utf8_valid(param->bytes);
    }
    return param->format == 1 && words_of(param, mem, ret);
}

bool cs_params_fact(const struct cs_param *params, size_t n, struct cs_arena *mem,
                    struct cs_fact *ret)
{
    struct cs_slice *v =
        n > 0 && n <= CS_FACT_STRINGS_MAX ? CS_NEW_ARRAY(mem, struct cs_slice, n) : NULL;
    ret->state = CS_FACT_UNKNOWN;
    for (size_t i = 0; i < n; i++) {
        if (v == NULL || !value_of(&params[i], mem, &v[i])) {
            return false;
        }
    }
    ret->state = CS_FACT_KNOWN;
    ret->u.strings.v = v;
    ret->u.strings.n = n;
    return true;
}
