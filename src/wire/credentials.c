/* The codec of keeper's part of the configuration. The compile job writes it, keeper reads it in
 * place out of sealed memory. The reader is strict: one bad row makes the table void.
 * Must never hold a secret: names, words and public hashes only. */
#include "wire/credentials.h"

#include "base/fields.h"

#define SLICE(member)                                                                              \
    {                                                                                              \
        CS_FIELD_KIND_SLICE, offsetof(struct cs_credential_row, member), #member                   \
    }

#define U64(member)                                                                                \
    {                                                                                              \
        CS_FIELD_KIND_U64, offsetof(struct cs_credential_row, member), #member                     \
    }

static const struct cs_field fields[] = {
    SLICE(target), SLICE(secret), SLICE(elevated), U64(binding), SLICE(pins),
    SLICE(probe),  U64(way),      U64(probe_way),  SLICE(user),  SLICE(probe_user),
};
enum { SLICES = 7, NUMBERS = 3, NAME_MAX_BYTES = 128, USER_MAX_BYTES = 256 };
_Static_assert(sizeof(struct cs_credential_row) ==
                   SLICES * sizeof(struct cs_slice) + NUMBERS * sizeof(uint64_t),
               "table");

static const char *const ways[CS_WAY_MAX] = {
    [CS_WAY_SCRAM] = "scram-sha-256", [CS_WAY_MD5] = "md5", [CS_WAY_CLEARTEXT] = "cleartext"};

enum cs_way cs_way_of(struct cs_slice word)
{
    for (unsigned i = CS_WAY_SCRAM + 1; i < CS_WAY_MAX; i++) {
        if (cs_slice_eq_str(word, ways[i])) {
            return (enum cs_way)i;
        }
    }
    return CS_WAY_SCRAM;
}

const char *cs_way_name(enum cs_way way)
{
    return ways[way < CS_WAY_MAX ? way : CS_WAY_SCRAM];
}

enum cs_channel_binding cs_channel_binding_of(struct cs_slice word)
{
    static const char *const words[CS_BINDING_MAX] = {
        [CS_BINDING_DISABLE] = "disable",
        [CS_BINDING_PREFER] = "prefer",
        [CS_BINDING_REQUIRE] = "require",
    };
    for (unsigned i = CS_BINDING_NONE + 1; i < CS_BINDING_MAX; i++) {
        if (cs_slice_eq_str(word, words[i])) {
            return (enum cs_channel_binding)i;
        }
    }
    return CS_BINDING_NONE;
}

void cs_credentials_write(struct cs_buf *out, const struct cs_credential_row *row)
{
    if (row->target.n > NAME_MAX_BYTES || row->secret.n > NAME_MAX_BYTES ||
        row->elevated.n > NAME_MAX_BYTES || row->probe.n > NAME_MAX_BYTES ||
        row->user.n > USER_MAX_BYTES || row->probe_user.n > USER_MAX_BYTES ||
        row->pins.n > CS_PINS_MAX * (1 + CS_PIN_MAX)) {
        out->bad = true;
        return;
    }
    size_t n = SLICES * 4 + NUMBERS * 8 + row->target.n + row->secret.n + row->elevated.n +
               row->probe.n + row->pins.n + row->user.n + row->probe_user.n;
    uint8_t *at = cs_buf_room(out, n);
    if (at != NULL) {
        struct cs_writer w = cs_writer(at, n);
        cs_fields_encode(&w, fields, CS_ARRAY_LEN(fields), row);
        out->bad |= w.overflow;
        out->len += n;
    }
}

static bool pins_valid(struct cs_slice pins)
{
    struct cs_reader r = cs_reader(pins);
    unsigned n = 0;
    while (!r.bad && r.p < r.end) {
        uint8_t len = cs_reader_u8(&r);
        (void)cs_reader_take(&r, len);
        if (len < CS_PIN_MIN || len > CS_PIN_MAX || ++n > CS_PINS_MAX) {
            return false;
        }
    }
    return !r.bad;
}

static bool way_valid(uint64_t way, struct cs_slice user, uint64_t binding)
{
    /* SECURITY: what is weaker than SCRAM is bound to nothing. */
    bool weak = way != CS_WAY_SCRAM;
    return way < CS_WAY_MAX && user.n <= USER_MAX_BYTES &&
           !(weak && (user.n == 0 || binding == CS_BINDING_REQUIRE));
}

static bool ways_valid(const struct cs_credential_row *row)
{
    return way_valid(row->way, row->user, row->binding) &&
           way_valid(row->probe_way, row->probe_user, row->binding);
}

static bool row_valid(const struct cs_credential_row *row)
{
    bool names = row->target.n > 0 && row->target.n <= NAME_MAX_BYTES && row->secret.n > 0 &&
                 row->secret.n <= NAME_MAX_BYTES && row->elevated.n <= NAME_MAX_BYTES &&
                 row->probe.n <= NAME_MAX_BYTES;
    bool binding = row->binding > CS_BINDING_NONE && row->binding < CS_BINDING_MAX;
    /* SECURITY: a pin is looked at in a bound proof only: with any other word it would be none. */
    return names && binding && ways_valid(row) && pins_valid(row->pins) &&
           (row->pins.n == 0 || row->binding == CS_BINDING_REQUIRE);
}

bool cs_credentials_valid(struct cs_slice table)
{
    struct cs_reader r = cs_reader(table);
    struct cs_slice last = CS_SLICE_NULL;
    if (table.n > CS_CREDENTIALS_MAX) {
        return false;
    }
    while (r.p < r.end) {
        struct cs_credential_row row = {.binding = CS_BINDING_NONE};
        cs_fields_decode(&r, fields, CS_ARRAY_LEN(fields), &row);
        if (r.bad || !row_valid(&row) || cs_slice_cmp(last, row.target) >= 0) {
            return false;
        }
        last = row.target;
    }
    return true;
}

bool cs_credentials_find(struct cs_slice table, struct cs_slice target,
                         struct cs_credential_row *ret)
{
    struct cs_reader r = cs_reader(table);
    while (r.p < r.end) {
        struct cs_credential_row row = {.binding = CS_BINDING_NONE};
        cs_fields_decode(&r, fields, CS_ARRAY_LEN(fields), &row);
        if (r.bad) {
            return false;
        }
        if (cs_slice_eq(row.target, target)) {
            *ret = row;
            return true;
        }
    }
    return false;
}

bool cs_credential_pin_add(struct cs_buf *pins, struct cs_slice hash)
{
    if (hash.n < CS_PIN_MIN || hash.n > CS_PIN_MAX) {
        return false;
    }
    cs_buf_u8(pins, (uint8_t)hash.n);
    cs_buf_add(pins, hash);
    return !pins->bad;
}

bool cs_credential_pinned(const struct cs_credential_row *row, struct cs_slice hash)
{
    struct cs_reader r = cs_reader(row->pins);
    while (!r.bad && r.p < r.end) {
        uint8_t n = cs_reader_u8(&r);
        struct cs_slice pin = cs_reader_take(&r, n);
        if (!r.bad && cs_slice_eq(pin, hash)) {
            return true;
        }
    }
    return false;
}
