/* Who has which of Python's locks, how often, and for how long: the methods of the lock types, replaced while a run is on.
 *
 * A lock that code of the standard library takes is part of something: a condition, a semaphore, a queue. The outermost of
 * the library's frames says of what, and which of its methods somebody called; else the lock is the thing itself. In a thread
 * that is no worker of the current run, a replaced method is the real one, and 3 ns.
 *
 * A method is replaced where its definition is: in place, so that every lock has it, whenever it was made. All of it happens
 * with the GIL; without one, nothing is replaced.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "waits.h"

#include <string.h>
#include <unistd.h>

enum type { LOCK, RLOCK, N_TYPES };
enum role { ACQUIRE, RELEASE, SAVE, RESTORE, OWNED, N_ROLES };

static const struct {
    const char *name;
    enum role role;
    int flags;
} methods[] = {
    {"acquire", ACQUIRE, METH_VARARGS | METH_KEYWORDS}, {"acquire_lock", ACQUIRE, METH_VARARGS | METH_KEYWORDS},
    {"__enter__", ACQUIRE, METH_VARARGS | METH_KEYWORDS}, {"release", RELEASE, METH_NOARGS},
    {"release_lock", RELEASE, METH_NOARGS}, {"__exit__", RELEASE, METH_VARARGS},
    {"_release_save", SAVE, METH_NOARGS}, {"_acquire_restore", RESTORE, METH_VARARGS}, {"_is_owned", OWNED, METH_NOARGS},
};
#define N_METHODS ((int)(sizeof methods / sizeof methods[0]))

static PyMethodDef *found[N_TYPES][N_METHODS]; /* NULL: there is none, or it is not as we know it */
static PyCFunction real[N_TYPES][N_ROLES];
static PyTypeObject *types[N_TYPES];
static bool is_on;

static int n_wanting; /* threads that wait for a lock, and want to know for whom */

/* From locks, no class can be derived; from RLocks, they are. Who has imported _thread anew has other types, with the same methods. */
static enum type type_of(PyObject *lock)
{
    PyTypeObject *type = Py_TYPE(lock);
    while (type && type != types[LOCK] && type->tp_dealloc != types[RLOCK]->tp_dealloc)
        type = type->tp_base;
    return type && type != types[LOCK] ? RLOCK : LOCK;
}

static struct sync_row *place_for(struct syncs *syncs, uint64_t thing, const void *method, const struct made *made)
{
    uint64_t hash = (thing ^ ((uint64_t)(uintptr_t)method << 1)) * UINT64_C(0x9E3779B97F4A7C15);
    for (int tries = 0; tries < 16; tries++) {
        struct sync_row *row = &syncs->rows[1 + ((hash >> 40) + (uint64_t)tries) % (N_SYNCS - 1)];
        if (!row->thing || (row->thing == thing && row->method == method && (!made || (row->made == made->code && row->made_at == made->at))))
            return row;
    }
    return NULL;
}

/* Where there are many things, those that were made at one place share a row, for which there is room then; where there are too many, all
 * others share the first one. */
struct sync_row *holds_row(struct syncs *syncs, const struct thing *thing)
{
    const struct made *made = made_of(thing->object);
    uint64_t shared = made ? (uint64_t)(uintptr_t)made->code + (uint64_t)made->at : 0, object = thing->object;
    struct sync_row *row = place_for(syncs, object, thing->method, made);
    if (made && (!row || (!row->thing && syncs->n_rows >= N_SYNCS / 2)))
        row = place_for(syncs, object = shared, thing->method, made);
    if (!row)
        return &syncs->rows[0];
    if (!row->thing) {
        syncs->n_rows++;
        row->thing = object;
        row->method = thing->method;
        thing_names(thing, row->of, row->name);
        row->level = object == shared || thing->between ? NULL : level_of(object, row->of); /* multiprocessing's tell in their own ways */
        if (made) {
            row->made = Py_NewRef(made->code);
            row->made_at = made->at;
        }
    }
    return row;
}

/* What a worker was blocked in that is no wait for a lock of its own making. */
int64_t holds_blocked(const struct lane *lane)
{
    return lane->spent[SLEEP] + lane->spent[IO_WAIT] + lane->spent[LOCK_WAIT];
}

#define N_KEPT 1024
static uint16_t n_kept[N_KEPT]; /* locks that watched threads have, by their addresses */

static uint16_t *kept_at(PyObject *lock)
{
    return &n_kept[((uintptr_t)lock >> 4) % N_KEPT];
}

PyObject *holds_keep(PyObject *lock)
{
    ++*kept_at(lock);
    return Py_NewRef(lock);
}

/* Code that is called when it is gone may take locks. */
static void forget(PyObject *lock)
{
    --*kept_at(lock);
    Py_DECREF(lock);
}

struct held *holds_held(struct syncs *syncs, PyObject *lock)
{
    for (int i = syncs->n_held - 1; i >= 0; i--)
        if (syncs->held[i].lock == lock)
            return &syncs->held[i];
    return NULL;
}

void holds_waited(struct sync_row *row, int64_t wait)
{
    row->contended++;
    row->wait += wait;
    if (wait > row->wait_max)
        row->wait_max = wait;
    int bucket = 64 - __builtin_clzll((uint64_t)wait | 1); /* of powers of two */
    row->waits[bucket < N_BUCKETS ? bucket : N_BUCKETS - 1]++;
}

static void add_hold(struct sync_row *row, int64_t hold, int64_t blocked)
{
    row->hold += hold;
    row->blocked += blocked;
    if (hold > row->hold_max)
        row->hold_max = hold;
}

static void let_go(struct lane *lane, struct held *held, int64_t now)
{
    struct syncs *syncs = lane->syncs;
    if (held->whole)
        add_hold(held->row, now - held->since, holds_blocked(lane) - held->blocked);
    PyObject *lock = held->lock, *code = held->code;
    memmove(held, held + 1, (size_t)(&syncs->held[syncs->n_held] - held - 1) * sizeof *held);
    syncs->n_held--;
    Py_XDECREF(code);
    forget(lock); /* only now */
}

/* A semaphore has let it in, or it has gone again: so many more are left. */
static void lent(struct lane *lane, struct sync_row *row, int64_t more, int64_t now)
{
    struct syncs *syncs = lane->syncs;
    if (more == -1 && syncs->n_permits < N_PERMITS)
        syncs->permits[syncs->n_permits++] = (struct permit){row->level, row, now, holds_blocked(lane)};
    for (int i = syncs->n_permits - 1; i >= 0 && more > 0; i--) {
        struct permit *permit = &syncs->permits[i];
        if (permit->level != row->level)
            continue;
        add_hold(permit->row, now - permit->since, holds_blocked(lane) - permit->blocked);
        memmove(permit, permit + 1, (size_t)(syncs->n_permits - i - 1) * sizeof *permit);
        syncs->n_permits--;
        more--;
    }
}

/* Behind what it did with a thing, in whose method it still is. */
static void see_level(struct lane *lane, struct sync_row *row, int64_t before, int64_t now)
{
    int64_t level = level_note(row->level, now);
    if (before >= 0 && level >= 0 && level_is_lent(row->level))
        lent(lane, row, level - before, now);
}

/* How it came to have a lock: whether it would have waited for as long as that takes, whether by a with block, and how deep it has it
 * again that it had let go of to wait for its condition, or 0. */
struct way {
    bool patient, enters;
    int again;
};

static void acquired(struct lane *lane, PyObject *lock, int64_t wait, struct way way)
{
    struct syncs *syncs = lane->syncs;
    struct held *held = holds_held(syncs, lock);
    if (held && type_of(lock) == RLOCK) {
        held->depth++;
        held->row->n++;
        return;
    }
    if (held)
        let_go(lane, held, clock_now()); /* whom nobody watches has released it meanwhile */
    struct thing thing = thing_here(lane, lock);
    if (thing.ours)
        return;
    struct sync_row *row = holds_row(syncs, &thing);
    row->n += !way.again && !thing.within && !thing.between;
    if (wait > 0)
        holds_waited(row, wait);
    bool back = way.again || thing.restores;
    bool whole = thing.is_held || (thing.resumes && back);
    if (!(whole || (row->level && (!thing.within || back))) || syncs->n_held == N_HELD)
        return;
    held = &syncs->held[syncs->n_held++];
    *held = (struct held){holds_keep(lock), Py_XNewRef(thing.caller), thing.at, row, clock_now(), holds_blocked(lane), way.again ? way.again : 1, whole,
                          way.enters || way.again || type_of(lock) == RLOCK, thing.object, 0, row->level ? level_look(row->level) : -1};
    if (whole && syncs->n_held > 1 && way.patient)
        orders_note(lane);
}

static bool same_place(const struct place *one, const struct place *other)
{
    return one->code == other->code && one->line == other->line;
}

/* The row of such waits; the places' code is kept. */
struct handoff *holds_handoff(struct syncs *syncs, const struct handoff *like)
{
    for (uint32_t i = 0; i < syncs->n_handoffs; i++) {
        struct handoff *each = &syncs->handoffs[i];
        if (each->thing == like->thing && each->blocker == like->blocker && same_place(&each->waited, &like->waited) &&
            same_place(&each->blocked, &like->blocked))
            return each;
    }
    if (syncs->n_handoffs == N_HANDOFFS)
        return &syncs->handoffs[N_HANDOFFS - 1];
    struct handoff *row = &syncs->handoffs[syncs->n_handoffs++];
    *row = *like;
    Py_XINCREF(row->waited.code);
    Py_XINCREF(row->blocked.code);
    return row;
}

/* Who has this lock, of all that are watched. */
static struct lane *holder_of(PyObject *lock)
{
    for (struct lane *each = lanes_next(NULL); each; each = lanes_next(each))
        if (each->syncs && holds_held(each->syncs, lock))
            return each;
    return NULL;
}

static struct handoff *blocked_by(struct lane *lane, const struct thing *thing, struct lane *blocker)
{
    struct handoff like = {.thing = thing->object, .blocker_rank = NOBODY, .waited = frame_place(lane)};
    if (blocker) {
        like.blocker = blocker->serial;
        like.blocker_rank = blocker->rank;
        like.blocked = frame_place(blocker);
    }
    thing_names(thing, like.of, (char[LONGEST_OF]){0});
    return holds_handoff(lane->syncs, &like);
}

/* Who waits for this lock is woken by what we do here. */
void holds_wake(struct lane *lane, PyObject *lock)
{
    for (struct lane *each = n_wanting ? lanes_next(NULL) : NULL; each; each = lanes_next(each)) {
        struct syncs *theirs = each->syncs;
        if (!theirs || each == lane || theirs->now.wants != lock || !theirs->now.waits)
            continue;
        struct handoff like = *theirs->now.waits;
        like.n = like.sum = like.max = 0;
        like.blocker = lane->serial;
        like.blocker_rank = lane->rank;
        like.blocked = frame_place(lane);
        theirs->now.waker = holds_handoff(theirs, &like);
        theirs->now.woken = clock_now();
        if (!theirs->now.waits->blocker)
            theirs->now.waits = theirs->now.waker;
    }
}

void holds_released(struct lane *lane, PyObject *lock, bool wholly)
{
    struct lane *here = lane;
    struct held *held = holds_held(lane->syncs, lock);
    holds_wake(lane, lock);
    if (!held && type_of(lock) == LOCK && (lane = holder_of(lock)))
        held = holds_held(lane->syncs, lock); /* another one has taken it */
    if (!held || (--held->depth && !wholly))
        return;
    int64_t now = clock_now(), level = held->level;
    struct sync_row *row = held->row;
    let_go(lane, held, now);
    if (lane == here && row->level) /* another one may have ended by now, and its rows with it */
        see_level(lane, row, level, now);
}

/* What most never need, as their bodies know no lock. */
static struct syncs *syncs_new(void)
{
    struct syncs *syncs = is_on ? PyMem_RawCalloc(1, sizeof(struct syncs)) : NULL;
    if (syncs)
        syncs->pid = (uint32_t)getpid();
    return syncs;
}

struct lane *holds_watched(void)
{
    struct lane *lane = lane_here();
    if (!lane || lane->depth || !lane->in_item)
        return NULL;
    return lane->syncs || (lane->syncs = syncs_new()) ? lane : NULL;
}

static PyObject *not_blocking, *one_slice; /* arguments of acquire */

static bool is_forever(PyObject *timeout)
{
    return (PyLong_CheckExact(timeout) && PyLong_AsLong(timeout) == -1) || (PyFloat_CheckExact(timeout) && PyFloat_AS_DOUBLE(timeout) == -1.0);
}

/* It waits for as long as it takes: without arguments, or with the ones that say so. */
static bool is_patient(PyObject *arguments, PyObject *keywords)
{
    Py_ssize_t n = PyTuple_GET_SIZE(arguments);
    return (!keywords || !PyDict_GET_SIZE(keywords)) &&
           (!n || (PyTuple_GET_ITEM(arguments, 0) == Py_True && (n == 1 || is_forever(PyTuple_GET_ITEM(arguments, 1)))));
}

bool holds_ended(struct syncs *syncs)
{
    PyObject *error = syncs->abort;
    if (!error)
        return false;
    syncs->abort = NULL;
    PyErr_SetObject((PyObject *)Py_TYPE(error), error);
    Py_DECREF(error);
    return true;
}

static PyObject *watcher; /* called by who waits, now and then, to see who waits for whom; NULL: by nobody */
static int64_t looked;
static Py_buffer told; /* a number that changes when another process ends waits; no buf: none does */

void holds_look_with(PyObject *function, PyObject *with)
{
    Py_XSETREF(watcher, Py_XNewRef(function));
    PyBuffer_Release(&told);
    if (with && PyObject_GetBuffer(with, &told, PyBUF_SIMPLE))
        PyErr_Clear();
    if (told.buf && (told.len < (Py_ssize_t)sizeof(int64_t) || (uintptr_t)told.buf % sizeof(int64_t)))
        PyBuffer_Release(&told);
}

static int64_t times_told(void)
{
    return told.buf ? __atomic_load_n((int64_t *)told.buf, __ATOMIC_ACQUIRE) : 0;
}

static PyObject *nothing, *space; /* code that does nothing, and its names */

/* Have Python look for what others have raised in this thread, as it does where its code runs; false: there was such. */
static bool is_left_alone(void)
{
    PyObject *outcome = nothing ? PyEval_EvalCode(nothing, space, space) : Py_NewRef(Py_None);
    Py_XDECREF(outcome);
    return outcome;
}

/* Nobody of another process waits here. What calls looks stays: a fork may have come without the GIL, from C code. */
void holds_in_the_child(void)
{
    watcher = NULL;
    told = (Py_buffer){0};
    n_wanting = 0;
    memset(n_kept, 0, sizeof n_kept);
}

/* False where an exception came meanwhile that is none of the look's own: it is raised here. was_told: it is known that waits were ended. */
static bool look_around(struct lane *lane, PyObject *was_told)
{
    PyObject *function = Py_NewRef(watcher);
    looked = lane_settle(lane);
    lane->depth++;
    PyObject *seen = PyObject_CallOneArg(function, was_told);
    lane->depth--;
    lane_waits_on(lane, looked);
    bool whole = seen || PyErr_ExceptionMatches(PyExc_Exception);
    if (!seen && whole)
        PyErr_WriteUnraisable(function);
    Py_XDECREF(seen);
    Py_DECREF(function);
    return whole;
}

bool holds_look_around(struct lane *lane)
{
    return !watcher || clock_now() - looked < SLICE / 2 ? is_left_alone() : look_around(lane, Py_False);
}

/* Let go of a lock again, with what is to be raised behind that; false: that cannot be done. */
static bool undone(PyObject *lock, PyObject *(*release)(PyObject *))
{
#if PY_VERSION_HEX >= 0x030c0000
    PyObject *raised = PyErr_GetRaisedException();
    PyObject *released = release(lock);
    if (released)
        PyErr_SetRaisedException(raised);
    else
        Py_XDECREF(raised);
#else
    PyObject *type, *value, *trace;
    PyErr_Fetch(&type, &value, &trace);
    PyObject *released = release(lock);
    if (released)
        PyErr_Restore(type, value, trace);
    else {
        Py_XDECREF(type);
        Py_XDECREF(value);
        Py_XDECREF(trace);
    }
#endif
    Py_XDECREF(released);
    return released;
}

/* Wait for as long as it takes, or until somebody ends that: what is raised then, is raised here, in the body, also where another one of
 * those who were told to end has just let go of the lock. The slices are one wait. */
PyObject *holds_by_slices(struct lane *lane, PyObject *lock, PyObject *(*attempt)(PyObject *), PyObject *(*release)(PyObject *))
{
    PyObject *outcome;
    int64_t before = times_told();
    bool failed = lane->continues = false;
    while ((outcome = attempt(lock)) == Py_False && !lane->syncs->abort) {
        lane->continues = true;
        failed = !holds_look_around(lane);
        if (failed || lane->syncs->abort)
            break;
        Py_DECREF(outcome);
    }
    if (outcome == Py_True && lane->continues && watcher && !lane->syncs->abort && before != times_told())
        failed = !look_around(lane, Py_True);
    lane->continues = false;
    if (!outcome || !(failed || lane->syncs->abort))
        return outcome;
    if (outcome == Py_True && !undone(lock, release)) {
        Py_DECREF(outcome);
        return NULL;
    }
    Py_DECREF(outcome);
    if (!failed)
        holds_ended(lane->syncs);
    return NULL;
}

static PyObject *for_a_slice(PyObject *lock)
{
    return ((PyCFunctionWithKeywords)(void (*)(void))real[type_of(lock)][ACQUIRE])(lock, one_slice, NULL);
}

static PyObject *release(PyObject *lock)
{
    return real[type_of(lock)][RELEASE](lock, NULL);
}

struct lane *holds_thread(uint64_t thread)
{
    static PyObject *ident;
    if (!ident && !(ident = PyUnicode_InternFromString("_ident")))
        PyErr_Clear();
    PyObject *value = ident ? PyObject_GenericGetAttr((PyObject *)(uintptr_t)thread, ident) : NULL;
    unsigned long number = value && PyLong_CheckExact(value) ? PyLong_AsUnsignedLong(value) : 0;
    Py_XDECREF(value);
    PyErr_Clear();
    for (struct lane *each = number ? lanes_next(NULL) : NULL; each; each = lanes_next(each))
        if (lane_is_alive(each) && ((PyThreadState *)each->thread_state)->thread_id == number)
            return each;
    return NULL;
}

/* A wait begins, in somebody's row (of a queue), or in nobody's: who has it now makes us wait, or who will wake us. */
struct want holds_want(struct lane *lane, const struct thing *thing, PyObject *wanted, struct lane *holder, struct sync_row *row)
{
    struct syncs *syncs = lane->syncs;
    struct want want = {.side = row && row->name[0] == 'p' ? PUTS : GETS, .before = lane->spent[LOCK_WAIT], .outer = syncs->now}; /* put, get */
    want.level = row && (want.side == PUTS || row->name[0] == 'g') ? row->level : NULL;
    if (want.level)
        level_waits(want.level, want.side, 1);
    syncs->now = (struct wanted){.since = clock_now(), .wants = wanted, .thing = thing->object};
    syncs->now.waits = holder == lane ? NULL : blocked_by(lane, thing, holder);
    thing_names(thing, syncs->now.of, syncs->now.method);
    n_wanting++;
    return want;
}

int64_t holds_wanted(struct lane *lane, struct want want, bool got)
{
    struct syncs *syncs = lane->syncs;
    int64_t wait = lane->spent[LOCK_WAIT] - want.before;
    struct handoff *waits = syncs->now.waits;
    if (want.level && lane == lane_here()) /* else the run ended meanwhile, and its levels with it */
        level_waits(want.level, want.side, -1);
    n_wanting--;
    if (waits && wait > 0) {
        waits->n++;
        waits->sum += wait;
        waits->max = wait > waits->max ? wait : waits->max;
        handovers_note(syncs, syncs->now.since, clock_now(), waits, syncs->now.waker, got);
    }
    syncs->now = want.outer;
    return wait;
}

static bool is_join(const struct thing *thing)
{
    char of[LONGEST_OF], name[LONGEST_OF];
    thing_names(thing, of, name);
    return !strcmp(of, "Thread") && !strcmp(name, "join");
}

/* A call that may wait. */
static PyObject *waiting(struct lane *lane, PyCFunctionWithKeywords call, PyObject *lock, PyObject *arguments, PyObject *keywords, struct way way)
{
    struct thing thing = thing_here(lane, lock);
    if (thing.ours)
        return call(lock, arguments, keywords);
    way.patient = way.again || is_patient(arguments, keywords);
    bool sliced = way.patient && !way.again;
    struct lane *holder = is_join(&thing) ? holds_thread(thing.object) : holder_of(lock);
    struct want want = holds_want(lane, &thing, lock, holder, thing.within && !way.again ? holds_row(lane->syncs, &thing) : NULL);
    lane->syncs->now.patient = sliced;
    PyObject *outcome = sliced ? holds_by_slices(lane, lock, for_a_slice, release) : call(lock, arguments, keywords);
    int64_t wait = holds_wanted(lane, want, outcome && (way.again || outcome == Py_True));
    if (outcome && (way.again || outcome == Py_True) && holds_watched() == lane)
        acquired(lane, lock, wait, way);
    return outcome;
}

static PyObject *acquiring(PyObject *lock, PyObject *arguments, PyObject *keywords, bool enters)
{
    PyCFunctionWithKeywords acquire = (PyCFunctionWithKeywords)(void (*)(void))real[type_of(lock)][ACQUIRE];
    struct lane *lane = holds_watched();
    if (!lane)
        return acquire(lock, arguments, keywords);
    if (is_patient(arguments, keywords)) {
        PyObject *at_once = acquire(lock, not_blocking, NULL);
        if (at_once != Py_False) {
            if (at_once && holds_watched() == lane)
                acquired(lane, lock, 0, (struct way){true, enters, 0});
            return at_once;
        }
        Py_DECREF(at_once);
    }
    return waiting(lane, acquire, lock, arguments, keywords, (struct way){.enters = enters});
}

static PyObject *on_acquire(PyObject *lock, PyObject *arguments, PyObject *keywords)
{
    return acquiring(lock, arguments, keywords, false);
}

static PyObject *on_enter(PyObject *lock, PyObject *arguments, PyObject *keywords)
{
    return acquiring(lock, arguments, keywords, true);
}

/* How often it is taken, of what a condition has kept of an RLock: (how often, by whom). */
static int depth_in(PyObject *arguments)
{
    PyObject *state = PyTuple_GET_SIZE(arguments) ? PyTuple_GET_ITEM(arguments, 0) : NULL;
    if (!state || !PyTuple_Check(state) || !PyTuple_GET_SIZE(state) || !PyLong_Check(PyTuple_GET_ITEM(state, 0)))
        return 1;
    long depth = PyLong_AsLong(PyTuple_GET_ITEM(state, 0));
    PyErr_Clear();
    return depth > 0 && depth < INT_MAX ? (int)depth : 1;
}

static PyObject *on_restore(PyObject *lock, PyObject *state)
{
    PyCFunction restore = real[type_of(lock)][RESTORE];
    struct lane *lane = holds_watched();
    if (!lane)
        return restore(lock, state);
    return waiting(lane, (PyCFunctionWithKeywords)(void (*)(void))restore, lock, state, NULL, (struct way){.again = depth_in(state)});
}

/* A call to wake somebody asks first whether the lock is ours. Where nobody waits, it does nothing else. */
static void call_begins(struct lane *lane)
{
    PyObject *condition = notified_here(lane);
    PyObject *waiters = condition ? PyObject_GetAttrString(condition, "_waiters") : NULL;
    Py_ssize_t n = waiters ? PyObject_Size(waiters) : -1;
    Py_XDECREF(waiters);
    PyErr_Clear();
    if (n)
        return;
    struct lost_call *call = &lane->syncs->lost_calls[lane->syncs->n_lost_calls++ % N_LOST];
    Py_XDECREF(call->place.code);
    *call = (struct lost_call){(uint64_t)(uintptr_t)condition, frame_place(lane), clock_now()};
    Py_XINCREF(call->place.code);
}

static PyObject *on_owned(PyObject *lock, PyObject *unused)
{
    PyObject *outcome = real[type_of(lock)][OWNED](lock, unused);
    struct lane *lane = holds_watched();
    if (lane && outcome == Py_True)
        call_begins(lane);
    return outcome;
}

/* Behind it: who waits for it is not kept from it by what we do. */
static void released(PyObject *lock, bool wholly)
{
    struct lane *lane = holds_watched(), *holder;
    if (lane)
        holds_released(lane, lock, wholly);
    else if (*kept_at(lock) && (holder = holder_of(lock))) { /* it was taken by a watched thread, and let go of by another one */
        struct held *held = holds_held(holder->syncs, lock);
        if (!--held->depth || wholly)
            let_go(holder, held, clock_now());
    }
}

static PyObject *on_release(PyObject *lock, PyObject *arguments)
{
    PyObject *outcome = real[type_of(lock)][RELEASE](lock, arguments);
    if (outcome)
        released(lock, false);
    return outcome;
}

static PyObject *on_save(PyObject *lock, PyObject *unused)
{
    PyObject *outcome = real[type_of(lock)][SAVE](lock, unused);
    if (outcome)
        released(lock, true);
    return outcome;
}

static PyCFunction ours(int method)
{
    static const PyCFunction replacements[N_ROLES] = {(PyCFunction)(void (*)(void))on_acquire, on_release, on_save, on_restore, on_owned};
    return strcmp(methods[method].name, "__enter__") ? replacements[methods[method].role] : (PyCFunction)(void (*)(void))on_enter;
}

static PyMethodDef *definition(PyTypeObject *type, const char *name)
{
    PyObject *method = PyDict_GetItemString(type->tp_dict, name);
    return method && Py_IS_TYPE(method, &PyMethodDescr_Type) ? ((PyMethodDescrObject *)method)->d_method : NULL;
}

/* Nothing of a type is replaced where one of its methods is not as we know it. */
static bool look(enum type type)
{
    memset(real[type], 0, sizeof real[type]);
    for (int i = 0; i < N_METHODS; i++) {
        PyMethodDef *method = found[type][i] = definition(types[type], methods[i].name);
        if (!method)
            continue;
        PyCFunction *known = &real[type][methods[i].role];
        if (method->ml_flags != methods[i].flags || (*known && *known != method->ml_meth))
            return false;
        *known = method->ml_meth;
    }
    return real[type][ACQUIRE] && real[type][RELEASE];
}

static void put(enum type type, bool on)
{
    for (int i = 0; i < N_METHODS; i++)
        if (found[type][i])
            found[type][i]->ml_meth = on ? ours(i) : real[type][methods[i].role];
}

bool holds_on(void)
{
#ifndef Py_GIL_DISABLED
    static const char *const names[N_TYPES] = {"LockType", "RLock"};
    PyObject *module = is_on ? NULL : PyImport_ImportModule("_thread");
    bool known = module;
    for (int type = 0; known && type < N_TYPES; type++) {
        PyObject *made = PyObject_GetAttrString(module, names[type]);
        known = made && PyType_Check(made);
        Py_XSETREF(types[type], known ? (PyTypeObject *)Py_NewRef(made) : NULL);
        Py_XDECREF(made);
    }
    if (known && !nothing && (space = PyDict_New()))
        known = (nothing = Py_CompileString("None", "", Py_eval_input));
    if (known && !not_blocking)
        known = (not_blocking = Py_BuildValue("(O)", Py_False)) && (one_slice = Py_BuildValue("(Od)", Py_True, (double)SLICE * 1e-9));
    PyErr_Clear();
    if (known && look(LOCK) && look(RLOCK)) {
        put(LOCK, true);
        put(RLOCK, true);
        made_on(module, types[LOCK], types[RLOCK], simple_on());
        semlocks_on();
        is_on = true;
    }
    Py_XDECREF(module);
#endif
    return is_on;
}

void holds_off(void)
{
    if (is_on) {
        put(LOCK, false);
        put(RLOCK, false);
        semlocks_off();
        is_on = false;
        made_off(true);
        simple_off();
        orders_end(true);
        levels_end();
    }
}

void syncs_free(struct syncs *syncs)
{
    for (uint32_t i = 0; syncs && i < syncs->n_handoffs; i++) {
        Py_XDECREF(syncs->handoffs[i].waited.code);
        Py_XDECREF(syncs->handoffs[i].blocked.code);
    }
    for (int i = 0; syncs && i < N_LINES; i++)
        Py_XDECREF(syncs->lines[i].code);
    for (int i = 0; syncs && i < syncs->n_held; i++) {
        Py_XDECREF(syncs->held[i].code);
        forget(syncs->held[i].lock);
    }
    for (int i = 0; syncs && i < N_LOST; i++)
        Py_XDECREF(syncs->lost_calls[i].place.code);
    if (syncs) {
        Py_XDECREF(syncs->abort);
        orders_free(syncs);
    }
    for (int i = 0; syncs && i < N_SYNCS; i++)
        Py_XDECREF(syncs->rows[i].made);
    PyMem_RawFree(syncs);
}

PyObject *place_file(const struct place *place)
{
    return place->code ? ((PyCodeObject *)place->code)->co_filename : Py_None;
}

/* What a lock is known by in all processes that have it. */
static uint64_t key_of(PyObject *lock)
{
    uint64_t key = lock ? semlocks_key(lock) : 0;
    return key ? key : (uint64_t)(uintptr_t)lock;
}

static PyObject *held_tuple(const struct held *held)
{
    struct place place = {held->code, held->code ? PyCode_Addr2Line((PyCodeObject *)held->code, held->at) : 0};
    return Py_BuildValue("(KKsOidO)", (unsigned long long)key_of(held->lock), (unsigned long long)held->thing, held->row->of,
                         place_file(&place), place.line, (double)held->since * 1e-9, held->own ? Py_True : Py_False);
}

static PyObject *lost_tuple(const struct lost_call *call)
{
    return Py_BuildValue("(KOid)", (unsigned long long)call->thing, place_file(&call->place), call->place.line, (double)call->at * 1e-9);
}

void list_add(PyObject **list, PyObject *each)
{
    if (*list && (!each || PyList_Append(*list, each)))
        Py_CLEAR(*list);
    Py_XDECREF(each);
}

PyObject *holds_of(const struct syncs *syncs)
{
    PyObject *held = PyList_New(0);
    for (int i = 0; held && syncs && i < syncs->n_held; i++)
        if (syncs->held[i].whole && semlocks_may_have(syncs->held[i].lock))
            list_add(&held, held_tuple(&syncs->held[i]));
    return held;
}

PyObject *holds_lost(const struct syncs *syncs)
{
    PyObject *lost = PyList_New(0);
    for (uint32_t i = 0; lost && syncs && i < N_LOST && i < syncs->n_lost_calls; i++)
        list_add(&lost, lost_tuple(&syncs->lost_calls[i]));
    return lost;
}

static PyObject *now_tuple(struct lane *lane)
{
    static const struct syncs none;
    const struct syncs *syncs = lane->syncs ? lane->syncs : &none;
    PyObject *held = holds_of(syncs), *lost = held ? holds_lost(syncs) : NULL;
    if (!lost) {
        Py_XDECREF(held);
        return NULL;
    }
    struct place place = frame_place(lane);
    PyObject *thing = syncs->now.wants ? (PyObject *)(uintptr_t)syncs->now.thing : Py_None;
    unsigned long ident = lane_is_alive(lane) ? ((PyThreadState *)lane->thread_state)->thread_id : 0;
    return Py_BuildValue("(KkiKOssOidONNI)", (unsigned long long)lane->serial, ident, lane->rank, (unsigned long long)key_of(syncs->now.wants), thing,
                         syncs->now.wants ? syncs->now.of : "", syncs->now.wants ? syncs->now.method : "", place_file(&place), place.line,
                         (double)syncs->now.since * 1e-9, syncs->now.wants && syncs->now.patient ? Py_True : Py_False, held, lost,
                         syncs->now.wants ? semlocks_holder(syncs->now.wants) : 0);
}

/* Nothing where nobody waits. */
PyObject *holds_now(void)
{
    PyObject *list = PyList_New(0);
    for (struct lane *each = n_wanting ? lanes_next(NULL) : NULL; list && each; each = lanes_next(each))
        list_add(&list, now_tuple(each));
    return list;
}

bool holds_abort(uint64_t serial, PyObject *error)
{
    for (struct lane *each = lanes_next(NULL); each; each = lanes_next(each))
        if (each->serial == serial && each->syncs && each->syncs->now.wants) {
            Py_XSETREF(each->syncs->abort, Py_NewRef(error));
            return true;
        }
    return false;
}

static PyObject *handoff_tuple(const struct handoff *each)
{
    return Py_BuildValue("(KsKiOiOiLdd)", (unsigned long long)each->thing, each->of, (unsigned long long)each->blocker, each->blocker_rank,
                         place_file(&each->waited), each->waited.line, place_file(&each->blocked), each->blocked.line, (long long)each->n,
                         (double)each->sum * 1e-9, (double)each->max * 1e-9);
}

PyObject *handoffs_rows(const struct syncs *syncs)
{
    PyObject *list = PyList_New(0);
    for (uint32_t i = 0; list && syncs && i < syncs->n_handoffs; i++) {
        if (syncs->handoffs[i].n)
            list_add(&list, handoff_tuple(&syncs->handoffs[i]));
    }
    return list;
}

static PyObject *as_tuple(const struct sync_row *row)
{
    PyCodeObject *made = (PyCodeObject *)row->made;
    return Py_BuildValue("(KssLLdddddLdy#NOi)", (unsigned long long)row->thing, row->of, row->name, (long long)row->n,
                         (long long)row->contended, (double)row->wait * 1e-9, (double)row->wait_max * 1e-9, (double)row->hold * 1e-9,
                         (double)row->hold_max * 1e-9, (double)row->blocked * 1e-9, (long long)row->bytes, (double)row->pickle * 1e-9,
                         (const char *)row->waits, (Py_ssize_t)sizeof row->waits, level_tuple(row->level), made ? made->co_filename : Py_None,
                         made ? PyCode_Addr2Line(made, row->made_at) : 0);
}

PyObject *syncs_rows(const struct syncs *syncs)
{
    PyObject *list = PyList_New(0);
    for (int i = 0; list && syncs && i < N_SYNCS; i++) {
        if (syncs->rows[i].n || syncs->rows[i].contended || syncs->rows[i].bytes)
            list_add(&list, as_tuple(&syncs->rows[i]));
    }
    return list;
}
