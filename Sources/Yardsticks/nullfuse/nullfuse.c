// lockstep-null-fuse DIR: a FUSE file system that does as little as one can. Names and attributes live in
// a hash table in memory, the bytes of all files in one ring of 4 MiB (so that every byte is copied, as it
// must be, but nothing is kept). The kernel may cache everything for ever. What a file system on FUSE
// costs beyond this is its own doing. For measuring only: it loses everything when it ends.
//
// Stays in the foreground; ends when it is unmounted or told to (SIGINT, SIGTERM).

#define FUSE_USE_VERSION 314
#include <errno.h>
#include <fuse_lowlevel.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { RING = 4 << 20, BUCKETS = 1 << 18, WRITE_SIZE = 1 << 20 };

struct entry {
    struct entry *next; // in its bucket
    fuse_ino_t parent, inode;
    size_t slot; // in its directory's list
    char name[];
};

struct node {
    struct stat attributes;
    struct entry **list; // of a directory; removed entries leave a hole
    size_t used, room;
};

static struct node *nodes;
static size_t node_count, node_room;
static struct entry *buckets[BUCKETS];
static char ring[RING + WRITE_SIZE];
static pthread_mutex_t latch = PTHREAD_MUTEX_INITIALIZER;
static const double for_ever = 86400;

static struct entry **bucket(fuse_ino_t parent, const char *name) {
    unsigned long hash = 1469598103934665603ul ^ parent;
    for (; *name; name++) hash = (hash ^ (unsigned char)*name) * 1099511628211ul;
    return &buckets[(hash ^ hash >> 29) % BUCKETS];
}

static struct entry **find(fuse_ino_t parent, const char *name) {
    struct entry **at = bucket(parent, name);
    while (*at && ((*at)->parent != parent || strcmp((*at)->name, name) != 0)) at = &(*at)->next;
    return at;
}

static void *grown(void *old, size_t *room, size_t size) {
    *room = *room ? *room * 2 : 64;
    void *fresh = realloc(old, *room * size);
    if (!fresh) {
        fputs("lockstep-null-fuse: out of memory\n", stderr);
        exit(1);
    }
    return fresh;
}

static fuse_ino_t add_node(mode_t mode, const struct fuse_ctx *who) {
    if (node_count == node_room) nodes = grown(nodes, &node_room, sizeof *nodes);
    struct node *node = &nodes[node_count];
    memset(node, 0, sizeof *node);
    node->attributes.st_ino = node_count;
    node->attributes.st_mode = mode;
    node->attributes.st_nlink = S_ISDIR(mode) ? 2 : 1;
    node->attributes.st_blksize = 4096;
    if (who) {
        node->attributes.st_uid = who->uid;
        node->attributes.st_gid = who->gid;
    } else {
        node->attributes.st_uid = getuid();
        node->attributes.st_gid = getgid();
    }
    clock_gettime(CLOCK_REALTIME, &node->attributes.st_mtim);
    node->attributes.st_ctim = node->attributes.st_atim = node->attributes.st_mtim;
    return node_count++;
}

static void touch(fuse_ino_t directory) {
    struct stat *attributes = &nodes[directory].attributes;
    clock_gettime(CLOCK_REALTIME, &attributes->st_mtim);
    attributes->st_ctim = attributes->st_mtim;
}

static struct fuse_entry_param reply_of(fuse_ino_t inode) {
    struct fuse_entry_param reply = {
        .ino = inode, .attr = nodes[inode].attributes, .attr_timeout = for_ever,
        .entry_timeout = for_ever};
    return reply;
}

static void on_init(void *data, struct fuse_conn_info *connection) {
    (void)data;
    connection->max_write = WRITE_SIZE;
    connection->want &= ~FUSE_CAP_AUTO_INVAL_DATA;
    if (connection->capable & FUSE_CAP_EXPLICIT_INVAL_DATA)
        connection->want |= FUSE_CAP_EXPLICIT_INVAL_DATA;
}

static void on_lookup(fuse_req_t request, fuse_ino_t parent, const char *name) {
    pthread_mutex_lock(&latch);
    struct entry *entry = *find(parent, name);
    struct fuse_entry_param reply = {.entry_timeout = for_ever};
    if (entry) reply = reply_of(entry->inode);
    pthread_mutex_unlock(&latch);
    fuse_reply_entry(request, &reply);
}

static void on_getattr(fuse_req_t request, fuse_ino_t inode, struct fuse_file_info *file) {
    (void)file;
    pthread_mutex_lock(&latch);
    struct stat attributes = nodes[inode].attributes;
    pthread_mutex_unlock(&latch);
    fuse_reply_attr(request, &attributes, for_ever);
}

static void on_setattr(
    fuse_req_t request, fuse_ino_t inode, struct stat *wanted, int what,
    struct fuse_file_info *file) {
    (void)file;
    pthread_mutex_lock(&latch);
    struct stat *attributes = &nodes[inode].attributes;
    if (what & FUSE_SET_ATTR_SIZE) attributes->st_size = wanted->st_size;
    if (what & FUSE_SET_ATTR_MODE)
        attributes->st_mode = (attributes->st_mode & S_IFMT) | (wanted->st_mode & 07777);
    if (what & FUSE_SET_ATTR_UID) attributes->st_uid = wanted->st_uid;
    if (what & FUSE_SET_ATTR_GID) attributes->st_gid = wanted->st_gid;
    if (what & FUSE_SET_ATTR_MTIME) attributes->st_mtim = wanted->st_mtim;
    struct stat now = *attributes;
    pthread_mutex_unlock(&latch);
    fuse_reply_attr(request, &now, for_ever);
}

// Makes a name; 0, or an errno.
static int make(
    fuse_req_t request, fuse_ino_t parent, const char *name, mode_t mode,
    struct fuse_entry_param *reply) {
    int code = EEXIST;
    pthread_mutex_lock(&latch);
    if (!*find(parent, name)) {
        struct entry *entry = malloc(sizeof *entry + strlen(name) + 1);
        code = entry ? 0 : ENOMEM;
        if (entry) {
            strcpy(entry->name, name);
            entry->parent = parent;
            entry->inode = add_node(mode, fuse_req_ctx(request));
            struct entry **head = bucket(parent, name);
            entry->next = *head;
            *head = entry;
            struct node *directory = &nodes[parent];
            if (directory->used == directory->room)
                directory->list = grown(directory->list, &directory->room, sizeof *directory->list);
            entry->slot = directory->used++;
            directory->list[entry->slot] = entry;
            touch(parent);
            *reply = reply_of(entry->inode);
        }
    }
    pthread_mutex_unlock(&latch);
    return code;
}

static void on_mkdir(fuse_req_t request, fuse_ino_t parent, const char *name, mode_t mode) {
    struct fuse_entry_param reply;
    int code = make(request, parent, name, S_IFDIR | mode, &reply);
    if (code) fuse_reply_err(request, code);
    else fuse_reply_entry(request, &reply);
}

static void on_create(
    fuse_req_t request, fuse_ino_t parent, const char *name, mode_t mode,
    struct fuse_file_info *file) {
    struct fuse_entry_param reply;
    int code = make(request, parent, name, S_IFREG | mode, &reply);
    file->keep_cache = 1;
    if (code) fuse_reply_err(request, code);
    else fuse_reply_create(request, &reply, file);
}

static void on_unlink(fuse_req_t request, fuse_ino_t parent, const char *name) {
    pthread_mutex_lock(&latch);
    struct entry **at = find(parent, name), *entry = *at;
    if (entry) {
        *at = entry->next;
        nodes[parent].list[entry->slot] = NULL;
        nodes[entry->inode].attributes.st_nlink = 0;
        touch(parent);
    }
    pthread_mutex_unlock(&latch);
    fuse_reply_err(request, entry ? 0 : ENOENT);
    free(entry);
}

static void on_open(fuse_req_t request, fuse_ino_t inode, struct fuse_file_info *file) {
    (void)inode;
    file->keep_cache = 1;
    fuse_reply_open(request, file);
}

static void on_opendir(fuse_req_t request, fuse_ino_t inode, struct fuse_file_info *file) {
    (void)inode;
    file->keep_cache = 1;
    file->cache_readdir = 1;
    fuse_reply_open(request, file);
}

static void on_read(
    fuse_req_t request, fuse_ino_t inode, size_t size, off_t offset, struct fuse_file_info *file) {
    (void)file;
    pthread_mutex_lock(&latch);
    off_t end = nodes[inode].attributes.st_size;
    pthread_mutex_unlock(&latch);
    if (offset >= end) size = 0;
    else if ((off_t)size > end - offset) size = end - offset;
    if (size > WRITE_SIZE) size = WRITE_SIZE;
    fuse_reply_buf(request, ring + offset % RING, size);
}

static void on_write(
    fuse_req_t request, fuse_ino_t inode, const char *bytes, size_t size, off_t offset,
    struct fuse_file_info *file) {
    (void)file;
    memcpy(ring + offset % RING, bytes, size > WRITE_SIZE ? WRITE_SIZE : size);
    pthread_mutex_lock(&latch);
    struct stat *attributes = &nodes[inode].attributes;
    if (attributes->st_size < offset + (off_t)size) attributes->st_size = offset + size;
    touch(inode);
    pthread_mutex_unlock(&latch);
    fuse_reply_write(request, size);
}

static void on_readdir(
    fuse_req_t request, fuse_ino_t inode, size_t size, off_t offset, struct fuse_file_info *file) {
    (void)file;
    char *buffer = malloc(size);
    size_t used = 0;
    if (!buffer) {
        fuse_reply_err(request, ENOMEM);
        return;
    }
    pthread_mutex_lock(&latch);
    struct node *directory = &nodes[inode];
    for (size_t at = offset; at < directory->used + 2; at++) {
        struct entry *entry = at < 2 ? NULL : directory->list[at - 2];
        if (at >= 2 && !entry) continue;
        const char *name = at == 0 ? "." : at == 1 ? ".." : entry->name;
        struct stat *attributes = &nodes[entry ? entry->inode : inode].attributes;
        size_t length = fuse_add_direntry(
            request, buffer + used, size - used, name, attributes, (off_t)at + 1);
        if (length > size - used) break;
        used += length;
    }
    pthread_mutex_unlock(&latch);
    fuse_reply_buf(request, buffer, used);
    free(buffer);
}

static void on_fsync(fuse_req_t request, fuse_ino_t inode, int only, struct fuse_file_info *file) {
    (void)inode, (void)only, (void)file;
    fuse_reply_err(request, 0);
}

static const struct fuse_lowlevel_ops operations = {
    .init = on_init, .lookup = on_lookup, .getattr = on_getattr, .setattr = on_setattr,
    .mkdir = on_mkdir, .create = on_create, .unlink = on_unlink, .rmdir = on_unlink,
    .open = on_open, .opendir = on_opendir, .read = on_read, .write = on_write,
    .readdir = on_readdir, .fsync = on_fsync,
};

int main(int count, char **words) {
    if (count != 2) {
        fprintf(stderr, "usage: %s DIRECTORY\n", words[0]);
        return 16;
    }
    add_node(0, NULL); // number 0 is nobody's
    add_node(S_IFDIR | 0755, NULL);
    char *line[] = {words[0], "-ofsname=null,subtype=lockstep-null,default_permissions"};
    struct fuse_args arguments = FUSE_ARGS_INIT(2, line);
    struct fuse_session *session =
        fuse_session_new(&arguments, &operations, sizeof operations, NULL);
    int code = 1;
    if (session && fuse_set_signal_handlers(session) == 0) {
        if (fuse_session_mount(session, words[1]) == 0) {
            struct fuse_loop_config *loop = fuse_loop_cfg_create();
            code = fuse_session_loop_mt(session, loop) < 0;
            fuse_loop_cfg_destroy(loop);
            fuse_session_unmount(session);
        }
        fuse_remove_signal_handlers(session);
    }
    if (session) fuse_session_destroy(session);
    return code;
}
