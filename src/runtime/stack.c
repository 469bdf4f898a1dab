/* Stacks of coroutines and the switch between them. Used by co.c alone.
 *
 * The switch keeps what the x86-64 System V ABI calls callee-saved (rbx, rbp, r12-r15, rsp). The
 * x87 control word and MXCSR are callee-saved too, but nobody here changes them, so they are left
 * out. Shadow stacks (CET) are off in user space on the systems that this is built for; with them
 * on, a switch like this one would fault, not go wrong. */
#include "base/assert.h"
#include "runtime/loop_internal.h"

#include <sys/mman.h>
#include <unistd.h>

#if CS_ASAN
#include <sanitizer/asan_interface.h>
#endif

#if !defined(__x86_64__)
#error "coroutines: only x86-64 has a switch so far; write one for this architecture in stack.c"
#endif

enum {
    PAGE = 4096,
    FREE_WARM = 64,  /* free stacks that keep their touched pages up to the watermark */
    FREE_MAX = 1024, /* free stacks kept at all */
    WATERMARK = 16 * 1024,
};

struct free_stack {
    struct free_stack *next;
};

static struct {
    struct free_stack *first;
    unsigned n;
} pool;

__asm__(".text\n"
        ".globl cs_stack_switch\n"
        ".hidden cs_stack_switch\n"
        ".type cs_stack_switch,@function\n"
        "cs_stack_switch:\n"
        "    endbr64\n"
        "    pushq %rbp\n"
        "    pushq %rbx\n"
        "    pushq %r12\n"
        "    pushq %r13\n"
        "    pushq %r14\n"
        "    pushq %r15\n"
        "    movq %rsp, (%rdi)\n"
        "    movq %rsi, %rsp\n"
        "    popq %r15\n"
        "    popq %r14\n"
        "    popq %r13\n"
        "    popq %r12\n"
        "    popq %rbx\n"
        "    popq %rbp\n"
        "    ret\n"
        ".size cs_stack_switch,.-cs_stack_switch\n");

/* The link of the free list is in the stack's highest bytes: their page has been touched anyway. */
static struct free_stack *link_of(uint8_t *stack)
{
    return (struct free_stack *)(void *)(stack + CS_STACK_BYTES - sizeof(struct free_stack));
}

static uint8_t *stack_of(struct free_stack *f)
{
    return (uint8_t *)f + sizeof *f - CS_STACK_BYTES;
}

uint8_t *cs_stack_take(void)
{
    if (pool.first != NULL) {
        struct free_stack *f = pool.first;
        pool.first = f->next;
        pool.n--;
        return stack_of(f);
    }
    uint8_t *p = mmap(NULL, PAGE + CS_STACK_BYTES, PROT_NONE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
    if (p == MAP_FAILED) {
        return NULL;
    }
    /* SECURITY: the lowest page stays without access: an overflow faults, it does not write into
     * the stack of another session. */
    if (mprotect(p + PAGE, CS_STACK_BYTES, PROT_READ | PROT_WRITE) != 0) {
        (void)munmap(p, PAGE + CS_STACK_BYTES);
        return NULL;
    }
    /* A huge page would make every idle stack wholly resident. */
    (void)madvise(p + PAGE, CS_STACK_BYTES, MADV_NOHUGEPAGE);
    return p + PAGE;
}

void cs_stack_give(uint8_t *stack)
{
#if CS_ASAN
    /* Frames that never returned have left their poison behind. */
    __asan_unpoison_memory_region(stack, CS_STACK_BYTES);
#endif
    if (pool.n >= FREE_MAX) {
        (void)munmap(stack - PAGE, PAGE + CS_STACK_BYTES);
        return;
    }
    size_t keep = pool.n < FREE_WARM ? (size_t)WATERMARK : (size_t)PAGE;
    (void)madvise(stack, CS_STACK_BYTES - keep, MADV_DONTNEED);
    struct free_stack *f = link_of(stack);
    f->next = pool.first;
    pool.first = f;
    pool.n++;
}

void *cs_stack_prepare(uint8_t *stack, void (*entry)(void))
{
    /* From the top: a zero as entry's return address (ends a backtrace, and aligns the stack as a
     * call would), the address that the switch returns to, six registers. */
    void **top = (void **)(void *)(stack + CS_STACK_BYTES);
    cs_assert(((uintptr_t)top & 15) == 0);
    top[-1] = NULL;
    memcpy(&top[-2], &entry, sizeof entry);
    for (int i = 3; i <= 8; i++) {
        top[-i] = NULL;
    }
    return &top[-8];
}

void cs_stack_trim(uint8_t *stack)
{
    uintptr_t sp;
    __asm__ volatile("movq %%rsp, %0" : "=r"(sp));
    /* Half a kilobyte below the stack pointer stays: madvise itself returns through it. */
    uintptr_t limit = (sp - 512) & ~(uintptr_t)(PAGE - 1);
    uintptr_t base = (uintptr_t)stack;
    cs_assert(sp > base && sp <= base + CS_STACK_BYTES);
    if (!CS_ASAN && limit > base) {
        (void)madvise(stack, limit - base, MADV_DONTNEED);
    }
}
