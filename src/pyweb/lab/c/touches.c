/* What a page costs that a child writes to: touches PAGES TOUCHED COUNT
 *
 * A process with PAGES private pages forks COUNT times; each child writes to TOUCHED of them, so
 * that the kernel copies each (copy on write), and exits. On stdout a line for each: ns until fork
 * had returned in the parent, and until the child had been waited for. With TOUCHED and without it,
 * the difference is what such faults cost, to the freeing of the copies.
 *
 * What can't be: one line on stderr, exit 2. It ends by itself (LIMIT). Not here: what is made of
 * the figures (faults.py).
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { LIMIT = 120, WARM_UP = 3 };

__attribute__((noreturn)) static void die(const char *what, const char *why)
{
    fprintf(stderr, "touches: %s: %s\n", what, why);
    exit(2);
}

static long number(const char *text, long least, long most)
{
    char *end;
    errno = 0;
    long value = strtol(text, &end, 10);
    if (errno || end == text || *end || value < least || value > most)
        die(text, "not a number that is possible here");
    return value;
}

static long now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000L + t.tv_nsec;
}

static void touch(volatile char *memory, long pages, long page)
{
    for (long i = 0; i < pages; i++)
        memory[i * page] = 2;
}

int main(int argc, char **argv)
{
    if (argc != 4)
        die("use", "touches PAGES TOUCHED COUNT");
    alarm(LIMIT);
    long page = sysconf(_SC_PAGESIZE), pages = number(argv[1], 1, 1 << 20);
    long touched = number(argv[2], 0, pages), count = number(argv[3], 1, 100000);
    char *memory = mmap(NULL, pages * page, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        die("memory", strerror(errno));
    madvise(memory, pages * page, MADV_NOHUGEPAGE);
    memset(memory, 1, pages * page);
    for (long i = -WARM_UP; i < count; i++) {
        long begin = now();
        pid_t pid = fork();
        if (pid == 0) {
            touch(memory, touched, page);
            _exit(0);
        }
        long forked = now();
        if (pid < 0 || waitpid(pid, NULL, 0) < 0)
            die("fork", strerror(errno));
        long waited = now();
        if (i >= 0)
            printf("%ld %ld\n", forked - begin, waited - begin);
    }
    return fflush(stdout) ? 2 : 0;
}
