/* The GIL's addresses, learned by dropping and taking it once while we look.
 *
 * CPython 3.11 to 3.15 (Python/ceval_gil.c) take it by
 *     lock(M), [timedwait(C, M)]…, lock(SM), signal(SC), unlock …
 * and drop it by
 *     lock(M), signal(C), unlock(M), [lock(SM), wait(SC, SM)]
 * where the last part is the forced switch: who was asked to give the GIL away waits
 * until another thread has taken it.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "waits.h"

void *gil_mutex, *gil_cond, *gil_switch_mutex, *gil_switch_cond;
int32_t gil_holder = NOBODY;
uint64_t gil_takes;
__thread int gil_calibrating __attribute__((tls_model("initial-exec")));

static void *seen_first_lock, *seen_last_lock, *seen_first_signal, *seen_last_signal;

void gil_saw(int call, void *address)
{
    if (call == SAW_LOCK) {
        if (!seen_first_lock)
            seen_first_lock = address;
        seen_last_lock = address;
    } else {
        if (!seen_first_signal)
            seen_first_signal = address;
        seen_last_signal = address;
    }
}

/* Returns NULL, or why there is no GIL to be seen. */
const char *gil_find(void)
{
    seen_first_lock = seen_last_lock = seen_first_signal = seen_last_signal = NULL;
    gil_calibrating = 1;
    PyThreadState *state = PyEval_SaveThread();
    PyEval_RestoreThread(state);
    gil_calibrating = 0;
    if (!seen_first_lock || !seen_first_signal || seen_first_lock == seen_last_lock || seen_first_signal == seen_last_signal)
        return "this interpreter's GIL was not seen";
    gil_mutex = seen_first_lock;
    gil_switch_mutex = seen_last_lock;
    gil_cond = seen_first_signal;
    gil_switch_cond = seen_last_signal;
    return NULL;
}
