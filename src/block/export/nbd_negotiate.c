/*
 * NBD negotiation: the fixed newstyle handshake, options, export information, metadata contexts.
 *
 * A peer is not trusted to be sane: an option is at most OPTION_MAX bytes, there are at most
 * OPTIONS_MAX of them, and nbd_server.c gives the whole negotiation a time.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "base/checked.h"
#include "block/export/nbd_internal.h"

#define OPTION_MAX KIB(16)
#define CONTEXT_NAME_ROOM 1100 /* a bitmap's name has 1023 bytes at most */
#define OPTIONS_MAX 256
#define EXPORT_PADDING 124u
#define BLOCK_SIZE_PREFERRED 4096u

struct option {
    uint32_t code, length;
    uint8_t data[OPTION_MAX];
};

uint16_t nbd_transmission_flags(const struct nbd_client *client, const struct nbd_export *export)
{
    unsigned flags =
        NBD_FLAG_HAS_FLAGS | NBD_FLAG_SEND_FLUSH | NBD_FLAG_SEND_FUA | NBD_FLAG_CAN_MULTI_CONN;
    flags |= image_writable(export->image) ? NBD_FLAG_SEND_TRIM | NBD_FLAG_SEND_WRITE_ZEROES
                                           : NBD_FLAG_READ_ONLY;
    return (uint16_t)(flags | (client->structured ? NBD_FLAG_SEND_DF : 0));
}

/* `more` follows `data`, as the answer's second part. */
static bool reply(struct nbd_client *client, const struct option *option, uint32_t type,
                  const void *data, size_t length, const char *more)
{
    uint8_t header[20];
    size_t more_length = more ? strlen(more) : 0;
    struct iovec iov[3] = {{header, sizeof(header)},
                           {(void *)(uintptr_t)data, length},
                           {(void *)(uintptr_t)more, more_length}};
    put_be64(header, NBD_OPTION_REPLY_MAGIC);
    put_be32(header + 8, option->code);
    put_be32(header + 12, type);
    put_be32(header + 16, (uint32_t)(length + more_length));
    return nbd_channel_send(&client->channel, iov, 3);
}

static bool acknowledge(struct nbd_client *client, const struct option *option)
{
    return reply(client, option, NBD_REP_ACK, NULL, 0, NULL);
}

static bool refuse(struct nbd_client *client, const struct option *option,
                   enum nbd_option_reply why, const char *text)
{
    return reply(client, option, why, NULL, 0, text);
}

static const struct nbd_export *find_export(const struct nbd_client *client, const uint8_t *name,
                                            size_t length)
{
    for (unsigned i = 0; i < client->config->export_count; i++) {
        const struct nbd_export *export = &client->config->export[i];
        if (strlen(export->name) == length && !memcmp(export->name, name, length))
            return export;
    }
    return NULL;
}

/* A 32-bit length and that many bytes at *at; false: they are not there. */
static bool take_text(const struct option *option, uint32_t *at, const uint8_t **text,
                      uint32_t *length)
{
    if (!range_within(*at, 4, option->length))
        return false;
    *length = get_be32(option->data + *at);
    *text = option->data + *at + 4;
    *at += 4;
    if (!range_within(*at, *length, option->length))
        return false;
    *at += *length;
    return true;
}

static bool list_exports(struct nbd_client *client, const struct option *option)
{
    if (option->length)
        return refuse(client, option, NBD_REP_ERR_INVALID, "LIST has no data");
    for (unsigned i = 0; i < client->config->export_count; i++) {
        const char *name = client->config->export[i].name;
        uint8_t length[4];
        put_be32(length, (uint32_t)strlen(name));
        if (!reply(client, option, NBD_REP_SERVER, length, sizeof(length), name))
            return false;
    }
    return acknowledge(client, option);
}

static bool send_info(struct nbd_client *client, const struct option *option,
                      const struct nbd_export *export, enum nbd_info info)
{
    uint8_t bytes[14];
    put_be16(bytes, (uint16_t)info);
    switch (info) {
    case NBD_INFO_EXPORT:
        put_be64(bytes + 2, image_size(export->image));
        put_be16(bytes + 10, nbd_transmission_flags(client, export));
        return reply(client, option, NBD_REP_INFO, bytes, 12, NULL);
    case NBD_INFO_NAME:
        return reply(client, option, NBD_REP_INFO, bytes, 2, export->name);
    case NBD_INFO_DESCRIPTION:
        return !export->description ||
               reply(client, option, NBD_REP_INFO, bytes, 2, export->description);
    case NBD_INFO_BLOCK_SIZE:
        put_be32(bytes + 2, 1);
        put_be32(bytes + 6, BLOCK_SIZE_PREFERRED);
        put_be32(bytes + 10, (uint32_t)NBD_TRANSFER_MAX);
        return reply(client, option, NBD_REP_INFO, bytes, 14, NULL);
    }
    return true; /* what we do not know is left out */
}

/* INFO and GO. *go: the negotiation is through. */
static bool describe(struct nbd_client *client, const struct option *option, bool *go)
{
    uint32_t at = 0, length;
    const uint8_t *name;
    if (!take_text(option, &at, &name, &length) || !range_within(at, 2, option->length) ||
        option->length != at + 2 + 2u * get_be16(option->data + at))
        return refuse(client, option, NBD_REP_ERR_INVALID, "the lengths do not add up");
    const struct nbd_export *export = find_export(client, name, length);
    if (!export)
        return refuse(client, option, NBD_REP_ERR_UNKNOWN, "there is no export of that name");
    if (!send_info(client, option, export, NBD_INFO_EXPORT) ||
        !send_info(client, option, export, NBD_INFO_BLOCK_SIZE))
        return false;
    for (at += 2; at < option->length; at += 2) {
        enum nbd_info info = (enum nbd_info)get_be16(option->data + at);
        if (info != NBD_INFO_EXPORT && info != NBD_INFO_BLOCK_SIZE &&
            !send_info(client, option, export, info))
            return false;
    }
    if (option->code == NBD_OPT_GO) {
        client->export = export;
        *go = true;
    }
    return acknowledge(client, option);
}

/* False: there is none of this number, or it tells nothing. */
static bool context_name(const struct nbd_export *export, unsigned number,
                         char name[CONTEXT_NAME_ROOM])
{
    struct image_bitmap bitmap;
    strcpy(name, NBD_CONTEXT_ALLOCATION);
    if (!number)
        return true;
    if (number > image_bitmap_count(export->image))
        return false;
    image_bitmap_get(export->image, number - 1, &bitmap);
    snprintf(name, CONTEXT_NAME_ROOM, NBD_CONTEXT_BITMAP "%s", bitmap.name);
    return !bitmap.inconsistent;
}

/* Does a query ask for a context? In a list, a namespace asks for all that it has. */
static bool matches(const uint8_t *query, uint32_t length, bool list, const char *name)
{
    size_t whole = strlen(name);
    bool begins = length && length <= whole && !memcmp(query, name, length);
    bool space = length == strlen("qemu:") || length == strlen(NBD_CONTEXT_BITMAP);
    return begins && (length == whole || (list && space && query[length - 1] == ':'));
}

/* Does one of the queries from `at` on? Their lengths are good. */
static bool asked(const struct option *option, uint32_t at, uint32_t queries, const char *name)
{
    bool list = option->code == NBD_OPT_LIST_META_CONTEXT, found = list && !queries;
    uint32_t length;
    const uint8_t *text;
    for (; queries && !found && take_text(option, &at, &text, &length); queries--)
        found = matches(text, length, list, name);
    return found;
}

static bool queries_good(const struct option *option, uint32_t at, uint32_t queries)
{
    uint32_t length;
    const uint8_t *text;
    for (; queries; queries--)
        if (!take_text(option, &at, &text, &length))
            return false;
    return at == option->length;
}

/* Tells, and notes, which contexts the queries from `at` on ask for. */
static bool choose_contexts(struct nbd_client *client, const struct option *option,
                            const struct nbd_export *export, uint32_t at, uint32_t queries)
{
    bool list = option->code == NBD_OPT_LIST_META_CONTEXT, good = true;
    char name[CONTEXT_NAME_ROOM];
    uint64_t chosen = 0;
    for (unsigned i = 0; i < NBD_CONTEXTS_MAX && good; i++) {
        if (!context_name(export, i, name) || !asked(option, at, queries, name))
            continue;
        uint8_t id[4];
        put_be32(id, list ? 0 : i + 1);
        chosen |= 1ull << i;
        good = reply(client, option, NBD_REP_META_CONTEXT, id, sizeof(id), name);
    }
    if (!list) {
        client->contexts = chosen;
        client->context_export = export;
    }
    return good;
}

static bool meta_contexts(struct nbd_client *client, const struct option *option)
{
    uint32_t at = 0, length;
    const uint8_t *text;
    if (!client->structured)
        return refuse(client, option, NBD_REP_ERR_INVALID, "structured replies come first");
    if (!take_text(option, &at, &text, &length) || !range_within(at, 4, option->length))
        return refuse(client, option, NBD_REP_ERR_INVALID, "the lengths do not add up");
    const struct nbd_export *export = find_export(client, text, length);
    if (!export)
        return refuse(client, option, NBD_REP_ERR_UNKNOWN, "there is no export of that name");
    uint32_t queries = get_be32(option->data + at);
    at += 4;
    if (!queries_good(option, at, queries))
        return refuse(client, option, NBD_REP_ERR_INVALID, "the lengths do not add up");
    return choose_contexts(client, option, export, at, queries) && acknowledge(client, option);
}

static bool start_tls(struct nbd_client *client, const struct option *option)
{
    if (option->length)
        return refuse(client, option, NBD_REP_ERR_INVALID, "STARTTLS has no data");
    if (!client->config->tls)
        return refuse(client, option, NBD_REP_ERR_POLICY, "this server has no TLS");
    if (client->channel.session)
        return refuse(client, option, NBD_REP_ERR_INVALID, "TLS has begun already");
    if (!acknowledge(client, option) || !nbd_tls_start(client->config->tls, &client->channel))
        return false;
    /* What a stranger may have agreed on before does not count. */
    client->structured = false;
    client->contexts = 0;
    client->context_export = NULL;
    return true;
}

/* The oldest way in: no reply but the export's size and flags, or the end. */
static bool export_by_name(struct nbd_client *client, const struct option *option)
{
    uint8_t bytes[10 + EXPORT_PADDING] = {0};
    client->export = find_export(client, option->data, option->length);
    if (!client->export)
        return false;
    put_be64(bytes, image_size(client->export->image));
    put_be16(bytes + 8, nbd_transmission_flags(client, client->export));
    struct iovec iov = {bytes, client->no_zeroes ? 10 : sizeof(bytes)};
    return nbd_channel_send(&client->channel, &iov, 1);
}

static bool structured_reply(struct nbd_client *client, const struct option *option)
{
    if (option->length)
        return refuse(client, option, NBD_REP_ERR_INVALID, "STRUCTURED_REPLY has no data");
    client->structured = true;
    return acknowledge(client, option);
}

static bool serve_option(struct nbd_client *client, const struct option *option, bool *go)
{
    bool clear = client->config->tls && !client->channel.session;
    if (clear && option->code == NBD_OPT_EXPORT_NAME)
        return false;
    if (clear && option->code != NBD_OPT_STARTTLS && option->code != NBD_OPT_ABORT)
        return refuse(client, option, NBD_REP_ERR_TLS_REQD, "this server wants TLS first");
    switch ((enum nbd_option)option->code) {
    case NBD_OPT_EXPORT_NAME:
        *go = true;
        return export_by_name(client, option);
    case NBD_OPT_ABORT:
        acknowledge(client, option);
        return false;
    case NBD_OPT_LIST:
        return list_exports(client, option);
    case NBD_OPT_STARTTLS:
        return start_tls(client, option);
    case NBD_OPT_INFO:
    case NBD_OPT_GO:
        return describe(client, option, go);
    case NBD_OPT_STRUCTURED_REPLY:
        return structured_reply(client, option);
    case NBD_OPT_LIST_META_CONTEXT:
    case NBD_OPT_SET_META_CONTEXT:
        return meta_contexts(client, option);
    }
    return refuse(client, option, NBD_REP_ERR_UNSUP, NULL);
}

static bool receive_option(struct nbd_client *client, struct option *option)
{
    uint8_t header[16];
    if (!nbd_channel_receive(&client->channel, header, sizeof(header)) ||
        get_be64(header) != NBD_OPTION_MAGIC)
        return false;
    option->code = get_be32(header + 8);
    option->length = get_be32(header + 12);
    return option->length > OPTION_MAX ||
           nbd_channel_receive(&client->channel, option->data, option->length);
}

static bool greet(struct nbd_client *client)
{
    uint8_t bytes[18], flags[4];
    put_be64(bytes, NBD_MAGIC);
    put_be64(bytes + 8, NBD_OPTION_MAGIC);
    put_be16(bytes + 16, NBD_FIXED_NEWSTYLE | NBD_NO_ZEROES);
    struct iovec iov = {bytes, sizeof(bytes)};
    if (!nbd_channel_send(&client->channel, &iov, 1) ||
        !nbd_channel_receive(&client->channel, flags, sizeof(flags)))
        return false;
    uint32_t value = get_be32(flags);
    client->no_zeroes = value & NBD_NO_ZEROES;
    return !(value & ~(uint32_t)(NBD_FIXED_NEWSTYLE | NBD_NO_ZEROES));
}

bool nbd_negotiate(struct nbd_client *client)
{
    struct option option;
    bool go = false;
    if (!greet(client))
        return false;
    for (unsigned i = 0; i < OPTIONS_MAX && !go; i++) {
        if (!receive_option(client, &option))
            return false;
        if (option.length > OPTION_MAX) {
            if (!nbd_channel_skip(&client->channel, option.length) ||
                !refuse(client, &option, NBD_REP_ERR_TOO_BIG, "an option is 16 KiB at most"))
                return false;
            continue;
        }
        if (!serve_option(client, &option, &go))
            return false;
    }
    if (client->context_export != client->export)
        client->contexts = 0;
    return go;
}
