/* The accept loop of the C rungs, with a fork for each connection or without one.

   As pyweb's master goes about it: poll the listener and the signals, reap what has ended, accept
   in batches until the backlog is empty. The same loop runs in a C program (server.c) and inside
   CPython (rung.c), so that those rungs differ in the process alone. It uses none of the heap.
   Not here: what becomes of a connection (path.h), arguments, who binds the listener. */

#ifndef PYWEB_LAB_LOOP_H
#define PYWEB_LAB_LOOP_H

#include "path.h"

#include <signal.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>

/* Accepted in one go, so that reaping gets its turn. */
#define BATCH 64
/* Of so many that live at once is known which record is whose. */
#define CHILDREN 4096
/* Seconds. Whatever becomes of those who measure: no server stays. */
#define LIFE 900

enum work { CLOSE, SERVE, FORK_EXIT, FORK_SERVE, FORK_KEEP, HOLD };

struct child {
    pid_t pid;
    int64_t number;
};

struct loop {
    enum work work;
    int listener; /* non-blocking */
    int signals;
    struct task task;
    struct stamps stamps;
    sigset_t mask_before;
    struct sigaction child_before;
    int64_t awake;
    int64_t *batch[BATCH]; /* the records that this round has taken */
    int in_batch;
    int living; /* whose record we know; with stamps alone */
    struct child children[CHILDREN];
};

/* It ends with whoever started it, and at the latest after LIFE. */
static inline void bound_life(void) {
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    alarm(LIFE);
}

/* fork(2) without the handlers of pthread_atfork(3); the child may do what a signal handler may. */
static inline pid_t raw_fork(void) {
#if defined(__GLIBC__) && !__GLIBC_PREREQ(2, 34)
    return (pid_t)syscall(SYS_clone, (unsigned long)SIGCHLD, 0UL, 0UL, 0UL, 0UL);
#else
    return _Fork();
#endif
}

/* Signals. They are read from a descriptor: no handler runs, and no wait is interrupted. */

/* Before anybody can know of us: a SIGTERM that comes early is heard later. -1 with errno. */
static inline int hold_signals(struct loop *loop) {
    struct sigaction standard = {.sa_handler = SIG_DFL};
    sigset_t heard;
    /* Ignored, children would be reaped by the kernel. */
    if (sigaction(SIGCHLD, &standard, &loop->child_before) < 0)
        return -1;
    sigemptyset(&heard);
    sigaddset(&heard, SIGCHLD);
    sigaddset(&heard, SIGTERM);
    sigaddset(&heard, SIGINT);
    sigaddset(&heard, SIGALRM);
    if (sigprocmask(SIG_BLOCK, &heard, &loop->mask_before) < 0)
        return -1;
    loop->signals = signalfd(-1, &heard, SFD_CLOEXEC | SFD_NONBLOCK);
    return loop->signals;
}

static inline void release_signals(struct loop *loop) {
    close(loop->signals);
    sigaction(SIGCHLD, &loop->child_before, NULL);
    sigprocmask(SIG_SETMASK, &loop->mask_before, NULL);
}

/* True: one of them ends us. At most one of each is pending, so one read gets all. */
static inline int hear_signals(const struct loop *loop) {
    struct signalfd_siginfo heard[4];
    ssize_t size = read(loop->signals, heard, sizeof heard);
    for (ssize_t i = 0; size > 0 && i < size / (ssize_t)sizeof heard[0]; i++)
        if (heard[i].ssi_signo != SIGCHLD)
            return 1;
    return 0;
}

/* Reaping. */

static inline void remember(struct loop *loop, pid_t pid, int64_t *record) {
    if (record && loop->living < CHILDREN)
        loop->children[loop->living++] = (struct child){pid, record[W_NUMBER]};
}

/* The record of a child that has ended. NULL: there is none, or another connection has it now. */
static inline int64_t *forget(struct loop *loop, pid_t pid) {
    for (int i = 0; i < loop->living; i++) {
        struct child child = loop->children[i];
        if (child.pid != pid)
            continue;
        loop->children[i] = loop->children[--loop->living];
        int64_t *record = stamps_record(&loop->stamps, child.number);
        return record[W_NUMBER] == child.number ? record : NULL;
    }
    return NULL;
}

/* flags: of wait4(2). */
static inline void reap(struct loop *loop, int flags) {
    struct rusage usage;
    pid_t pid;
    while ((pid = wait4(-1, NULL, flags, &usage)) > 0) {
        int64_t *record = forget(loop, pid);
        put(record, W_NOTICED, loop->awake);
        if (record)
            mark_reaped(record, &usage);
    }
}

/* A connection. */

static inline void be_the_child(const struct loop *loop, int fd, int64_t *record) {
    int failed = 0;
    mark(record, W_CHILD);
    if (loop->work == FORK_SERVE)
        failed = serve_one(fd, &loop->task, record);
    else if (loop->work == FORK_KEEP)
        failed = serve_kept(fd, &loop->task);
    else if (record)
        put(record, W_PID, getpid());
    mark(record, W_EXIT);
    _exit(failed ? 1 : 0);
}

static inline int fork_for(struct loop *loop, int fd, int64_t *record) {
    mark(record, W_FORK_BEGIN);
    pid_t pid = raw_fork();
    if (pid == 0)
        be_the_child(loop, fd, record);
    mark(record, W_FORK_END);
    if (pid > 0)
        remember(loop, pid, record);
    int error = errno;
    close(fd);
    errno = error;
    return pid < 0 ? -1 : 0;
}

static inline int handle(struct loop *loop, int fd, int64_t *record) {
    if (loop->work == FORK_EXIT || loop->work == FORK_SERVE || loop->work == FORK_KEEP)
        return fork_for(loop, fd, record);
    if (loop->work == HOLD)
        return 0;
    if (loop->work == SERVE) {
        serve_one(fd, &loop->task, record);
    } else {
        if (record)
            put(record, W_PID, getpid());
        close(fd);
    }
    mark(record, W_EXIT);
    return 0;
}

/* accept(2): that one is gone already; the next may do. */
static inline int is_gone(int error) {
    return error == ECONNABORTED || error == EPROTO || error == EINTR;
}

/* Until the backlog is empty, or a batch is full. Gives the name of the call that failed. */
static inline const char *accept_batch(struct loop *loop) {
    for (loop->in_batch = 0; loop->in_batch < BATCH; loop->in_batch++) {
        int fd = accept4(loop->listener, NULL, NULL, SOCK_CLOEXEC);
        if (fd < 0 && errno == EAGAIN)
            return NULL;
        if (fd < 0 && !is_gone(errno))
            return "accept";
        int64_t *record = NULL;
        if (fd >= 0 && (record = stamps_take(&loop->stamps)) != NULL) {
            mark(record, W_ACCEPTED);
            put(record, W_AWAKE, loop->awake);
        }
        loop->batch[loop->in_batch] = record;
        if (fd >= 0 && handle(loop, fd, record) < 0)
            return "fork";
    }
    return NULL;
}

static inline void mark_waits(struct loop *loop) {
    for (int i = 0; i < loop->in_batch; i++)
        mark(loop->batch[i], W_WAITS);
    loop->in_batch = 0;
}

static inline const char *rounds(struct loop *loop) {
    struct pollfd polled[2] = {{loop->signals, POLLIN, 0}, {loop->listener, POLLIN, 0}};
    for (;;) {
        mark_waits(loop);
        if (poll(polled, 2, -1) < 0) {
            if (errno == EINTR)
                continue;
            return "poll";
        }
        loop->awake = loop->stamps.words ? now_ns() : 0;
        if (polled[0].revents) {
            int is_over = hear_signals(loop);
            reap(loop, WNOHANG);
            if (is_over)
                return NULL;
        }
        const char *failed = polled[1].revents ? accept_batch(loop) : NULL;
        if (failed)
            return failed;
    }
}

/* After hold_signals, until SIGTERM, SIGINT or SIGALRM; then the listener is shut and all children
   are waited for, which takes as long as their clients do, at most a few times PATIENCE. Signals
   are afterwards as before. NULL, or the name of the call that failed, with errno. */
static inline const char *loop_run(struct loop *loop) {
    loop->in_batch = loop->living = 0;
    const char *failed = rounds(loop);
    int error = errno;
    shutdown(loop->listener, SHUT_RDWR);
    reap(loop, 0);
    release_signals(loop);
    errno = error;
    return failed;
}

#endif
