/*
 * User-mode NAT: libslirp between a frame socket and the host's sockets. For tenon-slirp alone.
 *
 * One thread, its own poll loop, because libslirp wants to be asked before and after each poll().
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_NET_SLIRP_NAT_H
#define TENON_NET_SLIRP_NAT_H

#include <netinet/in.h>

#include "base/base.h"
#include "base/err.h"

struct nat_config {
    struct in_addr network, mask;
    struct in_addr gateway;    /* the host, as the guest sees it */
    struct in_addr dns;        /* forwards to the host's resolver */
    struct in_addr dhcp_start; /* what the guest gets */
    const char *hostname;      /* DHCP option 12; NULL: none */
    bool restricted;           /* nothing but DHCP, DNS and forwards */
    bool no_host;              /* `gateway` does not lead to the host's loopback */
};

struct nat_forward {
    bool udp;
    struct in_addr host_address, guest_address;
    uint16_t host_port, guest_port;
};

struct nat;

/* `fd`: the socket of net_user_socketpair(), taken. */
struct err *nat_new(const struct nat_config *config, int take_fd, struct nat **nat);
void nat_free(struct nat *nat);
/* Listens on the host side. Busy and denied ports give an error of that kind. */
struct err *nat_forward(struct nat *nat, const struct nat_forward *forward);
/*
 * Makes libslirp read /etc/resolv.conf now, for a sandbox in which it cannot later: changes of the
 * file then go unnoticed. Sends two empty datagrams to the resolver.
 */
void nat_prime_dns(struct nat *nat);
/* Serves until the other end of the socket is closed. */
void nat_run(struct nat *nat);

#endif
