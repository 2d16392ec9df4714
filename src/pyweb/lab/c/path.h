/* The work that all rungs of the ladder have in common: one connection, served in C.

   Read the head, check that it asks for the one path there is, open the file, stat it, send a
   header of pyweb's fields and the body, shut the connection down. Beside it the stamps, in the
   memory that stamps.py describes (words.h is generated from it).

   It runs in children that were forked from CPython behind its back and may lack its heap: no
   malloc, no stdio, no locale, no time zone; nothing but system calls, the stack, and what this
   file holds itself. Not here: accepting, forking, who waits for whom (loop.h). */

#ifndef PYWEB_LAB_PATH_H
#define PYWEB_LAB_PATH_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "words.h"

/* Milliseconds for the head to come, and for room in a socket that is full. */
#define PATIENCE 10000
#define HEAD_ROOM 16384
/* As pyweb draws the line (_pysend.py): up to here header and body leave in one segment. */
#define SMALL 32768

/* Stamps. */

struct stamps {
    int64_t *words; /* NULL: nobody measures */
    int64_t count;  /* of records, without the head */
    int64_t taken;
};

/* CLOCK_MONOTONIC in ns, from the vDSO. */
static inline int64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* What the descriptor holds; below 0: there are no stamps. -1 with errno; EINVAL: too small. */
static inline int stamps_open(struct stamps *stamps, int fd) {
    struct stat status;
    memset(stamps, 0, sizeof *stamps);
    if (fd < 0)
        return 0;
    if (fstat(fd, &status) < 0)
        return -1;
    if (status.st_size < 2 * RECORD_SIZE) {
        errno = EINVAL;
        return -1;
    }
    void *memory = mmap(NULL, (size_t)status.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (memory == MAP_FAILED)
        return -1;
    stamps->words = memory;
    stamps->count = status.st_size / RECORD_SIZE - 1;
    stamps->words[1] = stamps->count;
    stamps->words[0] = STAMPS_MAGIC;
    return 0;
}

static inline void stamps_close(struct stamps *stamps) {
    if (stamps->words)
        munmap(stamps->words, (size_t)(stamps->count + 1) * RECORD_SIZE);
    memset(stamps, 0, sizeof *stamps);
}

/* Where the record of this number stands; NULL: nobody measures. */
static inline int64_t *stamps_record(const struct stamps *stamps, int64_t number) {
    if (!stamps->words)
        return NULL;
    return stamps->words + (1 + (number - 1) % stamps->count) * RECORD_WORDS;
}

/* The next record, empty, and numbered. */
static inline int64_t *stamps_take(struct stamps *stamps) {
    if (!stamps->words)
        return NULL;
    int64_t *record = stamps_record(stamps, ++stamps->taken);
    memset(record, 0, RECORD_SIZE);
    record[W_NUMBER] = stamps->taken;
    return record;
}

static inline void put(int64_t *record, int word, int64_t value) {
    if (record)
        record[word] = value;
}

/* It happens now. */
static inline void mark(int64_t *record, int word) {
    if (record)
        record[word] = now_ns();
}

static inline int64_t microseconds(struct timeval time) {
    return (int64_t)time.tv_sec * 1000000 + time.tv_usec;
}

static inline void mark_reaped(int64_t *record, const struct rusage *usage) {
    mark(record, W_REAPED);
    put(record, W_MINOR_FAULTS, usage->ru_minflt);
    put(record, W_VOLUNTARY, usage->ru_nvcsw);
    put(record, W_INVOLUNTARY, usage->ru_nivcsw);
    put(record, W_USER_US, microseconds(usage->ru_utime));
    put(record, W_SYSTEM_US, microseconds(usage->ru_stime));
}

/* The task: one path, one file. */

struct task {
    size_t path_size;
    char path[1024]; /* in the request, without an end */
    char file[4096];
};

/* Copied, for who serves may not see the caller's memory. -1 with errno. */
static inline int task_set(struct task *task, const char *path, const char *file) {
    size_t path_size = strlen(path), file_size = strlen(file);
    if (path_size > sizeof task->path || file_size >= sizeof task->file) {
        errno = ENAMETOOLONG;
        return -1;
    }
    task->path_size = path_size;
    memcpy(task->path, path, path_size);
    memcpy(task->file, file, file_size + 1);
    return 0;
}

/* Text, piece by piece. The caller knows that it fits. */

static inline char *add(char *at, const char *text) {
    size_t size = strlen(text);
    memcpy(at, text, size);
    return at + size;
}

static inline char *add_number(char *at, uint64_t value, unsigned base, int width) {
    char digits[20];
    int count = 0;
    do {
        digits[count++] = "0123456789abcdef"[value % base];
        value /= base;
    } while (value || count < width);
    while (count)
        *at++ = digits[--count];
    return at;
}

/* Days from 1970-01-01 to the first of January. */
static inline int64_t days_before(int64_t year) {
    int64_t past = year - 1;
    return past * 365 + past / 4 - past / 100 + past / 400 - 719162;
}

static inline int is_leap(int64_t year) {
    return year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
}

/* IMF-fixdate (RFC 9110 5.6.7); seconds since the epoch, not before. gmtime_r would look for the
   time zone, in files and with malloc. */
static inline char *add_date(char *at, int64_t seconds) {
    static const char days[] = "ThuFriSatSunMonTueWed";
    static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
    static const char lengths[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    int64_t day = seconds / 86400, second = seconds % 86400;
    int64_t year = 1970 + day / 366;
    int weekday = (int)(day % 7), month = 0;
    while (days_before(year + 1) <= day)
        year++;
    day -= days_before(year);
    for (;; month++) {
        int length = lengths[month] + (month == 1 && is_leap(year));
        if (day < length)
            break;
        day -= length;
    }
    memcpy(at, days + 3 * weekday, 3);
    at = add_number(add(at + 3, ", "), (uint64_t)day + 1, 10, 2);
    *at++ = ' ';
    memcpy(at, months + 3 * month, 3);
    at = add_number(add(at + 3, " "), (uint64_t)year, 10, 4);
    at = add_number(add(at, " "), (uint64_t)second / 3600, 10, 2);
    at = add_number(add(at, ":"), (uint64_t)second / 60 % 60, 10, 2);
    return add(add_number(add(at, ":"), (uint64_t)second % 60, 10, 2), " GMT");
}

/* The Date field's value, rendered once a second; a child has its parent's last one. */
static inline char *add_now(char *at, int64_t second) {
    static int64_t rendered = -1;
    static char date[sizeof "Thu, 01 Jan 1970 00:00:00 GMT"];
    if (rendered != second) {
        *add_date(date, second) = 0;
        rendered = second;
    }
    return add(at, date);
}

/* Status line and fields as pyweb sends them for a text file (render.py, static.py). The type is
   fixed: whoever compares sizes names his file .txt. Gives the size, below 512. */
static inline size_t render_header(char *header, const struct stat *file, int keeps) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    int64_t modified = file->st_mtim.tv_sec;
    if (modified > now.tv_sec)
        modified = now.tv_sec;
    int64_t changed = (int64_t)file->st_mtim.tv_sec * 1000000000 + file->st_mtim.tv_nsec;
    char *at = add(header, "HTTP/1.1 200 OK\r\nDate: ");
    at = add_now(at, now.tv_sec);
    at = add(at, "\r\nServer: pyweb\r\nContent-Type: text/plain; charset=utf-8\r\n"
                 "X-Content-Type-Options: nosniff\r\nAccept-Ranges: bytes\r\nETag: \"");
    at = add(add_number(at, (uint64_t)changed, 16, 1), "-");
    at = add_number(at, (uint64_t)file->st_size, 16, 1);
    at = add_date(add(at, "\"\r\nLast-Modified: "), modified > 0 ? modified : 0);
    at = add_number(add(at, "\r\nContent-Length: "), (uint64_t)file->st_size, 10, 1);
    at = add(at, keeps ? "" : "\r\nConnection: close");
    return (size_t)(add(at, "\r\n\r\n") - header);
}

/* The connection, non-blocking. Each gives -1 when it is lost, or the client too slow. */

static inline int wait_for(int fd, short events) {
    struct pollfd polled = {fd, events, 0};
    int count;
    do
        count = poll(&polled, 1, PATIENCE);
    while (count < 0 && errno == EINTR);
    return count == 1 ? 0 : -1;
}

/* Try again after a failed call? */
static inline int may_go_on(int fd, short events) {
    if (errno == EINTR)
        return 1;
    return errno == EAGAIN && wait_for(fd, events) == 0;
}

/* To the empty line. Gives the size of what came; nobody asks for what would follow. */
static inline ssize_t receive_head(int fd, char *head, int64_t *record) {
    size_t size = 0;
    while (size < HEAD_ROOM) {
        ssize_t got = recv(fd, head + size, HEAD_ROOM - size, 0);
        if (got == 0 || (got < 0 && !may_go_on(fd, POLLIN)))
            return -1;
        if (got < 0)
            continue;
        if (!size)
            mark(record, W_FIRST_BYTE);
        size += (size_t)got;
        if (memmem(head, size, "\r\n\r\n", 4))
            return (ssize_t)size;
    }
    return -1;
}

/* GET, our path, HTTP/1.x. */
static inline int is_wanted(const char *head, size_t size, const struct task *task) {
    const char *at = head + 4;
    if (size < 4 + task->path_size + sizeof " HTTP/1.x\r" || memcmp(head, "GET ", 4) != 0)
        return 0;
    if (memcmp(at, task->path, task->path_size) != 0)
        return 0;
    at += task->path_size;
    return memcmp(at, " HTTP/1.", 8) == 0 && at[8] >= '0' && at[8] <= '9' && at[9] == '\r';
}

/* All of two pieces. */
static inline int send_both(int fd, struct iovec *pieces, int flags) {
    struct msghdr message = {.msg_iov = pieces, .msg_iovlen = 2};
    while (pieces[0].iov_len + pieces[1].iov_len) {
        ssize_t sent = sendmsg(fd, &message, MSG_NOSIGNAL | flags);
        if (sent < 0 && !may_go_on(fd, POLLOUT))
            return -1;
        for (int i = 0; i < 2 && sent > 0; i++) {
            size_t of_it = pieces[i].iov_len < (size_t)sent ? pieces[i].iov_len : (size_t)sent;
            pieces[i].iov_base = (char *)pieces[i].iov_base + of_it;
            pieces[i].iov_len -= of_it;
            sent -= (ssize_t)of_it;
        }
    }
    return 0;
}

static inline int read_all(int file, char *body, size_t count) {
    size_t done = 0;
    while (done < count) {
        ssize_t got = pread(file, body + done, count - done, (off_t)done);
        if (got == 0 || (got < 0 && errno != EINTR))
            return -1;
        if (got > 0)
            done += (size_t)got;
    }
    return 0;
}

static inline int send_small(int fd, struct iovec header, int file, size_t count, int64_t *record) {
    char body[SMALL];
    if (read_all(file, body, count) < 0)
        return -1;
    struct iovec pieces[2] = {header, {body, count}};
    if (send_both(fd, pieces, 0) < 0)
        return -1;
    mark(record, W_HEADER_SENT);
    return 0;
}

static inline int send_large(int fd, struct iovec header, int file, off_t count, int64_t *record) {
    struct iovec pieces[2] = {header, {NULL, 0}};
    off_t offset = 0;
    if (send_both(fd, pieces, MSG_MORE) < 0)
        return -1;
    mark(record, W_HEADER_SENT);
    while (offset < count) {
        ssize_t sent = sendfile(fd, file, &offset, (size_t)(count - offset));
        if (sent == 0 || (sent < 0 && !may_go_on(fd, POLLOUT)))
            return -1;
    }
    return 0;
}

static inline int answer_with(int fd, int file, int64_t *record) {
    struct stat status;
    char header[512];
    if (fstat(file, &status) < 0)
        return -1;
    mark(record, W_OPENED);
    struct iovec piece = {header, render_header(header, &status, 0)};
    mark(record, W_DECIDED);
    int sent = status.st_size <= SMALL
                   ? send_small(fd, piece, file, (size_t)status.st_size, record)
                   : send_large(fd, piece, file, status.st_size, record);
    if (sent == 0)
        mark(record, W_BODY_SENT);
    return sent;
}

static inline int refuse(int fd) {
    char text[] = "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    struct iovec pieces[2] = {{text, sizeof text - 1}, {NULL, 0}};
    return send_both(fd, pieces, 0);
}

static inline int converse(int fd, const struct task *task, int64_t *record) {
    char head[HEAD_ROOM];
    int on = 1;
    if (ioctl(fd, FIONBIO, &on) < 0)
        return -1;
    ssize_t size = receive_head(fd, head, record);
    if (size < 0)
        return -1;
    int wanted = is_wanted(head, (size_t)size, task);
    mark(record, W_PARSED);
    int file = wanted ? open(task->file, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0)
        return refuse(fd);
    int done = answer_with(fd, file, record);
    close(file);
    return done;
}

/* One connection that is kept, with no more than it takes: one receive and one send a request, for
   a small file that is read once; for a large one a header, and a sendfile(2) that waits by itself.
   What a process for each connection costs at least, in C. Until the client closes, or asks for
   another file, or in pieces; closes it. -1: no such file. */
static inline int serve_kept(int fd, const struct task *task) {
    char head[HEAD_ROOM], header[512], body[SMALL];
    struct stat status;
    ssize_t size;
    int file = open(task->file, O_RDONLY | O_CLOEXEC);
    if (file < 0 || fstat(file, &status) < 0)
        return -1;
    int is_small = status.st_size <= SMALL;
    if (is_small && read_all(file, body, (size_t)status.st_size) < 0)
        return -1;
    while ((size = recv(fd, head, sizeof head, 0)) > 0 && is_wanted(head, (size_t)size, task)) {
        struct iovec pieces[2] = {{header, render_header(header, &status, 1)},
                                  {body, is_small ? (size_t)status.st_size : 0}};
        int sent = is_small ? send_both(fd, pieces, 0)
                            : send_large(fd, pieces[0], file, status.st_size, NULL);
        if (sent < 0)
            break;
    }
    shutdown(fd, SHUT_WR);
    close(fd);
    return 0;
}

/* One connection, whole; closes it. -1: the client has not got its answer. Writes the stamps from
   FIRST_BYTE to BODY_SENT, and PID. */
static inline int serve_one(int fd, const struct task *task, int64_t *record) {
    if (record)
        put(record, W_PID, getpid());
    int done = converse(fd, task, record);
    shutdown(fd, SHUT_WR);
    close(fd);
    return done;
}

#endif
