/* Cancel keys: eight bytes of our own that name gate and session, so that any gate can take a
 * cancel request to the right one, and no client ever learns a target's real key. byte 0: gate
 * index · bytes 1–3: slot in the gate's session pool · bytes 4–7: random secret */
#include "base/log.h"
#include "base/reader.h"
#include "base/writer.h"
#include "gate/gate.h"
#include "gate/protocol.h"

enum { MISSES_PER_SECOND = 20 };

void cs_gate_cancel_key(struct cs_session *s, uint8_t ret[static 8])
{
    struct cs_writer w = cs_writer(ret, 8);
    cs_writer_u8(&w, (uint8_t)s->gate->index);
    uint32_t slot = (uint32_t)(s->handle & 0xffffff);
    cs_writer_u8(&w, (uint8_t)(slot >> 16));
    cs_writer_u16(&w, (uint16_t)(slot & 0xffff));
    cs_writer_u32(&w, s->cancel_secret);
}

struct finding {
    uint32_t slot;
    struct cs_slice secret;
    struct cs_session *hit;
};

static void find_one(void *object, cs_handle h, void *arg)
{
    struct cs_session *s = object;
    struct finding *f = arg;
    uint8_t secret[4];
    struct cs_writer w = cs_writer(secret, sizeof secret);
    cs_writer_u32(&w, s->cancel_secret);
    if ((uint32_t)(h & 0xffffff) == f->slot &&
        cs_slice_eq_secret(cs_slice(secret, sizeof secret), f->secret)) {
        f->hit = s;
    }
}

struct cs_session *cs_gate_cancel_find(struct cs_gate *g, struct cs_slice key)
{
    struct cs_reader r = cs_reader(key);
    uint64_t index = cs_reader_u8(&r);
    uint32_t slot = (uint32_t)cs_reader_u8(&r) << 16;
    slot |= cs_reader_u16(&r);
    struct finding f = {.slot = slot, .secret = cs_reader_take(&r, 4)};
    if (!cs_reader_done(&r) || index != (g->index & 0xff)) {
        return NULL;
    }
    uint64_t now = cs_mono_ns();
    if (now - g->cancel_misses_at > CS_NS_PER_S) {
        g->cancel_misses_at = now;
        g->cancel_misses = 0;
    }
    if (g->cancel_misses >= MISSES_PER_SECOND) {
        return NULL; /* somebody is guessing 32-bit secrets */
    }
    cs_pool_each(&g->sessions, find_one, &f);
    if (f.hit == NULL) {
        g->cancel_misses++;
    }
    return f.hit;
}

void cs_gate_cancel_route(struct cs_gate *g, const struct cs_protocol *p, struct cs_slice key)
{
    if (key.n != 8) {
        return;
    }
    if (key.p[0] == (g->index & 0xff)) {
        p->cancel(g, key);
        return;
    }
    struct cs_msg_cancel m = {.gate = key.p[0], .key = key};
    if (g->control != NULL && cs_channel_send(g->control, CS_MSG_CANCEL, 0, &m, NULL, 0) != CS_OK) {
        cs_log(CS_EV_INTERNAL, NULL, "message=cancel lost");
    }
}
