/* Paths and queries of URLs: percent-decoding, strictly. Pure. A path is split before it is
 * decoded, and a segment that would decode to a slash, a control byte, a dot segment or invalid
 * UTF-8 is refused: nobody behind the parser may see another path than it did. */
#ifndef CS_WIRE_URL_H
#define CS_WIRE_URL_H

#include "base/slice.h"
#include "base/writer.h"

enum cs_url { CS_URL_BAD, CS_URL_END, CS_URL_OK };

/* The segments of a raw path one after the other; `*at` starts at 0. BAD: the path does not begin
 * with '/', or has an empty segment ("/a//b", "/a/"); "/" alone has none. */
enum cs_url cs_url_segment_next(struct cs_slice path, size_t *at, struct cs_slice *ret_raw);
/* One segment into out. False when it is not as described above, or longer than cap. */
bool cs_url_segment_decode(struct cs_slice raw, uint8_t *out, size_t cap,
                           struct cs_slice *ret) CS_MUST_CHECK;
/* Every segment decodes: what front demands before it passes a path on. */
bool cs_url_path_valid(struct cs_slice path) CS_MUST_CHECK;

/* The first value of `name` in a raw query ("a=1&b=2"), decoded into out; '+' is a plus sign. END:
 * there is none. BAD: malformed, too long, or the name stands there twice. Names are not decoded.
 */
enum cs_url cs_url_query_get(struct cs_slice query, const char *name, uint8_t *out, size_t cap,
                             struct cs_slice *ret) CS_MUST_CHECK;
/* As above, for a decimal number ≤ max. */
enum cs_url cs_url_query_u64(struct cs_slice query, const char *name, uint64_t max,
                             uint64_t *ret) CS_MUST_CHECK;
/* Percent-encodes all but unreserved characters. */
void cs_url_encode(struct cs_writer *w, struct cs_slice s);

/* "https://host[:port]" or "http://…", with nothing behind but at most one '/'. A missing port is
 * 443 or 80. */
struct cs_url_base {
    bool tls;
    struct cs_slice host; /* without brackets */
    uint16_t port;
};
bool cs_url_base_parse(struct cs_slice url, struct cs_url_base *ret) CS_MUST_CHECK;

#endif
