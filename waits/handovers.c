/* Single waits for things that somebody had, or did something for: the longest ones of each thread, with who had the thing when they
 * began, and who let go of it, or woke the thread, before they ended. Both are places in the thread's handoffs. With the GIL.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "waits.h"

static int64_t length(const struct handover *each)
{
    return each->end - each->begin;
}

static void swap(struct handover *one, struct handover *other)
{
    struct handover kept = *one;
    *one = *other;
    *other = kept;
}

/* A heap: the shortest is the first. */
static void sink(struct handover *all, uint32_t n)
{
    for (uint32_t at = 0, next; (next = 2 * at + 1) < n; at = next) {
        if (next + 1 < n && length(&all[next + 1]) < length(&all[next]))
            next++;
        if (length(&all[at]) <= length(&all[next]))
            return;
        swap(&all[at], &all[next]);
    }
}

static void rise(struct handover *all, uint32_t at)
{
    for (; at && length(&all[at]) < length(&all[(at - 1) / 2]); at = (at - 1) / 2)
        swap(&all[at], &all[(at - 1) / 2]);
}

/* The last row of handoffs is for the rest, of whom nothing is known. */
static int32_t place_of(const struct syncs *syncs, const struct handoff *row)
{
    return row && row != &syncs->handoffs[N_HANDOFFS - 1] ? (int32_t)(row - syncs->handoffs) : -1;
}

void handovers_note(struct syncs *syncs, int64_t begin, int64_t end, const struct handoff *waits, const struct handoff *waker, bool got)
{
    struct handover one = {begin, end, place_of(syncs, waits), place_of(syncs, waker), waker ? syncs->now.woken : 0, got};
    if (one.waits < 0)
        return;
    if (syncs->n_handovers < N_HANDOVERS) {
        syncs->handovers[syncs->n_handovers] = one;
        rise(syncs->handovers, syncs->n_handovers++);
    } else {
        syncs->more_handovers++;
        if (length(&one) > length(&syncs->handovers[0])) {
            syncs->handovers[0] = one;
            sink(syncs->handovers, N_HANDOVERS);
        }
    }
}

static PyObject *as_tuple(const struct syncs *syncs, const struct handover *each)
{
    static const struct handoff nobody = {.blocker_rank = NOBODY};
    const struct handoff *waits = &syncs->handoffs[each->waits], *waker = each->waker < 0 ? &nobody : &syncs->handoffs[each->waker];
    return Py_BuildValue("(ddOKsOiiKOiiKOid)", (double)each->begin * 1e-9, (double)each->end * 1e-9, each->got ? Py_True : Py_False,
                         (unsigned long long)waits->thing, waits->of, place_file(&waits->waited), waits->waited.line, waits->blocker_rank,
                         (unsigned long long)waits->blocker, place_file(&waits->blocked), waits->blocked.line, waker->blocker_rank,
                         (unsigned long long)waker->blocker, place_file(&waker->blocked), waker->blocked.line, (double)each->woken * 1e-9);
}

PyObject *handovers_rows(const struct syncs *syncs)
{
    PyObject *list = PyList_New(0);
    for (uint32_t i = 0; list && syncs && i < syncs->n_handovers; i++)
        list_add(&list, as_tuple(syncs, &syncs->handovers[i]));
    return list ? Py_BuildValue("(NK)", list, (unsigned long long)(syncs ? syncs->more_handovers : 0)) : NULL;
}
