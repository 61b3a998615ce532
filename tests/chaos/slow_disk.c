/* Writes to regular files take SLOW_DISK_US longer while the file SLOW_DISK_WHILE exists.

   Preloaded into a Kafka node: its log, index and snapshot writes are those of a slow disk, its
   sockets are as fast as ever. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static void wait_for_disk(int fd)
{
    struct stat about;
    const char *flag = getenv("SLOW_DISK_WHILE"), *us = getenv("SLOW_DISK_US");
    if (flag && us && fstat(fd, &about) == 0 && S_ISREG(about.st_mode) && access(flag, F_OK) == 0)
        usleep((useconds_t)atol(us));
}

#define SLOW(result, name, parameters, arguments)                        \
    result name parameters                                               \
    {                                                                    \
        static result(*next) parameters;                                 \
        if (!next)                                                       \
            next = (result(*) parameters)dlsym(RTLD_NEXT, #name);        \
        wait_for_disk(fd);                                               \
        return next arguments;                                           \
    }

SLOW(ssize_t, write, (int fd, const void *data, size_t size), (fd, data, size))
SLOW(ssize_t, writev, (int fd, const struct iovec *parts, int count), (fd, parts, count))
SLOW(ssize_t, pwrite64, (int fd, const void *data, size_t size, off64_t at), (fd, data, size, at))
SLOW(int, fsync, (int fd), (fd))
SLOW(int, fdatasync, (int fd), (fd))
