/* Frames of a recording. */
#include "action/frame.h"
#include "tap.h"

CS_TEST(frame_survives_the_trip_and_every_cut_fails)
{
    uint8_t mem[512];
    struct cs_frame_head head = {CS_FRAME_EXECUTE, 1795341072123ULL, cs_id_new()}, back;
    struct cs_frame_execute f = {.n = 7,
                                 .request = CS_SLICE_LIT("7Q2KD4M9"),
                                 .grant = cs_id_new(),
                                 .digest = CS_SLICE_LIT("digest"),
                                 .elevated = 1,
                                 .role = CS_SLICE_LIT("owner")};
    union {
        struct cs_frame_execute f;
        uint64_t room[CS_FRAME_STRUCT_MAX / 8];
    } out;
    struct cs_writer w = cs_writer(mem, sizeof mem);
    cs_frame_encode(&w, &head, &f);
    struct cs_slice all = cs_writer_done(&w);
    CS_CHECK(all.n > CS_FRAME_HEAD);
    CS_CHECK(cs_frame_decode(all, &back, &out));
    CS_EQ_U64(back.kind, CS_FRAME_EXECUTE);
    CS_EQ_U64(back.wall_ms, head.wall_ms);
    CS_CHECK(cs_id_eq(&back.session, &head.session) && cs_id_eq(&out.f.grant, &f.grant));
    CS_EQ_STR(out.f.role, "owner");
    CS_EQ_U64(out.f.n, 7);
    for (size_t n = 0; n < all.n; n++) {
        CS_CHECK(!cs_frame_decode(cs_slice_head(all, n), &back, &out));
    }
    mem[all.n] = 0;
    CS_CHECK(!cs_frame_decode(cs_slice(mem, all.n + 1), &back, &out));
    CS_CHECK(cs_frame_decode_head(cs_slice(mem, CS_FRAME_HEAD), &back));
    CS_CHECK(!cs_frame_decode_head(cs_slice(mem, CS_FRAME_HEAD - 1), &back));
}

CS_TEST(frame_of_an_unknown_kind_is_refused)
{
    uint8_t mem[64] = {99};
    uint64_t out[CS_FRAME_STRUCT_MAX / 8];
    struct cs_frame_head head;
    CS_CHECK(!cs_frame_decode_head(cs_slice(mem, sizeof mem), &head));
    CS_CHECK(!cs_frame_decode(cs_slice(mem, sizeof mem), &head, out));
    mem[0] = 0;
    CS_CHECK(!cs_frame_decode_head(cs_slice(mem, sizeof mem), &head));
    CS_CHECK(cs_frame_name(0) == NULL && cs_frame_name(99) == NULL);
    head = (struct cs_frame_head){(enum cs_frame_kind)0, 0, {{0}}};
    struct cs_writer w = cs_writer(mem, sizeof mem);
    cs_frame_encode(&w, &head, out);
    CS_CHECK(w.overflow);
}

CS_TEST(frame_tables_cover_every_kind)
{
    size_t n;
    CS_EQ_STR(cs_slice_str(cs_frame_name(CS_FRAME_SESSION_OPEN)), "session_open");
    const struct cs_field *f = cs_frame_fields(CS_FRAME_RESULT, &n);
    CS_EQ_U64(n, 7);
    CS_EQ_STR(cs_slice_str(f[6].name), "message");
    CS_EQ_U64(f[6].offset, offsetof(struct cs_frame_result, message));
    CS_CHECK(cs_frame_fields(99, &n) == NULL && n == 0);
}
