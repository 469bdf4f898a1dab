/* Replacing secrets by keyed hashes. Called by protocol folders, for the texts in which their
 * parser found any. It must never let a byte of a span through, nor make one text of two: a mark is
 * itself a constant in the place of one, so a client that types a mark gets it replaced like any
 * other. */
#include "action/redact.h"

#include "base/id.h"
#include "crypto/crypto.h"

const char cs_redact_withheld[] = "(withheld: the statement has a password in it)";

static void mark(struct cs_buf *out, const uint8_t *key, struct cs_slice secret, unsigned how)
{
    static const char *const before[] = {"", "'", "", "/* "}, *const behind[] = {"", "'", "",
                                                                                 " */"};
    uint8_t mac[CS_SHA256];
    char hex[2 * CS_SHA256 + 1];
    cs_hmac_sha256(cs_slice(key, CS_REDACT_KEY), secret, mac);
    cs_hex(cs_slice(mac, sizeof mac), hex);
    cs_buf_printf(out, "%s<redacted hmac-sha256:%s>%s", before[how], hex, behind[how]);
}

static bool in_order(struct cs_slice text, const struct cs_redact_span *spans, size_t n)
{
    size_t end = 0;
    for (size_t i = 0; i < n; i++) {
        if (spans[i].how == CS_REDACT_WHOLE || spans[i].how > CS_REDACT_COMMENT ||
            spans[i].at < end || spans[i].at > text.n || spans[i].n > text.n - spans[i].at) {
            return false;
        }
        end = spans[i].at + spans[i].n;
    }
    return n > 0;
}

void cs_redact(struct cs_slice text, const struct cs_redact_span *spans, size_t n,
               const uint8_t key[static CS_REDACT_KEY], struct cs_buf *out)
{
    size_t at = 0;
    if (!in_order(text, spans, n)) {
        mark(out, key, text, CS_REDACT_WHOLE);
        cs_buf_printf(out, " a text of %zu bytes that may have a password in it", text.n);
        return;
    }
    for (size_t i = 0; i < n; i++) {
        cs_buf_add(out, cs_slice_head(cs_slice_from(text, at), spans[i].at - at));
        mark(out, key, cs_slice_head(cs_slice_from(text, spans[i].at), spans[i].n), spans[i].how);
        at = spans[i].at + spans[i].n;
    }
    cs_buf_add(out, cs_slice_from(text, at));
}
