/* The unit-test harness: one process per test, TAP on standard output.
 *
 *   CS_TEST(reader_rejects_length_past_end) { …; CS_CHECK(x); CS_EQ_U64(a, b); }
 *   CS_TEST_MAIN()
 *
 * A failed check prints where and ends that test's process; the others go on. CS_OOM_LOOP runs a
 * block with the N-th allocation failing, for N = 0, 1, 2 … until it needs no more. Arguments of
 * the program name the tests to run (substring); --list lists them. */
#ifndef CS_TAP_H
#define CS_TAP_H

#include "base/alloc.h"
#include "base/attr.h"
#include "base/slice.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

struct cs_test {
    const char *name;
    void (*fn)(void);
    struct cs_test *next;
};

extern struct cs_test *cs_tests_first, **cs_tests_last;
void cs_test_add(struct cs_test *t);

#define CS_TEST(id)                                                                                \
    static void test_##id(void);                                                                   \
    static struct cs_test entry_##id = {#id, test_##id, NULL};                                     \
    __attribute__((constructor)) static void add_##id(void)                                        \
    {                                                                                              \
        cs_test_add(&entry_##id);                                                                  \
    }                                                                                              \
    static void test_##id(void)

#define CS_FAIL(...)                                                                               \
    do {                                                                                           \
        printf("# %s:%d: ", __FILE__, __LINE__);                                                   \
        printf(__VA_ARGS__);                                                                       \
        printf("\n");                                                                              \
        fflush(stdout);                                                                            \
        _exit(1);                                                                                  \
    } while (0)

#define CS_CHECK(e)                                                                                \
    do {                                                                                           \
        if (!(e)) {                                                                                \
            CS_FAIL("not true: %s", #e);                                                           \
        }                                                                                          \
    } while (0)

#define CS_EQ_U64(a, b)                                                                            \
    do {                                                                                           \
        uint64_t a_ = (uint64_t)(a), b_ = (uint64_t)(b);                                           \
        if (a_ != b_) {                                                                            \
            CS_FAIL("%s is %" PRIu64 ", not %" PRIu64, #a, a_, b_);                                \
        }                                                                                          \
    } while (0)

#define CS_EQ_SLICE(a, b)                                                                          \
    do {                                                                                           \
        struct cs_slice a_ = (a), b_ = (b);                                                        \
        if (!cs_slice_eq(a_, b_)) {                                                                \
            CS_FAIL("%s is \"%.*s\", not \"%.*s\"", #a, CS_SLICE_FMT(a_), CS_SLICE_FMT(b_));       \
        }                                                                                          \
    } while (0)

#define CS_EQ_STR(a, literal) CS_EQ_SLICE(a, cs_slice_str(literal))

/* The block must leave `done` true when it succeeded, and survive every allocation failure. */
#define CS_OOM_LOOP(done)                                                                          \
    for (long n_ = 0; !(done) && n_ < 100000; n_++)                                                \
        for (int once_ = (cs_alloc_fail_after(n_), 1); once_; once_ = 0, cs_alloc_fail_after(-1))

#define CS_TEST_MAIN()                                                                             \
    struct cs_test *cs_tests_first, **cs_tests_last;                                               \
    void cs_test_add(struct cs_test *t)                                                            \
    {                                                                                              \
        if (cs_tests_last == NULL) {                                                               \
            cs_tests_last = &cs_tests_first;                                                       \
        }                                                                                          \
        *cs_tests_last = t;                                                                        \
        cs_tests_last = &t->next;                                                                  \
    }                                                                                              \
    int main(int argc, char **argv)                                                                \
    {                                                                                              \
        return cs_tests_run(argc, argv);                                                           \
    }

static inline bool cs_test_wanted(const struct cs_test *t, int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        if (strstr(t->name, argv[i]) != NULL) {
            return true;
        }
    }
    return argc < 2;
}

static inline int cs_test_run(const struct cs_test *t)
{
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        alarm(120);
        t->fn();
        fflush(NULL);
        exit(0);
    }
    int status = 0;
    (void)waitpid(pid, &status, 0);
    if (WIFSIGNALED(status)) {
        printf("# ended by signal %d\n", WTERMSIG(status));
    }
    return status;
}

static inline int cs_tests_run(int argc, char **argv)
{
    int n = 0, bad = 0;
    if (argc == 2 && strcmp(argv[1], "--list") == 0) {
        for (struct cs_test *t = cs_tests_first; t != NULL; t = t->next) {
            printf("%s\n", t->name);
        }
        return 0;
    }
    for (struct cs_test *t = cs_tests_first; t != NULL; t = t->next) {
        n += cs_test_wanted(t, argc, argv);
    }
    printf("1..%d\n", n);
    n = 0;
    for (struct cs_test *t = cs_tests_first; t != NULL; t = t->next) {
        if (cs_test_wanted(t, argc, argv)) {
            int status = cs_test_run(t);
            bad += status != 0;
            printf("%s %d - %s\n", status == 0 ? "ok" : "not ok", ++n, t->name);
        }
    }
    return bad > 0;
}

#endif
