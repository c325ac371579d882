/* The same of multiprocessing's locks: who has them, how often, and for how long.
 *
 * All of multiprocessing's primitives are made of one type, whose methods are replaced while a run is on, in place: what bound them
 * before calls ours as well. Which primitive that was, and which of its methods, the frames tell. A lock is known by the address of
 * its semaphore, which forks share; others, which have it elsewhere, know it by its name.
 *
 * The C library maps a page for each semaphore, of which it uses the first bytes. What lies behind them is shared by all who have the
 * semaphore: there we write which worker has it, and where it took it, as nobody else can tell.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "waits.h"

#include <limits.h>
#include <string.h>
#include <structmember.h>
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

/* Who has it: its rank, plus 1, a line, and 24 bits of what is as good as the file's name; 0: nobody is known to. Or who has let go of it. */
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
static uint64_t *place_of_mark(PyObject *lock)
{
    char *handle = AT(char *, lock, HANDLE);
    return handle && !((uintptr_t)handle % 4096) && is_lock(lock) ? (uint64_t *)(handle + BEHIND) : NULL;
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
    uint64_t *mark = place_of_mark(lock);
    return mark ? __atomic_load_n(mark, __ATOMIC_RELAXED) : 0;
}

static void put_mark(PyObject *lock, uint64_t word)
{
    uint64_t *mark = place_of_mark(lock);
    if (mark)
        __atomic_store_n(mark, word, __ATOMIC_RELAXED);
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
    lane->syncs->woken = 0; /* when, is not known */
    handovers_note(lane->syncs, now - wait, now, row, row->blocker ? waker_of(lane, &bare, then) : NULL, got);
}

static void hold(struct lane *lane, PyObject *lock, const struct thing *thing, struct sync_row *row)
{
    struct syncs *syncs = lane->syncs;
    if (!is_queue(row->of, row->name))
        put_mark(lock, mark_by(lane->rank, line_of(syncs, thing->caller, thing->at)));
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
                          .blocked = holds_blocked(lane), .depth = 1, .whole = true, .own = true, .thing = thing->object, .level = -1};
}

/* An acquisition, or one that was given up, has waited for so long. */
static void tried(struct lane *lane, PyObject *lock, int64_t wait, uint64_t mark, bool got)
{
    uint64_t then = mark_of(lock);
    struct held *held = got && is_recursive(lock) ? holds_held(lane->syncs, lock) : NULL;
    if (held) {
        held->depth++;
        held->row->n += !begins(held->row->name, "wait");
        return;
    }
    if (!got && wait <= 0)
        return;
    struct act act = act_of(lane, lock);
    if (act.thing.ours)
        return;
    struct sync_row *row = row_for(lane->syncs, &act);
    row->n += got && counts(lock, &act.thing, act.of, act.name);
    if (wait > 0) {
        holds_waited(row, wait);
        handed(lane, &act, wait, mark, then, got);
    }
    if (got && act.thing.is_held)
        hold(lane, lock, &act.thing, row);
}

static PyObject *on_acquire(PyObject *lock, PyObject *const *arguments, Py_ssize_t n_arguments, PyObject *keywords)
{
    fast_keywords acquire = (fast_keywords)(void (*)(void))real[ACQUIRE];
    struct lane *lane = holds_watched();
    if (!lane)
        return acquire(lock, arguments, n_arguments, keywords);
    int64_t before = lane->spent[LOCK_WAIT];
    uint64_t mark = mark_of(lock);
    PyObject *outcome = acquire(lock, arguments, n_arguments, keywords);
    if (outcome && holds_watched() == lane)
        tried(lane, lock, lane->spent[LOCK_WAIT] - before, mark, outcome == Py_True);
    return outcome;
}

static PyObject *on_enter(PyObject *lock, PyObject *unused)
{
    struct lane *lane = holds_watched();
    if (!lane)
        return real[ENTER](lock, unused);
    int64_t before = lane->spent[LOCK_WAIT];
    uint64_t mark = mark_of(lock);
    PyObject *outcome = real[ENTER](lock, unused);
    if (outcome && holds_watched() == lane)
        tried(lane, lock, lane->spent[LOCK_WAIT] - before, mark, true);
    return outcome;
}

/* Before it lets go: behind that, somebody else may have it. */
static void lets_go(struct lane *lane, PyObject *lock)
{
    const struct held *held = holds_held(lane->syncs, lock);
    if (held ? held->depth == 1 : !is_recursive(lock))
        put_mark(lock, lane->rank < 0 || lane->rank > MOST_RANKS ? 0 : HAS_LET_GO | (uint64_t)(lane->rank + 1) << 48);
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

void semlocks_on(void)
{
    PyObject *module = is_on ? NULL : PyImport_ImportModule("_multiprocessing");
    PyObject *type = module ? PyObject_GetAttrString(module, "SemLock") : NULL;
    static const PyCFunction ours[N_METHODS] = {(PyCFunction)(void (*)(void))on_acquire, on_enter, on_release, (PyCFunction)(void (*)(void))on_leave};
    if (type && PyType_Check(type) && find_members((PyTypeObject *)type) && find_methods((PyTypeObject *)type)) {
        for (int i = 0; i < N_METHODS; i++)
            found[i]->ml_meth = ours[i];
        is_on = true; /* the type stays: its module is never unloaded */
    }
    Py_XDECREF(type);
    Py_XDECREF(module);
    PyErr_Clear();
}

void semlocks_off(void)
{
    for (int i = 0; is_on && i < N_METHODS; i++)
        found[i]->ml_meth = real[i];
    is_on = false;
}
