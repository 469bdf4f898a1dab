/* Fuzzes the action and chain decoders and the sanitiser. Properties: what decodes encodes to the
 * same bytes, within the promised size; sanitised text is valid UTF-8 without control characters.
 */
#include "action/action.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool ok)
{
    if (!ok) {
        abort();
    }
}

static void action(struct cs_slice in, struct cs_arena *arena)
{
    struct cs_reader r = cs_reader(in);
    struct cs_action a;
    if (!cs_action_decode(&r, arena, &a)) {
        return;
    }
    size_t used = in.n - cs_reader_left(&r), room = cs_action_encoded_size(&a);
    uint8_t *again = malloc(room), hash[CS_DIGEST];
    check(again != NULL && used <= room);
    struct cs_writer w = cs_writer(again, room);
    cs_action_encode(&w, &a);
    check(cs_slice_eq(cs_writer_done(&w), cs_slice_head(in, used)));
    struct cs_chain nobody = {.n = 0};
    cs_action_match(&a, &nobody, in, hash);
    free(again);
}

static void chain(struct cs_slice in, struct cs_arena *arena)
{
    struct cs_reader r = cs_reader(in);
    struct cs_chain c;
    if (!cs_chain_decode(&r, arena, &c)) {
        return;
    }
    size_t used = in.n - cs_reader_left(&r);
    uint8_t *again = malloc(used);
    check(again != NULL);
    struct cs_writer w = cs_writer(again, used);
    cs_chain_encode(&w, &c);
    check(cs_slice_eq(cs_writer_done(&w), cs_slice_head(in, used)));
    (void)cs_chain_text(&c, arena);
    free(again);
}

static void sanitise(struct cs_slice in, struct cs_arena *arena)
{
    struct cs_slice out = cs_sanitise(in, false, arena);
    if (out.p == NULL) {
        return;
    }
    check(cs_utf8_valid(out) && out.n >= in.n);
    for (size_t i = 0; i < out.n; i++) {
        check(out.p[i] >= 0x20 && out.p[i] != 0x7f);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct cs_arena arena;
    if (size == 0) {
        return 0;
    }
    cs_arena_init(&arena, 4096, 4 << 20);
    struct cs_slice in = cs_slice(data + 1, size - 1);
    switch (data[0] % 3) {
    case 0:
        action(in, &arena);
        break;
    case 1:
        chain(in, &arena);
        break;
    default:
        sanitise(in, &arena);
        break;
    }
    cs_arena_done(&arena);
    return 0;
}
