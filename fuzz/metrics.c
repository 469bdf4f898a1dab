/* A page of metrics as a process that was taken over may leave it: what front makes of it is text
 * of the right form, whatever stands there. */
#include "front/metrics.h"
#include "ipc/metrics.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct cs_front_metrics *metrics;
static uint64_t *own, *about;

static void set_up(void)
{
    int fd = -1, about_fd = -1;
    metrics = cs_front_metrics_new();
    if (metrics == NULL || cs_metrics_make(&fd) != CS_OK || cs_metrics_make(&about_fd) != CS_OK ||
        cs_metrics_map(fd, &own) != CS_OK || cs_metrics_map(about_fd, &about) != CS_OK) {
        abort();
    }
    about[CS_SLOT_LISTED] = 1;
    for (uint64_t role = CS_ROLE_SUPERVISOR; role < CS_ROLE_MAX; role++) {
        if (cs_front_metrics_add(metrics, role, 0, fd, about_fd) != CS_OK) {
            abort();
        }
    }
}

static void check(struct cs_slice text)
{
    while (text.n > 0) {
        size_t n = cs_slice_find(text, '\n');
        if (n == text.n || n < 12 ||
            (memcmp(text.p, "# HELP ", 7) != 0 && memcmp(text.p, "# TYPE ", 7) != 0 &&
             (memcmp(text.p, "countersign_", 12) != 0 || text.p[n - 1] < '0' ||
              text.p[n - 1] > '9'))) {
            abort();
        }
        text = cs_slice_from(text, n + 1);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (metrics == NULL) {
        set_up();
    }
    /* Repeated over the whole page, so that a few bytes reach every number. */
    for (size_t at = 0; size > 0 && at < CS_METRIC_BYTES; at += size) {
        size_t n = size < CS_METRIC_BYTES - at ? size : CS_METRIC_BYTES - at;
        memcpy((uint8_t *)own + at, data, n);
    }
    if (size % 2 == 0) {
        own[CS_SLOT_LAYOUT] = cs_metric_layout();
    }
    struct cs_buf out = cs_front_metrics_text(metrics);
    if (out.bad) {
        abort();
    }
    check(cs_buf_slice(&out));
    cs_buf_done(&out);
    struct cs_buf why = cs_buf(65536);
    (void)cs_front_is_ready(metrics, &why);
    cs_buf_done(&why);
    return 0;
}
