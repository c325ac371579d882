/* The clocks, and a way to know for next to nothing that a thread has left its core.
 *
 * Reading a thread's CPU clock is a system call of half a microsecond, its
 * run-queue clock of 0.8. Most stretches between two waits are wholly on a core, so
 * they need neither. The kernel tells us which: it clears the pointer to a
 * restartable sequence (rseq, Linux 4.18) whenever it has interrupted, preempted or
 * migrated a thread that is outside of that sequence. We put a pointer to a sequence
 * there that nobody ever runs: still there means that the thread never left its core.
 */
#define _GNU_SOURCE
#include "waits.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#if defined(__x86_64__)
#define RSEQ_SIGNATURE 0x53053053
/* ud1 with the signature as its operand, as glibc's own abort handlers have it */
#define SIGNATURE_CODE ".byte 0x0f, 0xb9, 0x3d\n.long 0x53053053\n"
#elif defined(__aarch64__)
#define RSEQ_SIGNATURE 0xd428bc00
#define SIGNATURE_CODE ".inst 0xd428bc00\n"
#else
#error "unknown machine: build without this extension"
#endif

/* Code that nobody runs; the kernel looks at the four bytes before the abort address. */
__asm__(".pushsection .text\n"
        ".balign 32\n"
        "parmagic_rseq_begin:\n nop\n nop\n nop\n nop\n"
        "parmagic_rseq_end:\n" SIGNATURE_CODE
        "parmagic_rseq_abort:\n nop\n"
        ".popsection\n");
extern char parmagic_rseq_begin[] __attribute__((visibility("hidden")));
extern char parmagic_rseq_end[] __attribute__((visibility("hidden")));
extern char parmagic_rseq_abort[] __attribute__((visibility("hidden")));

struct sequence {
    uint32_t version, flags;
    uint64_t begin, length, abort;
} __attribute__((aligned(32)));

static struct sequence never_run;
static ptrdiff_t rseq_offset;

static inline volatile uint64_t *slot(void)
{
    return (volatile uint64_t *)((char *)__builtin_thread_pointer() + rseq_offset + 8);
}

void core_arm(void)
{
    *slot() = (uint64_t)(uintptr_t)&never_run;
}

bool core_left(void)
{
    return *slot() != (uint64_t)(uintptr_t)&never_run;
}

void core_disarm(void)
{
    *slot() = 0;
}

int64_t clock_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

int64_t clock_cpu(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

int clock_open_schedstat(void)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/self/task/%ld/schedstat", (long)syscall(SYS_gettid));
    return open(path, O_RDONLY | O_CLOEXEC);
}

/* The time this thread stood in a run queue, ns; of its file only this figure is fresh. */
int64_t clock_queue(int schedstat)
{
    char text[96];
    ssize_t n = schedstat < 0 ? -1 : pread(schedstat, text, sizeof text - 1, 0);
    if (n <= 0)
        return 0;
    text[n] = 0;
    char *second = strchr(text, ' ');
    return second ? strtoll(second, NULL, 10) : 0;
}

const char *clock_check(void)
{
    const ptrdiff_t *offset = dlsym(RTLD_DEFAULT, "__rseq_offset");
    const unsigned *size = dlsym(RTLD_DEFAULT, "__rseq_size");
    if (!offset || !size)
        return "the C library does not register restartable sequences (glibc 2.35 or newer does)";
    if (!*size)
        return "the kernel does not offer restartable sequences";
    rseq_offset = *offset;
    never_run.begin = (uint64_t)(uintptr_t)parmagic_rseq_begin;
    never_run.length = (uint64_t)(parmagic_rseq_end - parmagic_rseq_begin);
    never_run.abort = (uint64_t)(uintptr_t)parmagic_rseq_abort;
    if (*slot())
        return "another library uses restartable sequences in this thread";
    /* on a busy machine a nap can be over before the thread has left its core */
    bool works = false;
    for (long nap = 20000; !works && nap < 10000000; nap *= 2) {
        core_arm();
        nanosleep(&(struct timespec){0, nap}, NULL);
        works = core_left();
    }
    core_disarm();
    if (!works)
        return "the kernel does not tell when a thread leaves its core";
    int schedstat = clock_open_schedstat();
    if (schedstat < 0)
        return "the kernel does not show a thread's time in the run queue (schedstat)";
    close(schedstat);
    return NULL;
}
