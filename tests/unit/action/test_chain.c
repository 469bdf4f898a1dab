/* Chains: codec, words, membership. */
#include "action/chain.h"
#include "tap.h"

static struct cs_slice groups[] = {{(const uint8_t *)"agents", 6}, {(const uint8_t *)"dba", 3}};

static struct cs_chain sample(void)
{
    struct cs_chain c = {.n = 2};
    c.p[0] = (struct cs_principal){CS_PRINCIPAL_PERSON, CS_SLICE_LIT("local:alice"),
                                   CS_SLICE_LIT("alice"), NULL, 0};
    c.p[1] = (struct cs_principal){CS_PRINCIPAL_AGENT, CS_SLICE_LIT("local:bot"),
                                   CS_SLICE_LIT("bot"), groups, 2};
    return c;
}

CS_TEST(chain_survives_the_trip_and_every_cut_fails)
{
    struct cs_arena a;
    uint8_t mem[256];
    struct cs_writer w = cs_writer(mem, sizeof mem);
    struct cs_chain c = sample(), back = {0};
    cs_arena_init(&a, 1024, 65536);
    cs_chain_encode(&w, &c);
    CS_CHECK(!w.overflow);
    struct cs_slice all = cs_writer_done(&w);
    struct cs_reader r = cs_reader(all);
    CS_CHECK(cs_chain_decode(&r, &a, &back) && cs_reader_done(&r));
    CS_EQ_U64(back.n, 2);
    CS_EQ_U64(back.p[0].kind, CS_PRINCIPAL_PERSON);
    CS_EQ_STR(back.p[1].id, "local:bot");
    CS_EQ_U64(back.p[1].n_groups, 2);
    CS_EQ_STR(back.p[1].groups[1], "dba");
    for (size_t n = 0; n < all.n; n++) {
        struct cs_chain none = {.n = 77};
        r = cs_reader(cs_slice_head(all, n));
        CS_CHECK(!cs_chain_decode(&r, &a, &none));
        CS_EQ_U64(none.n, 77);
    }
    cs_arena_done(&a);
}

CS_TEST(chain_decoder_refuses_what_limits_forbid)
{
    const struct cs_slice bad[] = {
        CS_SLICE_LIT("\x05"),                                      /* too long a chain */
        CS_SLICE_LIT("\x01\x00\x01\0\0\0a\0\0\0\0\0\0"),           /* kind none */
        CS_SLICE_LIT("\x01\x04\x01\0\0\0a\0\0\0\0\0\0"),           /* kind unknown */
        CS_SLICE_LIT("\x01\x01\0\0\0\0\0\0\0\0\0\0"),              /* no id */
        CS_SLICE_LIT("\x01\x01\x01\0\0\0a\0\0\0\0\x01\x01"),       /* 257 groups */
        CS_SLICE_LIT("\x01\x01\x01\0\0\0a\0\0\0\0\x01\0\0\0\0\0"), /* empty group name */
        CS_SLICE_LIT("\x01\x01\xff\xff\xff\xff"
                     "a\0\0\0\0\0\0"), /* length past end */
    };
    struct cs_arena a;
    cs_arena_init(&a, 1024, 65536);
    for (size_t i = 0; i < CS_ARRAY_LEN(bad); i++) {
        struct cs_chain c;
        struct cs_reader r = cs_reader(bad[i]);
        CS_CHECK(!cs_chain_decode(&r, &a, &c));
    }
    cs_arena_done(&a);
}

CS_TEST(chain_encoder_refuses_what_the_decoder_would)
{
    uint8_t mem[256];
    struct cs_chain c = sample();
    struct cs_writer w = cs_writer(mem, sizeof mem);
    c.p[1].kind = CS_PRINCIPAL_NONE;
    cs_chain_encode(&w, &c);
    CS_CHECK(w.overflow);
    c = sample();
    c.n = CS_LIMIT_CHAIN + 1;
    w = cs_writer(mem, sizeof mem);
    cs_chain_encode(&w, &c);
    CS_CHECK(w.overflow);
}

CS_TEST(chain_reads_from_the_actor_to_the_root)
{
    struct cs_arena a;
    struct cs_chain c = sample(), empty = {0};
    cs_arena_init(&a, 1024, 65536);
    CS_EQ_STR(cs_chain_text(&c, &a), "agent bot on behalf of person alice");
    CS_EQ_STR(cs_chain_text(&empty, &a), "nobody");
    c.n = 1;
    c.p[0].name = CS_SLICE_LIT("eve\nperson root");
    CS_EQ_STR(cs_chain_text(&c, &a), "person eve\\x0aperson root");
    c.p[0].name = CS_SLICE_NULL;
    CS_EQ_STR(cs_chain_text(&c, &a), "person local:alice");
    cs_arena_done(&a);
}

CS_TEST(chain_knows_its_members_by_whole_id)
{
    struct cs_chain c = sample();
    CS_CHECK(cs_chain_has(&c, CS_SLICE_LIT("local:alice")));
    CS_CHECK(cs_chain_has(&c, CS_SLICE_LIT("local:bot")));
    CS_CHECK(!cs_chain_has(&c, CS_SLICE_LIT("local:al")));
    CS_CHECK(!cs_chain_has(&c, CS_SLICE_NULL));
    c.n = 1;
    CS_CHECK(!cs_chain_has(&c, CS_SLICE_LIT("local:bot")));
}

CS_TEST(chain_survives_a_lack_of_memory)
{
    uint8_t mem[256];
    struct cs_chain c = sample(), back;
    struct cs_writer w = cs_writer(mem, sizeof mem);
    cs_chain_encode(&w, &c);
    bool done = false;
    CS_OOM_LOOP(done)
    {
        struct cs_arena a;
        struct cs_reader r = cs_reader(cs_writer_done(&w));
        cs_arena_init(&a, 16, 65536);
        done = cs_chain_decode(&r, &a, &back) && cs_chain_text(&back, &a).p != NULL;
        cs_arena_done(&a);
    }
    CS_CHECK(done);
    CS_EQ_U64(cs_alloc_live(), 0);
}
