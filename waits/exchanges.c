/* Messages between processes: how many, how large, what it takes to pickle them, and how long somebody waits for them.
 *
 * multiprocessing sends them by methods written in Python. What stands in the place of one in its class, while a run is on, is an
 * object of this kind: called, it calls the original, and counts. It has no frame, so that neither a traceback nor a tracer sees it.
 * What looks at it from within the library, or from no watched thread, gets the original.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "waits.h"

#include <poll.h>
#include <string.h>

enum role { CALL, DUMPS, LOADS, PROXY, GET, RECEIVE, N_ROLES };

struct exchange {
    PyObject_HEAD
    PyObject *original; /* as the class has it */
    PyObject *bound;    /* what is called: the original, as somebody has found it; in the class, itself */
    PyObject *subject;  /* whose method that is, or NULL */
    vectorcallfunc call;
    int role;
};

static PyTypeObject exchange_type;

static PyObject *made(PyObject *original, PyObject *bound, PyObject *subject, int role, vectorcallfunc call)
{
    struct exchange *exchange = PyObject_GC_New(struct exchange, &exchange_type);
    if (!exchange)
        return NULL;
    exchange->original = Py_NewRef(original);
    exchange->bound = Py_NewRef(bound);
    exchange->subject = Py_XNewRef(subject);
    exchange->role = role;
    exchange->call = call;
    PyObject_GC_Track(exchange);
    return (PyObject *)exchange;
}

/* What an object sent or got: in one of its methods. */
static struct sync_row *row_at(struct lane *lane, PyObject *object, const void *method)
{
    struct thing thing = {.object = (uint64_t)(uintptr_t)object, .method = method, .between = true};
    return holds_row(lane->syncs, &thing);
}

static Py_ssize_t size_of(PyObject *message)
{
    Py_buffer buffer;
    if (PyObject_GetBuffer(message, &buffer, PyBUF_SIMPLE)) {
        PyErr_Clear();
        return 0;
    }
    Py_ssize_t size = buffer.len;
    PyBuffer_Release(&buffer);
    return size;
}

#define FEEDER 9 /* arguments of multiprocessing.queues.Queue._feed; the last of them is the queue's semaphore */

/* Which of the library's methods pickles here, for what; NULL: none of those that we count. */
static struct sync_row *row_of_pickling(struct lane *lane, bool *is_one)
{
    PyObject *object = NULL;
    const void *code = frame_between(lane, 1, &object);
    if (!code || !object)
        return NULL;
    PyObject *name = ((PyCodeObject *)code)->co_name;
#define IS(text) (PyUnicode_CompareWithASCIIString(name, text) == 0)
    *is_one = IS("get") && PyUnicode_CompareWithASCIIString(((PyCodeObject *)code)->co_qualname, "SimpleQueue.get") != 0;
    if (IS("_feed") && !(code = frame_between(lane, FEEDER, &object)))
        return NULL;
    bool alone = IS("send") || IS("recv");
    if (alone ? !frame_is_users(lane, 1) : !IS("_feed") && !IS("get") && !IS("put"))
        return NULL;
#undef IS
    return row_at(lane, object, code);
}

static PyObject *pickling(struct exchange *self, struct lane *lane, PyObject *const *arguments, size_t n_arguments, PyObject *keywords)
{
    bool is_one = false;
    struct sync_row *row = lane ? row_of_pickling(lane, &is_one) : NULL;
    int64_t begin = row ? clock_now() : 0;
    Py_ssize_t size = row && self->role == LOADS && PyVectorcall_NARGS(n_arguments) ? size_of(arguments[0]) : 0;
    PyObject *outcome = PyObject_Vectorcall(self->bound, arguments, n_arguments, keywords);
    if (!row || holds_watched() != lane)
        return outcome;
    row->pickle += clock_now() - begin;
    row->bytes += self->role == DUMPS && outcome ? size_of(outcome) : size;
    row->n += is_one;
    return outcome;
}

static bool is_called(struct exchange *self, const char *name)
{
    PyCodeObject *code = (PyCodeObject *)PyFunction_GET_CODE(self->original);
    return PyUnicode_CompareWithASCIIString(code->co_name, name) == 0;
}

/* Of a call that took bytes, or gave some: how many. */
static Py_ssize_t bytes_of(struct exchange *self, PyObject *const *arguments, Py_ssize_t n_arguments, PyObject *outcome)
{
    if (is_called(self, "recv_bytes"))
        return size_of(outcome);
    if (is_called(self, "recv_bytes_into"))
        return PyLong_AsSsize_t(outcome);
    if (!is_called(self, "send_bytes") || !n_arguments)
        return 0;
    Py_ssize_t size = size_of(arguments[0]);
    if (n_arguments > 2 && PyLong_Check(arguments[2]))
        return PyLong_AsSsize_t(arguments[2]);
    return size - (n_arguments > 1 && PyLong_Check(arguments[1]) ? PyLong_AsSsize_t(arguments[1]) : 0);
}

static int64_t asleep(const struct lane *lane)
{
    return lane->spent[IO_WAIT] + lane->spent[LOCK_WAIT];
}

static PyObject *calling(struct exchange *self, struct lane *lane, PyObject *const *arguments, size_t n_arguments, PyObject *keywords)
{
    if (!lane || !PyFunction_Check(self->original) || !self->subject)
        return PyObject_Vectorcall(self->bound, arguments, n_arguments, keywords);
    int64_t before = asleep(lane);
    PyObject *outcome = PyObject_Vectorcall(self->bound, arguments, n_arguments, keywords);
    if (!outcome || holds_watched() != lane)
        return outcome;
    struct sync_row *row = row_at(lane, self->subject, PyFunction_GET_CODE(self->original));
    int64_t wait = asleep(lane) - before;
    row->n++;
    row->bytes += bytes_of(self, arguments, PyVectorcall_NARGS(n_arguments), outcome);
    if (wait > 0)
        holds_waited(row, wait);
    PyErr_Clear();
    return outcome;
}

/* A call to a Manager, by the name of the method there: all of it is a wait. */
static PyObject *asking(struct exchange *self, struct lane *lane, PyObject *const *arguments, size_t n_arguments, PyObject *keywords)
{
    PyObject *name = PyVectorcall_NARGS(n_arguments) ? arguments[0] : NULL;
    if (!lane || !name || !PyUnicode_CheckExact(name) || !self->subject)
        return PyObject_Vectorcall(self->bound, arguments, n_arguments, keywords);
    int64_t begin = clock_now();
    PyObject *outcome = PyObject_Vectorcall(self->bound, arguments, n_arguments, keywords);
    const char *text = outcome && holds_watched() == lane ? PyUnicode_AsUTF8(name) : NULL;
    if (text) {
        uintptr_t hash = (uintptr_t)PyObject_Hash(name);
        struct thing thing = {.object = (uint64_t)(uintptr_t)self->subject, .method = (void *)hash, .of = "BaseProxy", .name = text, .between = true};
        struct sync_row *row = holds_row(lane->syncs, &thing);
        row->n++;
        holds_waited(row, clock_now() - begin);
    }
    return outcome;
}

/* Of a queue: its semaphore, by which all processes know it; NULL: it is none that we know. */
static PyObject *semaphore_of(PyObject *queue)
{
    static PyObject *names[2];
    PyObject *found = Py_NewRef(queue);
    for (int i = 0; found && i < 2; i++) {
        if (!names[i])
            names[i] = PyUnicode_InternFromString(i ? "_semlock" : "_sem");
        Py_SETREF(found, names[i] ? PyObject_GenericGetAttr(found, names[i]) : NULL);
    }
    PyErr_Clear();
    if (found && !semlocks_key(found))
        Py_CLEAR(found);
    return found;
}

/* Get from a queue what may never come. */
static PyObject *getting(struct exchange *self, struct lane *lane, PyObject *const *arguments, size_t n_arguments, PyObject *keywords)
{
    bool waits = lane && self->subject && PyFunction_Check(self->original) &&
                 semlocks_is_patient(arguments, PyVectorcall_NARGS(n_arguments), keywords);
    PyObject *semaphore = waits ? semaphore_of(self->subject) : NULL;
    if (!semaphore)
        return PyObject_Vectorcall(self->bound, arguments, n_arguments, keywords);
    void *code = PyFunction_GET_CODE(self->original);
    struct getting call = {semaphore, {.object = (uint64_t)(uintptr_t)self->subject, .method = code, .between = true}};
    const struct getting *outer = lane->syncs->gets; /* a signal's handler may get something as well */
    lane->syncs->gets = &call;
    PyObject *outcome = PyObject_Vectorcall(self->bound, arguments, n_arguments, keywords);
    if (holds_watched() == lane)
        lane->syncs->gets = outer;
    Py_DECREF(semaphore);
    return outcome;
}

static bool is_readable(struct lane *lane, int descriptor, int milliseconds)
{
    struct pollfd one = {.fd = descriptor, .events = POLLIN};
    if (!milliseconds)
        return poll(&one, 1, 0) != 0;
    int ready;
    Py_BEGIN_ALLOW_THREADS
    int64_t begin = lane_enter(lane, K_PIPE, NULL);
    ready = poll(&one, 1, milliseconds);
    lane_leave(lane, K_PIPE, (uint64_t)descriptor, begin);
    Py_END_ALLOW_THREADS
    return ready > 0;
}

/* Within such a get(): until there is something to read, or somebody ends that, in slices, which are one wait. False: it was ended. */
static bool has_come(struct exchange *self, struct lane *lane, const struct getting *call)
{
    PyObject *handle = PyObject_GetAttrString(self->subject, "_handle");
    int descriptor = handle ? (int)PyLong_AsLong(handle) : -1;
    Py_XDECREF(handle);
    PyErr_Clear();
    if (descriptor < 0 || is_readable(lane, descriptor, 0))
        return true;
    struct want want = holds_want(lane, &call->queue, call->semaphore, lane, NULL);
    lane->syncs->now.patient = true;
    bool come, whole;
    do {
        come = is_readable(lane, descriptor, SLICE / 1000000);
        lane->continues = true;
        whole = !holds_ended(lane->syncs) && (come || (holds_look_around(lane) && !holds_ended(lane->syncs)));
    } while (whole && !come);
    lane->continues = false;
    holds_wanted(lane, want, come);
    return whole;
}

static PyObject *receiving(struct exchange *self, struct lane *lane, PyObject *const *arguments, size_t n_arguments, PyObject *keywords)
{
    const struct getting *call = lane && lane->syncs && self->subject ? lane->syncs->gets : NULL;
    if (call && !has_come(self, lane, call))
        return NULL;
    return PyObject_Vectorcall(self->bound, arguments, n_arguments, keywords);
}

static PyObject *called(PyObject *callable, PyObject *const *arguments, size_t n_arguments, PyObject *keywords)
{
    struct exchange *self = (struct exchange *)callable;
    struct lane *lane = holds_watched();
    switch (self->role) {
    case CALL: return calling(self, lane, arguments, n_arguments, keywords);
    case PROXY: return asking(self, lane, arguments, n_arguments, keywords);
    case GET: return getting(self, lane, arguments, n_arguments, keywords);
    case RECEIVE: return receiving(self, lane, arguments, n_arguments, keywords);
    default: return pickling(self, lane, arguments, n_arguments, keywords);
    }
}

static PyObject *bound_of(struct exchange *self, PyObject *object, PyObject *type)
{
    descrgetfunc get = Py_TYPE(self->original)->tp_descr_get;
    return get ? get(self->original, object, type) : Py_NewRef(self->original);
}

/* Found in the class: what is to be called. */
static PyObject *get(PyObject *descriptor, PyObject *object, PyObject *type)
{
    struct exchange *self = (struct exchange *)descriptor;
    PyObject *bound = bound_of(self, object, type);
    struct lane *lane = bound && (object || self->role == DUMPS || self->role == LOADS) ? holds_watched() : NULL;
    bool is_users = self->role == CALL || self->role == GET;
    if (!lane || (is_users && !frame_is_users(lane, 0)) || (self->role == RECEIVE && !lane->syncs->gets))
        return bound;
    PyObject *ours = made(self->original, bound, object, self->role, called);
    Py_DECREF(bound);
    return ours;
}

static int traverse(PyObject *object, visitproc visit, void *arg)
{
    struct exchange *self = (struct exchange *)object;
    Py_VISIT(self->original);
    Py_VISIT(self->bound);
    Py_VISIT(self->subject);
    return 0;
}

static int clear(PyObject *object)
{
    struct exchange *self = (struct exchange *)object;
    Py_CLEAR(self->original);
    Py_CLEAR(self->bound);
    Py_CLEAR(self->subject);
    return 0;
}

static void dealloc(PyObject *object)
{
    PyObject_GC_UnTrack(object);
    clear(object);
    PyObject_GC_Del(object);
}

/* What else is asked of a bound method, the bound method has. */
static PyObject *attribute(PyObject *object, PyObject *name)
{
    struct exchange *self = (struct exchange *)object;
    return PyObject_GetAttr(self->bound, name);
}

static PyObject *described(PyObject *object)
{
    struct exchange *self = (struct exchange *)object;
    return PyObject_Repr(self->bound);
}

static PyObject *compared(PyObject *object, PyObject *other, int how)
{
    struct exchange *self = (struct exchange *)object;
    if (!Py_IS_TYPE(other, &exchange_type))
        Py_RETURN_NOTIMPLEMENTED;
    return PyObject_RichCompare(self->bound, ((struct exchange *)other)->bound, how);
}

static Py_hash_t hashed(PyObject *object)
{
    struct exchange *self = (struct exchange *)object;
    return PyObject_Hash(self->bound);
}

static PyTypeObject exchange_type = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "parmagic.record._waits.Exchange",
    .tp_basicsize = sizeof(struct exchange),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL,
    .tp_vectorcall_offset = offsetof(struct exchange, call),
    .tp_call = PyVectorcall_Call,
    .tp_descr_get = get,
    .tp_getattro = attribute,
    .tp_repr = described,
    .tp_richcompare = compared,
    .tp_hash = hashed,
    .tp_traverse = traverse,
    .tp_clear = clear,
    .tp_dealloc = dealloc,
};

PyObject *exchange_new(PyObject *original, int role)
{
    if (role < 0 || role >= N_ROLES) {
        PyErr_SetString(PyExc_ValueError, "there is no such role");
        return NULL;
    }
    return PyType_Ready(&exchange_type) ? NULL : made(original, original, NULL, role, called);
}
