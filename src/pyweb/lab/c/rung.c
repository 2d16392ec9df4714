/* The rungs inside CPython: the C path of server.c in a process that holds an interpreter, with
   its heap left out of the fork or not, and the pieces for those whose accept loop is Python's.

   A raw fork goes behind the interpreter's back: nothing is prepared before it and nothing set
   right after it. So its child must never touch the interpreter, nor malloc; it runs path.h and
   leaves by _exit. After exclude_heap() it could not do otherwise, and neither can a child of
   os.fork: that one would die of its first instruction. Everything holds the GIL throughout.

     loop(listener, path: bytes, file: bytes, stamps: int)
     attach(stamps: int)
     fork_serve(fd, path: bytes, file: bytes, number: int) -> pid
     serve(fd, path: bytes, file: bytes, number: int) -> bool
     exclude_heap() -> (mappings, bytes)
     include_heap()
     bound_life()

   Not here: the accept loop in C (loop.h), the work (path.h), the one in Python (toy.py). */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "heap.h"
#include "loop.h"

/* In this module's own data: what a child sees though the heap is gone. */
static struct loop loop;

static PyObject *os_error(void) {
    return PyErr_SetFromErrno(PyExc_OSError);
}

/* Serving. */

static PyObject *rung_loop(PyObject *Py_UNUSED(module), PyObject *arguments) {
    const char *path, *file;
    int memory;
    if (!PyArg_ParseTuple(arguments, "iyyi:loop", &loop.listener, &path, &file, &memory))
        return NULL;
    stamps_close(&loop.stamps);
    loop.work = FORK_SERVE;
    if (task_set(&loop.task, path, file) < 0 || stamps_open(&loop.stamps, memory) < 0 ||
        hold_signals(&loop) < 0)
        return os_error();
    const char *failed = loop_run(&loop);
    stamps_close(&loop.stamps);
    if (failed)
        return os_error();
    Py_RETURN_NONE;
}

static PyObject *rung_attach(PyObject *Py_UNUSED(module), PyObject *arguments) {
    int memory;
    if (!PyArg_ParseTuple(arguments, "i:attach", &memory))
        return NULL;
    stamps_close(&loop.stamps);
    if (stamps_open(&loop.stamps, memory) < 0)
        return os_error();
    Py_RETURN_NONE;
}

/* Copies the task and finds the record of the number; 0: there is none. -1: an exception is set. */
static int prepare(PyObject *arguments, const char *format, int *fd, int64_t **record) {
    const char *path, *file;
    long long number;
    if (!PyArg_ParseTuple(arguments, format, fd, &path, &file, &number))
        return -1;
    if (task_set(&loop.task, path, file) < 0) {
        os_error();
        return -1;
    }
    *record = number > 0 ? stamps_record(&loop.stamps, number) : NULL;
    return 0;
}

/* The interpreter's signal handlers are still set in the child: one that meets a signal passes it
   on, by the pipe that it shares with its parent, or (without the heap) dies of it. */
static PyObject *rung_fork_serve(PyObject *Py_UNUSED(module), PyObject *arguments) {
    int64_t *record;
    int fd;
    if (prepare(arguments, "iyyL:fork_serve", &fd, &record) < 0)
        return NULL;
    loop.work = FORK_SERVE;
    pid_t pid = raw_fork();
    if (pid == 0)
        be_the_child(&loop, fd, record);
    return pid < 0 ? os_error() : PyLong_FromLong(pid);
}

static PyObject *rung_serve(PyObject *Py_UNUSED(module), PyObject *arguments) {
    int64_t *record;
    int fd;
    if (prepare(arguments, "iyyL:serve", &fd, &record) < 0)
        return NULL;
    return PyBool_FromLong(serve_one(fd, &loop.task, record) == 0);
}

static PyObject *rung_bound_life(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(nothing)) {
    bound_life();
    Py_RETURN_NONE;
}

/* The heap. */

/* Undo exclude_heap, whatever it has come to. What was unmapped since is no matter (ENOMEM), and
   nor is a device's memory, which is never forked (EINVAL). -1: a child would lack something. */
static int include_heap(void) {
    int failed = 0, count = left_out_count;
    left_out_count = 0;
    for (int i = 0; i < count; i++) {
        struct range one = left_out[i];
        if (madvise((void *)one.low, one.high - one.low, MADV_DOFORK) == 0 || errno == EINVAL ||
            errno == ENOMEM)
            continue;
        left_out[left_out_count++] = one;   /* to be tried again */
        failed = -1;
    }
    return failed;
}

/* So many bytes of the heap no child gets any more, until include_heap(): meanwhile there must be no
   fork of a child that enters the interpreter. -1 with errno, and nothing is left out. */
static long long exclude_heap(const uintptr_t *ours, int count, long *mappings) {
    struct heap heap = {0};
    int done = find_heap(&heap, ours, count, 1);
    for (int i = 0; done == 0 && i < left_out_count; i++)
        done = madvise((void *)left_out[i].low, left_out[i].high - left_out[i].low, MADV_DONTFORK);
    if (done < 0) {
        int error = errno;
        include_heap();
        errno = error;
        return -1;
    }
    *mappings = left_out_count;
    return (long long)heap.bytes;
}

static PyObject *rung_exclude_heap(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(nothing)) {
    uintptr_t ours = (uintptr_t)&loop;
    long mappings = 0;
    long long bytes = exclude_heap(&ours, 1, &mappings);
    if (bytes < 0 && errno == ENOENT) {
        PyErr_SetString(PyExc_RuntimeError, "the C library is not found: the heap stays");
        return NULL;
    }
    return bytes < 0 ? os_error() : Py_BuildValue("(lL)", mappings, bytes);
}

static PyObject *rung_include_heap(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(nothing)) {
    if (include_heap() < 0)
        return os_error();
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"loop", rung_loop, METH_VARARGS,
     "loop(listener, path, file, stamps)\n--\n\n"
     "Accept (non-blocking), fork, serve, reap in C until SIGTERM, SIGINT or SIGALRM; then the\n"
     "listener is shut and all children have ended. stamps: a descriptor, -1: none. OSError."},
    {"attach", rung_attach, METH_VARARGS,
     "attach(stamps)\n--\n\n"
     "The memory in which fork_serve and serve find their records; -1: none. OSError."},
    {"fork_serve", rung_fork_serve, METH_VARARGS,
     "fork_serve(fd, path, file, number)\n--\n\n"
     "The pid of a raw-forked child that serves the connection. The caller closes his fd.\n"
     "number: of the record, 0: none. OSError."},
    {"serve", rung_serve, METH_VARARGS,
     "serve(fd, path, file, number)\n--\n\n"
     "Serve the connection and close it. False: its client has not got an answer."},
    {"exclude_heap", rung_exclude_heap, METH_NOARGS,
     "exclude_heap()\n--\n\n"
     "No child gets the interpreter's memory any more; so many mappings, and bytes. Until\n"
     "include_heap() there must be no os.fork. OSError, RuntimeError."},
    {"include_heap", rung_include_heap, METH_NOARGS,
     "include_heap()\n--\n\nUndo exclude_heap. OSError."},
    {"bound_life", rung_bound_life, METH_NOARGS,
     "bound_life()\n--\n\nThis process gets SIGTERM when the one that started it ends, and SIGALRM\n"
     "after a quarter of an hour."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "rung",
    .m_doc = "The rungs of the laboratory's ladder that are C inside CPython.",
    .m_size = -1,
    .m_methods = methods,
};

PyMODINIT_FUNC PyInit_rung(void) {
    return PyModule_Create(&definition);
}
