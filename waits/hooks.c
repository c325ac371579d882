/* What runs in place of the functions that wait.
 *
 * Every hook calls the real function whatever happens, with errno as it left it. In a
 * thread that is no worker of the current run, that is all a hook does.
 */
#define _GNU_SOURCE
#include "waits.h"

#include <dlfcn.h>
#include <errno.h>
#include <linux/futex.h>
#include <netdb.h>
#include <poll.h>
#include <semaphore.h>
#include <signal.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* Something that is to happen, in place of a thing that somebody has: who waits for it may be a library that waits for its own threads. */
#define EVENT(object) (lane->event = true, object)

/* The functions that just may block:
 *   X(result, name, parameters, arguments, what it waits for, the object)
 * K_FILE stands for any descriptor: which kind it is, is asked when it has blocked. */
#define BLOCKING(X) \
    X(int, sem_wait, (sem_t * s), (s), K_LOCK, s) \
    X(int, sem_timedwait, (sem_t * s, const struct timespec *t), (s, t), K_LOCK, s) \
    X(int, sem_clockwait, (sem_t * s, clockid_t c, const struct timespec *t), (s, c, t), K_LOCK, s) \
    X(int, pthread_cond_clockwait, (pthread_cond_t * c, pthread_mutex_t * m, clockid_t k, const struct timespec *t), (c, m, k, t), K_LOCK, EVENT(c)) \
    X(int, pthread_rwlock_rdlock, (pthread_rwlock_t * l), (l), K_LOCK, l) \
    X(int, pthread_rwlock_wrlock, (pthread_rwlock_t * l), (l), K_LOCK, l) \
    X(int, pthread_join, (pthread_t t, void **r), (t, r), K_LOCK, EVENT(t)) \
    X(int, pthread_timedjoin_np, (pthread_t t, void **r, const struct timespec *w), (t, r, w), K_LOCK, EVENT(t)) \
    X(int, clock_nanosleep, (clockid_t c, int f, const struct timespec *t, struct timespec *r), (c, f, t, r), K_SLEEP, 0) \
    X(int, nanosleep, (const struct timespec *t, struct timespec *r), (t, r), K_SLEEP, 0) \
    X(int, usleep, (useconds_t t), (t), K_SLEEP, 0) \
    X(unsigned, sleep, (unsigned t), (t), K_SLEEP, 0) \
    X(int, poll, (struct pollfd * p, nfds_t n, int t), (p, n, t), n ? K_POLL : K_SLEEP, n && outcome >= 0 ? p->fd : 0) \
    X(int, __poll_chk, (struct pollfd * p, nfds_t n, int t, size_t z), (p, n, t, z), n ? K_POLL : K_SLEEP, n && outcome >= 0 ? p->fd : 0) \
    X(int, ppoll, (struct pollfd * p, nfds_t n, const struct timespec *t, const sigset_t *s), (p, n, t, s), K_POLL, n && outcome >= 0 ? p->fd : 0) \
    X(int, select, (int n, fd_set * r, fd_set * w, fd_set * e, struct timeval * t), (n, r, w, e, t), n ? K_POLL : K_SLEEP, 0) \
    X(int, pselect, (int n, fd_set * r, fd_set * w, fd_set * e, const struct timespec *t, const sigset_t *s), (n, r, w, e, t, s), n ? K_POLL : K_SLEEP, 0) \
    X(int, epoll_wait, (int f, struct epoll_event * e, int n, int t), (f, e, n, t), K_POLL, f) \
    X(int, epoll_pwait, (int f, struct epoll_event * e, int n, int t, const sigset_t *s), (f, e, n, t, s), K_POLL, f) \
    X(ssize_t, recv, (int f, void *b, size_t n, int g), (f, b, n, g), K_FILE, f) \
    X(ssize_t, __recv_chk, (int f, void *b, size_t n, size_t z, int g), (f, b, n, z, g), K_FILE, f) \
    X(ssize_t, recvfrom, (int f, void *b, size_t n, int g, struct sockaddr *a, socklen_t *l), (f, b, n, g, a, l), K_FILE, f) \
    X(ssize_t, __recvfrom_chk, (int f, void *b, size_t n, size_t z, int g, struct sockaddr *a, socklen_t *l), (f, b, n, z, g, a, l), K_FILE, f) \
    X(ssize_t, recvmsg, (int f, struct msghdr * m, int g), (f, m, g), K_FILE, f) \
    X(ssize_t, send, (int f, const void *b, size_t n, int g), (f, b, n, g), K_FILE, f) \
    X(ssize_t, sendto, (int f, const void *b, size_t n, int g, const struct sockaddr *a, socklen_t l), (f, b, n, g, a, l), K_FILE, f) \
    X(ssize_t, sendmsg, (int f, const struct msghdr *m, int g), (f, m, g), K_FILE, f) \
    X(int, connect, (int f, const struct sockaddr *a, socklen_t l), (f, a, l), K_FILE, f) \
    X(int, accept, (int f, struct sockaddr *a, socklen_t *l), (f, a, l), K_FILE, f) \
    X(int, accept4, (int f, struct sockaddr *a, socklen_t *l, int g), (f, a, l, g), K_FILE, f) \
    X(int, getaddrinfo, (const char *h, const char *s, const struct addrinfo *i, struct addrinfo **r), (h, s, i, r), K_SOCKET, 0) \
    X(ssize_t, read, (int f, void *b, size_t n), (f, b, n), K_FILE, f) \
    X(ssize_t, __read_chk, (int f, void *b, size_t n, size_t z), (f, b, n, z), K_FILE, f) \
    X(ssize_t, readv, (int f, const struct iovec *v, int n), (f, v, n), K_FILE, f) \
    X(ssize_t, pread64, (int f, void *b, size_t n, off_t o), (f, b, n, o), K_FILE, f) \
    X(ssize_t, write, (int f, const void *b, size_t n), (f, b, n), K_FILE, f) \
    X(ssize_t, writev, (int f, const struct iovec *v, int n), (f, v, n), K_FILE, f) \
    X(ssize_t, pwrite64, (int f, const void *b, size_t n, off_t o), (f, b, n, o), K_FILE, f) \
    X(int, fsync, (int f), (f), K_FILE, f) \
    X(int, fdatasync, (int f), (f), K_FILE, f) \
    X(int, flock, (int f, int g), (f, g), K_FILE, f) \
    X(pid_t, wait, (int *s), (s), K_CHILD, 0) \
    X(pid_t, waitpid, (pid_t p, int *s, int g), (p, s, g), K_CHILD, 0) \
    X(pid_t, wait3, (int *s, int g, struct rusage *u), (s, g, u), K_CHILD, 0) \
    X(pid_t, wait4, (pid_t p, int *s, int g, struct rusage *u), (p, s, g, u), K_CHILD, 0) \
    X(int, waitid, (idtype_t t, id_t i, siginfo_t * s, int g), (t, i, s, g), K_CHILD, 0)

/* The functions through which the GIL goes. */
#define GIL(X) \
    X(int, pthread_mutex_lock, (pthread_mutex_t * m)) \
    X(int, pthread_mutex_unlock, (pthread_mutex_t * m)) \
    X(int, pthread_cond_signal, (pthread_cond_t * c)) \
    X(int, pthread_cond_wait, (pthread_cond_t * c, pthread_mutex_t * m)) \
    X(int, pthread_cond_timedwait, (pthread_cond_t * c, pthread_mutex_t * m, const struct timespec *t))

#define REAL_OF_BLOCKING(result, name, parameters, arguments, kind, object) static result(*real_##name) parameters;
#define REAL_OF_GIL(result, name, parameters) static result(*real_##name) parameters;
BLOCKING(REAL_OF_BLOCKING)
GIL(REAL_OF_GIL)
static int (*real_pthread_mutex_trylock)(pthread_mutex_t *);

#define HOOK(result, name, parameters, arguments, kind, object) \
    static result hook_##name parameters \
    { \
        struct lane *lane = lane_here(); \
        if (!lane || lane->depth) \
            return real_##name arguments; \
        lane->event = false; \
        int64_t begin = lane_enter(lane, kind, __builtin_return_address(0)); \
        result outcome = real_##name arguments; \
        int error = errno; \
        lane_leave(lane, kind, (uint64_t)(uintptr_t)(object), begin); \
        errno = error; \
        return outcome; \
    }
BLOCKING(HOOK)

/* A mutex of somebody else's: only one that is not free makes us wait. */
static int lock_of_others(struct lane *lane, pthread_mutex_t *mutex, const void *caller)
{
    int outcome = real_pthread_mutex_trylock(mutex);
    if (outcome != EBUSY)
        return outcome;
    int error = errno;
    lane->event = false;
    int64_t begin = lane_enter(lane, K_LOCK, caller);
    outcome = real_pthread_mutex_lock(mutex);
    lane_leave(lane, K_LOCK, (uint64_t)(uintptr_t)mutex, begin);
    errno = error;
    return outcome;
}

static long (*real_syscall)(long, long, long, long, long, long, long);

/* What is written in Rust, and some of C++, waits by the kernel's own call. It takes as many arguments as a call may have. */
static long hook_syscall(long number, long address, long operation, long value, long timeout, long other, long mask)
{
    long wanted = operation & FUTEX_CMD_MASK;
    struct lane *lane = lane_here();
    if (number != SYS_futex || (wanted != FUTEX_WAIT && wanted != FUTEX_WAIT_BITSET) || !lane || lane->depth)
        return real_syscall(number, address, operation, value, timeout, other, mask);
    lane->event = true;
    int64_t begin = lane_enter(lane, K_LOCK, __builtin_return_address(0));
    long outcome = real_syscall(number, address, operation, value, timeout, other, mask);
    int error = errno;
    lane_leave(lane, K_LOCK, (uint64_t)address, begin);
    errno = error;
    return outcome;
}

/* The way to the GIL, or away from it, begins with its mutex. What takes long is done
 * before that is ours: a thread that is preempted while it holds it stops all others. */
static int hook_pthread_mutex_lock(pthread_mutex_t *mutex)
{
    if (gil_calibrating)
        gil_saw(SAW_LOCK, mutex);
    struct lane *lane = lane_here();
    if (!lane || lane->depth || (void *)mutex == gil_switch_mutex)
        return real_pthread_mutex_lock(mutex);
    if ((void *)mutex != gil_mutex)
        return lock_of_others(lane, mutex, __builtin_return_address(0));
    bool dropping = lane->held;
    int error = errno;
    if (dropping) {
        lane_settle(lane);
    } else {
        lane->wanting = true;
        lane_want(lane);
    }
    errno = error;
    int outcome = real_pthread_mutex_trylock(mutex);
    if (outcome == EBUSY) {
        outcome = real_pthread_mutex_lock(mutex);
        if (dropping)
            lane_waited(lane, K_GIL, 0, lane->mark, NOBODY);
        else if (!lane->contended) {
            lane->contended = true;
            lane->holder = gil_held_by();
        }
    }
    return outcome;
}

/* The last that a thread does to drop the GIL, or to be through with a forced switch. */
static int hook_pthread_mutex_unlock(pthread_mutex_t *mutex)
{
    int outcome = real_pthread_mutex_unlock(mutex);
    if ((void *)mutex != gil_mutex && (void *)mutex != gil_switch_mutex)
        return outcome;
    struct lane *lane = lane_here();
    if (lane && !lane->depth && !lane->held && !lane->wanting) {
        int error = errno;
        lane_gave(lane);
        errno = error;
    }
    return outcome;
}

static int hook_pthread_cond_timedwait(pthread_cond_t *cond, pthread_mutex_t *mutex, const struct timespec *until)
{
    struct lane *lane = lane_here();
    bool ours = lane && !lane->depth;
    if ((void *)cond == gil_cond) {
        if (ours && !lane->contended) {
            lane->contended = true;
            lane->holder = gil_held_by();
        }
        int outcome = real_pthread_cond_timedwait(cond, mutex, until);
        if (outcome == ETIMEDOUT)
            __atomic_store_n(&gil_asked, gil_taken() + 1, __ATOMIC_RELAXED);
        return outcome;
    }
    if (!ours)
        return real_pthread_cond_timedwait(cond, mutex, until);
    lane->event = true;
    int64_t begin = lane_enter(lane, K_LOCK, __builtin_return_address(0));
    int outcome = real_pthread_cond_timedwait(cond, mutex, until);
    lane_leave(lane, K_LOCK, (uint64_t)(uintptr_t)cond, begin);
    return outcome;
}

static int hook_pthread_cond_wait(pthread_cond_t *cond, pthread_mutex_t *mutex)
{
    struct lane *lane = lane_here();
    if (!lane || lane->depth)
        return real_pthread_cond_wait(cond, mutex);
    if ((void *)cond == gil_switch_cond) {
        /* a forced switch: who was asked for the GIL waits until another thread has it */
        int outcome = real_pthread_cond_wait(cond, mutex);
        lane_waited(lane, K_GIL, 0, lane->mark, gil_held_by());
        lane->dropped = lane->mark;
        lane->asked = true;
        return outcome;
    }
    lane->event = true;
    int64_t begin = lane_enter(lane, K_LOCK, __builtin_return_address(0));
    int outcome = real_pthread_cond_wait(cond, mutex);
    lane_leave(lane, K_LOCK, (uint64_t)(uintptr_t)cond, begin);
    return outcome;
}

static int hook_pthread_cond_signal(pthread_cond_t *cond)
{
    if (gil_calibrating)
        gil_saw(SAW_SIGNAL, cond);
    if ((void *)cond != gil_switch_cond && (void *)cond != gil_cond)
        return real_pthread_cond_signal(cond);
    struct lane *lane = lane_here();
    if ((void *)cond == gil_cond) { /* dropped */
        gil_is_held_by(NOBODY);
        if (lane && !lane->depth) {
            lane->held = false;
            lane->dropped = lane->mark;
            lane->takes = gil_taken();
            lane->asked = __atomic_load_n(&gil_asked, __ATOMIC_RELAXED) == lane->takes + 1;
        }
    } else { /* taken */
        __atomic_store_n(&gil_takes, gil_taken() + 1, __ATOMIC_RELAXED); /* one has the GIL, and this is it */
        gil_is_held_by(lane ? lane->rank : NOBODY);
        if (lane && !lane->depth)
            lane_took(lane);
    }
    return real_pthread_cond_signal(cond);
}

/* What a body imports while it runs is hooked as well. */
static pthread_mutex_t scanning = PTHREAD_MUTEX_INITIALIZER;

static void rescan(void)
{
    pthread_mutex_lock(&scanning);
    if (__atomic_load_n(&generation, __ATOMIC_RELAXED))
        got_patch(true);
    pthread_mutex_unlock(&scanning);
}

static pid_t process; /* in which the hooks are on */
static uint32_t generations;
static bool inherited; /* this process was forked while the hooks were on: they still are in place */

bool hooks_on(void)
{
    pthread_mutex_lock(&scanning);
    bool free = !generation;
    if (free) {
        got_patch(true);
        if (!++generations)
            generations = 1;
        process = getpid();
        __atomic_store_n(&generation, generations, __ATOMIC_RELAXED);
    }
    pthread_mutex_unlock(&scanning);
    return free;
}

void hooks_off(void)
{
    pthread_mutex_lock(&scanning);
    __atomic_store_n(&generation, 0, __ATOMIC_RELAXED);
    if (got_patched()) /* else they never were on, perhaps because this system is not one that we could look at */
        got_patch(false);
    pthread_mutex_unlock(&scanning);
}

bool hooks_resume(void)
{
    if (inherited && !generation) {
        if (!++generations)
            generations = 1;
        process = getpid();
        __atomic_store_n(&generation, generations, __ATOMIC_RELAXED);
    }
    return inherited && generation;
}

bool hooks_lent(void)
{
    return getpid() != process;
}

/* Nobody forks while another thread looks at what is loaded: the child would inherit half a table,
 * and the loader's lock for good. */
void hooks_before_fork(void)
{
    pthread_mutex_lock(&scanning);
}

void hooks_after_fork(void)
{
    pthread_mutex_unlock(&scanning);
}

void hooks_in_the_child(void)
{
    inherited = generation;
    generation = 0;
    scanning = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
}

static void *(*real_dlopen)(const char *, int);

static void *hook_dlopen(const char *path, int flags)
{
    if (!path || !strchr(path, '/') || strchr(path, '$'))
        return real_dlopen(path, flags); /* a jump: where it looks depends on who called */
    void *object = real_dlopen(path, flags);
    if (object)
        rescan();
    return object;
}

static void (*real__exit)(int);

/* A forked process mostly ends by this, and nobody else tells its account how far it came. */
static void hook__exit(int status)
{
    struct lane *lane = lane_here();
    if (lane && lane->shared && !lane->depth && !hooks_lent())
        lane_settle(lane);
    real__exit(status);
}

#define ROW_OF_BLOCKING(result, name, parameters, arguments, kind, object) {#name, (void *)hook_##name, NULL, false},
#define ROW_OF_GIL(result, name, parameters) {#name, (void *)hook_##name, NULL, false},
struct hook all_hooks[] = {
    GIL(ROW_OF_GIL) BLOCKING(ROW_OF_BLOCKING){"dlopen", (void *)hook_dlopen, NULL, false}, {"syscall", (void *)hook_syscall, NULL, false}, {"_exit", (void *)hook__exit, NULL, false}};
const int n_hooks = sizeof all_hooks / sizeof all_hooks[0];

/* In executables that are not position-independent, dlsym(RTLD_DEFAULT) can return the
 * executable's own stub, which leads back here: only the C library's own will do. A
 * sanitizer stands between everybody and the C library, and has to see our calls as well. */
static void *libc_or_sanitizer(void)
{
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    return dlopen(NULL, RTLD_LAZY);
#else
    return dlopen("libc.so.6", RTLD_LAZY | RTLD_NOLOAD);
#endif
}

/* Is another function called in the place of the C library's? The executable's own stub is none. */
static bool is_interposed(const struct hook *hook)
{
    void *found = dlsym(RTLD_DEFAULT, hook->name);
    Dl_info there, program;
    if (!found || found == hook->real)
        return false;
    return !dladdr(found, &there) || !dladdr((void *)getauxval(AT_ENTRY), &program) || there.dli_fbase != program.dli_fbase;
}

const char *hooks_resolve(void)
{
    void *libc = libc_or_sanitizer();
    if (!libc)
        return "the C library is not glibc";
    int row = 0;
#define RESOLVE(name) all_hooks[row++].real = (void *)(real_##name = (__typeof__(real_##name))dlsym(libc, #name));
#define RESOLVE_GIL(result, name, parameters) RESOLVE(name)
#define RESOLVE_BLOCKING(result, name, parameters, arguments, kind, object) RESOLVE(name)
    GIL(RESOLVE_GIL)
    BLOCKING(RESOLVE_BLOCKING)
    RESOLVE(dlopen)
    RESOLVE(syscall)
    RESOLVE(_exit)
    real_pthread_mutex_trylock = (__typeof__(real_pthread_mutex_trylock))dlsym(libc, "pthread_mutex_trylock");
    for (int i = 0; i < n_hooks; i++)
        all_hooks[i].interposed = is_interposed(&all_hooks[i]);
    dlclose(libc); /* it stays loaded: everything here needs it */
    return real_pthread_mutex_trylock && real_pthread_mutex_lock ? NULL : "the C library lacks the functions of threads";
}
