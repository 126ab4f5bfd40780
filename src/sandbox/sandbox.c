/*
 * Confinement of the calling process: capabilities(7), landlock(7), seccomp(2).
 *
 * Order: no_new_privs first (the other two need it without privilege), then capabilities, then
 * Landlock, whose own calls seccomp would deny, then seccomp. Runs on the main thread before there
 * are others.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "sandbox/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/landlock.h>
#include <seccomp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "sandbox/rules.h"

/*
 * The Landlock rule set attribute as newer kernels know it: headers of Debian 12 have its first
 * member only. The kernel takes any length and refuses bits that it does not know.
 */
struct ruleset_attr {
    uint64_t handled_access_fs;
    uint64_t handled_access_net; /* since ABI 4 */
    uint64_t scoped;             /* since ABI 6 */
};

#define LANDLOCK_NET_BIND_AND_CONNECT 0x3u
#define LANDLOCK_SCOPE_ABSTRACT_SOCKET 0x1u
#define LANDLOCK_SCOPE_SIGNAL 0x2u
#define LANDLOCK_FS_TRUNCATE (1u << 14)

#define FOLDER_RIGHTS                                                                              \
    (LANDLOCK_ACCESS_FS_READ_DIR | LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_REMOVE_DIR | \
     LANDLOCK_ACCESS_FS_REMOVE_FILE | LANDLOCK_ACCESS_FS_MAKE_DIR | LANDLOCK_ACCESS_FS_MAKE_REG |  \
     LANDLOCK_FS_TRUNCATE)

static struct err *drop_capabilities(void)
{
    /* The bounding set needs CAP_SETPCAP; without it there is nothing to gain back through exec
     * either, since no_new_privs is set. EINVAL marks the end of what the kernel knows. */
    for (int cap = 0; cap < 64; cap++)
        if (prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) != 0 && errno == EINVAL)
            break;
    if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) != 0)
        return err_errno(errno, "cannot clear the ambient capabilities");

    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct none[2] = {{0}};
    if (syscall(__NR_capset, &header, none) != 0)
        return err_errno(errno, "cannot drop capabilities");
    return NULL;
}

int sandbox_landlock_abi(void)
{
    long abi = syscall(__NR_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
    return abi > 0 ? (int)abi : 0;
}

static struct err *landlock_allow(int ruleset, const struct sandbox_path *path, uint64_t handled)
{
    scoped(fd_cleanup) int fd = open(path->path, O_PATH | O_CLOEXEC);
    if (fd < 0)
        return NULL;
    struct landlock_path_beneath_attr attr = {
        .allowed_access =
            (LANDLOCK_ACCESS_FS_READ_FILE | (path->write ? FOLDER_RIGHTS : 0)) & handled,
        .parent_fd = fd,
    };
    if (syscall(__NR_landlock_add_rule, ruleset, LANDLOCK_RULE_PATH_BENEATH, &attr, 0) != 0)
        return err_errno(errno, "landlock: cannot allow '%s'", path->path);
    return NULL;
}

static struct err *landlock_enter(const struct sandbox_policy *policy)
{
    int abi = policy->without_landlock ? 0 : sandbox_landlock_abi();
    if (abi == 0)
        return NULL;

    /* ABI 1 has 13 file system rights; 2 adds REFER, 3 TRUNCATE, 5 IOCTL_DEV. */
    struct ruleset_attr attr = {.handled_access_fs = (1u << 13) - 1};
    size_t size = sizeof(uint64_t);
    if (abi >= 2)
        attr.handled_access_fs |= 1u << 13;
    if (abi >= 3)
        attr.handled_access_fs |= 1u << 14;
    if (abi >= 4) {
        size = 2 * sizeof(uint64_t);
        attr.handled_access_net = policy->network ? 0 : LANDLOCK_NET_BIND_AND_CONNECT;
    }
    /* Covers files opened from now on: descriptors that were handed in keep their ioctls. */
    if (abi >= 5)
        attr.handled_access_fs |= 1u << 15;
    if (abi >= 6) {
        size = sizeof(attr);
        attr.scoped =
            LANDLOCK_SCOPE_ABSTRACT_SOCKET | (policy->signals ? 0 : LANDLOCK_SCOPE_SIGNAL);
    }

    scoped(fd_cleanup) int ruleset = (int)syscall(__NR_landlock_create_ruleset, &attr, size, 0);
    if (ruleset < 0)
        return err_errno(errno, "landlock: cannot create the rule set");
    for (size_t i = 0; i < policy->path_count; i++)
        TRY(landlock_allow(ruleset, &policy->paths[i], attr.handled_access_fs));
    if (syscall(__NR_landlock_restrict_self, ruleset, 0) != 0)
        return err_errno(errno, "landlock: cannot restrict the process");
    return NULL;
}

static int seccomp_allow(scmp_filter_ctx filter, const struct sandbox_rule *rule)
{
    struct scmp_arg_cmp cmp[SANDBOX_CHECKS_MAX];
    unsigned count = MIN(rule->checks, (unsigned)SANDBOX_CHECKS_MAX);
    for (unsigned i = 0; i < count; i++)
        cmp[i] = (struct scmp_arg_cmp){
            .arg = rule->check[i].arg,
            .op = SCMP_CMP_MASKED_EQ,
            .datum_a = rule->check[i].mask,
            .datum_b = rule->check[i].value,
        };
    int result = seccomp_rule_add_array(filter, SCMP_ACT_ALLOW, rule->call, count, cmp);
    /* EEXIST: a policy repeats a rule of the shared sets. */
    return result == -EEXIST ? 0 : result;
}

static int seccomp_allow_all(scmp_filter_ctx filter, const struct sandbox_rule *rules, size_t count)
{
    int result = 0;
    for (size_t i = 0; i < count && result == 0; i++)
        result = seccomp_allow(filter, &rules[i]);
    return result;
}

static int seccomp_allow_set(scmp_filter_ctx filter, const struct sandbox_rule_set *set)
{
    return seccomp_allow_all(filter, set->rules, set->count);
}

static bool policy_names(const struct sandbox_policy *policy, int call)
{
    for (size_t i = 0; i < policy->rule_count; i++)
        if (policy->rules[i].call == call)
            return true;
    return false;
}

static int seccomp_build(scmp_filter_ctx filter, const struct sandbox_policy *policy)
{
    int result = seccomp_attr_set(filter, SCMP_FLTATR_CTL_TSYNC, 1);
    if (result == 0 && policy->log_denied)
        result = seccomp_attr_set(filter, SCMP_FLTATR_CTL_LOG, 1);
    /* A binary search over call numbers: the hot calls are not all at the front of a list. */
    if (result == 0)
        result = seccomp_attr_set(filter, SCMP_FLTATR_CTL_OPTIMIZE, 2);
    if (result == 0)
        result = seccomp_allow_all(filter, policy->rules, policy->rule_count);
    if (result == 0 && policy->base) {
        struct sandbox_rule own = SANDBOX_ALLOW_IF(tgkill, {0, UINT32_MAX, (uint32_t)getpid()});
        result = seccomp_allow(filter, &own);
        if (result == 0)
            result = seccomp_allow_set(filter, &sandbox_rules_base);
    }
    if (result == 0 && policy->exec_memory)
        result = seccomp_allow_set(filter, &sandbox_rules_exec_memory);
    else if (result == 0 && policy->base)
        result = seccomp_allow_set(filter, &sandbox_rules_memory);
    if (result == 0 && policy->threads)
        result = seccomp_allow_set(filter, &sandbox_rules_threads);
    /* clone3 hides its flags in memory, where a filter cannot look. With ENOSYS the C library falls
     * back to clone. */
    if (result == 0 && !policy_names(policy, __NR_clone3))
        result = seccomp_rule_add_array(filter, SCMP_ACT_ERRNO(ENOSYS), __NR_clone3, 0, NULL);
    return result;
}

static struct err *seccomp_enter(const struct sandbox_policy *policy)
{
    scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ERRNO(EPERM));
    if (!filter)
        return err_new("seccomp: cannot create a filter");
    int result = seccomp_build(filter, policy);
    if (result == 0)
        result = seccomp_load(filter);
    seccomp_release(filter);
    if (result != 0)
        return err_errno(-result, "seccomp: cannot install the filter");
    return NULL;
}

struct err *sandbox_renounce(const struct sandbox_policy *policy)
{
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
        return err_errno(errno, "sandbox of %s: cannot renounce new privileges", policy->name);
    TRY(err_wrap(drop_capabilities(), "sandbox of %s", policy->name));
    return err_wrap(landlock_enter(policy), "sandbox of %s", policy->name);
}

struct err *sandbox_filter(const struct sandbox_policy *policy)
{
    return err_wrap(seccomp_enter(policy), "sandbox of %s", policy->name);
}

struct err *sandbox_enter(const struct sandbox_policy *policy)
{
    TRY(sandbox_renounce(policy));
    return sandbox_filter(policy);
}

static int compare_ints(const void *a, const void *b)
{
    int x = *(const int *)a, y = *(const int *)b;
    return (x > y) - (x < y);
}

struct err *sandbox_close_others(const int *keep, size_t count)
{
    scoped(free_cleanup) int *sorted = xcalloc(count + 1, sizeof(*sorted));
    if (count)
        memcpy(sorted, keep, count * sizeof(*sorted));
    qsort(sorted, count, sizeof(*sorted), compare_ints);

    unsigned first = 3;
    for (size_t i = 0; i <= count; i++) {
        if (i < count && sorted[i] < (int)first)
            continue;
        unsigned last = i < count ? (unsigned)sorted[i] - 1 : ~0u;
        if (first <= last && syscall(__NR_close_range, first, last, 0) != 0)
            return err_errno(errno, "cannot close inherited descriptors");
        if (i < count)
            first = (unsigned)sorted[i] + 1;
    }
    return NULL;
}
