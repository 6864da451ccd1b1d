// libfuse3 for mounting (fusermount3, mount options), <linux/fuse.h> for the messages of /dev/fuse.
#pragma once
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#define FUSE_USE_VERSION 314
#include <fuse_lowlevel.h>
#include <linux/fuse.h>

// libfuse explains a failed mount on standard error only. These keep the last line instead, so that it
// can be reported once and in our words.
static inline char *lockstep_fuse_line(void) {
    static __thread char line[256];
    return line;
}

static inline void lockstep_fuse_keep_line(enum fuse_log_level level, const char *format, va_list list) {
    (void)level;
    vsnprintf(lockstep_fuse_line(), 256, format, list);
}

static inline void lockstep_fuse_start_keeping_lines(void) {
    lockstep_fuse_line()[0] = 0;
    fuse_set_log_func(lockstep_fuse_keep_line);
}

static inline const char *lockstep_fuse_last_line(void) { return lockstep_fuse_line(); }
