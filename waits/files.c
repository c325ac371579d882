/* The names of the files that a thread waits in, kept in its account, where they outlive the process. They are read while the
 * thread waits, without the GIL, and copied: nothing may be allocated or referred to then, and whoever reads them later may find
 * another file's name in the same place of memory.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "waits.h"

#include <string.h>

#define MOST_BYTES 4 /* of a character */

static int encoded(Py_UCS4 c, char *to)
{
    if (c < 0x80) {
        to[0] = (char)c;
        return 1;
    }
    int more = c < 0x800 ? 1 : c < 0x10000 ? 2 : 3;
    static const unsigned first[] = {0, 0xC0, 0xE0, 0xF0};
    to[0] = (char)(first[more] | c >> 6 * more);
    for (int i = 1; i <= more; i++)
        to[i] = (char)(0x80 | (c >> 6 * (more - i) & 0x3F));
    return 1 + more;
}

/* Its end, as UTF-8 (lone surrogates included); returns how many bytes these are. */
static uint32_t end_of(PyObject *name, char *to)
{
    Py_ssize_t length = PyUnicode_GET_LENGTH(name);
    if (PyUnicode_IS_COMPACT_ASCII(name)) {
        Py_ssize_t kept = length < LONGEST_NAME ? length : LONGEST_NAME;
        memcpy(to, (const char *)PyUnicode_DATA(name) + length - kept, (size_t)kept);
        return (uint32_t)kept;
    }
    Py_ssize_t first = length > LONGEST_NAME / MOST_BYTES ? length - LONGEST_NAME / MOST_BYTES : 0;
    uint32_t bytes = 0;
    for (Py_ssize_t i = first; i < length; i++)
        bytes += (uint32_t)encoded(PyUnicode_READ(PyUnicode_KIND(name), PyUnicode_DATA(name), i), to + bytes);
    return bytes;
}

int32_t file_in(struct lane *lane, PyObject *name)
{
    char text[LONGEST_NAME];
    uint32_t length = end_of(name, text), hash = length;
    for (uint32_t i = 0; i < length; i++)
        hash = (hash ^ (unsigned char)text[i]) * 16777619;
    for (uint32_t tries = 0; length && tries < N_FILES; tries++) {
        uint32_t place = (hash + tries) % N_FILES;
        struct file *file = &lane->files[place];
        if (!file->length) {
            memcpy(file->name, text, length);
            file->hash = hash;
            file->length = length;
        }
        if (file->hash == hash && file->length == length && !memcmp(file->name, text, length))
            return (int32_t)place + 1;
    }
    return 0;
}
