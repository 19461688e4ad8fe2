// Opens many streams at one server and drains them; counts events by a mark that each carries once.
//
//   sink PORT CONNECTIONS PATH [stalled | naps]
//
// An event holds '~' once, followed by the nanoseconds of CLOCK_MONOTONIC at which it was made, in 19 digits; nothing
// else in a response holds that byte. Says "open N" once every stream has begun. `stalled` never reads beyond the
// first bytes. `naps`: looks
// only once a millisecond, instead of sleeping until something comes. A sleeper is woken by whoever sends to it, which
// costs the server time that a client on another machine would not, and the more the slower the server is: where CPU
// time is compared, clients nap. Takes commands on standard input, answers each with one line:
//
//   wait N    when N events came since the last reset: "reached N SECONDS", of the time since that reset
//   reset     counters to zero: "reset"
//   stats     events bytes closed least most p50 p90 p99 max, the last four in microseconds, least and most by stream
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { BUFFER = 256 * 1024, CONNECTING_AT_ONCE = 128, SAMPLES = 4 * 1000 * 1000, DIGITS = 19, STALLED_WINDOW = 4096, NAP = 1000 * 1000 };

struct stream {
  int fd;
  uint8_t asked, begun;
  uint32_t events;
};

static struct stream *streams;
static int connections, started, begun, closed_streams, stalled, naps, poller;
static struct sockaddr_in server;
static char request[4096], buffer[BUFFER];
static size_t request_size;
static uint64_t events, bytes, wanted, reset_at;
static uint32_t *samples;
static size_t sampled;

static void die(const char *what) {
  perror(what);
  exit(1);
}

static uint64_t now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void start_one(void) {
  struct stream *s = &streams[started];
  s->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
  if (s->fd < 0) die("socket");
  int window = STALLED_WINDOW;
  if (stalled) setsockopt(s->fd, SOL_SOCKET, SO_RCVBUF, &window, sizeof window);
  if (connect(s->fd, (struct sockaddr *)&server, sizeof server) < 0 && errno != EINPROGRESS) die("connect");
  struct epoll_event e = {.events = EPOLLOUT, .data.u32 = (uint32_t)started};
  if (epoll_ctl(poller, EPOLL_CTL_ADD, s->fd, &e) < 0) die("epoll_ctl");
  started++;
}

static void ask(struct stream *s, uint32_t number) {
  if (send(s->fd, request, request_size, MSG_NOSIGNAL) != (ssize_t)request_size) die("send");
  s->asked = 1;
  struct epoll_event e = {.events = EPOLLIN, .data.u32 = number};
  epoll_ctl(poller, EPOLL_CTL_MOD, s->fd, &e);
}

static void sample(const char *digits, uint64_t at) {
  uint64_t made = 0;
  for (int i = 0; i < DIGITS; i++) {
    if (digits[i] < '0' || digits[i] > '9') return;
    made = made * 10 + (uint64_t)(digits[i] - '0');
  }
  if (made && made < at && sampled < SAMPLES) samples[sampled++] = (uint32_t)((at - made) / 1000);
}

static void reached(void) {
  if (wanted && events >= wanted) {
    printf("reached %lu %.6f\n", events, (double)(now() - reset_at) / 1e9);
    fflush(stdout);
    wanted = 0;
  }
}

static void count(struct stream *s, size_t size) {
  uint64_t at = 0;
  const char *end = buffer + size, *p = buffer;
  while ((p = memchr(p, '~', (size_t)(end - p)))) {
    p++;
    s->events++;
    events++;
    if (end - p >= DIGITS) {
      if (!at) at = now();
      sample(p, at);
    }
  }
}

static void take(struct stream *s) {
  ssize_t size = recv(s->fd, buffer, stalled ? 512 : BUFFER, 0);
  if (size < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (size <= 0) {
    close(s->fd);
    s->fd = -1;
    closed_streams++;
    if (!s->begun) fprintf(stderr, "a stream ended before it began\n");
    return;
  }
  bytes += (uint64_t)size;
  if (!s->begun) {
    if (strncmp(buffer, "HTTP/1.1 200", 12)) {
      fprintf(stderr, "refused: %.60s\n", buffer);
      exit(1);
    }
    s->begun = 1;
    if (stalled) epoll_ctl(poller, EPOLL_CTL_DEL, s->fd, NULL);
    if (started < connections) start_one();
    if (++begun == connections) printf("open %d\n", begun), fflush(stdout);
  }
  count(s, (size_t)size);
}

static int by_value(const void *a, const void *b) {
  uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
  return x < y ? -1 : x > y;
}

static uint32_t quantile(double part) { return sampled ? samples[(size_t)(part * (double)(sampled - 1))] : 0; }

static void print_stats(void) {
  uint32_t least = UINT32_MAX, most = 0;
  for (int i = 0; i < connections; i++) {
    if (streams[i].events < least) least = streams[i].events;
    if (streams[i].events > most) most = streams[i].events;
  }
  qsort(samples, sampled, sizeof *samples, by_value);
  printf("%lu %lu %d %u %u %u %u %u %u\n", events, bytes, closed_streams, least, most, quantile(0.5), quantile(0.9),
         quantile(0.99), quantile(1.0));
}

static void reset(void) {
  events = bytes = wanted = 0;
  sampled = 0;
  for (int i = 0; i < connections; i++) streams[i].events = 0;
  reset_at = now();
  puts("reset");
}

static void obey(void) {
  static char line[256];
  if (!fgets(line, sizeof line, stdin)) exit(0);
  if (!strncmp(line, "wait ", 5)) wanted = strtoull(line + 5, NULL, 10), reached();
  else if (!strncmp(line, "reset", 5)) reset();
  else if (!strncmp(line, "stats", 5)) print_stats();
  fflush(stdout);
}

int main(int argc, char **argv) {
  if (argc < 4) return fprintf(stderr, "usage: sink PORT CONNECTIONS PATH [stalled | naps]\n"), 2;
  connections = atoi(argv[2]);
  stalled = argc > 4 && !strcmp(argv[4], "stalled");
  naps = argc > 4 && !strcmp(argv[4], "naps");
  server = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[1]))};
  inet_pton(AF_INET, "127.0.0.1", &server.sin_addr);
  request_size = (size_t)snprintf(request, sizeof request,
      "GET %s HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: text/event-stream\r\n\r\n", argv[3]);
  streams = calloc((size_t)connections, sizeof *streams);
  samples = malloc(SAMPLES * sizeof *samples);
  setvbuf(stdin, NULL, _IONBF, 0);
  poller = epoll_create1(0);
  struct epoll_event orders = {.events = EPOLLIN, .data.u32 = UINT32_MAX}, ready[512];
  epoll_ctl(poller, EPOLL_CTL_ADD, 0, &orders);
  reset_at = now();
  while (started < connections && started < CONNECTING_AT_ONCE) start_one();
  for (;;) {
    int n = epoll_wait(poller, ready, 512, naps ? 0 : -1);
    if (n == 0) nanosleep(&(struct timespec){.tv_nsec = NAP}, NULL);
    for (int i = 0; i < n; i++) {
      uint32_t number = ready[i].data.u32;
      if (number == UINT32_MAX) obey();
      else if (!streams[number].asked) ask(&streams[number], number);
      else take(&streams[number]);
    }
    reached();
  }
}
