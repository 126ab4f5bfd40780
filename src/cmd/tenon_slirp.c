/*
 * tenon-slirp: the network of a rootless VM, user-mode NAT in a sandboxed process of its own.
 *
 *   tenon-slirp --fd N [--status-fd N] [options]
 *
 * It inherits one end of a SOCK_SEQPACKET socket pair as descriptor N: one frame with a 12-byte
 * virtio_net_hdr a message (see net/net.h, net_user_socketpair). It sets up its port forwards,
 * enters its sandbox, and then says so on the status descriptor (cmd/ready.h). It ends, status 0,
 * when the other end of the socket is closed.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <arpa/inet.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/base.h"
#include "base/bytes.h"
#include "base/err.h"
#include "cmd/ready.h"
#include "cmd/side_program.h"
#include "net/slirp/nat.h"
#include "net/slirp/policy.h"
#include "sandbox/sandbox.h"

#define FORWARDS_MAX 64
#define DESCRIPTORS_MAX 4096

struct options {
    struct nat_config nat;
    bool has_gateway, has_dns, has_dhcp;
    int fd;
    struct slirp_policy policy;
    struct nat_forward forward[FORWARDS_MAX];
    unsigned forward_count;
    struct nat *running;
};

enum option_id {
    OPTION_FD = 1,
    OPTION_NETWORK,
    OPTION_GATEWAY,
    OPTION_DHCP_START,
    OPTION_DNS,
    OPTION_HOSTNAME,
    OPTION_FORWARD,
    OPTION_RESTRICT,
    OPTION_NO_HOST,
    OPTION_LOG_DENIED,
    OPTION_WITHOUT_LANDLOCK,
};

static const struct option long_options[] = {
    {"fd", required_argument, NULL, OPTION_FD},
    {"network", required_argument, NULL, OPTION_NETWORK},
    {"gateway", required_argument, NULL, OPTION_GATEWAY},
    {"dhcp-start", required_argument, NULL, OPTION_DHCP_START},
    {"dns", required_argument, NULL, OPTION_DNS},
    {"hostname", required_argument, NULL, OPTION_HOSTNAME},
    {"forward", required_argument, NULL, OPTION_FORWARD},
    {"restrict", no_argument, NULL, OPTION_RESTRICT},
    {"no-host", no_argument, NULL, OPTION_NO_HOST},
    {"log-denied", no_argument, NULL, OPTION_LOG_DENIED},
    {"without-landlock", no_argument, NULL, OPTION_WITHOUT_LANDLOCK},
    SIDE_PROGRAM_OPTIONS,
};

static const char help_text[] =
    "usage: tenon-slirp --fd N [options]\n"
    "\n"
    "User-mode network of one VM; started by `tenon run`, seldom by hand.\n"
    "\n"
    "  --fd N                 inherited SOCK_SEQPACKET socket that carries the guest's frames\n"
    "  --status-fd N          where to report \"ready\" or \"error STATUS SENTENCE\"\n"
    "  --network A.B.C.D/LEN  the guest's network (default 10.0.2.0/24)\n"
    "  --gateway ADDRESS      the host, as the guest sees it (default: second address)\n"
    "  --dns ADDRESS          DNS server, forwards to the host's resolver (default: third)\n"
    "  --dhcp-start ADDRESS   the guest's address (default: fifteenth)\n"
    "  --hostname NAME        the guest's name, by DHCP\n"
    "  --forward tcp:[ADDRESS]:PORT-[GUEST]:PORT   (or udp:) from the host to the guest; "
    "repeatable\n"
    "  --restrict             no way out but the forwards\n"
    "  --no-host              the gateway does not lead to the host's own services\n"
    "  --log-denied           the kernel logs system calls that the sandbox denies\n"
    "  --without-landlock     confine by seccomp alone, as on kernels without Landlock\n"
    "  --help, --version\n";

static struct err *parse_address(const char *text, const char *what, struct in_addr *address)
{
    if (inet_pton(AF_INET, text, address) != 1)
        return err_of(ERR_USAGE, "%s: '%s' is not an IPv4 address", what, text);
    return NULL;
}

static struct err *parse_network(const char *text, struct nat_config *nat)
{
    char address[INET_ADDRSTRLEN + 1];
    const char *slash = strchr(text, '/');
    unsigned long length;
    if (!slash || (size_t)(slash - text) >= sizeof(address))
        return err_of(ERR_USAGE, "--network: '%s' is not of the form 10.0.2.0/24", text);
    memcpy(address, text, (size_t)(slash - text));
    address[slash - text] = 0;
    TRY(parse_address(address, "--network", &nat->network));
    TRY(ready_parse_number(slash + 1, "--network", 32, &length));
    if (length < 8 || length > 27)
        return err_of(ERR_USAGE, "--network: a prefix has 8 to 27 bits, '%s' has %lu", text,
                      length);
    nat->mask.s_addr = htonl(UINT32_MAX << (32 - length));
    nat->network.s_addr &= nat->mask.s_addr;
    return NULL;
}

/* "tcp:[ADDRESS]:PORT-[GUEST]:PORT" */
static struct err *parse_forward(const char *text, struct nat_forward *forward)
{
    static const char form[] = "the form is tcp:127.0.0.1:2222-:22";
    scoped(free_cleanup) char *copy = xstrdup(text);
    char *protocol = copy;
    char *host = strchr(copy, ':');
    char *host_port = host ? strchr(host + 1, ':') : NULL;
    char *guest = host_port ? strchr(host_port + 1, '-') : NULL;
    char *guest_port = guest ? strchr(guest + 1, ':') : NULL;
    if (!guest_port)
        return err_of(ERR_USAGE, "--forward '%s': %s", text, form);
    *host++ = *host_port++ = *guest++ = *guest_port++ = 0;

    forward->udp = !strcmp(protocol, "udp");
    if (!forward->udp && strcmp(protocol, "tcp"))
        return err_of(ERR_USAGE, "--forward '%s': %s", text, form);
    forward->host_address.s_addr = htonl(INADDR_ANY);
    if (*host)
        TRY(parse_address(host, "--forward", &forward->host_address));
    forward->guest_address.s_addr = 0;
    if (*guest)
        TRY(parse_address(guest, "--forward", &forward->guest_address));
    unsigned long port;
    TRY(ready_parse_number(host_port, "--forward", UINT16_MAX, &port));
    forward->host_port = (uint16_t)port;
    TRY(ready_parse_number(guest_port, "--forward", UINT16_MAX, &port));
    forward->guest_port = (uint16_t)port;
    if (!forward->host_port || !forward->guest_port)
        return err_of(ERR_USAGE, "--forward '%s': port 0 is none", text);
    return NULL;
}

static struct err *parse_option(int option, void *opaque)
{
    struct options *options = opaque;

    switch ((enum option_id)option) {
    case OPTION_FD:
        return ready_parse_fd(optarg, "--fd", &options->fd);
    case OPTION_NETWORK:
        return parse_network(optarg, &options->nat);
    case OPTION_GATEWAY:
        options->has_gateway = true;
        return parse_address(optarg, "--gateway", &options->nat.gateway);
    case OPTION_DHCP_START:
        options->has_dhcp = true;
        return parse_address(optarg, "--dhcp-start", &options->nat.dhcp_start);
    case OPTION_DNS:
        options->has_dns = true;
        return parse_address(optarg, "--dns", &options->nat.dns);
    case OPTION_HOSTNAME:
        options->nat.hostname = optarg;
        return NULL;
    case OPTION_FORWARD:
        if (options->forward_count == FORWARDS_MAX)
            return err_of(ERR_USAGE, "--forward: at most %d", FORWARDS_MAX);
        return parse_forward(optarg, &options->forward[options->forward_count++]);
    case OPTION_RESTRICT:
        options->nat.restricted = true;
        return NULL;
    case OPTION_NO_HOST:
        options->nat.no_host = true;
        return NULL;
    case OPTION_LOG_DENIED:
        options->policy.log_denied = true;
        return NULL;
    case OPTION_WITHOUT_LANDLOCK:
        options->policy.without_landlock = true;
        return NULL;
    }
    return NULL;
}

static struct err *check_inside(const struct nat_config *nat, struct in_addr address,
                                const char *what)
{
    uint32_t host = ntohl(address.s_addr & ~nat->mask.s_addr);
    if ((address.s_addr & nat->mask.s_addr) != nat->network.s_addr || host == 0 ||
        host == ntohl(~nat->mask.s_addr))
        return err_of(ERR_USAGE, "%s: the address is not one of the network's hosts", what);
    return NULL;
}

static struct err *finish_options(struct options *options)
{
    struct nat_config *nat = &options->nat;
    uint32_t network = ntohl(nat->network.s_addr);
    if (!options->has_gateway)
        nat->gateway.s_addr = htonl(network + 2);
    if (!options->has_dns)
        nat->dns.s_addr = htonl(network + 3);
    if (!options->has_dhcp)
        nat->dhcp_start.s_addr = htonl(network + 15);
    if (options->fd < 0)
        return err_of(ERR_USAGE, "--fd is missing: this program is started by `tenon run`");
    TRY(check_inside(nat, nat->gateway, "--gateway"));
    TRY(check_inside(nat, nat->dns, "--dns"));
    TRY(check_inside(nat, nat->dhcp_start, "--dhcp-start"));
    for (unsigned i = 0; i < options->forward_count; i++) {
        struct in_addr *guest = &options->forward[i].guest_address;
        if (guest->s_addr == 0)
            *guest = nat->dhcp_start;
        TRY(check_inside(nat, *guest, "--forward"));
    }
    return NULL;
}

static struct err *check_socket(int fd)
{
    int type = 0;
    socklen_t size = sizeof(type);
    if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) != 0)
        return err_errno(errno, "--fd %d", fd);
    if (type != SOCK_SEQPACKET)
        return err_of(ERR_USAGE, "--fd %d: not a SOCK_SEQPACKET socket", fd);
    return NULL;
}

static void raise_descriptor_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < DESCRIPTORS_MAX) {
        limit.rlim_cur = MIN(limit.rlim_max, (rlim_t)DESCRIPTORS_MAX);
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

static struct err *set_up(int status_fd, void *opaque)
{
    struct options *options = opaque;
    const int keep[] = {options->fd, status_fd};

    TRY(finish_options(options));
    TRY(check_socket(options->fd));
    TRY(sandbox_close_others(keep, ARRAY_SIZE(keep)));
    raise_descriptor_limit();
    signal(SIGPIPE, SIG_IGN);
    TRY(nat_new(&options->nat, options->fd, &options->running));
    for (unsigned i = 0; i < options->forward_count; i++)
        TRY(nat_forward(options->running, &options->forward[i]));
    if (!slirp_policy_has_files(&options->policy))
        nat_prime_dns(options->running);
    return slirp_policy_enter(&options->policy);
}

static void serve(void *opaque)
{
    const struct options *options = opaque;

    nat_run(options->running);
}

int main(int argc, char **argv)
{
    static const struct side_program program = {
        .name = "tenon-slirp",
        .help = help_text,
        .options = long_options,
        .parse = parse_option,
        .set_up = set_up,
        .serve = serve,
    };
    struct options options = {.fd = -1};

    parse_network("10.0.2.0/24", &options.nat); /* has no mistake */
    return side_program_main(argc, argv, &program, &options);
}
