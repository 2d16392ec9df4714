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

#include "loop.h"

#include <dlfcn.h>
#include <link.h>
#include <pthread.h>
#include <sys/auxv.h>
#ifdef __GLIBC__
#include <gnu/lib-names.h>
#endif

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

/* The heap, left out of the fork.

   Every private writable mapping is, but for a few ranges that the C child cannot do without: the
   stack; thread-local storage with the thread's descriptor, where errno and rseq's area are; the
   data of libc, of the dynamic linker and of this module. Not the interpreter's own, whether they
   are in a library or in the program. Mappings that are only read cost a fork next to nothing and
   the C library wants some of them (its relocated tables, the vDSO), so they stay.

   An object that gets between us and libc (LD_PRELOAD) with data of its own isn't known here: its
   child would die of a signal. */

/* On either side of the thread pointer: the kernel joins anonymous neighbours, so the mapping may
   hold arenas too. */
#define AROUND_THREAD 65536
#define MAPS_ROOM (1 << 22)

struct range {
    uintptr_t low, high;
};

struct heap {
    int advice;
    struct range kept[32]; /* in pages */
    int kept_count;
    uintptr_t needed[4]; /* addresses in the objects whose data are kept */
    int needed_count, found_count;
    long mappings;
    unsigned long long bytes;
};

static void keep(struct heap *heap, uintptr_t low, uintptr_t high) {
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    if (heap->kept_count < 32)
        heap->kept[heap->kept_count++] =
            (struct range){low / page * page, (high + page - 1) / page * page};
}

static struct range segment_of(const struct dl_phdr_info *object, int i) {
    uintptr_t low = object->dlpi_addr + object->dlpi_phdr[i].p_vaddr;
    return (struct range){low, low + object->dlpi_phdr[i].p_memsz};
}

static int holds(const struct dl_phdr_info *object, uintptr_t address) {
    for (int i = 0; i < object->dlpi_phnum; i++) {
        struct range segment = segment_of(object, i);
        if (object->dlpi_phdr[i].p_type == PT_LOAD && segment.low <= address &&
            address < segment.high)
            return 1;
    }
    return 0;
}

/* For dl_iterate_phdr(3). */
static int keep_if_needed(struct dl_phdr_info *object, size_t Py_UNUSED(size), void *data) {
    struct heap *heap = data;
    int is_needed = 0;
    for (int i = 0; i < heap->needed_count; i++)
        is_needed += holds(object, heap->needed[i]);
    heap->found_count += is_needed;
    for (int i = 0; is_needed && i < object->dlpi_phnum; i++) {
        struct range segment = segment_of(object, i);
        if (object->dlpi_phdr[i].p_type == PT_LOAD && object->dlpi_phdr[i].p_flags & PF_W)
            keep(heap, segment.low, segment.high);
    }
    return 0;
}

static void need(struct heap *heap, uintptr_t address) {
    if (address)
        heap->needed[heap->needed_count++] = address;
}

/* By the library's dynamic section. (The address of one of its functions may be a stub in a
   program that is not position-independent, such as Debian's python3.) */
static void need_library(struct heap *heap, const char *name) {
    struct link_map *map = NULL;
    void *handle = dlopen(name, RTLD_LAZY | RTLD_NOLOAD);
    if (handle && dlinfo(handle, RTLD_DI_LINKMAP, &map) == 0)
        need(heap, (uintptr_t)map->l_ld);
    if (handle)
        dlclose(handle);
}

/* -1: a library that must stay was not found. */
static int find_kept(struct heap *heap) {
    uintptr_t thread = (uintptr_t)pthread_self(), number = (uintptr_t)&errno;
    keep(heap, thread - AROUND_THREAD, thread + AROUND_THREAD);
    keep(heap, number - AROUND_THREAD, number + AROUND_THREAD);
    need(heap, (uintptr_t)&loop);
    need(heap, getauxval(AT_BASE)); /* the dynamic linker; with musl it is libc too */
#ifdef __GLIBC__
    need_library(heap, LIBC_SO);
    need_library(heap, LIBPTHREAD_SO); /* before 2.34 half of the system calls were there */
    int least = 3;
#else
    int least = 2;
#endif
    dl_iterate_phdr(keep_if_needed, heap);
    return heap->found_count < least || heap->kept_count == 32 ? -1 : 0;
}

/* What of low to high is not kept by the ranges from the `next`th on. */
static int advise(struct heap *heap, uintptr_t low, uintptr_t high, int next) {
    for (int i = next; i < heap->kept_count; i++) {
        struct range kept = heap->kept[i];
        if (kept.high <= low || high <= kept.low)
            continue;
        if (low < kept.low && advise(heap, low, kept.low, i + 1) < 0)
            return -1;
        return kept.high < high ? advise(heap, kept.high, high, i + 1) : 0;
    }
    if (madvise((void *)low, high - low, heap->advice) < 0)
        return heap->advice == MADV_DOFORK && errno == EINVAL ? 0 : -1; /* a device's */
    heap->mappings++;
    heap->bytes += high - low;
    return 0;
}

/* A line of proc_pid_maps(5). */
static int advise_line(struct heap *heap, const char *line) {
    unsigned long low, high;
    char may[5];
    uintptr_t here = (uintptr_t)&low;
    if (sscanf(line, "%lx-%lx %4s", &low, &high, may) != 3 || may[1] != 'w' || may[3] != 'p')
        return 0;
    if (low <= here && here < high)
        return 0; /* the stack */
    return advise(heap, low, high, 0);
}

/* All of /proc/self/maps into `text`, and an end. */
static int read_maps(char *text) {
    size_t size = 0;
    ssize_t got;
    int maps = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
    if (maps < 0)
        return -1;
    while ((got = read(maps, text + size, MAPS_ROOM - 1 - size)) > 0)
        size += (size_t)got;
    text[size] = 0;
    close(maps);
    if (got == 0 && size < MAPS_ROOM - 1)
        return 0;
    errno = got < 0 ? errno : EFBIG;
    return -1;
}

/* -1 with errno. The text stands in a mapping of its own: the heap must not move while it is read,
   nor this module's data become larger. */
static int advise_all(struct heap *heap) {
    char *text = mmap(NULL, MAPS_ROOM, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (text == MAP_FAILED)
        return -1;
    int done = read_maps(text);
    for (const char *line = text; done == 0 && line && *line;) {
        done = advise_line(heap, line);
        line = strchr(line, '\n');
        line = line ? line + 1 : NULL;
    }
    int error = errno;
    munmap(text, MAPS_ROOM);
    errno = error;
    return done;
}

static PyObject *rung_exclude_heap(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(nothing)) {
    struct heap heap = {.advice = MADV_DONTFORK};
    if (find_kept(&heap) < 0) {
        PyErr_SetString(PyExc_RuntimeError, "the C library is not found: the heap stays");
        return NULL;
    }
    if (advise_all(&heap) < 0)
        return os_error();
    return Py_BuildValue("(lK)", heap.mappings, heap.bytes);
}

static PyObject *rung_include_heap(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(nothing)) {
    struct heap heap = {.advice = MADV_DOFORK};
    if (advise_all(&heap) < 0)
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
