/* Actions: their one binary form, and the hashes over them. Called by gate (which makes actions),
 * by control and approval (which store them and let people sign) and by the record. It must never
 * have two encodings of the same action, nor hash anything but what runs. */
#include "action/action.h"

#include "base/assert.h"
#include "base/limits.h"
#include "crypto/crypto.h"
#include "wire/cbor.h"

enum {
    FORM = 2, /* first byte of the binary form */
    FLAG_IN_TRANSACTION = 1,
    FLAG_CHANGING = 2,
    FLAG_ONLY_ROLLBACK = 4,
    FLAG_ONLY_SESSION = 8,
    FLAGS = 15,
    PARAM_HEAD = 1 + 2 + 4 + 4,
    FACT_HEAD = 4 + 1,
};

/* ---- facts ---- */

/* The fact that is the action's bytes travels as its state alone: else a held text would count
 * twice, and a form could show rules another text than the one that is approved and runs. */
static bool is_bytes(enum cs_fact_id id)
{
    return id == CS_FACT_SQL_TEXT;
}

/* So does the fact that is the values of its parameters. */
static bool is_params(enum cs_fact_id id)
{
    return id == CS_FACT_SQL_PARAMS;
}

static void fact_encode(struct cs_writer *w, enum cs_fact_id id, const struct cs_fact *f,
                        struct cs_slice bytes)
{
    const struct cs_fact_info *info = cs_fact_info(id);
    cs_writer_slice(w, cs_slice_str(info->name));
    cs_writer_u8(w, (uint8_t)f->state);
    if (f->state != CS_FACT_KNOWN || is_params(id)) {
        return;
    }
    if (is_bytes(id)) {
        w->overflow = w->overflow || !cs_slice_eq(f->u.string, bytes);
        return;
    }
    switch (info->type) {
    case CS_FACT_STRING:
        cs_writer_slice(w, f->u.string);
        break;
    case CS_FACT_STRINGS:
        if (f->u.strings.n > CS_FACT_STRINGS_MAX) {
            w->overflow = true;
            return;
        }
        cs_writer_u32le(w, (uint32_t)f->u.strings.n);
        for (size_t i = 0; i < f->u.strings.n; i++) {
            cs_writer_slice(w, f->u.strings.v[i]);
        }
        break;
    case CS_FACT_INT:
        cs_writer_u64le(w, (uint64_t)f->u.integer);
        break;
    case CS_FACT_BOOL:
        cs_writer_u8(w, f->u.boolean ? 1 : 0);
        break;
    }
}

static size_t fact_size(enum cs_fact_id id, const struct cs_fact *f)
{
    const struct cs_fact_info *info = cs_fact_info(id);
    size_t n = FACT_HEAD + strlen(info->name) + 8;
    if (f->state == CS_FACT_KNOWN && info->type == CS_FACT_STRING && !is_bytes(id)) {
        n += f->u.string.n;
    }
    if (f->state == CS_FACT_KNOWN && info->type == CS_FACT_STRINGS && !is_params(id)) {
        for (size_t i = 0; i < f->u.strings.n; i++) {
            n += 4 + f->u.strings.v[i].n;
        }
    }
    return n;
}

/* Facts travel by name and in the table's order, each at most once, absent ones not at all. */
static void facts_encode(struct cs_writer *w, const struct cs_facts *facts, struct cs_slice bytes)
{
    uint32_t n = 0;
    for (unsigned i = 0; i < CS_FACT_MAX; i++) {
        n += facts->v[i].state != CS_FACT_ABSENT;
    }
    cs_writer_u32le(w, n);
    for (unsigned i = 0; i < CS_FACT_MAX; i++) {
        if (facts->v[i].state != CS_FACT_ABSENT) {
            fact_encode(w, (enum cs_fact_id)i, &facts->v[i], bytes);
        }
    }
}

static bool strings_decode(struct cs_reader *r, struct cs_arena *arena, struct cs_fact *f)
{
    size_t n = cs_reader_u32le(r);
    if (r->bad || n > CS_FACT_STRINGS_MAX || n > cs_reader_left(r) / 4) {
        return false;
    }
    struct cs_slice *v = n > 0 ? CS_NEW_ARRAY(arena, struct cs_slice, n) : NULL;
    if (n > 0 && v == NULL) {
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        v[i] = cs_reader_slice(r);
    }
    f->u.strings.v = v;
    f->u.strings.n = n;
    return !r->bad;
}

static bool fact_decode(struct cs_reader *r, struct cs_arena *arena, enum cs_fact_id id,
                        const struct cs_action *of, struct cs_fact *f)
{
    unsigned state = cs_reader_u8(r);
    if (state != CS_FACT_UNKNOWN && state != CS_FACT_KNOWN) {
        return false;
    }
    f->state = (enum cs_fact_state)state;
    if (state == CS_FACT_UNKNOWN) {
        return true;
    }
    if (is_bytes(id)) {
        f->u.string = of->bytes;
        return !r->bad;
    }
    if (is_params(id)) {
        return cs_params_fact(of->params, of->n_params, arena, f) && !r->bad;
    }
    unsigned b;
    switch (cs_fact_info(id)->type) {
    case CS_FACT_STRING:
        f->u.string = cs_reader_slice(r);
        break;
    case CS_FACT_STRINGS:
        return strings_decode(r, arena, f);
    case CS_FACT_INT:
        f->u.integer = (int64_t)cs_reader_u64le(r);
        break;
    case CS_FACT_BOOL:
        b = cs_reader_u8(r);
        f->u.boolean = b == 1;
        return !r->bad && b <= 1;
    }
    return !r->bad;
}

static bool facts_decode(struct cs_reader *r, struct cs_arena *arena, const struct cs_action *of,
                         struct cs_facts *ret)
{
    size_t n = cs_reader_u32le(r);
    unsigned next = 0; /* ascending: one encoding only, and nothing twice */
    if (n > CS_FACT_MAX) {
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        enum cs_fact_id id = cs_fact_by_name(cs_reader_slice(r));
        if (r->bad || id >= CS_FACT_MAX || id < next ||
            !fact_decode(r, arena, id, of, &ret->v[id])) {
            return false;
        }
        next = (unsigned)id + 1;
    }
    return !r->bad;
}

/* ---- the action ---- */
void cs_action_encode(struct cs_writer *w, const struct cs_action *a)
{
    if (a->n_params > CS_PARAMS_MAX) {
        w->overflow = true;
        return;
    }
    cs_writer_u8(w, FORM);
    cs_writer_u8(w, (uint8_t)((a->in_transaction ? FLAG_IN_TRANSACTION : 0) |
                              (a->changing ? FLAG_CHANGING : 0) |
                              (a->only_rollback ? FLAG_ONLY_ROLLBACK : 0) |
                              (a->only_session ? FLAG_ONLY_SESSION : 0)));
    cs_writer_slice(w, a->protocol);
    cs_writer_slice(w, a->bytes);
    cs_writer_slice(w, a->database);
    cs_writer_slice(w, a->role);
    cs_writer_slice(w, a->settings);
    cs_writer_slice(w, a->tx);
    cs_writer_u32le(w, (uint32_t)a->n_params);
    for (size_t i = 0; i < a->n_params; i++) {
        const struct cs_param *p = &a->params[i];
        cs_writer_u8(w, p->null ? 1 : 0);
        cs_writer_u16le(w, p->format);
        cs_writer_u32le(w, p->type);
        cs_writer_slice(w, p->null ? CS_SLICE_NULL : p->bytes);
    }
    facts_encode(w, &a->facts, a->bytes);
}

size_t cs_action_encoded_size(const struct cs_action *a)
{
    size_t n = 2 + 6 * 4 + a->protocol.n + a->bytes.n + a->database.n + a->role.n + a->settings.n +
               a->tx.n + 4 + 4;
    for (size_t i = 0; i < a->n_params; i++) {
        n += PARAM_HEAD + a->params[i].bytes.n;
    }
    for (unsigned i = 0; i < CS_FACT_MAX; i++) {
        n += fact_size((enum cs_fact_id)i, &a->facts.v[i]);
    }
    return n;
}

bool cs_action_fits(const struct cs_action *a)
{
    size_t left = CS_LIMIT_HELD_BYTES;
    if (a->bytes.n > left || a->n_params > CS_PARAMS_MAX) {
        return false; /* nobody reads more */
    }
    left -= a->bytes.n;
    for (size_t i = 0; i < a->n_params; i++) {
        if (a->params[i].bytes.n > left) {
            return false;
        }
        left -= a->params[i].bytes.n;
    }
    return cs_action_encoded_size(a) <= CS_LIMIT_HELD_FORM_BYTES;
}

static bool params_decode(struct cs_reader *r, struct cs_arena *arena, struct cs_action *a)
{
    size_t n = cs_reader_u32le(r);
    if (r->bad || n > CS_PARAMS_MAX || n > cs_reader_left(r) / PARAM_HEAD) {
        return false;
    }
    struct cs_param *p = n > 0 ? CS_NEW_ARRAY(arena, struct cs_param, n) : NULL;
    if (n > 0 && p == NULL) {
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        unsigned null = cs_reader_u8(r);
        p[i].null = null == 1;
        p[i].format = cs_reader_u16le(r);
        p[i].type = cs_reader_u32le(r);
        p[i].bytes = cs_reader_slice(r);
        if (r->bad || null > 1 || (p[i].null && p[i].bytes.n > 0)) {
            return false;
        }
    }
    a->params = p;
    a->n_params = n;
    return true;
}

bool cs_action_decode(struct cs_reader *r, struct cs_arena *arena, struct cs_action *ret)
{
    struct cs_action a = {0};
    unsigned form = cs_reader_u8(r);
    unsigned flags = cs_reader_u8(r);
    if (r->bad || form != FORM || (flags & ~(unsigned)FLAGS) != 0) {
        return false;
    }
    a.in_transaction = (flags & FLAG_IN_TRANSACTION) != 0;
    a.changing = (flags & FLAG_CHANGING) != 0;
    a.only_rollback = (flags & FLAG_ONLY_ROLLBACK) != 0;
    a.only_session = (flags & FLAG_ONLY_SESSION) != 0;
    a.protocol = cs_reader_slice(r);
    a.bytes = cs_reader_slice(r);
    a.database = cs_reader_slice(r);
    a.role = cs_reader_slice(r);
    a.settings = cs_reader_slice(r);
    a.tx = cs_reader_slice(r);
    if (r->bad || a.bytes.n > CS_LIMIT_HELD_BYTES || !params_decode(r, arena, &a) ||
        !facts_decode(r, arena, &a, &a.facts)) {
        return false;
    }
    *ret = a;
    return true;
}

/* ---- hashes: deterministic CBOR, hashed as it is written so that no copy of the action is made
 * ---- */
static void hash_head(struct cs_hasher *h, enum cs_cbor_major major, uint64_t argument)
{
    uint8_t head[CS_CBOR_HEAD_MAX];
    cs_hasher_add(h, cs_slice(head, cs_cbor_head(major, argument, head)));
}

static void hash_string(struct cs_hasher *h, enum cs_cbor_major major, struct cs_slice s)
{
    hash_head(h, major, s.n);
    cs_hasher_add(h, s);
}

void cs_action_match(const struct cs_action *a, const struct cs_chain *chain,
                     struct cs_slice target, uint8_t ret[static CS_DIGEST])
{
    struct cs_hasher h;
    cs_hasher_start(&h);
    hash_head(&h, CS_CBOR_ARRAY, 8);
    hash_string(&h, CS_CBOR_TEXT, CS_SLICE_LIT("countersign/match/1"));
    cs_assert(chain->n <= CS_LIMIT_CHAIN);
    hash_head(&h, CS_CBOR_ARRAY, chain->n);
    for (size_t i = 0; i < chain->n; i++) {
        hash_head(&h, CS_CBOR_ARRAY, 2);
        hash_string(&h, CS_CBOR_TEXT, cs_slice_str(cs_principal_kind_name(chain->p[i].kind)));
        hash_string(&h, CS_CBOR_BYTES, chain->p[i].id);
    }
    hash_string(&h, CS_CBOR_BYTES, target);
    hash_string(&h, CS_CBOR_BYTES, a->database);
    hash_string(&h, CS_CBOR_BYTES, a->role);
    hash_string(&h, CS_CBOR_BYTES, a->settings);
    hash_string(&h, CS_CBOR_BYTES, a->bytes);
    hash_head(&h, CS_CBOR_ARRAY, a->n_params);
    for (size_t i = 0; i < a->n_params; i++) {
        const struct cs_param *p = &a->params[i];
        hash_head(&h, CS_CBOR_ARRAY, 4);
        hash_head(&h, CS_CBOR_SIMPLE, p->null ? CS_CBOR_TRUE : CS_CBOR_FALSE);
        hash_head(&h, CS_CBOR_UINT, p->format);
        hash_head(&h, CS_CBOR_UINT, p->type);
        hash_string(&h, CS_CBOR_BYTES, p->null ? CS_SLICE_NULL : p->bytes);
    }
    cs_hasher_finish(&h, ret);
}

void cs_action_digest(const uint8_t match[static CS_DIGEST], struct cs_slice request_id,
                      const uint8_t nonce[static CS_NONCE], uint64_t policy_version,
                      struct cs_slice tx, struct cs_slice claimed, uint8_t ret[static CS_DIGEST])
{
    struct cs_hasher h;
    cs_hasher_start(&h);
    hash_head(&h, CS_CBOR_ARRAY, 7);
    hash_string(&h, CS_CBOR_TEXT, CS_SLICE_LIT("countersign/digest/2"));
    hash_string(&h, CS_CBOR_BYTES, cs_slice(match, CS_DIGEST));
    hash_string(&h, CS_CBOR_BYTES, request_id);
    hash_string(&h, CS_CBOR_BYTES, cs_slice(nonce, CS_NONCE));
    hash_head(&h, CS_CBOR_UINT, policy_version);
    hash_string(&h, CS_CBOR_BYTES, tx);
    hash_string(&h, CS_CBOR_BYTES, claimed);
    cs_hasher_finish(&h, ret);
}

void cs_digest_short(const uint8_t digest[static CS_DIGEST], char ret[static 9])
{
    static const char alphabet[33] = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";
    uint64_t bits = 0;
    for (size_t i = 0; i < 5; i++) {
        bits = bits << 8 | digest[i];
    }
    for (size_t i = 0; i < 8; i++) {
        ret[i] = alphabet[bits >> (35 - 5 * i) & 31];
    }
    ret[8] = 0;
}

struct cs_slice cs_action_server(struct cs_slice address, struct cs_slice tls, struct cs_arena *a)
{
    return cs_arena_printf(a, "target=%.*s tls=%.*s", CS_SLICE_FMT(address), CS_SLICE_FMT(tls));
}
