/* Where locks were made, and what is made of locks, while a run is on and by its workers: by replaced makers of locks.
 *
 * It goes by the address of a thing, and is forgotten when another one is made there. With the GIL.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "waits.h"

#include <string.h>

#define N_MADE 16384 /* of more, those are forgotten that come in others' way */
#define MOST_TRIES 16
#define N_TYPES 3
#define N_FUNCTIONS 2

static struct made all[N_MADE];
static int n_made;
static bool is_on;

static PyTypeObject *types[N_TYPES];
static newfunc real_new[N_TYPES];        /* for good: a class that was derived meanwhile has ours */
static PyMethodDef *functions[N_FUNCTIONS];
static PyCFunction real_function[N_FUNCTIONS];

static struct made *home_of(uint64_t thing, int tries)
{
    return &all[((thing * UINT64_C(0x9E3779B97F4A7C15) >> 40) + (uint64_t)tries) % N_MADE];
}

/* Where that thing was made, or NULL. */
const struct made *made_of(uint64_t thing)
{
    for (int tries = 0; n_made && tries < MOST_TRIES; tries++)
        if (home_of(thing, tries)->thing == thing)
            return home_of(thing, tries);
    return NULL;
}

static void put(struct made *place, uint64_t thing, PyObject *code, int32_t at)
{
    PyObject *before = place->code;
    n_made += (thing != 0) - (place->thing != 0);
    *place = (struct made){thing, Py_XNewRef(code), at};
    Py_XDECREF(before);
}

static void note(uint64_t thing, PyObject *code, int32_t at)
{
    struct made *free = home_of(thing, 0);
    for (int tries = 0; tries < MOST_TRIES; tries++) {
        struct made *place = home_of(thing, tries);
        if (place->thing == thing) {
            free = place;
            break;
        }
        if (!place->thing && free->thing)
            free = place;
    }
    put(free, thing, code, at);
}

static void forget(uint64_t thing)
{
    struct made *there = (struct made *)made_of(thing);
    if (there)
        put(there, 0, NULL, 0);
}

/* Not within a method of what has been there before: what a queue's first put() makes for its thread is not the queue. */
static bool is_new(const struct thing *thing)
{
    char of[LONGEST_OF], name[LONGEST_OF];
    thing_names(thing, of, name);
    return !thing->method || !strcmp(name, "__init__");
}

static PyObject *was_made(PyObject *lock)
{
    struct lane *lane = lock ? my_lane : NULL;
    if (lane && lane_here() && !lane->depth && lane->in_item) {
        struct thing thing = thing_here(lane, lock);
        if (!thing.ours && !thing.within && thing.caller && is_new(&thing))
            note(thing.object, thing.caller, thing.at);
        else
            forget((uint64_t)(uintptr_t)lock);
    } else if (lock)
        forget((uint64_t)(uintptr_t)lock);
    return lock;
}

static PyObject *new_lock(PyTypeObject *type, PyObject *arguments, PyObject *keywords)
{
    PyObject *lock = real_new[0](type, arguments, keywords);
    return is_on ? was_made(lock) : lock;
}

static PyObject *new_rlock(PyTypeObject *type, PyObject *arguments, PyObject *keywords)
{
    PyObject *lock = real_new[1](type, arguments, keywords);
    return is_on ? was_made(lock) : lock;
}

static PyObject *allocate_lock(PyObject *self, PyObject *unused)
{
    return was_made(real_function[0](self, unused));
}

static PyObject *allocate(PyObject *self, PyObject *unused)
{
    return was_made(real_function[1](self, unused));
}

static PyObject *new_queue(PyTypeObject *type, PyObject *arguments, PyObject *keywords)
{
    PyObject *queue = real_new[2](type, arguments, keywords);
    return is_on ? was_made(queue) : queue;
}

static const newfunc our_new[N_TYPES] = {new_lock, new_rlock, new_queue};
static const PyCFunction our_function[N_FUNCTIONS] = {allocate_lock, allocate};

/* Of the module of locks, a function in C without arguments; NULL: it is not as we know it. */
static PyMethodDef *function_of(PyObject *module, const char *name)
{
    PyObject *function = PyObject_GetAttrString(module, name);
    PyMethodDef *method = function && PyCFunction_CheckExact(function) ? ((PyCFunctionObject *)function)->m_ml : NULL;
    Py_XDECREF(function); /* the module has it */
    PyErr_Clear();
    return method && method->ml_flags == METH_NOARGS ? method : NULL;
}

void made_on(PyObject *module, PyTypeObject *lock, PyTypeObject *rlock, PyTypeObject *queue)
{
    static const char *const names[N_FUNCTIONS] = {"allocate_lock", "allocate"};
    types[0] = lock;
    types[1] = rlock;
    types[2] = queue;
    for (int i = 0; i < N_TYPES; i++)
        if (types[i] && types[i]->tp_new) {
            real_new[i] = types[i]->tp_new;
            types[i]->tp_new = our_new[i];
        }
    for (int i = 0; i < N_FUNCTIONS; i++)
        if ((functions[i] = function_of(module, names[i]))) {
            real_function[i] = functions[i]->ml_meth;
            functions[i]->ml_meth = our_function[i];
        }
    is_on = true;
}

/* ``ours``: this process keeps the table; else, in a fork, it was another one's. */
void made_off(bool ours)
{
    for (int i = 0; is_on && i < N_TYPES; i++)
        if (types[i] && types[i]->tp_new == our_new[i])
            types[i]->tp_new = real_new[i];
    for (int i = 0; is_on && i < N_FUNCTIONS; i++)
        if (functions[i])
            functions[i]->ml_meth = real_function[i];
    is_on = false;
    for (int i = 0; ours && n_made && i < N_MADE; i++)
        Py_XDECREF(all[i].code);
    if (n_made)
        memset(all, 0, sizeof all);
    n_made = 0;
}
