/* Queues that are in C, and joins that are: their own methods, replaced while a run is on as those of locks are. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "waits.h"

#include <string.h>

enum { PUT, GET, PUT_NOWAIT, GET_NOWAIT, QSIZE, JOIN, N_CALLS };

#define FAST (METH_FASTCALL | METH_KEYWORDS)
static const struct {
    const char *module, *type, *name;
    int flags;
} calls[N_CALLS] = {
    [PUT] = {"_queue", "SimpleQueue", "put", FAST},
    [GET] = {"_queue", "SimpleQueue", "get", METH_METHOD | FAST},
    [PUT_NOWAIT] = {"_queue", "SimpleQueue", "put_nowait", FAST},
    [GET_NOWAIT] = {"_queue", "SimpleQueue", "get_nowait", METH_METHOD | FAST},
    [QSIZE] = {"_queue", "SimpleQueue", "qsize", METH_NOARGS},
    [JOIN] = {"_thread", "_ThreadHandle", "join", METH_VARARGS}, /* since 3.13; before, a thread is joined by a lock */
};

static PyMethodDef *found[N_CALLS];
static PyCFunction real[N_CALLS];
static PyObject *empty, *slice; /* queue.Empty, and how long a wait is that can be ended */

typedef PyObject *(*put_function)(PyObject *, PyObject *const *, Py_ssize_t, PyObject *);
typedef PyObject *(*get_function)(PyObject *, PyTypeObject *, PyObject *const *, Py_ssize_t, PyObject *);

static struct thing queue_of(struct lane *lane, PyObject *queue, int call)
{
    struct thing thing = thing_here(lane, queue);
    thing.object = (uint64_t)(uintptr_t)queue;
    thing.method = found[call];
    thing.of = "SimpleQueue";
    thing.name = calls[call].name;
    return thing;
}

static void did(struct sync_row *row, int64_t wait)
{
    row->n++;
    if (wait > 0)
        holds_waited(row, wait);
    if (row->level)
        level_note(row->level, clock_now());
}

static PyObject *putting(int call, PyObject *queue, PyObject *const *arguments, Py_ssize_t n, PyObject *keywords)
{
    PyObject *outcome = ((put_function)(void (*)(void))real[call])(queue, arguments, n, keywords);
    struct lane *lane = outcome ? holds_watched() : NULL;
    if (lane) {
        struct thing thing = queue_of(lane, queue, call);
        if (!thing.ours)
            did(holds_row(lane->syncs, &thing), 0);
        holds_wake(lane, queue);
    }
    return outcome;
}

static PyObject *on_put(PyObject *queue, PyObject *const *arguments, Py_ssize_t n, PyObject *keywords)
{
    return putting(PUT, queue, arguments, n, keywords);
}

static PyObject *on_put_nowait(PyObject *queue, PyObject *const *arguments, Py_ssize_t n, PyObject *keywords)
{
    return putting(PUT_NOWAIT, queue, arguments, n, keywords);
}

static bool is_empty(PyObject *queue)
{
    PyObject *size = real[QSIZE](queue, NULL);
    bool is = size && PyLong_CheckExact(size) && PyLong_AsLong(size) == 0;
    Py_XDECREF(size);
    PyErr_Clear();
    return is;
}

/* Who is told to end does, also where what it waited for has just come, by another one that was. */
static PyObject *or_ended(struct lane *lane, PyObject *outcome)
{
    if (outcome && holds_ended(lane->syncs))
        Py_CLEAR(outcome);
    return outcome;
}

/* Until there is something, or somebody ends that; the slices are one wait. */
static PyObject *by_slices(struct lane *lane, get_function get, PyObject *queue, PyTypeObject *type)
{
    PyObject *arguments[] = {Py_True, slice}, *outcome;
    lane->continues = false;
    while (!(outcome = get(queue, type, arguments, 2, NULL)) && PyErr_ExceptionMatches(empty)) {
        PyErr_Clear();
        lane->continues = true;
        if (holds_ended(lane->syncs) || !holds_look_around(lane) || holds_ended(lane->syncs))
            break;
    }
    lane->continues = false;
    return or_ended(lane, outcome);
}

static PyObject *getting(int call, PyObject *queue, PyTypeObject *type, PyObject *const *arguments, Py_ssize_t n, PyObject *keywords)
{
    get_function get = (get_function)(void (*)(void))real[call];
    struct lane *lane = holds_watched();
    struct thing thing = lane ? queue_of(lane, queue, call) : (struct thing){.ours = true};
    if (thing.ours)
        return get(queue, type, arguments, n, keywords);
    struct sync_row *row = holds_row(lane->syncs, &thing);
    int64_t wait = 0;
    PyObject *outcome;
    if (call == GET && is_empty(queue)) {
        bool patient = !keywords && (!n || (n == 1 && arguments[0] == Py_True));
        struct want want = holds_want(lane, &thing, queue, NULL, row);
        lane->syncs->now.patient = patient;
        outcome = patient ? by_slices(lane, get, queue, type) : get(queue, type, arguments, n, keywords);
        wait = holds_wanted(lane, want, outcome);
    } else
        outcome = get(queue, type, arguments, n, keywords);
    if (outcome && holds_watched() == lane)
        did(row, wait);
    return outcome;
}

static PyObject *on_get(PyObject *queue, PyTypeObject *type, PyObject *const *arguments, Py_ssize_t n, PyObject *keywords)
{
    return getting(GET, queue, type, arguments, n, keywords);
}

static PyObject *on_get_nowait(PyObject *queue, PyTypeObject *type, PyObject *const *arguments, Py_ssize_t n, PyObject *keywords)
{
    return getting(GET_NOWAIT, queue, type, arguments, n, keywords);
}

static bool is_done(PyObject *handle)
{
    PyObject *done = PyObject_CallMethod(handle, "is_done", NULL);
    bool is = done == Py_True;
    Py_XDECREF(done);
    PyErr_Clear();
    return is;
}

/* The same of a thread's end; of a slice nobody tells whether that has come. */
static PyObject *joined_by_slices(struct lane *lane, PyObject *handle, PyObject *whole)
{
    PyObject *one_slice = PyTuple_Pack(1, slice), *outcome = NULL;
    lane->continues = false;
    while (one_slice && (outcome = real[JOIN](handle, one_slice)) && !is_done(handle)) {
        Py_CLEAR(outcome);
        lane->continues = true;
        if (holds_ended(lane->syncs) || !holds_look_around(lane) || holds_ended(lane->syncs))
            break;
    }
    Py_XDECREF(one_slice);
    if (outcome)
        Py_SETREF(outcome, real[JOIN](handle, whole));
    lane->continues = false;
    return or_ended(lane, outcome);
}

static PyObject *on_join(PyObject *handle, PyObject *arguments)
{
    struct lane *lane = holds_watched();
    struct thing thing = lane ? thing_here(lane, handle) : (struct thing){.ours = true};
    if (thing.ours || !thing.method)
        return real[JOIN](handle, arguments);
    struct sync_row *row = holds_row(lane->syncs, &thing);
    struct want want = holds_want(lane, &thing, handle, holds_thread(thing.object), NULL);
    bool patient = slice && (!PyTuple_GET_SIZE(arguments) || PyTuple_GET_ITEM(arguments, 0) == Py_None);
    lane->syncs->now.patient = patient;
    PyObject *outcome = patient ? joined_by_slices(lane, handle, arguments) : real[JOIN](handle, arguments);
    int64_t wait = holds_wanted(lane, want, outcome);
    if (outcome && holds_watched() == lane && (patient || is_done(handle)))
        did(row, wait);
    return outcome;
}

static PyCFunction ours(int call)
{
    switch (call) {
    case PUT:
        return (PyCFunction)(void (*)(void))on_put;
    case GET:
        return (PyCFunction)(void (*)(void))on_get;
    case PUT_NOWAIT:
        return (PyCFunction)(void (*)(void))on_put_nowait;
    case GET_NOWAIT:
        return (PyCFunction)(void (*)(void))on_get_nowait;
    default:
        return (PyCFunction)on_join;
    }
}

static PyMethodDef *definition(PyObject *type, int call)
{
    PyObject *method = type && PyType_Check(type) ? PyDict_GetItemString(((PyTypeObject *)type)->tp_dict, calls[call].name) : NULL;
    PyMethodDef *definition = method && Py_IS_TYPE(method, &PyMethodDescr_Type) ? ((PyMethodDescrObject *)method)->d_method : NULL;
    return definition && definition->ml_flags == calls[call].flags ? definition : NULL;
}

static PyObject *type_of(const char *module, const char *name)
{
    PyObject *from = PyImport_ImportModule(module);
    PyObject *type = from ? PyObject_GetAttrString(from, name) : NULL;
    Py_XDECREF(from);
    PyErr_Clear();
    return type;
}

static void replace(int call)
{
    real[call] = found[call]->ml_meth;
    if (call != QSIZE)
        found[call]->ml_meth = ours(call);
}

PyTypeObject *simple_on(void)
{
    PyObject *queue = type_of("_queue", "SimpleQueue"), *handle = type_of("_thread", "_ThreadHandle");
    if (!slice)
        slice = PyFloat_FromDouble(0.1);
    if (!empty)
        empty = type_of("_queue", "Empty");
    bool known = slice && empty;
    for (int call = PUT; call <= QSIZE; call++)
        known &= (found[call] = definition(queue, call)) != NULL;
    for (int call = PUT; known && call <= QSIZE; call++)
        replace(call);
    if (!known)
        memset(found, 0, sizeof found);
    else
        levels_simple(real[QSIZE]);
    if ((found[JOIN] = definition(handle, JOIN)))
        replace(JOIN);
    Py_XDECREF(handle); /* their modules have them */
    Py_XDECREF(queue);
    PyErr_Clear();
    return known ? (PyTypeObject *)queue : NULL;
}

void simple_off(void)
{
    for (int call = 0; call < N_CALLS; call++)
        if (found[call])
            found[call]->ml_meth = real[call];
}
