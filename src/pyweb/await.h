/* One wait for all of a worker's descriptors, and who comes: epoll(7), accept4(2), recv(2) as
   _fastlane.pyx wants them. Linux alone has such a wait; elsewhere there is no lane (pool_mode.py),
   and what stands here fails. Not here: what is done with what was found. */

#ifndef PYWEB_AWAIT_H
#define PYWEB_AWAIT_H

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#if defined(__linux__)
#include <sys/epoll.h>

#define PYWEB_BATCH 128
struct pyweb_ready { int count, at; struct epoll_event events[PYWEB_BATCH]; };

static int pyweb_await(int poll, struct pyweb_ready *ready, int patience) {
    ready->at = 0;
    ready->count = epoll_wait(poll, ready->events, PYWEB_BATCH, patience);
    return ready->count;
}

static int pyweb_next(struct pyweb_ready *ready, int *events) {
    struct epoll_event *one = &ready->events[ready->at++];
    *events = (int)one->events;
    return one->data.fd;
}

/* 1: that one alone is left. */
static int pyweb_leave_alone(struct pyweb_ready *ready, int file) {
    int i;
    for (i = 0; i < ready->count; i++)
        if (ready->events[i].data.fd == file) {
            ready->events[0] = ready->events[i];
            ready->count = 1;
            return 1;
        }
    return 0;
}

static int pyweb_control(int poll, int operation, int file, unsigned events) {
    struct epoll_event wanted;
    memset(&wanted, 0, sizeof wanted);
    wanted.events = events;
    wanted.data.fd = file;
    return epoll_ctl(poll, operation, file, &wanted);
}

static int pyweb_watch(int poll, int file) {
    return pyweb_control(poll, EPOLL_CTL_ADD, file, EPOLLIN);
}

static int pyweb_watch_for(int poll, int file, int room) {
    return pyweb_control(poll, EPOLL_CTL_MOD, file, room ? EPOLLOUT : EPOLLIN);
}

static int pyweb_accept_from(int door, struct sockaddr_storage *from) {
    socklen_t size = sizeof *from;
    return accept4(door, (struct sockaddr *)from, &size, SOCK_NONBLOCK | SOCK_CLOEXEC);
}
#else
struct pyweb_ready { int count, at; };
static int pyweb_await(int poll, struct pyweb_ready *ready, int patience) {
    (void)poll; (void)ready; (void)patience;
    errno = ENOSYS;
    return -1;
}
static int pyweb_next(struct pyweb_ready *ready, int *events) {
    (void)ready; (void)events;
    return -1;
}
static int pyweb_leave_alone(struct pyweb_ready *ready, int file) {
    (void)ready; (void)file;
    return 0;
}
static int pyweb_watch(int poll, int file) { (void)poll; (void)file; return -1; }
static int pyweb_watch_for(int poll, int file, int room) {
    (void)poll; (void)file; (void)room;
    return -1;
}
static int pyweb_accept_from(int door, struct sockaddr_storage *from) {
    (void)door; (void)from;
    errno = ENOSYS;
    return -1;
}
#endif

/* -1: the descriptors, or the memory, of this process or system are used up. 0: there is no
   connection, or no longer. Else a descriptor + 1. */
static int pyweb_accept(int door, int *family, char *name, int room) {
    struct sockaddr_storage from;
    int file;
    memset(&from, 0, sizeof from);
    file = pyweb_accept_from(door, &from);
    if (file < 0)
        return errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM
               ? -1 : 0;
    *family = from.ss_family;
    if (from.ss_family == AF_INET)
        inet_ntop(AF_INET, &((struct sockaddr_in *)&from)->sin_addr, name, (socklen_t)room);
    else if (from.ss_family == AF_INET6)
        inet_ntop(AF_INET6, &((struct sockaddr_in6 *)&from)->sin6_addr, name,
                  (socklen_t)room);
    else {
        *family = AF_UNIX;
        strcpy(name, "unix:");
    }
    return file + 1;
}

static ssize_t pyweb_receive(int sock, void *data, size_t size) {
    ssize_t got;
    do got = recv(sock, data, size, MSG_DONTWAIT);
    while (got < 0 && errno == EINTR);
    return got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK) ? -2 : got;
}

#endif
