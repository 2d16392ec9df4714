/* The interpreter's memory: what a process that never enters it needn't have. A zygote gives it back
   (_fastzygote.pyx); the laboratory leaves it out of forks (rung.c).

   Every private mapping is, but for a few ranges that a child in C cannot do without: the stack;
   thread-local storage with the thread's descriptor, where errno and rseq's area are; libc, the
   dynamic linker and the modules whose code it runs; what the kernel maps (the vDSO). Not the
   interpreter, whether it is in a library or in the program. Also a mapping that is only read, of
   which no page is copied, costs something to set up and to take down again: of a hundred of
   them, libraries that the child never calls, it is a fifth of a connection in C. What is shared
   was never copied.

   An object that gets between us and libc (LD_PRELOAD) with data of its own isn't known here: its
   child would die of a signal.

   Linux alone tells a process its mappings like that (proc_pid_maps(5)). Not here: what is done with
   what was found. */

#ifndef PYWEB_HEAP_H
#define PYWEB_HEAP_H

#if defined(__linux__)

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <unistd.h>
#ifdef __GLIBC__
#include <gnu/lib-names.h>
#endif

/* On either side of the thread pointer: the kernel joins anonymous neighbours, so the mapping may
   hold arenas too. */
#define AROUND_THREAD 65536
#define MAPS_ROOM (1 << 22)
#define KEPT 64

struct range {
    uintptr_t low, high;
};

/* What has been left out: to take it in again must need neither a descriptor nor memory. */
#define LEFT_OUT 4096
static struct range left_out[LEFT_OUT];
static int left_out_count;

struct heap {
    struct range kept[KEPT]; /* in pages */
    int kept_count;
    uintptr_t needed[16]; /* addresses in the objects whose data are kept */
    int needed_count, found_count;
    unsigned long long bytes;
    int needs_libc;
};

static void keep(struct heap *heap, uintptr_t low, uintptr_t high) {
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    if (heap->kept_count < KEPT)
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
static int keep_if_needed(struct dl_phdr_info *object, size_t size, void *data) {
    struct heap *heap = data;
    (void)size;
    int is_needed = 0;
    for (int i = 0; i < heap->needed_count; i++)
        is_needed += holds(object, heap->needed[i]);
    heap->found_count += is_needed;
    for (int i = 0; is_needed && i < object->dlpi_phnum; i++) {
        struct range segment = segment_of(object, i);
        if (object->dlpi_phdr[i].p_type == PT_LOAD)
            keep(heap, segment.low, segment.high);
    }
    return 0;
}

static void need(struct heap *heap, uintptr_t address) {
    if (address && heap->needed_count < 16)
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

/* `ours`: addresses in the data of modules that stay. -1: what must stay was not found. */
static int find_kept(struct heap *heap, const uintptr_t *ours, int count, int libc) {
    uintptr_t thread = (uintptr_t)pthread_self(), number = (uintptr_t)&errno;
    for (int i = 0; i < count; i++)
        need(heap, ours[i]);
    if (!libc) {
        /* The guard of the stack, which the compiler looks at: here, or in the linker's data. */
        keep(heap, thread, thread + 64);
#ifndef __x86_64__
        need(heap, getauxval(AT_BASE));
#endif
        dl_iterate_phdr(keep_if_needed, heap);
        return heap->found_count && heap->kept_count < KEPT ? 0 : -1;
    }
    keep(heap, thread - AROUND_THREAD, thread + AROUND_THREAD);
    keep(heap, number - AROUND_THREAD, number + AROUND_THREAD);
    need(heap, getauxval(AT_BASE)); /* the dynamic linker; with musl it is libc too */
#ifdef __GLIBC__
    need_library(heap, LIBC_SO);
    need_library(heap, LIBPTHREAD_SO); /* before 2.34 half of the system calls were there */
    int least = 2 + count;
#else
    int least = 1 + count;
#endif
    dl_iterate_phdr(keep_if_needed, heap);
    return heap->found_count < least || heap->kept_count == KEPT ? -1 : 0;
}

/* What of low to high is not kept by the ranges from the `next`th on. */
static int leave_out(struct heap *heap, uintptr_t low, uintptr_t high, int next) {
    for (int i = next; i < heap->kept_count; i++) {
        struct range kept = heap->kept[i];
        if (kept.high <= low || high <= kept.low)
            continue;
        if (low < kept.low && leave_out(heap, low, kept.low, i + 1) < 0)
            return -1;
        return kept.high < high ? leave_out(heap, kept.high, high, i + 1) : 0;
    }
    if (left_out_count == LEFT_OUT) {
        errno = E2BIG;
        return -1;
    }
    left_out[left_out_count++] = (struct range){low, high};
    heap->bytes += high - low;
    return 0;
}

/* [vdso], [vvar], [vvar_vclock], [vsyscall]. */
static int is_the_kernels(const char *line) {
    const char *end = strchr(line, '\n'), *name = strchr(line, '[');
    return name && (!end || name < end) && name[1] == 'v';
}

/* A line of proc_pid_maps(5). */
static int look_at_line(struct heap *heap, const char *line) {
    unsigned long low, high;
    char may[5];
    uintptr_t here = (uintptr_t)&low;
    if (sscanf(line, "%lx-%lx %4s", &low, &high, may) != 3 || (heap->needs_libc && may[3] != 'p'))
        return 0;
    if (heap->needs_libc && ((low <= here && here < high) || is_the_kernels(line)))
        return 0; /* the stack */
    return leave_out(heap, low, high, 0);
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

/* -1 with errno. The text stands in a mapping of its own: the heap must not move while it is read. */
static int look_at_all(struct heap *heap) {
    char *text = mmap(NULL, MAPS_ROOM, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (text == MAP_FAILED)
        return -1;
    int done = read_maps(text);
    for (const char *line = text; done == 0 && line && *line;) {
        done = look_at_line(heap, line);
        line = strchr(line, '\n');
        line = line ? line + 1 : NULL;
    }
    int error = errno;
    munmap(text, MAPS_ROOM);
    errno = error;
    return done;
}

/* Which ranges are the heap. -1 with errno; ENOENT: see find_kept. */
static int find_heap(struct heap *heap, const uintptr_t *ours, int count, int libc) {
    left_out_count = 0;
    heap->needs_libc = libc;
    if (find_kept(heap, ours, count, libc) == 0)
        return look_at_all(heap);
    errno = ENOENT;
    return -1;
}

#endif
#endif
