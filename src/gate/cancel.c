/* Cancel keys: eight bytes of our own that name gate and session, so that any gate can take a
 * cancel request to the right one, and no client ever learns a target's real key. byte 0: 64 + gate
 * index · bytes 1–3: slot in the gate's session pool · bytes 4–7: random secret
 *
 * SECURITY: a PostgreSQL client takes the first four for a process id, and may ask the server to
 * end that process. No process has such a high number, so it is nobody's.
 *
 * Guessing is slowed down where the key is looked up, for the address that guesses: a limit for all
 * would let anybody take cancelling away from everybody else. */
#include "base/log.h"
#include "base/reader.h"
#include "base/writer.h"
#include "gate/gate.h"
#include "gate/protocol.h"

/* Buckets times misses bounds what any number of addresses can try: at 1,280 a second a secret of
 * 32 bits lasts 19 days on average, and what is won is the cancelling of one query. */
enum { MISSES_PER_SECOND = 20 };
/* A key of another gate cannot be judged here. It costs control and that gate a message each, so an
 * address has only so many of them; a client that cancels in earnest has one for each query. */
enum { PASSED_ON_PER_SECOND = 100 };
enum { NO_PROCESS = 0x40, INDEX = 0x3f }; /* of byte 0; Linux counts processes to 2^22 */

static uint8_t first_byte(const struct cs_gate *g)
{
    return (uint8_t)(NO_PROCESS | (g->index & INDEX));
}

void cs_gate_cancel_key(struct cs_session *s, uint8_t ret[static 8])
{
    struct cs_writer w = cs_writer(ret, 8);
    cs_writer_u8(&w, first_byte(s->gate));
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

static struct cs_addr_net net_of(struct cs_slice from)
{
    struct sockaddr_storage mem;
    struct cs_slice host;
    uint16_t port;
    socklen_t len;
    if (!cs_addr_split(from, true, &host, &port) || !cs_addr_parse(host, port, &mem, &len)) {
        return (struct cs_addr_net){0};
    }
    return cs_addr_net((const struct sockaddr *)&mem);
}

/* SECURITY: the seed keeps an attacker from picking addresses that share somebody else's bucket. */
static struct cs_cancel_misses *misses_of(struct cs_gate *g, struct cs_slice from)
{
    struct cs_addr_net net = net_of(from);
    if (g->cancel_seed == 0) {
        cs_random(&g->cancel_seed, sizeof g->cancel_seed);
    }
    uint64_t h = g->cancel_seed;
    for (size_t i = 0; i < sizeof net.b; i++) {
        h = (h ^ net.b[i]) * UINT64_C(0x100000001b3); /* FNV-1a */
    }
    h ^= h >> 29; /* FNV leaves the last byte in the low and the high bits */
    h *= UINT64_C(0xbf58476d1ce4e5b9);
    struct cs_cancel_misses *m = &g->cancel_misses[(h >> 32) % CS_GATE_CANCEL_BUCKETS];
    uint64_t now = cs_mono_ns();
    if (now - m->since_ns > CS_NS_PER_S) {
        *m = (struct cs_cancel_misses){.since_ns = now};
    }
    return m;
}

struct cs_session *cs_gate_cancel_find(struct cs_gate *g, struct cs_slice key, struct cs_slice from)
{
    struct cs_reader r = cs_reader(key);
    uint8_t index = cs_reader_u8(&r);
    uint32_t slot = (uint32_t)cs_reader_u8(&r) << 16;
    slot |= cs_reader_u16(&r);
    struct finding f = {.slot = slot, .secret = cs_reader_take(&r, 4)};
    if (!cs_reader_done(&r) || index != first_byte(g)) {
        return NULL;
    }
    struct cs_cancel_misses *m = misses_of(g, from);
    if (m->n >= MISSES_PER_SECOND) {
        return NULL; /* somebody there is guessing 32-bit secrets */
    }
    cs_pool_each(&g->sessions, find_one, &f);
    if (f.hit == NULL) {
        m->n++;
    }
    return f.hit;
}

void cs_gate_cancel_route(struct cs_session *s, struct cs_slice key)
{
    struct cs_gate *g = s->gate;
    struct cs_slice from = cs_slice_str(s->address);
    if (key.n != 8) {
        return;
    }
    if (key.p[0] == first_byte(g)) {
        s->protocol->cancel(g, key, from);
        return;
    }
    struct cs_cancel_misses *passed = misses_of(g, from);
    if (passed->passed_on >= PASSED_ON_PER_SECOND) {
        return;
    }
    passed->passed_on++;
    struct cs_msg_cancel m = {.gate = key.p[0] & INDEX, .key = key, .from = from};
    if (g->control != NULL && cs_channel_send(g->control, CS_MSG_CANCEL, 0, &m, NULL, 0) != CS_OK) {
        cs_log(CS_EV_INTERNAL, NULL, "message=cancel lost");
    }
}
