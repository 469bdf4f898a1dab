/* What the server's certificate says, beside the answers of a check: probe is the one role that
 * sees it and has time to tell. Called by task.c. The server chose every byte of the subject. */
#include "crypto/tls.h"
#include "probe/probe.h"

#include <stdio.h>

enum { SUBJECT = 300 };

void cs_probe_certificate(struct cs_probe_task_run *t, struct cs_buf *out)
{
    struct cs_rows_writer w;
    char subject[SUBJECT], until[24];
    uint64_t until_ms = 0;
    if (!cs_tls_on(&t->stream)) {
        return;
    }
    cs_rows_table(&w, out, "certificate", 2);
    if (cs_tls_peer_certificate(&t->stream, subject, sizeof subject, &until_ms)) {
        (void)snprintf(until, sizeof until, "%llu", (unsigned long long)until_ms);
        cs_rows_cell(&w, cs_slice_str(subject));
        cs_rows_cell(&w, cs_slice_str(until));
        cs_rows_end_row(&w);
    }
    cs_rows_end(&w, CS_ROWS_COMPLETE);
}
