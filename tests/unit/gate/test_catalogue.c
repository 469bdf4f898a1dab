/* The catalogues in a gate: what control sends is read strictly, belongs to one server, and makes
 * nothing harmless once definitions may have changed. */
#include "sql/catalogue.h"
#include "world.h"

#include <unistd.h>

struct entry {
    uint8_t kind;
    const char *name;
    uint8_t bits;
};

static const struct entry harmless = {'f', "net", CS_CATALOGUE_HARMLESS | CS_CATALOGUE_QUIET};
static const struct entry triggered = {'r', "t", CS_CATALOGUE_WRITE_OPAQUE};
static const struct entry plain = {'r', "t", 0};

static void send_bytes(struct world *w, const char *address, uint64_t taken, struct cs_slice bytes)
{
    struct cs_msg_catalogue m = {.target = CS_SLICE_LIT("orders"),
                                 .address = cs_slice_str(address),
                                 .database = CS_SLICE_LIT("orders"),
                                 .taken = taken};
    int fd = -1;
    CS_CHECK(cs_sealed_make("catalogue", bytes, &fd) == CS_OK);
    CS_CHECK(cs_channel_send(w->control, CS_MSG_CATALOGUE, 0, &m, &fd, 1) == CS_OK);
    (void)close(fd);
}

static void send_entry(struct world *w, const char *address, uint64_t taken, const struct entry *e)
{
    struct cs_catalogue_entry one = {.schema = CS_SLICE_LIT("public"),
                                     .name = cs_slice_str(e->name),
                                     .kind = e->kind,
                                     .bits = e->bits};
    struct cs_catalogue c = {.entries = &one, .n = 1};
    struct cs_buf b = cs_buf(4096);
    cs_catalogue_write(&b, &c);
    CS_CHECK(!b.bad);
    send_bytes(w, address, taken, cs_buf_slice(&b));
    cs_buf_done(&b);
}

enum which { JUDGED, DEFINITIONS };

static uint8_t effects(struct world_client *c, enum which which, const char *text)
{
    struct cs_sql *sql = cs_gate_sql(c->s->gate);
    const struct cs_sql_class *class = cs_sql_classify(sql, cs_slice_str(text));
    struct cs_sql_judged j = {0};
    CS_CHECK(class != NULL);
    if (which == JUDGED) {
        cs_gate_judge(c->s, class, NULL, 0, NULL, &j);
    } else {
        cs_gate_definitions(c->s, class, &j);
    }
    cs_sql_release(sql, class);
    return j.effects;
}

struct until {
    struct world_client *c;
    const char *text;
    uint8_t effects;
};

static bool judged_so(struct world *w, void *arg)
{
    const struct until *u = arg;
    (void)w;
    return effects(u->c, DEFINITIONS, u->text) == u->effects;
}

/* Until the gate has read what was sent: its word about the text is this. */
static void becomes(struct world *w, struct world_client *c, const char *text, uint8_t now)
{
    struct until u = {c, text, now};
    world_until(w, judged_so, &u);
}

#define HERE   "127.0.0.1:1"
#define UPDATE "update t set a = 1"

static void widens(struct world *w)
{
    struct world_client *c = world_session(w);
    CS_EQ_U64(effects(c, JUDGED, UPDATE), CS_SQL_WRITE);
    CS_EQ_U64(effects(c, DEFINITIONS, UPDATE), CS_SQL_WRITE);
    send_entry(w, HERE, cs_mono_ns(), &triggered);
    becomes(w, c, UPDATE, CS_SQL_WRITE | CS_SQL_OPAQUE);
    CS_EQ_U64(effects(c, JUDGED, UPDATE), CS_SQL_WRITE | CS_SQL_OPAQUE);
    send_entry(w, HERE, cs_mono_ns(), &plain);
    becomes(w, c, UPDATE, CS_SQL_WRITE);
    CS_EQ_U64(effects(c, JUDGED, UPDATE), CS_SQL_WRITE);
}
CS_TEST(a_catalogue_makes_a_text_opaque_and_the_next_one_may_not)
{
    world_run(widens);
}

static void anothers(struct world *w)
{
    struct world_client *c = world_session(w);
    send_entry(w, "127.0.0.1:2", cs_mono_ns(), &triggered);
    struct world_client *later = world_session(w); /* by then the gate has read it */
    CS_EQ_U64(effects(c, JUDGED, UPDATE), CS_SQL_WRITE);
    CS_EQ_U64(effects(later, DEFINITIONS, UPDATE), CS_SQL_WRITE);
    send_entry(w, HERE, cs_mono_ns(), &triggered);
    becomes(w, c, UPDATE, CS_SQL_WRITE | CS_SQL_OPAQUE);
}
CS_TEST(a_catalogue_of_another_server_says_nothing)
{
    world_run(anothers);
}

static void broken(struct world *w)
{
    struct world_client *c = world_session(w);
    send_entry(w, HERE, cs_mono_ns(), &triggered);
    becomes(w, c, UPDATE, CS_SQL_WRITE | CS_SQL_OPAQUE);
    send_bytes(w, HERE, cs_mono_ns(), CS_SLICE_LIT("this is no catalogue"));
    becomes(w, c, UPDATE, CS_SQL_WRITE);
    send_entry(w, HERE, cs_mono_ns(), &triggered);
    becomes(w, c, UPDATE, CS_SQL_WRITE | CS_SQL_OPAQUE);
}
CS_TEST(what_is_no_catalogue_takes_the_last_one_away_and_harms_nobody)
{
    world_run(broken);
}

#define CALL "select net(1)"

static void ages(struct world *w)
{
    struct world_client *c = world_session(w);
    uint64_t now = cs_mono_ns();
    send_entry(w, HERE, now - (CS_LIMIT_CATALOGUE_AGE_S + 1) * CS_NS_PER_S, &harmless);
    becomes(w, c, CALL, CS_SQL_READ);
    CS_EQ_U64(effects(c, JUDGED, CALL), CS_SQL_READ | CS_SQL_OPAQUE);
    send_entry(w, HERE, now, &harmless);
    struct world_client *later = world_session(w);
    CS_EQ_U64(effects(later, JUDGED, CALL), CS_SQL_READ);
}
CS_TEST(an_old_catalogue_narrows_nothing_and_still_says_what_it_knew)
{
    world_run(ages);
}

static void types(struct world *w)
{
    struct world_client *c = world_session(w);
    CS_CHECK(cs_gate_literals_run(c->s)); /* nothing is known */
    send_entry(w, HERE, cs_mono_ns(), &harmless);
    becomes(w, c, CALL, CS_SQL_READ);
    CS_CHECK(!cs_gate_literals_run(c->s));
    struct cs_catalogue_entry by_number = {.schema = CS_SLICE_LIT(CS_CATALOGUE_NUMBERS),
                                           .name = CS_SLICE_LIT("20000"),
                                           .kind = CS_CATALOGUE_TYPE};
    struct cs_catalogue one = {.entries = &by_number, .n = 1};
    struct cs_buf b = cs_buf(4096);
    cs_catalogue_write(&b, &one);
    send_bytes(w, HERE, cs_mono_ns(), cs_buf_slice(&b));
    cs_buf_done(&b);
    becomes(w, c, CALL, CS_SQL_READ | CS_SQL_OPAQUE);
    CS_CHECK(cs_gate_literals_run(c->s));
}
CS_TEST(literals_may_run_code_until_every_type_is_known_to_be_harmless)
{
    world_run(types);
}

static void changing(struct world *w)
{
    struct world_client *c = world_session(w), *other = world_session(w);
    uint64_t before = cs_mono_ns();
    send_entry(w, HERE, before, &harmless);
    becomes(w, c, CALL, CS_SQL_READ);
    CS_EQ_U64(effects(other, JUDGED, CALL), CS_SQL_READ);
    CS_CHECK(!cs_gate_literals_run(c->s) && !cs_gate_literals_run(other->s));
    cs_gate_defining(c->s, false); /* a DDL is on its way */
    CS_CHECK(cs_gate_literals_run(other->s));
    CS_EQ_U64(effects(other, JUDGED, CALL), CS_SQL_READ | CS_SQL_OPAQUE);
    cs_gate_defined(c->s);
    const struct cs_msg_catalogue_wanted *m =
        (const void *)world_expect(w, CS_MSG_CATALOGUE_WANTED)->msg.raw;
    CS_EQ_STR(m->target, "orders");
    CS_EQ_U64(m->changed, 1);
    /* What was asked for before it ended may not show it. */
    CS_EQ_U64(effects(other, JUDGED, CALL), CS_SQL_READ | CS_SQL_OPAQUE);
    send_entry(w, HERE, cs_mono_ns(), &harmless);
    struct world_client *later = world_session(w);
    CS_EQ_U64(effects(later, JUDGED, CALL), CS_SQL_READ);
    CS_EQ_U64(effects(other, JUDGED, CALL), CS_SQL_READ);
    /* Who changed something may have changed what names mean to itself alone. */
    CS_EQ_U64(effects(c, JUDGED, CALL), CS_SQL_READ | CS_SQL_OPAQUE);
    CS_EQ_U64(effects(c, DEFINITIONS, CALL), CS_SQL_READ);
    CS_CHECK(cs_gate_literals_run(c->s) && !cs_gate_literals_run(other->s));
}
CS_TEST(a_catalogue_narrows_nothing_until_it_is_newer_than_the_last_change)
{
    world_run(changing);
}

static void elsewhere(struct world *w)
{
    struct world_client *c = world_session(w);
    struct cs_msg_catalogue_old old = {.target = CS_SLICE_LIT("orders")};
    send_entry(w, HERE, cs_mono_ns(), &harmless);
    becomes(w, c, CALL, CS_SQL_READ);
    CS_EQ_U64(effects(c, JUDGED, CALL), CS_SQL_READ);
    world_send(w, CS_MSG_CATALOGUE_OLD, &old);
    struct world_client *later = world_session(w);
    CS_EQ_U64(effects(later, JUDGED, CALL), CS_SQL_READ | CS_SQL_OPAQUE);
    old.target = CS_SLICE_LIT("nobody knows it");
    world_send(w, CS_MSG_CATALOGUE_OLD, &old);
    send_entry(w, HERE, cs_mono_ns(), &harmless);
    later = world_session(w);
    CS_EQ_U64(effects(later, JUDGED, CALL), CS_SQL_READ);
}
CS_TEST(a_change_that_another_gate_saw_counts_as_well)
{
    world_run(elsewhere);
}

static void unknown(struct world *w)
{
    struct world_client *c = world_session(w);
    send_entry(w, HERE, cs_mono_ns(), &plain);
    send_entry(w, HERE, cs_mono_ns(), &triggered);
    becomes(w, c, UPDATE, CS_SQL_WRITE | CS_SQL_OPAQUE);
    CS_EQ_U64(world_count(w, CS_MSG_CATALOGUE_WANTED), 0);
    (void)effects(c, JUDGED, "select * from nothing_of_that_name");
    (void)effects(c, JUDGED, "select * from nothing_of_that_name_either");
    const struct cs_msg_catalogue_wanted *m =
        (const void *)world_expect(w, CS_MSG_CATALOGUE_WANTED)->msg.raw;
    CS_EQ_U64(m->changed, 0);
    struct world_client *later = world_session(w);
    CS_CHECK(later->s != NULL);
    CS_EQ_U64(world_count(w, CS_MSG_CATALOGUE_WANTED), 1); /* once in two seconds */
}
CS_TEST(a_name_that_is_not_known_asks_for_a_newer_catalogue_and_not_for_each_text)
{
    world_run(unknown);
}

static void watched(struct world *w)
{
    struct world_client *c = world_session(w), *other = world_session(w);
    send_entry(w, HERE, cs_mono_ns() - (CS_LIMIT_CATALOGUE_HELD_S + 1) * CS_NS_PER_S, &plain);
    world_wait_for(w, c, "AAAAAAAA");
    CS_EQ_U64(((const struct cs_msg_catalogue_wanted *)(const void *)world_expect(
                   w, CS_MSG_CATALOGUE_WANTED)
                   ->msg.raw)
                  ->changed,
              0);
    world_wait_for(w, other, "BBBBBBBB"); /* one look serves for all that is held there */
    struct world_client *later = world_session(w);
    CS_CHECK(later->s != NULL);
    CS_EQ_U64(world_count(w, CS_MSG_CATALOGUE_WANTED), 1);
}
CS_TEST(what_is_held_has_an_older_catalogue_asked_for_anew)
{
    world_run(watched);
}
