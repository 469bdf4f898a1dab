#include "base/arena.h"
#include "base/buf.h"
#include "base/pool.h"
#include "base/secret.h"
#include "tap.h"

CS_TEST(arena_keeps_its_cap)
{
    struct cs_arena a;
    cs_arena_init(&a, 1024, 4096);
    CS_CHECK(cs_arena_alloc(&a, 4000) != NULL);
    CS_CHECK(cs_arena_alloc(&a, 97) == NULL);
    volatile size_t huge = SIZE_MAX;
    CS_CHECK(cs_arena_alloc(&a, huge) == NULL);
    CS_CHECK(cs_arena_array(&a, huge / 2, 4) == NULL);
    cs_arena_reset(&a);
    CS_CHECK(cs_arena_alloc(&a, 4096) != NULL);
    cs_arena_done(&a);
    CS_EQ_U64(cs_alloc_live(), 0);
}

CS_TEST(arena_memory_is_zero_after_reset)
{
    struct cs_arena a;
    cs_arena_init(&a, 256, 4096);
    memset(cs_arena_alloc(&a, 200), 0xff, 200);
    cs_arena_reset(&a);
    const uint8_t *p = cs_arena_alloc(&a, 200);
    for (int i = 0; i < 200; i++) {
        CS_EQ_U64(p[i], 0);
    }
    CS_EQ_STR(cs_arena_printf(&a, "%s-%d", "x", 7), "x-7");
    cs_arena_done(&a);
}

CS_TEST(arena_survives_a_lack_of_memory)
{
    struct cs_arena a;
    bool done = false;
    cs_arena_init(&a, 64, 4096);
    CS_OOM_LOOP(done)
    {
        done = cs_arena_alloc(&a, 60) != NULL && cs_arena_alloc(&a, 600) != NULL;
        cs_arena_reset(&a);
    }
    CS_CHECK(done);
    cs_arena_done(&a);
    CS_EQ_U64(cs_alloc_live(), 0);
}

CS_TEST(buf_stops_at_its_ceiling)
{
    struct cs_buf b = cs_buf(10);
    cs_buf_str(&b, "0123456789");
    CS_CHECK(!b.bad);
    CS_EQ_STR(cs_slice_str(cs_buf_cstr(&b)), "0123456789");
    cs_buf_u8(&b, 'x');
    CS_CHECK(b.bad);
    cs_buf_done(&b);
    bool done = false;
    CS_OOM_LOOP(done)
    {
        b = cs_buf(100000);
        for (int i = 0; i < 5000; i++) {
            cs_buf_u8(&b, 'x');
        }
        done = !b.bad && b.len == 5000;
        cs_buf_done(&b);
    }
    CS_EQ_U64(cs_alloc_live(), 0);
}

CS_TEST(buf_drop_keeps_the_rest)
{
    struct cs_buf b = cs_buf(100);
    cs_buf_printf(&b, "%s", "hello world");
    cs_buf_drop(&b, 6);
    CS_EQ_STR(cs_buf_slice(&b), "world");
    cs_buf_drop(&b, 60);
    CS_EQ_U64(b.len, 0);
    cs_buf_done(&b);
}

CS_TEST(pool_handle_outlives_its_object_as_null)
{
    struct cs_pool p;
    cs_handle a, b;
    cs_pool_init(&p, sizeof(int), 100);
    int *x = cs_pool_take(&p, &a);
    CS_CHECK(x != NULL && cs_pool_get(&p, a) == x);
    *x = 5;
    cs_pool_give(&p, a);
    CS_CHECK(cs_pool_get(&p, a) == NULL);
    int *y = cs_pool_take(&p, &b);
    CS_CHECK(y == x && *y == 0 && a != b && cs_pool_get(&p, a) == NULL);
    CS_CHECK(cs_pool_get(&p, 0) == NULL && cs_pool_get(&p, UINT64_MAX) == NULL);
    for (int i = 0; i < 99; i++) {
        CS_CHECK(cs_pool_take(&p, &a) != NULL);
    }
    CS_CHECK(cs_pool_take(&p, &a) == NULL);
    CS_EQ_U64(p.live, 100);
    cs_pool_done(&p);
    CS_EQ_U64(cs_alloc_live(), 0);
}

CS_TEST(secret_is_replaced_and_bounded)
{
    struct cs_secret s = {0};
    uint8_t big[CS_SECRET_MAX + 1] = {0};
    CS_CHECK(cs_secret_set(&s, CS_SLICE_LIT("one")));
    CS_CHECK(cs_secret_set(&s, CS_SLICE_LIT("three")));
    CS_EQ_STR(cs_secret_reveal(&s), "three");
    CS_CHECK(!cs_secret_set(&s, cs_slice(big, sizeof big)));
    cs_secret_done(&s);
    CS_EQ_U64(cs_alloc_live(), 0);
}
