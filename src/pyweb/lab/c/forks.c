/* What fork(2) costs a process of a known size: forks MAPPINGS PAGES DESCRIPTORS COUNT
 *
 * It makes itself larger by so many mappings, private pages that have been written, and open
 * descriptors (two of five mappings have a page too); then it forks COUNT times, the child exits at
 * once, and the parent waits for it. On stdout: a line with what it really is (mappings, private pages, descriptors: counted, not
 * believed), and for each fork a line: ns until fork had returned in the parent, and ns until
 * wait4(2) had. Pages are the machine's (4 KiB on most).
 *
 * What can't be: one line on stderr, exit 2. It ends by itself (LIMIT). Not here: which sizes, how
 * often, and what is made of the figures (model.py).
 *
 * _Fork (glibc 2.34, musl 1.2.2) and not fork: nothing of the C library runs around it.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { LIMIT = 120 }; /* seconds */
enum { WARM_UP = 3 };

struct cycle {
    long forked, waited; /* ns */
};

__attribute__((noreturn, format(printf, 1, 2))) static void die(const char *format, ...)
{
    va_list words;
    fputs("forks: ", stderr);
    va_start(words, format);
    vfprintf(stderr, format, words);
    va_end(words);
    fputc('\n', stderr);
    exit(2);
}

static long number(const char *name, const char *text, long least, long most)
{
    char *end;
    errno = 0;
    long value = strtol(text, &end, 10);
    if (errno || end == text || *end || value < least || value > most)
        die("%s: a number from %ld to %ld, not %.40s", name, least, most, text);
    return value;
}

static long now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000L + t.tv_nsec;
}

/* As programs have them: of five mappings of a shared library about two have been written (its data,
 * and what was relocated), and so have most of an interpreter's others. One that was written costs a
 * fork some three times as much as one that was not: its page tables are copied, and the way back
 * from its pages (anon_vma) is set up. With mappings that nobody had written the model fell short of
 * pyweb's master by a ninth. Neighbours differ in what is allowed, or the kernel would make one of
 * them. */
static void add_mappings(long count, size_t page)
{
    static const int allowed[] = {PROT_NONE, PROT_READ, PROT_READ | PROT_WRITE, PROT_READ,
                                  PROT_READ | PROT_WRITE};
    if (!count)
        return;
    char *all = mmap(NULL, count * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1,
                     0);
    if (all == MAP_FAILED)
        die("no room for %ld mappings: %s", count, strerror(errno));
    for (long i = 0; i < count; i++) {
        int how = allowed[i % 5];
        if (how && mprotect(all + i * page, page, how))
            die("no room for %ld mappings: %s; raise vm.max_map_count", count, strerror(errno));
        if (how & PROT_WRITE)
            all[i * page] = 1;
    }
}

static void add_pages(long count, size_t page)
{
    if (!count)
        return;
    char *all = mmap(NULL, count * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (all == MAP_FAILED)
        die("no memory for %ld pages (%ld MB): %s", count, (long)(count * page >> 20),
            strerror(errno));
    madvise(all, count * page, MADV_NOHUGEPAGE); /* fails only where there are no huge ones */
    for (long i = 0; i < count; i++)
        all[i * page] = 1;
}

static void add_descriptors(long count)
{
    struct rlimit limit;
    if (!count)
        return;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    for (long i = 1; fd >= 0 && i < count; i++)
        if (dup(fd) < 0)
            fd = -1;
    if (fd < 0)
        die("can't open %ld descriptors: %s; raise the hard limit (ulimit -Hn)", count,
            strerror(errno));
}

static long lines_of(const char *path)
{
    long count = 0;
    int c;
    FILE *file = fopen(path, "r");
    if (!file)
        die("%s: %s", path, strerror(errno));
    while ((c = getc(file)) != EOF)
        count += c == '\n';
    fclose(file);
    return count;
}

static long private_pages(size_t page)
{
    char line[256];
    long size = -1; /* in kB */
    FILE *file = fopen("/proc/self/smaps_rollup", "r");
    if (!file)
        die("/proc/self/smaps_rollup: %s", strerror(errno));
    while (size < 0 && fgets(line, sizeof line, file))
        sscanf(line, "Anonymous: %ld", &size);
    fclose(file);
    if (size < 0)
        die("/proc/self/smaps_rollup tells no Anonymous: Linux 4.14 is needed");
    return size * 1024 / (long)page;
}

static long descriptors(void)
{
    long count = -1; /* the directory's own */
    struct dirent *entry;
    DIR *open = opendir("/proc/self/fd");
    if (!open)
        die("/proc/self/fd: %s", strerror(errno));
    while ((entry = readdir(open)))
        count += entry->d_name[0] != '.';
    closedir(open);
    return count;
}

static struct cycle one(void)
{
    struct cycle result;
    long begin = now();
    pid_t pid = _Fork();
    if (!pid)
        _exit(0);
    result.forked = now() - begin;
    if (pid < 0)
        die("can't fork: %s", strerror(errno));
    if (wait4(pid, NULL, 0, NULL) != pid)
        die("can't wait: %s", strerror(errno));
    result.waited = now() - begin;
    return result;
}

int main(int argc, char **argv)
{
    if (argc != 5)
        die("usage: forks MAPPINGS PAGES DESCRIPTORS COUNT");
    size_t page = sysconf(_SC_PAGESIZE);
    long mappings = number("MAPPINGS", argv[1], 0, 1000000);
    long pages = number("PAGES", argv[2], 0, 100000000);
    long files = number("DESCRIPTORS", argv[3], 0, 1000000);
    long count = number("COUNT", argv[4], 1, 1000000);
    alarm(LIMIT); /* children don't inherit it: they end at once */
    add_mappings(mappings, page);
    add_pages(pages, page);
    add_descriptors(files);
    struct cycle *cycles = malloc(count * sizeof *cycles);
    if (!cycles)
        die("no memory for %ld cycles", count);
    memset(cycles, 1, count * sizeof *cycles); /* its pages are counted too */
    for (int i = 0; i < WARM_UP; i++)
        one();
    printf("%ld %ld %ld\n", lines_of("/proc/self/maps"), private_pages(page), descriptors());
    fflush(stdout); /* who wants to look for himself can, now; and children inherit an empty buffer */
    for (long i = 0; i < count; i++)
        cycles[i] = one();
    for (long i = 0; i < count; i++)
        printf("%ld %ld\n", cycles[i].forked, cycles[i].waited);
    return fflush(stdout) ? 2 : 0;
}
