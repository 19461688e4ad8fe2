// The floor of fan-out: takes connections, and sends each line of standard input to all of them in one bare loop.
//
// Answers any request with a head and ":ok"; a line is sent as one HTTP chunk that holds it and a blank line. Says
// "port N" first. Knows neither events nor ids, drops what a socket does not take, and says so at the end.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MOST = 65536, LINE = 1 << 20 };

static const char HEAD[] =
    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n5\r\n:ok\n\n\r\n";
static int sockets[MOST], open_sockets;
static char line[LINE], chunk[LINE + 64];
static size_t held;

static void send_to_all(const char *data, size_t size) {
  int head = sprintf(chunk, "%zx\r\n", size + 2);
  memcpy(chunk + head, data, size);
  memcpy(chunk + head + size, "\n\n\r\n", 4);
  size_t whole = (size_t)head + size + 4;
  for (int i = 0; i < open_sockets; i++)
    if (send(sockets[i], chunk, whole, MSG_NOSIGNAL | MSG_DONTWAIT) != (ssize_t)whole) fputs("not taken\n", stderr);
}

static void take_lines(void) {
  ssize_t size = read(0, line + held, LINE - held);
  if (size <= 0) exit(0);
  held += (size_t)size;
  char *start = line, *end;
  while ((end = memchr(start, '\n', held - (size_t)(start - line)))) {
    send_to_all(start, (size_t)(end - start));
    start = end + 1;
  }
  held -= (size_t)(start - line);
  memmove(line, start, held);
}

int main(void) {
  int listener = socket(AF_INET, SOCK_STREAM, 0), poller = epoll_create1(0);
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t length = sizeof address;
  if (bind(listener, (struct sockaddr *)&address, length) < 0 || listen(listener, 4096) < 0) return perror("listen"), 1;
  getsockname(listener, (struct sockaddr *)&address, &length);
  printf("port %d\n", ntohs(address.sin_port));
  fflush(stdout);
  struct epoll_event event = {.events = EPOLLIN, .data.fd = listener}, ready[256];
  epoll_ctl(poller, EPOLL_CTL_ADD, listener, &event);
  event.data.fd = 0;
  epoll_ctl(poller, EPOLL_CTL_ADD, 0, &event);
  for (;;) {
    int n = epoll_wait(poller, ready, 256, -1);
    for (int i = 0; i < n; i++) {
      int fd = ready[i].data.fd, one = 1;
      if (fd == 0) take_lines();
      else if (fd == listener) {
        event.data.fd = accept(listener, NULL, NULL);
        setsockopt(event.data.fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        epoll_ctl(poller, EPOLL_CTL_ADD, event.data.fd, &event);
      } else {
        char request[4096];
        if (read(fd, request, sizeof request) > 0 && open_sockets < MOST) sockets[open_sockets++] = fd;
        epoll_ctl(poller, EPOLL_CTL_DEL, fd, NULL);
        send(fd, HEAD, sizeof HEAD - 1, MSG_NOSIGNAL);
      }
    }
  }
}
