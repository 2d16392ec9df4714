# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Decisions that may be repeated, in memory that processes share: found by the head's own bytes.

What lives here: the key that a head has, where its entry is, and how one writer and many readers
share it. What must never: whether a decision may be repeated, for how long, and what it says:
cache.py. A reader that was handed nonsense (it maps what another process writes) copies an
entry before it looks at it, and believes no length in it.

The key is the request line and those fields that a decision may depend on, byte for byte and in
their order. Two heads that differ in anything else are one. A kind's (kinds.py) has of the name no
more than its end.
"""

from cpython.buffer cimport (
    PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer)
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.string cimport memcmp, memcpy, memset

from pyweb._fastparse cimport Head, scan_head

cdef extern from *:
    """
    #include <stdint.h>

    static uint64_t pyweb_load(const unsigned long long *word) {
        return __atomic_load_n(word, __ATOMIC_ACQUIRE);
    }
    static void pyweb_store(unsigned long long *word, uint64_t value) {
        __atomic_store_n(word, value, __ATOMIC_RELEASE);
    }
    static void pyweb_fence(void) {
        __atomic_thread_fence(__ATOMIC_SEQ_CST);
    }
    """
    unsigned long long pyweb_load(const unsigned long long *word) nogil
    void pyweb_store(unsigned long long *word, unsigned long long value) nogil
    void pyweb_fence() nogil

if sizeof(Entry) != ENTRY_SIZE:
    raise ImportError(f"pyweb: an entry of the cache has {sizeof(Entry)} bytes")


cdef inline unsigned char lower(unsigned char octet) noexcept nogil:
    return octet | 32 if 65 <= octet <= 90 else octet


cdef int is_name(const unsigned char *data, Span name, const unsigned char *text) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(name.end - name.start):
        if lower(data[name.start + i]) != text[i]:
            return 0
    return 1


cdef int which_name(const unsigned char *data, Span name, const Names *names) noexcept nogil:
    """Its number, from 1 on; 0: no decision depends on it."""
    cdef int i
    for i in range(names.count):
        if names.sizes[i] == name.end - name.start and is_name(data, name, names.text[i]):
            return i + 1
    return 0


cdef int append(Key *key, const unsigned char *data, Py_ssize_t size) noexcept nogil:
    if size > MAX_KEY - key.size:
        return 0
    memcpy(key.text + key.size, data, size)
    key.size += <int>size
    return 1


cdef int append_octet(Key *key, unsigned char octet) noexcept nogil:
    return append(key, &octet, 1)


cdef void digest(Key *key) noexcept nogil:
    """FNV-1a, eight bytes at a time. Who makes keys collide takes places from others, no more."""
    cdef unsigned long long value = 14695981039346656037ULL
    cdef unsigned long long word
    cdef int at = 0
    while at < key.size:
        word = 0
        memcpy(&word, key.text + at, min(8, key.size - at))
        value = (value ^ word) * 1099511628211ULL
        value ^= value >> 29
        at += 8
    key.digest = value


cdef int make_key(const unsigned char *data, const Head *head, const Names *names,
                  Key *key) noexcept nogil:
    key.size = 0
    if not append_octet(key, 48 + <unsigned char>min(head.minor, 1)):
        return 0
    # Method and target with what stands between them.
    if not append(key, data + head.method.start, head.target.end - head.method.start):
        return 0
    return append_fields(key, data, head, names)


cdef inline int is_unreserved(unsigned char octet) noexcept nogil:
    """RFC 3986 2.3: it stands for itself."""
    return (97 <= lower(octet) <= 122 or 48 <= octet <= 57
            or octet == 45 or octet == 46 or octet == 95 or octet == 126)


cdef int make_kind_key(const unsigned char *data, const Head *head, const Names *names,
                       Key *key, Span *name) noexcept nogil:
    """A name that is escaped, hidden, or none may be anything, and is Python's. A query's end may
    look like a name: no kind is made of an answer to one, and so none is found."""
    cdef Py_ssize_t at = head.target.end
    cdef Py_ssize_t dot = at
    while at > head.target.start and data[at - 1] != 47:
        at -= 1
        if not is_unreserved(data[at]):
            return 0
        if data[at] == 46 and dot == head.target.end:
            dot = at
    if at == head.target.start or at == head.target.end or data[at] == 46:
        return 0
    name.start, name.end = at, head.target.end
    key.size = 0
    # Other keys begin with 0 or 1 (make_key), and of no field is the number 0.
    if not (append_octet(key, 50 + <unsigned char>min(head.minor, 1))
            and append(key, data + head.method.start, at - head.method.start)
            and append_octet(key, 10) and append_octet(key, 32)
            and append(key, data + dot, head.target.end - dot)):
        return 0
    return append_fields(key, data, head, names)


cdef int append_fields(Key *key, const unsigned char *data, const Head *head,
                       const Names *names) noexcept nogil:
    cdef int i, number
    cdef Span value
    for i in range(head.count):
        number = which_name(data, head.fields[i].name, names)
        if number:
            value = head.fields[i].value
            # No field's value has a line's end in it, so none can look like another.
            if not (append_octet(key, 10) and append_octet(key, 32 + <unsigned char>number)
                    and append(key, data + value.start, value.end - value.start)):
                return 0
    digest(key)
    return 1


cdef inline Entry *place_of(const Table *table, const Key *key, int way) noexcept nogil:
    cdef Py_ssize_t number = <Py_ssize_t>(key.digest % <unsigned long long>table.sets) * WAYS + way
    return <Entry *>(table.memory + number * PLACE_SIZE)


cdef int is_sound(const Entry *entry) noexcept nogil:
    """Its lengths stay within it: what is copied while it is written may be anything."""
    cdef int i
    if not (0 <= entry.key_size <= MAX_KEY and 1 <= entry.guards <= MAX_GUARDS):
        return 0
    if not (0 <= entry.header_at <= ENTRY_DATA and
            0 <= entry.header_size <= ENTRY_DATA - entry.header_at):
        return 0
    if entry.date_at >= 0 and entry.date_at > entry.header_size - 29:
        return 0
    for i in range(entry.guards):
        if not entry.key_size <= entry.guard[i].path < entry.header_at:
            return 0
    if entry.has_body and entry.count > MAX_BODY:
        return 0
    if not has_sound_holes(entry):
        return 0
    return entry.header_at > 0 and entry.data[entry.header_at - 1] == 0 and entry.count >= 0


cdef int has_sound_holes(const Entry *entry) noexcept nogil:
    cdef int i
    cdef int before = 0
    if not 0 <= entry.holes <= MAX_HOLES:
        return 0
    for i in range(entry.holes):
        if not before <= entry.hole[i].at <= entry.header_size:
            return 0
        before = entry.hole[i].at
    return 1


cdef const Entry *find(const Table *table, const Key *key, Entry *found) noexcept nogil:
    cdef const Entry *entry
    cdef unsigned long long turn
    cdef int way
    for way in range(WAYS):
        entry = place_of(table, key, way)
        turn = pyweb_load(&entry.turn)
        if turn & 1 or entry.digest != key.digest or not entry.decided:
            continue
        memcpy(found, entry, sizeof(Entry))
        pyweb_fence()
        if pyweb_load(&entry.turn) != turn:
            continue
        if (found.key_size == key.size and is_sound(found)
                and memcmp(found.data, key.text, key.size) == 0):
            return entry
    return NULL


cdef int copy_body(const Entry *place, const Entry *found, unsigned char *to) noexcept nogil:
    """`found`: as find has judged it."""
    memcpy(to, <const unsigned char *>place + ENTRY_SIZE, found.count)
    pyweb_fence()
    return pyweb_load(&place.turn) == found.turn


cdef Entry *place_for(Table *table, const Key *key) noexcept nogil:
    """Where it stands, or else the one that was decided first."""
    cdef Entry *oldest = place_of(table, key, 0)
    cdef Entry *entry
    cdef int way
    for way in range(WAYS):
        entry = place_of(table, key, way)
        if (entry.digest == key.digest and entry.key_size == key.size
                and memcmp(entry.data, key.text, key.size) == 0):
            return entry
        if entry.decided < oldest.decided:
            oldest = entry
    return oldest


cdef void write(Entry *place, const Entry *made, const char *body) noexcept nogil:
    """Odd while it is being written. A writer that died there left it odd: so it stays, until it
    is written again."""
    cdef unsigned long long turn = place.turn | 1
    pyweb_store(&place.turn, turn)
    pyweb_fence()
    memcpy(<unsigned char *>place + 8, <const unsigned char *>made + 8, sizeof(Entry) - 8)
    if made.has_body:
        memcpy(<unsigned char *>place + ENTRY_SIZE, body, made.count)
    pyweb_store(&place.turn, turn + 1)


cdef class Cache:
    """A view of `memory`: `size_of(entries)` bytes. `names`: the fields of a key, in lower case.
    `limits`: of a head, in bytes, bytes and lines: (line, head, fields)."""

    def __cinit__(self, memory, names, limits, *, bint writable):
        cdef bytes name
        PyObject_GetBuffer(memory, &self.view, PyBUF_WRITABLE if writable else PyBUF_SIMPLE)
        self.writable = writable
        self.table.memory = <unsigned char *>self.view.buf
        self.table.sets = self.view.len // (PLACE_SIZE * WAYS)
        if self.table.sets < 1:
            raise ValueError("no room for a cache")
        self.limits.line, self.limits.head, self.limits.fields = limits
        self.names.count = 0
        for name in names:
            if self.names.count == MAX_NAMES or len(name) > MAX_NAME:
                raise ValueError("more names than a key has room for")
            self.names.sizes[self.names.count] = <int>len(name)
            memcpy(self.names.text[self.names.count], PyBytes_AS_STRING(name), len(name))
            self.names.count += 1

    def __dealloc__(self):
        PyBuffer_Release(&self.view)

    cdef int key_of(self, bytes data, Key *key):
        cdef Head head
        cdef const unsigned char *raw = <const unsigned char *>PyBytes_AS_STRING(data)
        if scan_head(raw, PyBytes_GET_SIZE(data), &self.limits, &head) <= 0:
            return 0
        return head.major == 1 and make_key(raw, &head, &self.names, key)

    def key(self, bytes head not None):
        """What `head` is found by; None: it is none, or too long."""
        cdef Key key
        return key.text[:key.size] if self.key_of(head, &key) else None

    def decided(self, bytes head not None):
        """When (monotonic_ns) the decision for `head` was made; 0: there is none."""
        cdef Key key
        cdef Entry entry
        is_there = self.key_of(head, &key) and find(&self.table, &key, &entry) != NULL
        return entry.decided if is_there else 0

    def put(self, bytes head not None, long long decided, int status, int reason, bint keeps,
            bytes header not None, int date_at, long long offset, long long count, guards,
            bytes body=None, directories=(), bint lasts=False):
        """Keep a decision. guards: (path, device, inode, size, modified, changed) of each file
        that it has found, the one that is sent first. body: what is sent of it, if that is known.
        directories: likewise, where it has found nothing; lasts: as long as all are the same.
        False: it is too long to be kept."""
        cdef Key key
        cdef Entry made
        if not self.writable:
            raise TypeError("this view of the cache is for reading")
        if not self.key_of(head, &key) or not 1 <= len(guards) <= MAX_GUARDS:
            return False
        memset(&made, 0, sizeof(made))
        made.digest, made.decided, made.status, made.reason = key.digest, decided, status, reason
        made.keeps, made.date_at, made.offset, made.count = keeps, date_at, offset, count
        memcpy(made.data, key.text, key.size)
        made.key_size = key.size
        made.header_at = made.key_size
        if not put_guards(&made, guards, 0):
            return False
        made.lasts = lasts and put_guards(&made, directories, 1)
        if not put_header(&made, header):
            return False
        made.has_body = body is not None and 0 < len(body) == count <= MAX_BODY
        write(place_for(&self.table, &key), &made,
              PyBytes_AS_STRING(body) if made.has_body else NULL)
        return True

    def put_kind(self, bytes head not None, long long decided, bint keeps, bytes header not None,
                 holes, bytes directory not None, absent, bint sends):
        """Keep a decision for all files of this one's kind: see kinds.Kind. False: its name is not
        such that others may be like it, or there is no room."""
        cdef Key key
        cdef Span name
        cdef Entry made
        cdef Head parsed
        cdef const unsigned char *raw = <const unsigned char *>PyBytes_AS_STRING(head)
        cdef int at, what
        if not self.writable:
            raise TypeError("this view of the cache is for reading")
        if scan_head(raw, PyBytes_GET_SIZE(head), &self.limits, &parsed) <= 0 or parsed.major != 1:
            return False
        if not make_kind_key(raw, &parsed, &self.names, &key, &name):
            return False
        memset(&made, 0, sizeof(made))
        made.digest, made.decided, made.status, made.date_at = key.digest, decided, 200, -1
        made.keeps, made.count = keeps, sends
        memcpy(made.data, key.text, key.size)
        made.key_size = made.header_at = key.size
        if not put_guards(&made, [(path, 0, 0, 0, 0, 0) for path in (directory, *absent)], 0):
            return False
        if not 0 < len(holes) <= MAX_HOLES or not put_header(&made, header):
            return False
        for at, what in holes:
            made.hole[made.holes] = Hole(at, what)
            made.holes += 1
        write(place_for(&self.table, &key), &made, NULL)
        return True


cdef int put_header(Entry *made, bytes header):
    if len(header) > ENTRY_DATA - made.header_at:
        return 0
    memcpy(made.data + made.header_at, PyBytes_AS_STRING(header), len(header))
    made.header_size = <int>len(header)
    return 1


cdef int put_guards(Entry *made, guards, int is_directory):
    """0: they have no room, and it is as it was."""
    cdef bytes path
    cdef int at = made.header_at
    cdef int before = made.guards
    for path, device, inode, size, modified, changed in guards:
        if made.guards == MAX_GUARDS or len(path) + 1 > ENTRY_DATA - at or b"\0" in path:
            made.guards = before
            return 0
        made.guard[made.guards] = Guard(device, inode, size, modified, changed, at, is_directory)
        memcpy(made.data + at, PyBytes_AS_STRING(path), len(path))
        at += <int>len(path) + 1   # a NUL is there
        made.guards += 1
    made.header_at = at
    return 1


def size_of(Py_ssize_t entries):
    """Bytes of memory for so many."""
    return max(<Py_ssize_t>1, (entries + WAYS - 1) // WAYS) * WAYS * PLACE_SIZE


# Bytes of a content that is kept; a larger one is read from its file each time.
LARGEST_BODY = MAX_BODY
