/* Raw forks in this interpreter: import cycles
 *
 *   cycles(n) -> list[tuple[int, int]]   n times fork, exit at once, wait: ns until fork had
 *                                        returned in the parent, and until wait4(2) had
 *   small_pages() -> None                no huge pages in this process from now on
 *
 * _Fork (glibc 2.34, musl 1.2.2), and nothing of Python around it: what os.fork takes longer is
 * Python's. The child enters neither Python nor the C library. For a process of one thread.
 * Not here: what the process holds (heaps.py). OSError: with the kernel's errno.
 */
#define _GNU_SOURCE
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static long long now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static int one(long long *forked, long long *waited)
{
    long long begin = now();
    pid_t pid = _Fork();
    if (!pid)
        _exit(0);
    *forked = now() - begin;
    if (pid < 0 || wait4(pid, NULL, 0, NULL) != pid)
        return -1;
    *waited = now() - begin;
    return 0;
}

static PyObject *cycles(PyObject *Py_UNUSED(module), PyObject *argument)
{
    Py_ssize_t count = PyNumber_AsSsize_t(argument, PyExc_OverflowError);
    if (count == -1 && PyErr_Occurred())
        return NULL;
    PyObject *list = PyList_New(0);
    for (Py_ssize_t i = 0; list && i < count; i++) {
        long long forked, waited;
        PyObject *pair = one(&forked, &waited) ? PyErr_SetFromErrno(PyExc_OSError)
                                               : Py_BuildValue("(LL)", forked, waited);
        if (!pair || PyList_Append(list, pair))
            Py_CLEAR(list);
        Py_XDECREF(pair);
    }
    return list;
}

static PyObject *small_pages(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(nothing))
{
    if (prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0))
        return PyErr_SetFromErrno(PyExc_OSError);
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"cycles", cycles, METH_O, "n raw forks: (ns until forked, ns until waited for) of each."},
    {"small_pages", small_pages, METH_NOARGS, "No huge pages in this process from now on."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "cycles", NULL, 0, methods, NULL, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit_cycles(void)
{
    return PyModule_Create(&definition);
}
