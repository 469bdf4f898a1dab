#include "base/err.h"
#include "base/fields.h"
#include "base/log.h"
#include "base/reader.h"
#include "base/time.h"
#include "base/writer.h"
#include "tap.h"

CS_TEST(reader_rejects_length_past_end)
{
    struct cs_reader r = cs_reader(CS_SLICE_LIT("\xff\xff\xff\xffxx"));
    CS_EQ_U64(cs_reader_slice(&r).n, 0);
    CS_CHECK(r.bad);
    CS_EQ_U64(cs_reader_u8(&r), 0);
    CS_EQ_U64(cs_reader_left(&r), 0);
    CS_CHECK(!cs_reader_done(&r));
}

CS_TEST(reader_reads_what_writer_wrote)
{
    uint8_t mem[64];
    struct cs_writer w = cs_writer(mem, sizeof mem);
    cs_writer_u8(&w, 1);
    cs_writer_u16(&w, 0x0203);
    cs_writer_u32(&w, 0x04050607);
    cs_writer_u64(&w, 0x08090a0b0c0d0e0fULL);
    cs_writer_u16le(&w, 0x0203);
    cs_writer_u32le(&w, 0x04050607);
    cs_writer_u64le(&w, 0x08090a0b0c0d0e0fULL);
    cs_writer_cstr(&w, CS_SLICE_LIT("name"));
    cs_writer_slice(&w, CS_SLICE_LIT("xyz"));
    cs_writer_printf(&w, "%d", 42);
    CS_CHECK(!w.overflow);
    struct cs_reader r = cs_reader(cs_writer_done(&w));
    CS_EQ_U64(cs_reader_u8(&r), 1);
    CS_EQ_U64(cs_reader_u16(&r), 0x0203);
    CS_EQ_U64(cs_reader_u32(&r), 0x04050607);
    CS_EQ_U64(cs_reader_u64(&r), 0x08090a0b0c0d0e0fULL);
    CS_EQ_U64(cs_reader_u16le(&r), 0x0203);
    CS_EQ_U64(cs_reader_u32le(&r), 0x04050607);
    CS_EQ_U64(cs_reader_u64le(&r), 0x08090a0b0c0d0e0fULL);
    CS_EQ_STR(cs_reader_cstr(&r), "name");
    CS_EQ_STR(cs_reader_slice(&r), "xyz");
    CS_EQ_STR(cs_reader_rest(&r), "42");
    CS_CHECK(cs_reader_done(&r));
}

CS_TEST(reader_needs_the_terminator_of_a_string)
{
    struct cs_reader r = cs_reader(CS_SLICE_LIT("name"));
    (void)cs_reader_cstr(&r);
    CS_CHECK(r.bad);
}

CS_TEST(writer_overflow_is_sticky_and_yields_nothing)
{
    uint8_t mem[4];
    struct cs_writer w = cs_writer(mem, sizeof mem);
    cs_writer_u32(&w, 1);
    cs_writer_u8(&w, 1);
    CS_CHECK(w.overflow);
    cs_writer_bytes(&w, CS_SLICE_NULL);
    CS_EQ_U64(cs_writer_done(&w).n, 0);
}

CS_TEST(writer_refuses_a_nul_inside_a_string)
{
    uint8_t mem[16];
    struct cs_writer w = cs_writer(mem, sizeof mem);
    cs_writer_cstr(&w, cs_slice("a\0b", 3));
    CS_CHECK(w.overflow);
}

struct sample {
    uint64_t number;
    struct cs_slice text;
    struct cs_id id;
};

CS_TEST(fields_survive_the_trip_and_every_cut_fails)
{
    static const struct cs_field f[] = {
        {CS_FIELD_KIND_U64, offsetof(struct sample, number), "number"},
        {CS_FIELD_KIND_SLICE, offsetof(struct sample, text), "text"},
        {CS_FIELD_KIND_ID, offsetof(struct sample, id), "id"}};
    struct sample a = {42, CS_SLICE_LIT("hello"), cs_id_new()}, b = {0};
    uint8_t mem[128];
    struct cs_writer w = cs_writer(mem, sizeof mem);
    cs_fields_encode(&w, f, 3, &a);
    struct cs_slice all = cs_writer_done(&w);
    struct cs_reader r = cs_reader(all);
    cs_fields_decode(&r, f, 3, &b);
    CS_CHECK(cs_reader_done(&r));
    CS_EQ_U64(b.number, 42);
    CS_EQ_STR(b.text, "hello");
    CS_CHECK(cs_id_eq(&a.id, &b.id));
    for (size_t n = 0; n < all.n; n++) {
        r = cs_reader(cs_slice_head(all, n));
        cs_fields_decode(&r, f, 3, &b);
        CS_CHECK(!cs_reader_done(&r));
    }
}

CS_TEST(errors_have_names_that_lead_back)
{
    for (unsigned e = 0; e < CS_ERR_MAX; e++) {
        CS_EQ_U64(cs_err_from_name(cs_err_name((enum cs_err)e)), e);
    }
    CS_EQ_U64(cs_err_http((enum cs_err)9999), 500);
}

CS_TEST(log_quotes_what_came_from_outside)
{
    struct cs_log_quoted q = cs_log_quote(CS_SLICE_LIT("a\"b\nc\x1b[31m\\"));
    CS_EQ_STR(cs_slice_str(q.text), "\"a\\x22b\\x0ac\\x1b[31m\\x5c\"");
    uint8_t big[4000];
    memset(big, '\n', sizeof big);
    q = cs_log_quote(cs_slice(big, sizeof big));
    CS_CHECK(strlen(q.text) < sizeof q.text);
}

CS_TEST(time_text_is_rfc_3339)
{
    char t[CS_TIME_TEXT];
    CS_EQ_STR(cs_slice_str(cs_time_text(1795341072123ULL, t)), "2026-11-22T09:51:12.123Z");
    CS_EQ_STR(cs_slice_str(cs_time_text(0, t)), "1970-01-01T00:00:00.000Z");
    CS_EQ_STR(cs_slice_str(cs_time_text(951782399999ULL, t)), "2000-02-28T23:59:59.999Z");
    CS_EQ_STR(cs_slice_str(cs_time_text(951782400000ULL, t)), "2000-02-29T00:00:00.000Z");
    CS_EQ_STR(cs_slice_str(cs_time_text(951868800000ULL, t)), "2000-03-01T00:00:00.000Z");
    CS_EQ_STR(cs_slice_str(cs_time_text(4107542399000ULL, t)), "2100-02-28T23:59:59.000Z");
    CS_EQ_STR(cs_slice_str(cs_time_text(4107542400000ULL, t)), "2100-03-01T00:00:00.000Z");
    CS_EQ_STR(cs_slice_str(cs_time_text(253402300799999ULL, t)), "9999-12-31T23:59:59.999Z");
}
