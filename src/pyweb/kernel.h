/* System calls without the C library, for a process that has none: a child of the zygote
   (_fastzygote.pyx) has this library's code and data, a stack, and what is shared, and that is all.
   Each further mapping is set up at its fork, faulted in, and taken down again at its end.

   As the C library's functions of those names (man 2), but for errors: they give -errno, for
   errno is the C library's. Where the instruction isn't known here the library is called, and
   stays in the fork (PYWEB_NEEDS_LIBC).

   Not here: what is done with them. */

#ifndef PYWEB_KERNEL_H
#define PYWEB_KERNEL_H

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>
#if defined(__linux__)
#include <sys/prctl.h>
#include <sys/sendfile.h>
#include <sys/syscall.h>
#endif

/* What a child calls is linked beside Cython's functions of ours (setup.py): a window of 64 KB of the
   library that it touches is a page fault. */
#if defined(__linux__)
#define PYWEB_BESIDE __attribute__((section(".text.__pyx_f_5pyweb")))
#else
#define PYWEB_BESIDE
#endif

/* Where there is no such thing. */
#ifndef MSG_MORE
#define MSG_MORE 0
#endif
#ifndef MSG_NOSIGNAL
#define MSG_NOSIGNAL 0
#endif

#if defined(__linux__) && defined(__x86_64__) && defined(__LP64__)
#define PYWEB_NEEDS_LIBC 0
static inline long kernel_call(long number, long a, long b, long c, long d, long e, long f) {
    long result;
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    register long r9 __asm__("r9") = f;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return result;
}
#elif defined(__linux__) && defined(__aarch64__)
#define PYWEB_NEEDS_LIBC 0
static inline long kernel_call(long number, long a, long b, long c, long d, long e, long f) {
    register long x8 __asm__("x8") = number;
    register long x0 __asm__("x0") = a;
    register long x1 __asm__("x1") = b;
    register long x2 __asm__("x2") = c;
    register long x3 __asm__("x3") = d;
    register long x4 __asm__("x4") = e;
    register long x5 __asm__("x5") = f;
    __asm__ volatile("svc 0"
                     : "+r"(x0)
                     : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5)
                     : "memory");
    return x0;
}
#else
#define PYWEB_NEEDS_LIBC 1
#if defined(__linux__)
static inline long kernel_call(long number, long a, long b, long c, long d, long e, long f) {
    long result = syscall(number, a, b, c, d, e, f);
    return result < 0 ? -errno : result;
}
#endif
#endif

#if !PYWEB_NEEDS_LIBC
#define PYWEB_CALL(name, libc, ...) PYWEB_CALL_(SYS_##name, __VA_ARGS__, 0, 0, 0, 0, 0, 0)
#define PYWEB_CALL_(number, a, b, c, d, e, f, ...)                                               \
    kernel_call(number, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), (long)(f))
#else
static inline long kernel_said(long result) { return result < 0 ? -errno : result; }
#define PYWEB_CALL(name, libc, ...) kernel_said((long)(libc))
#endif

static inline int kernel_poll(struct pollfd *these, unsigned count, int patience) {
#if !PYWEB_NEEDS_LIBC
    struct timespec most = {patience / 1000, patience % 1000 * 1000000L};
    return (int)PYWEB_CALL(ppoll, 0, these, count, patience < 0 ? NULL : &most, NULL, 0);
#else
    return (int)kernel_said(poll(these, count, patience));
#endif
}

static inline ssize_t kernel_recv(int sock, void *data, size_t size, int flags) {
    return PYWEB_CALL(recvfrom, recv(sock, data, size, flags), sock, data, size, flags);
}

static inline ssize_t kernel_send(int sock, const void *data, size_t size, int flags) {
    return PYWEB_CALL(sendto, send(sock, data, size, flags), sock, data, size, flags);
}

static inline ssize_t kernel_sendmsg(int sock, const struct msghdr *message, int flags) {
    return PYWEB_CALL(sendmsg, sendmsg(sock, message, flags), sock, message, flags);
}

static inline ssize_t kernel_write(int file, const void *data, size_t size) {
    return PYWEB_CALL(write, write(file, data, size), file, data, size);
}

static inline ssize_t kernel_pread(int file, void *data, size_t size, off_t offset) {
    return PYWEB_CALL(pread64, pread(file, data, size, offset), file, data, size, offset);
}

static inline int kernel_fstatat(int at, const char *path, struct stat *found) {
    return (int)PYWEB_CALL(newfstatat, fstatat(at, path, found, 0), at, path, found, 0);
}

/* A link is itself. */
static inline int kernel_lstatat(int at, const char *path, struct stat *found) {
    const int flags = AT_SYMLINK_NOFOLLOW;
    return (int)PYWEB_CALL(newfstatat, fstatat(at, path, found, flags), at, path, found, flags);
}

static inline int kernel_fstat(int file, struct stat *found) {
    return (int)PYWEB_CALL(fstat, fstat(file, found), file, found);
}

static inline int kernel_shutdown(int sock, int how) {
    return (int)PYWEB_CALL(shutdown, shutdown(sock, how), sock, how);
}

static inline int kernel_close(int file) {
    return (int)PYWEB_CALL(close, close(file), file);
}

static inline int kernel_ioctl(int file, unsigned long request, void *with) {
    return (int)PYWEB_CALL(ioctl, ioctl(file, request, with), file, request, with);
}

static inline int kernel_set_option(int sock, int level, int name, const void *value,
                                    socklen_t size) {
    return (int)PYWEB_CALL(setsockopt, setsockopt(sock, level, name, value, size), sock, level,
                           name, value, size);
}

static inline ssize_t kernel_read(int file, void *data, size_t size) {
    return PYWEB_CALL(read, read(file, data, size), file, data, size);
}

static inline pid_t kernel_getpid(void) {
    return (pid_t)PYWEB_CALL(getpid, getpid(), 0);
}

static inline pid_t kernel_getppid(void) {
    return (pid_t)PYWEB_CALL(getppid, getppid(), 0);
}

static inline void kernel_exit(int code) {
#if !PYWEB_NEEDS_LIBC
    for (;;)
        PYWEB_CALL(exit_group, 0, code);
#else
    _exit(code);
#endif
}

/* For ps(1) and top(1). */
static inline void kernel_name_process(const char *name) {
#if defined(__linux__)
    kernel_call(SYS_prctl, PR_SET_NAME, (long)name, 0, 0, 0, 0);
#else
    (void)name;
#endif
}

/* Of the signals from 1 to 64 those that wait: a bit each, from the lowest on. */
static inline uint64_t kernel_pending(void) {
    uint64_t found = 0;
#if !PYWEB_NEEDS_LIBC
    PYWEB_CALL(rt_sigpending, 0, &found, sizeof found);
#else
    sigset_t pending;
    sigemptyset(&pending);
    if (sigpending(&pending) == 0)
        for (int number = 1; number < NSIG && number <= 64; number++)
            if (sigismember(&pending, number) == 1)
                found |= (uint64_t)1 << (number - 1);
#endif
    return found;
}

/* A message with a descriptor in it (unix(7)). False: not now, or nobody is there. */
union kernel_control { struct cmsghdr header; char room[CMSG_SPACE(sizeof(int))]; };

static inline int kernel_send_descriptor(int way, int descriptor, void *data, size_t size) {
    union kernel_control control;
    struct iovec part = {data, size};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = &control,
                             .msg_controllen = sizeof control.room};
    memset(&control, 0, sizeof control);
    control.header.cmsg_level = SOL_SOCKET;
    control.header.cmsg_type = SCM_RIGHTS;
    control.header.cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(&control.header), &descriptor, sizeof descriptor);
    return kernel_sendmsg(way, &message, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0;
}

/* *descriptor: -1 if there was none. 0: all who could send are gone. */
static inline ssize_t kernel_receive_descriptor(int way, int *descriptor, void *data, size_t size,
                                                int flags) {
    union kernel_control control;
    struct iovec part = {data, size};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = &control,
                             .msg_controllen = sizeof control.room};
    ssize_t got;
    *descriptor = -1;
    /* The peer that dies with messages unread is told before those that it has sent. */
    do got = PYWEB_CALL(recvmsg, recvmsg(way, &message, flags), way, &message, flags);
    while (got == -EINTR || got == -ECONNRESET);
    if (got > 0 && message.msg_controllen >= CMSG_LEN(sizeof(int)))
        memcpy(descriptor, CMSG_DATA(&control.header), sizeof *descriptor);
    return got;
}

#if defined(__linux__)
static inline ssize_t kernel_sendfile(int to, int from, off_t *offset, size_t size) {
    return PYWEB_CALL(sendfile, sendfile(to, from, offset, size), to, from, offset, size);
}
#endif

#endif
