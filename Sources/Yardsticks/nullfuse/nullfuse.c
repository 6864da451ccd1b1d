// The null FUSE daemon: the least a file system in user space can do, as a yardstick for the real one.
//
//   lockstep-null-fuse DIR [--foreground]
//
// Everything is in memory and nothing is locked between nodes: what it costs is the kernel's FUSE, libfuse
// and a hash table. It takes the same cache flags as the real daemon (names, attributes, pages and listings
// are kept without limit; PARALLEL_DIROPS and HANDLE_KILLPRIV_V2 are on), so that both are asked the same
// questions. It ends when DIR is unmounted, or at SIGTERM.
//
// One mutex guards the tree; each file's data has a mutex of its own. Names are in one hash table keyed by
// parent and name, and in a list per directory in the order of their making, which is what readdir walks.
#define _GNU_SOURCE
#define FUSE_USE_VERSION 314
#include <errno.h>
#include <fuse_lowlevel.h>
#include <linux/fuse.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { CHUNK = 1 << 20, MOST_PIECES = 4 };
static const double FOREVER = 1e9;

struct node;

struct name {
    struct name *next_in_bucket;
    struct name *previous, *next;  // of the directory, in the order of `cookie`
    struct node *parent, *node;
    uint64_t cookie;
    uint32_t hash;
    uint16_t length;
    char text[];
};

struct node {
    uint64_t number;  // address: what the kernel calls the inode
    struct stat attributes;
    uint64_t references;
    char *target;
    struct name *first, *last;
    uint64_t last_cookie;
    struct node *parent;
    pthread_mutex_t data;
    char **chunks;
    size_t chunk_count;
};

static pthread_mutex_t tree = PTHREAD_MUTEX_INITIALIZER;
static struct node *root;
static struct name **buckets;
static size_t bucket_count = 1 << 16, name_count;
static uint64_t next_number = 2;
static char *zeros;

// ---- the tree, under `tree` ----

static struct node *node_of(fuse_ino_t ino) {
    return ino == FUSE_ROOT_ID ? root : (struct node *)(uintptr_t)ino;
}

static uint32_t hash_of(const struct node *parent, const char *text, size_t length) {
    uint64_t h = parent->number * 0x9e3779b97f4a7c15u;
    for (size_t i = 0; i < length; i++) h = (h ^ (unsigned char)text[i]) * 0x100000001b3u;
    return (uint32_t)(h >> 32) ^ (uint32_t)h;
}

static struct name *find(const struct node *parent, const char *text) {
    size_t length = strlen(text);
    uint32_t hash = hash_of(parent, text, length);
    struct name *at = buckets[hash & (bucket_count - 1)];
    while (at && !(at->hash == hash && at->parent == parent && at->length == length &&
                   memcmp(at->text, text, length) == 0))
        at = at->next_in_bucket;
    return at;
}

static void grow_table(void) {
    size_t count = bucket_count * 2;
    struct name **larger = calloc(count, sizeof *larger);
    if (!larger) return;  // it only gets slower
    for (size_t i = 0; i < bucket_count; i++) {
        while (buckets[i]) {
            struct name *at = buckets[i];
            buckets[i] = at->next_in_bucket;
            at->next_in_bucket = larger[at->hash & (count - 1)];
            larger[at->hash & (count - 1)] = at;
        }
    }
    free(buckets);
    buckets = larger;
    bucket_count = count;
}

static void touch(struct node *node) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    struct timespec *modified = &node->attributes.st_mtim;
    // Strictly later: the kernel's cache of listings relies on it.
    if (now.tv_sec < modified->tv_sec ||
        (now.tv_sec == modified->tv_sec && now.tv_nsec <= modified->tv_nsec)) {
        now = *modified;
        if (++now.tv_nsec == 1000000000) now.tv_nsec = 0, now.tv_sec++;
    }
    *modified = node->attributes.st_ctim = now;
}

static int add_name(struct node *parent, const char *text, struct node *node) {
    size_t length = strlen(text);
    if (length > 255) return ENAMETOOLONG;
    struct name *made = malloc(sizeof *made + length + 1);
    if (!made) return ENOMEM;
    if (name_count++ > bucket_count) grow_table();
    made->parent = parent;
    made->node = node;
    made->cookie = ++parent->last_cookie;
    made->hash = hash_of(parent, text, length);
    made->length = (uint16_t)length;
    memcpy(made->text, text, length + 1);
    made->next_in_bucket = buckets[made->hash & (bucket_count - 1)];
    buckets[made->hash & (bucket_count - 1)] = made;
    made->previous = parent->last;
    made->next = NULL;
    if (parent->last) parent->last->next = made; else parent->first = made;
    parent->last = made;
    if (S_ISDIR(node->attributes.st_mode)) {
        node->parent = parent;
        parent->attributes.st_nlink++;
    }
    touch(parent);
    return 0;
}

static void remove_name(struct name *name) {
    struct name **at = &buckets[name->hash & (bucket_count - 1)];
    while (*at != name) at = &(*at)->next_in_bucket;
    *at = name->next_in_bucket;
    struct node *parent = name->parent;
    if (name->previous) name->previous->next = name->next; else parent->first = name->next;
    if (name->next) name->next->previous = name->previous; else parent->last = name->previous;
    if (S_ISDIR(name->node->attributes.st_mode)) parent->attributes.st_nlink--;
    touch(parent);
    name_count--;
    free(name);
}

static struct node *make_node(mode_t mode, dev_t device, const struct fuse_ctx *caller) {
    struct node *made = calloc(1, sizeof *made);
    if (!made) return NULL;
    made->number = next_number++;
    made->last_cookie = 2;  // 1 and 2 are "." and ".."
    pthread_mutex_init(&made->data, NULL);
    struct stat *st = &made->attributes;
    st->st_ino = made->number;
    st->st_mode = mode;
    st->st_rdev = device;
    st->st_nlink = S_ISDIR(mode) ? 2 : 1;
    st->st_uid = caller ? caller->uid : getuid();
    st->st_gid = caller ? caller->gid : getgid();
    st->st_blksize = 4096;
    touch(made);
    st->st_atim = st->st_mtim;
    return made;
}

static void free_if_gone(struct node *node) {
    bool has_name = S_ISDIR(node->attributes.st_mode) ? node->parent != NULL
                                                      : node->attributes.st_nlink > 0;
    if (node == root || node->references > 0 || has_name) return;
    for (size_t i = 0; i < node->chunk_count; i++) free(node->chunks[i]);
    free(node->chunks);
    free(node->target);
    pthread_mutex_destroy(&node->data);
    free(node);
}

static void drop_link(struct node *node) {
    if (S_ISDIR(node->attributes.st_mode)) {
        node->attributes.st_nlink = 0;
        node->parent = NULL;
    } else {
        node->attributes.st_nlink--;
    }
    touch(node);
    free_if_gone(node);
}

static void fill_entry(struct fuse_entry_param *entry, struct node *node, double attributes) {
    memset(entry, 0, sizeof *entry);
    entry->ino = (fuse_ino_t)(uintptr_t)node;
    entry->generation = 1;
    entry->attr = node->attributes;
    entry->attr_timeout = attributes;
    entry->entry_timeout = FOREVER;
    node->references++;
}

static void forget_one(fuse_ino_t ino, uint64_t count) {
    struct node *node = node_of(ino);
    if (node == root) return;
    node->references -= count;
    free_if_gone(node);
}

// ---- names ----

static void do_lookup(fuse_req_t req, fuse_ino_t parent, const char *text) {
    struct fuse_entry_param entry = {.entry_timeout = FOREVER};
    pthread_mutex_lock(&tree);
    struct name *name = find(node_of(parent), text);
    if (name) fill_entry(&entry, name->node, FOREVER);
    pthread_mutex_unlock(&tree);
    fuse_reply_entry(req, &entry);  // inode 0: an absence that may be kept
}

static void do_forget(fuse_req_t req, fuse_ino_t ino, uint64_t count) {
    pthread_mutex_lock(&tree);
    forget_one(ino, count);
    pthread_mutex_unlock(&tree);
    fuse_reply_none(req);
}

static void do_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets) {
    pthread_mutex_lock(&tree);
    for (size_t i = 0; i < count; i++) forget_one(forgets[i].ino, forgets[i].nlookup);
    pthread_mutex_unlock(&tree);
    fuse_reply_none(req);
}

// Makes and enters a node; 0 or an error number.
static int make(fuse_req_t req, fuse_ino_t parent, const char *text, mode_t mode, dev_t device,
                const char *target, struct fuse_entry_param *entry) {
    pthread_mutex_lock(&tree);
    struct node *directory = node_of(parent);
    int failure = find(directory, text) ? EEXIST : 0;
    struct node *made = failure ? NULL : make_node(mode, device, fuse_req_ctx(req));
    if (!failure && !made) failure = ENOMEM;
    if (made && target) {
        made->target = strdup(target);
        made->attributes.st_size = (off_t)strlen(target);
    }
    if (!failure) failure = add_name(directory, text, made);
    if (failure && made) drop_link(made);
    if (!failure) fill_entry(entry, made, 0);
    pthread_mutex_unlock(&tree);
    return failure;
}

static void reply_made(fuse_req_t req, int failure, const struct fuse_entry_param *entry) {
    if (failure) fuse_reply_err(req, failure); else fuse_reply_entry(req, entry);
}

static void do_mknod(fuse_req_t req, fuse_ino_t parent, const char *text, mode_t mode, dev_t device) {
    struct fuse_entry_param entry;
    reply_made(req, make(req, parent, text, mode, device, NULL, &entry), &entry);
}

static void do_mkdir(fuse_req_t req, fuse_ino_t parent, const char *text, mode_t mode) {
    struct fuse_entry_param entry;
    reply_made(req, make(req, parent, text, (mode & 07777) | S_IFDIR, 0, NULL, &entry), &entry);
}

static void do_symlink(fuse_req_t req, const char *target, fuse_ino_t parent, const char *text) {
    struct fuse_entry_param entry;
    reply_made(req, make(req, parent, text, S_IFLNK | 0777, 0, target, &entry), &entry);
}

static void do_create(fuse_req_t req, fuse_ino_t parent, const char *text, mode_t mode,
                      struct fuse_file_info *fi) {
    struct fuse_entry_param entry;
    int failure = make(req, parent, text, (mode & 07777) | S_IFREG, 0, NULL, &entry);
    if (failure) {
        fuse_reply_err(req, failure);
        return;
    }
    fi->keep_cache = 1;
    fuse_reply_create(req, &entry, fi);
}

static void remove_entry(fuse_req_t req, fuse_ino_t parent, const char *text, bool directory) {
    int failure = 0;
    pthread_mutex_lock(&tree);
    struct name *name = find(node_of(parent), text);
    if (!name) failure = ENOENT;
    else if (directory && !S_ISDIR(name->node->attributes.st_mode)) failure = ENOTDIR;
    else if (directory && name->node->first) failure = ENOTEMPTY;
    else if (!directory && S_ISDIR(name->node->attributes.st_mode)) failure = EISDIR;
    else {
        struct node *node = name->node;
        remove_name(name);
        drop_link(node);
    }
    pthread_mutex_unlock(&tree);
    fuse_reply_err(req, failure);
}

static void do_unlink(fuse_req_t req, fuse_ino_t parent, const char *text) {
    remove_entry(req, parent, text, false);
}

static void do_rmdir(fuse_req_t req, fuse_ino_t parent, const char *text) {
    remove_entry(req, parent, text, true);
}

static void do_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t parent, const char *text) {
    struct fuse_entry_param entry;
    pthread_mutex_lock(&tree);
    struct node *node = node_of(ino);
    int failure = find(node_of(parent), text) ? EEXIST : add_name(node_of(parent), text, node);
    if (!failure) {
        node->attributes.st_nlink++;
        touch(node);
        fill_entry(&entry, node, 0);
    }
    pthread_mutex_unlock(&tree);
    reply_made(req, failure, &entry);
}

static int rename_in_tree(struct node *from, const char *old, struct node *to, const char *new,
                          unsigned flags) {
    struct name *source = find(from, old), *target = find(to, new);
    if (!source) return ENOENT;
    struct node *moved = source->node;
    if (flags & RENAME_EXCHANGE) {
        if (!target) return ENOENT;
        struct node *other = target->node;
        bool kinds_differ = S_ISDIR(moved->attributes.st_mode) != S_ISDIR(other->attributes.st_mode);
        if (kinds_differ && from != to) return ENOTSUP;  // would need link counts moved too
        source->node = other;
        target->node = moved;
        if (S_ISDIR(moved->attributes.st_mode)) moved->parent = to;
        if (S_ISDIR(other->attributes.st_mode)) other->parent = from;
        touch(from);
        touch(to);
        return 0;
    }
    if (target && (flags & RENAME_NOREPLACE)) return EEXIST;
    if (target && target->node == moved) return 0;
    if (target && target->node->first) return ENOTEMPTY;
    int failure = target ? 0 : add_name(to, new, moved);
    if (failure) return failure;
    if (target) {
        struct node *victim = target->node;
        if (S_ISDIR(moved->attributes.st_mode)) moved->parent = to;
        target->node = moved;
        touch(to);
        drop_link(victim);
    }
    remove_name(source);
    return 0;
}

static void do_rename(fuse_req_t req, fuse_ino_t parent, const char *old, fuse_ino_t new_parent,
                      const char *new, unsigned flags) {
    if (flags & ~(unsigned)(RENAME_EXCHANGE | RENAME_NOREPLACE)) {
        fuse_reply_err(req, EINVAL);
        return;
    }
    pthread_mutex_lock(&tree);
    int failure = rename_in_tree(node_of(parent), old, node_of(new_parent), new, flags);
    pthread_mutex_unlock(&tree);
    fuse_reply_err(req, failure);
}

static void do_readlink(fuse_req_t req, fuse_ino_t ino) {
    // Never changes, and the kernel holds a reference.
    fuse_reply_readlink(req, node_of(ino)->target);
}

// ---- attributes and data ----

static void do_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi) {
    (void)fi;
    struct stat st;
    pthread_mutex_lock(&tree);
    st = node_of(ino)->attributes;
    pthread_mutex_unlock(&tree);
    fuse_reply_attr(req, &st, FOREVER);
}

// Under `data`.
static void cut(struct node *node, uint64_t size) {
    size_t kept = (size + CHUNK - 1) / CHUNK;
    for (size_t i = kept; i < node->chunk_count; i++) {
        free(node->chunks[i]);
        node->chunks[i] = NULL;
    }
    if (size % CHUNK && kept <= node->chunk_count && kept > 0 && node->chunks[kept - 1])
        memset(node->chunks[kept - 1] + size % CHUNK, 0, CHUNK - size % CHUNK);
}

static void do_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *wish, int set,
                       struct fuse_file_info *fi) {
    (void)fi;
    struct node *node = node_of(ino);
    struct stat st, *to = &node->attributes;
    pthread_mutex_lock(&node->data);
    if (set & FUSE_SET_ATTR_SIZE) cut(node, (uint64_t)wish->st_size);
    pthread_mutex_lock(&tree);
    touch(node);
    if (set & FUSE_SET_ATTR_MODE) to->st_mode = (to->st_mode & S_IFMT) | (wish->st_mode & 07777);
    if (set & FUSE_SET_ATTR_UID) to->st_uid = wish->st_uid;
    if (set & FUSE_SET_ATTR_GID) to->st_gid = wish->st_gid;
    if (set & FUSE_SET_ATTR_SIZE) to->st_size = wish->st_size;
    if (set & FUSE_SET_ATTR_ATIME_NOW) to->st_atim = to->st_ctim;
    else if (set & FUSE_SET_ATTR_ATIME) to->st_atim = wish->st_atim;
    if (set & FUSE_SET_ATTR_MTIME_NOW) to->st_mtim = to->st_ctim;
    else if (set & FUSE_SET_ATTR_MTIME) to->st_mtim = wish->st_mtim;
    st = *to;
    pthread_mutex_unlock(&tree);
    pthread_mutex_unlock(&node->data);
    fuse_reply_attr(req, &st, FOREVER);
}

static void do_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi) {
    struct node *node = node_of(ino);
    if (fi->flags & O_TRUNC) {
        pthread_mutex_lock(&node->data);
        cut(node, 0);
        pthread_mutex_lock(&tree);
        node->attributes.st_size = 0;
        touch(node);
        pthread_mutex_unlock(&tree);
        pthread_mutex_unlock(&node->data);
    }
    fi->keep_cache = 1;
    fuse_reply_open(req, fi);
}

static void do_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset,
                    struct fuse_file_info *fi) {
    (void)fi;
    struct node *node = node_of(ino);
    struct iovec pieces[MOST_PIECES];
    int count = 0;
    pthread_mutex_lock(&node->data);
    pthread_mutex_lock(&tree);
    off_t end = node->attributes.st_size;
    pthread_mutex_unlock(&tree);
    if (offset >= end) size = 0;
    else if ((off_t)size > end - offset) size = (size_t)(end - offset);
    while (size > 0 && count < MOST_PIECES) {
        size_t index = (size_t)offset / CHUNK, within = (size_t)offset % CHUNK;
        size_t part = size < CHUNK - within ? size : CHUNK - within;
        char *chunk = index < node->chunk_count ? node->chunks[index] : NULL;
        pieces[count++] = (struct iovec){(chunk ? chunk : zeros) + within, part};
        offset += (off_t)part;
        size -= part;
    }
    fuse_reply_iov(req, pieces, count);
    pthread_mutex_unlock(&node->data);
}

// Under `data`. The chunk's memory, made if need be, or NULL.
static char *chunk_at(struct node *node, size_t index) {
    if (index >= node->chunk_count) {
        size_t count = node->chunk_count ? node->chunk_count * 2 : 4;
        if (count <= index) count = index + 1;
        char **larger = realloc(node->chunks, count * sizeof *larger);
        if (!larger) return NULL;
        memset(larger + node->chunk_count, 0, (count - node->chunk_count) * sizeof *larger);
        node->chunks = larger;
        node->chunk_count = count;
    }
    // calloc: pages of small files stay untouched beyond their end.
    if (!node->chunks[index]) node->chunks[index] = calloc(1, CHUNK);
    return node->chunks[index];
}

static void do_write(fuse_req_t req, fuse_ino_t ino, const char *bytes, size_t size, off_t offset,
                     struct fuse_file_info *fi) {
    struct node *node = node_of(ino);
    size_t done = 0;
    pthread_mutex_lock(&node->data);
    pthread_mutex_lock(&tree);
    if ((fi->flags & O_APPEND) && !fi->writepage) offset = node->attributes.st_size;
    pthread_mutex_unlock(&tree);
    while (done < size) {
        size_t index = (size_t)offset / CHUNK, within = (size_t)offset % CHUNK;
        size_t part = size - done < CHUNK - within ? size - done : CHUNK - within;
        char *chunk = chunk_at(node, index);
        if (!chunk) break;
        memcpy(chunk + within, bytes + done, part);
        offset += (off_t)part;
        done += part;
    }
    pthread_mutex_lock(&tree);
    if (offset > node->attributes.st_size) node->attributes.st_size = offset;
    node->attributes.st_blocks = (node->attributes.st_size + 511) / 512;
    touch(node);
    pthread_mutex_unlock(&tree);
    pthread_mutex_unlock(&node->data);
    if (done == 0 && size > 0) fuse_reply_err(req, ENOSPC); else fuse_reply_write(req, done);
}

static void do_nothing(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi) {
    (void)ino, (void)fi;
    fuse_reply_err(req, 0);
}

static void do_fsync(fuse_req_t req, fuse_ino_t ino, int data_only, struct fuse_file_info *fi) {
    (void)ino, (void)data_only, (void)fi;
    fuse_reply_err(req, 0);
}

// ---- directories ----

static void do_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi) {
    (void)ino;
    fi->keep_cache = fi->cache_readdir = 1;
    fi->fh = 0;
    fuse_reply_open(req, fi);
}

static void do_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t after,
                       struct fuse_file_info *fi) {
    (void)fi;
    char *area = malloc(size);
    if (!area) {
        fuse_reply_err(req, ENOMEM);
        return;
    }
    size_t used = 0;
    pthread_mutex_lock(&tree);
    struct node *node = node_of(ino);
    // The list is ordered by cookie: near its end it is shorter to come from behind.
    struct name *at = node->first;
    if (after > 2 && (uint64_t)after > node->last_cookie / 2) {
        at = node->last;
        while (at && at->previous && at->previous->cookie > (uint64_t)after) at = at->previous;
    }
    while (at && at->cookie <= (uint64_t)after) at = at->next;
    for (uint64_t dots = (uint64_t)after + 1; dots <= 2; dots++) {
        struct node *dot = dots == 1 || !node->parent ? node : node->parent;
        used += fuse_add_direntry(req, area + used, size - used, dots == 1 ? "." : "..",
                                  &dot->attributes, (off_t)dots);
    }
    for (; at; at = at->next) {
        size_t length = fuse_add_direntry(req, area + used, size - used, at->text,
                                          &at->node->attributes, (off_t)at->cookie);
        if (length > size - used) break;
        used += length;
    }
    pthread_mutex_unlock(&tree);
    fuse_reply_buf(req, area, used);
    free(area);
}

static void do_statfs(fuse_req_t req, fuse_ino_t ino) {
    (void)ino;
    struct statvfs st = {.f_bsize = 4096, .f_frsize = 4096, .f_blocks = 1 << 24, .f_bfree = 1 << 24,
                         .f_bavail = 1 << 24, .f_files = 1 << 24, .f_ffree = 1 << 24,
                         .f_namemax = 255};
    fuse_reply_statfs(req, &st);
}

static void do_init(void *user, struct fuse_conn_info *connection) {
    (void)user;
    connection->max_write = CHUNK;
    connection->max_background = 64;
    connection->want &= ~(unsigned)(FUSE_CAP_AUTO_INVAL_DATA | FUSE_CAP_READDIRPLUS |
                                    FUSE_CAP_READDIRPLUS_AUTO | FUSE_CAP_WRITEBACK_CACHE |
                                    FUSE_CAP_SPLICE_READ | FUSE_CAP_SPLICE_WRITE |
                                    FUSE_CAP_SPLICE_MOVE | FUSE_CAP_HANDLE_KILLPRIV);
    connection->want |= connection->capable & FUSE_CAP_EXPLICIT_INVAL_DATA;
    connection->want |= connection->capable & FUSE_CAP_CACHE_SYMLINKS;
}

static const struct fuse_lowlevel_ops operations = {
    .init = do_init, .lookup = do_lookup, .forget = do_forget, .forget_multi = do_forget_multi,
    .getattr = do_getattr, .setattr = do_setattr, .readlink = do_readlink, .mknod = do_mknod,
    .mkdir = do_mkdir, .unlink = do_unlink, .rmdir = do_rmdir, .symlink = do_symlink,
    .rename = do_rename, .link = do_link, .open = do_open, .create = do_create, .read = do_read,
    .write = do_write, .flush = do_nothing, .release = do_nothing, .fsync = do_fsync,
    .opendir = do_opendir, .readdir = do_readdir, .releasedir = do_nothing, .fsyncdir = do_fsync,
    .statfs = do_statfs,
};

// ---- INIT ----

// libfuse 3.14 never asks for PARALLEL_DIROPS and does not know HANDLE_KILLPRIV_V2. Its answer to INIT is
// caught in a socket, the flags are added, and the answer is given to the kernel.
static int answer_init(struct fuse_session *session) {
    int device = fuse_session_fd(session), pair[2], result = -1;
    struct fuse_buf buffer = {.mem = NULL};
    int kept = dup(device);
    if (kept < 0 || socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair) < 0) return -1;
    if (fuse_session_receive_buf(session, &buffer) <= 0 || dup2(pair[1], device) < 0) goto out;
    uint32_t offered = ((struct fuse_init_in *)((struct fuse_in_header *)buffer.mem + 1))->flags;
    fuse_session_process_buf(session, &buffer);
    struct {
        struct fuse_out_header header;
        struct fuse_init_out body;
    } reply;
    ssize_t length = read(pair[0], &reply, sizeof reply);
    if (dup2(kept, device) < 0 || length != (ssize_t)sizeof reply) goto out;
    reply.body.flags |= offered & (FUSE_PARALLEL_DIROPS | FUSE_HANDLE_KILLPRIV_V2);
    if (write(device, &reply, sizeof reply) == (ssize_t)sizeof reply) result = 0;
out:
    free(buffer.mem);
    close(pair[0]);
    close(pair[1]);
    close(kept);
    return result;
}

int main(int argc, char **argv) {
    bool foreground = argc == 3 && strcmp(argv[2], "--foreground") == 0;
    if (argc < 2 || argc > 3 || (argc == 3 && !foreground) || argv[1][0] == '-') {
        fprintf(stderr, "usage: lockstep-null-fuse DIR [--foreground]\n");
        return 2;
    }
    buckets = calloc(bucket_count, sizeof *buckets);
    zeros = calloc(1, CHUNK);
    root = make_node(S_IFDIR | 0755, 0, NULL);
    if (!buckets || !zeros || !root) {
        fprintf(stderr, "lockstep-null-fuse: no memory\n");
        return 1;
    }
    root->number = root->attributes.st_ino = FUSE_ROOT_ID;
    root->parent = root;
    char *words[] = {argv[0], "-o", "fsname=null,subtype=lockstep-null,default_permissions"};
    struct fuse_args arguments = FUSE_ARGS_INIT(3, words);
    struct fuse_session *session =
        fuse_session_new(&arguments, &operations, sizeof operations, NULL);
    if (!session || fuse_set_signal_handlers(session) != 0) return 1;
    char *path = realpath(argv[1], NULL);
    if (!path || fuse_session_mount(session, path) != 0) {
        fprintf(stderr, "lockstep-null-fuse: %s could not be mounted\n", argv[1]);
        return 1;
    }
    int status = 1;
    if (answer_init(session) == 0 && fuse_daemonize(foreground) == 0) {
        struct fuse_loop_config *config = fuse_loop_cfg_create();
        fuse_loop_cfg_set_idle_threads(config, 2);
        fuse_loop_cfg_set_max_threads(config, 4);
        status = fuse_session_loop_mt(session, config) == 0 ? 0 : 1;
        fuse_loop_cfg_destroy(config);
    } else {
        fprintf(stderr, "lockstep-null-fuse: the kernel refused INIT\n");
    }
    fuse_session_unmount(session);
    fuse_remove_signal_handlers(session);
    fuse_session_destroy(session);
    free(path);
    return status;
}
