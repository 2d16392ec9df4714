# Descriptors that children share: see _fastfork.pyx.

cdef enum:
    MAX_KEPT = 16

# In order.
ctypedef struct Kept:
    int count
    int files[MAX_KEPT]

cdef int keep_files(Kept *kept, files) except -1
# All but those and `sock`; -1: no other.
cdef void close_others(const Kept *kept, int sock) noexcept nogil
