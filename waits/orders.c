/* In which order a worker takes locks: which one it took while it had which others, and where.
 *
 * A lock that is in such a row is kept until the run ends, or nobody else has it: no other one comes to its address, and is taken for it.
 * All of it happens with the GIL, when a lock was taken by who has another one already.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "waits.h"

#include <string.h>

#define N_KEPT 2048     /* locks, of which three quarters are used */
#define N_ORDERS 512    /* rows of a worker */
#define N_GATES 8       /* other locks that it has; with more of them, nothing is noted */
#define MOST_TRIES 16

struct order {
    PyObject *from_lock, *to_lock;   /* no references */
    uint64_t from, to;               /* their numbers; 0: free */
    uint64_t from_thing, to_thing;   /* what they are part of */
    char from_of[LONGEST_OF], to_of[LONGEST_OF];
    PyObject *from_code, *to_code;   /* where they were taken, or NULL */
    int32_t from_at, to_at;
    uint64_t gated;                  /* a hash of: */
    uint64_t gates[N_GATES];         /* what else it had; 0 ends them */
    bool alone;                      /* nobody else of its worker was there */
    int64_t n, first, last;
};

static struct kept {
    PyObject *lock;
    uint64_t number;
} kept[N_KEPT];
static int n_kept;
static uint64_t numbers;

static uint64_t mixed(uint64_t key)
{
    key *= UINT64_C(0x9E3779B97F4A7C15);
    return key ^ key >> 29;
}

static struct kept *place_of(PyObject *lock)
{
    uint64_t hash = mixed((uint64_t)(uintptr_t)lock);
    while (kept[hash % N_KEPT].lock && kept[hash % N_KEPT].lock != lock)
        hash++;
    return &kept[hash % N_KEPT];
}

/* Let go of locks, of all, or of those that only we have: at last, as code of others may run then, and take locks. */
static void sweep(bool all)
{
    struct kept *before = PyMem_RawMalloc(sizeof kept);
    if (!before)
        return;
    memcpy(before, kept, sizeof kept);
    memset(kept, 0, sizeof kept);
    n_kept = 0;
    for (int i = 0; i < N_KEPT; i++)
        if (before[i].lock && !all && Py_REFCNT(before[i].lock) > 1) {
            *place_of(before[i].lock) = before[i];
            n_kept++;
            before[i].lock = NULL;
        }
    for (int i = 0; i < N_KEPT; i++)
        Py_XDECREF(before[i].lock);
    PyMem_RawFree(before);
}

/* Its number, which no other lock of this process ever has; 0: there is no room. One between processes has its own, in all of them. */
static uint64_t number_of(PyObject *lock)
{
    struct kept *place = place_of(lock);
    if (!place->lock) {
        if (4 * n_kept >= 3 * N_KEPT) {
            sweep(false);
            if (2 * n_kept >= N_KEPT)
                return 0;
            place = place_of(lock);
        }
        *place = (struct kept){Py_NewRef(lock), ++numbers};
        n_kept++;
    }
    return place->number;
}

static bool is_alone(const struct lane *lane)
{
    for (struct lane *each = lanes_next(NULL); each; each = lanes_next(each))
        if (each != lane && each->rank == lane->rank)
            return false;
    return true;
}

static struct order *place_for(struct order *orders, const struct order *like)
{
    uint64_t hash = mixed(like->from + mixed(like->to + mixed(like->gated + like->alone)));
    for (uint64_t tries = 0; tries < MOST_TRIES; tries++) {
        struct order *row = &orders[(hash + tries) % N_ORDERS];
        if (!row->from || (row->from == like->from && row->to == like->to && row->gated == like->gated && row->alone == like->alone))
            return row;
    }
    return NULL;
}

/* Somebody but us has this lock; one between processes somebody may have that is not here. */
static bool is_in_use(PyObject *lock, uint64_t number)
{
    if (number >> 63)
        return true;
    const struct kept *place = place_of(lock);
    return place->lock && place->number == number && Py_REFCNT(lock) > 1;
}

/* Make room: what nobody can take any more ends in no deadlock. */
static bool cleared(struct syncs *syncs)
{
    struct order *before = syncs->orders, *after = syncs->orders_are_full ? NULL : PyMem_RawCalloc(N_ORDERS, sizeof(struct order));
    int left = 0;
    if (!after)
        return false;
    for (struct order *each = before; each < before + N_ORDERS; each++) {
        bool stays = each->from && is_in_use(each->from_lock, each->from) && is_in_use(each->to_lock, each->to);
        struct order *place = stays ? place_for(after, each) : NULL;
        if (place) {
            *place = *each;
            left++;
        } else {
            Py_XDECREF(each->from_code);
            Py_XDECREF(each->to_code);
        }
    }
    PyMem_RawFree(before);
    syncs->orders = after;
    syncs->orders_are_full = 2 * left > N_ORDERS;
    return true;
}

static struct order *row_of(struct syncs *syncs, const struct order *like)
{
    if (!syncs->orders && !(syncs->orders = PyMem_RawCalloc(N_ORDERS, sizeof(struct order))))
        return NULL;
    struct order *row = place_for(syncs->orders, like);
    return row || !cleared(syncs) ? row : place_for(syncs->orders, like);
}

static void begin(struct syncs *syncs, struct order *row, const struct held *from, const struct held *to)
{
    row->from_lock = from->lock;
    row->to_lock = to->lock;
    row->from_thing = from->thing;
    row->to_thing = to->thing;
    memcpy(row->from_of, from->row->of, LONGEST_OF);
    memcpy(row->to_of, to->row->of, LONGEST_OF);
    row->from_code = Py_XNewRef(from->code);
    row->to_code = Py_XNewRef(to->code);
    row->from_at = from->at;
    row->to_at = to->at;
    row->first = to->since;
    for (int i = 0, gate = 0; i < syncs->n_held - 1; i++)
        if (&syncs->held[i] != from && syncs->held[i].whole)
            row->gates[gate++] = syncs->held[i].number;
}

/* It has just taken the last of the locks that it has. */
void orders_note(struct lane *lane)
{
    struct syncs *syncs = lane->syncs;
    struct held *to = &syncs->held[syncs->n_held - 1];
    uint64_t all = 0;
    int n = 0;
    for (int i = 0; i < syncs->n_held; i++) {
        struct held *each = &syncs->held[i];
        if (!each->whole)
            continue;
        if (!each->number && !(each->number = semlocks_key(each->lock)) && !(each->number = number_of(each->lock)))
            return;
        all += each == to ? 0 : mixed(each->number);
        n++;
    }
    if (n < 2 || n > N_GATES + 2)
        return;
    bool alone = is_alone(lane);
    for (struct held *from = syncs->held; from < to; from++) {
        struct order like = {.from = from->number, .to = to->number, .gated = all - mixed(from->number), .alone = alone};
        struct order *row = from->whole ? row_of(syncs, &like) : NULL;
        if (!row)
            continue;
        if (!row->from) {
            *row = like;
            begin(syncs, row, from, to);
        }
        row->n++;
        row->last = to->since;
    }
}

static PyObject *file_of(PyObject *code)
{
    return code ? ((PyCodeObject *)code)->co_filename : Py_None;
}

static int line_of(PyObject *code, int at)
{
    return code ? PyCode_Addr2Line((PyCodeObject *)code, at) : 0;
}

static PyObject *gates_of(const struct order *row)
{
    int n = 0;
    while (n < N_GATES && row->gates[n])
        n++;
    PyObject *gates = PyTuple_New(n);
    for (int i = 0; gates && i < n; i++) {
        PyObject *gate = PyLong_FromUnsignedLongLong(row->gates[i]);
        if (gate)
            PyTuple_SET_ITEM(gates, i, gate);
        else
            Py_CLEAR(gates);
    }
    return gates;
}

static PyObject *as_tuple(const struct order *row)
{
    PyObject *gates = gates_of(row);
    if (!gates)
        return NULL;
    return Py_BuildValue("(KKKKssOiOiNOLdd)", (unsigned long long)row->from, (unsigned long long)row->to, (unsigned long long)row->from_thing,
                         (unsigned long long)row->to_thing, row->from_of, row->to_of, file_of(row->from_code), line_of(row->from_code, row->from_at),
                         file_of(row->to_code), line_of(row->to_code, row->to_at), gates, row->alone ? Py_True : Py_False, (long long)row->n,
                         (double)row->first * 1e-9, (double)row->last * 1e-9);
}

PyObject *orders_rows(const struct syncs *syncs)
{
    PyObject *list = PyList_New(0);
    for (int i = 0; list && syncs && syncs->orders && i < N_ORDERS; i++)
        if (syncs->orders[i].from)
            list_add(&list, as_tuple(&syncs->orders[i]));
    return list;
}

void orders_free(struct syncs *syncs)
{
    for (int i = 0; syncs->orders && i < N_ORDERS; i++) {
        Py_XDECREF(syncs->orders[i].from_code);
        Py_XDECREF(syncs->orders[i].to_code);
    }
    PyMem_RawFree(syncs->orders);
}

/* The run is over, or is another process's: then what it has kept stays. */
void orders_end(bool ours)
{
    if (ours)
        sweep(true);
    memset(kept, 0, sizeof kept);
    n_kept = 0;
}
