/* Makes the n-th open, write or fsync below a folder fail; preloaded by tests/faults/nth_call.py.

   gcc -shared -fPIC -O1 -o failing.so failing.c -ldl
*/
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/uio.h>
#include <unistd.h>

enum { OPEN = 1, WRITE = 2, SYNC = 4 };
static char folder[4096];
static long failing = 0, seen = 0;
static int number = 0, kinds = 0;
static char below[65536]; /* by file descriptor */

/* From now on count calls of these kinds below a folder; the one of that position (from 1, 0 for none) fails with this errno. */
void fault_arm(const char *where, int which, long position, int error) {
    strncpy(folder, where, sizeof folder - 1);
    kinds = which, failing = position, number = error, seen = 0;
    memset(below, 0, sizeof below);
}

long fault_count(void) { return seen; }

static int fails(int kind) {
    if (!(kinds & kind)) return 0;
    if (++seen != failing) return 0;
    errno = number;
    return 1;
}

static int inside(const char *path) { return kinds && path && strncmp(path, folder, strlen(folder)) == 0; }
static int tracked(int fd) { return kinds && fd >= 0 && fd < (int)sizeof below && below[fd]; }
static void track(int fd, int yes) {
    if (fd >= 0 && fd < (int)sizeof below) below[fd] = (char)yes;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

#define OPENS(name)                                             \
    int name(const char *path, int flags, ...) {                \
        va_list rest;                                           \
        va_start(rest, flags);                                  \
        mode_t mode = va_arg(rest, mode_t);                     \
        va_end(rest);                                           \
        if (inside(path) && fails(OPEN)) return -1;             \
        int fd = REAL(name)(path, flags, mode);                 \
        track(fd, inside(path));                                \
        return fd;                                              \
    }
OPENS(open)
OPENS(open64)

#define OPENS_AT(name)                                          \
    int name(int at, const char *path, int flags, ...) {        \
        va_list rest;                                           \
        va_start(rest, flags);                                  \
        mode_t mode = va_arg(rest, mode_t);                     \
        va_end(rest);                                           \
        if (inside(path) && fails(OPEN)) return -1;             \
        int fd = REAL(name)(at, path, flags, mode);             \
        track(fd, inside(path));                                \
        return fd;                                              \
    }
OPENS_AT(openat)
OPENS_AT(openat64)

#define OPENS_FILE(name)                                        \
    FILE *name(const char *path, const char *mode) {            \
        if (inside(path) && fails(OPEN)) return NULL;           \
        FILE *file = REAL(name)(path, mode);                    \
        if (file) track(fileno(file), inside(path));            \
        return file;                                            \
    }
OPENS_FILE(fopen)
OPENS_FILE(fopen64)

#define WRITES(type, name, parameters, ...)                     \
    type name parameters {                                      \
        if (tracked(fd) && fails(WRITE)) return -1;             \
        return REAL(name)(__VA_ARGS__);                         \
    }
WRITES(ssize_t, write, (int fd, const void *data, size_t size), fd, data, size)
WRITES(ssize_t, writev, (int fd, const struct iovec *parts, int count), fd, parts, count)
WRITES(ssize_t, pwrite, (int fd, const void *data, size_t size, off_t at), fd, data, size, at)
WRITES(ssize_t, pwrite64, (int fd, const void *data, size_t size, off64_t at), fd, data, size, at)
WRITES(ssize_t, sendfile, (int fd, int in, off_t *from, size_t size), fd, in, from, size)
WRITES(ssize_t, sendfile64, (int fd, int in, off64_t *from, size_t size), fd, in, from, size)
WRITES(ssize_t, copy_file_range, (int in, off64_t *from, int fd, off64_t *to, size_t size, unsigned flags), in, from, fd, to,
       size, flags)

size_t fwrite(const void *data, size_t size, size_t count, FILE *file) {
    if (tracked(fileno(file)) && fails(WRITE)) return 0;
    return REAL(fwrite)(data, size, count, file);
}

int fsync(int fd) { return tracked(fd) && fails(SYNC) ? -1 : REAL(fsync)(fd); }
int fdatasync(int fd) { return tracked(fd) && fails(SYNC) ? -1 : REAL(fdatasync)(fd); }

int close(int fd) {
    track(fd, 0);
    return REAL(close)(fd);
}
