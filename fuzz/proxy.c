/* The PROXY protocol header: no beginning of what is accepted is refused, nothing behind it changes
 * the result, and what is refused stays refused with more behind it. */
#include "runtime/proxy.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct cs_proxy whole, part;
    enum cs_proxy_result all = cs_proxy_parse(cs_slice(data, size), &whole);
    if (all == CS_PROXY_OK && (whole.total > size || whole.total < 16)) {
        abort();
    }
    for (size_t n = 0; n < size; n++) {
        enum cs_proxy_result got = cs_proxy_parse(cs_slice(data, n), &part);
        bool complete = all == CS_PROXY_OK && n >= whole.total;
        if ((complete && (got != CS_PROXY_OK || part.total != whole.total)) ||
            (got == CS_PROXY_BAD && all != CS_PROXY_BAD) ||
            (got == CS_PROXY_OK && all != CS_PROXY_OK) ||
            (!complete && all == CS_PROXY_OK && got != CS_PROXY_NEED)) {
            abort();
        }
    }
    return 0;
}
