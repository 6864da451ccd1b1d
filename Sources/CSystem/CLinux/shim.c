#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/fs.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "CLinux.h"

const int lockstep_o_direct = O_DIRECT;

int lockstep_open(const char *path, int flags, unsigned mode) {
    return open(path, flags | O_CLOEXEC, mode);
}

int lockstep_device_size(int fd, uint64_t *size) { return ioctl(fd, BLKGETSIZE64, size); }

int lockstep_sector_size(int fd, int *size) { return ioctl(fd, BLKSSZGET, size); }

int lockstep_pidfd_open(pid_t pid) { return (int)syscall(SYS_pidfd_open, pid, 0); }

pid_t lockstep_thread_number(void) { return (pid_t)syscall(SYS_gettid); }

// PIDFD_THREAD is O_EXCL; the headers of Debian 12 do not know it.
int lockstep_pidfd_open_thread(pid_t tid) { return (int)syscall(SYS_pidfd_open, tid, O_EXCL); }

int lockstep_pidfd_send_signal(int fd, int sig) {
    return (int)syscall(SYS_pidfd_send_signal, fd, sig, NULL, 0);
}

int lockstep_rename_with_flags(const char *from, const char *to, unsigned flags) {
    return (int)syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, flags);
}

int lockstep_peer_credentials(int fd, pid_t *pid, uid_t *uid, gid_t *gid) {
    struct ucred peer;
    socklen_t length = sizeof peer;
    int code = getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length);
    if (code == 0) {
        *pid = peer.pid;
        *uid = peer.uid;
        *gid = peer.gid;
    }
    return code;
}

int lockstep_memory_file(const char *name) { return memfd_create(name, MFD_CLOEXEC); }

void lockstep_name_thread(const char *name) { pthread_setname_np(pthread_self(), name); }

void lockstep_thread_name(char *name, size_t size) { pthread_getname_np(pthread_self(), name, size); }

void lockstep_system_log(int priority, const char *text) { syslog(priority, "%s", text); }

static int whole_file(int fd, int command, short type, struct flock *lock) {
    *lock = (struct flock){.l_type = type, .l_whence = SEEK_SET};
    return fcntl(fd, command, lock);
}

int lockstep_try_lock(int fd) {
    struct flock lock;
    return whole_file(fd, F_OFD_SETLK, F_WRLCK, &lock);
}

int lockstep_unlock(int fd) {
    struct flock lock;
    return whole_file(fd, F_OFD_SETLK, F_UNLCK, &lock);
}

int lockstep_is_locked(int fd) {
    struct flock lock;
    if (whole_file(fd, F_OFD_GETLK, F_WRLCK, &lock) != 0) return -1;
    return lock.l_type != F_UNLCK;
}

int lockstep_ioctl_unknown(int fd) { return ioctl(fd, _IO('L', 0x7f)); }

int lockstep_allocate(int fd, int mode, int64_t offset, int64_t length) {
    return fallocate(fd, mode, offset, length);
}

ssize_t lockstep_copy_range(int from, int to, size_t length) {
    return copy_file_range(from, NULL, to, NULL, length, 0);
}

const int lockstep_o_tmpfile = O_TMPFILE;
const int lockstep_f_ofd_getlk = F_OFD_GETLK;
const int lockstep_f_ofd_setlk = F_OFD_SETLK;
const int lockstep_f_ofd_setlkw = F_OFD_SETLKW;

int lockstep_unshare_descriptors(void) { return unshare(CLONE_FILES); }

int lockstep_unshare_directory(void) { return unshare(CLONE_FS); }

long lockstep_system_call(long number, long a, long b, long c, long d, long e, long f) {
    return syscall(number, a, b, c, d, e, f);
}

int lockstep_ioctl(int fd, unsigned long request, long argument) { return ioctl(fd, request, argument); }

int lockstep_fcntl(int fd, int command, long argument) { return fcntl(fd, command, argument); }

int lockstep_spawn_close_from(posix_spawn_file_actions_t *actions, int lowest) {
    return posix_spawn_file_actions_addclosefrom_np(actions, lowest);
}

static __thread sigjmp_buf bus_escape;
static __thread volatile sig_atomic_t bus_is_guarded;

static void on_bus_error(int number) {
    if (bus_is_guarded) {
        bus_is_guarded = 0;
        siglongjmp(bus_escape, 1);
    }
    // Not ours: once more, and this time it ends the process.
    signal(number, SIG_DFL);
}

int lockstep_catch_bus_errors(void) {
    struct sigaction action = {.sa_handler = on_bus_error};
    sigemptyset(&action.sa_mask);
    return sigaction(SIGBUS, &action, NULL);
}

int lockstep_guard_thread(void) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGBUS);
    errno = pthread_sigmask(SIG_UNBLOCK, &set, NULL);
    return errno == 0 ? 0 : -1;
}

int lockstep_load_word(const uint64_t *from, uint64_t *value) {
    if (sigsetjmp(bus_escape, 1) != 0) return -1;
    bus_is_guarded = 1;
    *value = __atomic_load_n(from, __ATOMIC_ACQUIRE);
    bus_is_guarded = 0;
    return 0;
}

int lockstep_store_word(uint64_t *to, uint64_t value) {
    if (sigsetjmp(bus_escape, 1) != 0) return -1;
    bus_is_guarded = 1;
    __atomic_store_n(to, value, __ATOMIC_RELEASE);
    bus_is_guarded = 0;
    return 0;
}
