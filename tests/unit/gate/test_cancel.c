/* Cancel keys: the right one, wrong ones, and who pays for guessing. */
#include "world.h"

#include "base/time.h"

enum { GUESSES = 25 };

static const struct cs_slice mallory = {(const uint8_t *)"192.0.2.66:4711", 15};

static bool finds(struct world *w, const struct world_client *c, struct cs_slice from)
{
    uint8_t key[8];
    cs_gate_cancel_key(c->s, key);
    return cs_gate_cancel_find(w->gate, cs_slice(key, sizeof key), from) == c->s;
}

static void guess(struct world *w, const struct world_client *c, struct cs_slice from)
{
    uint8_t key[8];
    cs_gate_cancel_key(c->s, key);
    key[7] ^= 1;
    for (unsigned i = 0; i < GUESSES; i++) {
        CS_CHECK(cs_gate_cancel_find(w->gate, cs_slice(key, sizeof key), from) == NULL);
    }
}

static void right_key(struct world *w)
{
    struct world_client *a = world_session(w), *b = world_session(w);
    CS_CHECK(finds(w, a, mallory) && finds(w, b, mallory));
    uint8_t key[8], wrong[8];
    cs_gate_cancel_key(a->s, key);
    CS_EQ_U64(key[0], 64 + 3); /* the gate's index; above the number of any process */
    for (size_t i = 0; i < sizeof key; i++) {
        memcpy(wrong, key, sizeof wrong);
        wrong[i] ^= 0x80;
        CS_CHECK(cs_gate_cancel_find(w->gate, cs_slice(wrong, sizeof wrong), mallory) == NULL);
    }
    CS_CHECK(cs_gate_cancel_find(w->gate, cs_slice(key, 7), mallory) == NULL);
    CS_CHECK(cs_gate_cancel_find(w->gate, CS_SLICE_NULL, mallory) == NULL);
    world_hang_up(a);
    world_ended(a);
    CS_CHECK(cs_gate_cancel_find(w->gate, cs_slice(key, sizeof key), mallory) == NULL);
}
CS_TEST(a_key_names_one_session_while_it_lives)
{
    world_run(right_key);
}

static void guessing(struct world *w)
{
    struct world_client *c = world_session(w);
    guess(w, c, mallory);
    CS_CHECK(!finds(w, c, mallory));                               /* not from there, for now */
    CS_CHECK(!finds(w, c, CS_SLICE_LIT("192.0.2.66:9")));          /* whatever its port */
    CS_CHECK(!finds(w, c, CS_SLICE_LIT("[::ffff:192.0.2.66]:9"))); /* and notation */
    size_t served = 0;
    for (unsigned i = 1; i <= 64; i++) {
        char from[40];
        (void)snprintf(from, sizeof from, "192.0.2.%u:5000", 100 + i);
        served += finds(w, c, cs_slice_str(from));
    }
    CS_CHECK(served >= 48); /* all but those who happen to share the bucket */
    guess(w, c, CS_SLICE_LIT("[2001:db8:1:2:3:4:5:6]:1"));
    CS_CHECK(!finds(w, c, CS_SLICE_LIT("[2001:db8:1:2:ffff::1]:2"))); /* one network, one guesser */
}
CS_TEST(wrong_keys_from_one_address_do_not_keep_others_from_cancelling)
{
    world_run(guessing);
}

static void foreign(struct world *w)
{
    struct world_client *asker = world_client(w), *other = world_client(w);
    uint8_t far[8] = {9, 0, 0, 1, 2, 3, 4, 5};
    other->s->net.family = 6; /* from elsewhere */
    (void)snprintf(other->s->address, sizeof other->s->address, "[2001:db8::1]:5");
    for (unsigned i = 0; i < 1000; i++) {
        cs_gate_cancel_route(asker->s, cs_slice(far, sizeof far));
    }
    far[7] = 99;
    cs_gate_cancel_route(other->s, cs_slice(far, sizeof far));
    const struct cs_msg_cancel *m;
    size_t passed = 0;
    do { /* the other's is the last one; should they share a bucket, it does not come at all */
        m = (const void *)world_expect(w, CS_MSG_CANCEL)->msg.raw;
        passed++;
    } while (m->key.p[7] != 99);
    CS_CHECK(passed > 20 && passed <= 301);
}
CS_TEST(keys_of_other_gates_are_passed_on_so_many_a_second_for_one_address)
{
    world_run(foreign);
}

static bool is_cancelled(struct world *w, void *arg)
{
    const struct world_client *c = arg;
    (void)w;
    return c->s->cancel.set;
}

static void passed_on(struct world *w)
{
    struct world_client *c = world_session(w), *asker = world_client(w);
    uint8_t key[8], far[8] = {9, 0, 0, 1, 2, 3, 4, 5};
    cs_gate_cancel_key(c->s, key);
    cs_gate_cancel_route(asker->s, cs_slice(far, sizeof far));
    const struct cs_msg_cancel *m = (const void *)world_expect(w, CS_MSG_CANCEL)->msg.raw;
    CS_EQ_U64(m->gate, 9);
    CS_EQ_SLICE(m->key, cs_slice(far, sizeof far));
    CS_EQ_SLICE(m->from, cs_slice_str(asker->s->address));
    cs_gate_cancel_route(asker->s, cs_slice(key, sizeof key)); /* ours: nobody is asked */
    CS_CHECK(c->s->cancel.set);
    CS_EQ_U64(world_count(w, CS_MSG_CANCEL), 1);
    cs_event_clear(&c->s->cancel);
    cs_gate_cancel_route(asker->s, cs_slice(key, 7));
    struct cs_msg_cancel_to to = {.key = cs_slice(key, sizeof key), .from = mallory};
    world_send(w, CS_MSG_CANCEL_TO, &to);
    world_until(w, is_cancelled, c);
    cs_event_clear(&c->s->cancel);
    guess(w, c, mallory);
    world_send(w, CS_MSG_CANCEL_TO, &to); /* the guesser's address came along */
    to.from = CS_SLICE_LIT("198.51.100.7:1");
    struct world_client *other = world_session(w); /* both have been read by now */
    CS_CHECK(!c->s->cancel.set && other->s != NULL);
    world_control_dies(w);
    cs_gate_cancel_route(asker->s, cs_slice(far, sizeof far)); /* lost, and nothing worse */
}
CS_TEST(a_key_of_another_gate_goes_through_control_with_the_senders_address)
{
    world_run(passed_on);
}
