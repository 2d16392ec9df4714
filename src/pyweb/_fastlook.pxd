# What is known of a request, and whether it is still so: see _fastlook.pyx.

from pyweb._fastexchange cimport Exchange

# 1: x.entry is a decision for what stands in x.data, x.size bytes, or for its kind (x.is_kind).
cdef int look_up(Exchange *x) noexcept nogil
# 1: all that it depends on is as it was, and x.file is the one to be sent, -1 where none is.
cdef int is_still_so(Exchange *x) noexcept nogil
# It was not. 1: but the other one that there is, its kind's or its own, is.
cdef int is_so_by_another(Exchange *x) noexcept nogil
