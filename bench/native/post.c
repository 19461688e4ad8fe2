/* Posts requests over keep-alive connections and tells how long their answers took.
 *
 * post PORT CONNECTIONS SECONDS RATE FILE
 *
 * FILE holds whole HTTP requests, each behind its length (4 bytes, little-endian); they are sent in turn. With RATE 0
 * each connection sends its next request when it has the answer. Else so many requests a second fall due, and a
 * request's time counts from then, though no connection was free: a server that stalls can't hide it.
 *
 * Prints one line of JSON: requests, statuses other than 2xx, seconds, milliseconds at p50 and p99 and at most, and
 * its own CPU seconds.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define ANSWER 65536
#define MOST 8000000

struct request { const char *bytes; uint32_t length; };
struct connection { int fd; struct request now; size_t sent; double began; size_t got; char answer[ANSWER]; };

static struct request *requests;
static size_t count, next_request, made, failed, answered;
static float *took;
static int epoll;

static void die(const char *what) { perror(what); exit(1); }

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static void load(const char *path)
{
    FILE *file = fopen(path, "rb");
    uint32_t length;
    size_t room = 0;
    if (!file) die(path);
    while (fread(&length, 4, 1, file) == 1) {
        if (count == room) requests = realloc(requests, (room = room ? room * 2 : 64) * sizeof *requests);
        char *bytes = malloc(length);
        if (fread(bytes, 1, length, file) != length) die("a request is not whole");
        requests[count++] = (struct request){bytes, length};
    }
    fclose(file);
    if (!count) { fprintf(stderr, "%s holds no request\n", path); exit(1); }
}

static void open_connection(struct connection *c, int port)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int one = 1;
    c->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(c->fd, (struct sockaddr *)&to, sizeof to)) die("connect");
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, c->fd, &event)) die("epoll_ctl");
}

static void flush(struct connection *c)
{
    while (c->sent < c->now.length) {
        ssize_t n = send(c->fd, c->now.bytes + c->sent, c->now.length - c->sent, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n < 0 && errno != EAGAIN) die("send");
        if (n > 0) c->sent += n;
        if (n < 0) break;
    }
    struct epoll_event event = {.events = EPOLLIN | (c->sent < c->now.length ? EPOLLOUT : 0), .data.ptr = c};
    if (c->sent < c->now.length || c->sent > 65536) epoll_ctl(epoll, EPOLL_CTL_MOD, c->fd, &event);
}

static void begin(struct connection *c, double due)
{
    c->now = requests[next_request++ % count];
    c->sent = c->got = 0;
    c->began = due;
    made++;
    flush(c);
}

/* Whether the answer is whole; an answer with neither length nor chunks has no body. */
static int whole(struct connection *c)
{
    c->answer[c->got] = 0;
    char *end = strstr(c->answer, "\r\n\r\n");
    if (!end) return 0;
    char *length = strcasestr(c->answer, "\r\ncontent-length:");
    if (length && length < end) return c->got >= (size_t)(end + 4 - c->answer) + strtoul(length + 17, NULL, 10);
    char *chunked = strcasestr(c->answer, "\r\ntransfer-encoding: chunked");
    if (chunked && chunked < end) return !memcmp(c->answer + c->got - 5, "0\r\n\r\n", 5);
    return 1;
}

static int receive(struct connection *c)
{
    ssize_t n = recv(c->fd, c->answer + c->got, ANSWER - 1 - c->got, MSG_DONTWAIT);
    if (n < 0 && errno == EAGAIN) return 0;
    if (n <= 0) { fprintf(stderr, "the server closed a connection\n"); exit(1); }
    c->got += n;
    if (!whole(c)) {
        if (c->got == ANSWER - 1) { fprintf(stderr, "an answer is too long: %.300s\n", c->answer); exit(1); }
        return 0;
    }
    if (c->answer[9] != '2' && !failed++) fprintf(stderr, "first refusal: %.600s\n", c->answer);
    if (answered < MOST) took[answered++] = (now() - c->began) * 1e3;
    return 1;
}

static int ascending(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

int main(int argc, char **argv)
{
    if (argc != 6) { fprintf(stderr, "usage: post PORT CONNECTIONS SECONDS RATE FILE\n"); return 2; }
    int connections = atoi(argv[2]);
    double seconds = atof(argv[3]), rate = atof(argv[4]);
    load(argv[5]);
    took = malloc(MOST * sizeof *took);
    epoll = epoll_create1(0);
    struct connection *all = calloc(connections, sizeof *all), **idle = malloc(connections * sizeof *idle);
    int resting = 0;
    for (int i = 0; i < connections; i++) open_connection(&all[i], atoi(argv[1]));
    double start = now(), stop = start + seconds, last = start;
    for (int i = 0; i < connections; i++) {
        if (rate) idle[resting++] = &all[i];
        else begin(&all[i], now());
    }
    struct epoll_event events[256];
    while (now() < stop || answered < made) {
        if (now() > stop + 30) { fprintf(stderr, "no answer in 30 s\n"); return 1; }
        for (double t; rate && resting && (t = start + made / rate) <= now() && t < stop;) begin(idle[--resting], t);
        int n = epoll_wait(epoll, events, 256, rate ? 1 : 100);
        for (int i = 0; i < n; i++) {
            struct connection *c = events[i].data.ptr;
            if (events[i].events & EPOLLOUT) flush(c);
            if (!(events[i].events & ~EPOLLOUT) || !receive(c)) continue;
            last = now();
            if (rate) idle[resting++] = c;
            else if (last < stop) begin(c, last);
        }
    }
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    qsort(took, answered, sizeof *took, ascending);
    printf("{\"requests\":%zu,\"refused\":%zu,\"seconds\":%.3f,\"p50\":%.2f,\"p99\":%.2f,\"most\":%.2f,\"cpu\":%.3f}\n",
           answered, failed, last - start, took[answered / 2], took[answered * 99 / 100], took[answered - 1],
           used.ru_utime.tv_sec + used.ru_stime.tv_sec + (used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6);
    return 0;
}
