/* Keeper's table of the configuration. */
#include "tap.h"
#include "wire/credentials.h"

static const uint8_t pin_bytes[] = {32, 1,  2,  3,  4,  5,  6,  7,  8,  9,  10,
                                    11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21,
                                    22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32};

static struct cs_credential_row row(const char *target)
{
    return (struct cs_credential_row){.target = cs_slice_str(target),
                                      .secret = CS_SLICE_LIT("ro"),
                                      .elevated = CS_SLICE_LIT("owner"),
                                      .binding = CS_BINDING_REQUIRE,
                                      .pins = cs_slice(pin_bytes, sizeof pin_bytes)};
}

CS_TEST(credentials_survive_the_trip)
{
    struct cs_buf out = cs_buf(CS_CREDENTIALS_MAX);
    struct cs_credential_row a = row("a"), b = row("b"), got;
    b.elevated = b.pins = CS_SLICE_NULL;
    b.probe = CS_SLICE_LIT("looks");
    b.binding = CS_BINDING_PREFER;
    cs_credentials_write(&out, &a);
    cs_credentials_write(&out, &b);
    CS_CHECK(!out.bad && cs_credentials_valid(cs_buf_slice(&out)));
    CS_CHECK(cs_credentials_find(cs_buf_slice(&out), CS_SLICE_LIT("b"), &got));
    CS_EQ_STR(got.secret, "ro");
    CS_EQ_STR(got.probe, "looks");
    CS_CHECK(got.elevated.n == 0 && got.pins.n == 0 && got.binding == CS_BINDING_PREFER);
    CS_CHECK(cs_credentials_find(cs_buf_slice(&out), CS_SLICE_LIT("a"), &got));
    CS_EQ_STR(got.elevated, "owner");
    CS_CHECK(cs_credential_pinned(&got, cs_slice(pin_bytes + 1, 32)));
    CS_CHECK(!cs_credential_pinned(&got, cs_slice(pin_bytes + 1, 31)));
    CS_CHECK(!cs_credential_pinned(&got, CS_SLICE_NULL));
    CS_CHECK(!cs_credentials_find(cs_buf_slice(&out), CS_SLICE_LIT("c"), &got));
    CS_CHECK(!cs_credentials_find(cs_buf_slice(&out), CS_SLICE_NULL, &got));
    /* Every cut but the one between two rows makes it void; so does a tail. */
    for (size_t n = 1; n < out.len; n++) {
        bool whole = cs_credentials_valid(cs_slice_head(cs_buf_slice(&out), n));
        CS_CHECK(!whole || cs_credentials_find(cs_slice_head(cs_buf_slice(&out), n),
                                               CS_SLICE_LIT("a"), &got));
        CS_CHECK(!whole || !cs_credentials_find(cs_slice_head(cs_buf_slice(&out), n),
                                                CS_SLICE_LIT("b"), &got));
    }
    cs_buf_u8(&out, 0);
    CS_CHECK(!cs_credentials_valid(cs_buf_slice(&out)));
    cs_buf_done(&out);
    CS_CHECK(cs_credentials_valid(CS_SLICE_NULL)); /* no target, no proof */
}

static bool valid(const struct cs_credential_row *a, const struct cs_credential_row *b)
{
    struct cs_buf out = cs_buf(CS_CREDENTIALS_MAX);
    cs_credentials_write(&out, a);
    if (b != NULL) {
        cs_credentials_write(&out, b);
    }
    bool ok = !out.bad && cs_credentials_valid(cs_buf_slice(&out));
    cs_buf_done(&out);
    return ok;
}

CS_TEST(credentials_refuse_impossible_rows)
{
    static uint8_t long_name[129], pins[5 * 33];
    struct cs_credential_row a = row("a"), b = row("b"), x;
    memset(long_name, 'a', sizeof long_name);
    for (size_t i = 0; i < sizeof pins; i += 33) {
        pins[i] = 32;
    }
    CS_CHECK(valid(&a, &b));
    CS_CHECK(!valid(&b, &a)); /* not in order */
    CS_CHECK(!valid(&a, &a)); /* SECURITY: twice: two roles could see two rows */
#define BAD(member, value)                                                                         \
    x = a;                                                                                         \
    x.member = (value);                                                                            \
    CS_CHECK(!valid(&x, NULL));
    BAD(target, CS_SLICE_NULL)
    BAD(target, cs_slice(long_name, sizeof long_name))
    BAD(secret, CS_SLICE_NULL)
    BAD(secret, cs_slice(long_name, sizeof long_name))
    BAD(elevated, cs_slice(long_name, sizeof long_name))
    BAD(probe, cs_slice(long_name, sizeof long_name))
    BAD(binding, CS_BINDING_NONE)
    BAD(binding, CS_BINDING_MAX)
    BAD(binding, CS_BINDING_PREFER) /* with a pin it must be "require" */
    BAD(way, CS_WAY_MD5)            /* with a pin; without a role */
    x.pins = CS_SLICE_NULL;
    x.binding = CS_BINDING_PREFER;
    CS_CHECK(!valid(&x, NULL));
    x.user = CS_SLICE_LIT("ro");
    CS_CHECK(valid(&x, NULL));
    x.probe_way = CS_WAY_CLEARTEXT;
    CS_CHECK(!valid(&x, NULL));
    x.probe_user = CS_SLICE_LIT("looks");
    CS_CHECK(valid(&x, NULL));
    x.way = CS_WAY_MAX;
    CS_CHECK(!valid(&x, NULL));
    BAD(pins, cs_slice(pins, sizeof pins))
    BAD(pins, cs_slice(pins, 32))
    BAD(pins, cs_slice(pins, 34))
    BAD(pins, CS_SLICE_LIT("\x1f"))
}

CS_TEST(channel_binding_words_are_three)
{
    CS_CHECK(cs_channel_binding_of(CS_SLICE_LIT("disable")) == CS_BINDING_DISABLE);
    CS_CHECK(cs_channel_binding_of(CS_SLICE_LIT("prefer")) == CS_BINDING_PREFER);
    CS_CHECK(cs_channel_binding_of(CS_SLICE_LIT("require")) == CS_BINDING_REQUIRE);
    CS_CHECK(cs_channel_binding_of(CS_SLICE_LIT("Require")) == CS_BINDING_NONE);
    CS_CHECK(cs_channel_binding_of(CS_SLICE_NULL) == CS_BINDING_NONE);
}
