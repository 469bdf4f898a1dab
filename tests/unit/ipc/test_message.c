#include "ipc/channel_internal.h"
#include "tap.h"

#include <fcntl.h>
#include <sys/mman.h>

union any_msg {
    uint8_t raw[CS_MSG_STRUCT_MAX];
    uint64_t align;
};

/* A struct of this type with something different in every field. */
static void fill(const struct cs_msg_row *row, union any_msg *m)
{
    static const uint8_t text[] = "the quick brown fox";
    size_t n;
    const struct cs_field *f = row->fields(&n);
    memset(m, 0, sizeof *m);
    for (size_t i = 0; i < n; i++) {
        uint64_t u = 0x0102030405060708u * (i + 1);
        struct cs_id id = cs_id_new();
        struct cs_slice s = cs_slice(text, i);
        switch (f[i].kind) {
        case CS_FIELD_KIND_U64:
            memcpy(m->raw + f[i].offset, &u, sizeof u);
            break;
        case CS_FIELD_KIND_ID:
            memcpy(m->raw + f[i].offset, &id, sizeof id);
            break;
        case CS_FIELD_KIND_SLICE:
            memcpy(m->raw + f[i].offset, &s, sizeof s);
            break;
        }
    }
}

static void check_equal(const struct cs_msg_row *row, const union any_msg *a,
                        const union any_msg *b)
{
    size_t n;
    const struct cs_field *f = row->fields(&n);
    for (size_t i = 0; i < n; i++) {
        const uint8_t *x = a->raw + f[i].offset, *y = b->raw + f[i].offset;
        struct cs_slice sx, sy;
        switch (f[i].kind) {
        case CS_FIELD_KIND_U64:
            CS_CHECK(memcmp(x, y, 8) == 0);
            break;
        case CS_FIELD_KIND_ID:
            CS_CHECK(memcmp(x, y, CS_ID_BYTES) == 0);
            break;
        case CS_FIELD_KIND_SLICE:
            memcpy(&sx, x, sizeof sx);
            memcpy(&sy, y, sizeof sy);
            CS_EQ_SLICE(sx, sy);
            break;
        }
    }
}

/* A copy of exactly this size on the heap, so that a read beyond it is seen by the sanitizer. */
static bool decodes(struct cs_slice s, enum cs_msg_type *type, uint32_t *corr, union any_msg *ret)
{
    static uint8_t *keep[4];
    static unsigned at;
    cs_free(keep[at % 4]);
    uint8_t *p = keep[at++ % 4] = cs_alloc(s.n);
    memcpy(p, s.p, s.n);
    return cs_msg_decode(cs_slice(p, s.n), type, corr, ret->raw, sizeof ret->raw);
}

CS_TEST(every_message_comes_back_as_it_was)
{
    static uint8_t out[CS_LIMIT_IPC_BYTES];
    for (unsigned t = CS_MSG_NONE + 1; t < CS_MSG_MAX; t++) {
        const struct cs_msg_row *row = cs_msg_row(t);
        CS_CHECK(row != NULL && row->name != NULL && strlen(cs_msg_name(t)) > 0);
        CS_CHECK(row->phase != CS_PHASE_NEVER && row->max_bytes >= CS_MSG_HEADER);
        union any_msg a, b;
        fill(row, &a);
        size_t n = cs_msg_encode(t, 77, a.raw, out, sizeof out);
        CS_CHECK(n >= CS_MSG_HEADER && n <= row->max_bytes);
        enum cs_msg_type type;
        uint32_t corr;
        CS_CHECK(decodes(cs_slice(out, n), &type, &corr, &b));
        CS_CHECK((unsigned)type == t && corr == 77);
        check_equal(row, &a, &b);
    }
}

CS_TEST(every_message_is_refused_cut_short_or_with_more_behind)
{
    static uint8_t out[CS_LIMIT_IPC_BYTES + 1];
    for (unsigned t = CS_MSG_NONE + 1; t < CS_MSG_MAX; t++) {
        union any_msg a, b;
        enum cs_msg_type type = CS_MSG_NONE;
        uint32_t corr = 0;
        fill(cs_msg_row(t), &a);
        size_t n = cs_msg_encode(t, 1, a.raw, out, CS_LIMIT_IPC_BYTES);
        for (size_t cut = 0; cut < n; cut++) {
            CS_CHECK(!decodes(cs_slice(out, cut), &type, &corr, &b));
        }
        out[n] = 0;
        CS_CHECK(!decodes(cs_slice(out, n + 1), &type, &corr, &b));
        CS_CHECK(type == CS_MSG_NONE && corr == 0); /* outputs only on success */
    }
}

CS_TEST(encoding_into_too_little_room_gives_nothing)
{
    uint8_t out[256];
    for (unsigned t = CS_MSG_NONE + 1; t < CS_MSG_MAX; t++) {
        union any_msg a;
        fill(cs_msg_row(t), &a);
        size_t n = cs_msg_encode(t, 1, a.raw, out, sizeof out);
        CS_CHECK(n > 0);
        CS_EQ_U64(cs_msg_encode(t, 1, a.raw, out, n - 1), 0);
        CS_EQ_U64(cs_msg_encode(t, 1, a.raw, out, 0), 0);
    }
    CS_EQ_U64(cs_msg_encode(CS_MSG_NONE, 1, out, out, sizeof out), 0);
    CS_EQ_U64(cs_msg_encode(CS_MSG_MAX, 1, out, out, sizeof out), 0);
}

CS_TEST(message_beyond_its_own_limit_is_neither_made_nor_taken)
{
    static uint8_t big[4096], out[8192];
    struct cs_msg_session_closed m = {.why = cs_slice(big, 1024)};
    CS_EQ_U64(cs_msg_encode(CS_MSG_SESSION_CLOSED, 0, &m, out, sizeof out), 0);
    size_t fits = 1024 - CS_MSG_HEADER - CS_ID_BYTES - 4;
    m.why = cs_slice(big, fits);
    CS_EQ_U64(cs_msg_encode(CS_MSG_SESSION_CLOSED, 0, &m, out, sizeof out), 1024);
    union any_msg got;
    enum cs_msg_type type;
    uint32_t corr;
    CS_CHECK(decodes(cs_slice(out, 1024), &type, &corr, &got));
    /* one byte more, with a length that says so */
    out[CS_MSG_HEADER + CS_ID_BYTES] = (uint8_t)((fits + 1) & 255);
    out[CS_MSG_HEADER + CS_ID_BYTES + 1] = (uint8_t)((fits + 1) >> 8);
    CS_CHECK(!decodes(cs_slice(out, 1025), &type, &corr, &got));
}

CS_TEST(header_with_unknown_type_or_flags_is_refused)
{
    uint8_t out[64];
    struct cs_msg_ready m = {0};
    size_t n = cs_msg_encode(CS_MSG_READY, 5, &m, out, sizeof out);
    union any_msg got;
    enum cs_msg_type type;
    uint32_t corr;
    bool answer;
    CS_CHECK(cs_msg_decode_flags(cs_slice(out, n), &type, &corr, &answer, got.raw, sizeof got));
    CS_CHECK(!answer && corr == 5);
    cs_msg_set_answer(out);
    CS_CHECK(cs_msg_decode_flags(cs_slice(out, n), &type, &corr, &answer, got.raw, sizeof got));
    CS_CHECK(answer);
    out[4] = 0; /* an answer to nothing */
    CS_CHECK(!decodes(cs_slice(out, n), &type, &corr, &got));
    out[4] = 5;
    for (unsigned flag = 2; flag < 65536; flag <<= 1) {
        out[2] = (uint8_t)(flag & 255);
        out[3] = (uint8_t)(flag >> 8);
        CS_CHECK(!decodes(cs_slice(out, n), &type, &corr, &got));
    }
    out[2] = out[3] = 0;
    static const unsigned types[] = {CS_MSG_NONE, CS_MSG_MAX, 255, 65535};
    for (size_t i = 0; i < CS_ARRAY_LEN(types); i++) {
        out[0] = (uint8_t)(types[i] & 255);
        out[1] = (uint8_t)(types[i] >> 8);
        CS_CHECK(!decodes(cs_slice(out, n), &type, &corr, &got));
    }
}

CS_TEST(decoding_into_a_smaller_struct_is_refused)
{
    uint8_t out[256];
    struct cs_msg_held m = {0};
    struct cs_msg_ready small;
    enum cs_msg_type type;
    uint32_t corr;
    size_t n = cs_msg_encode(CS_MSG_HELD, 1, &m, out, sizeof out);
    CS_CHECK(n > 0);
    CS_CHECK(!cs_msg_decode(cs_slice(out, n), &type, &corr, &small, sizeof small));
}

CS_TEST(table_lets_pass_only_its_own_sides_and_phase)
{
    const struct cs_msg_row *hold = cs_msg_row(CS_MSG_HOLD);
    CS_CHECK(cs_msg_may_pass(hold, CS_ROLE_GATE, CS_ROLE_CONTROL, true));
    CS_CHECK(!cs_msg_may_pass(hold, CS_ROLE_GATE, CS_ROLE_CONTROL, false));
    CS_CHECK(!cs_msg_may_pass(hold, CS_ROLE_CONTROL, CS_ROLE_GATE, true));
    CS_CHECK(!cs_msg_may_pass(hold, CS_ROLE_FRONT, CS_ROLE_CONTROL, true));
    CS_CHECK(!cs_msg_may_pass(hold, CS_ROLE_GATE, CS_ROLE_SUPERVISOR, true));
    const struct cs_msg_row *boot = cs_msg_row(CS_MSG_BOOT);
    for (enum cs_role r = CS_ROLE_SUPERVISOR; r < CS_ROLE_MAX; r++) {
        CS_CHECK(cs_msg_may_pass(boot, CS_ROLE_SUPERVISOR, r, false));
        CS_CHECK(!cs_msg_may_pass(boot, CS_ROLE_SUPERVISOR, r, true));
        CS_CHECK(r == CS_ROLE_SUPERVISOR || !cs_msg_may_pass(boot, r, CS_ROLE_GATE, false));
    }
    const struct cs_msg_row *peer = cs_msg_row(CS_MSG_PEER);
    CS_CHECK(cs_msg_may_pass(peer, CS_ROLE_SUPERVISOR, CS_ROLE_GATE, false));
    CS_CHECK(cs_msg_may_pass(peer, CS_ROLE_SUPERVISOR, CS_ROLE_GATE, true));
    CS_CHECK(cs_msg_row(CS_MSG_NONE) == NULL && cs_msg_row(CS_MSG_MAX) == NULL);
}

CS_TEST(roles_have_names)
{
    for (enum cs_role r = 0; r < CS_ROLE_MAX; r++) {
        CS_CHECK(strcmp(cs_role_name(r), "none") != 0);
    }
    CS_EQ_STR(cs_slice_str(cs_role_name(CS_ROLE_GATE)), "gate");
    CS_EQ_STR(cs_slice_str(cs_role_name(CS_ROLE_MAX)), "none");
    CS_EQ_STR(cs_slice_str(cs_msg_name(CS_MSG_MAX)), "none");
}

/* ---- sealed memory ---- */

CS_TEST(sealed_memory_comes_back_and_cannot_be_changed)
{
    int fd;
    struct cs_slice s;
    CS_CHECK(cs_sealed_make("test", CS_SLICE_LIT("hello"), &fd) == CS_OK);
    CS_CHECK(cs_sealed_map(fd, 5, &s) == CS_OK);
    CS_EQ_STR(s, "hello");
    CS_CHECK(pwrite(fd, "x", 1, 0) < 0 && ftruncate(fd, 1) != 0 && ftruncate(fd, 9) != 0);
    CS_CHECK(mmap(NULL, 5, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) == MAP_FAILED);
    cs_sealed_unmap(s);
    CS_CHECK(cs_sealed_map(fd, 4, &s) == CS_ERR_TOO_LARGE);
    (void)close(fd);
    CS_CHECK(cs_sealed_make("empty", CS_SLICE_LIT(""), &fd) == CS_OK);
    CS_CHECK(cs_sealed_map(fd, 5, &s) == CS_OK && s.n == 0);
    cs_sealed_unmap(s);
    (void)close(fd);
}

CS_TEST(memory_without_every_seal_is_refused)
{
    struct cs_slice s;
    static const int some[] = {0, F_SEAL_WRITE, F_SEAL_GROW | F_SEAL_SHRINK,
                               F_SEAL_WRITE | F_SEAL_GROW, F_SEAL_WRITE | F_SEAL_SHRINK};
    for (size_t i = 0; i < CS_ARRAY_LEN(some); i++) {
        int fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);
        CS_CHECK(fd >= 0 && write(fd, "hello", 5) == 5);
        CS_CHECK(some[i] == 0 || fcntl(fd, F_ADD_SEALS, some[i]) == 0);
        CS_CHECK(cs_sealed_map(fd, 100, &s) == CS_ERR_PROTOCOL);
        (void)close(fd);
    }
    int fd = open("/dev/zero", O_RDONLY | O_CLOEXEC);
    CS_CHECK(cs_sealed_map(fd, 100, &s) == CS_ERR_PROTOCOL);
    (void)close(fd);
    fd = open(CS_SOURCE_DIR "/meson.build", O_RDONLY | O_CLOEXEC);
    CS_CHECK(cs_sealed_map(fd, 1 << 20, &s) == CS_ERR_PROTOCOL);
    (void)close(fd);
    CS_CHECK(cs_sealed_map(-1, 100, &s) == CS_ERR_PROTOCOL);
}
