/* The ring as a session meets it: full, stopped, too small. */
#include "world.h"

static void do_note(struct world_client *c)
{
    static uint8_t text[200 * 1024];
    memset(text, 'x', sizeof text);
    struct cs_frame_note f = {.text = cs_slice(text, sizeof text)};
    c->err = cs_gate_append(c->s, CS_FRAME_NOTE, &f, false);
}

static void fill(struct world_client *c)
{
    size_t n = 0;
    do {
        world_do(c, do_note);
        CS_CHECK(cs_co_yield() && cs_co_yield() && ++n < 1000);
    } while (c->done.set && c->err == CS_OK);
}

static void full(struct world *w)
{
    struct world_client *c = world_session(w);
    world_frame(w, CS_FRAME_SESSION_OPEN, 1);
    w->unread = true;
    fill(c);
    CS_CHECK(!c->done.set); /* it waits, and so does its client */
    w->unread = false;
    cs_event_set(&w->recorder);
    world_wait(c);
    CS_EQ_U64(c->err, CS_OK);
    w->unread = true;
    fill(c);
    world_health(w, CS_RECORD_STOPPED);
    world_wait(c);
    CS_EQ_U64(c->err, CS_ERR_NO_SPACE); /* room will not come */
    world_health(w, CS_RECORD_HEALTHY);
    w->unread = false;
    cs_event_set(&w->recorder);
}
CS_TEST(a_full_ring_makes_a_session_wait_and_a_stopped_recorder_refuses)
{
    world_run(full);
}

static void at_the_end(struct world *w)
{
    struct world_client *c = world_session(w);
    world_frame(w, CS_FRAME_SESSION_OPEN, 1);
    w->unread = true;
    fill(c);
    CS_CHECK(!c->done.set);
}
CS_TEST(a_session_that_waits_for_room_does_not_keep_the_gate_from_stopping)
{
    world_run(at_the_end);
}

static void huge(struct world *w)
{
    struct world_client *c = world_session(w);
    uint8_t *text = cs_arena_alloc(&w->arena, CS_LIMIT_RECORD_FRAME_BYTES);
    struct cs_frame_note f = {.text = cs_slice(text, CS_LIMIT_RECORD_FRAME_BYTES)};
    CS_EQ_U64(cs_gate_append(c->s, CS_FRAME_NOTE, &f, false), CS_ERR_TOO_LARGE);
    CS_EQ_U64(world_frames(w, CS_FRAME_NOTE), 0);
}
CS_TEST(a_frame_that_never_fits_is_an_error_at_once)
{
    world_run(huge);
}

static void note_before(struct world *w)
{
    struct world_client *c = world_client(w);
    cs_gate_note(c->s, "of a session %s", "that is in no record");
    struct world_client *d = world_session(w);
    cs_gate_note(d->s, "of one that is");
    world_frame(w, CS_FRAME_NOTE, 1);
    CS_CHECK(cs_id_eq(&w->frame_session[w->n_frames - 1], &d->id));
    CS_EQ_U64(world_frames(w, CS_FRAME_NOTE), 1);
}
CS_TEST(a_note_needs_a_session_in_the_record)
{
    world_run(note_before);
}
