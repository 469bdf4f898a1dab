/* Configuration snapshots as this role sees them: sealed memory, checked and read in place. Used by
 * role.c when the supervisor sends one, and kept by whatever waits while it needs one. */
#include "control/control.h"

#include "base/alloc.h"
#include "base/assert.h"
#include "crypto/crypto.h"

enum { VIEW_ARENA_CHUNK = 64 * 1024, VIEW_ARENA_MAX = 256 * 1024 * 1024 };

struct cs_view *cs_view_keep(struct cs_view *v)
{
    v->refs++;
    return v;
}

void cs_view_drop(struct cs_view *v)
{
    if (v == NULL) {
        return;
    }
    cs_assert(v->refs > 0);
    if (--v->refs == 0) {
        cs_arena_done(&v->arena);
        if (v->map.p != NULL) {
            cs_sealed_unmap(v->map);
        }
        cs_free(v);
    }
}

static enum cs_err view_load(struct cs_view *v, int memfd, struct cs_slice sha256)
{
    uint8_t hash[CS_SHA256];
    enum cs_err e = cs_sealed_map(memfd, CS_SNAPSHOT_MAX, &v->map);
    if (e != CS_OK) {
        v->map = CS_SLICE_NULL;
        return e;
    }
    cs_sha256(v->map, hash);
    if (sha256.n > 0 && !cs_slice_eq(sha256, cs_slice(hash, sizeof hash))) {
        return CS_ERR_CORRUPT;
    }
    if (!cs_snapshot_read(v->map, &v->snapshot)) {
        return CS_ERR_CORRUPT;
    }
    return cs_policy_load(v->snapshot.policy, &v->arena, &v->policy);
}

enum cs_err cs_view_new(int memfd, struct cs_slice sha256, struct cs_view **ret)
{
    struct cs_view *v = cs_alloc(sizeof *v);
    if (v == NULL) {
        return CS_ERR_NO_MEMORY;
    }
    v->refs = 1;
    cs_arena_init(&v->arena, VIEW_ARENA_CHUNK, VIEW_ARENA_MAX);
    enum cs_err e = view_load(v, memfd, sha256);
    if (e != CS_OK) {
        cs_view_drop(v);
        return e;
    }
    *ret = v;
    return CS_OK;
}
