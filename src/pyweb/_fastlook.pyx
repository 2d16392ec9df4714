# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Is there a decision for what has come, and is it still so?

What lives here: the look at a head, at the cache, and at every file that the decision has found, or
at the one file where the decision is for all of a kind; the one to be sent is opened. What must
never: a decision (filler.py has it made, and is told of each that is wished for); a file that lies
outside the root.
"""

from libc.string cimport memcpy, strlen

from pyweb._fastcache cimport Guard, MAX_HOLES, find, make_key, make_kind_key
from pyweb._fastclock cimport realtime
from pyweb._fastexchange cimport MAX_HEADER, Exchange
from pyweb._fastparse cimport Span, scan_head

cdef extern from *:
    """
    #include "kernel.h"
    #ifndef SYS_openat2
    #define SYS_openat2 437
    #endif
    #if defined(__APPLE__)
    #define st_mtim st_mtimespec
    #define st_ctim st_ctimespec
    #endif

    struct pyweb_identity {
        unsigned long long device, inode;
        long long size, modified, changed;
    };

    /* Some file systems keep seconds of 64 bits: of those, ns are only good to be compared. */
    static long long pyweb_ns(const struct timespec *time) {
        return (long long)((uint64_t)time->tv_sec * 1000000000 + (uint64_t)time->tv_nsec);
    }

    static void pyweb_identify(const struct stat *status, struct pyweb_identity *found) {
        found->device = (unsigned long long)status->st_dev;
        found->inode = (unsigned long long)status->st_ino;
        found->size = (long long)status->st_size;
        found->modified = pyweb_ns(&status->st_mtim);
        found->changed = pyweb_ns(&status->st_ctim);
    }

    static int pyweb_identify_path(int root, const char *path, struct pyweb_identity *found) {
        struct stat status;
        if (kernel_fstatat(root, path, &status) < 0)
            return 0;
        pyweb_identify(&status, found);
        return 1;
    }

    static int pyweb_identify_file(int file, struct pyweb_identity *found) {
        struct stat status;
        if (kernel_fstat(file, &status) < 0)
            return 0;
        pyweb_identify(&status, found);
        return 1;
    }

    /* 0: it is no file that could be sent, or its time is before 1970 or has no ns. */
    static int pyweb_identify_regular(int file, struct pyweb_identity *found) {
        struct stat status;
        if (kernel_fstat(file, &status) < 0 || !S_ISREG(status.st_mode))
            return 0;
        if (status.st_mtim.tv_sec < 0 || status.st_mtim.tv_sec > INT64_MAX / 1000000000 - 1)
            return 0;
        pyweb_identify(&status, found);
        return 1;
    }

    /* The last name in a path is not followed. */
    static int pyweb_is_regular_there(int root, const char *path) {
        struct stat status;
        return kernel_lstatat(root, path, &status) == 0 && S_ISREG(status.st_mode);
    }

    static int pyweb_is_absent(int root, const char *path) {
        struct stat status;
        return kernel_lstatat(root, path, &status) == -ENOENT;
    }

    static int pyweb_open(int root, const char *path, uint64_t flags, uint64_t resolve) {
    #if defined(__linux__)
        struct { uint64_t flags, mode, resolve; } how;
        memset(&how, 0, sizeof how);
        how.flags = flags;
        how.resolve = resolve;
        return (int)kernel_call(SYS_openat2, root, (long)path, (long)&how, sizeof how, 0, 0);
    #else
        (void)root; (void)path; (void)flags; (void)resolve;
        return -ENOSYS;
    #endif
    }

    static int pyweb_identify_beneath(int root, const char *path, uint64_t flags,
                                      uint64_t resolve, struct pyweb_identity *found) {
        int file = pyweb_open(root, path, flags, resolve), done;
        if (file < 0)
            return 0;
        done = pyweb_identify_file(file, found);
        kernel_close(file);
        return done;
    }

    static void pyweb_wish(int way, const void *head, size_t size) {
        kernel_send(way, head, size, MSG_DONTWAIT | MSG_NOSIGNAL);
    }
    """
    ctypedef struct Identity "struct pyweb_identity":
        unsigned long long device
        unsigned long long inode
        long long size
        long long modified
        long long changed
    int pyweb_identify_path(int root, const char *path, Identity *found) nogil
    int pyweb_identify_file(int file, Identity *found) nogil
    int pyweb_identify_regular(int file, Identity *found) nogil
    int pyweb_is_regular_there(int root, const char *path) nogil
    int pyweb_is_absent(int root, const char *path) nogil
    int pyweb_open(int root, const char *path, unsigned long long flags,
                   unsigned long long resolve) nogil
    int pyweb_identify_beneath(int root, const char *path, unsigned long long flags,
                               unsigned long long resolve, Identity *found) nogil
    void pyweb_wish(int way, const void *head, size_t size) nogil
    int close "kernel_close"(int file) nogil

cdef enum:
    RARELY = 63 << 10   # of a clock in ns, for one in 64
    SELDOM = 1023 << 10
    LONGEST_HOLE = 30   # with the NUL behind a date


cdef int is_field(const Exchange *x, int i, const char *name) noexcept nogil:
    cdef Span span = x.head.fields[i].name
    cdef Py_ssize_t n
    cdef unsigned char octet
    if span.end - span.start != <Py_ssize_t>strlen(name):
        return 0
    for n in range(span.end - span.start):
        octet = x.data[span.start + n]
        if (octet | 32 if 65 <= octet <= 90 else octet) != <unsigned char>name[n]:
            return 0
    return 1


cdef int find_logged(Exchange *x) noexcept nogil:
    """The fields that the log shows. 0: one comes twice, and would have to be joined."""
    cdef int i
    x.referer = x.user_agent = -1
    for i in range(x.head.count):
        if is_field(x, i, b"referer"):
            if x.referer >= 0:
                return 0
            x.referer = i
        elif is_field(x, i, b"user-agent"):
            if x.user_agent >= 0:
                return 0
            x.user_agent = i
    return 1


cdef int look_up(Exchange *x) noexcept nogil:
    """Is there a decision for what has come, or for its kind?"""
    cdef int is_own
    x.head_size = <int>scan_head(x.data, x.size, &x.ground.limits, &x.head)
    if x.head_size <= 0 or x.head.major != 1 or not find_logged(x):
        return 0
    is_own = look_up_own(x)
    # Its kind's is never old, and takes less than one that is.
    x.gave_way = is_own and x.is_old
    if (not is_own or x.is_old) and look_up_kind(x):
        return 1
    return is_own and go_back_to_own(x)


cdef int go_back_to_own(Exchange *x) noexcept nogil:
    if x.is_kind and not look_up_own(x):
        return 0
    wish_anew(x)
    return 1


cdef int look_up_own(Exchange *x) noexcept nogil:
    x.is_kind = 0
    if not make_key(x.data, &x.head, &x.ground.names, &x.key):
        return 0
    x.place = find(&x.ground.table, &x.key, &x.entry)
    if x.place == NULL or x.entry.header_size > MAX_HEADER:
        return 0
    x.is_old = x.began - x.entry.decided >= x.ground.good
    return x.entry.lasts or not x.is_old


cdef void wish_anew(const Exchange *x) noexcept nogil:
    """Of those that last only some: those that are asked for often come to be, and the others cost
    a look at their directories, and not a decision each time."""
    if (x.began - x.entry.decided >= x.ground.fresh
            and not (x.entry.lasts and x.began & RARELY)):
        pyweb_wish(x.ground.wishes, x.data, x.head_size)


cdef int look_up_kind(Exchange *x) noexcept nogil:
    """However old it is: what it says of a file is looked up each time, and all else that it
    depends on, the options, is the same as long as this memory is."""
    if not make_kind_key(x.data, &x.head, &x.ground.names, &x.key, &x.name):
        return 0
    x.is_kind, x.is_old = 1, 0
    x.place = find(&x.ground.table, &x.key, &x.entry)
    if x.place == NULL or x.entry.header_size > MAX_HEADER - MAX_HOLES * LONGEST_HOLE:
        return 0
    # A file that is often asked for comes to have a decision of its own, with its content.
    if not x.began & SELDOM:
        pyweb_wish(x.ground.wishes, x.data, x.head_size)
    return 1


cdef int is_so_by_another(Exchange *x) noexcept nogil:
    """Its own decision is not true any more; what its kind's says may be. Or it has a neighbour,
    say, and is not one of its kind; then its own, old as it is, may be true."""
    if x.file >= 0:
        close(x.file)
        x.file = -1
    if x.is_kind:
        return x.gave_way and go_back_to_own(x) and is_still_so(x)
    pyweb_wish(x.ground.wishes, x.data, x.head_size)
    return look_up_kind(x) and is_still_so(x)


# The inode and its times say which file it is, and so of which kind.
cdef int is_same(const Guard *guard, const Identity *found) noexcept nogil:
    return (guard.inode == found.inode and guard.device == found.device
            and guard.size == found.size and guard.modified == found.modified
            and guard.changed == found.changed)


cdef int path_is_same(const Exchange *x, int i) noexcept nogil:
    """A young decision has just gone its way below the root; an old one has to go it again."""
    cdef Identity found
    cdef int done
    cdef const char *path = <const char *>x.entry.data + x.entry.guard[i].path
    if x.is_old:
        done = pyweb_identify_beneath(x.ground.root, path, x.ground.path_flags,
                                      x.ground.resolve, &found)
    else:
        done = pyweb_identify_path(x.ground.root, path, &found)
    return done and is_same(&x.entry.guard[i], &found)


cdef int open_file(Exchange *x) noexcept nogil:
    cdef Identity found
    cdef const char *path = <const char *>x.entry.data + x.entry.guard[0].path
    x.file = pyweb_open(x.ground.root, path, x.ground.flags, x.ground.resolve)
    return (x.file >= 0 and pyweb_identify_file(x.file, &found)
            and is_same(&x.entry.guard[0], &found))


cdef int is_still_so(Exchange *x) noexcept nogil:
    """Every file that the decision has found is still what it was; the one to be sent is open,
    unless its content is known. Of an old decision also the directories, and its content is not
    believed: who writes to a mapping may leave the times as they are for a while."""
    cdef int i
    if x.is_kind:
        return open_one_of_kind(x)
    if x.is_old:
        x.entry.has_body = 0
    if x.entry.count and not x.entry.has_body:
        if not open_file(x):
            return 0
    elif not path_is_same(x, 0):
        return 0
    for i in range(1, x.entry.guards):
        if x.entry.guard[i].is_directory and not x.is_old:
            continue
        if not path_is_same(x, i):
            return 0
    return 1


# One of a kind. Guards of a kind are none: the first one's path is the directory, the others' are
# the ends of neighbours. What is found of the file comes into the first one's numbers.

cdef const char *join(Exchange *x, const char *directory, const char *end) noexcept nogil:
    """The path of the file, with something before and behind its name; until the next is made, or
    anything is taken from the socket. NULL: it is too long."""
    cdef size_t before = strlen(directory)
    cdef size_t name = x.name.end - x.name.start
    cdef size_t behind = strlen(end)
    if before + name + behind >= sizeof(x.taken):
        return NULL
    memcpy(x.taken, directory, before)
    memcpy(x.taken + before, x.data + x.name.start, name)
    memcpy(x.taken + before + name, end, behind)
    x.taken[before + name + behind] = 0
    return <const char *>x.taken


cdef inline const char *path_in(const Exchange *x, int guard) noexcept nogil:
    return <const char *>x.entry.data + x.entry.guard[guard].path


cdef int is_alone(Exchange *x) noexcept nogil:
    """It is there, and nothing beside it that would be chosen instead. To look is not to open,
    which would wake a FIFO's writer. What is a link, to anywhere, is Python's; that the way to it
    does not leave the root is seen when it is opened."""
    cdef int i
    cdef const char *path = join(x, path_in(x, 0), b"")
    if path == NULL or not pyweb_is_regular_there(x.ground.root, path):
        return 0
    for i in range(1, x.entry.guards):
        path = join(x, path_in(x, 0), path_in(x, i))
        if path == NULL or not pyweb_is_absent(x.ground.root, path):
            return 0
    return 1


cdef int open_regular(Exchange *x, Identity *found) noexcept nogil:
    """Looked at again, because names change."""
    cdef const char *path = join(x, path_in(x, 0), b"")
    if path == NULL:
        return 0
    x.file = pyweb_open(x.ground.root, path, x.ground.flags, x.ground.resolve)
    return x.file >= 0 and pyweb_identify_regular(x.file, found)


cdef int open_one_of_kind(Exchange *x) noexcept nogil:
    """It is there, and as the kind is. From the future: Last-Modified would follow the clock."""
    cdef Identity found
    if not is_alone(x) or not open_regular(x, &found):
        return 0
    if found.modified > realtime():
        return 0
    x.entry.offset = x.entry.has_body = 0
    x.entry.count = found.size if x.entry.count else 0
    x.entry.guard[0].size, x.entry.guard[0].modified = found.size, found.modified
    return 1
