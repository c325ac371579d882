/* Which line of the cell a thread is on, without the GIL.
 *
 * A thread's own frames stand still while it waits, and the code that they run is
 * alive with them, so they can be read without the GIL and without touching a
 * reference count. Their layout is the interpreter's own affair: versions that we do
 * not know have no lines.
 */
#define PY_SSIZE_T_CLEAN
#define Py_BUILD_CORE 1
#include <Python.h>

#if PY_VERSION_HEX < 0x030E0000 && !defined(Py_GIL_DISABLED)
#define FRAMES_ARE_KNOWN
#include <internal/pycore_frame.h>
#endif

#include "waits.h"

#define DEEPEST 200

#ifdef FRAMES_ARE_KNOWN

#if PY_VERSION_HEX >= 0x030D0000
#define CURRENT(state) ((state)->current_frame)
#define CODE(frame) ((frame)->f_executable)
#else
#define CURRENT(state) ((state)->cframe->current_frame)
#define CODE(frame) ((PyObject *)(frame)->f_code)
#endif

static bool same_text(PyObject *one, PyObject *other)
{
    if (one == other)
        return true;
    Py_ssize_t length = PyUnicode_GET_LENGTH(one);
    return length == PyUnicode_GET_LENGTH(other) && PyUnicode_KIND(one) == PyUnicode_KIND(other) &&
           !memcmp(PyUnicode_DATA(one), PyUnicode_DATA(other), (size_t)length * PyUnicode_KIND(one));
}

int frame_line(struct lane *lane)
{
    PyThreadState *state = lane->thread_state;
    if (!state || !lane->filename || lane != my_lane) /* not our own: its frames are not here */
        return 0;
    _PyInterpreterFrame *frame = CURRENT(state);
    for (int depth = 0; frame && depth < DEEPEST; frame = frame->previous, depth++) {
        PyObject *executable = CODE(frame);
        if (!executable || !PyCode_Check(executable))
            continue;
        PyCodeObject *code = (PyCodeObject *)executable;
        if (same_text(code->co_filename, lane->filename))
            return PyCode_Addr2Line(code, _PyInterpreterFrame_LASTI(frame) * (int)sizeof(_Py_CODEUNIT));
    }
    return 0;
}

#else

int frame_line(struct lane *lane)
{
    (void)lane;
    return 0;
}

#endif
