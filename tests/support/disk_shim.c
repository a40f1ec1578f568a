/* A disk that can be watched, and slowed: preloaded into a process, for the files below one folder.
 *
 * DISK_SHIM_FOLDER: that folder. DISK_SHIM_TRACE: a file outside of it that gets a record of each change, in order.
 * DISK_SHIM_FULL: while a file is there by this name, outside of the folder, the disk is full: of what is written the
 * first half gets there. DISK_SHIM_SYNC_MS: how long fsync and fdatasync take, which then wait for no disk of this
 * machine: its stalls would be measured too. See disk_shim.py for the records.
 */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define MOST_FILES 4096
#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

struct __attribute__((packed)) record {
    char kind;
    uint32_t thread;
    uint16_t path_bytes;
    uint64_t offset;
    uint32_t data_bytes;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char *path_of[MOST_FILES];
static const char *folder, *full;
static int trace = -1;
static int is_timed;
static long sync_ms;

__attribute__((constructor)) static void begin(void) {
    const char *to = getenv("DISK_SHIM_TRACE"), *timed = getenv("DISK_SHIM_SYNC_MS");
    folder = getenv("DISK_SHIM_FOLDER");
    full = getenv("DISK_SHIM_FULL");
    is_timed = !!timed;
    sync_ms = is_timed ? atol(timed) : 0;
    if (to) {
        trace = REAL(open)(to, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
        if (trace < 0) {
            perror("disk_shim: the trace can't be opened");
            abort();
        }
    }
}

static int is_watched(const char *path) {
    size_t length = folder ? strlen(folder) : 0;
    return length && !strncmp(path, folder, length) && (path[length] == '/' || !path[length]);
}

static const char *watched(int file) { return file >= 0 && file < MOST_FILES ? path_of[file] : NULL; }

/* With the lock held. */
static void note(char kind, const char *path, uint64_t offset, const void *data, size_t bytes) {
    struct record head = {kind, (uint32_t)gettid(), (uint16_t)strlen(path), offset, (uint32_t)bytes};
    struct iovec parts[] = {{&head, sizeof head}, {(void *)path, head.path_bytes}, {(void *)data, bytes}};
    ssize_t size = (ssize_t)(sizeof head + head.path_bytes + bytes);
    if (trace >= 0 && writev(trace, parts, bytes ? 3 : 2) != size) {
        perror("disk_shim: the trace can't be written");
        abort();
    }
}

static int is_full(void) { return full && !access(full, F_OK); }

static int opened(int (*real)(const char *, int, ...), const char *path, int flags, mode_t mode) {
    if (!is_watched(path))
        return real(path, flags, mode);
    pthread_mutex_lock(&lock);
    int is_new = (flags & O_CREAT) && access(path, F_OK);
    int file = real(path, flags, mode);
    if (file >= MOST_FILES) {
        fprintf(stderr, "disk_shim: too many files\n");
        abort();
    }
    if (file >= 0) {
        free(path_of[file]);
        path_of[file] = strdup(path);
        if (is_new)
            note('C', path, 0, NULL, 0);
        if (!is_new && (flags & O_TRUNC))
            note('T', path, 0, NULL, 0);
    }
    int error = errno;
    pthread_mutex_unlock(&lock);
    errno = error;
    return file;
}

#define OPEN(name)                                        \
    int name(const char *path, int flags, ...) {          \
        va_list rest;                                     \
        va_start(rest, flags);                            \
        mode_t mode = (mode_t)va_arg(rest, unsigned int); \
        va_end(rest);                                     \
        return opened(REAL(name), path, flags, mode);     \
    }
OPEN(open)
OPEN(open64)

#define WRITE_AT(name, offset_t)                                                   \
    ssize_t name(int file, const void *data, size_t bytes, offset_t offset) {      \
        if (!watched(file))                                                        \
            return REAL(name)(file, data, bytes, offset);                          \
        pthread_mutex_lock(&lock);                                                 \
        int lacks_room = is_full();                                                \
        ssize_t written = REAL(name)(file, data, lacks_room ? bytes / 2 : bytes, offset); \
        if (written > 0)                                                           \
            note('W', path_of[file], (uint64_t)offset, data, (size_t)written);     \
        int error = lacks_room ? ENOSPC : errno;                                   \
        pthread_mutex_unlock(&lock);                                               \
        errno = error;                                                             \
        return lacks_room ? -1 : written;                                          \
    }
WRITE_AT(pwrite, off_t)
WRITE_AT(pwrite64, off64_t)

ssize_t write(int file, const void *data, size_t bytes) {
    if (!watched(file))
        return REAL(write)(file, data, bytes);
    pthread_mutex_lock(&lock);
    ssize_t written = REAL(write)(file, data, bytes);
    off_t end = lseek(file, 0, SEEK_CUR);
    if (written > 0)
        note('W', path_of[file], (uint64_t)(end - written), data, (size_t)written);
    int error = errno;
    pthread_mutex_unlock(&lock);
    errno = error;
    return written;
}

#define TRUNCATE(name, offset_t)                            \
    int name(int file, offset_t size) {                     \
        if (!watched(file))                                 \
            return REAL(name)(file, size);                  \
        pthread_mutex_lock(&lock);                          \
        int result = REAL(name)(file, size);                \
        if (!result)                                        \
            note('T', path_of[file], (uint64_t)size, NULL, 0); \
        int error = errno;                                  \
        pthread_mutex_unlock(&lock);                        \
        errno = error;                                      \
        return result;                                      \
    }
TRUNCATE(ftruncate, off_t)
TRUNCATE(ftruncate64, off64_t)

/* What is written before it is recorded waits: it is not known to be on the disk after this. */
#define SYNC(name)                                                            \
    int name(int file) {                                                      \
        if (!watched(file))                                                   \
            return REAL(name)(file);                                          \
        struct timespec until;                                                \
        clock_gettime(CLOCK_MONOTONIC, &until);                               \
        until.tv_nsec += sync_ms * 1000000;                                   \
        until.tv_sec += until.tv_nsec / 1000000000;                           \
        until.tv_nsec %= 1000000000;                                          \
        pthread_mutex_lock(&lock);                                            \
        int result = is_timed ? 0 : REAL(name)(file);                         \
        if (!result)                                                          \
            note('S', path_of[file], 0, NULL, 0);                             \
        int error = errno;                                                    \
        pthread_mutex_unlock(&lock);                                          \
        if (is_timed)                                                         \
            clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);    \
        errno = error;                                                        \
        return result;                                                        \
    }
SYNC(fsync)
SYNC(fdatasync)

int unlink(const char *path) {
    if (!is_watched(path))
        return REAL(unlink)(path);
    pthread_mutex_lock(&lock);
    int result = REAL(unlink)(path);
    if (!result)
        note('U', path, 0, NULL, 0);
    int error = errno;
    pthread_mutex_unlock(&lock);
    errno = error;
    return result;
}

int close(int file) {
    if (!watched(file))
        return REAL(close)(file);
    pthread_mutex_lock(&lock);
    free(path_of[file]);
    path_of[file] = NULL;
    int result = REAL(close)(file);
    int error = errno;
    pthread_mutex_unlock(&lock);
    errno = error;
    return result;
}
