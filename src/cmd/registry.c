/*
 * Which VMs of this user run. See registry.h.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "cmd/registry.h"

#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cmd/tenond_paths.h"

#define SUFFIX ".sock"

char *registry_path(const char *name)
{
    scoped(free_cleanup) char *in = tenon_runtime_folder();

    if (!in || (mkdir(in, 0700) != 0 && errno != EEXIST))
        return NULL;
    return xasprintf("%s/%s-%ld" SUFFIX, in, name, (long)getpid());
}

/* "NAME-PID.sock" taken apart; false: something else. */
static bool parse(const char *in, const char *file, struct registry_vm *vm)
{
    const char *dash = strrchr(file, '-');
    char *end;

    if (!dash || dash == file)
        return false;
    vm->pid = (pid_t)strtol(dash + 1, &end, 10);
    if (vm->pid <= 0 || strcmp(end, SUFFIX) != 0)
        return false;
    vm->name = xasprintf("%.*s", (int)(dash - file), file);
    vm->path = xasprintf("%s/%s", in, file);
    return true;
}

static int compare(const void *a, const void *b)
{
    const struct registry_vm *x = a, *y = b;
    int order = strcmp(x->name, y->name);

    return order ? order : (x->pid > y->pid) - (x->pid < y->pid);
}

struct err *registry_read(struct registry *registry)
{
    scoped(free_cleanup) char *in = tenon_runtime_folder();
    struct dirent *entry;
    DIR *dir = in ? opendir(in) : NULL;

    *registry = (struct registry){0};
    if (!dir)
        return !in || errno == ENOENT ? NULL : err_errno(errno, "cannot read '%s'", in);
    while ((entry = readdir(dir))) {
        struct registry_vm vm;
        if (!parse(in, entry->d_name, &vm))
            continue;
        if (kill(vm.pid, 0) != 0 && errno == ESRCH) {
            unlink(vm.path); /* it was killed and could not do it itself */
            free(vm.name);
            free(vm.path);
            continue;
        }
        registry->vm = xrealloc(registry->vm, registry->count + 1, sizeof(vm));
        registry->vm[registry->count++] = vm;
    }
    closedir(dir);
    if (registry->count)
        qsort(registry->vm, registry->count, sizeof(*registry->vm), compare);
    return NULL;
}

void registry_fini(struct registry *registry)
{
    for (unsigned i = 0; i < registry->count; i++) {
        free(registry->vm[i].name);
        free(registry->vm[i].path);
    }
    free(registry->vm);
    *registry = (struct registry){0};
}

static bool means(const struct registry_vm *vm, const char *what)
{
    scoped(free_cleanup) char *pid = xasprintf("%ld", (long)vm->pid);

    return !strcmp(vm->name, what) || !strcmp(pid, what);
}

/* The path of the one VM that `what` means; owned by the caller. */
static struct err *find(const struct registry *registry, const char *what, char **path)
{
    const struct registry_vm *found = NULL;

    for (unsigned i = 0; i < registry->count; i++) {
        const struct registry_vm *vm = &registry->vm[i];
        if (!means(vm, what))
            continue;
        if (found)
            return err_of(ERR_USAGE, "more than one VM is called '%s': give the PID, %ld or %ld",
                          what, (long)found->pid, (long)vm->pid);
        found = vm;
    }
    if (!found)
        return err_new("no VM '%s' runs: `tenon ps` lists those that do", what);
    *path = xstrdup(found->path);
    return NULL;
}

struct err *registry_open(const char *what, struct qmp_client *client)
{
    scoped(free_cleanup) char *path = NULL;
    struct registry registry;
    struct stat status;

    *client = (struct qmp_client){.fd = -1};
    if (strchr(what, '/') || (stat(what, &status) == 0 && S_ISSOCK(status.st_mode)))
        return qmp_client_open(client, what);
    TRY(registry_read(&registry));
    struct err *err = find(&registry, what, &path);
    registry_fini(&registry);
    return err ? err : qmp_client_open(client, path);
}
