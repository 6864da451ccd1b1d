// What `import Glibc` lacks: constants behind feature macros, variadic calls, newer system calls.
//
// This header must not define _GNU_SOURCE: some types of libc (fd_set) would then look different here
// and in Swift's own Glibc module, and whoever imports both gets an error. What needs the macro is in
// shim.c, behind a function or a constant.
#pragma once
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdint.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

extern const int lockstep_o_direct;

// open(2) with O_CLOEXEC added.
int lockstep_open(const char *path, int flags, unsigned mode);
// Size in bytes (BLKGETSIZE64) and logical sector size (BLKSSZGET) of a block device; -1 with errno.
int lockstep_device_size(int fd, uint64_t *size);
int lockstep_sector_size(int fd, int *size);
// pidfd_open(2) and pidfd_send_signal(2); -1 with errno.
int lockstep_pidfd_open(pid_t pid);
// gettid(2).
pid_t lockstep_thread_number(void);
// pidfd_open(2) of one thread (PIDFD_THREAD, Linux 6.9): readable when that thread has ended; -1 with errno.
int lockstep_pidfd_open_thread(pid_t tid);
int lockstep_pidfd_send_signal(int fd, int sig);
// renameat2(2) relative to the working directory.
int lockstep_rename_with_flags(const char *from, const char *to, unsigned flags);
// Who is at the other end of a connected Unix socket (SO_PEERCRED); -1 with errno.
int lockstep_peer_credentials(int fd, pid_t *pid, uid_t *uid, gid_t *gid);
// memfd_create(2) with close-on-exec; -1 with errno.
int lockstep_memory_file(const char *name);
// Names the calling thread; the kernel keeps 15 bytes.
void lockstep_name_thread(const char *name);
// The name of the calling thread, at most `size` bytes with the final zero; 16 are enough.
void lockstep_thread_name(char *name, size_t size);
// syslog(3) without a format.
void lockstep_system_log(int priority, const char *text);

// Locks of a whole file that belong to the open file description: they last until it is closed by its
// last holder (the end of a process among them), and can be asked about without being taken.
// 0, or -1 with errno (EAGAIN: somebody else has it).
int lockstep_try_lock(int fd);
int lockstep_unlock(int fd);
// 1 if another description holds the lock, 0 if none does, -1 with errno.
int lockstep_is_locked(int fd);
// An ioctl that no file system knows.
int lockstep_ioctl_unknown(int fd);
// fallocate(2); copy_file_range(2) at the files' positions. -1 with errno.
int lockstep_allocate(int fd, int mode, int64_t offset, int64_t length);
ssize_t lockstep_copy_range(int from, int to, size_t length);
extern const int lockstep_o_tmpfile;
// F_OFD_GETLK, F_OFD_SETLK, F_OFD_SETLKW.
extern const int lockstep_f_ofd_getlk, lockstep_f_ofd_setlk, lockstep_f_ofd_setlkw;
// unshare(2): from now on the calling thread has a table of descriptors of its own; -1 with errno.
int lockstep_unshare_descriptors(void);

// unshare(2): the calling thread has an umask and a current directory of its own; -1 with errno.
int lockstep_unshare_directory(void);
// The system call SYS_..., for what Glibc wraps (setresuid(2) of this one thread) or does not know. Its result, or
// -1 with errno.
long lockstep_system_call(long number, long a, long b, long c, long d, long e, long f);
// ioctl(2) with a number or an address as its argument.
int lockstep_ioctl(int fd, unsigned long request, long argument);
// fcntl(2) with a number as its argument.
int lockstep_fcntl(int fd, int command, long argument);

// posix_spawn_file_actions_addclosefrom_np(3): the new process has no descriptor from `lowest` on. 0 or an
// error number.
int lockstep_spawn_close_from(posix_spawn_file_actions_t *actions, int lowest);

// Loads and stores of memory that a file is mapped into, whose file system may be gone: -1 instead of the end
// of the process by SIGBUS. lockstep_catch_bus_errors once in the process, lockstep_guard_thread once in each
// thread that loads or stores; both -1 with errno.
int lockstep_catch_bus_errors(void);
int lockstep_guard_thread(void);
int lockstep_load_word(const uint64_t *from, uint64_t *value);
int lockstep_store_word(uint64_t *to, uint64_t value);
