#include "tap.h"
#include "wire/snapshot.h"

static struct cs_snapshot sample(void)
{
    return (struct cs_snapshot){
        .version = 0x1122334455667788ULL,
        .url = CS_SLICE_LIT("https://gate.example.com:7443"),
        .store = CS_SLICE_LIT("/var/lib/countersign/state.db"),
        .recordings = CS_SLICE_LIT("/var/lib/countersign/recordings"),
        .master_key = {.source = CS_KEY_FILE,
                       .what = CS_SLICE_LIT("/var/lib/countersign/master.key")},
        .previous_master_key = {.source = CS_KEY_COMMAND,
                                .what = CS_SLICE_LIT("/bin/key\0-x\0"),
                                .timeout_s = 7},
        .system_roots = CS_SLICE_LIT("roots"),
        .policy = CS_SLICE_LIT("policy\0bytes"),
        .credentials = CS_SLICE_LIT("who has what"),
        .listeners = {{.name = CS_SLICE_LIT("control"),
                       .kind = CS_SLICE_LIT("control"),
                       .address = CS_SLICE_LIT("0.0.0.0:7443"),
                       .tls = 1,
                       .cert_pem = CS_SLICE_LIT("cert"),
                       .key_pem = CS_SLICE_LIT("key")},
                      {.name = CS_SLICE_LIT("local"),
                       .kind = CS_SLICE_LIT("local"),
                       .address = CS_SLICE_LIT("/run/x.sock")}},
        .n_listeners = 2,
        .file_sha256 = CS_SLICE_LIT("0123456789abcdef0123456789abcdef"),
    };
}

CS_TEST(snapshot_survives_the_trip)
{
    struct cs_snapshot a = sample(), b = {0};
    struct cs_buf out = cs_buf(CS_SNAPSHOT_MAX);
    cs_snapshot_write(&out, &a);
    CS_CHECK(!out.bad);
    CS_CHECK(cs_snapshot_read(cs_buf_slice(&out), &b));
    CS_EQ_U64(b.version, a.version);
    CS_EQ_SLICE(b.url, a.url);
    CS_EQ_SLICE(b.store, a.store);
    CS_EQ_SLICE(b.recordings, a.recordings);
    CS_EQ_U64(b.master_key.source, CS_KEY_FILE);
    CS_EQ_SLICE(b.master_key.what, a.master_key.what);
    CS_EQ_U64(b.previous_master_key.source, CS_KEY_COMMAND);
    CS_EQ_SLICE(b.previous_master_key.what, a.previous_master_key.what);
    CS_EQ_U64(b.previous_master_key.timeout_s, 7);
    CS_EQ_SLICE(b.credentials, a.credentials);
    CS_EQ_SLICE(b.system_roots, a.system_roots);
    CS_EQ_SLICE(b.policy, a.policy);
    CS_EQ_SLICE(b.file_sha256, a.file_sha256);
    CS_EQ_U64(b.n_listeners, 2);
    for (size_t i = 0; i < 2; i++) {
        CS_EQ_SLICE(b.listeners[i].name, a.listeners[i].name);
        CS_EQ_SLICE(b.listeners[i].kind, a.listeners[i].kind);
        CS_EQ_SLICE(b.listeners[i].address, a.listeners[i].address);
        CS_EQ_U64(b.listeners[i].tls, a.listeners[i].tls);
        CS_EQ_SLICE(b.listeners[i].cert_pem, a.listeners[i].cert_pem);
        CS_EQ_SLICE(b.listeners[i].key_pem, a.listeners[i].key_pem);
    }
    cs_buf_done(&out);
}

CS_TEST(snapshot_refuses_every_cut_and_every_tail)
{
    struct cs_snapshot a = sample(), b = {.version = 99};
    struct cs_buf out = cs_buf(CS_SNAPSHOT_MAX);
    cs_snapshot_write(&out, &a);
    for (size_t n = 0; n < out.len; n++) {
        CS_CHECK(!cs_snapshot_read(cs_slice_head(cs_buf_slice(&out), n), &b));
    }
    CS_EQ_U64(b.version, 99);
    cs_buf_u8(&out, 0);
    CS_CHECK(!cs_snapshot_read(cs_buf_slice(&out), &b));
    cs_buf_done(&out);
}

CS_TEST(snapshot_refuses_another_layout)
{
    struct cs_snapshot a = sample(), b;
    struct cs_buf out = cs_buf(CS_SNAPSHOT_MAX);
    cs_snapshot_write(&out, &a);
    out.p[7] = 1;
    CS_CHECK(!cs_snapshot_read(cs_buf_slice(&out), &b));
    out.p[7] = 3;
    out.p[0] = 'X';
    CS_CHECK(!cs_snapshot_read(cs_buf_slice(&out), &b));
    cs_buf_done(&out);
}

CS_TEST(snapshot_refuses_impossible_values)
{
    struct cs_snapshot a = sample(), b;
    struct cs_buf out = cs_buf(CS_SNAPSHOT_MAX);
    a.listeners[1].tls = 2;
    cs_snapshot_write(&out, &a);
    CS_CHECK(!out.bad);
    CS_CHECK(!cs_snapshot_read(cs_buf_slice(&out), &b));
    cs_buf_done(&out);

    /* Client certificates of an unknown form, without authorities, without TLS. */
    for (unsigned i = 0; i < 3; i++) {
        a = sample();
        a.listeners[1].tls = i == 2 ? 0 : 1;
        a.listeners[1].client_form = i == 0 ? CS_SNAPSHOT_FORMS : 1;
        a.listeners[1].client_authorities = i == 1 ? CS_SLICE_NULL : CS_SLICE_LIT("pem");
        out = cs_buf(CS_SNAPSHOT_MAX);
        cs_snapshot_write(&out, &a);
        CS_CHECK(!out.bad && !cs_snapshot_read(cs_buf_slice(&out), &b));
        cs_buf_done(&out);
    }

    a = sample();
    a.n_listeners = CS_SNAPSHOT_LISTENERS + 1;
    out = cs_buf(CS_SNAPSHOT_MAX);
    cs_snapshot_write(&out, &a);
    CS_CHECK(out.bad);
    cs_buf_done(&out);
}

CS_TEST(snapshot_survives_lack_of_memory)
{
    bool done = false;
    CS_OOM_LOOP(done)
    {
        struct cs_snapshot a = sample();
        struct cs_buf out = cs_buf(CS_SNAPSHOT_MAX);
        cs_snapshot_write(&out, &a);
        done = !out.bad;
        cs_buf_done(&out);
    }
    CS_CHECK(done);
}

CS_TEST(snapshot_refuses_a_hash_of_another_length)
{
    struct cs_snapshot a = sample(), b;
    struct cs_buf out = cs_buf(CS_SNAPSHOT_MAX);
    a.file_sha256.n--;
    cs_snapshot_write(&out, &a);
    CS_CHECK(!cs_snapshot_read(cs_buf_slice(&out), &b));
    cs_buf_done(&out);
}
