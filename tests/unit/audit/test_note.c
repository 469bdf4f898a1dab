/* Signed notes and checkpoints: the vectors of the specification and of RFC 8032, and every
 * spelling that must be refused. */
#include "audit/note.h"
#include "base/id.h"
#include "tap.h"

#define DASH "\xe2\x80\x94 "

static const char spec_key[] =
    "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k";
static const char spec_note[] =
    "This is an example message.\n\n" DASH "example.com/foo "
    "Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1"
    "Yu72IneyaQM=\n";

static void hex(const char *text, uint8_t *out)
{
    CS_CHECK(cs_unhex(cs_slice_str(text), out, strlen(text) / 2));
}

CS_TEST(ed25519_gives_the_signatures_of_rfc_8032)
{
    static const struct {
        const char *private, *public, *message, *signature;
    } rows[] = {{"9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
                 "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a", "",
                 "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc"
                 "61e39701cf9"
                 "b46bd25bf5f0595bbe24655141438e7a100b"},
                {"4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
                 "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c", "72",
                 "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e4"
                 "58f3613d0f1"
                 "1d8c387b2eaeb4302aeeb00d291612bb0c00"}};
    for (size_t i = 0; i < CS_ARRAY_LEN(rows); i++) {
        uint8_t private[32], public[32], is[32], message[1], want[64], signature[64];
        struct cs_slice m = cs_slice(message, strlen(rows[i].message) / 2);
        hex(rows[i].private, private);
        hex(rows[i].public, public);
        hex(rows[i].message, message);
        hex(rows[i].signature, want);
        CS_CHECK(cs_ed25519_public(private, is) == CS_OK && memcmp(is, public, 32) == 0);
        CS_CHECK(cs_ed25519_sign(private, m, signature) == CS_OK);
        CS_EQ_SLICE(cs_slice(signature, 64), cs_slice(want, 64));
        CS_CHECK(cs_ed25519_verify(public, m, cs_slice(want, 64)));
        CS_CHECK(!cs_ed25519_verify(public, m, cs_slice(want, 63)));
        want[40] ^= 1;
        CS_CHECK(!cs_ed25519_verify(public, m, cs_slice(want, 64)));
    }
}

CS_TEST(the_specifications_note_opens_with_its_key)
{
    struct cs_audit_key key;
    struct cs_slice text;
    struct cs_buf again = cs_buf(256);
    CS_CHECK(cs_audit_key_read(cs_slice_str(spec_key), &key) == CS_OK);
    CS_CHECK(cs_audit_note_open(cs_slice_str(spec_note), &key, &text));
    CS_EQ_STR(text, "This is an example message.\n");
    cs_audit_key_write(&key, &again);
    CS_EQ_STR(cs_buf_slice(&again), spec_key);
    cs_buf_done(&again);
}

CS_TEST(the_specifications_note_with_any_bit_changed_does_not_open)
{
    struct cs_audit_key key;
    struct cs_slice text;
    char note[sizeof spec_note];
    CS_CHECK(cs_audit_key_read(cs_slice_str(spec_key), &key) == CS_OK);
    for (size_t i = 0; i < sizeof note - 1; i++) {
        for (unsigned bit = 0; bit < 8; bit++) {
            memcpy(note, spec_note, sizeof note);
            note[i] = (char)(note[i] ^ (1 << bit));
            CS_CHECK(!cs_audit_note_open(cs_slice(note, sizeof note - 1), &key, &text));
        }
        CS_CHECK(!cs_audit_note_open(cs_slice(spec_note, i), &key, &text));
    }
}

CS_TEST(keys_with_a_wrong_id_type_length_or_name_are_refused)
{
    static const char *const bad[] = {
        "",
        "+",
        "++",
        "example.com/foo",
        "example.com/foo+530d903a",
        "example.com/foo+530d903a+",
        "example.com/foo+530d903b+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k",
        "example.com/foo+530D903A+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k",
        "example.com/fop+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k",
        "example.com/foo+530d903a+AukyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k",
        "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2",
        "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2kAAAA",
        "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k\n"};
    struct cs_audit_key key;
    for (size_t i = 0; i < CS_ARRAY_LEN(bad); i++) {
        CS_CHECK(cs_audit_key_read(cs_slice_str(bad[i]), &key) != CS_OK);
    }
    uint8_t public[32] = {1};
    CS_CHECK(cs_audit_key_make(CS_SLICE_LIT("a b"), public, &key) != CS_OK);
    CS_CHECK(cs_audit_key_make(CS_SLICE_LIT("a+b"), public, &key) != CS_OK);
    CS_CHECK(cs_audit_key_make(CS_SLICE_LIT("a\nb"), public, &key) != CS_OK);
    CS_CHECK(cs_audit_key_make(CS_SLICE_LIT("a\xc2\xa0"), public, &key) != CS_OK);
    CS_CHECK(cs_audit_key_make(CS_SLICE_LIT("a\xff"), public, &key) != CS_OK);
}

/* ---- checkpoints of our own ---- */

static uint8_t private[32] = {9};
static struct cs_audit_key ours;

static void make_key(const char *name)
{
    uint8_t public[32];
    CS_CHECK(cs_ed25519_public(private, public) == CS_OK);
    CS_CHECK(cs_audit_key_make(cs_slice_str(name), public, &ours) == CS_OK);
}

static struct cs_buf signed_text(const char *text)
{
    struct cs_buf b = cs_buf(CS_AUDIT_NOTE_MAX);
    CS_CHECK(cs_audit_note_sign(cs_slice_str(text), &ours, private, &b) == CS_OK);
    return b;
}

CS_TEST(a_checkpoint_comes_back_as_it_was_signed)
{
    struct cs_audit_checkpoint c = {CS_SLICE_LIT("prod/gw1"), 1234567, {{5}}}, is;
    struct cs_buf text = cs_buf(256), note = cs_buf(CS_AUDIT_NOTE_MAX);
    make_key("prod/gw1");
    cs_audit_checkpoint_write(&c, &text);
    CS_EQ_STR(cs_buf_slice(&text),
              "prod/gw1\n1234567\nBQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n");
    CS_CHECK(cs_audit_note_sign(cs_buf_slice(&text), &ours, private, &note) == CS_OK);
    CS_CHECK(cs_audit_checkpoint_open(cs_buf_slice(&note), &ours, &is));
    CS_CHECK(is.size == c.size && cs_audit_hash_eq(&is.root, &c.root));
    cs_buf_str(&note, DASH "witness.example/w1 AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\n");
    CS_CHECK(cs_audit_checkpoint_open(cs_buf_slice(&note), &ours, &is));
    cs_buf_done(&text);
    cs_buf_done(&note);
}

CS_TEST(signed_text_that_is_not_exactly_a_checkpoint_of_this_log_is_refused)
{
#define ROOT "BQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
    static const char *const bad[] = {"prod/gw2\n1\n" ROOT "\n",
                                      "prod/gw1\n01\n" ROOT "\n",
                                      "prod/gw1\n+1\n" ROOT "\n",
                                      "prod/gw1\n-1\n" ROOT "\n",
                                      "prod/gw1\n\n" ROOT "\n",
                                      "prod/gw1\n4611686018427387904\n" ROOT "\n",
                                      "prod/gw1\n18446744073709551617\n" ROOT "\n",
                                      "prod/gw1\n1\n" ROOT "A\n",
                                      "prod/gw1\n1\nBQ==\n",
                                      "prod/gw1\n1\n" ROOT "\nmore\n",
                                      "prod/gw1\n1\n",
                                      "\n1\n" ROOT "\n",
                                      "prod/gw1 \n1\n" ROOT "\n"};
    struct cs_audit_checkpoint c;
    make_key("prod/gw1");
    struct cs_buf good = signed_text("prod/gw1\n1\n" ROOT "\n");
    CS_CHECK(cs_audit_checkpoint_open(cs_buf_slice(&good), &ours, &c));
    cs_buf_done(&good);
    for (size_t i = 0; i < CS_ARRAY_LEN(bad); i++) {
        struct cs_buf note = signed_text(bad[i]);
        CS_CHECK(!cs_audit_checkpoint_open(cs_buf_slice(&note), &ours, &c));
        cs_buf_done(&note);
    }
}

CS_TEST(a_note_needs_exactly_one_good_signature_of_the_key_and_no_bad_one)
{
    struct cs_slice text;
    make_key("prod/gw1");
    struct cs_buf a = signed_text("one\n"), b = signed_text("two\n");
    CS_CHECK(cs_audit_note_open(cs_buf_slice(&a), &ours, &text));
    /* the signature of another text, behind the good one */
    cs_buf_add(&a, cs_slice_from(cs_buf_slice(&b), sizeof "two\n\n" - 1));
    CS_CHECK(!cs_audit_note_open(cs_buf_slice(&a), &ours, &text));
    b.len = sizeof "two\n\n" - 1;
    CS_CHECK(!cs_audit_note_open(cs_buf_slice(&b), &ours, &text));
    cs_buf_done(&a);
    cs_buf_done(&b);
    a = signed_text("one\n");
    cs_buf_str(&a, "no dash\n");
    CS_CHECK(!cs_audit_note_open(cs_buf_slice(&a), &ours, &text));
    cs_buf_done(&a);
    a = signed_text("a\tb\n"); /* control bytes */
    CS_CHECK(!cs_audit_note_open(cs_buf_slice(&a), &ours, &text));
    cs_buf_done(&a);
    private[0] = 10; /* another key of the same name */
    a = signed_text("one\n");
    make_key("prod/gw1");
    CS_CHECK(!cs_audit_note_open(cs_buf_slice(&a), &ours, &text));
    cs_buf_done(&a);
}
