/* parmagic.record._waits: what Python sees.
 *
 * Lanes belong to their threads, and each is used by its own; what all share is behind
 * a lock, as there may be no GIL.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "waits.h"

#include <dlfcn.h>
#include <errno.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* Free-threaded builds run without it, until a module is imported that asks for it. */
#ifdef Py_GIL_DISABLED
#define GIL_IS_OPTIONAL true
#else
#define GIL_IS_OPTIONAL false
#endif

#define ROW (1 + N_STATES)

static PyObject *reason; /* why nothing can be measured here; NULL: not asked yet; None: it can */

/* Lanes are never given back to the system: a thread that outlives its run still has
 * a pointer to its own. They are used again; what their events took is given back. */
static pthread_mutex_t registry = PTHREAD_MUTEX_INITIALIZER;
static struct lane *free_lanes, *attached_lanes;
static uint64_t serials;
static int n_lanes;

static struct lane *used_lane(void)
{
    pthread_mutex_lock(&registry);
    struct lane *lane = free_lanes;
    if (lane)
        free_lanes = lane->next;
    pthread_mutex_unlock(&registry);
    return lane;
}

/* ``box`` is a file that is as large as a lane, or -1: then it is our own memory. */
static struct lane *new_lane(int box)
{
    struct lane *lane = box < 0 ? used_lane() : NULL;
    if (lane)
        return lane;
    if (box >= 0) {
        struct stat about;
        if (fstat(box, &about))
            return NULL;
        if ((size_t)about.st_size < sizeof(struct lane)) {
            errno = EINVAL;
            return NULL;
        }
    }
    lane = mmap(NULL, sizeof *lane, PROT_READ | PROT_WRITE, box >= 0 ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS, box, 0);
    if (lane == MAP_FAILED)
        return NULL;
    lane->shared = box >= 0;
    __atomic_add_fetch(&n_lanes, box < 0, __ATOMIC_RELAXED);
    return lane;
}

static void enlist(struct lane *lane)
{
    pthread_mutex_lock(&registry);
    lane->serial = ++serials;
    lane->next = attached_lanes;
    attached_lanes = lane;
    pthread_mutex_unlock(&registry);
}

/* Who is attached stays so while we have the GIL. */
struct lane *lanes_next(struct lane *lane)
{
    return lane ? lane->next : attached_lanes;
}

static void delist(struct lane *lane)
{
    pthread_mutex_lock(&registry);
    struct lane **each = &attached_lanes;
    while (*each && *each != lane)
        each = &(*each)->next;
    if (*each)
        *each = lane->next;
    pthread_mutex_unlock(&registry);
}

static void old_lane(struct lane *lane)
{
    delist(lane);
    clock_close_schedstat(lane->schedstat, lane->schedstat_file);
    Py_CLEAR(lane->filename);
    PyMem_RawFree(lane->rows);
    syncs_free(lane->syncs);
    lane->syncs = NULL;
    if (lane->shared) {
        lane->rows = NULL;
        munmap(lane, sizeof *lane);
        return;
    }
    uintptr_t page = (uintptr_t)getpagesize();
    uintptr_t from = ((uintptr_t)lane->files + page - 1) & ~(page - 1), to = (uintptr_t)(lane + 1) & ~(page - 1);
    madvise((void *)from, to - from, MADV_DONTNEED); /* pages that are zero again when they are next read */
    memset(lane, 0, from - (uintptr_t)lane);
    pthread_mutex_lock(&registry);
    lane->next = free_lanes;
    free_lanes = lane;
    pthread_mutex_unlock(&registry);
}

/* A forked child is no worker of this run. */
static void in_the_child(void)
{
    if (my_lane)
        core_disarm();
    my_lane = NULL;
    free_lanes = attached_lanes = NULL;
    made_off(false);
    orders_end(false);
    levels_end();
    holds_off();
    holds_in_the_child();
    registry = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
    hooks_in_the_child();
}

/* Load what start() replaces methods of: here nothing is hooked yet, and it is done once. Where there is no such module, there is none. */
static void load(void)
{
    static const char *const names[] = {"_multiprocessing", "_queue"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        PyObject *module = PyImport_ImportModule(names[i]);
        Py_XDECREF(module);
        PyErr_Clear();
    }
}

static const char *prepare(void)
{
    load();
    const char *why = hooks_resolve();
    if (!why)
        why = clock_check();
    if (!why)
        why = objects_check();
    if (!why) {
        got_patch(true);
        if (!gil_find() && !GIL_IS_OPTIONAL)
            why = "this interpreter's GIL was not seen";
        got_patch(false);
    }
    if (!why && pthread_atfork(hooks_before_fork, hooks_after_fork, in_the_child))
        why = "out of memory";
    return why;
}

static PyObject *why_not(PyObject *self, PyObject *unused)
{
    (void)self;
    (void)unused;
    if (!reason) {
        const char *why = prepare();
        reason = why ? PyUnicode_FromString(why) : Py_NewRef(Py_None);
        if (!reason)
            return NULL;
    }
    return Py_NewRef(reason);
}

static PyObject *start(PyObject *self, PyObject *unused)
{
    PyObject *why = why_not(self, unused);
    if (!why)
        return NULL;
    Py_DECREF(why);
    if (why != Py_None) {
        PyErr_SetObject(PyExc_RuntimeError, why);
        return NULL;
    }
    if (!hooks_on())
        Py_RETURN_FALSE;
    gil_is_held_by(NOBODY);
    holds_on();
    if (GIL_IS_OPTIONAL)
        gil_find(); /* it may have come, or gone, since we last looked */
    Py_RETURN_TRUE;
}

static PyObject *resume(PyObject *self, PyObject *unused)
{
    (void)self;
    (void)unused;
    return PyBool_FromLong(hooks_resume());
}

/* Look at locks again, in a forked process, which does not of itself. */
static PyObject *look_at_locks(PyObject *self, PyObject *unused)
{
    (void)self;
    (void)unused;
    holds_on();
    Py_RETURN_NONE;
}

static PyObject *stop(PyObject *self, PyObject *unused)
{
    (void)self;
    (void)unused;
    if (my_lane && my_lane->shared && lane_here())
        lane_settle(my_lane); /* a forked process that ends */
    holds_off();
    hooks_off();
    Py_RETURN_NONE;
}

/* Also that of a run which is over: a thread that outlived it may still come and read. */
static struct lane *here_or_error(void)
{
    if (!my_lane)
        PyErr_SetString(PyExc_RuntimeError, "this thread is not attached");
    return my_lane;
}

static void put_row(double *row, int64_t at, const int64_t *spent, const struct lane *lane)
{
    row[0] = (double)at * 1e-9;
    for (int state = 0; state < N_STATES; state++)
        row[1 + state] = (double)spent[state] * 1e-9;
    if (lane->queue_unknown)
        row[1 + CPU_WAIT] = Py_NAN;
}

static void handed_over(struct lane *lane, int64_t now)
{
    lane->taken = now;
    memcpy(lane->taken_spent, lane->spent, sizeof lane->spent);
}

static int add_row(struct lane *lane, int64_t now)
{
    if (lane->n_rows == lane->row_room) {
        uint32_t room = lane->row_room ? 2 * lane->row_room : 256;
        double *rows = PyMem_RawRealloc(lane->rows, (size_t)room * ROW * sizeof *rows);
        if (!rows) {
            PyErr_NoMemory();
            return -1;
        }
        lane->rows = rows;
        lane->row_room = room;
    }
    put_row(lane->rows + (size_t)lane->n_rows++ * ROW, now, lane->spent, lane);
    return 0;
}

static PyObject *attach(PyObject *self, PyObject *arguments)
{
    (void)self;
    int rank, box = -1;
    double born = 0;
    if (!PyArg_ParseTuple(arguments, "i|id", &rank, &box, &born))
        return NULL;
    if (!generation || my_lane) {
        PyErr_SetString(PyExc_RuntimeError, generation ? "this thread is attached already" : "no run is on");
        return NULL;
    }
    struct lane *lane = new_lane(box);
    if (!lane)
        return PyErr_SetFromErrno(PyExc_OSError);
    lane->thread_state = PyThreadState_Get();
    enlist(lane);
    lane_open(lane, rank, (int64_t)(born * 1e9));
    handed_over(lane, lane->mark);
    bool failed = add_row(lane, lane->mark);
    if (born && !failed) {
        lane_birth(lane);
        failed = add_row(lane, lane->mark);
    }
    PyObject *handle = failed ? NULL : PyLong_FromUnsignedLongLong(lane->serial);
    if (!handle) {
        core_disarm();
        old_lane(lane);
        return NULL;
    }
    my_lane = lane;
    if (gil_mutex)
        gil_is_held_by(rank);
    return handle;
}

/* Tell waits by the lines of this file from now on. */
static PyObject *lines_of(PyObject *self, PyObject *filename)
{
    (void)self;
    struct lane *lane = here_or_error();
    if (!lane)
        return NULL;
    if (!PyUnicode_Check(filename)) {
        PyErr_SetString(PyExc_TypeError, "a file's name is a str");
        return NULL;
    }
    Py_XSETREF(lane->filename, Py_NewRef(filename));
    Py_RETURN_NONE;
}

/* A file of the standard library, and what waits within it are for. */
static PyObject *library(PyObject *self, PyObject *arguments)
{
    (void)self;
    PyObject *filename;
    int kind;
    if (!PyArg_ParseTuple(arguments, "Ui", &filename, &kind))
        return NULL;
    if (kind < SITE_PASS || kind >= N_KINDS) {
        PyErr_SetString(PyExc_ValueError, "there is no such kind of wait");
        return NULL;
    }
    if (frame_library(filename, kind)) {
        PyErr_SetString(PyExc_RuntimeError, "too many files");
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *own(PyObject *self, PyObject *folder)
{
    (void)self;
    if (!PyUnicode_Check(folder)) {
        PyErr_SetString(PyExc_TypeError, "a folder's name is a str");
        return NULL;
    }
    frame_own(folder);
    Py_RETURN_NONE;
}

/* A function of a file of the standard library, by its qualified name, in which workers of a pool wait for work. */
static PyObject *loop(PyObject *self, PyObject *arguments)
{
    (void)self;
    PyObject *filename, *name;
    if (!PyArg_ParseTuple(arguments, "UU", &filename, &name))
        return NULL;
    if (frame_loop(filename, name)) {
        PyErr_SetString(PyExc_RuntimeError, "too many loops");
        return NULL;
    }
    Py_RETURN_NONE;
}

/* The file of the library that begins at this address, or None: no library does. */
static PyObject *library_at(PyObject *self, PyObject *address)
{
    (void)self;
    unsigned long long begin = PyLong_AsUnsignedLongLong(address);
    if (PyErr_Occurred())
        return NULL;
    const char *path = library_path((const void *)(uintptr_t)begin);
    return path ? PyUnicode_DecodeFSDefault(path) : Py_NewRef(Py_None);
}

static PyObject *mark(PyObject *self, PyObject *unused)
{
    (void)self;
    (void)unused;
    struct lane *lane = here_or_error();
    if (!lane)
        return NULL;
    lane_heal(lane);
    lane->in_item = true;
    struct reading reading = lane_settle_until(lane); /* an item ends before it, and another begins behind it */
    if (reading.ended > reading.began && add_row(lane, reading.began))
        return NULL;
    lane->item = lane_skip(lane, &reading);
    if (add_row(lane, lane->item))
        return NULL;
    Py_RETURN_NONE;
}

/* Hand over the readings and the waits since the last call: (rows, events, lost). What
 * the thread waits for until the next mark is our own business: it is in the account,
 * and in no list of waits, but for the GIL, which it may wait for on its way to an item. */
static PyObject *take(PyObject *self, PyObject *unused)
{
    (void)self;
    (void)unused;
    struct lane *lane = here_or_error();
    if (!lane)
        return NULL;
    lane_heal(lane);
    lane->in_item = false;
    lane->queue_unknown |= !clock_is_schedstat(lane->schedstat, lane->schedstat_file);
    struct reading reading = lane_settle_until(lane);
    int64_t now = reading.began;
    if (add_row(lane, now))
        return NULL;
    /* making objects may run the collector, and that may wait: first take what there is */
    handed_over(lane, now);
    lane_skip(lane, &reading);
    uint32_t n_rows = lane->n_rows, n_events = lane->n_events, lost = lane->lost;
    PyObject *rows = PyBytes_FromStringAndSize((char *)lane->rows, (Py_ssize_t)(n_rows * ROW * sizeof(double)));
    PyObject *events = PyBytes_FromStringAndSize((char *)lane->events, (Py_ssize_t)(n_events * sizeof(struct event)));
    if (!rows || !events) {
        Py_XDECREF(rows);
        Py_XDECREF(events);
        return NULL;
    }
    memmove(lane->events, lane->events + n_events, (lane->n_events - n_events) * sizeof(struct event));
    lane->n_events -= n_events;
    lane->lost -= lost;
    put_row(lane->rows, now, lane->taken_spent, lane); /* this is where the next readings go on */
    lane->n_rows = 1;
    return Py_BuildValue("(NNI)", rows, events, lost);
}

/* The file of the native library that called a function which waited for a lock; NULL: Python itself, or nobody knows. */
static const char *native_of(const void *caller)
{
    Dl_info there, python;
    if (!caller || !dladdr((void *)caller, &there) || !there.dli_fname)
        return NULL;
    return dladdr((void *)PyEval_SaveThread, &python) && python.dli_fbase == there.dli_fbase ? NULL : there.dli_fname;
}

/* ``here``: the lane is of this process, and so are addresses in it. */
static PyObject *row_of(struct lane *lane, const struct total *total, bool here)
{
    const struct file *file = total->file > 0 && total->file <= N_FILES ? &lane->files[total->file - 1] : NULL;
    const char *inside = here ? native_of(total->caller) : NULL;
    uint32_t length = file && file->length <= LONGEST_NAME ? file->length : 0;
    PyObject *name = PyUnicode_DecodeUTF8(file ? file->name : "", length, "surrogatepass");
    PyObject *library = PyUnicode_DecodeFSDefault(inside ? inside : "");
    char of[LONGEST_OF] = {0};
    memcpy(of, total->of, LONGEST_OF - 1);
    if (!name || !library) {
        Py_XDECREF(name);
        Py_XDECREF(library);
        return NULL;
    }
    return Py_BuildValue("(iKiLdddNiiisN)", total->kind, (unsigned long long)total->object, total->line, (long long)total->n,
                         (double)total->sum * 1e-9, (double)total->max * 1e-9, (double)total->with_gil * 1e-9, name, total->at,
                         total->begin, total->end, of, library);
}

static PyObject *totals(struct lane *lane, bool here)
{
    PyObject *list = PyList_New(0);
    uint32_t n_rows = N_KINDS + (lane->n_totals <= N_TOTALS ? lane->n_totals : 0); /* first those for what did not fit */
    for (uint32_t i = 0; list && i < n_rows; i++) {
        const struct total *total = &lane->totals[i < N_KINDS ? i : lane->used[i - N_KINDS] % N_TOTALS];
        if (!total->n || total->kind < 0 || total->kind >= N_KINDS)
            continue;
        list_add(&list, row_of(lane, total, here));
    }
    return list;
}

static PyObject *detach(PyObject *self, PyObject *unused)
{
    (void)self;
    (void)unused;
    struct lane *lane = here_or_error();
    if (!lane)
        return NULL;
    lane_heal(lane);
    lane_settle(lane);
    my_lane = NULL;
    core_disarm();
    PyObject *list = totals(lane, true);
    old_lane(lane);
    return list;
}

/* What the calling thread did with locks, in this account. */
static PyObject *synced(PyObject *self, PyObject *unused)
{
    (void)self;
    (void)unused;
    struct lane *lane = here_or_error();
    return lane ? syncs_rows(lane->syncs) : NULL;
}

static PyObject *now(PyObject *self, PyObject *unused)
{
    (void)self;
    (void)unused;
    return holds_now();
}

/* Have who waits for long call this, now and then; None: nothing. Behind it may come a buffer with a number that changes when another
 * process ends waits. */
static PyObject *look_with(PyObject *self, PyObject *arguments)
{
    (void)self;
    PyObject *function, *told = NULL;
    if (!PyArg_ParseTuple(arguments, "O|O", &function, &told))
        return NULL;
    holds_look_with(function == Py_None ? NULL : function, told);
    Py_RETURN_NONE;
}

/* What the calling thread has. */
static PyObject *held(PyObject *self, PyObject *unused)
{
    (void)self;
    (void)unused;
    struct lane *lane = here_or_error();
    return lane ? holds_of(lane->syncs) : NULL;
}

/* Whom it called to wake them, when nobody waited. */
static PyObject *lost(PyObject *self, PyObject *unused)
{
    (void)self;
    (void)unused;
    struct lane *lane = here_or_error();
    return lane ? holds_lost(lane->syncs) : NULL;
}

/* Raise an exception in the wait of a thread for a lock, by its handle; False where it waits for none. */
static PyObject *end_wait(PyObject *self, PyObject *arguments)
{
    (void)self;
    unsigned long long serial;
    PyObject *error;
    if (!PyArg_ParseTuple(arguments, "KO", &serial, &error))
        return NULL;
    if (!PyExceptionInstance_Check(error)) {
        PyErr_SetString(PyExc_TypeError, "that is no exception");
        return NULL;
    }
    return PyBool_FromLong(holds_abort(serial, error));
}

/* Release a lock of multiprocessing's that a process has which has ended; False where it is not known to have it. */
static PyObject *free_of(PyObject *self, PyObject *arguments)
{
    (void)self;
    PyObject *lock;
    unsigned int pid;
    return PyArg_ParseTuple(arguments, "OI", &lock, &pid) ? PyBool_FromLong(semlocks_free(lock, pid)) : NULL;
}

/* Who made it wait, and where each was. */
static PyObject *handoffs(PyObject *self, PyObject *unused)
{
    (void)self;
    (void)unused;
    struct lane *lane = here_or_error();
    return lane ? handoffs_rows(lane->syncs) : NULL;
}

/* The longest of its single waits for others. */
static PyObject *handovers(PyObject *self, PyObject *unused)
{
    (void)self;
    (void)unused;
    struct lane *lane = here_or_error();
    return lane ? handovers_rows(lane->syncs) : NULL;
}

/* In which order it took locks, and where. */
static PyObject *orders(PyObject *self, PyObject *unused)
{
    (void)self;
    (void)unused;
    struct lane *lane = here_or_error();
    return lane ? orders_rows(lane->syncs) : NULL;
}

/* What stands in the place of a class's attribute, and counts. */
static PyObject *exchange(PyObject *self, PyObject *arguments)
{
    (void)self;
    PyObject *original;
    int role;
    return PyArg_ParseTuple(arguments, "Oi", &original, &role) ? exchange_new(original, role) : NULL;
}

static PyObject *box_size(PyObject *self, PyObject *unused)
{
    (void)self;
    (void)unused;
    return PyLong_FromSize_t(sizeof(struct lane));
}

static PyObject *last_state(struct lane *lane, double now, double cpu, const struct site *here)
{
    if (lane->magic != MAGIC || !lane->generation || lane->n_events > N_EVENTS || lane->doing < 0 || lane->doing >= N_KINDS)
        Py_RETURN_NONE; /* it had not begun, or has scribbled over itself */
    for (uint32_t i = 0; i < lane->n_events; i++)
        if (lane->events[i].kind < 0 || lane->events[i].kind >= N_KINDS || lane->events[i].begin > lane->events[i].end)
            Py_RETURN_NONE;
    double rows[3 * ROW];
    int64_t until;
    put_row(rows, lane->taken, lane->taken_spent, lane);
    put_row(rows + ROW, lane->mark, lane->spent, lane);
    lane_close(lane, (int64_t)(now * 1e9), (int64_t)(cpu * 1e9), here, &until);
    put_row(rows + 2 * ROW, until, lane->spent, lane);
    PyObject *list = totals(lane, here);
    if (!list)
        return NULL;
    return Py_BuildValue("(dy#y#IN)", (double)lane->item * 1e-9, (char *)rows, (Py_ssize_t)sizeof rows, (char *)lane->events,
                         (Py_ssize_t)(lane->n_events * sizeof(struct event)), lane->lost, list);
}

static bool read_all(int file, void *into, size_t size, off_t offset)
{
    while (size) {
        ssize_t n = pread(file, into, size, offset);
        if (n <= 0)
            return false;
        into = (char *)into + n;
        offset += n;
        size -= (size_t)n;
    }
    return true;
}

/* Copy what is used of a lane in a box. Not mapped: whoever has the box, too, may cut it short. */
static bool read_lane(int box, struct lane *lane)
{
    size_t fixed = offsetof(struct lane, events);
    if (!read_all(box, lane, fixed, 0) || lane->n_events > N_EVENTS)
        return false;
    return read_all(box, lane->events, lane->n_events * sizeof(struct event), (off_t)fixed);
}

/* What a killed worker left in its box: (begin of its item, rows, events, lost, totals), or None
 * where it had not come that far. */
static PyObject *autopsy(PyObject *self, PyObject *arguments)
{
    (void)self;
    int box;
    double now, cpu;
    if (!PyArg_ParseTuple(arguments, "idd", &box, &now, &cpu))
        return NULL;
    struct lane *lane = mmap(NULL, sizeof *lane, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (lane == MAP_FAILED)
        return PyErr_SetFromErrno(PyExc_OSError);
    PyObject *found = read_lane(box, lane) ? last_state(lane, now, cpu, NULL) : Py_NewRef(Py_None);
    munmap(lane, sizeof *lane);
    return found;
}

/* As it is at this moment. Its thread is blocked; where it wakes up while we look, the figures of its last wait
 * may be torn, and it will report them itself. Nothing keeps the two apart, as nothing may that waits: what the
 * sanitizer of threads looks for is meant here. */
__attribute__((no_sanitize("thread"))) static void copy_words(uint64_t *to, const volatile uint64_t *from, size_t size)
{
    for (size_t i = 0; i < size / sizeof *to; i++)
        to[i] = from[i];
}

/* A copy of an attached thread's lane, with room for its last wait; it may wake up while we look. */
static struct lane *copy_of(uint64_t serial, bool *attached)
{
    pthread_mutex_lock(&registry);
    const struct lane *lane = attached_lanes;
    while (lane && lane->serial != serial)
        lane = lane->next;
    struct lane *copy = NULL;
    *attached = lane;
    if (lane) {
        uint32_t n_events = __atomic_load_n(&lane->n_events, __ATOMIC_ACQUIRE);
        size_t used = offsetof(struct lane, events) + n_events * sizeof(struct event);
        copy = PyMem_RawMalloc(used + sizeof(struct event));
        if (copy) {
            copy_words((uint64_t *)copy, (const uint64_t *)lane, used);
            copy->n_events = n_events;
        }
    }
    pthread_mutex_unlock(&registry);
    return copy;
}

/* The same of a thread of this process that is blocked and will not report any more. */
static PyObject *peek(PyObject *self, PyObject *arguments)
{
    (void)self;
    unsigned long long serial;
    double now, cpu;
    if (!PyArg_ParseTuple(arguments, "Kdd", &serial, &now, &cpu))
        return NULL;
    bool attached;
    struct lane *copy = copy_of(serial, &attached);
    if (!attached)
        Py_RETURN_NONE; /* it has come back and reported, after all */
    if (!copy)
        return PyErr_NoMemory();
    struct site here = frame_site_elsewhere(copy);
    PyObject *found = last_state(copy, now, cpu, &here);
    PyMem_RawFree(copy);
    return found;
}

static PyObject *state(PyObject *self, PyObject *unused)
{
    (void)self;
    (void)unused;
    return Py_BuildValue("{s:i,s:O,s:i}", "patched", got_patched(), "on", generation ? Py_True : Py_False, "lanes",
                         n_lanes);
}

/* Formats and arguments of Py_BuildValue. */
#define ONE(...) "s"
#define PAIR(...) "(ss)"
#define NAME(id, name) , name
#define TEXT(id) , #id
#define NAME_AND_STATE(id, state, name) , name, state_names[state]
#define NAME_AND_FORMAT(type, name) , #name, FORMAT_##type
#define LISTED(id, name) name,
#define FORMAT_int64_t "q" /* as in Python's struct */
#define FORMAT_uint64_t "Q"
#define FORMAT_int32_t "i"
#define FORMAT_int16_t "h"

/* What Python has to know by the same places and names as we do. */
static PyObject *tables(PyObject *self, PyObject *unused)
{
    (void)self;
    (void)unused;
    static const char *const state_names[] = {STATES(LISTED)};
    return Py_BuildValue("{s:i,s:(" STATES(ONE) "),s:(" KINDS(PAIR) "),s:(" EVENTS(ONE) "),s:(" EVENT_FIELDS(PAIR) "),s:("
                         TOTAL_FIELDS(ONE) "),s:K,s:i}", "version", VERSION,
                         "states" STATES(NAME), "kinds" KINDS(NAME_AND_STATE), "events" EVENTS(NAME), "layout" EVENT_FIELDS(NAME_AND_FORMAT),
                         "totals" TOTAL_FIELDS(TEXT), "stopped", (unsigned long long)STOPPED, "callers", (int)SITE_PASS);
}

static PyMethodDef methods[] = {
    {"why_not", why_not, METH_NOARGS, NULL}, {"start", start, METH_NOARGS, NULL},   {"stop", stop, METH_NOARGS, NULL},
    {"resume", resume, METH_NOARGS, NULL},
    {"look_at_locks", look_at_locks, METH_NOARGS, NULL},
    {"synced", synced, METH_NOARGS, NULL},
    {"handoffs", handoffs, METH_NOARGS, NULL},
    {"handovers", handovers, METH_NOARGS, NULL},
    {"orders", orders, METH_NOARGS, NULL},
    {"exchange", exchange, METH_VARARGS, NULL},
    {"holds", now, METH_NOARGS, NULL},
    {"held", held, METH_NOARGS, NULL},
    {"lost", lost, METH_NOARGS, NULL},
    {"look_with", look_with, METH_VARARGS, NULL},
    {"end_wait", end_wait, METH_VARARGS, NULL},
    {"free_of", free_of, METH_VARARGS, NULL},
    {"attach", attach, METH_VARARGS, NULL},  {"lines_of", lines_of, METH_O, NULL},
    {"library", library, METH_VARARGS, NULL}, {"loop", loop, METH_VARARGS, NULL}, {"own", own, METH_O, NULL}, {"library_at", library_at, METH_O, NULL},
    {"mark", mark, METH_NOARGS, NULL},     {"take", take, METH_NOARGS, NULL},
    {"detach", detach, METH_NOARGS, NULL},   {"state", state, METH_NOARGS, NULL},     {"box_size", box_size, METH_NOARGS, NULL},
    {"tables", tables, METH_NOARGS, NULL},
    {"autopsy", autopsy, METH_VARARGS, NULL}, {"peek", peek, METH_VARARGS, NULL},           {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "parmagic.record._waits", "Measures what threads wait for.", -1, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__waits(void)
{
    PyObject *waits = PyModule_Create(&module);
#ifdef Py_GIL_DISABLED
    if (waits && PyUnstable_Module_SetGIL(waits, Py_MOD_GIL_NOT_USED))
        Py_CLEAR(waits);
#endif
    return waits;
}
