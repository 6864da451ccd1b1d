// Corosync's client libraries, loaded when they are asked for: a machine without them can still mount volumes of its own.
// The types are those of corosync's headers; the functions here are the few that are needed, under names of our own.

#ifndef LOCKSTEP_CCOROSYNC_H
#define LOCKSTEP_CCOROSYNC_H

#include <stddef.h>
#include <stdint.h>

/// A process of a group, as `cpg_address`.
typedef struct lockstep_group_process {
    uint32_t host;
    uint32_t process;
} lockstep_group_process;

/// Who is called, from within `lockstep_group_dispatch`. What the pointers point to is valid during the call.
typedef struct lockstep_group_client {
    void *context;
    void (*delivered)(void *context, lockstep_group_process sender, const void *bytes, size_t count);
    void (*configured)(
        void *context,
        const lockstep_group_process *members,
        size_t member_count,
        const lockstep_group_process *joined,
        size_t joined_count
    );
    void (*ring)(
        void *context,
        uint32_t host,
        uint64_t sequence,
        const uint32_t *hosts,
        size_t count
    );
    void (*quorum)(void *context, uint32_t host, uint64_t sequence, int is_quorate);
} lockstep_group_client;

/// What comes of a call: 0 is success, 1 "not now, try again", anything else an error.
typedef int lockstep_group_result;

/// Connections to corosync's group and quorum services.
typedef struct lockstep_group lockstep_group;

/// Loads the libraries. Returns 0, or -1 and why in `problem`.
int lockstep_corosync_load(char *problem, size_t size);

/// The name of an error of corosync's, or "error".
const char *lockstep_corosync_error(lockstep_group_result result);

/// Connects. The libraries must have been loaded. NULL and the error in `result` if that fails.
lockstep_group *lockstep_group_open(lockstep_group_client client, lockstep_group_result *result);

/// The descriptors to poll for reading: of the groups, of the quorum.
int lockstep_group_descriptors(lockstep_group *group, int descriptors[2]);

/// The number of this host.
lockstep_group_result lockstep_group_host(lockstep_group *group, uint32_t *host);

/// Joins the group of that name (at most 127 bytes); `configured` and `ring` follow.
lockstep_group_result lockstep_group_join(lockstep_group *group, const char *name);

/// Asks for what the quorum service has to say, from now on.
lockstep_group_result lockstep_group_track_quorum(lockstep_group *group);

/// Says something to the group, in agreed order.
lockstep_group_result lockstep_group_say(lockstep_group *group, const void *bytes, size_t count);

/// Calls the client for all that has come. Does not wait.
lockstep_group_result lockstep_group_dispatch(lockstep_group *group);

/// Leaves the group.
lockstep_group_result lockstep_group_leave(lockstep_group *group, const char *name);

/// Closes the connections.
void lockstep_group_close(lockstep_group *group);

/// A text of corosync's configuration map into `value`; 0, or an error.
lockstep_group_result lockstep_corosync_text(const char *key, char *value, size_t size);

/// A number of corosync's configuration map; 0, or an error.
lockstep_group_result lockstep_corosync_number(const char *key, uint32_t *value);

#endif
