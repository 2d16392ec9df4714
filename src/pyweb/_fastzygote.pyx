# cython: language_level=3
"""The zygote: a process without an interpreter, which forks children for the master.

What lives here: how it comes to be, what the master asks of it, and what it tells. What must
never: a decision; in the zygote and its children, an object, a lock, or a function of the C
library.

A fork copies what a process has mapped, faults in again what the child touches, and takes all of
it down at the end. Of an interpreter's hundred mappings a child that repeats decisions needs
ten. So the master is forked once, raw; this child gives back all but those (heap.h, munmap(2)),
closes all descriptors but those that children share, and from then on gets connections over a
socket (unix(7), SCM_RIGHTS) and forks. Its children are the master's (CLONE_PARENT): the master
reaps them, as if it had forked them itself. What such a child can't do it hands back, by its exit
code, with nothing taken from the socket.

An order has a ticket, by which the child's pid is told, and nobody waits for that. Where spares are
wanted, so many are forked beforehand: they wait for orders at the same socket, whoever gets one
says that it is one less (eventfd(2)), tells its pid itself, and serves; the zygote forks another
then, beside it. So the client does not wait for the fork.

All of them end with the master: then their socket hangs up. Should the zygote die, the newest
child's pid, which the kernel writes before that child runs, stands in a page that no child has.

All signals are held back in the zygote and in its children.
"""

from cpython.exc cimport PyErr_SetFromErrno
from libc cimport errno
from libc.string cimport memset

from pyweb._fastcache cimport find
from pyweb._fastclock cimport TIMES, Times, forget_libc
from pyweb._fastexchange cimport CHILD_STAMP, Ground, Peer, mark
from pyweb._fastfork cimport Kept, close_others, keep_files
from pyweb._fastparse cimport scan_head
from pyweb._fastserve cimport Repeater, Turn, run

import os
import socket

cdef extern from *:
    """
    #include "kernel.h"
    #if defined(__linux__) && !defined(__SANITIZE_ADDRESS__)
    #include <sched.h>
    #include <sys/mman.h>
    #if defined(__GLIBC__) && __GLIBC_PREREQ(2, 35)
    #include <sys/rseq.h>
    #endif
    #include "heap.h"

    static void *pyweb_map(size_t size, int flags) {
        void *found = mmap(NULL, size, PROT_READ | PROT_WRITE, flags | MAP_ANONYMOUS, -1, 0);
        return found == MAP_FAILED ? NULL : found;
    }

    static void *pyweb_share_page(void) { return pyweb_map(4096, MAP_SHARED); }
    static void pyweb_unshare_page(void *page) { munmap(page, 4096); }

    static long pyweb_raw_clone(unsigned long flags, pid_t *pid) {
    #if defined(__s390__) || defined(__CRIS__)
        return kernel_call(SYS_clone, 0, (long)flags, (long)pid, 0, 0, 0);
    #else
        return kernel_call(SYS_clone, (long)flags, 0, (long)pid, 0, 0, 0);
    #endif
    }

    #define PYWEB_STACK (256 << 10)

    static struct heap pyweb_heap;   /* of this process, which has one zygote at a time */

    static void pyweb_keep(const void *low, size_t size) {
        keep(&pyweb_heap, (uintptr_t)low, (uintptr_t)low + size);
    }

    /* A pid, or -errno. On a stack of its own, which its children find empty. */
    static pid_t pyweb_clone_zygote(const uintptr_t *ours, int count, int (*be)(void *),
                                    void *with) {
        char *stack = pyweb_map(PYWEB_STACK, MAP_PRIVATE);
        sigset_t all, before;
        pid_t pid = -1;
        int error;
        if (!stack)
            return -errno;
        pyweb_keep(stack, PYWEB_STACK);
        if (find_heap(&pyweb_heap, ours, count, PYWEB_NEEDS_LIBC) == 0) {
            sigfillset(&all);
            pthread_sigmask(SIG_SETMASK, &all, &before);
            pid = clone(be, stack + PYWEB_STACK, SIGCHLD, with);
            error = errno;
            pthread_sigmask(SIG_SETMASK, &before, NULL);
            errno = error;
        }
        error = errno;
        munmap(stack, PYWEB_STACK);
        return pid < 0 ? -error : pid;
    }

    /* rseq(2): the kernel would write to it at each switch of processes, and copy a page for each
       child; where it can't, it ends the process. */
    static void pyweb_leave_rseq(void) {
    #if !PYWEB_NEEDS_LIBC && defined(__GLIBC__) && __GLIBC_PREREQ(2, 35)
        kernel_call(SYS_rseq, (long)((char *)__builtin_thread_pointer() + __rseq_offset),
                    __rseq_size < 32 ? 32 : (long)__rseq_size, 1, RSEQ_SIG, 0, 0);
    #endif
    }

    static void pyweb_become_zygote(void *page) {
        kernel_name_process("pyweb-zygote");
        madvise(page, 4096, MADV_DONTFORK);
        pyweb_leave_rseq();
        for (int i = 0; i < left_out_count; i++)
            kernel_call(SYS_munmap, (long)left_out[i].low,
                        (long)(left_out[i].high - left_out[i].low), 0, 0, 0, 0);
    }

    static pid_t pyweb_fork_for_master(pid_t *newest) {
        return (pid_t)pyweb_raw_clone(CLONE_PARENT | CLONE_PARENT_SETTID | SIGCHLD, newest);
    }

    /* That there is something to hear, a signal tells. Who can't tell is of no use. */
    static void pyweb_tell(int way, int pid, unsigned ticket) {
        struct pyweb_said said = {pid, ticket};
        ssize_t sent;
        do sent = kernel_send(way, &said, sizeof said, MSG_NOSIGNAL);
        while (sent == -EINTR);
        if (sent != (ssize_t)sizeof said)
            kernel_exit(1);
        if (pid < 0 && ticket)
            kernel_call(SYS_kill, kernel_getppid(), SIGCHLD, 0, 0, 0, 0);
    }

    /* sched(7): that there is one spare less shall not stop the one that serves now. False: we
       are scheduled in another way, which somebody has chosen. */
    static int pyweb_change_policy(int from, int to) {
        struct sched_param none = {0};
        return kernel_call(SYS_sched_getscheduler, 0, 0, 0, 0, 0, 0) == from
               && kernel_call(SYS_sched_setscheduler, 0, to, (long)&none, 0, 0, 0) == 0;
    }
    static int pyweb_give_way(void) { return pyweb_change_policy(SCHED_OTHER, SCHED_BATCH); }
    static int pyweb_be_like_all(void) { return pyweb_change_policy(SCHED_BATCH, SCHED_OTHER); }

    static void pyweb_take_away(int spares) {
        uint64_t one = 1;
        kernel_write(spares, &one, sizeof one);
    }

    /* How many have been taken, at last, or after so long (ms) none. `asks`: an order wakes too. */
    static int pyweb_wait_for_taken(int way, int spares, int patience, int asks) {
        struct pollfd all[2] = {{way, asks ? POLLIN : 0, 0}, {spares, POLLIN, 0}};
        uint64_t taken = 0;
        kernel_poll(all, 2, patience);
        if (all[0].revents & (POLLHUP | POLLERR))
            kernel_exit(0);
        if (all[1].revents & POLLIN)
            kernel_read(spares, &taken, sizeof taken);
        return (int)taken;
    }
    #else
    struct heap { int none; };
    static struct heap pyweb_heap;
    static void *pyweb_share_page(void) { errno = ENOSYS; return NULL; }
    static void pyweb_unshare_page(void *page) { (void)page; }
    static void pyweb_keep(const void *low, size_t size) { (void)low; (void)size; }
    static pid_t pyweb_clone_zygote(const uintptr_t *ours, int count, int (*be)(void *),
                                    void *with) {
        (void)ours; (void)count; (void)be; (void)with;
        return -ENOSYS;
    }
    static void pyweb_become_zygote(void *page) { (void)page; }
    static pid_t pyweb_fork_for_master(pid_t *newest) { (void)newest; return -ENOSYS; }
    static void pyweb_tell(int way, int pid, unsigned ticket) {
        (void)way; (void)pid; (void)ticket;
    }
    static int pyweb_give_way(void) { return 0; }
    static int pyweb_be_like_all(void) { return 0; }
    static void pyweb_take_away(int spares) { (void)spares; }
    static int pyweb_wait_for_taken(int way, int spares, int patience, int asks) {
        (void)way; (void)spares; (void)patience; (void)asks;
        return 0;
    }
    #endif

    static ssize_t pyweb_hear(int way, void *data, size_t size) {
        ssize_t got;
        /* A zygote that dies with orders unread is told before what it has said. */
        do got = kernel_recv(way, data, size, MSG_DONTWAIT);
        while (got == -EINTR || got == -ECONNRESET);
        return got;
    }
    """
    ctypedef size_t uintptr_t
    ctypedef struct Heap "struct heap":
        pass
    Heap pyweb_heap
    void *pyweb_share_page()
    void pyweb_unshare_page(void *page)
    void pyweb_keep(const void *low, size_t size)
    int pyweb_clone_zygote(const uintptr_t *ours, int count,
                           int (*be)(void *) noexcept nogil, void *given)
    void pyweb_become_zygote(void *page) nogil
    int pyweb_fork_for_master(int *newest) nogil
    void pyweb_tell(int way, int pid, unsigned int ticket) nogil
    int pyweb_give_way() nogil
    int pyweb_be_like_all() nogil
    void pyweb_take_away(int spares) nogil
    int pyweb_wait_for_taken(int way, int spares, int patience, int asks) nogil
    int getpid "kernel_getpid"() nogil
    Py_ssize_t pyweb_hear(int way, void *data, size_t size) nogil
    int kernel_send_descriptor(int way, int descriptor, void *data, size_t size) nogil
    Py_ssize_t kernel_receive_descriptor(int way, int *descriptor, void *data, size_t size,
                                         int flags) nogil
    const int MSG_DONTWAIT
    int kernel_close(int file) nogil
    void kernel_name_process(const char *name) nogil
    void kernel_exit(int code) nogil
    const int EMFILE

cdef enum:
    HANDED_BACK = 71   # the exit code of a child; see child.py
    AGAIN_IN = 100     # ms, after which a fork that failed is tried again

# For whom a child is wanted; its socket goes with it.
ctypedef struct Order:
    long long *slot
    long long *record
    long long requests
    Times times
    Peer peer
    unsigned int ticket


cdef int serve_order(const Ground *ground, int sock, const Order *order) noexcept nogil:
    cdef Turn turn
    turn.sock, turn.slot, turn.record = sock, order.slot, order.record
    turn.peer, turn.rest.requests = order.peer, order.requests
    mark(turn.record, CHILD_STAMP)
    return run(ground, &turn, 1)


# What a zygote begins with. All that the master had is gone soon.
ctypedef struct Seed:
    Ground ground
    Kept kept
    int way
    int *newest
    int spares   # how many
    int taken    # an eventfd, where there are such: those that are taken are counted there


cdef int be_the_zygote(void *given) noexcept nogil:
    cdef Seed seed = (<Seed *>given)[0]
    close_others(&seed.kept, -1)
    forget_libc()
    pyweb_become_zygote(seed.newest)
    if seed.spares:
        breed(&seed)
    obey(&seed.ground, seed.way, seed.newest)
    return 0


cdef void obey(const Ground *ground, int way, int *newest) noexcept nogil:
    cdef Order order
    cdef Py_ssize_t got
    cdef int pid
    cdef int sock = -1
    while True:
        got = kernel_receive_descriptor(way, &sock, &order, sizeof(Order), 0)
        if got <= 0:
            kernel_exit(0)   # the master is gone
        if sock < 0:
            pyweb_tell(way, -EMFILE, order.ticket)
            continue
        (&TIMES)[0] = order.times
        pid = pyweb_fork_for_master(newest)
        if pid == 0:
            kernel_close(way)
            kernel_name_process(b"pyweb-child")
            kernel_exit(0 if serve_order(ground, sock, &order) else HANDED_BACK)
        pyweb_tell(way, pid, order.ticket)
        kernel_close(sock)


cdef void breed(const Seed *seed) noexcept nogil:
    """Where none can be forked, and none is left, whoever asks is told so."""
    cdef int pid = 0
    cdef int wanted = seed.spares
    cdef int gives_way = pyweb_give_way()
    while True:
        while wanted > 0:
            pid = pyweb_fork_for_master(seed.newest)
            if pid == 0:
                be_a_spare(seed, gives_way)
            if pid < 0:
                break
            pyweb_tell(seed.way, pid, 0)
            wanted -= 1
        if wanted >= seed.spares:
            refuse(seed.way, pid)
        wanted += pyweb_wait_for_taken(seed.way, seed.taken, AGAIN_IN if wanted > 0 else -1,
                                       wanted >= seed.spares)


cdef void refuse(int way, int why) noexcept nogil:
    """One who asks, if there is one: a spare may be there all the same."""
    cdef Order order
    cdef int sock = -1
    if kernel_receive_descriptor(way, &sock, &order, sizeof(Order), MSG_DONTWAIT) <= 0:
        return
    pyweb_tell(way, why, order.ticket)
    if sock >= 0:
        kernel_close(sock)


cdef void be_a_spare(const Seed *seed, int gives_way) noexcept nogil:
    cdef Order order
    cdef int sock = -1
    kernel_name_process(b"pyweb-spare")
    if gives_way:
        pyweb_be_like_all()
    while True:
        if kernel_receive_descriptor(seed.way, &sock, &order, sizeof(Order), 0) <= 0:
            kernel_exit(0)   # the master is gone, or needs none
        if sock >= 0:
            break
        pyweb_tell(seed.way, -EMFILE, order.ticket)
    # In this order: one that dies in between is one spare too many, and not one too few.
    pyweb_take_away(seed.taken)
    pyweb_tell(seed.way, getpid(), order.ticket)
    kernel_close(seed.way)
    kernel_close(seed.taken)
    (&TIMES)[0] = order.times
    kernel_name_process(b"pyweb-child")
    kernel_exit(0 if serve_order(&seed.ground, sock, &order) else HANDED_BACK)


cdef class Zygote:
    """A process that forks for this one, for a repeater's conversations. OSError.

    keep    descriptors that its children share; what they stand for is what it was at this moment
    spares  children that it forks before they are asked for
    """

    def __cinit__(self, Repeater repeater not None, keep, int spares=0):
        cdef Seed seed
        cdef int pid = 0
        self.repeater = repeater
        self.taken = -1
        self.newest = <int *>pyweb_share_page()
        if self.newest == NULL:
            PyErr_SetFromErrno(OSError)
        self.way, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.way_fd = self.way.fileno()
        with theirs:
            if spares > 0:
                self.taken = os.eventfd(0, os.EFD_CLOEXEC)
            seed.ground, seed.way, seed.newest = repeater.ground, theirs.fileno(), self.newest
            seed.spares, seed.taken = max(0, spares), self.taken
            keep_files(&seed.kept, [*keep, theirs.fileno(), *([self.taken] if spares > 0 else ())])
            pid = self.clone(&seed)
        if pid < 0:
            self.close()
            errno.errno = -pid
            PyErr_SetFromErrno(OSError)
        self.pid = pid

    cdef int clone(self, void *seed) except *:
        cdef uintptr_t ours[3]
        ours[0], ours[1], ours[2] = <uintptr_t>run, <uintptr_t>find, <uintptr_t>scan_head
        memset(&pyweb_heap, 0, sizeof(pyweb_heap))
        pyweb_keep(self.newest, 1)
        self.repeater.keep_memory(pyweb_keep)
        return pyweb_clone_zygote(ours, 3, be_the_zygote, seed)

    def __dealloc__(self):
        if self.taken >= 0:
            kernel_close(self.taken)
        if self.newest != NULL:
            pyweb_unshare_page(self.newest)

    def order(self, int sock, bytes peer not None, Py_ssize_t slot_at, Py_ssize_t record_at,
              long long number, long long requests, unsigned int ticket):
        """Ask for a child, for whoever has the ticket (above 0). False: not now."""
        cdef Turn turn
        self.repeater.aim(&turn, sock, peer, slot_at, record_at, number, requests)
        return bool(self.ask(&turn, ticket))

    cdef int ask(self, Turn *turn, unsigned int ticket):
        cdef Order order
        order.slot, order.record, order.requests = turn.slot, turn.record, turn.rest.requests
        order.peer, order.ticket = turn.peer, ticket
        order.times = TIMES
        return kernel_send_descriptor(self.way_fd, turn.sock, &order, sizeof(Order))

    def told(self, int most=0):
        """(ticket, pid) of each child since the last time; of so many at the most, but for 0.
        Ticket 0: it is spare. Below 0: -errno, there is none."""
        cdef Said said
        found = []
        while self.next_told(&said):
            found.append((said.ticket, said.pid))
            if len(found) == most:
                break
        return found

    cdef int next_told(self, Said *said):
        cdef Py_ssize_t got = pyweb_hear(self.way_fd, said, sizeof(Said))
        if got != sizeof(Said):
            self.is_over = got == 0
            return 0
        if said.pid == self.newest[0]:
            self.newest_told = said.pid
        return 1

    cdef int has_spares(self):
        return self.taken >= 0

    def want_more(self):
        """A spare has died."""
        pyweb_take_away(self.taken)

    def end_orders(self):
        """There are no more: who waits for one ends."""
        self.way.shutdown(socket.SHUT_WR)

    def hang_up(self):
        """What is not told by now can't be told any more: who tries ends."""
        self.way.shutdown(socket.SHUT_RDWR)

    @property
    def last(self):
        """The newest child's pid, told or not; 0: there is none. For when the zygote has died."""
        return self.newest[0]

    def fileno(self):
        """Readable when there is something told."""
        return self.way.fileno()

    def close(self):
        """It ends when it has done what it was asked for, and so do its spares."""
        self.way.close()
        self.way_fd = -1
        if self.taken >= 0:
            os.close(self.taken)
            self.taken = -1
