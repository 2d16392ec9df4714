# cython: language_level=3
"""The porter: lets in who comes as others came, and sees off who has ended well.

What lives here: what the master does for a connection in mode fork where there is nothing to
decide: accept, a slot, an order for a bare child; and, when that has ended well, its numbers are
added up, its slot is given back, its socket closed. What must never: a decision, or a byte of a
client. Python says how many may come in, and has all those that are not like the others: who is
silent so far, who has not ended well or has lost something, who stays for longer than a moment
(fork_mode.py). So nothing is written here that Python would not do in the same way, slower.

Between two connections other processes run, and leave little of the interpreter in the caches of
the CPU: what Python does fast in a loop takes it long in the master.
"""

from cpython.exc cimport PyErr_CheckSignals
from libc.string cimport memcpy, memset

from pyweb._fastserve cimport Repeater, Turn
from pyweb._faststamps cimport Stamped, Stamper, Usage, timeval
from pyweb._fastzygote cimport Said, Zygote

import os
import signal
from resource import struct_rusage

from pyweb import scoreboard

cdef extern from *:
    """
    #include "kernel.h"
    #include <arpa/inet.h>
    #include <sys/resource.h>
    #include <sys/wait.h>

    /* accept(2), and as transport.peer_name the peer's name, so long. Below 0: -errno. */
    static int pyweb_accept(int listener, char *name, int *size) {
        union { struct sockaddr any; struct sockaddr_in four; struct sockaddr_in6 six;
                struct sockaddr_storage room; } from;
        socklen_t length = sizeof from;
        const char *said = NULL;
        int sock;
    #if defined(__linux__)
        sock = accept4(listener, &from.any, &length, SOCK_CLOEXEC);
    #else
        sock = -1;
        errno = ENOSYS;
    #endif
        if (sock < 0)
            return -errno;
        if (from.any.sa_family == AF_INET)
            said = inet_ntop(AF_INET, &from.four.sin_addr, name, INET6_ADDRSTRLEN);
        else if (from.any.sa_family == AF_INET6)
            said = inet_ntop(AF_INET6, &from.six.sin6_addr, name, INET6_ADDRSTRLEN);
        if (!said)
            memcpy(name, "unix:", sizeof "unix:");
        *size = (int)strlen(name);
        return sock;
    }

    static int pyweb_is_silent(int sock) {
        int unread = 0;
        return kernel_ioctl(sock, FIONREAD, &unread) < 0 || unread == 0;
    }

    static int pyweb_wait(int *status, struct rusage *used) {
    #if defined(__linux__)
        return wait4(-1, status, WNOHANG, used);
    #else
        (void)status; (void)used;
        return 0;
    #endif
    }

    static double pyweb_seconds(struct timeval time) { return time.tv_sec + time.tv_usec * 1e-6; }
    static double pyweb_now(void) {
        struct timespec now;
        clock_gettime(CLOCK_MONOTONIC, &now);
        return now.tv_sec + now.tv_nsec * 1e-9;
    }
    static long long pyweb_wall_ms(void) {
        struct timespec now;
        clock_gettime(CLOCK_REALTIME, &now);
        return now.tv_sec * 1000LL + now.tv_nsec / 1000000;
    }
    """
    int pyweb_accept(int listener, char *name, int *size)
    int pyweb_is_silent(int sock)
    int pyweb_wait(int *status, Usage *used)
    double pyweb_seconds(timeval time)
    double pyweb_now()
    long long pyweb_wall_ms()
    int kernel_close(int file) nogil
    Py_ssize_t kernel_read(int file, void *data, size_t size) nogil
    const int EAGAIN

cdef enum:
    MOST = 256            # guests at once
    BATCH = 64            # let in by one call
    UNTOLD = 64           # guests whose pids are not known: the socket holds a few hundred
    NAME = 64

# Tickets of guests are those from here on; below it lie the guest's place and what tells it from
# those who had that place before.
FIRST_TICKET = 1 << 30

cdef set ENDED = {signal.SIGCHLD}
cdef unsigned int FIRST = FIRST_TICKET
cdef long long LARGE = 1 << 48   # what a child tells of itself may be any number

# As scoreboard.py numbers them.
cdef int PID = scoreboard.PID
cdef int STATE = scoreboard.STATE
cdef int STARTED_MS = scoreboard.STARTED_MS
cdef int KIND = scoreboard.KIND
cdef int GENERATION_OF = scoreboard.GENERATION_OF
cdef int LOST_LINES = scoreboard.LOST_LINES
cdef int STARVED = scoreboard.STARVED
cdef int STARTING = scoreboard.STARTING
cdef int CHILD = scoreboard.CHILD
cdef int PEER_AT = scoreboard.PEER_AT
cdef int PEER = scoreboard.PEER
cdef int SLOT_SIZE = scoreboard.SLOT_SIZE

# Whom a bare child serves. ticket 0: nobody. pid 0: not known yet; below 0: there is none.
ctypedef struct Guest:
    unsigned int ticket
    int pid
    int sock
    double began
    long long *slot
    Stamped stamps


cdef object usage_of(const Usage *used):
    return struct_rusage((
        pyweb_seconds(used.ru_utime), pyweb_seconds(used.ru_stime), used.ru_maxrss, used.ru_ixrss,
        used.ru_idrss, used.ru_isrss, used.ru_minflt, used.ru_majflt, used.ru_nswap,
        used.ru_inblock, used.ru_oublock, used.ru_msgsnd, used.ru_msgrcv, used.ru_nsignals,
        used.ru_nvcsw, used.ru_nivcsw))


cdef class Porter:
    """For the master of a generation. `board`: its scoreboard; `stamps`: see stamps.py.

    zygote   who forks; None: nobody is let in
    count    guests who are here
    untold   those whose pids are not known
    failed   those who got no child
    served   guests so far; seen_off: those who have ended well
    """

    cdef public Zygote zygote
    cdef readonly int count
    cdef readonly int untold
    cdef readonly int failed
    cdef readonly long long served, seen_off
    cdef Repeater repeater
    cdef Stamper stamper
    cdef list free        # slots that nobody has: the scoreboard's
    cdef object sums      # which word of the scoreboard's head has the sum of which of a slot
    cdef long long generation
    cdef unsigned int serial
    cdef Guest guests[MOST]
    cdef int high         # places from there on were never taken
    cdef list slots, peers        # of each place
    cdef list kept        # what was told and is not ours
    cdef list ended       # who has ended and is not ours
    cdef list came        # who has been accepted, and more is to be done
    cdef list doors
    cdef int room
    cdef bint also_silent
    cdef bytes peer       # whoever was let in last
    cdef object peer_name

    def __cinit__(self, Repeater repeater not None, board, clock):
        self.repeater = repeater
        self.stamper = Stamper(repeater, clock)
        self.free, self.generation, self.sums = board.free, board.generation, scoreboard.SUMS
        self.slots, self.peers = [None] * MOST, [None] * MOST
        self.kept, self.ended, self.came, self.doors = [], [], [], []
        self.peer = b""
        memset(self.guests, 0, sizeof(self.guests))

    # Coming.

    def open(self, list doors, int room, bint also_silent):
        """At these listeners' descriptors, until there are so many more; those, too, from whom no
        byte has come?"""
        self.doors, self.room, self.also_silent = doors, room, also_silent

    def do(self, list ready, signals):
        """A round, of the master's loop: what its poll has found. False: there is more to do, see
        reap and take_came, and what has not been touched."""
        cdef bint is_all = True
        cdef int fd
        cdef int heard = signals.fd
        # In this order: what somebody had who has ended, another may get.
        for fd, _ in ready:
            if fd == heard:
                is_all = self.hear_signals(signals)
        for fd, _ in ready:
            if fd in self.doors:
                is_all = self.let_in(fd) and is_all
            elif fd != heard:
                is_all = False
        return is_all

    cdef bint hear_signals(self, signals) except -1:
        """As SignalPipe.read: the pipe first, then the handlers of what was in it, then what they
        have noted. What comes later stands in the pipe."""
        cdef char told[512]
        cdef long long seen_off = self.seen_off
        while kernel_read(signals.fd, told, sizeof(told)) == sizeof(told):
            pass
        PyErr_CheckSignals()
        if not signals.heard <= ENDED:
            return False
        self.ended = self.reap()
        if seen_off == self.seen_off:
            self.hear(0)   # then it was a zygote that could not fork
        if self.ended or self.failed:
            return False
        signals.heard.clear()
        return True

    cdef bint let_in(self, int door) except -1:
        """A batch. False: some are Python's, here or still at the door."""
        cdef char name[NAME]
        cdef int size = 0
        cdef bint is_all = True
        cdef int sock, _
        for _ in range(BATCH):
            if self.room <= 0 or self.count == MOST or not self.free or self.zygote is None:
                return False
            if len(self.came) >= BATCH:
                return False
            sock = pyweb_accept(door, name, &size)
            if sock < 0:
                return is_all and sock == -EAGAIN
            if size != len(self.peer) or name[:size] != self.peer:
                self.peer = name[:size]
                self.peer_name = self.peer.decode()
            if not self.also_silent and pyweb_is_silent(sock):
                self.came.append((door, sock, self.peer_name))
                is_all = False
            elif self.enter(sock):
                self.room -= 1
            else:
                self.came.append((door, sock, self.peer_name))
                return False
        return is_all

    def take_in(self, int sock, str peer_name):
        """One that has been accepted and has spoken. False: not now; then it is still whose it
        was."""
        if self.zygote is None or self.count == MOST or not self.free or self.stamper.measures:
            return False
        self.peer, self.peer_name = peer_name.encode(), peer_name
        return bool(self.enter(sock))

    def take_came(self):
        """Those who have been let in as far as to a descriptor: at which door, that, and their
        address."""
        found, self.came = self.came, []
        return found

    cdef int enter(self, int sock) except -1:
        """0: there is nobody who would take it."""
        cdef Turn turn
        slot = self.free.pop()
        cdef int place = self.vacant()
        cdef Guest *guest = &self.guests[place]
        cdef Py_ssize_t at = self.stamper.accept(&guest.stamps)
        self.repeater.aim(&turn, sock, self.peer, slot.at, at, guest.stamps.number, 0)
        self.take_up(turn.slot)
        self.stamper.fork_begins(&guest.stamps)
        self.serial = (self.serial + 1) & 0x3fffff
        guest.ticket = FIRST | self.serial << 8 | place
        if not self.zygote.ask(&turn, guest.ticket):
            guest.ticket = 0
            self.stamper.give_back(&guest.stamps)
            memset(turn.slot, 0, SLOT_SIZE)
            self.free.append(slot)
            return 0
        self.stamper.fork_ends(&guest.stamps)
        guest.pid, guest.sock, guest.slot, guest.began = 0, sock, turn.slot, pyweb_now()
        self.slots[place], self.peers[place] = slot, self.peer_name
        if place == self.high:
            self.high += 1
        self.count += 1
        self.served += 1
        self.untold += 1
        if self.untold >= UNTOLD:
            self.hear(0)
        return 1

    cdef int vacant(self) noexcept:
        """A place for one more. There is one."""
        cdef int place
        for place in range(self.high):
            if self.guests[place].ticket == 0:
                return place
        return self.high

    cdef void take_up(self, long long *slot) noexcept:
        """As Slot.take_up and Slot.say_peer."""
        cdef unsigned char *said = <unsigned char *>slot + PEER_AT
        cdef Py_ssize_t size = min(len(self.peer), PEER - 1)
        slot[KIND], slot[GENERATION_OF] = CHILD, self.generation
        slot[STARTED_MS] = pyweb_wall_ms()
        slot[STATE] = STARTING
        said[0] = <unsigned char>size
        memcpy(said + 1, <const char *>self.peer, size)

    # Who is it?

    cdef int hear(self, Py_ssize_t others) except -1:
        """What the zygote tells, until all guests are known, and so many others."""
        cdef Said said
        if self.zygote is None:
            return 0
        while self.untold > 0 or len(self.kept) < others:
            if not self.zygote.next_told(&said):
                return 0
            if not self.know(&said) or self.zygote.has_spares():
                self.kept.append((said.ticket, said.pid))
        return 0

    cdef int know(self, const Said *said) except -1:
        """0: it is about somebody else."""
        cdef int place = said.ticket & (MOST - 1)
        cdef Guest *guest = &self.guests[place]
        if said.ticket < FIRST or guest.ticket != said.ticket or guest.pid:
            return 0
        guest.pid = said.pid
        self.untold -= 1
        if said.pid < 0:
            self.failed += 1
            return 1
        guest.slot[PID] = said.pid
        self.stamper.know(&guest.stamps, said.pid)
        return 1

    def told(self, Py_ssize_t most):
        """As Zygote.told, of those that are not ours; with spares, of ours too."""
        self.hear(most if most else MOST * MOST)
        found, self.kept = self.kept, []
        return found

    def has(self, int pid):
        """Is this a guest's?"""
        return self.find(pid) >= 0

    cdef int find(self, int pid) noexcept:
        cdef int place
        for place in range(self.high if pid > 0 else 0):
            if self.guests[place].pid == pid and self.guests[place].ticket:
                return place
        return -1

    # Going.

    def reap(self):
        """All that have ended. Those that are Python's: pid, exit code (below 0: the signal), and
        what it used."""
        cdef Usage used
        cdef int status = 0
        cdef int pid, place
        rest, self.ended = self.ended, []
        while (pid := pyweb_wait(&status, &used)) > 0:
            place = self.find(pid)
            if place < 0 and self.untold:
                self.hear(0)
                place = self.find(pid)
            if place < 0 or status or not self.see_off(place, &used):
                rest.append((pid, os.waitstatus_to_exitcode(status), usage_of(&used)))
        return rest

    cdef int see_off(self, int place, const Usage *used) except -1:
        """As Scoreboard.give_back. 0: there is more to do than that."""
        cdef Guest *guest = &self.guests[place]
        cdef long long *head = <long long *>self.repeater.slots.buf
        cdef int total, word
        if guest.slot[LOST_LINES] or guest.slot[STARVED]:
            return 0
        for total, word in self.sums:
            if not 0 <= guest.slot[word] < LARGE or not 0 <= head[total] < LARGE:
                return 0
        for total, word in self.sums:
            head[total] += guest.slot[word]
        memset(guest.slot, 0, SLOT_SIZE)
        self.free.append(self.slots[place])
        self.stamper.reap(&guest.stamps, used)
        kernel_close(guest.sock)
        self.forget(place)
        self.seen_off += 1
        self.room += 1
        return 1

    cdef int forget(self, int place) except -1:
        self.guests[place].ticket = 0
        self.slots[place] = self.peers[place] = None
        self.count -= 1
        while self.high and self.guests[self.high - 1].ticket == 0:
            self.high -= 1
        return 0

    # Those who are Python's from here on: ticket, pid, slot, peer, descriptor, record (None: nobody
    # measures), and when (monotonic) it began; in the order in which they came.

    def give_up(self, int pid):
        """The one whose child this is."""
        return self.given_up(self.find(pid))

    def give_up_untold(self):
        """Those whose pids are not known."""
        if not self.untold:
            return []
        found = [self.given_up(place) for place in range(self.high)
                 if self.guests[place].ticket and not self.guests[place].pid]
        return sorted(found, key=by_moment)

    def give_up_failed(self):
        """Those for whom there is no child: pid is -errno."""
        return [self.given_up(place) for place in range(self.high)
                if self.guests[place].ticket and self.guests[place].pid < 0]

    def give_up_known(self, double older):
        """Those whose pids are known and who came before that moment (monotonic)."""
        return [self.given_up(place) for place in range(self.high)
                if self.guests[place].ticket and self.guests[place].pid > 0
                and self.guests[place].began < older]

    cdef object given_up(self, int place):
        cdef Guest *guest = &self.guests[place]
        if place < 0:
            raise KeyError("no such guest")
        found = (guest.ticket, guest.pid, self.slots[place], self.peers[place], guest.sock,
                 self.stamper.record(&guest.stamps), guest.began)
        self.untold -= guest.pid == 0
        self.failed -= guest.pid < 0
        self.forget(place)
        return found


def by_moment(guest):
    return guest[-1]
