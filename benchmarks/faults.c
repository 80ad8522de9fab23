/* Preloaded into a process, fails the n-th write, rename or fsync of a folder: ENOSPC, as from a full disk.
 *
 * Of a folder `out` are its files and those written beside it first, as `.out-5f3a/model.onnx`. Every library is met,
 * whatever language it is written in. `faults_arm(folder, n)` begins to count, n = 0 only counts; `faults_count()` says
 * how many there were.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static char folder[PATH_MAX], beside[PATH_MAX];
static atomic_long count, fails_at;

void faults_arm(const char *place, long n) {
    const char *name = strrchr(place, '/') + 1;
    snprintf(folder, sizeof folder, "%s", place);
    snprintf(beside, sizeof beside, "%.*s.%s", (int)(name - place), place, name);
    count = 0;
    fails_at = n;
}

long faults_count(void) { return count; }

static int below(const char *path) {
    return folder[0] && (strncmp(path, folder, strlen(folder)) == 0 || strncmp(path, beside, strlen(beside)) == 0);
}

static int of_folder(int file) {
    char link[32], path[PATH_MAX];
    if (!folder[0]) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return below(path);
}

static int fails(int counts) {
    if (!counts || atomic_fetch_add(&count, 1) + 1 != fails_at) return 0;
    errno = ENOSPC;
    return 1;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

ssize_t write(int file, const void *bytes, size_t size) {
    return fails(of_folder(file)) ? -1 : REAL(write)(file, bytes, size);
}
ssize_t writev(int file, const struct iovec *parts, int number) {
    return fails(of_folder(file)) ? -1 : REAL(writev)(file, parts, number);
}
ssize_t pwrite(int file, const void *bytes, size_t size, off_t place) {
    return fails(of_folder(file)) ? -1 : REAL(pwrite)(file, bytes, size, place);
}
ssize_t pwrite64(int file, const void *bytes, size_t size, off64_t place) {
    return fails(of_folder(file)) ? -1 : REAL(pwrite64)(file, bytes, size, place);
}
int fsync(int file) { return fails(of_folder(file)) ? -1 : REAL(fsync)(file); }
int fdatasync(int file) { return fails(of_folder(file)) ? -1 : REAL(fdatasync)(file); }
int rename(const char *from, const char *to) { return fails(below(from)) ? -1 : REAL(rename)(from, to); }
int renameat(int a, const char *from, int b, const char *to) {
    return fails(below(from)) ? -1 : REAL(renameat)(a, from, b, to);
}
