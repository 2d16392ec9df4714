# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Clocks, and what a second is called, for who serves in C.

What lives here: clock.py's and accesslog.py's texts of a time, held against them by a test. Not by
the C library: it allocates, and a child may be without a heap. Where local time stands is asked by
the parent or a lane, once a second; a child that lives longer keeps to that. What must never: what
a time is good for.
"""

cdef extern from *:
    """
    #include "kernel.h"
    #include <stdlib.h>

    /* Through the vDSO, unless there is no C library that knows it. */
    static int pyweb_has_libc = 1;
    static void pyweb_forget_libc(void) { pyweb_has_libc = PYWEB_NEEDS_LIBC; }

    static long long pyweb_clock(int which) {
        struct timespec now;
    #if !PYWEB_NEEDS_LIBC
        if (!pyweb_has_libc)
            PYWEB_CALL(clock_gettime, 0, which, &now);
        else
    #endif
            clock_gettime(which, &now);
        return (long long)now.tv_sec * 1000000000 + now.tv_nsec;
    }

    static void pyweb_two(char *to, long long value) {
        to[0] = (char)('0' + value / 10 % 10);
        to[1] = (char)('0' + value % 10);
    }

    PYWEB_BESIDE static void pyweb_clock_text(char *to, long long second) {
        pyweb_two(to, second / 3600);
        pyweb_two(to + 3, second / 60 % 60);
        pyweb_two(to + 6, second % 60);
        to[2] = to[5] = ':';
    }

    struct pyweb_day { long long year; int month, day, weekday; };

    /* Days since 1970-01-01 in the Gregorian calendar, by eras of 400 years that begin in March. */
    PYWEB_BESIDE static struct pyweb_day pyweb_day_of(long long days) {
        long long shifted = days + 719468, era = shifted / 146097, of_era = shifted % 146097;
        long long years = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146096) / 365;
        long long of_year = of_era - (365 * years + years / 4 - years / 100);
        long long month = (5 * of_year + 2) / 153;
        struct pyweb_day found;
        found.day = (int)(of_year - (153 * month + 2) / 5 + 1);
        found.month = (int)(month < 10 ? month + 2 : month - 10);
        found.year = years + era * 400 + (found.month < 2);
        found.weekday = (int)((days + 4) % 7);
        return found;
    }

    PYWEB_BESIDE static void pyweb_put_date(char *to, const struct pyweb_day *day, char between) {
        pyweb_two(to, day->day);
        memcpy(to + 3, &"JanFebMarAprMayJunJulAugSepOctNovDec"[3 * day->month], 3);
        pyweb_two(to + 7, day->year / 100);
        pyweb_two(to + 9, day->year);
        to[2] = to[6] = between;
    }

    PYWEB_BESIDE static void pyweb_render_date(char *to, long long second) {
        struct pyweb_day day = pyweb_day_of(second / 86400);
        memcpy(to, &"SunMonTueWedThuFriSat"[3 * day.weekday], 3);
        memcpy(to + 3, ", ", 2);
        pyweb_put_date(to + 5, &day, ' ');
        to[16] = ' ';
        pyweb_clock_text(to + 17, second % 86400);
        memcpy(to + 25, " GMT", 5);
    }

    PYWEB_BESIDE static void pyweb_render_log_time(char *to, long long second, long long ahead) {
        long long local = second + ahead, offset = llabs(ahead) / 60;
        struct pyweb_day day = pyweb_day_of(local / 86400);
        to[0] = '[';
        pyweb_put_date(to + 1, &day, '/');
        to[12] = ':';
        pyweb_clock_text(to + 13, local % 86400);
        to[21] = ' ';
        to[22] = ahead < 0 ? '-' : '+';
        pyweb_two(to + 23, offset / 60);
        pyweb_two(to + 25, offset % 60);
        memcpy(to + 27, "]", 2);
    }

    PYWEB_BESIDE static void pyweb_render_times(struct pyweb_times *times, long long second) {
        if (second == times->second)
            return;
        times->second = second;
        pyweb_render_date(times->date, second);
        pyweb_render_log_time(times->log_time, second, times->offset);
    }

    static void pyweb_set_offset(struct pyweb_times *times, long long offset) {
        times->offset = offset;
        times->second = times->offset_of = -1;
    }

    /* By whoever has a heap. */
    static void pyweb_ask_offset(struct pyweb_times *times, long long second) {
        time_t now = (time_t)second;
        struct tm parts;
        if (second == times->offset_of || !localtime_r(&now, &parts))
            return;
        times->offset_of = second;
        times->offset = parts.tm_gmtoff;
        times->second = -1;
        pyweb_render_times(times, second);
    }
    """
    const int CLOCK_MONOTONIC
    const int CLOCK_REALTIME
    long long pyweb_clock(int which) nogil
    void pyweb_forget_libc() nogil
    void pyweb_render_date(char *to, long long second) nogil
    void pyweb_render_times(Times *times, long long second) nogil
    void pyweb_ask_offset(Times *times, long long second) nogil
    void pyweb_set_offset(Times *times, long long offset) nogil

TIMES.second = TIMES.offset_of = -1


cdef long long monotonic() noexcept nogil:
    return pyweb_clock(CLOCK_MONOTONIC)


cdef long long realtime() noexcept nogil:
    return pyweb_clock(CLOCK_REALTIME)


cdef void forget_libc() noexcept nogil:
    pyweb_forget_libc()


cdef void put_date(unsigned char *to, long long second) noexcept nogil:
    pyweb_render_date(<char *>to, second)


cdef void tell_time(Times *times) noexcept nogil:
    pyweb_render_times(times, realtime() // 1000000000)


cdef void keep_time(Times *times) noexcept nogil:
    pyweb_ask_offset(times, realtime() // 1000000000)


def times(long long second, long long offset):
    """For the tests alone: the date and the log's time of a second, where local time is `offset`
    seconds ahead."""
    cdef Times times
    pyweb_set_offset(&times, offset)
    pyweb_render_times(&times, second)
    return bytes(times.date), bytes(times.log_time)
