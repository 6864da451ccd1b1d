// The ping-pong: what no request to another node can beat, as a yardstick for the lock manager.
//
//   lockstep-ping-pong tcp|unix [--bytes N] [--count N]
//
// Two threads, each blocked in read(2) until the other has written: one message there, one back, over TCP
// on the loopback interface or over a Unix socket. No framing, no queue, no third thread. Prints one line:
//
//   {"transport": "tcp", "bytes": 64, "count": 20000, "nanoseconds": 500000000, "median": 14200, "p99": 60100}
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { LONGEST = 65536, WARM_UP = 1000 };

static size_t bytes = 64;
static size_t count = 20000;

static void fail(const char *what) {
    fprintf(stderr, "lockstep-ping-pong: cannot %s: %s\n", what, strerror(errno));
    exit(1);
}

static uint64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_nsec;
}

static bool read_all(int socket, char *buffer) {
    for (size_t done = 0; done < bytes;) {
        ssize_t got = read(socket, buffer + done, bytes - done);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) fail("read");
        if (got == 0) return false;
        done += (size_t)got;
    }
    return true;
}

static void write_all(int socket, const char *buffer) {
    for (size_t done = 0; done < bytes;) {
        ssize_t put = write(socket, buffer + done, bytes - done);
        if (put < 0 && errno == EINTR) continue;
        if (put < 0) fail("write");
        done += (size_t)put;
    }
}

static void *echo(void *argument) {
    int socket = *(int *)argument;
    static char buffer[LONGEST];
    while (read_all(socket, buffer)) write_all(socket, buffer);
    return NULL;
}

// Two ends of one connection on 127.0.0.1.
static void connect_tcp(int ends[2]) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (listener < 0 || bind(listener, (struct sockaddr *)&address, length) < 0 || listen(listener, 1) < 0
        || getsockname(listener, (struct sockaddr *)&address, &length) < 0)
        fail("listen on 127.0.0.1");
    ends[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (ends[0] < 0 || connect(ends[0], (struct sockaddr *)&address, length) < 0) fail("connect");
    ends[1] = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    if (ends[1] < 0) fail("accept");
    close(listener);
    int yes = 1;
    for (int end = 0; end < 2; end++)
        if (setsockopt(ends[end], IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes) < 0) fail("set TCP_NODELAY");
}

static int ascending(const void *left, const void *right) {
    uint64_t a = *(const uint64_t *)left, b = *(const uint64_t *)right;
    return a < b ? -1 : a > b;
}

static void usage(void) {
    fputs("usage: lockstep-ping-pong tcp|unix [--bytes N] [--count N]\n", stderr);
    exit(64);
}

static size_t number(const char *text, size_t most) {
    char *end;
    unsigned long value = text ? strtoul(text, &end, 10) : 0;
    if (!text || *end || value < 1 || value > most) usage();
    return value;
}

int main(int argc, char **argv) {
    if (argc < 2 || (strcmp(argv[1], "tcp") && strcmp(argv[1], "unix"))) usage();
    for (int at = 2; at < argc; at += 2) {
        if (!strcmp(argv[at], "--bytes")) bytes = number(argv[at + 1], LONGEST);
        else if (!strcmp(argv[at], "--count")) count = number(argv[at + 1], 100000000);
        else usage();
    }
    int ends[2];
    if (!strcmp(argv[1], "tcp")) connect_tcp(ends);
    else if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0) fail("make a pair of sockets");

    pthread_t thread;
    if ((errno = pthread_create(&thread, NULL, echo, &ends[1]))) fail("start a thread");
    static char buffer[LONGEST];
    uint64_t *samples = calloc(count, sizeof *samples);
    if (!samples) fail("allocate");
    uint64_t began = 0;
    for (size_t round = 0; round < count + WARM_UP; round++) {
        uint64_t start = now();
        if (round == WARM_UP) began = start;
        write_all(ends[0], buffer);
        if (!read_all(ends[0], buffer)) fail("hear the echo");
        if (round >= WARM_UP) samples[round - WARM_UP] = now() - start;
    }
    unsigned long long took = now() - began;
    shutdown(ends[0], SHUT_WR);
    pthread_join(thread, NULL);
    qsort(samples, count, sizeof *samples, ascending);
    printf("{\"transport\": \"%s\", \"bytes\": %zu, \"count\": %zu, \"nanoseconds\": %llu, "
           "\"median\": %llu, \"p99\": %llu}\n",
           argv[1], bytes, count, took, (unsigned long long)samples[(count - 1) / 2],
           (unsigned long long)samples[(count - 1) * 99 / 100]);
    return 0;
}
