/* The C library's functions on octets, for this library alone: what a child that has no C library
   calls (kernel.h), and what the compiler calls in its name. Hidden: nobody else's are replaced.

   Not as fast as those for kilobytes, which know the processor; for a head and a header they are. */

#undef _FORTIFY_SOURCE /* these are the functions that it would put others before */
#include "kernel.h"

#if !PYWEB_NEEDS_LIBC

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("no-tree-loop-distribute-patterns") /* or they would call themselves */
#define ALONE
#else
#define ALONE no_builtin,
#endif

#define OURS PYWEB_BESIDE __attribute__((ALONE visibility("hidden"), used))

typedef uint64_t __attribute__((may_alias, aligned(1))) word;

OURS void *memcpy(void *restrict to, const void *restrict from, size_t size) {
    char *at = to;
    const char *of = from;
    if (size >= 256) {
#if defined(__x86_64__)
        __asm__ volatile("rep movsb" : "+D"(at), "+S"(of), "+c"(size) : : "memory");
        return to;
#endif
    }
    if (size >= sizeof(word)) {
        char *last = at + size - sizeof(word);
        word end = *(const word *)(of + size - sizeof(word));
        for (; at < last; at += sizeof(word), of += sizeof(word))
            *(word *)at = *(const word *)of;
        *(word *)last = end;
        return to;
    }
    while (size--)
        *at++ = *of++;
    return to;
}

OURS void *memmove(void *to, const void *from, size_t size) {
    char *at = to;
    const char *of = from;
    if ((uintptr_t)to - (uintptr_t)from >= size) {
        for (; size >= sizeof(word); size -= sizeof(word), at += sizeof(word), of += sizeof(word))
            *(word *)at = *(const word *)of;
        while (size--)
            *at++ = *of++;
        return to;
    }
    while (size--)
        at[size] = of[size];
    return to;
}

OURS void *memset(void *to, int octet, size_t size) {
    char *at = to;
#if defined(__x86_64__)
    __asm__ volatile("rep stosb" : "+D"(at), "+c"(size) : "a"(octet) : "memory");
#else
    while (size--)
        *at++ = (char)octet;
#endif
    return to;
}

OURS int memcmp(const void *some, const void *others, size_t size) {
    const unsigned char *a = some, *b = others;
    for (; size >= sizeof(word); size -= sizeof(word), a += sizeof(word), b += sizeof(word))
        if (*(const word *)a != *(const word *)b)
            break;
    for (; size; size--, a++, b++)
        if (*a != *b)
            return *a - *b;
    return 0;
}

/* As clang calls a memcmp of which it wants to know whether there is a difference. */
OURS int bcmp(const void *some, const void *others, size_t size) {
    return memcmp(some, others, size);
}

OURS size_t strlen(const char *text) {
    size_t size = 0;
    while (text[size])
        size++;
    return size;
}

/* Where the compiler checks sizes (_FORTIFY_SOURCE). */

static inline void check(size_t size, size_t room) {
    if (size > room)
        __builtin_trap();
}

OURS void *__memcpy_chk(void *restrict to, const void *restrict from, size_t size, size_t room);
OURS void *__memcpy_chk(void *restrict to, const void *restrict from, size_t size, size_t room) {
    check(size, room);
    return memcpy(to, from, size);
}

OURS void *__memmove_chk(void *to, const void *from, size_t size, size_t room);
OURS void *__memmove_chk(void *to, const void *from, size_t size, size_t room) {
    check(size, room);
    return memmove(to, from, size);
}

OURS void *__memset_chk(void *to, int octet, size_t size, size_t room);
OURS void *__memset_chk(void *to, int octet, size_t size, size_t room) {
    check(size, room);
    return memset(to, octet, size);
}

#endif
