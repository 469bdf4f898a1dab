/* The targets' catalogues in control: asked of probe, passed to every gate as they came, asked for
 * anew when a gate says so; a change that one gate saw is told to the others. */
#include "base/time.h"
#include "world.h"

/* Waits (20 s) until there are n catalogues of a target at a gate; the last one. */
static const struct world_catalogue *catalogue(struct world *w, unsigned gate, const char *target,
                                               size_t n)
{
    uint64_t until = cs_mono_ns() + 20 * CS_NS_PER_S;
    for (;;) {
        size_t found = 0;
        cs_event_clear(&w->news);
        for (size_t i = 0; i < CS_MIN(w->n_catalogues, (size_t)WORLD_NEWS); i++) {
            const struct world_catalogue *k = &w->catalogues[i];
            found += k->gate == gate && strcmp(k->target, target) == 0;
            if (found == n) {
                return k;
            }
        }
        struct cs_wait wait = CS_WAIT_ON(CS_WAIT_EVENT, &w->news);
        CS_CHECK(cs_wait(&wait, 1, until) == CS_WOKE_READY);
    }
}

static void wanted(struct world *w, unsigned gate, const char *target, bool changed)
{
    struct cs_msg_catalogue_wanted m = {.target = cs_slice_str(target), .changed = changed ? 1 : 0};
    CS_CHECK(cs_channel_send(w->gate[gate], CS_MSG_CATALOGUE_WANTED, 0, &m, NULL, 0) == CS_OK);
}

static void to_every_gate(struct world *w)
{
    char address[40];
    uint64_t before = cs_mono_ns();
    (void)snprintf(address, sizeof address, "127.0.0.1:%u", w->port);
    w->probe_says = "first";
    world_probe(w);
    for (unsigned g = 0; g < 2; g++) {
        const struct world_catalogue *k = catalogue(w, g, "orders", 1);
        CS_EQ_STR(cs_slice_str(k->bytes), "first");
        CS_EQ_STR(cs_slice_str(k->address), address);
        /* As old as the question: what changed while it was answered may not be in it. */
        CS_CHECK(k->taken >= before && k->taken <= cs_mono_ns());
        (void)catalogue(w, g, "closed", 1);
    }
    w->probe_says = "second";
    wanted(w, 0, "orders", false);
    for (unsigned g = 0; g < 2; g++) {
        const struct world_catalogue *k = catalogue(w, g, "orders", 2);
        CS_EQ_STR(cs_slice_str(k->bytes), "second");
    }
    CS_EQ_U64(w->n_old[0] + w->n_old[1], 0); /* nobody has said that something changed */
}
CS_TEST(a_catalogue_goes_to_every_gate_and_anew_when_one_asks)
{
    world_run(to_every_gate);
}

static void change_is_told(struct world *w)
{
    w->probe_says = "first";
    world_probe(w);
    (void)catalogue(w, 1, "orders", 1);
    w->probe_says = "second";
    wanted(w, 0, "nobody knows it", true);
    wanted(w, 0, "orders", true);
    CS_EQ_STR(cs_slice_str(catalogue(w, 1, "orders", 2)->bytes), "second");
    CS_EQ_U64(w->n_old[1], 1); /* before the new one, on the same channel */
    CS_EQ_U64(w->n_old[0], 0); /* who saw it knows */
}
CS_TEST(a_change_that_one_gate_saw_is_told_to_the_others_before_the_next_catalogue)
{
    world_run(change_is_told);
}

static void comes_late(struct world *w)
{
    w->probe_says = "first";
    world_probe(w);
    (void)catalogue(w, 0, "orders", 1);
    size_t so_far = w->n_catalogues;
    world_gate(w, 2); /* counted as gate 1 */
    uint64_t until = cs_mono_ns() + 20 * CS_NS_PER_S;
    while (w->n_catalogues < so_far + 2 && cs_mono_ns() < until) {
        CS_CHECK(cs_co_sleep(5 * CS_NS_PER_MS));
    }
    CS_CHECK(w->n_catalogues >= so_far + 2);
}
CS_TEST(a_gate_that_comes_later_is_given_what_there_is)
{
    world_run(comes_late);
}

static void fails(struct world *w)
{
    w->probe_says = "first";
    world_probe(w);
    (void)catalogue(w, 0, "orders", 1);
    size_t looks = w->n_looks;
    w->probe_says = NULL;
    wanted(w, 0, "orders", false);
    uint64_t until = cs_mono_ns() + 20 * CS_NS_PER_S;
    while (w->n_looks == looks && cs_mono_ns() < until) {
        CS_CHECK(cs_co_sleep(5 * CS_NS_PER_MS));
    }
    CS_CHECK(w->n_looks > looks);
    w->probe_says = "after";
    wanted(w, 0, "orders", false);
    /* Nothing came of the look that failed: the next one there is, is the one after it. */
    CS_EQ_STR(cs_slice_str(catalogue(w, 0, "orders", 2)->bytes), "after");
}
CS_TEST(a_look_that_fails_changes_nothing_and_the_next_one_may_succeed)
{
    world_run(fails);
}
