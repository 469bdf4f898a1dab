/* Responses, as the commands read them from the gateway: accepted only with exactly one framing. */
#include "wire/http1.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct cs_http_response r;
    struct cs_slice in = cs_slice(data, size);
    struct cs_http_refusal why = {0, NULL};
    size_t at = 0, n = 0;
    if (cs_http_scan(in, 16384, &at, &n, &why) != CS_HTTP_OK) {
        return 0;
    }
    if (cs_http_response_parse(cs_slice_head(in, n), &r, &why)) {
        bool bodiless = r.status < 200 || r.status == 204 || r.status == 304;
        if (r.status < 100 || r.status > 599 || (bodiless && r.body_n > 0) ||
            r.fields.has[CS_HTTP_FIELD_TRANSFER_ENCODING] ||
            (!bodiless && !r.fields.has[CS_HTTP_FIELD_CONTENT_LENGTH])) {
            abort();
        }
    }
    return 0;
}
