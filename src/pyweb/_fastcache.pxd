# Decisions that may be repeated, in memory that processes share: see _fastcache.pyx.

from pyweb._fastparse cimport Head, Limits, Span

cdef enum:
    MAX_NAMES = 32
    MAX_NAME = 32
    MAX_KEY = 640
    MAX_GUARDS = 5
    ENTRY_SIZE = 2048
    ENTRY_DATA = 1672
    MAX_HOLES = 6
    PLACE_SIZE = 8192   # of an entry and the content of a small file
    MAX_BODY = PLACE_SIZE - ENTRY_SIZE
    WAYS = 4            # places where an entry may stand: the oldest gives way
    SET_SIZE = WAYS * PLACE_SIZE

# The fields that a decision may depend on: lower case, from cache.py.
ctypedef struct Names:
    int count
    int sizes[MAX_NAMES]
    unsigned char text[MAX_NAMES][MAX_NAME]

# Where in the header of a kind (kinds.py) something is filled in, and what.
ctypedef struct Hole:
    int at
    int what

# A file that the decision has found, or a directory where it has found nothing, and as which;
# `path`: where it stands in the entry's data.
ctypedef struct Guard:
    unsigned long long device
    unsigned long long inode
    long long size
    long long modified        # ns
    long long changed         # ns
    int path
    int is_directory

ctypedef struct Entry:
    unsigned long long turn   # odd: is being written
    unsigned long long digest
    long long decided         # CLOCK_MONOTONIC, ns; 0: free
    long long offset          # of the content in its file
    long long count           # bytes of content; 0: none; of a kind 1: as many as the file has
    int status
    int reason
    int keeps                 # the connection
    int date_at               # where in the header the date stands; -1: nowhere
    int key_size
    int header_at             # in data, behind key and paths
    int header_size
    int guards                # how many; the first is the file that is sent
    int has_body              # the content stands behind the entry
    int lasts                 # however old it is, as long as files and directories are the same
    int holes                 # how many; 0: it is no kind. Of one, the first guard's path is the
    Hole hole[MAX_HOLES]      # directory, the others' are ends of what must not be there
    Guard guard[MAX_GUARDS]
    unsigned char data[ENTRY_DATA]

ctypedef struct Table:
    unsigned char *memory
    Py_ssize_t sets           # of WAYS entries

# Of a head that has been scanned.
ctypedef struct Key:
    int size
    unsigned long long digest
    unsigned char text[MAX_KEY]

# 0: it has none, for it is too long.
cdef int make_key(const unsigned char *data, const Head *head, const Names *names,
                  Key *key) noexcept nogil
# Of the kind of the file that is asked for, and what its name is. 0: it is not one of a kind.
cdef int make_kind_key(const unsigned char *data, const Head *head, const Names *names,
                       Key *key, Span *name) noexcept nogil
# Where it stands; *found is a copy of it, whole. NULL: there is none.
cdef const Entry *find(const Table *table, const Key *key, Entry *found) noexcept nogil
# 0: it has been written anew since it was found.
cdef int copy_body(const Entry *place, const Entry *found, unsigned char *to) noexcept nogil

cdef class Cache:
    cdef Table table
    cdef Names names
    cdef Limits limits
    cdef Py_buffer view
    cdef bint writable
    cdef int key_of(self, bytes data, Key *key)
