/* Fuzzes the configuration loader. Properties: it ends; with no error there is a snapshot that
 * loads, rules included; with an error there is at least one sentence, sorted, on one line. */
#include "config/config.h"
#include "policy/policy.h"
#include "wire/snapshot.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool ok)
{
    if (!ok) {
        abort();
    }
}

static enum cs_err read_nothing(void *arg, struct cs_slice path, size_t max, struct cs_arena *a,
                                struct cs_slice *ret)
{
    static const char pem[] = "-----BEGIN CERTIFICATE----- -----BEGIN PRIVATE KEY-----";
    (void)arg;
    (void)max;
    (void)a;
    if (path.n % 7 == 0) {
        return CS_ERR_NOT_FOUND;
    }
    *ret = cs_slice_str(pem);
    return CS_OK;
}

static void check_report(const struct cs_config_report *r)
{
    check(r->n > 0 && r->errors > 0);
    for (size_t i = 0; i < r->n; i++) {
        const struct cs_config_mistake *m = &r->v[i];
        check(m->line >= 1 && m->column >= 1 && m->text.n > 0);
        check(cs_slice_find(m->text, '\n') == m->text.n);
        check(i == 0 || m[-1].line <= m->line);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct cs_arena a;
    struct cs_buf out = cs_buf(CS_SNAPSHOT_MAX);
    struct cs_config_files files = {.read = read_nothing, .directory = CS_SLICE_LIT("/d")};
    struct cs_config_report report;
    uint64_t version = 0;
    cs_arena_init(&a, 1 << 16, CS_CONFIG_ARENA);
    enum cs_err err = cs_config_compile(cs_slice(data, size), &files, &a, &out, &version, &report);
    if (err == CS_OK) {
        struct cs_snapshot s;
        struct cs_policy *p = NULL;
        check(version != 0 && report.errors == 0);
        check(cs_snapshot_read(cs_buf_slice(&out), &s) && s.version == version);
        check(cs_policy_load(s.policy, &a, &p) == CS_OK);
    } else if (err == CS_ERR_INVALID) {
        check_report(&report);
        check(out.len == 0);
    }
    cs_buf_done(&out);
    cs_arena_done(&a);
    return 0;
}
