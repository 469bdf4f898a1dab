/* The codec of the configuration snapshot: magic, scalar fields, then each listener, all from two
 * tables. The compile job writes it; supervisor, gate, front and control read it in place out of
 * sealed memory. The reader is strict: a foreign version, a missing or a trailing byte, too many
 * listeners or an impossible value make the whole snapshot void, never a part of it.
 * Must never copy or interpret what it carries: keys and certificates stay bytes here. */
#include "wire/snapshot.h"

#include "base/fields.h"

enum { FILE_SHA256 = 32 };
/* The last byte is the version of this layout: a role of another build refuses the blob. */
static const uint8_t magic[8] = {'C', 'S', 'S', 'N', 'A', 'P', 0, 3};

#define U64(type, member)                                                                          \
    {                                                                                              \
        CS_FIELD_KIND_U64, offsetof(struct type, member), #member                                  \
    }
#define SLICE(type, member)                                                                        \
    {                                                                                              \
        CS_FIELD_KIND_SLICE, offsetof(struct type, member), #member                                \
    }

static const struct cs_field snapshot_fields[] = {
    U64(cs_snapshot, version),
    SLICE(cs_snapshot, url),
    SLICE(cs_snapshot, store),
    SLICE(cs_snapshot, recordings),
    U64(cs_snapshot, master_key.source),
    SLICE(cs_snapshot, master_key.what),
    U64(cs_snapshot, master_key.timeout_s),
    U64(cs_snapshot, previous_master_key.source),
    SLICE(cs_snapshot, previous_master_key.what),
    U64(cs_snapshot, previous_master_key.timeout_s),
    SLICE(cs_snapshot, system_roots),
    SLICE(cs_snapshot, policy),
    SLICE(cs_snapshot, credentials),
    U64(cs_snapshot, n_listeners),
    U64(cs_snapshot, drain_s),
    U64(cs_snapshot, busy_poll_us),
    SLICE(cs_snapshot, escrow),
    SLICE(cs_snapshot, file_sha256),
};
static const struct cs_field listener_fields[] = {
    SLICE(cs_snapshot_listener, name),           SLICE(cs_snapshot_listener, kind),
    SLICE(cs_snapshot_listener, address),        U64(cs_snapshot_listener, tls),
    SLICE(cs_snapshot_listener, cert_pem),       SLICE(cs_snapshot_listener, key_pem),
    SLICE(cs_snapshot_listener, proxy_from),     U64(cs_snapshot_listener, client_form),
    SLICE(cs_snapshot_listener, client_pattern), SLICE(cs_snapshot_listener, client_authorities),
};
/* A member added to a struct must be added to its table. */
_Static_assert(sizeof(struct cs_snapshot_listener) == 8 * sizeof(struct cs_slice) + 16, "table");
_Static_assert(sizeof(struct cs_snapshot) ==
                   8 * sizeof(struct cs_slice) + 2 * sizeof(struct cs_snapshot_key) + 32 +
                       CS_SNAPSHOT_LISTENERS * sizeof(struct cs_snapshot_listener),
               "table");

/* Bytes that these fields take; SIZE_MAX when they exceed what a snapshot may be. */
static size_t encoded_size(const struct cs_field *f, size_t n, const void *from)
{
    size_t sum = 0;
    for (size_t i = 0; i < n; i++) {
        struct cs_slice s = CS_SLICE_NULL;
        if (f[i].kind == CS_FIELD_KIND_SLICE) {
            memcpy(&s, (const uint8_t *)from + f[i].offset, sizeof s);
        }
        if (s.n > CS_SNAPSHOT_MAX) {
            return SIZE_MAX;
        }
        sum += f[i].kind == CS_FIELD_KIND_SLICE ? 4 + s.n : 8;
    }
    return sum;
}

static void add_fields(struct cs_buf *out, const struct cs_field *f, size_t n, const void *from)
{
    size_t size = encoded_size(f, n, from);
    uint8_t *at = cs_buf_room(out, size);
    if (at == NULL) {
        return;
    }
    struct cs_writer w = cs_writer(at, size);
    cs_fields_encode(&w, f, n, from);
    if (w.overflow) {
        out->bad = true;
        return;
    }
    out->len += size;
}

void cs_snapshot_write(struct cs_buf *out, const struct cs_snapshot *s)
{
    if (s->n_listeners > CS_SNAPSHOT_LISTENERS) {
        out->bad = true;
        return;
    }
    cs_buf_add(out, cs_slice(magic, sizeof magic));
    add_fields(out, snapshot_fields, CS_ARRAY_LEN(snapshot_fields), s);
    for (size_t i = 0; i < s->n_listeners; i++) {
        add_fields(out, listener_fields, CS_ARRAY_LEN(listener_fields), &s->listeners[i]);
    }
}

bool cs_snapshot_read(struct cs_slice in, struct cs_snapshot *ret)
{
    if (in.n > CS_SNAPSHOT_MAX) {
        return false;
    }
    struct cs_snapshot s = {0};
    struct cs_reader r = cs_reader(in);
    if (!cs_slice_eq(cs_reader_take(&r, sizeof magic), cs_slice(magic, sizeof magic))) {
        return false;
    }
    cs_fields_decode(&r, snapshot_fields, CS_ARRAY_LEN(snapshot_fields), &s);
    /* Before use as a count: it comes from another process. */
    if (r.bad || s.n_listeners > CS_SNAPSHOT_LISTENERS ||
        s.master_key.source >= CS_KEY_SOURCE_MAX ||
        s.previous_master_key.source >= CS_KEY_SOURCE_MAX ||
        (s.file_sha256.n != 0 && s.file_sha256.n != FILE_SHA256)) {
        return false;
    }
    for (size_t i = 0; i < s.n_listeners; i++) {
        struct cs_snapshot_listener *l = &s.listeners[i];
        cs_fields_decode(&r, listener_fields, CS_ARRAY_LEN(listener_fields), l);
        /* SECURITY: any value but 0 and 1 could be read as "off" by one role, "on" by another. */
        if (l->tls > 1 || l->client_form >= CS_SNAPSHOT_FORMS ||
            (l->client_form != 0 && (l->tls == 0 || l->client_authorities.n == 0))) {
            return false;
        }
    }
    if (!cs_reader_done(&r)) {
        return false;
    }
    *ret = s;
    return true;
}
