/* The messages of a TLS handshake as bytes: taken apart, nothing believed. Called by
 * client_certificate.c in control, on what a gate hands over. It must never accept messages in an
 * order in which a client would not have signed them, and never read past its input. */
#include "base/reader.h"
#include "crypto/client_certificate.h"

#include <string.h>

enum message {
    CLIENT_HELLO = 1,
    SERVER_HELLO = 2,
    ENCRYPTED_EXTENSIONS = 8,
    CERTIFICATE = 11,
    SERVER_KEY_EXCHANGE = 12,
    CERTIFICATE_REQUEST = 13,
    SERVER_HELLO_DONE = 14,
    CERTIFICATE_VERIFY = 15,
    CLIENT_KEY_EXCHANGE = 16,
    FINISHED = 20,
};

enum { MESSAGES_MAX = 16, EXTENSION_VERSIONS = 43, EXTENSION_AUTHORITIES = 47, RANDOM = 32 };

struct messages {
    uint8_t type[MESSAGES_MAX];
    struct cs_slice body[MESSAGES_MAX];
    struct cs_slice whole[MESSAGES_MAX]; /* with its header */
    size_t n;
};

static uint32_t u24(struct cs_reader *r)
{
    uint32_t high = cs_reader_u8(r);
    return high << 16 | cs_reader_u16(r);
}

static bool split(struct cs_slice in, struct messages *ret)
{
    struct cs_reader r = cs_reader(in);
    ret->n = 0;
    while (!r.bad && r.p < r.end) {
        const uint8_t *at = r.p;
        if (ret->n == MESSAGES_MAX) {
            return false;
        }
        ret->type[ret->n] = cs_reader_u8(&r);
        uint32_t n = u24(&r);
        ret->body[ret->n] = cs_reader_take(&r, n);
        ret->whole[ret->n] = cs_slice(at, (size_t)(r.p - at));
        ret->n++;
    }
    return !r.bad;
}

static struct cs_slice take16(struct cs_reader *r)
{
    uint16_t n = cs_reader_u16(r);
    return cs_reader_take(r, n);
}

/* The one extension of this type; false when the list is malformed or has it twice. */
static bool extension(struct cs_slice list, uint16_t want, struct cs_slice *ret, bool *ret_has)
{
    struct cs_reader r = cs_reader(list);
    *ret_has = false;
    while (!r.bad && r.p < r.end) {
        uint16_t type = cs_reader_u16(&r);
        struct cs_slice data = take16(&r);
        if (type == want) {
            if (*ret_has) {
                return false;
            }
            *ret = data;
            *ret_has = true;
        }
    }
    return !r.bad;
}

struct hello {
    bool v13, retry;
    uint16_t cipher;
};

/* RFC 8446, 4.1.3: a ServerHello with this random is a HelloRetryRequest. */
static const uint8_t retry_random[RANDOM] = {
    0xcf, 0x21, 0xad, 0x74, 0xe5, 0x9a, 0x61, 0x11, 0xbe, 0x1d, 0x8c, 0x02, 0x1e, 0x65, 0xb8, 0x91,
    0xc2, 0xa2, 0x11, 0x16, 0x7a, 0xbb, 0x8c, 0x5e, 0x07, 0x9e, 0x09, 0xe2, 0xc8, 0xa8, 0x33, 0x9c};

static bool server_hello(struct cs_slice body, struct hello *ret)
{
    struct cs_reader r = cs_reader(body);
    struct cs_slice extensions = CS_SLICE_NULL, version = CS_SLICE_NULL;
    uint16_t legacy = cs_reader_u16(&r);
    struct cs_slice random = cs_reader_take(&r, RANDOM);
    (void)cs_reader_take(&r, cs_reader_u8(&r)); /* session id */
    ret->cipher = cs_reader_u16(&r);
    uint8_t compression = cs_reader_u8(&r);
    if (!r.bad && r.p < r.end) {
        extensions = take16(&r);
    }
    if (!cs_reader_done(&r) || legacy != 0x0303 || compression != 0 ||
        !extension(extensions, EXTENSION_VERSIONS, &version, &ret->v13)) {
        return false;
    }
    ret->retry = ret->v13 && cs_slice_eq(random, cs_slice(retry_random, sizeof retry_random));
    return !ret->v13 || cs_slice_eq(version, cs_slice("\x03\x04", 2));
}

/* The list in a Certificate message, and its first certificate. */
static bool certificates(struct cs_slice body, bool v13, struct cs_slice *ret_list,
                         struct cs_slice *ret_leaf)
{
    struct cs_reader r = cs_reader(body);
    if (v13 && cs_reader_u8(&r) != 0) { /* request context: empty in the handshake */
        return false;
    }
    uint32_t n = u24(&r);
    struct cs_slice list = cs_reader_take(&r, n);
    if (!cs_reader_done(&r)) {
        return false;
    }
    struct cs_reader l = cs_reader(list);
    uint32_t leaf = u24(&l);
    *ret_leaf = cs_reader_take(&l, leaf);
    *ret_list = list;
    return !l.bad && ret_leaf->n > 0;
}

static bool request(struct cs_slice body, bool v13, struct cs_slice *ret_authorities)
{
    struct cs_reader r = cs_reader(body);
    struct cs_slice names = CS_SLICE_NULL;
    if (v13) {
        bool has = false;
        uint8_t context = cs_reader_u8(&r);
        struct cs_slice extensions = take16(&r), data = CS_SLICE_NULL;
        if (!cs_reader_done(&r) || context != 0 ||
            !extension(extensions, EXTENSION_AUTHORITIES, &data, &has) || !has) {
            return false;
        }
        r = cs_reader(data);
    } else {
        (void)cs_reader_take(&r, cs_reader_u8(&r)); /* certificate types */
        (void)take16(&r);                           /* signature algorithms */
    }
    names = take16(&r);
    *ret_authorities = names;
    return cs_reader_done(&r);
}

static bool verify(struct cs_slice body, struct cs_tls_transcript *ret)
{
    struct cs_reader r = cs_reader(body);
    ret->algorithm = cs_reader_u16(&r);
    ret->signature = take16(&r);
    return cs_reader_done(&r);
}

static bool has_types(const struct messages *m, size_t from, const uint8_t *types, size_t n)
{
    return m->n - from == n && memcmp(m->type + from, types, n) == 0;
}

/* Behind a HelloRetryRequest: the real ServerHello, which must not ask once more. */
static bool second_hello(const struct messages *m, struct hello *ret)
{
    return m->n >= 4 && server_hello(m->body[3], ret) && ret->v13 && !ret->retry;
}

bool cs_tls_transcript_parse(struct cs_slice in, struct cs_tls_transcript *ret)
{
    static const uint8_t v12[] = {CLIENT_HELLO,        SERVER_HELLO,        CERTIFICATE,
                                  SERVER_KEY_EXCHANGE, CERTIFICATE_REQUEST, SERVER_HELLO_DONE,
                                  CERTIFICATE,         CLIENT_KEY_EXCHANGE, CERTIFICATE_VERIFY};
    static const uint8_t v13[] = {
        CLIENT_HELLO,       SERVER_HELLO, ENCRYPTED_EXTENSIONS, CERTIFICATE_REQUEST, CERTIFICATE,
        CERTIFICATE_VERIFY, FINISHED,     CERTIFICATE,          CERTIFICATE_VERIFY};
    struct messages m;
    struct hello hello;
    struct cs_slice server_list, leaf;
    if (!split(in, &m) || m.n < 2 || m.type[0] != CLIENT_HELLO || m.type[1] != SERVER_HELLO ||
        !server_hello(m.body[1], &hello)) {
        return false;
    }
    struct cs_tls_transcript t = {.v13 = hello.v13};
    size_t from = hello.retry ? 2 : 0;
    if (hello.retry && !second_hello(&m, &hello)) {
        return false;
    }
    if (!(t.v13 ? has_types(&m, from, v13, sizeof v13) : has_types(&m, from, v12, sizeof v12))) {
        return false;
    }
    const struct cs_slice *body = m.body + from;
    if (!certificates(body[t.v13 ? 4 : 2], t.v13, &server_list, &t.server_leaf) ||
        !request(body[t.v13 ? 3 : 4], t.v13, &t.authorities) ||
        !certificates(body[t.v13 ? 7 : 6], t.v13, &t.certificates, &leaf) || !verify(body[8], &t)) {
        return false;
    }
    t.cipher = hello.cipher;
    t.all = cs_slice_head(in, in.n - m.whole[m.n - 1].n);
    if (from > 0) {
        t.first_hello = m.whole[0];
        t.rest = cs_slice_from(t.all, m.whole[0].n);
    }
    *ret = t;
    return true;
}
