/*
 * What the files of the NBD server share: numbers of the protocol, the channel, the client.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_BLOCK_EXPORT_NBD_INTERNAL_H
#define TENON_BLOCK_EXPORT_NBD_INTERNAL_H

#include <pthread.h>
#include <sys/uio.h>

#include "base/list.h"
#include "base/lock.h"
#include "block/export/nbd.h"

#define NBD_MAGIC 0x4e42444d41474943ull /* "NBDMAGIC" */
#define NBD_OPTION_MAGIC 0x49484156454f5054ull
#define NBD_OPTION_REPLY_MAGIC 0x0003e889045565a9ull
#define NBD_REQUEST_MAGIC 0x25609513u
#define NBD_SIMPLE_REPLY_MAGIC 0x67446698u
#define NBD_CHUNK_MAGIC 0x668e33efu

#define NBD_REQUEST_SIZE 28u
#define NBD_TRANSFER_MAX MIB(32) /* what every client may rely on */
#define NBD_PIECE KIB(512)       /* a worker's buffer: longer transfers go in pieces */

enum nbd_handshake_flag { NBD_FIXED_NEWSTYLE = 1, NBD_NO_ZEROES = 2 };

enum nbd_option {
    NBD_OPT_EXPORT_NAME = 1,
    NBD_OPT_ABORT = 2,
    NBD_OPT_LIST = 3,
    NBD_OPT_STARTTLS = 5,
    NBD_OPT_INFO = 6,
    NBD_OPT_GO = 7,
    NBD_OPT_STRUCTURED_REPLY = 8,
    NBD_OPT_LIST_META_CONTEXT = 9,
    NBD_OPT_SET_META_CONTEXT = 10,
};

enum nbd_option_reply {
    NBD_REP_ACK = 1,
    NBD_REP_SERVER = 2,
    NBD_REP_INFO = 3,
    NBD_REP_META_CONTEXT = 4,
    NBD_REP_ERR_UNSUP = 1u | 1u << 31,
    NBD_REP_ERR_POLICY = 2u | 1u << 31,
    NBD_REP_ERR_INVALID = 3u | 1u << 31,
    NBD_REP_ERR_TLS_REQD = 5u | 1u << 31,
    NBD_REP_ERR_UNKNOWN = 6u | 1u << 31,
    NBD_REP_ERR_TOO_BIG = 9u | 1u << 31,
};

enum nbd_info { NBD_INFO_EXPORT, NBD_INFO_NAME, NBD_INFO_DESCRIPTION, NBD_INFO_BLOCK_SIZE };

enum nbd_transmission_flag {
    NBD_FLAG_HAS_FLAGS = 1 << 0,
    NBD_FLAG_READ_ONLY = 1 << 1,
    NBD_FLAG_SEND_FLUSH = 1 << 2,
    NBD_FLAG_SEND_FUA = 1 << 3,
    NBD_FLAG_SEND_TRIM = 1 << 5,
    NBD_FLAG_SEND_WRITE_ZEROES = 1 << 6,
    NBD_FLAG_SEND_DF = 1 << 7,
    NBD_FLAG_CAN_MULTI_CONN = 1 << 8,
};

enum nbd_command {
    NBD_CMD_READ = 0,
    NBD_CMD_WRITE = 1,
    NBD_CMD_DISC = 2,
    NBD_CMD_FLUSH = 3,
    NBD_CMD_TRIM = 4,
    NBD_CMD_CACHE = 5,
    NBD_CMD_WRITE_ZEROES = 6,
    NBD_CMD_BLOCK_STATUS = 7,
};

enum nbd_command_flag {
    NBD_CMD_FLAG_FUA = 1 << 0,
    NBD_CMD_FLAG_NO_HOLE = 1 << 1,
    NBD_CMD_FLAG_DF = 1 << 2,
    NBD_CMD_FLAG_REQ_ONE = 1 << 3,
};

enum nbd_chunk {
    NBD_CHUNK_NONE = 0,
    NBD_CHUNK_OFFSET_DATA = 1,
    NBD_CHUNK_OFFSET_HOLE = 2,
    NBD_CHUNK_BLOCK_STATUS = 5,
    NBD_CHUNK_ERROR = 1u | 1u << 15,
};
#define NBD_CHUNK_DONE 1u /* the last one of a reply */

enum nbd_error {
    NBD_OK = 0,
    NBD_EPERM = 1,
    NBD_EIO = 5,
    NBD_ENOMEM = 12,
    NBD_EINVAL = 22,
    NBD_ENOSPC = 28,
    NBD_EOVERFLOW = 75,
    NBD_ESHUTDOWN = 108,
};

#define NBD_STATE_HOLE 1u
#define NBD_STATE_ZERO 2u
#define NBD_STATE_DIRTY 1u
/* Metadata contexts: the first is the allocation, the others are the image's dirty bitmaps in their
 * order. The number on the wire is one more. */
#define NBD_CONTEXTS_MAX 64u
#define NBD_CONTEXT_ALLOCATION "base:allocation"
#define NBD_CONTEXT_BITMAP "qemu:dirty-bitmap:"

/*
 * A connection's bytes, in the clear or through TLS. Receiving and sending may run side by side,
 * each in one thread at a time. False: the connection is over.
 */
#define NBD_RECEIVE_BUFFER KIB(64)
struct nbd_channel {
    int fd;
    void *session; /* gnutls_session_t; NULL: in the clear */
    size_t begin, end;
    uint8_t buffer[NBD_RECEIVE_BUFFER];
};
bool nbd_channel_receive(struct nbd_channel *channel, void *bytes, size_t length);
bool nbd_channel_skip(struct nbd_channel *channel, uint64_t length);
/* Changes `iov`. */
bool nbd_channel_send(struct nbd_channel *channel, struct iovec *iov, unsigned count);

/* nbd_tls.c: the handshake on a channel, then its records. */
bool nbd_tls_start(const struct nbd_tls *tls, struct nbd_channel *channel);
void nbd_tls_end(struct nbd_channel *channel);
ssize_t nbd_tls_receive(struct nbd_channel *channel, void *bytes, size_t length);
ssize_t nbd_tls_send(struct nbd_channel *channel, const void *bytes, size_t length);

struct nbd_client {
    const struct nbd_server_config *config;
    struct nbd_channel channel;
    const struct nbd_export *export; /* set by the negotiation */
    bool structured, no_zeroes;
    uint64_t contexts;                       /* a bit for each that was chosen ... */
    const struct nbd_export *context_export; /* ... for this export */

    struct lock receive; /* who reads the next request */
    struct lock send;    /* a reply, or a chunk of one, is not cut by another */
    bool closing;        /* under `receive` */
    /* nbd_server.c's, under its lock. */
    struct nbd_server *server;
    struct list link;
    unsigned workers, idle;
    bool negotiated;
};

/* nbd_negotiate.c: false: the peer went away, or is to. */
bool nbd_negotiate(struct nbd_client *client);
uint16_t nbd_transmission_flags(const struct nbd_client *client, const struct nbd_export *export);

struct nbd_request {
    uint16_t flags, type;
    uint8_t cookie[8];
    uint64_t offset;
    uint32_t length;
    bool payload;         /* a write's data is in the worker's buffer */
    enum nbd_error error; /* found while it was received */
};

/*
 * nbd_request.c. Receive: the next request, a short write with its data in `piece`, a long one
 * carried out; with client->receive held. Answer: without. False: the connection is over.
 */
bool nbd_request_receive(struct nbd_client *client, struct nbd_request *request, uint8_t *piece);
bool nbd_request_answer(struct nbd_client *client, const struct nbd_request *request,
                        uint8_t *piece);

#endif
