/* The parameters of BOOT, which every role gets first of all from the supervisor: read strictly,
 * and unknown ones left alone. */
#include "ipc/ipc.h"

#include <unistd.h>

bool cs_boot_param(struct cs_slice params, const char *name, struct cs_slice *ret_value)
{
    size_t length = strlen(name);
    while (params.n > 0) {
        struct cs_slice line = cs_slice_head(params, cs_slice_find(params, '\n'));
        if (line.n > length && cs_slice_starts(line, cs_slice_str(name)) && line.p[length] == '=') {
            *ret_value = cs_slice_from(line, length + 1);
            return true;
        }
        params = cs_slice_from(params, line.n + 1);
    }
    return false;
}

uint64_t cs_boot_service_uid(struct cs_slice params)
{
    struct cs_slice value;
    uint64_t uid = 0;
    return cs_boot_param(params, "service", &value) && cs_slice_to_u64(value, &uid) && uid > 0
               ? uid
               : (uint64_t)geteuid();
}
