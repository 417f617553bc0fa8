/* The limit: the least that one thread must do to answer these loads over TCP on Linux.
 *
 * One epoll instance, level-triggered, non-blocking sockets, a receive and an output buffer. A request is read only as
 * far as its answer depends on it: method, path, Content-Length, `Connection: close`. Answers are fixed bytes, save the id
 * in /users/{id} and the length in /upload. This is no server: it trusts its client, bounds nothing but its
 * buffers, and exists so that the distance of real servers from the floor can be told.
 *
 * usage: limit PORT VARIANT
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { RECEIVE = 65536, CARRY = 4096, OUT = 65536, EVENTS = 64, CHUNK = 1024, CHUNKS = 100, MEBIBYTE = 1024 * 1024 };

struct connection {
    int fd;
    int closing;      /* close once everything is written */
    int want_write;   /* EPOLLOUT is armed */
    size_t carried;   /* bytes of an incomplete head in `carry` */
    size_t body_left; /* bytes of a request body still to come */
    size_t body_size; /* and its whole length */
    const char *tail; /* what the socket did not take yet: static bytes, or `copy` */
    size_t tail_left;
    char *copy;
    char *carry;
};

static char receive[CARRY + RECEIVE];
static char out[OUT];
static size_t out_used;
static int epoll_fd;

static char *plaintext, *closing, *middleware, *json, *item, *resource, *not_found, *stream, *download;
static size_t plaintext_size, closing_size, middleware_size, json_size, item_size, resource_size, not_found_size, stream_size, download_size;
static int with_middleware;

static char *answer(const char *status, const char *type, const char *more, const char *body, size_t length, size_t *size) {
    char *bytes = malloc(512 + length);
    int head = sprintf(bytes, "HTTP/1.1 %s\r\nContent-Type: %s\r\n%sContent-Length: %zu\r\n\r\n", status, type, more, length);
    memcpy(bytes + head, body, length);
    *size = (size_t)head + length;
    return bytes;
}

static void prepare(void) {
    static const char *text = "text/plain; charset=utf-8", *media = "application/json";
    char *bulk = malloc(MEBIBYTE);
    plaintext = answer("200 OK", text, "", "Hello, World!", 13, &plaintext_size);
    closing = answer("200 OK", text, "Connection: close\r\n", "Hello, World!", 13, &closing_size);
    middleware = answer("200 OK", text, "x-middleware-0: 0\r\nx-middleware-1: 1\r\nx-middleware-2: 2\r\nx-middleware-3: 3\r\n",
                        "Hello, World!", 13, &middleware_size);
    json = answer("200 OK", media, "", "{\"message\":\"Hello, World!\"}", 27, &json_size);
    item = answer("200 OK", media, "", "{\"name\":\"Ada Lovelace\",\"age\":37}", 32, &item_size);
    resource = answer("200 OK", text, "", "resource 499", 12, &resource_size);
    not_found = answer("404 Not Found", text, "", "", 0, &not_found_size);
    memset(bulk, 'y', MEBIBYTE);
    download = answer("200 OK", "application/octet-stream", "", bulk, MEBIBYTE, &download_size);
    memset(bulk, 'x', CHUNK);
    stream = malloc(256 + CHUNKS * (CHUNK + 16));
    stream_size = (size_t)sprintf(stream, "HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\n"
                                          "Transfer-Encoding: chunked\r\n\r\n");
    for (int i = 0; i < CHUNKS; i++) {
        stream_size += (size_t)sprintf(stream + stream_size, "%x\r\n", CHUNK);
        memcpy(stream + stream_size, bulk, CHUNK);
        memcpy(stream + stream_size + CHUNK, "\r\n", 2);
        stream_size += CHUNK + 2;
    }
    memcpy(stream + stream_size, "0\r\n\r\n", 5);
    stream_size += 5;
    free(bulk);
}

static void shut(struct connection *c) {
    close(c->fd);
    free(c->copy);
    free(c->carry);
    free(c);
}

static void arm(struct connection *c, int want_write) {
    if (c->want_write != want_write) {
        /* While an answer waits for the socket, no further request is read. */
        struct epoll_event event = {.events = want_write ? EPOLLOUT : EPOLLIN, .data.ptr = c};
        epoll_ctl(epoll_fd, EPOLL_CTL_MOD, c->fd, &event);
        c->want_write = want_write;
    }
}

/* Returns -1 if the connection is dead. What is not taken stays as the tail, copied unless it is static. */
static int transmit(struct connection *c, const char *bytes, size_t size, int is_static) {
    ssize_t sent = send(c->fd, bytes, size, MSG_NOSIGNAL);
    if (sent < 0) {
        if (errno != EAGAIN) return -1;
        sent = 0;
    }
    if ((size_t)sent == size) return 0;
    c->tail_left = size - (size_t)sent;
    if (is_static) {
        c->tail = bytes + sent;
    } else {
        c->copy = malloc(c->tail_left);
        memcpy(c->copy, bytes + sent, c->tail_left);
        c->tail = c->copy;
    }
    arm(c, 1);
    return 0;
}

static int flush(struct connection *c) {
    size_t used = out_used;
    out_used = 0;
    return used ? transmit(c, out, used, 0) : 0;
}

/* Large answers go out by themselves, straight from where they lie; they are never pipelined by the loads. */
static int put(struct connection *c, const char *bytes, size_t size) {
    if (size > OUT / 4) return flush(c) < 0 ? -1 : transmit(c, bytes, size, 1);
    if (out_used + size > OUT && flush(c) < 0) return -1;
    memcpy(out + out_used, bytes, size);
    out_used += size;
    return 0;
}

static int put_number(struct connection *c, const char *type, const char *before, unsigned long number, const char *after) {
    char body[64], head[256];
    int length = sprintf(body, "%s%lu%s", before, number, after);
    int size = sprintf(head, "HTTP/1.1 200 OK\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n%s", type, length, body);
    return put(c, head, (size_t)size);
}

static const char *field(const char *head, const char *end, const char *name, size_t length) {
    for (const char *line = memchr(head, '\n', (size_t)(end - head)); line; line = memchr(line, '\n', (size_t)(end - line))) {
        line++;
        if ((size_t)(end - line) > length && !strncasecmp(line, name, length)) {
            line += length;
            while (*line == ' ') line++;
            return line;
        }
    }
    return NULL;
}

#define IS(literal) (length == sizeof(literal) - 1 && !memcmp(path, literal, sizeof(literal) - 1))

static int respond(struct connection *c, const char *head, const char *end) {
    int post = head[0] == 'P';
    const char *path = head + (post ? 5 : 4);
    const char *stop = memchr(path, ' ', (size_t)(end - path));
    if (!stop) return -1;
    size_t length = (size_t)(stop - path);
    if (post) {
        const char *value = field(head, end, "content-length:", 15);
        c->body_left = c->body_size = value ? strtoul(value, NULL, 10) : 0;
        if (IS("/items")) return put(c, item, item_size);
        if (IS("/upload")) return 0; /* answered when the body has come */
        return put(c, not_found, not_found_size);
    }
    const char *option = field(head, end, "connection:", 11);
    if (option && !strncasecmp(option, "close", 5)) {
        c->closing = 1;
        if (length == 1) return put(c, closing, closing_size);
    }
    if (length == 1) return with_middleware ? put(c, middleware, middleware_size) : put(c, plaintext, plaintext_size);
    if (IS("/json")) return put(c, json, json_size);
    if (length > 7 && !memcmp(path, "/users/", 7)) {
        char *rest;
        unsigned long id = strtoul(path + 7, &rest, 10);
        if (rest == stop) return put_number(c, "application/json", "{\"id\":", id, "}");
    }
    if (IS("/api/resource499/items")) return put(c, resource, resource_size);
    if (IS("/suspend/sleep") || IS("/suspend/future")) return put(c, plaintext, plaintext_size);
    if (IS("/stream")) return put(c, stream, stream_size);
    if (IS("/download")) return put(c, download, download_size);
    return put(c, not_found, not_found_size);
}

/* Returns -1 when the connection is to be dropped. */
static int feed(struct connection *c, char *at, char *end) {
    while (at < end && !c->tail_left) {
        if (c->body_left) {
            size_t take = (size_t)(end - at) < c->body_left ? (size_t)(end - at) : c->body_left;
            at += take;
            c->body_left -= take;
            /* /items was answered with its head; only an upload is longer than that and answered at its end */
            if (!c->body_left && c->body_size > 4096 &&
                put_number(c, "text/plain; charset=utf-8", "", c->body_size, "") < 0) return -1;
            continue;
        }
        char *stop = memmem(at, (size_t)(end - at), "\r\n\r\n", 4);
        if (!stop) break;
        if (respond(c, at, stop) < 0) return -1;
        at = stop + 4;
    }
    c->carried = (size_t)(end - at);
    if (c->carried > CARRY) return -1;
    if (c->carried) {
        if (!c->carry) c->carry = malloc(CARRY);
        memcpy(c->carry, at, c->carried);
    }
    return flush(c);
}

static void readable(struct connection *c) {
    if (c->carried) memcpy(receive, c->carry, c->carried);
    ssize_t got = recv(c->fd, receive + c->carried, RECEIVE, 0);
    if (got == 0 || (got < 0 && errno != EAGAIN)) {
        shut(c);
        return;
    }
    if (got < 0) return;
    if (feed(c, receive, receive + c->carried + got) < 0 || (c->closing && !c->tail_left)) shut(c);
}

static void writable(struct connection *c) {
    ssize_t sent = send(c->fd, c->tail, c->tail_left, MSG_NOSIGNAL);
    if (sent < 0) {
        if (errno != EAGAIN) shut(c);
        return;
    }
    c->tail += sent;
    c->tail_left -= (size_t)sent;
    if (c->tail_left) return;
    free(c->copy);
    c->copy = NULL;
    if (c->closing) shut(c);
    else arm(c, 0);
}

int main(int argc, char **argv) {
    int one = 1;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct epoll_event events[EVENTS], event = {.events = EPOLLIN, .data.ptr = NULL};
    if (argc < 2) return 2;
    address.sin_port = htons((unsigned short)atoi(argv[1]));
    with_middleware = argc > 2 && !strcmp(argv[2], "middleware");
    prepare();
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) < 0 || listen(listener, 4096) < 0) {
        perror("listen");
        return 1;
    }
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listener, &event);
    for (;;) {
        int count = epoll_wait(epoll_fd, events, EVENTS, -1);
        for (int i = 0; i < count; i++) {
            struct connection *c = events[i].data.ptr;
            if (c) {
                if (events[i].events & EPOLLOUT) writable(c);
                else readable(c);
                continue;
            }
            int fd;
            while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
                c = calloc(1, sizeof *c);
                c->fd = fd;
                setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
                event = (struct epoll_event){.events = EPOLLIN, .data.ptr = c};
                epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event);
            }
        }
    }
}
