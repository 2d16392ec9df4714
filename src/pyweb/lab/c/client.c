/* A closed loop at concurrency 1: one connection after the other, each of them timed.

     client PORT PATH COUNT WARMUP BYTES [silent]

   For each of COUNT connections, after WARMUP that nobody hears of, a line of CLOCK_MONOTONIC ns:

     begin connected sent first_byte end

   begin is just before connect(2), end when the server's end of the connection is seen: its own
   socket(2) and close(2) are outside. They stand on one time line with the stamps of a server on
   this machine. While it measures nothing is written; the lines come at the end. Each answer
   must be a 200 with a body of BYTES bytes, or it ends with a line on stderr and exit 1 (2: its
   arguments).
   silent: nothing is sent, and no byte may come; then sent is connected and first_byte is end.
   Not here: which of the times are of interest, and averages. */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

/* Seconds: for one call, and for everything. */
#define PATIENCE 10
#define LIFE 300
/* For a header, beside the body. */
#define HEAD_ROOM 65536

enum { BEGIN, CONNECTED, SENT, FIRST_BYTE, END, TIMES };

struct plan {
    struct sockaddr_in server;
    int count, warmup, silent;
    char request[2048];
    size_t request_size, body_size;
    char *answer; /* there is room for a byte too many */
    size_t room;
};

static int64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static int64_t number_of(const char *word, int64_t low, int64_t high) {
    char *end;
    errno = 0;
    long long number = strtoll(word, &end, 10);
    if (errno || !*word || *end || number < low || number > high) {
        fprintf(stderr, "client: %s: not a number from %lld to %lld\n", word, (long long)low,
                (long long)high);
        exit(2);
    }
    return number;
}

static void make_plan(struct plan *plan, char **words, int silent) {
    plan->server = (struct sockaddr_in){.sin_family = AF_INET,
                                        .sin_port = htons((uint16_t)number_of(words[0], 1, 65535)),
                                        .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    plan->count = (int)number_of(words[2], 1, 10000000);
    plan->warmup = (int)number_of(words[3], 0, 10000000);
    plan->body_size = (size_t)number_of(words[4], 0, 1 << 30);
    plan->silent = silent;
    plan->room = plan->body_size + HEAD_ROOM;
    int size = snprintf(plan->request, sizeof plan->request,
                        "GET %s HTTP/1.1\r\nHost: lab\r\nUser-Agent: pyweb-lab\r\n"
                        "Accept: */*\r\nConnection: close\r\n\r\n",
                        words[1]);
    if (size < 0 || (size_t)size >= sizeof plan->request) {
        fputs("client: the path is too long\n", stderr);
        exit(2);
    }
    plan->request_size = (size_t)size;
}

/* Memory that is there already: no page fault is to be timed. */
static void *present(size_t size) {
    void *memory = malloc(size);
    if (!memory) {
        fputs("client: no memory\n", stderr);
        exit(1);
    }
    return memset(memory, 1, size);
}

static int new_socket(void) {
    struct timeval patience = {.tv_sec = PATIENCE};
    int on = 1;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0) {
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
        setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    }
    return fd;
}

/* Each of these gives NULL, or what went wrong. */

static const char *strerror_of_now(void) {
    return errno == EAGAIN ? "nothing came for too long" : strerror(errno);
}

static const char *ask(int fd, const struct plan *plan, int64_t *times) {
    if (!plan->silent &&
        send(fd, plan->request, plan->request_size, MSG_NOSIGNAL) != (ssize_t)plan->request_size)
        return strerror_of_now();
    times[SENT] = plan->silent ? times[CONNECTED] : now_ns();
    return NULL;
}

/* To its end. Adds how much came to `size`. */
static const char *hear(int fd, const struct plan *plan, int64_t *times, size_t *size) {
    while (*size < plan->room) {
        ssize_t got = recv(fd, plan->answer + *size, plan->room - *size, 0);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0 && !(plan->silent && errno == ECONNRESET))
            return strerror_of_now();
        if (got <= 0)
            return NULL;
        if (!*size)
            times[FIRST_BYTE] = now_ns();
        *size += (size_t)got;
    }
    return "the answer is far too long";
}

static const char *judge(const struct plan *plan, size_t size) {
    static char text[128];
    if (plan->silent)
        return size ? "an answer to nothing" : NULL;
    if (size < 13 || memcmp(plan->answer, "HTTP/1.1 ", 9) != 0)
        return size ? "no HTTP answer" : "closed without an answer";
    if (memcmp(plan->answer + 9, "200 ", 4) != 0) {
        snprintf(text, sizeof text, "status %.3s", plan->answer + 9);
        return text;
    }
    char *body = memmem(plan->answer, size, "\r\n\r\n", 4);
    size_t body_size = body ? size - (size_t)(body + 4 - plan->answer) : 0;
    if (body && body_size == plan->body_size)
        return NULL;
    snprintf(text, sizeof text, "a body of %zu bytes instead of %zu", body_size, plan->body_size);
    return text;
}

/* Connected: ask, hear, close; then look at what came. */
static const char *exchange(int fd, const struct plan *plan, int64_t *times) {
    size_t size = 0;
    const char *wrong = ask(fd, plan, times);
    if (!wrong)
        wrong = hear(fd, plan, times, &size);
    times[END] = now_ns();
    if (!size)
        times[FIRST_BYTE] = times[END];
    close(fd);
    return wrong ? wrong : judge(plan, size);
}

static const char *visit(const struct plan *plan, int64_t *times) {
    int fd = new_socket();
    if (fd < 0)
        return strerror(errno);
    times[BEGIN] = now_ns();
    if (connect(fd, (const struct sockaddr *)&plan->server, sizeof plan->server) < 0) {
        const char *wrong = strerror(errno);
        close(fd);
        return wrong;
    }
    times[CONNECTED] = now_ns();
    return exchange(fd, plan, times);
}

static void visit_all(const struct plan *plan, int64_t *times) {
    int64_t unheard[TIMES];
    for (int i = -plan->warmup; i < plan->count; i++) {
        const char *wrong = visit(plan, i < 0 ? unheard : times + (size_t)i * TIMES);
        if (wrong) {
            int number = i < 0 ? i + plan->warmup + 1 : i + 1;
            fprintf(stderr, "client: connection %d of %d%s: %s\n", number,
                    i < 0 ? plan->warmup : plan->count, i < 0 ? " (warm-up)" : "", wrong);
            exit(1);
        }
    }
}

int main(int count, char **words) {
    static struct plan plan;
    int silent = count == 7 && strcmp(words[6], "silent") == 0;
    if (count != 6 && !silent) {
        fputs("usage: client PORT PATH COUNT WARMUP BYTES [silent]\n", stderr);
        return 2;
    }
    alarm(LIFE);
    make_plan(&plan, words + 1, silent);
    plan.answer = present(plan.room);
    int64_t *times = present((size_t)plan.count * TIMES * sizeof *times);
    visit_all(&plan, times);
    for (int i = 0; i < plan.count; i++, times += TIMES)
        printf("%lld %lld %lld %lld %lld\n", (long long)times[BEGIN], (long long)times[CONNECTED],
               (long long)times[SENT], (long long)times[FIRST_BYTE], (long long)times[END]);
    return fflush(stdout) == 0 && !ferror(stdout) ? 0 : 1;
}
