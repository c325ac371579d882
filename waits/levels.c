/* How full things are that let several in: how many of a semaphore's permits are left, how many wait at a barrier, how much is in a queue.
 *
 * It is read right behind each operation, when the thing's own lock is free again, and with the GIL: no other thread has been there
 * meanwhile. One table for all threads of the process; it begins with a run.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "waits.h"

#include <string.h>

#define N_LEVELS 512
#define MOST_TRIES 16

enum sort { SEMAPHORE, BARRIER, QUEUE, SIMPLE };

struct level {
    uint64_t thing; /* 0: free */
    enum sort sort;
    bool seen;
    double capacity; /* NaN: not known */
    int64_t now, low, high, begin, since;
    double area; /* of its level over time, in ns */
    int n_waiting[N_SIDES];
    int64_t waits_since[N_SIDES], waited[N_SIDES];
};

static struct level levels[N_LEVELS];

static const struct {
    const char *of;
    enum sort sort;
    const char *level, *capacity;
} sorts[] = {
    {"Semaphore", SEMAPHORE, "_value", "_initial_value"}, /* if it has that: a bounded one */
    {"BoundedSemaphore", SEMAPHORE, "_value", "_initial_value"},
    {"Barrier", BARRIER, "_count", "_parties"},
    {"Queue", QUEUE, "queue", "maxsize"},
    {"SimpleQueue", SIMPLE, NULL, NULL},
};
#define N_SORTS ((int)(sizeof sorts / sizeof sorts[0]))
static PyObject *names[N_SORTS][2];

/* Of their attributes, for good. */
static bool have_names(void)
{
    for (int sort = 0; sort < N_SORTS; sort++) {
        const char *const texts[] = {sorts[sort].level, sorts[sort].capacity};
        for (int i = 0; i < 2; i++)
            if (texts[i] && !names[sort][i] && !(names[sort][i] = PyUnicode_InternFromString(texts[i]))) {
                PyErr_Clear();
                return false;
            }
    }
    return true;
}

/* Without the thing's class being asked, whose code that could be. */
static PyObject *attribute(PyObject *thing, PyObject *name)
{
    PyObject *value = name && !_PyType_Lookup(Py_TYPE(thing), name) ? PyObject_GenericGetAttr(thing, name) : NULL;
    PyErr_Clear();
    return value;
}

/* A number, or how long a list or a deque is; -1: neither. */
static int64_t amount(PyObject *value)
{
    int64_t found = -1;
    if (value && PyLong_CheckExact(value))
        found = PyLong_AsLongLong(value);
    else if (value && (PyList_CheckExact(value) || !strcmp(Py_TYPE(value)->tp_name, "collections.deque")))
        found = PyObject_Size(value);
    PyErr_Clear();
    return found;
}

static double capacity_of(PyObject *thing, int sort)
{
    PyObject *value = sorts[sort].capacity ? attribute(thing, names[sort][1]) : NULL;
    int64_t found = amount(value);
    Py_XDECREF(value);
    if (sorts[sort].sort != SIMPLE && (!value || (found <= 0 && sorts[sort].sort != QUEUE)))
        return Py_NAN;
    return found > 0 ? (double)found : Py_HUGE_VAL; /* a queue without a bound */
}

static int sort_of(const char *of)
{
    for (int sort = 0; sort < N_SORTS; sort++)
        if (!strcmp(sorts[sort].of, of))
            return sort;
    return -1;
}

/* Of a thing that has such a level, by its class; NULL: it has none, or there is no room. */
struct level *level_of(uint64_t thing, const char *of)
{
    int sort = thing ? sort_of(of) : -1;
    if (sort < 0)
        return NULL;
    uint64_t hash = thing * UINT64_C(0x9E3779B97F4A7C15) >> 40;
    for (uint64_t tries = 0; tries < MOST_TRIES; tries++) {
        struct level *level = &levels[(hash + tries) % N_LEVELS];
        if (level->thing == thing && level->sort == sorts[sort].sort)
            return level;
        if (level->thing)
            continue;
        if (!have_names())
            break;
        *level = (struct level){.thing = thing, .sort = sorts[sort].sort, .capacity = capacity_of((PyObject *)(uintptr_t)thing, sort)};
        return level;
    }
    return NULL;
}

static PyCFunction simple_size;

void levels_simple(PyCFunction size)
{
    simple_size = size;
}

static int64_t read_now(const struct level *level)
{
    static const int as[] = {[SEMAPHORE] = 0, [BARRIER] = 2, [QUEUE] = 3};
    PyObject *thing = (PyObject *)(uintptr_t)level->thing;
    PyObject *value = level->sort == SIMPLE ? simple_size(thing, NULL) : attribute(thing, names[as[level->sort]][0]);
    int64_t found = amount(value);
    Py_XDECREF(value);
    return found;
}

/* Its level at this moment, by a thread that is in one of its methods; -1: not known. */
int64_t level_look(struct level *level)
{
    int64_t now = read_now(level);
    if (now >= 0 && !level->seen) {
        level->seen = true;
        level->now = level->low = level->high = now;
        level->begin = level->since = clock_now();
    }
    return now;
}

/* The same, behind an operation. */
int64_t level_note(struct level *level, int64_t at)
{
    int64_t now = level_look(level);
    if (now < 0)
        return now;
    level->area += (double)level->now * (double)(at - level->since);
    level->now = now;
    level->since = at;
    if (now < level->low)
        level->low = now;
    if (now > level->high)
        level->high = now;
    return now;
}

bool level_is_lent(const struct level *level)
{
    return level->sort == SEMAPHORE;
}

/* Somebody waits until there is room in a queue, or something in it; or does so no longer. */
void level_waits(struct level *level, enum side side, int more)
{
    if (level->sort != QUEUE && level->sort != SIMPLE)
        return;
    int before = level->n_waiting[side];
    level->n_waiting[side] += more;
    if (!before)
        level->waits_since[side] = clock_now();
    else if (!level->n_waiting[side])
        level->waited[side] += clock_now() - level->waits_since[side];
}

PyObject *level_tuple(const struct level *level)
{
    if (!level || !level->seen)
        return Py_NewRef(Py_None);
    return Py_BuildValue("(dLLddddd)", level->capacity, (long long)level->low, (long long)level->high, level->area * 1e-9,
                         (double)(level->since - level->begin) * 1e-9, (double)level->since * 1e-9, (double)level->waited[PUTS] * 1e-9,
                         (double)level->waited[GETS] * 1e-9);
}

void levels_end(void)
{
    memset(levels, 0, sizeof levels);
}
