#include "CCorosync.h"

#include <corosync/cmap.h>
#include <corosync/corotypes.h>
#include <corosync/cpg.h>
#include <corosync/quorum.h>
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// The functions of the libraries, found once.
static struct {
    __typeof__(&cpg_model_initialize) cpg_model_initialize;
    __typeof__(&cpg_finalize) cpg_finalize;
    __typeof__(&cpg_fd_get) cpg_fd_get;
    __typeof__(&cpg_context_get) cpg_context_get;
    __typeof__(&cpg_dispatch) cpg_dispatch;
    __typeof__(&cpg_join) cpg_join;
    __typeof__(&cpg_leave) cpg_leave;
    __typeof__(&cpg_mcast_joined) cpg_mcast_joined;
    __typeof__(&cpg_local_get) cpg_local_get;
    __typeof__(&quorum_model_initialize) quorum_model_initialize;
    __typeof__(&quorum_finalize) quorum_finalize;
    __typeof__(&quorum_fd_get) quorum_fd_get;
    __typeof__(&quorum_context_get) quorum_context_get;
    __typeof__(&quorum_dispatch) quorum_dispatch;
    __typeof__(&quorum_trackstart) quorum_trackstart;
    __typeof__(&cmap_initialize) cmap_initialize;
    __typeof__(&cmap_finalize) cmap_finalize;
    __typeof__(&cmap_get_string) cmap_get_string;
    __typeof__(&cmap_get_uint32) cmap_get_uint32;
} library;

static pthread_mutex_t loading = PTHREAD_MUTEX_INITIALIZER;
static int is_loaded = 0;

#define FIND(handle, name)                                                                        \
    do {                                                                                           \
        library.name = (__typeof__(library.name))dlsym(handle, #name);                             \
        if (library.name == NULL) {                                                                \
            snprintf(problem, size, "%s is missing: corosync is too old", #name);                  \
            return -1;                                                                             \
        }                                                                                          \
    } while (0)

static void *open_library(const char *name, char *problem, size_t size) {
    void *handle = dlopen(name, RTLD_NOW | RTLD_LOCAL);
    if (handle == NULL) snprintf(problem, size, "%s", dlerror());
    return handle;
}

static int load(char *problem, size_t size) {
    void *cpg = open_library("libcpg.so.4", problem, size);
    if (cpg == NULL) return -1;
    void *quorum = open_library("libquorum.so.5", problem, size);
    if (quorum == NULL) return -1;
    void *cmap = open_library("libcmap.so.4", problem, size);
    if (cmap == NULL) return -1;
    FIND(cpg, cpg_model_initialize);
    FIND(cpg, cpg_finalize);
    FIND(cpg, cpg_fd_get);
    FIND(cpg, cpg_context_get);
    FIND(cpg, cpg_dispatch);
    FIND(cpg, cpg_join);
    FIND(cpg, cpg_leave);
    FIND(cpg, cpg_mcast_joined);
    FIND(cpg, cpg_local_get);
    FIND(quorum, quorum_model_initialize);
    FIND(quorum, quorum_finalize);
    FIND(quorum, quorum_fd_get);
    FIND(quorum, quorum_context_get);
    FIND(quorum, quorum_dispatch);
    FIND(quorum, quorum_trackstart);
    FIND(cmap, cmap_initialize);
    FIND(cmap, cmap_finalize);
    FIND(cmap, cmap_get_string);
    FIND(cmap, cmap_get_uint32);
    return 0;
}

int lockstep_corosync_load(char *problem, size_t size) {
    pthread_mutex_lock(&loading);
    int result = is_loaded ? 0 : load(problem, size);
    if (result == 0) is_loaded = 1;
    pthread_mutex_unlock(&loading);
    return result;
}

const char *lockstep_corosync_error(lockstep_group_result result) {
    switch (result) {
    case 0: return "no error";
    case 1: return "corosync is busy";
    case CS_ERR_LIBRARY: return "corosync does not answer: is it running?";
    case CS_ERR_VERSION: return "corosync is of another version";
    case CS_ERR_TIMEOUT: return "corosync took too long";
    case CS_ERR_BAD_HANDLE: return "the connection to corosync has ended";
    case CS_ERR_ACCESS: return "corosync does not admit this user";
    case CS_ERR_NOT_EXIST: return "not configured";
    case CS_ERR_NAME_TOO_LONG: return "the name is too long";
    case CS_ERR_NO_MEMORY: return "corosync is out of memory";
    case CS_ERR_SECURITY: return "corosync does not admit this process";
    default: return "error";
    }
}

static lockstep_group_result outcome(cs_error_t error) {
    if (error == CS_OK) return 0;
    if (error == CS_ERR_TRY_AGAIN || error == CS_ERR_QUEUE_FULL) return 1;
    return (lockstep_group_result)error;
}

struct lockstep_group {
    lockstep_group_client client;
    cpg_handle_t cpg;
    quorum_handle_t quorum;
};

static lockstep_group *of_cpg(cpg_handle_t handle) {
    void *context = NULL;
    return library.cpg_context_get(handle, &context) == CS_OK ? context : NULL;
}

static lockstep_group *of_quorum(quorum_handle_t handle) {
    const void *context = NULL;
    return library.quorum_context_get(handle, &context) == CS_OK ? (lockstep_group *)context : NULL;
}

static void delivered(
    cpg_handle_t handle,
    const struct cpg_name *name,
    uint32_t host,
    uint32_t process,
    void *bytes,
    size_t count
) {
    (void)name;
    lockstep_group *group = of_cpg(handle);
    if (group == NULL) return;
    lockstep_group_process sender = {host, process};
    group->client.delivered(group->client.context, sender, bytes, count);
}

static size_t copy(
    lockstep_group_process *to,
    const struct cpg_address *from,
    size_t count
) {
    if (count > CPG_MEMBERS_MAX) count = CPG_MEMBERS_MAX;
    for (size_t index = 0; index < count; index++) {
        to[index].host = from[index].nodeid;
        to[index].process = from[index].pid;
    }
    return count;
}

static void configured(
    cpg_handle_t handle,
    const struct cpg_name *name,
    const struct cpg_address *members,
    size_t member_count,
    const struct cpg_address *left,
    size_t left_count,
    const struct cpg_address *joined,
    size_t joined_count
) {
    (void)name;
    (void)left;
    (void)left_count;
    lockstep_group *group = of_cpg(handle);
    if (group == NULL) return;
    lockstep_group_process present[CPG_MEMBERS_MAX];
    lockstep_group_process come[CPG_MEMBERS_MAX];
    size_t present_count = copy(present, members, member_count);
    size_t come_count = copy(come, joined, joined_count);
    group->client.configured(group->client.context, present, present_count, come, come_count);
}

static void ring(
    cpg_handle_t handle,
    struct cpg_ring_id id,
    uint32_t count,
    const uint32_t *hosts
) {
    lockstep_group *group = of_cpg(handle);
    if (group == NULL) return;
    group->client.ring(group->client.context, id.nodeid, id.seq, hosts, count);
}

static void quorum_changed(
    quorum_handle_t handle,
    uint32_t is_quorate,
    struct quorum_ring_id id,
    uint32_t count,
    const uint32_t *hosts
) {
    (void)count;
    (void)hosts;
    lockstep_group *group = of_quorum(handle);
    if (group == NULL) return;
    group->client.quorum(group->client.context, id.nodeid, id.seq, is_quorate != 0);
}

static void nodes_changed(
    quorum_handle_t handle,
    struct quorum_ring_id id,
    uint32_t member_count,
    const uint32_t *members,
    uint32_t joined_count,
    const uint32_t *joined,
    uint32_t left_count,
    const uint32_t *left
) {
    // The groups' own service tells of the ring, in order with the messages.
    (void)handle, (void)id, (void)member_count, (void)members;
    (void)joined_count, (void)joined, (void)left_count, (void)left;
}

lockstep_group *lockstep_group_open(lockstep_group_client client, lockstep_group_result *result) {
    lockstep_group *group = calloc(1, sizeof *group);
    if (group == NULL) {
        *result = CS_ERR_NO_MEMORY;
        return NULL;
    }
    group->client = client;
    cpg_model_v1_data_t model = {
        .model = CPG_MODEL_V1,
        .cpg_deliver_fn = delivered,
        .cpg_confchg_fn = configured,
        .cpg_totem_confchg_fn = ring,
        .flags = CPG_MODEL_V1_DELIVER_INITIAL_TOTEM_CONF,
    };
    *result = outcome(
        library.cpg_model_initialize(&group->cpg, CPG_MODEL_V1, (cpg_model_data_t *)&model, group)
    );
    if (*result != 0) {
        free(group);
        return NULL;
    }
    quorum_model_v1_data_t quorum = {
        .model = QUORUM_MODEL_V1,
        .quorum_notify_fn = quorum_changed,
        .nodelist_notify_fn = nodes_changed,
    };
    uint32_t kind = QUORUM_FREE;
    *result = outcome(
        library.quorum_model_initialize(
            &group->quorum,
            QUORUM_MODEL_V1,
            (quorum_model_data_t *)&quorum,
            &kind,
            group
        )
    );
    if (*result == 0 && kind != QUORUM_SET) {
        library.quorum_finalize(group->quorum);
        *result = CS_ERR_NOT_EXIST;
    }
    if (*result != 0) {
        library.cpg_finalize(group->cpg);
        free(group);
        return NULL;
    }
    return group;
}

int lockstep_group_descriptors(lockstep_group *group, int descriptors[2]) {
    if (library.cpg_fd_get(group->cpg, &descriptors[0]) != CS_OK) return -1;
    if (library.quorum_fd_get(group->quorum, &descriptors[1]) != CS_OK) return -1;
    return 0;
}

lockstep_group_result lockstep_group_host(lockstep_group *group, uint32_t *host) {
    unsigned int number = 0;
    lockstep_group_result result = outcome(library.cpg_local_get(group->cpg, &number));
    *host = number;
    return result;
}

static int name_of(const char *text, struct cpg_name *name) {
    size_t length = strlen(text);
    if (length >= CPG_MAX_NAME_LENGTH) return -1;
    memset(name, 0, sizeof *name);
    memcpy(name->value, text, length);
    name->length = (uint32_t)length;
    return 0;
}

lockstep_group_result lockstep_group_join(lockstep_group *group, const char *text) {
    struct cpg_name name;
    if (name_of(text, &name) != 0) return CS_ERR_NAME_TOO_LONG;
    return outcome(library.cpg_join(group->cpg, &name));
}

lockstep_group_result lockstep_group_leave(lockstep_group *group, const char *text) {
    struct cpg_name name;
    if (name_of(text, &name) != 0) return CS_ERR_NAME_TOO_LONG;
    return outcome(library.cpg_leave(group->cpg, &name));
}

lockstep_group_result lockstep_group_track_quorum(lockstep_group *group) {
    return outcome(library.quorum_trackstart(group->quorum, CS_TRACK_CURRENT | CS_TRACK_CHANGES));
}

lockstep_group_result lockstep_group_say(lockstep_group *group, const void *bytes, size_t count) {
    struct iovec piece = {(void *)bytes, count};
    return outcome(library.cpg_mcast_joined(group->cpg, CPG_TYPE_AGREED, &piece, 1));
}

lockstep_group_result lockstep_group_dispatch(lockstep_group *group) {
    lockstep_group_result result = outcome(library.cpg_dispatch(group->cpg, CS_DISPATCH_ALL));
    // Nothing has come: no error.
    if (result > 1) return result;
    result = outcome(library.quorum_dispatch(group->quorum, CS_DISPATCH_ALL));
    return result > 1 ? result : 0;
}

void lockstep_group_close(lockstep_group *group) {
    library.quorum_finalize(group->quorum);
    library.cpg_finalize(group->cpg);
    free(group);
}

lockstep_group_result lockstep_corosync_text(const char *key, char *value, size_t size) {
    cmap_handle_t map;
    lockstep_group_result result = outcome(library.cmap_initialize(&map));
    if (result != 0) return result;
    char *text = NULL;
    result = outcome(library.cmap_get_string(map, key, &text));
    if (result == 0) {
        if (strlen(text) >= size) result = CS_ERR_NAME_TOO_LONG;
        else strcpy(value, text);
        free(text);
    }
    library.cmap_finalize(map);
    return result;
}

lockstep_group_result lockstep_corosync_number(const char *key, uint32_t *value) {
    cmap_handle_t map;
    lockstep_group_result result = outcome(library.cmap_initialize(&map));
    if (result != 0) return result;
    result = outcome(library.cmap_get_uint32(map, key, value));
    library.cmap_finalize(map);
    return result;
}
