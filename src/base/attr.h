/* Compiler attributes under names of our own, and small helpers with no better place. */
#ifndef CS_BASE_ATTR_H
#define CS_BASE_ATTR_H

#define CS_MUST_CHECK   __attribute__((warn_unused_result))
#define CS_PRINTF(f, a) __attribute__((format(printf, f, a)))
#define CS_CLEANUP(fn)  __attribute__((cleanup(fn)))
#define CS_UNUSED       __attribute__((unused))
#define CS_COUNTED_BY(n)
/* Room that is written before it is read, on the way of every action: not zeroed. */
#define CS_UNINIT __attribute__((uninitialized))

#define CS_ARRAY_LEN(a)                 (sizeof(a) / sizeof((a)[0]))
#define CS_MIN(a, b)                    ((a) < (b) ? (a) : (b))
#define CS_MAX(a, b)                    ((a) > (b) ? (a) : (b))
#define CS_CONTAINER(ptr, type, member) ((type *)(void *)((char *)(ptr)-offsetof(type, member)))

#endif
