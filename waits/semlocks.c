/* The same of multiprocessing's locks: who has them, how often, and for how long.
 *
 * All of multiprocessing's primitives are made of one type, whose methods are replaced while a run is on, in place: what bound them
 * before calls ours as well. Which primitive that was, and which of its methods, the frames tell. A lock is known by the address of
 * its semaphore, which forks share; others, which have it elsewhere, know it by its name.
 *
 * The C library maps a page for each semaphore, of which it uses the first bytes. What lies behind them is shared by all who have the
 * semaphore: there we write which worker has it, and where it took it, as nobody else can tell, and a number that is the semaphore's own.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "waits.h"

#include <limits.h>
#include <semaphore.h>
#include <string.h>
#include <structmember.h>
#include <sys/random.h>
#include <unistd.h>

typedef PyObject *(*fast)(PyObject *, PyObject *const *, Py_ssize_t);
typedef PyObject *(*fast_keywords)(PyObject *, PyObject *const *, Py_ssize_t, PyObject *);

enum method { ACQUIRE, ENTER, RELEASE, EXIT, N_METHODS };
enum member { HANDLE, KIND, MAXVALUE, N_MEMBERS };
enum { RECURSIVE = 0 }; /* multiprocessing.synchronize.RECURSIVE_MUTEX */

static const struct {
    const char *name;
    int flags;
} known_methods[N_METHODS] = {
    {"acquire", METH_FASTCALL | METH_KEYWORDS}, {"__enter__", METH_NOARGS}, {"release", METH_NOARGS}, {"__exit__", METH_FASTCALL}};

static PyMethodDef *found[N_METHODS];
static PyCFunction real[N_METHODS];
static Py_ssize_t offsets[N_MEMBERS];
static bool is_on;

#define AT(type, lock, member) (*(type *)((char *)(lock) + offsets[member]))

static bool is_recursive(PyObject *lock)
{
    return AT(int, lock, KIND) == RECURSIVE;
}

/* One at a time may have it: else it is a semaphore. */
static bool is_lock(PyObject *lock)
{
    return AT(int, lock, MAXVALUE) == 1;
}

#define BEHIND 64 /* bytes: more than a semaphore takes */

struct behind {
    uint64_t mark;      /* who has it: its rank, plus 1, a line, and 24 bits of what is as good as the file's name; 0: nobody is known to.
                         * Or who has let go of it */
    uint64_t key;       /* the semaphore's own number; 0: nobody has asked yet */
    uint32_t pid;       /* the process that has it; 0: none is known to */
    uint32_t is_signal; /* somebody has released it who did not have it: who has it may wait for that */
};

#define HAS_LET_GO (UINT64_C(1) << 63)
#define MOST_RANKS ((1 << 15) - 2)
#define MOST_LINES ((1 << 24) - 1)
#define FILE_BITS UINT32_C(0xffffff)

static uint64_t mark_by(int32_t rank, const struct line *line)
{
    bool has_line = line->line > 0 && line->line <= MOST_LINES;
    return rank < 0 || rank > MOST_RANKS ? 0 : (uint64_t)(rank + 1) << 48 | (has_line ? (uint64_t)line->line << 24 | line->file : 0);
}

/* NULL: there is no such place. */
static struct behind *behind(PyObject *lock)
{
    char *handle = AT(char *, lock, HANDLE);
    return handle && !((uintptr_t)handle % 4096) ? (struct behind *)(handle + BEHIND) : NULL;
}

static struct behind *behind_lock(PyObject *lock)
{
    return is_lock(lock) ? behind(lock) : NULL;
}

static struct handoff of_rank(const struct handoff *like, int32_t rank)
{
    struct handoff found = *like;
    found.blocker_rank = rank;
    found.blocker = UINT64_C(1) << 63 | (uint32_t)rank;
    return found;
}

static uint64_t mark_of(PyObject *lock)
{
    struct behind *there = behind_lock(lock);
    return there ? __atomic_load_n(&there->mark, __ATOMIC_RELAXED) : 0;
}

static void put_mark(PyObject *lock, uint64_t mark, uint32_t pid)
{
    struct behind *there = behind_lock(lock);
    if (there) {
        __atomic_store_n(&there->mark, mark, __ATOMIC_RELAXED);
        __atomic_store_n(&there->pid, pid, __ATOMIC_RELAXED);
    }
}

static PyTypeObject *semlock; /* NULL: nothing is replaced */

uint64_t semlocks_key(PyObject *lock)
{
    struct behind *there = semlock && Py_TYPE(lock) == semlock ? behind(lock) : NULL;
    uint64_t key = there ? __atomic_load_n(&there->key, __ATOMIC_ACQUIRE) : 0, none = 0;
    if (!there || key || getrandom(&key, sizeof key, GRND_NONBLOCK) != (ssize_t)sizeof key)
        return key;
    key |= UINT64_C(1) << 63; /* no address is as large */
    return __atomic_compare_exchange_n(&there->key, &none, key, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE) ? key : none;
}

bool semlocks_may_have(PyObject *lock)
{
    struct behind *there = semlock && Py_TYPE(lock) == semlock ? behind(lock) : NULL;
    return !there || (__atomic_load_n(&there->pid, __ATOMIC_RELAXED) == (uint32_t)getpid() && !__atomic_load_n(&there->is_signal, __ATOMIC_RELAXED));
}

static uint32_t file_of(PyObject *code)
{
    PyObject *name = ((PyCodeObject *)code)->co_filename;
    const unsigned char *text = PyUnicode_DATA(name);
    uint32_t hash = UINT32_C(2166136261);
    for (Py_ssize_t i = PyUnicode_GET_LENGTH(name) * PyUnicode_KIND(name); i--;)
        hash = (hash ^ text[i]) * UINT32_C(16777619);
    return (hash ^ hash >> 24) & FILE_BITS;
}

/* Looked up once for an instruction, as that takes its time in long code. */
static const struct line *line_of(struct syncs *syncs, PyObject *code, int32_t at)
{
    struct line *line = &syncs->lines[((uintptr_t)code / 64 + (uint32_t)at / 2) % N_LINES];
    if (line->code != code || line->at != at) {
        Py_XSETREF(line->code, Py_XNewRef(code));
        line->at = at;
        line->line = code ? PyCode_Addr2Line((PyCodeObject *)code, at) : 0;
        line->file = code ? file_of(code) : 0;
    }
    return line;
}

static const char *class_of(PyObject *lock)
{
    if (is_recursive(lock))
        return "RLock";
    return is_lock(lock) ? "Lock" : "Semaphore";
}

static bool begins(const char *text, const char *with)
{
    return !strncmp(text, with, strlen(with));
}

/* A put takes the queue's semaphore, or its lock, which is no RLock as that of its Condition is; a get counts when something has come. */
static bool counts(PyObject *lock, const struct thing *thing, const char *of, const char *name)
{
    if (thing->within || (begins(of, "Queue") && begins(name, "get")))
        return false;
    return !begins(name, "put") || !is_recursive(lock);
}

/* A queue's lock is held while its pipe is read, or written to: what that waits for, the queue is waited for. */
static bool is_queue(const char *of, const char *name)
{
    return (begins(name, "get") && (begins(of, "Queue") || begins(of, "SimpleQueue"))) || (begins(name, "put") && begins(of, "SimpleQueue"));
}

struct act {
    struct thing thing;
    char of[LONGEST_OF], name[LONGEST_OF];
};

static struct act act_of(struct lane *lane, PyObject *lock)
{
    struct act act = {.thing = thing_here(lane, lock)};
    struct thing *thing = &act.thing;
    thing_names(thing, act.of, act.name);
    if (!thing->method || (thing->method == thing->inner && begins(act.of, "SemLock"))) {
        thing->object = (uint64_t)(uintptr_t)AT(void *, lock, HANDLE);
        strcpy(act.of, class_of(lock));
    }
    bool again = begins(act.name, "wait") && begins(act.of, "Condition");
    thing->is_held = is_lock(lock) && (!thing->method || !strcmp(act.name, "__enter__") || again || begins(act.of, "Synchronized") || is_queue(act.of, act.name));
    return act;
}

static struct sync_row *row_for(struct syncs *syncs, const struct act *act)
{
    struct sync_row *row = holds_row(syncs, &act->thing);
    if (row != syncs->rows)
        memcpy(row->of, act->of, sizeof row->of);
    return row;
}

/* Who had it when the wait began has let go of it since, or somebody to whom it went then: the mark says who did last. */
static struct handoff *waker_of(struct lane *lane, const struct handoff *like, uint64_t mark)
{
    int32_t rank = (int32_t)((mark & ~HAS_LET_GO) >> 48) - 1;
    if (!(mark & HAS_LET_GO) || rank < 0 || rank == lane->rank)
        return NULL;
    struct handoff waker = of_rank(like, rank);
    return holds_handoff(lane->syncs, &waker);
}

static void handed(struct lane *lane, const struct act *act, int64_t wait, uint64_t mark, uint64_t then, bool got)
{
    int32_t holder = mark & HAS_LET_GO ? NOBODY : (int32_t)(mark >> 48) - 1;
    struct handoff like = {.thing = act->thing.object, .blocker_rank = NOBODY, .waited = frame_place(lane)};
    if (holder >= 0 && holder != lane->rank) {
        like = of_rank(&like, holder);
        bool same_file = like.waited.code && (mark & FILE_BITS) == file_of(like.waited.code);
        if (same_file && (mark >> 24 & MOST_LINES))
            like.blocked = (struct place){like.waited.code, (int32_t)(mark >> 24 & MOST_LINES)};
    }
    memcpy(like.of, act->of, sizeof like.of);
    struct handoff bare = like, *row = holds_handoff(lane->syncs, &like);
    bare.blocked = (struct place){NULL, 0};
    row->n++;
    row->sum += wait;
    if (wait > row->max)
        row->max = wait;
    int64_t now = clock_now();
    lane->syncs->now.woken = 0; /* when, is not known */
    handovers_note(lane->syncs, now - wait, now, row, row->blocker ? waker_of(lane, &bare, then) : NULL, got);
}

static void hold(struct lane *lane, PyObject *lock, const struct thing *thing, struct sync_row *row, bool patient)
{
    struct syncs *syncs = lane->syncs;
    put_mark(lock, is_queue(row->of, row->name) ? 0 : mark_by(lane->rank, line_of(syncs, thing->caller, thing->at)), syncs->pid);
    struct held *held = holds_held(syncs, lock); /* somebody else has let go of it since: for how long it was held is not known */
    if (!held && syncs->n_held == N_HELD)
        return;
    if (held)
        Py_XDECREF(held->code);
    else {
        held = &syncs->held[syncs->n_held++];
        holds_keep(lock);
    }
    *held = (struct held){.lock = lock, .code = Py_XNewRef(thing->caller), .at = thing->at, .row = row, .since = clock_now(),
                          .blocked = holds_blocked(lane), .depth = 1, .whole = true,
                          .own = is_recursive(lock) || !strcmp(row->name, "__enter__"), .thing = thing->object, .level = -1};
    if (patient && syncs->n_held > 1 && !is_queue(row->of, row->name))
        orders_note(lane);
}

/* How it came to have a lock, or did not: it would have waited for as long as that takes; for so long it has, and for whom. */
struct way {
    bool patient;
    int64_t wait;
    uint64_t mark;
};

/* An acquisition, or one that was given up. */
static void tried(struct lane *lane, PyObject *lock, struct way way, bool got)
{
    uint64_t then = mark_of(lock);
    struct held *held = got && is_recursive(lock) ? holds_held(lane->syncs, lock) : NULL;
    if (held) {
        held->depth++;
        held->row->n += !begins(held->row->name, "wait");
        return;
    }
    if (!got && way.wait <= 0)
        return;
    struct act act = act_of(lane, lock);
    if (act.thing.ours)
        return;
    struct sync_row *row = row_for(lane->syncs, &act);
    row->n += got && counts(lock, &act.thing, act.of, act.name);
    if (way.wait > 0) {
        holds_waited(row, way.wait);
        handed(lane, &act, way.wait, way.mark, then, got);
    }
    if (got && act.thing.is_held)
        hold(lane, lock, &act.thing, row, way.patient);
}

static PyObject *acquire(PyObject *lock, PyObject *const *arguments, Py_ssize_t n, PyObject *keywords)
{
    return ((fast_keywords)(void (*)(void))real[ACQUIRE])(lock, arguments, n, keywords);
}

static PyObject *slice; /* in seconds */

static PyObject *for_a_slice(PyObject *lock)
{
    return acquire(lock, (PyObject *[]){Py_True, slice}, 2, NULL);
}

static PyObject *release(PyObject *lock)
{
    return real[RELEASE](lock, NULL);
}

/* It is somebody's: wait for as long as it takes, as all can see. */
static PyObject *waiting(struct lane *lane, PyObject *lock)
{
    struct act act = act_of(lane, lock);
    if (act.thing.ours)
        return acquire(lock, NULL, 0, NULL);
    if (act.thing.object == (uint64_t)(uintptr_t)AT(void *, lock, HANDLE))
        act.thing.object = (uint64_t)(uintptr_t)lock;
    const struct getting *call = lane->syncs->gets;
    bool for_queue = call && call->queue.object == act.thing.object; /* whoever has its lock waits as well, for what is to come */
    struct want want = holds_want(lane, &act.thing, for_queue ? call->semaphore : lock, lane, NULL);
    memcpy(lane->syncs->now.of, act.of, sizeof act.of);
    lane->syncs->now.patient = true;
    PyObject *outcome = holds_by_slices(lane, lock, for_a_slice, release);
    holds_wanted(lane, want, outcome == Py_True);
    return outcome;
}

/* Take it, without arguments, or with those that say that it takes as long as it does. */
static PyObject *taking(struct lane *lane, PyObject *lock)
{
    struct way way = {.patient = true};
    PyObject *outcome = acquire(lock, (PyObject *[]){Py_False}, 1, NULL);
    if (outcome == Py_False) {
        Py_DECREF(outcome);
        int64_t before = lane->spent[LOCK_WAIT];
        way.mark = mark_of(lock);
        outcome = waiting(lane, lock);
        way.wait = lane->spent[LOCK_WAIT] - before;
    }
    if (outcome && holds_watched() == lane)
        tried(lane, lock, way, outcome == Py_True);
    return outcome;
}

/* Whether these are such arguments, also of a queue's method. */
bool semlocks_is_patient(PyObject *const *arguments, long n, PyObject *keywords)
{
    Py_ssize_t n_keywords = keywords ? PyTuple_GET_SIZE(keywords) : 0;
    PyObject *blocks = n > 0 ? arguments[0] : Py_True, *timeout = n > 1 ? arguments[1] : Py_None;
    bool known = n + n_keywords <= 2;
    for (Py_ssize_t i = 0; known && i < n_keywords; i++) {
        PyObject *name = PyTuple_GET_ITEM(keywords, i);
        if (!n && !PyUnicode_CompareWithASCIIString(name, "block"))
            blocks = arguments[n + i];
        else if (n < 2 && !PyUnicode_CompareWithASCIIString(name, "timeout"))
            timeout = arguments[n + i];
        else
            known = false;
    }
    return known && blocks == Py_True && timeout == Py_None;
}

static PyObject *on_acquire(PyObject *lock, PyObject *const *arguments, Py_ssize_t n_arguments, PyObject *keywords)
{
    struct lane *lane = holds_watched();
    if (!lane)
        return acquire(lock, arguments, n_arguments, keywords);
    if (semlocks_is_patient(arguments, n_arguments, keywords))
        return taking(lane, lock);
    struct way way = {.wait = -lane->spent[LOCK_WAIT], .mark = mark_of(lock)};
    PyObject *outcome = acquire(lock, arguments, n_arguments, keywords);
    way.wait += lane->spent[LOCK_WAIT];
    if (outcome && holds_watched() == lane)
        tried(lane, lock, way, outcome == Py_True);
    return outcome;
}

static PyObject *on_enter(PyObject *lock, PyObject *unused)
{
    struct lane *lane = holds_watched();
    return lane ? taking(lane, lock) : real[ENTER](lock, unused);
}

/* Before it lets go: behind that, somebody else may have it. */
static void lets_go(struct lane *lane, PyObject *lock)
{
    const struct held *held = holds_held(lane->syncs, lock);
    struct behind *there = held || is_recursive(lock) ? NULL : behind_lock(lock);
    if (there)
        __atomic_store_n(&there->is_signal, 1, __ATOMIC_RELAXED);
    if (held ? held->depth == 1 : !is_recursive(lock))
        put_mark(lock, lane->rank < 0 || lane->rank > MOST_RANKS ? 0 : HAS_LET_GO | (uint64_t)(lane->rank + 1) << 48, 0);
}

static void has_let_go(struct lane *lane, PyObject *lock)
{
    const struct held *held = holds_held(lane->syncs, lock);
    int64_t wait = held && is_queue(held->row->of, held->row->name) ? holds_blocked(lane) - held->blocked : 0;
    if (wait > 0) {
        struct act act = act_of(lane, lock);
        holds_waited(held->row, wait);
        handed(lane, &act, wait, 0, 0, true);
    }
    if (is_lock(lock))
        holds_released(lane, lock, false);
}

static PyObject *on_release(PyObject *lock, PyObject *unused)
{
    struct lane *lane = holds_watched();
    if (!lane)
        return real[RELEASE](lock, unused);
    lets_go(lane, lock);
    PyObject *outcome = real[RELEASE](lock, unused);
    if (outcome)
        has_let_go(lane, lock);
    return outcome;
}

static PyObject *on_leave(PyObject *lock, PyObject *const *arguments, Py_ssize_t n_arguments)
{
    fast leave = (fast)(void (*)(void))real[EXIT];
    struct lane *lane = holds_watched();
    if (!lane)
        return leave(lock, arguments, n_arguments);
    lets_go(lane, lock);
    PyObject *outcome = leave(lock, arguments, n_arguments);
    if (outcome)
        has_let_go(lane, lock);
    return outcome;
}

static bool find_members(PyTypeObject *type)
{
    static const char *const names[N_MEMBERS] = {"handle", "kind", "maxvalue"};
    for (int i = 0; i < N_MEMBERS; i++) {
        PyObject *member = PyDict_GetItemString(type->tp_dict, names[i]);
        if (!member || !Py_IS_TYPE(member, &PyMemberDescr_Type))
            return false;
        const PyMemberDef *about = ((PyMemberDescrObject *)member)->d_member;
        if (i != HANDLE && about->type != T_INT)
            return false;
        offsets[i] = about->offset;
    }
    return true;
}

/* Nothing is replaced where one of its methods is not as we know it. */
static bool find_methods(PyTypeObject *type)
{
    for (int i = 0; i < N_METHODS; i++) {
        PyObject *method = PyDict_GetItemString(type->tp_dict, known_methods[i].name);
        if (!method || !Py_IS_TYPE(method, &PyMethodDescr_Type))
            return false;
        found[i] = ((PyMethodDescrObject *)method)->d_method;
        if (found[i]->ml_flags != known_methods[i].flags)
            return false;
        real[i] = found[i]->ml_meth;
    }
    return true;
}

static PyObject *type_of_locks(void)
{
    PyObject *module = PyImport_ImportModule("_multiprocessing");
    PyObject *type = module ? PyObject_GetAttrString(module, "SemLock") : NULL;
    Py_XDECREF(module);
    if (type && !(PyType_Check(type) && find_members((PyTypeObject *)type)))
        Py_CLEAR(type);
    PyErr_Clear();
    return type;
}

uint32_t semlocks_holder(PyObject *lock)
{
    struct behind *there = semlock && Py_TYPE(lock) == semlock ? behind_lock(lock) : NULL;
    return there && !__atomic_load_n(&there->is_signal, __ATOMIC_RELAXED) ? __atomic_load_n(&there->pid, __ATOMIC_RELAXED) : 0;
}

bool semlocks_free(PyObject *lock, uint32_t pid)
{
    PyObject *type = type_of_locks();
    struct behind *there = type && (PyObject *)Py_TYPE(lock) == type && pid ? behind_lock(lock) : NULL;
    int value = 1;
    bool is_its = there && !sem_getvalue(AT(sem_t *, lock, HANDLE), &value) && !value &&
                  __atomic_compare_exchange_n(&there->pid, &pid, 0, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
    if (is_its) {
        __atomic_store_n(&there->mark, 0, __ATOMIC_RELAXED);
        sem_post(AT(sem_t *, lock, HANDLE));
    }
    Py_XDECREF(type);
    return is_its;
}

void semlocks_on(void)
{
    PyObject *type = is_on ? NULL : type_of_locks();
    static const PyCFunction ours[N_METHODS] = {(PyCFunction)(void (*)(void))on_acquire, on_enter, on_release, (PyCFunction)(void (*)(void))on_leave};
    if (!slice)
        slice = PyFloat_FromDouble(0.1);
    if (slice && type && find_methods((PyTypeObject *)type)) {
        for (int i = 0; i < N_METHODS; i++)
            found[i]->ml_meth = ours[i];
        semlock = (PyTypeObject *)type; /* it stays: its module is never unloaded */
        is_on = true;
    }
    Py_XDECREF(type);
    PyErr_Clear();
}

void semlocks_off(void)
{
    for (int i = 0; is_on && i < N_METHODS; i++)
        found[i]->ml_meth = real[i];
    is_on = false;
    semlock = NULL;
}
