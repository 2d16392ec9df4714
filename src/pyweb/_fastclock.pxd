# Clocks and the texts of a second: see _fastclock.pyx.

cdef extern from *:
    """
    #ifndef PYWEB_TIMES
    #define PYWEB_TIMES
    struct pyweb_times { long long second, offset_of, offset; char date[32], log_time[40]; };
    #endif
    """
    # The texts of a second, and how far local time is ahead of it: of one thread.
    ctypedef struct Times "struct pyweb_times":
        long long second
        long long offset_of
        long long offset
        char date[32]
        char log_time[40]

# Of a process with one conversation; what a zygote's order brings. A lane has its own.
cdef Times TIMES

# ns
cdef long long monotonic() noexcept nogil
cdef long long realtime() noexcept nogil
# This process, which is bare, has no C library any more.
cdef void forget_libc() noexcept nogil

# An HTTP date, 29 bytes and a NUL.
cdef void put_date(unsigned char *to, long long second) noexcept nogil
# Of now.
cdef void tell_time(Times *times) noexcept nogil
# What a second is called, before it is said: by whoever has a heap.
cdef void keep_time(Times *times) noexcept nogil
