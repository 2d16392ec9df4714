/* The rungs without an interpreter: a server of one path, in C.

     server MODE PATH FILE [STAMPS_FD]

   MODE  close       accept, close; the client sends nothing
         serve       accept, serve
         fork-exit   accept, fork; the child exits at once, the client sends nothing
         fork-serve  accept, fork; the child serves and exits
         fork-keep   the same, for as many requests as the client has
         hold        accept, and no more; the client sends nothing

   Prints its port on 127.0.0.1, then serves until SIGTERM. Exit 2: one line on stderr.
   Not here: how it accepts and forks (loop.h), and how it serves (path.h). */

#include "loop.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>

static const char *const modes[] = {"close", "serve", "fork-exit", "fork-serve", "fork-keep",
                                    "hold"};

static int fail(const char *what) {
    fprintf(stderr, "server: %s: %s\n", what, strerror(errno));
    return 2;
}

/* A word of the command line; -1: it is none of them. */
static int mode_of(const char *name) {
    for (int mode = CLOSE; mode <= HOLD; mode++)
        if (strcmp(name, modes[mode]) == 0)
            return mode;
    return -1;
}

/* -1: not a number that a descriptor could have. */
static int descriptor_of(const char *word) {
    char *end;
    long number = strtol(word, &end, 10);
    return *word && !*end && number >= 0 && number < 1 << 20 ? (int)number : -1;
}

/* Gives the port, or -1 with errno. What is accepted inherits TCP_NODELAY. */
static int listen_anywhere(int *listener) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    int on = 1;
    *listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (*listener < 0 || bind(*listener, (struct sockaddr *)&address, size) < 0 ||
        setsockopt(*listener, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) < 0 ||
        listen(*listener, 2048) < 0 ||
        getsockname(*listener, (struct sockaddr *)&address, &size) < 0)
        return -1;
    return ntohs(address.sin_port);
}

int main(int count, char **words) {
    static struct loop loop;
    int mode = count >= 2 ? mode_of(words[1]) : -1;
    int memory = count == 5 ? descriptor_of(words[4]) : -1;
    if (count < 4 || count > 5 || mode < 0 || (count == 5 && memory < 0)) {
        fputs("usage: server close|serve|fork-exit|fork-serve|fork-keep|hold"
              " PATH FILE [STAMPS_FD]\n", stderr);
        return 2;
    }
    bound_life();
    signal(SIGPIPE, SIG_IGN); /* sendfile(2) knows no MSG_NOSIGNAL */
    loop.work = (enum work)mode;
    if (task_set(&loop.task, words[2], words[3]) < 0 || access(words[3], R_OK) < 0)
        return fail(words[3]);
    if (stamps_open(&loop.stamps, memory) < 0)
        return fail("stamps");
    if (hold_signals(&loop) < 0)
        return fail("signalfd");
    int port = listen_anywhere(&loop.listener);
    if (port < 0)
        return fail("listen");
    if (printf("%d\n", port) < 0 || fflush(stdout) != 0)
        return fail("stdout");
    const char *failed = loop_run(&loop);
    return failed ? fail(failed) : 0;
}
