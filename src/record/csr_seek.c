/* Finding places in a recording without reading all of it (csr_read.h). Called by the replayer.
 * What stands in heads and INDEX frames is a hint where to look, never believed further: reading
 * from there checks what it finds. */
#include "base/alloc.h"
#include "record/csr_read.h"

/* Heads are read so many bytes at a time: most frames are small. */
enum { WINDOW = 64 * 1024 };

struct skim {
    struct cs_csr_source in;
    uint8_t *room; /* owned */
    uint64_t at;   /* of the window */
    size_t n;
};

static bool skim_head(struct skim *k, uint64_t at, struct cs_csr_frame_head *ret)
{
    if (at < k->at || at - k->at > k->n || k->n - (size_t)(at - k->at) < CS_CSR_FRAME_HEAD) {
        k->at = at;
        k->n = k->in.read_at(k->in.arg, at, k->room, WINDOW);
    }
    return cs_csr_frame_head_read(cs_slice(k->room + (at - k->at), k->n - (size_t)(at - k->at)),
                                  ret);
}

enum cs_err cs_csr_scan_seek(struct cs_csr_scanner *s, uint64_t offset)
{
    struct cs_csr_frame_head h;
    uint8_t room[CS_SHA256 + CS_CSR_FRAME_HEAD];
    if (offset < s->head.n || offset > s->in.size ||
        s->in.read_at(s->in.arg, offset - CS_SHA256, room, sizeof room) != sizeof room ||
        !cs_csr_frame_head_read(cs_slice(room + CS_SHA256, CS_CSR_FRAME_HEAD), &h) ||
        h.type != CS_CSR_RESET) {
        return CS_ERR_CORRUPT;
    }
    memcpy(s->chain, room, CS_SHA256);
    s->at = offset;
    s->seq = h.seq - 1;
    s->epoch = h.epoch;
    s->last_ns = 0;
    s->partial = true;
    s->ended = false;
    return CS_OK;
}

/* An INDEX frame's payload; false when there is none at that place. */
static bool index_at(struct cs_csr_source in, uint64_t offset, struct cs_csr_index *ret,
                     uint8_t *room)
{
    struct cs_csr_frame_head h;
    size_t n = in.read_at(in.arg, offset, room, WINDOW);
    return cs_csr_frame_head_read(cs_slice(room, n), &h) && h.type == CS_CSR_INDEX &&
           cs_csr_frame_size(&h) <= n &&
           cs_csr_index_read(cs_slice(room + CS_CSR_FRAME_HEAD, h.payload_len), ret);
}

/* Backwards from the last INDEX; 0 when that leads nowhere. */
static uint64_t by_index(struct cs_csr_source in, uint64_t index, uint64_t t_ns, uint8_t *room)
{
    struct cs_csr_index *x = cs_alloc(sizeof *x);
    uint64_t found = 0;
    while (x != NULL && index != 0 && found == 0 && index_at(in, index, x, room)) {
        for (size_t i = x->n; i > 0 && found == 0; i--) {
            found = x->e[i - 1].t_first_ns <= t_ns ? x->e[i - 1].offset : 0;
        }
        if (x->previous >= index) {
            break; /* it must lead back, or we go round for ever */
        }
        if (x->previous == 0 && found == 0) {
            found = x->e[0].offset;
        }
        index = x->previous;
    }
    cs_free(x);
    return found;
}

static uint64_t by_heads(struct cs_csr_source in, const struct cs_csr_tail *tail, uint64_t t_ns,
                         uint8_t *room)
{
    struct skim k = {in, room, 0, 0};
    struct cs_csr_frame_head h;
    uint64_t found = 0;
    for (uint64_t at = tail->head.n; at < tail->size && skim_head(&k, at, &h);
         at += cs_csr_frame_size(&h)) {
        if (h.t_first_ns > t_ns && found != 0) {
            break;
        }
        found = h.type == CS_CSR_RESET ? at : found;
    }
    return found;
}

/* The END frame's index, which counts only when the whole recording is one epoch. */
static uint64_t last_index(struct cs_csr_source in, const struct cs_csr_tail *tail, uint8_t *room)
{
    struct cs_csr_frame_head h;
    struct cs_csr_ended x;
    const size_t most = CS_CSR_FRAME_EXTRA + 80;
    if (!tail->ended || tail->epoch != 1 || tail->size < most) {
        return 0;
    }
    size_t n = in.read_at(in.arg, tail->size - most, room, most);
    for (size_t at = 0; at + CS_CSR_FRAME_EXTRA < n; at++) {
        struct cs_slice rest = cs_slice(room + at, n - at);
        if (cs_csr_frame_head_read(rest, &h) && h.type == CS_CSR_END &&
            cs_csr_frame_size(&h) == rest.n &&
            cs_csr_ended_read(cs_slice(rest.p + CS_CSR_FRAME_HEAD, h.payload_len), &x)) {
            return x.index;
        }
    }
    return 0;
}

uint64_t cs_csr_find_reset(struct cs_csr_source in, const struct cs_csr_tail *tail, uint64_t t_ns)
{
    uint8_t *room = cs_alloc(WINDOW);
    if (room == NULL) {
        return 0;
    }
    uint64_t index = last_index(in, tail, room);
    uint64_t found = index != 0 ? by_index(in, index, t_ns, room) : 0;
    if (found == 0) {
        found = by_heads(in, tail, t_ns, room);
    }
    cs_free(room);
    return found;
}

bool cs_csr_each_recover(struct cs_csr_source in, const struct cs_csr_tail *tail,
                         bool (*fn)(void *arg, uint32_t epoch, const struct cs_csr_recovered *x),
                         void *arg)
{
    enum { PAYLOAD = 2048 };
    uint8_t *room = cs_alloc(WINDOW + PAYLOAD), *payload = room != NULL ? room + WINDOW : NULL;
    struct skim k = {in, room, 0, 0};
    struct cs_csr_frame_head h;
    struct cs_csr_recovered x;
    bool ok = room != NULL;
    for (uint64_t at = tail->head.n; ok && at < tail->size; at += cs_csr_frame_size(&h)) {
        ok = skim_head(&k, at, &h);
        if (!ok || h.type != CS_CSR_RECOVER) {
            continue;
        }
        ok = h.payload_len <= PAYLOAD &&
             in.read_at(in.arg, at + CS_CSR_FRAME_HEAD, payload, h.payload_len) == h.payload_len &&
             cs_csr_recovered_read(cs_slice(payload, h.payload_len), &x) && fn(arg, h.epoch, &x);
    }
    cs_free(room);
    return ok;
}
