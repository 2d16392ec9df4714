/* Open-loop load: requests begin when the schedule says so, whatever the server does meanwhile.

   openloop PORT PATH BYTES RATE COUNT SEED [MOST_OPEN]

   COUNT requests to 127.0.0.1, RATE of them a second, each on a connection of its own that asks to
   be closed; the answer's body should have BYTES. SEED is a number for arrivals as of many
   independent clients (Poisson; the same number gives the same moments), or `even`.
   When all have ended, a line for each, in the order of the schedule:

       scheduled started connected first_byte end status bytes

   Moments are ns of CLOCK_MONOTONIC, 0: it never came to that. A latency is end - scheduled: a
   server that makes everybody wait does so to all who would have come meanwhile, and so do we when
   we start one late (started - scheduled); nothing is left out because of it.
   end      when the body had its BYTES, or else when the connection ended or was given up
   status   of the answer; 0: none, or it was broken off (refused, reset, ten seconds)
   bytes    of the body: all that came until the server closed
   Who was given one CPU of several (taskset(1)) has it to himself, and does not sleep: to wake takes
   20 to 50 us, which would stand in each latency.
   No more than MOST_OPEN (1000) are open at once: one whose turn comes then is not started, has
   `started` 0, and is a failure as well. An alarm ends us when all of that must be over.

   Not here: what the figures mean, and whether the run is good (load.py). One thread: a second one
   would compete with the server for its CPU. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define SECOND 1000000000LL
#define PATIENCE (10 * SECOND)
/* Between our start and the first request: what is slow the first time is done then. */
#define LEAD (SECOND / 20)
#define MOST_COUNT 1000000
#define MOST_RATE 1e6
#define LONGEST_RUN 3600
#define EVENTS 64
/* "HTTP/1.1 200" */
#define STATUS_AT 9
#define STATUS_END 12
#define THE_TIMER UINT64_MAX

struct request {
    int64_t scheduled, started, connected, first_byte, end, bytes;
    int fd;
    int status;
    int head_bytes;  /* of those that are kept */
    int line_ends;   /* how much of CR LF CR LF has just passed; 4: the head is over */
    char head[STATUS_END];
};

static struct request *requests;
static int count, open_now, next, oldest;
static long most_open = 1000;
static int64_t body_bytes;
static char message[4352];
static size_t message_size;
static struct sockaddr_in server;
static int events_fd, timer_fd;

static _Noreturn void refuse(const char *text) {
    fprintf(stderr, "openloop: %s\n", text);
    exit(2);
}

static _Noreturn void fail(const char *what) {
    fprintf(stderr, "openloop: %s: %s\n", what, strerror(errno));
    exit(1);
}

static int64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * SECOND + t.tv_nsec;
}

/* The schedule. */

static uint64_t dice;

/* splitmix64: any seed will do. */
static double uniform(void) {
    uint64_t z = dice += 0x9e3779b97f4a7c15ULL;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
    return (double)((z ^ (z >> 31)) >> 11) / (double)(1ULL << 53);
}

/* Exponential with mean 1, by von Neumann's comparisons: no logarithm, so no libm. A run of falling
   numbers that begins with x has odd length with probability exp(-x). */
static double exponential(void) {
    for (double whole = 0;; whole += 1) {
        double first = uniform(), last = first, number;
        int length = 1;
        for (; (number = uniform()) <= last; length++)
            last = number;
        if (length & 1)
            return whole + first;
    }
}

static void make_schedule(double rate, int even) {
    int64_t begin = now() + LEAD;
    double at = 0;
    for (int i = 0; i < count; i++) {
        requests[i].scheduled = begin + (int64_t)(at * (double)SECOND);
        requests[i].fd = -1;
        at += (even ? 1 : exponential()) / rate;
    }
}

/* One request. */

static void end_request(struct request *r, int64_t at) {
    if (r->fd >= 0) {
        close(r->fd);
        open_now--;
    }
    r->fd = -1;
    if (!r->end)
        r->end = at;
}

/* What came of it may be cut off anywhere: that is no answer. */
static void break_off(struct request *r) {
    r->status = 0;
    r->end = 0;
    end_request(r, now());
}

static void watch(const struct request *r, int operation, uint32_t events) {
    struct epoll_event wanted = {.events = events, .data.u64 = (uint64_t)(r - requests)};
    if (epoll_ctl(events_fd, operation, r->fd, &wanted) < 0)
        fail("epoll_ctl");
}

/* Connected, or not yet, or not: then send(2) says why. On the loopback connect(2) says EINPROGRESS
   of a connection that is there when it returns: to ask at once saves a wait and a change of what is
   waited for. */
static void ask(struct request *r, int operation) {
    int64_t at = now();
    ssize_t sent = send(r->fd, message, message_size, MSG_NOSIGNAL);
    if (sent < 0 && (errno == EAGAIN || errno == ENOTCONN)) {
        watch(r, operation, EPOLLOUT);
        return;
    }
    /* So small a message fits as a whole, or something is wrong. */
    if (sent != (ssize_t)message_size) {
        break_off(r);
        return;
    }
    r->connected = at;
    watch(r, operation, EPOLLIN);
}

/* A reset instead of our FIN, after the server's own has come: else the server's end stands in
   TIME-WAIT for a minute, and then those of seconds end at once, within a timer: we have seen that
   take the CPU for 2 to 8 ms. A reset ends it (RFC 9293 3.10.7.4, and RFC 1337 on why one would not
   want that where packets can be late, as they can't be here). */
static void leave_no_trace(int fd) {
    struct linger at_once = {.l_onoff = 1, .l_linger = 0};
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
}

static void start_request(struct request *r) {
    if (open_now >= most_open) {
        r->end = r->scheduled;
        return;
    }
    r->started = now();
    r->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (r->fd < 0) {
        r->end = r->started;
        return;
    }
    open_now++;
    leave_no_trace(r->fd);
    if (connect(r->fd, (struct sockaddr *)&server, sizeof server) < 0 && errno != EINPROGRESS)
        break_off(r);
    else
        ask(r, EPOLL_CTL_ADD);
}

static void take_head_byte(struct request *r, char byte) {
    if (r->head_bytes < STATUS_END)
        r->head[r->head_bytes++] = byte;
    if (byte == "\r\n\r\n"[r->line_ends])
        r->line_ends++;
    else
        r->line_ends = byte == '\r';
}

static void understand_status(struct request *r) {
    int status = 0;
    for (int i = STATUS_AT; i < STATUS_END; i++)
        status = status * 10 + (r->head[i] >= '0' && r->head[i] <= '9' ? r->head[i] - '0' : 0);
    r->status = r->head_bytes == STATUS_END && !memcmp(r->head, "HTTP/1.", 7) ? status : 0;
}

static void take(struct request *r, const char *data, ssize_t size, int64_t at) {
    ssize_t i = 0;
    if (!r->first_byte)
        r->first_byte = at;
    if (r->line_ends < 4) {
        while (i < size && r->line_ends < 4)
            take_head_byte(r, data[i++]);
        if (r->line_ends == 4)
            understand_status(r);
    }
    r->bytes += size - i;
    if (r->line_ends == 4 && r->bytes >= body_bytes && !r->end)
        r->end = at;
}

static void receive(struct request *r) {
    static char data[65536];
    for (;;) {
        ssize_t size = recv(r->fd, data, sizeof data, 0);
        int64_t at = now();
        if (size > 0) {
            take(r, data, size, at);
            continue;
        }
        if (size < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        if (size < 0)
            break_off(r);
        else
            end_request(r, at);
        return;
    }
}

/* All of them. */

static void start_what_is_due(void) {
    while (next < count && requests[next].scheduled <= now())
        start_request(&requests[next++]);
}

/* They are started in their order, so the oldest that is open has waited longest. */
static void give_up(void) {
    for (; oldest < next; oldest++) {
        struct request *r = &requests[oldest];
        if (r->fd >= 0) {
            if (now() < r->started + PATIENCE)
                return;
            break_off(r);
        }
    }
}

/* A timer in the epoll: its timeout is in whole ms, and that of epoll_pwait2(2) comes with the
   thread's timer slack of 50 us. */
static void set_timer(void) {
    static int64_t set;
    int64_t at = next < count ? requests[next].scheduled : INT64_MAX;
    if (oldest < next && requests[oldest].started + PATIENCE < at)
        at = requests[oldest].started + PATIENCE;
    if (at == set || at == INT64_MAX)
        return;
    set = at;
    struct itimerspec moment = {.it_value = {at / SECOND, at % SECOND}};
    if (timerfd_settime(timer_fd, TFD_TIMER_ABSTIME, &moment, NULL) < 0)
        fail("timerfd_settime");
}

static void handle(const struct epoll_event *event) {
    uint64_t expired;
    if (event->data.u64 == THE_TIMER) {
        if (read(timer_fd, &expired, sizeof expired) < 0 && errno != EAGAIN)
            fail("read of the timer");
        return;
    }
    struct request *r = &requests[event->data.u64];
    if (r->fd < 0)
        return;
    if (!r->connected)
        ask(r, EPOLL_CTL_MOD);
    else
        receive(r);
}

static int has_a_cpu(void) {
    cpu_set_t ours;
    return sched_getaffinity(0, sizeof ours, &ours) == 0 && CPU_COUNT(&ours) == 1
           && sysconf(_SC_NPROCESSORS_ONLN) > 1;
}

static void run(void) {
    struct epoll_event events[EVENTS];
    int patience = has_a_cpu() ? 0 : -1;
    for (;;) {
        start_what_is_due();
        give_up();
        if (next == count && !open_now)
            return;
        if (patience)
            set_timer();
        int found = epoll_wait(events_fd, events, EVENTS, patience);
        if (found < 0 && errno != EINTR)
            fail("epoll_wait");
        for (int i = 0; i < found; i++) {
            /* An answer can wait for its turn, a start can't: what comes is stamped when read. */
            start_what_is_due();
            handle(&events[i]);
        }
    }
}

static void tell(void) {
    for (int i = 0; i < count; i++) {
        struct request *r = &requests[i];
        printf("%lld %lld %lld %lld %lld %d %lld\n", (long long)r->scheduled,
               (long long)r->started, (long long)r->connected, (long long)r->first_byte,
               (long long)r->end, r->status, (long long)r->bytes);
    }
    if (fflush(stdout) || ferror(stdout))
        fail("standard output");
}

/* What was said on the command line. */

static double number(const char *text, const char *name, double least, double most) {
    char *rest, line[128];
    double value = strtod(text, &rest);
    if (*rest || rest == text || !(value >= least && value <= most)) {
        snprintf(line, sizeof line, "%s: a number from %g to %g, not %.40s", name, least, most,
                 text);
        refuse(line);
    }
    return value;
}

static void prepare_message(const char *path) {
    if (path[0] != '/' || strpbrk(path, " \r\n"))
        refuse("PATH: begins with a slash, and has no space");
    int size = snprintf(message, sizeof message,
                        "GET %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", path);
    if (size >= (int)sizeof message)
        refuse("PATH: too long");
    message_size = (size_t)size;
}

static void raise_limit(void) {
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    if ((rlim_t)most_open + 16 > limit.rlim_max)
        refuse("MOST_OPEN: more than the descriptors that we may have (ulimit -Hn)");
}

static void prepare_events(void) {
    struct epoll_event wanted = {.events = EPOLLIN, .data.u64 = THE_TIMER};
    events_fd = epoll_create1(EPOLL_CLOEXEC);
    timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    if (events_fd < 0 || timer_fd < 0)
        fail("epoll and timer");
    if (epoll_ctl(events_fd, EPOLL_CTL_ADD, timer_fd, &wanted) < 0)
        fail("epoll_ctl");
}

int main(int argc, char **argv) {
    if (argc < 7 || argc > 8)
        refuse("usage: openloop PORT PATH BYTES RATE COUNT SEED|even [MOST_OPEN]");
    server.sin_family = AF_INET;
    server.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    server.sin_port = htons((uint16_t)number(argv[1], "PORT", 1, 65535));
    prepare_message(argv[2]);
    body_bytes = (int64_t)number(argv[3], "BYTES", 0, 1e15);
    double rate = number(argv[4], "RATE", 1e-3, MOST_RATE);
    count = (int)number(argv[5], "COUNT", 1, MOST_COUNT);
    int even = !strcmp(argv[6], "even");
    dice = even ? 0 : (uint64_t)number(argv[6], "SEED (or `even`)", 0, 9e15);
    if (argc == 8)
        most_open = (long)number(argv[7], "MOST_OPEN", 1, 1e6);
    raise_limit();
    requests = calloc((size_t)count, sizeof *requests);
    if (!requests)
        fail("memory for the requests");
    prepare_events();
    make_schedule(rate, even);
    int64_t last = requests[count - 1].scheduled + 2 * PATIENCE - now();
    if (last > LONGEST_RUN * SECOND)
        refuse("COUNT: at this RATE it would take more than an hour");
    alarm((unsigned)(last / SECOND) + 1);
    run();
    tell();
    return 0;
}
