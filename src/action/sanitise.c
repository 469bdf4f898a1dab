/* Text made safe to show: the one place where untrusted text becomes something a terminal, a page
 * or a chat message may draw. Called by whoever shows text (cards, wait lines, commands), never
 * before a hash: what is signed are the exact bytes.
 *
 * Rules. A byte that is ASCII control or no UTF-8 is shown as \xHH; a code point of the table below
 * as \u{h…}. A backslash is doubled only if the next shown byte is a backslash, 'x' or 'u': then
 * every shown text has exactly one source, and '\d+' stays as it is. */
#include "action/action.h"

#include "base/attr.h"

struct range {
    uint32_t from, to;
};

/* Control and format characters, separators, blanks that are not the blank, default-ignorable ones
 * (zero-width, variation selectors, fillers, tags), private use, noncharacters, and the planes in
 * which nothing to read is assigned. From the Unicode database 14; sorted. SECURITY: bidirectional
 * overrides reorder what the approver reads; zero-width and tag characters hide text from the eye
 * but not from the target or a model. */
/* clang-format off */
static const struct range hidden[] = {
    {0x0080, 0x00a0}, {0x00ad, 0x00ad}, {0x034f, 0x034f}, {0x0600, 0x0605}, {0x061c, 0x061c},
    {0x06dd, 0x06dd}, {0x070f, 0x070f}, {0x0890, 0x0891}, {0x08e2, 0x08e2}, {0x115f, 0x1160},
    {0x1680, 0x1680}, {0x17b4, 0x17b5}, {0x180b, 0x180f}, {0x2000, 0x200f}, {0x2028, 0x202f},
    {0x205f, 0x206f}, {0x2800, 0x2800}, {0x3000, 0x3000}, {0x3164, 0x3164}, {0xe000, 0xf8ff},
    {0xfdd0, 0xfdef}, {0xfe00, 0xfe0f}, {0xfeff, 0xfeff}, {0xffa0, 0xffa0}, {0xfff0, 0xfffb},
    {0xfffe, 0xffff}, {0x110bd, 0x110bd}, {0x110cd, 0x110cd}, {0x13430, 0x1343f},
    {0x1bca0, 0x1bca3}, {0x1d173, 0x1d17a}, {0x1fffe, 0x1ffff}, {0x2fffe, 0x2ffff},
    {0x3fffe, 0x10ffff},
};
/* clang-format on */

static bool is_hidden(uint32_t c)
{
    size_t low = 0, high = CS_ARRAY_LEN(hidden);
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (c > hidden[mid].to) {
            low = mid + 1;
        } else if (c < hidden[mid].from) {
            high = mid;
        } else {
            return true;
        }
    }
    return false;
}

enum { ESCAPE_MAX = 10 }; /* \u{10ffff} */

static size_t escape_byte(uint8_t b, uint8_t out[static ESCAPE_MAX])
{
    static const char digits[17] = "0123456789abcdef";
    out[0] = '\\';
    out[1] = 'x';
    out[2] = (uint8_t)digits[b >> 4];
    out[3] = (uint8_t)digits[b & 15];
    return 4;
}

static size_t escape_point(uint32_t c, uint8_t out[static ESCAPE_MAX])
{
    static const char digits[17] = "0123456789abcdef";
    size_t n = 3;
    unsigned shift = 20;
    memcpy(out, "\\u{", 3);
    while (shift > 0 && c >> shift == 0) {
        shift -= 4;
    }
    for (;; shift -= 4) {
        out[n++] = (uint8_t)digits[c >> shift & 15];
        if (shift == 0) {
            break;
        }
    }
    out[n++] = '}';
    return n;
}

/* What is shown for the character at *at (a backslash as itself); advances *at. */
static size_t shown(struct cs_slice text, bool multiline, size_t *at,
                    uint8_t out[static ESCAPE_MAX])
{
    size_t start = *at;
    uint32_t c;
    if (!cs_utf8_next(text, at, &c)) {
        *at = start + 1;
        return escape_byte(text.p[start], out);
    }
    if (c < 0x20 || c == 0x7f) {
        if (multiline && (c == '\n' || c == '\t')) {
            out[0] = (uint8_t)c;
            return 1;
        }
        return escape_byte((uint8_t)c, out);
    }
    if (is_hidden(c)) {
        return escape_point(c, out);
    }
    memcpy(out, text.p + start, *at - start);
    return *at - start;
}

/* Writes into out when it is not NULL; gives the length either way. */
static size_t sanitise(struct cs_slice text, bool multiline, uint8_t *out)
{
    size_t n = 0, at = 0;
    bool slash = false; /* the last thing shown is a single backslash of the text itself */
    while (at < text.n) {
        uint8_t piece[ESCAPE_MAX];
        bool is_slash = text.p[at] == '\\';
        size_t len = shown(text, multiline, &at, piece);
        if (slash && (piece[0] == '\\' || piece[0] == 'x' || piece[0] == 'u')) {
            if (out != NULL) {
                out[n] = '\\';
            }
            n++;
        }
        if (out != NULL) {
            memcpy(out + n, piece, len);
        }
        n += len;
        slash = is_slash;
    }
    return n;
}

struct cs_slice cs_sanitise(struct cs_slice text, bool multiline, struct cs_arena *a)
{
    if (text.n > SIZE_MAX / ESCAPE_MAX) {
        return CS_SLICE_NULL;
    }
    size_t n = sanitise(text, multiline, NULL);
    uint8_t *out = cs_arena_alloc(a, n);
    if (out == NULL) {
        return CS_SLICE_NULL;
    }
    (void)sanitise(text, multiline, out);
    return cs_slice(out, n);
}
