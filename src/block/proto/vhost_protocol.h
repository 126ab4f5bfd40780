/*
 * The vhost-user protocol (QEMU's docs/interop/vhost-user.rst), as far as a disk needs it: what a
 * front end (proto/vhost_user.c) and a back end (hw/vhost/) have to agree on. All numbers are
 * little-endian here, because both are on an x86 host.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_BLOCK_PROTO_VHOST_PROTOCOL_H
#define TENON_BLOCK_PROTO_VHOST_PROTOCOL_H

/* A message: request, flags and length of the payload, 32 bits each; then the payload. */
#define VHOST_HEADER 12u
#define VHOST_VERSION 1u
#define VHOST_REPLY (1u << 2)
#define VHOST_NEED_REPLY (1u << 3)
/* GET_CONFIG and SET_CONFIG: offset, length and flags in front of the bytes. */
#define VHOST_CONFIG_HEADER 12u

/* Message numbers of the front end. */
enum vhost_request {
    VHOST_GET_FEATURES = 1,
    VHOST_SET_FEATURES = 2,
    VHOST_SET_OWNER = 3,
    VHOST_RESET_OWNER = 4,
    VHOST_SET_MEM_TABLE = 5,
    VHOST_SET_VRING_NUM = 8,
    VHOST_SET_VRING_ADDR = 9,
    VHOST_SET_VRING_BASE = 10,
    VHOST_GET_VRING_BASE = 11,
    VHOST_SET_VRING_KICK = 12,
    VHOST_SET_VRING_CALL = 13,
    VHOST_SET_VRING_ERR = 14,
    VHOST_GET_PROTOCOL_FEATURES = 15,
    VHOST_SET_PROTOCOL_FEATURES = 16,
    VHOST_GET_QUEUE_NUM = 17,
    VHOST_SET_VRING_ENABLE = 18,
    VHOST_GET_CONFIG = 24,
    VHOST_SET_CONFIG = 25,
    VHOST_GET_INFLIGHT_FD = 31,
    VHOST_SET_INFLIGHT_FD = 32,
};

/* Among the virtio features: there are protocol features. */
#define VHOST_F_PROTOCOL_FEATURES 30
enum vhost_protocol_feature {
    VHOST_P_MQ = 0,
    VHOST_P_REPLY_ACK = 3,
    VHOST_P_CONFIG = 9,
    VHOST_P_INFLIGHT_SHMFD = 12,
};

#endif
