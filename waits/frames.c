/* Where a thread is, in the cell and really, and what object it called there, without the GIL.
 *
 * A thread's own frames stand still while it waits, and the code that they run is
 * alive with them, so they can be read without the GIL and without touching a
 * reference count. Their layout is the interpreter's own affair: versions that we do
 * not know have no lines.
 */
#define PY_SSIZE_T_CLEAN
#define Py_BUILD_CORE 1
#include <Python.h>

/* Without a GIL, from 3.14 on each thread has its own copies of bytecode, which others may move. */
#ifdef Py_GIL_DISABLED
#define FIRST_UNKNOWN 0x030E0000
#else
#define FIRST_UNKNOWN 0x03100000
#endif

#if PY_VERSION_HEX < FIRST_UNKNOWN
#define FRAMES_ARE_KNOWN
#if PY_VERSION_HEX >= 0x030E0000
#include <internal/pycore_interpframe.h>
#else
#include <internal/pycore_frame.h>
#endif
#endif

#include "waits.h"

#define DEEPEST 200
#define MOST_LIBRARIES 16

static struct {
    PyObject *filename;
    int32_t kind;
} libraries[MOST_LIBRARIES];
static int n_libraries;

static PyObject *between; /* a file of multiprocessing's, and how much of its name is the folder's */
static Py_ssize_t between_length;

/* By one thread, before any run. What is registered stays for good. */
int frame_library(PyObject *filename, int32_t kind)
{
    if (n_libraries == MOST_LIBRARIES)
        return -1;
    Py_ssize_t last = PyUnicode_FindChar(filename, '/', 0, PyUnicode_GET_LENGTH(filename), -1), part = 15; /* "multiprocessing" */
    if (last > part && !between) {
        PyObject *folder = PyUnicode_Substring(filename, last - part, last);
        if (folder && !PyUnicode_CompareWithASCIIString(folder, "multiprocessing")) {
            between = Py_NewRef(filename);
            between_length = last + 1;
        }
        Py_XDECREF(folder);
    }
    libraries[n_libraries].filename = Py_NewRef(filename);
    libraries[n_libraries++].kind = kind;
    return 0;
}

#define MOST_LOOPS 16

static struct {
    PyObject *filename, *name;
} loops[MOST_LOOPS];
static int n_loops;

/* The same of a function in which the workers of a pool wait for work. */
int frame_loop(PyObject *filename, PyObject *name)
{
    if (n_loops == MOST_LOOPS)
        return -1;
    loops[n_loops].filename = Py_NewRef(filename);
    loops[n_loops++].name = Py_NewRef(name);
    return 0;
}

/* Who is stopped with all others (for the collector, without a GIL) parks at its own state. */
bool thread_is_stopped_at(const struct lane *lane, uint64_t address)
{
#if PY_VERSION_HEX >= 0x030D0000
    const PyThreadState *state = lane->thread_state;
    return state && address == (uint64_t)(uintptr_t)&state->state;
#else
    (void)lane;
    (void)address;
    return false;
#endif
}

#ifdef FRAMES_ARE_KNOWN

#if PY_VERSION_HEX >= 0x030E0000
static PyObject *from_ref(_PyStackRef ref)
{
    return PyStackRef_IsNull(ref) || PyStackRef_IsTaggedInt(ref) ? NULL : PyStackRef_AsPyObjectBorrow(ref);
}
#define CODE(frame) from_ref((frame)->f_executable)
#define LOCAL(frame, i) from_ref((frame)->localsplus[i])
#elif PY_VERSION_HEX >= 0x030D0000
#define CODE(frame) ((frame)->f_executable)
#define LOCAL(frame, i) ((frame)->localsplus[i])
#else
#define CODE(frame) ((PyObject *)(frame)->f_code)
#define LOCAL(frame, i) ((frame)->localsplus[i])
#endif

#if PY_VERSION_HEX >= 0x030D0000
#define CURRENT(state) ((state)->current_frame)
#else
#define CURRENT(state) ((state)->cframe->current_frame)
#endif

#define FIRST(frame) LOCAL(frame, 0)

static bool same_text(PyObject *one, PyObject *other)
{
    if (one == other)
        return true;
    Py_ssize_t length = PyUnicode_GET_LENGTH(one);
    return length == PyUnicode_GET_LENGTH(other) && PyUnicode_KIND(one) == PyUnicode_KIND(other) &&
           !memcmp(PyUnicode_DATA(one), PyUnicode_DATA(other), (size_t)length * PyUnicode_KIND(one));
}

static PyCodeObject *code_of(_PyInterpreterFrame *frame)
{
#if PY_VERSION_HEX >= 0x030C0000 && PY_VERSION_HEX < 0x030D0000
    if (frame->owner == FRAME_OWNED_BY_CSTACK)
        return NULL; /* between Python code and C that called it: this version has code there, which is on no line */
#endif
    PyObject *executable = CODE(frame);
    if (!executable || !PyCode_Check(executable))
        return NULL;
    PyCodeObject *code = (PyCodeObject *)executable;
    return code->co_filename == code->co_name ? NULL : code; /* what calls an object's __init__ in the interpreter: it is in no file */
}

/* Of no cell: nothing can be told. */
static _PyInterpreterFrame *innermost(struct lane *lane)
{
    PyThreadState *state = lane->thread_state;
    return state && lane->filename ? CURRENT(state) : NULL;
}

static int32_t line_in(_PyInterpreterFrame *frame, PyCodeObject *code)
{
    int line = PyCode_Addr2Line(code, _PyInterpreterFrame_LASTI(frame) * (int)sizeof(_Py_CODEUNIT));
    return line > 0 ? line : 0; /* what the compiler adds, behind a with block say, is on no line */
}

static int32_t line_from(struct lane *lane, _PyInterpreterFrame *frame)
{
    for (int depth = 0; frame && depth < DEEPEST; frame = frame->previous, depth++) {
        PyCodeObject *code = code_of(frame);
        if (code && same_text(code->co_filename, lane->filename))
            return line_in(frame, code);
    }
    return 0;
}

static void expression_in(_PyInterpreterFrame *frame, PyCodeObject *code, struct site *site)
{
    int line, begin, last_line, end;
    if (!PyCode_Addr2Location(code, _PyInterpreterFrame_LASTI(frame) * (int)sizeof(_Py_CODEUNIT), &line, &begin, &last_line, &end))
        return;
    if (line == site->at && begin >= 0 && end >= 0) {
        site->begin = begin;
        site->end = last_line == line ? end : 0;
    }
}

/* Of ``Barrier.wait``, the first word. */
static void class_of(PyCodeObject *code, char *of)
{
    PyObject *name = code->co_qualname;
    of[0] = 0;
    if (!PyUnicode_IS_COMPACT_ASCII(name))
        return;
    const char *text = PyUnicode_DATA(name), *dot = strchr(text, '.');
    size_t length = dot ? (size_t)(dot - text) : strlen(text);
    if (length < LONGEST_OF) {
        memcpy(of, text, length);
        of[length] = 0;
    }
}

static bool in_library(_PyInterpreterFrame *frame, PyCodeObject *code, struct site *site)
{
    for (int i = 0; i < n_libraries; i++) {
        if (!same_text(code->co_filename, libraries[i].filename))
            continue;
        if (libraries[i].kind != SITE_PASS && code->co_argcount) {
            site->object = (uint64_t)(uintptr_t)FIRST(frame);
            site->kind = libraries[i].kind;
            class_of(code, site->of);
        }
        return true;
    }
    return false;
}

static bool is_called(PyCodeObject *code, const char *name)
{
    return PyUnicode_CompareWithASCIIString(code->co_name, name) == 0;
}

static bool is_condition(PyCodeObject *method)
{
    PyObject *name = method->co_qualname;
    return PyUnicode_CompareWithASCIIString(name, "Condition.wait") == 0 || PyUnicode_CompareWithASCIIString(name, "Condition.wait_for") == 0;
}

static int kind_in_library(PyCodeObject *code)
{
    for (int i = 0; i < n_libraries; i++)
        if (same_text(code->co_filename, libraries[i].filename))
            return libraries[i].kind;
    return SITE_KEEP;
}

/* A shared value's attributes are properties, made of a text: what they do is done where they are looked at. */
static bool is_property(_PyInterpreterFrame *frame, PyCodeObject *code)
{
    PyObject *name = code->co_filename;
    if (PyUnicode_GET_LENGTH(name) != 8 || PyUnicode_CompareWithASCIIString(name, "<string>") || !code->co_argcount || !FIRST(frame))
        return false;
    return !strncmp(Py_TYPE(FIRST(frame))->tp_name, "Synchronized", 12);
}

static PyObject *own_folder; /* of the files that are ours */

void frame_own(PyObject *folder)
{
    Py_XSETREF(own_folder, Py_NewRef(folder));
}

static bool begins_with(PyObject *name, PyObject *folder, Py_ssize_t length)
{
    return folder && PyUnicode_GET_LENGTH(name) >= length && PyUnicode_KIND(name) == PyUnicode_KIND(folder) &&
           !memcmp(PyUnicode_DATA(name), PyUnicode_DATA(folder), (size_t)length * PyUnicode_KIND(name));
}

/* Ours, or the import system's, whose locks nobody can do anything about; one of these is a signal, which the same thread takes twice. */
static bool is_own(PyCodeObject *code)
{
    static PyObject *imports;
    if (!imports && !(imports = PyUnicode_InternFromString("<frozen importlib")))
        PyErr_Clear();
    return (own_folder && begins_with(code->co_filename, own_folder, PyUnicode_GET_LENGTH(own_folder))) ||
           (imports && begins_with(code->co_filename, imports, PyUnicode_GET_LENGTH(imports)));
}

static bool is_between(PyCodeObject *code)
{
    return begins_with(code->co_filename, between, between_length);
}

/* Where threads begin: what is called there is what somebody gave the thread to do. */
static bool is_start(PyCodeObject *code)
{
    return is_called(code, "run") && PyUnicode_CompareWithASCIIString(code->co_qualname, "Thread.run") == 0 && kind_in_library(code) != SITE_KEEP;
}

/* The outermost of the library's frames that has a first argument is the method that somebody called of a thing. */
static struct thing thing_of(struct lane *lane, PyObject *lock)
{
    struct thing thing = {.object = (uint64_t)(uintptr_t)lock, .is_held = true};
    _PyInterpreterFrame *frame = CURRENT((PyThreadState *)lane->thread_state);
    for (int depth = 0; frame && depth < DEEPEST; frame = frame->previous) {
        PyCodeObject *code = code_of(frame);
        if (!code)
            continue;
        int kind = is_property(frame, code) ? SITE_PASS : kind_in_library(code);
        if (kind == SITE_KEEP || is_start(code)) {
            thing.ours = is_own(code);
            thing.caller = (PyObject *)code;
            thing.at = _PyInterpreterFrame_LASTI(frame) * (int)sizeof(_Py_CODEUNIT);
            break;
        }
        if (!depth++) {
            thing.inner = code;
            thing.restores = is_called(code, "_acquire_restore");
            thing.within = thing.restores || is_called(code, "wait") || is_called(code, "notify") || is_called(code, "_stop");
        }
        if (kind != SITE_PASS && code->co_argcount) {
            thing.object = (uint64_t)(uintptr_t)FIRST(frame);
            thing.method = code;
        }
    }
    if (thing.method) {
        thing.is_held = !thing.within && is_called((PyCodeObject *)thing.method, "__enter__");
        thing.resumes = thing.within && is_condition((PyCodeObject *)thing.method);
        thing.between = is_between((PyCodeObject *)thing.method);
    }
    return thing;
}

/* The condition of which somebody outside of the library called a method that wakes others. */
static PyObject *notified_in(struct lane *lane)
{
    PyObject *condition = NULL;
    _PyInterpreterFrame *frame = CURRENT((PyThreadState *)lane->thread_state);
    for (int depth = 0; frame && depth < DEEPEST; frame = frame->previous) {
        PyCodeObject *code = code_of(frame);
        if (!code)
            continue;
        if (kind_in_library(code) == SITE_KEEP)
            return is_own(code) ? NULL : condition;
        if (is_called(code, "notify") || is_called(code, "notify_all"))
            condition = FIRST(frame);
        else if (depth || !is_called(code, "_is_owned"))
            return NULL;
        depth++;
    }
    return NULL;
}

static _PyInterpreterFrame *frame_at(struct lane *lane, int depth)
{
    _PyInterpreterFrame *frame = CURRENT((PyThreadState *)lane->thread_state);
    while (frame && (!code_of(frame) || depth--))
        frame = frame->previous;
    return frame;
}

static const void *code_between(struct lane *lane, int n_arguments, PyObject **last)
{
    _PyInterpreterFrame *frame = frame_at(lane, 0);
    PyCodeObject *code = frame ? code_of(frame) : NULL;
    if (!code || !is_between(code) || code->co_argcount < n_arguments || n_arguments < 1)
        return NULL;
    *last = LOCAL(frame, n_arguments - 1);
    return code;
}

static bool is_users(struct lane *lane, int depth)
{
    _PyInterpreterFrame *frame = frame_at(lane, depth);
    PyCodeObject *code = frame ? code_of(frame) : NULL;
    return code && !is_between(code) && !is_own(code);
}

/* The innermost frame outside of the standard library's own locks and queues, and of our own files. */
static struct place place_in(struct lane *lane)
{
    _PyInterpreterFrame *frame = CURRENT((PyThreadState *)lane->thread_state);
    for (int depth = 0; frame && depth < DEEPEST; frame = frame->previous, depth++) {
        PyCodeObject *code = code_of(frame);
        if (code && (is_start(code) || (kind_in_library(code) == SITE_KEEP && !is_own(code) && !is_property(frame, code))))
            return (struct place){(PyObject *)code, line_in(frame, code)};
    }
    return (struct place){NULL, 0};
}

static void short_text(PyObject *name, const char *until, char *to)
{
    to[0] = 0;
    if (!PyUnicode_IS_COMPACT_ASCII(name))
        return;
    const char *text = PyUnicode_DATA(name), *end = until ? strstr(text, until) : NULL;
    size_t length = end ? (size_t)(end - text) : strlen(text);
    if (length < LONGEST_OF) {
        memcpy(to, text, length);
        to[length] = 0;
    }
}

static void names_of(const struct thing *thing, char *of, char *name)
{
    PyCodeObject *code = (PyCodeObject *)thing->method;
    if (code) {
        short_text(code->co_qualname, ".", of);
        short_text(code->co_name, NULL, name);
    }
}

static bool is_loop(PyCodeObject *code)
{
    for (int i = 0; i < n_loops; i++)
        if (same_text(code->co_qualname, loops[i].name) && same_text(code->co_filename, loops[i].filename))
            return true;
    return false;
}

/* Calls of the standard library's own locks and queues lead through frames of theirs: the
 * outermost one of these is the method that somebody called, its first argument the thing, and who called it is where the wait is.
 * Where that is a pool's own loop, the thing is the work that may come. */
static struct site site_of(struct lane *lane)
{
    struct site site = {.kind = SITE_KEEP};
    _PyInterpreterFrame *frame = innermost(lane);
    for (int depth = 0; frame && depth < DEEPEST; frame = frame->previous, depth++) {
        PyCodeObject *code = code_of(frame);
        if (code && is_loop(code))
            site.kind = K_WORK;
        else if (!code || (!is_start(code) && in_library(frame, code, &site)) || is_property(frame, code))
            continue;
        site.at = line_in(frame, code);
        site.file = site.at ? file_in(lane, code->co_filename) : 0;
        expression_in(frame, code, &site);
        site.line = same_text(code->co_filename, lane->filename) ? site.at : line_from(lane, frame->previous);
        break;
    }
    return site;
}

#else

static struct site site_of(struct lane *lane)
{
    (void)lane;
    return (struct site){.kind = SITE_KEEP};
}

#endif

struct thing thing_here(struct lane *lane, PyObject *lock)
{
#ifdef FRAMES_ARE_KNOWN
    if (lane->thread_state)
        return thing_of(lane, lock);
#endif
    (void)lane;
    return (struct thing){.object = (uint64_t)(uintptr_t)lock, .is_held = true};
}

PyObject *notified_here(struct lane *lane)
{
#ifdef FRAMES_ARE_KNOWN
    if (lane->thread_state)
        return notified_in(lane);
#endif
    (void)lane;
    return NULL;
}

const void *frame_between(struct lane *lane, int n_arguments, PyObject **last)
{
#ifdef FRAMES_ARE_KNOWN
    if (lane->thread_state)
        return code_between(lane, n_arguments, last);
#endif
    (void)lane, (void)n_arguments, (void)last;
    return NULL;
}

bool frame_is_users(struct lane *lane, int depth)
{
#ifdef FRAMES_ARE_KNOWN
    if (lane->thread_state)
        return is_users(lane, depth);
#endif
    (void)lane, (void)depth;
    return false;
}

/* A thread that something has ended on its way to close its account is gone, and its frames with it. To be asked by who has the GIL. */
bool lane_is_alive(const struct lane *lane)
{
#ifdef Py_GIL_DISABLED
    return lane == my_lane;
#else
    PyThreadState *each = lane == my_lane ? NULL : PyInterpreterState_ThreadHead(PyInterpreterState_Get());
    while (each && each != lane->thread_state)
        each = PyThreadState_Next(each);
    return lane->thread_state && (each || lane == my_lane);
#endif
}

struct place frame_place(struct lane *lane)
{
#ifdef FRAMES_ARE_KNOWN
    if (lane_is_alive(lane))
        return place_in(lane);
#endif
    (void)lane;
    return (struct place){NULL, 0};
}

/* As much of a text as there is room for, and of each character all bytes. */
static void begin_of(const char *text, char *to)
{
    size_t length = strnlen(text, LONGEST_OF - 1);
    while (length && text[length] && ((unsigned char)text[length] & 0xc0) == 0x80)
        length--;
    memcpy(to, text, length);
    to[length] = 0;
}

void thing_names(const struct thing *thing, char *of, char *name)
{
    of[0] = name[0] = 0;
    if (thing->name) {
        begin_of(thing->of, of);
        begin_of(thing->name, name);
        return;
    }
#ifdef FRAMES_ARE_KNOWN
    names_of(thing, of, name);
#else
    (void)thing;
#endif
}

struct site frame_site(struct lane *lane)
{
    return lane == my_lane ? site_of(lane) : (struct site){.kind = SITE_KEEP};
}

/* No other thread's frames move while we have the GIL; without one, they may. */
struct site frame_site_elsewhere(struct lane *copy)
{
    return lane_is_alive(copy) ? site_of(copy) : (struct site){.kind = SITE_KEEP};
}
