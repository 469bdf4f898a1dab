/* The pages of this version: what stands behind the link of a request. It says how to look at the
 * request and sign it, and shows nothing of it: whoever has the link may open it without a login.
 * Called by conn.c. Must never put anything into a page that was not checked against an alphabet or
 * escaped. */
#include "base/buf.h"
#include "base/id.h"
#include "crypto/crypto.h"
#include "front/internal.h"

/* No script, no image, no font, nothing from elsewhere; readable on 360 pixels and in the dark. */
static const char style[] =
    "body{font:1.1rem/1.5 system-ui,sans-serif;margin:0 auto;max-width:34rem;padding:1.2rem;"
    "color:#1a1a1a;background:#fff;overflow-wrap:anywhere}"
    "h1{font-size:1.4rem;margin:.4rem 0 1rem}"
    "pre{background:#f0f0ec;padding:.8rem;border-radius:.4rem;white-space:pre-wrap;"
    "font:1rem/1.4 ui-monospace,monospace;margin:.4rem 0 1rem}"
    "small{color:#555}"
    "@media(prefers-color-scheme:dark){body{color:#eee;background:#16181a}pre{background:#262a2d}"
    "small{color:#aaa}}";

const char *cs_front_csp(void)
{
    static char csp[200];
    if (csp[0] == 0) {
        uint8_t hash[CS_SHA256];
        char text[48] = {0};
        cs_sha256(cs_slice_str(style), hash);
        (void)cs_base64_encode(cs_slice(hash, sizeof hash), false, text);
        struct cs_writer w = cs_writer(csp, sizeof csp - 1);
        cs_writer_printf(&w,
                         "default-src 'none'; style-src 'sha256-%.44s'; base-uri 'none'; "
                         "form-action 'none'; frame-ancestors 'none'",
                         text);
    }
    return csp;
}

static void escaped(struct cs_buf *out, struct cs_slice s)
{
    for (size_t i = 0; i < s.n; i++) {
        uint8_t c = s.p[i];
        if (c == '&' || c == '<' || c == '>' || c == '"' || c == '\'' || c < 0x20 || c >= 0x7f) {
            cs_buf_printf(out, "&#%u;", c);
        } else {
            cs_buf_u8(out, c);
        }
    }
}

static void command(struct cs_buf *out, const char *verb, const char *id, const char *more)
{
    cs_buf_printf(out, "<pre>countersign %s %s%s</pre>\n", verb, id, more);
}

static void known_page(struct cs_buf *out, struct cs_slice url, const char *id)
{
    cs_buf_printf(out,
                  "<h1>Request %s</h1>\n"
                  "<p>Somebody asked for something that needs a countersign. What it is, who asked "
                  "and on whose behalf is shown to those who may decide it.</p>\n"
                  "<p>Look at it:</p>\n",
                  id);
    command(out, "show", id, "");
    cs_buf_str(out, "<p>Sign it, or refuse:</p>\n");
    command(out, "approve", id, "");
    command(out, "deny", id, " --reason \"why\"");
    cs_buf_str(out, "<p><small>The commands speak to this gateway when it is set:</small></p>\n"
                    "<pre>export COUNTERSIGN_URL=");
    escaped(out, url);
    cs_buf_str(out, "\nexport COUNTERSIGN_TOKEN=your token</pre>\n"
                    "<p><small>Approve only what you have read. If you did not expect this link, "
                    "refuse.</small></p>\n");
}

struct cs_buf cs_front_request_page(struct cs_slice url, struct cs_slice id, unsigned *ret_status)
{
    char canonical[CS_REQUEST_ID_TEXT];
    struct cs_buf out = cs_buf(32 * 1024);
    bool known = cs_request_id_parse(id, canonical);
    cs_buf_printf(&out,
                  "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">"
                  "<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">"
                  "<meta name=\"robots\" content=\"noindex\">"
                  "<title>Countersign</title><style>%s</style></head><body>\n",
                  style);
    if (known) {
        known_page(&out, url, canonical);
    } else {
        cs_buf_str(&out,
                   "<h1>No such request</h1>\n<p>The link is not complete: a request has a name "
                   "of eight letters and digits. Your open requests:</p>\n"
                   "<pre>countersign requests</pre>\n");
    }
    cs_buf_str(&out, "</body></html>\n");
    *ret_status = known ? 200 : 404;
    return out;
}
