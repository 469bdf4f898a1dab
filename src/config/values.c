/* Checks of single values. Called by read.c through its table of types. */
#include "config/values.h"

#include "policy/rules.h"

#include <arpa/inet.h>

static bool is_word_char(uint8_t c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '_' || c == '.';
}

static bool is_word(struct cs_slice s, size_t max)
{
    for (size_t i = 0; i < s.n; i++) {
        if (!is_word_char(s.p[i])) {
            return false;
        }
    }
    return s.n >= 1 && s.n <= max;
}

/* A text reaches logs, pages and protocol messages: no control bytes, no bidirectional overrides
 * that could make one rule look like another. */
const char *cs_value_text(struct cs_slice s)
{
    for (size_t at = 0; at < s.n;) {
        uint32_t cp = 0;
        if (!cs_utf8_next(s, &at, &cp) || cp < 0x20 || (cp >= 0x7f && cp < 0xa0) ||
            (cp >= 0x200b && cp <= 0x200f) || (cp >= 0x2028 && cp <= 0x202e) ||
            (cp >= 0x2060 && cp <= 0x2069) || cp == 0xfeff) {
            return "one line of text without control or invisible characters";
        }
    }
    return s.n == 0 ? "a text that is not empty" : s.n > 200 ? "at most 200 bytes" : NULL;
}

const char *cs_value_path(struct cs_slice s)
{
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] < 0x20 || s.p[i] == 0x7f) {
            return "a path without control characters";
        }
    }
    return s.n == 0 ? "a path" : s.n > 1024 ? "a path of at most 1024 bytes" : NULL;
}

const char *cs_value_name(struct cs_slice s)
{
    return cs_rule_name_valid(s) ? NULL : "1 to 64 of a-z, 0-9 and \"-\"";
}

const char *cs_value_target_name(struct cs_slice s)
{
    return is_word(s, 63) ? NULL : "1 to 63 letters, digits, \".\", \"_\" and \"-\"";
}

static bool is_port(struct cs_slice s)
{
    uint64_t port = 0;
    return cs_slice_to_u64(s, &port) && port >= 1 && port <= 65535 && s.n <= 5;
}

const char *cs_value_address(struct cs_slice s)
{
    static const char right[] = "host:port, such as \"127.0.0.1:5432\" or \"[::1]:5432\"";
    size_t colon = s.n;
    for (size_t i = 0; i < s.n; i++) {
        colon = s.p[i] == ':' ? i : colon;
    }
    struct cs_slice host = cs_slice_head(s, colon), port = cs_slice_from(s, colon + 1);
    if (colon == s.n || !is_port(port) || host.n == 0 || host.n > 255) {
        return right;
    }
    bool brackets = host.n > 2 && host.p[0] == '[' && host.p[host.n - 1] == ']';
    if (brackets) {
        host = cs_slice(host.p + 1, host.n - 2);
    }
    for (size_t i = 0; i < host.n; i++) {
        if (!is_word_char(host.p[i]) && !(brackets && (host.p[i] == ':' || host.p[i] == '%'))) {
            return right;
        }
    }
    return NULL;
}

const char *cs_value_url(struct cs_slice s)
{
    static const char right[] = "\"https://host:port\" (or http:// with `tls: off`)";
    size_t skip = cs_slice_starts(s, CS_SLICE_LIT("https://"))  ? 8
                  : cs_slice_starts(s, CS_SLICE_LIT("http://")) ? 7
                                                                : s.n;
    struct cs_slice rest = cs_slice_from(s, skip);
    for (size_t i = 0; i < rest.n; i++) {
        uint8_t c = rest.p[i];
        if (!is_word_char(c) && c != ':' && c != '/' && c != '[' && c != ']' && c != '~') {
            return right;
        }
    }
    return rest.n == 0 || s.n > 200 || rest.p[0] == '/' || rest.p[0] == ':' ? right : NULL;
}

const char *cs_value_secret(struct cs_slice s, struct cs_slice *ret_name)
{
    if (!cs_slice_starts(s, CS_SLICE_LIT("secret:")) || !is_word(cs_slice_from(s, 7), 64)) {
        return "\"secret:NAME\" (letters, digits, \".\", \"_\", \"-\"): the file names secrets, it "
               "never holds them";
    }
    *ret_name = cs_slice_from(s, 7);
    return NULL;
}

const char *cs_value_network(struct cs_slice s, uint8_t ret[static CS_VALUE_NETWORK])
{
    static const char right[] =
        "an IP address or a network, such as \"10.0.0.7\" or \"10.1.0.0/16\", "
        "with no bit set behind its prefix";
    char text[INET6_ADDRSTRLEN];
    uint8_t address[16] = {0};
    size_t slash = cs_slice_find(s, '/');
    struct cs_slice host = cs_slice_head(s, slash), bits = cs_slice_from(s, slash);
    if (host.n == 0 || host.n >= sizeof text || cs_slice_find(host, 0) != host.n) {
        return right;
    }
    memcpy(text, host.p, host.n);
    text[host.n] = 0;
    bool v4 = inet_pton(AF_INET, text, address) == 1;
    if (!v4 && inet_pton(AF_INET6, text, address) != 1) {
        return right;
    }
    uint64_t prefix = v4 ? 32 : 128, most = prefix;
    if (bits.n > 0 &&
        (bits.n > 4 || !cs_slice_to_u64(cs_slice_from(bits, 1), &prefix) || prefix > most)) {
        return right;
    }
    for (size_t i = prefix; i < most; i++) {
        if ((address[i / 8] >> (7 - i % 8) & 1) != 0) {
            return right;
        }
    }
    ret[0] = v4 ? 4 : 6;
    ret[1] = (uint8_t)prefix;
    memcpy(ret + 2, address, sizeof address);
    return NULL;
}

const char *cs_value_duration(struct cs_slice s, uint64_t *ret_s)
{
    static const char right[] = "a time such as \"10s\", \"15m\" or \"2h\", from 1s to 30d";
    static const struct {
        uint8_t unit;
        uint32_t seconds;
    } units[] = {{'s', 1}, {'m', 60}, {'h', 3600}, {'d', 86400}};
    uint64_t n = 0;
    if (s.n < 2 || s.n > 9 || !cs_slice_to_u64(cs_slice_head(s, s.n - 1), &n)) {
        return right;
    }
    for (size_t i = 0; i < CS_ARRAY_LEN(units); i++) {
        uint64_t seconds = n * units[i].seconds; /* at most 8 digits: no overflow */
        if (units[i].unit == s.p[s.n - 1] && seconds >= 1 && seconds <= 30ULL * 86400) {
            *ret_s = seconds;
            return NULL;
        }
    }
    return right;
}

bool cs_value_is_loopback(struct cs_slice address)
{
    return cs_slice_starts(address, CS_SLICE_LIT("127.")) ||
           cs_slice_starts(address, CS_SLICE_LIT("[::1]:")) ||
           cs_slice_starts(address, CS_SLICE_LIT("localhost:"));
}
