/*
 * LUKS: the header, its key slots, and how a passphrase opens one.
 *
 * The master key lies in a slot as 4000 stripes, all of which are needed to put it together, and
 * they are encrypted with a key that is slow to derive from the passphrase.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/checked.h"
#include "base/clock.h"
#include "block/format/luks_crypto.h"

#define MAGIC "LUKS\xba\xbe"
#define SLOT_AT(i) (208u + (i)*48u)
#define SLOT_ACTIVE 0x00ac71f3u
#define SLOT_UNUSED 0x0000deadu
#define STRIPES 4000u
#define DIGEST 20u
#define SALT 32u
#define ALIGN_SECTORS 8u     /* of key material */
#define PAYLOAD_SECTORS 4096 /* of a new image: 2 MiB, as cryptsetup does */
#define ITERATIONS_MIN 1000u
#define ITERATIONS_MAX 1000000000u
#define PAYLOAD_MAX MIB(64)

struct slot {
    bool active;
    uint32_t iterations, at, stripes; /* at: bytes */
    uint8_t salt[SALT];
};

struct luks {
    struct luks_crypto crypto;
    struct luks_cipher cipher;
    bool unlocked;
    char name[33], mode[33], hash[33], uuid[41];
    uint64_t payload; /* bytes */
    uint32_t key_bytes, digest_iterations;
    uint8_t digest[DIGEST], digest_salt[SALT];
    struct slot slot[LUKS_SLOTS];
};

static void take_text(char *out, const uint8_t *field, size_t length)
{
    memcpy(out, field, length);
    out[length] = 0;
}

static void read_slots(struct luks *luks, const uint8_t *header)
{
    for (unsigned i = 0; i < LUKS_SLOTS; i++) {
        const uint8_t *from = header + SLOT_AT(i);
        struct slot *slot = &luks->slot[i];
        slot->active = get_be32(from) == SLOT_ACTIVE;
        slot->iterations = get_be32(from + 4);
        memcpy(slot->salt, from + 8, SALT);
        uint64_t at = (uint64_t)get_be32(from + 40) * LUKS_SECTOR;
        slot->stripes = get_be32(from + 44);
        slot->at = (uint32_t)MIN(at, (uint64_t)UINT32_MAX);
    }
}

static struct err *read_header(struct luks *luks, const uint8_t *header)
{
    const EVP_CIPHER *cipher;
    enum luks_iv iv;
    take_text(luks->name, header + 8, 32);
    take_text(luks->mode, header + 40, 32);
    take_text(luks->hash, header + 72, 32);
    take_text(luks->uuid, header + 168, 40);
    luks->payload = (uint64_t)get_be32(header + 104) * LUKS_SECTOR;
    luks->key_bytes = get_be32(header + 108);
    memcpy(luks->digest, header + 112, DIGEST);
    memcpy(luks->digest_salt, header + 132, SALT);
    luks->digest_iterations = get_be32(header + 164);
    if (strcmp(luks->name, "aes") || luks->key_bytes > LUKS_KEY_MAX ||
        !luks_cipher_find(&luks->crypto, luks->mode, luks->key_bytes, &cipher, &iv))
        return err_new("its cipher is not supported: AES in modes xts and cbc is");
    if (!luks_hash(&luks->crypto, luks->hash))
        return err_new("its hash is not supported: sha1, sha256 and sha512 are");
    if (luks->payload < LUKS_HEADER || luks->payload > PAYLOAD_MAX)
        return err_new("its payload begins at byte %llu, which cannot be",
                       (unsigned long long)luks->payload);
    if (!luks->digest_iterations || luks->digest_iterations > ITERATIONS_MAX)
        return err_new("its digest has a bad number of iterations");
    read_slots(luks, header);
    return NULL;
}

struct err *luks_open(const uint8_t *header, size_t length, struct luks **out)
{
    if (length < LUKS_HEADER || memcmp(header, MAGIC, 6))
        return err_new("it is not a LUKS image");
    if (get_be16(header + 6) != 1)
        return err_new("it has version %u of LUKS; only 1 is supported", get_be16(header + 6));
    struct luks *luks = xcalloc(1, sizeof(*luks));
    struct err *err = luks_crypto_load(&luks->crypto);
    if (!err)
        err = read_header(luks, header);
    if (err) {
        luks_close(luks);
        return err;
    }
    *out = luks;
    return NULL;
}

void luks_close(struct luks *luks)
{
    if (!luks)
        return;
    luks_cipher_fini(&luks->cipher);
    library_unload(luks->crypto.handle);
    free(luks);
}

uint64_t luks_payload(const struct luks *luks)
{
    return luks->payload;
}

bool luks_locked(const struct luks *luks)
{
    return !luks->unlocked;
}

int luks_decrypt(struct luks *luks, uint64_t sector, uint8_t *data, size_t length)
{
    return luks_cipher_run(&luks->cipher, false, sector, data, data, length);
}

int luks_encrypt(struct luks *luks, uint64_t sector, const uint8_t *data, uint8_t *out,
                 size_t length)
{
    return luks_cipher_run(&luks->cipher, true, sector, data, out, length);
}

static bool derive(const struct luks *luks, const void *key, size_t key_length, const uint8_t *salt,
                   uint32_t iterations, uint8_t *out, size_t length)
{
    return luks->crypto.PKCS5_PBKDF2_HMAC(key, (int)key_length, salt, SALT, (int)iterations,
                                          luks_hash(&luks->crypto, luks->hash), (int)length, out);
}

/* Every bit of the block comes to depend on every other. */
static bool diffuse(const struct luks *luks, uint8_t *block, size_t length)
{
    const EVP_MD *hash = luks_hash(&luks->crypto, luks->hash);
    size_t size = (size_t)luks->crypto.EVP_MD_get_size(hash);
    for (size_t at = 0; at < length; at += size) {
        uint8_t in[4 + EVP_MAX_MD_SIZE], out[EVP_MAX_MD_SIZE];
        size_t here = MIN(size, length - at);
        put_be32(in, (uint32_t)(at / size));
        memcpy(in + 4, block + at, here);
        if (!luks->crypto.EVP_Digest(in, 4 + here, out, NULL, hash, NULL))
            return false;
        memcpy(block + at, out, here);
    }
    return true;
}

/* All stripes but the last, mixed; the key is what that and the last differ in. */
static bool mix_stripes(const struct luks *luks, const uint8_t *stripes, uint8_t *mixed)
{
    memset(mixed, 0, luks->key_bytes);
    for (unsigned i = 0; i + 1 < STRIPES; i++) {
        for (unsigned k = 0; k < luks->key_bytes; k++)
            mixed[k] ^= stripes[i * luks->key_bytes + k];
        if (!diffuse(luks, mixed, luks->key_bytes))
            return false;
    }
    return true;
}

static bool right_key(const struct luks *luks, const uint8_t *master)
{
    uint8_t digest[DIGEST];
    return derive(luks, master, luks->key_bytes, luks->digest_salt, luks->digest_iterations, digest,
                  DIGEST) &&
           !memcmp(digest, luks->digest, DIGEST);
}

/* The key material of a slot, in or out of its cipher, in place. */
static int crypt_material(const struct luks *luks, bool encrypt, const uint8_t *slot_key,
                          uint8_t *material, size_t length)
{
    struct luks_cipher cipher;
    int result = luks_cipher_init(&cipher, &luks->crypto, luks->mode, slot_key, luks->key_bytes);
    if (!result)
        result = luks_cipher_run(&cipher, encrypt, 0, material, material, length);
    luks_cipher_fini(&cipher);
    return result;
}

static size_t material_length(const struct luks *luks)
{
    return ALIGN_UP((size_t)luks->key_bytes * STRIPES, (size_t)LUKS_SECTOR);
}

/* The master key out of one slot, if the passphrase is its. */
static bool try_slot(const struct luks *luks, const struct slot *slot, const uint8_t *area,
                     size_t area_length, const void *key, size_t key_length, uint8_t *master)
{
    size_t length = material_length(luks);
    uint8_t slot_key[LUKS_KEY_MAX];
    if (!slot->active || slot->stripes != STRIPES || !slot->iterations ||
        slot->iterations > ITERATIONS_MAX || !range_within(slot->at, length, area_length))
        return false;
    uint8_t *material = malloc(length);
    bool good = material && derive(luks, key, key_length, slot->salt, slot->iterations, slot_key,
                                   luks->key_bytes);
    if (good)
        memcpy(material, area + slot->at, length);
    good = good && !crypt_material(luks, false, slot_key, material, length) &&
           mix_stripes(luks, material, master);
    for (unsigned k = 0; good && k < luks->key_bytes; k++)
        master[k] ^= material[(STRIPES - 1) * luks->key_bytes + k];
    good = good && right_key(luks, master);
    if (material)
        explicit_bzero(material, length);
    free(material);
    explicit_bzero(slot_key, sizeof(slot_key));
    return good;
}

struct err *luks_unlock(struct luks *luks, const uint8_t *area, size_t length, const void *key,
                        size_t key_length)
{
    uint8_t master[LUKS_KEY_MAX];
    bool found = false;
    for (unsigned i = 0; i < LUKS_SLOTS && !found; i++)
        found = try_slot(luks, &luks->slot[i], area, length, key, key_length, master);
    int result =
        found ? luks_cipher_init(&luks->cipher, &luks->crypto, luks->mode, master, luks->key_bytes)
              : 0;
    explicit_bzero(master, sizeof(master));
    if (!found)
        return err_of(ERR_DENIED, "the passphrase opens none of its key slots");
    luks->unlocked = !result;
    return result ? err_errno(-result, "cannot set up its cipher") : NULL;
}

/* How many iterations take that long here. */
static uint32_t iterations_for(const struct luks *luks, unsigned milliseconds)
{
    uint8_t salt[SALT] = {0}, out[LUKS_KEY_MAX];
    uint64_t count = ITERATIONS_MIN, spent = 0;
    while (spent < 20 * NSEC_PER_MSEC && count < ITERATIONS_MAX / 4) {
        count *= 2;
        uint64_t start = clock_now_ns();
        if (!derive(luks, "tenon", 5, salt, (uint32_t)count, out, luks->key_bytes))
            break;
        spent = MAX(clock_now_ns() - start, (uint64_t)1);
    }
    uint64_t wanted = count * milliseconds * NSEC_PER_MSEC / MAX(spent, (uint64_t)1);
    return (uint32_t)MAX(MIN(wanted, (uint64_t)ITERATIONS_MAX), (uint64_t)ITERATIONS_MIN);
}

static bool make_uuid(const struct luks *luks, char *out)
{
    uint8_t b[16];
    if (luks->crypto.RAND_bytes(b, sizeof(b)) != 1)
        return false;
    b[6] = (b[6] & 0x0f) | 0x40;
    b[8] = (b[8] & 0x3f) | 0x80;
    snprintf(out, 37, "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", b[0],
             b[1], b[2], b[3], b[4], b[5], b[6], b[7], b[8], b[9], b[10], b[11], b[12], b[13],
             b[14], b[15]);
    return true;
}

static void write_header(const struct luks *luks, uint8_t *header)
{
    memcpy(header, MAGIC, 6);
    put_be16(header + 6, 1);
    memcpy(header + 8, luks->name, 32);
    memcpy(header + 40, luks->mode, 32);
    memcpy(header + 72, luks->hash, 32);
    put_be32(header + 104, (uint32_t)(luks->payload / LUKS_SECTOR));
    put_be32(header + 108, luks->key_bytes);
    memcpy(header + 112, luks->digest, DIGEST);
    memcpy(header + 132, luks->digest_salt, SALT);
    put_be32(header + 164, luks->digest_iterations);
    memcpy(header + 168, luks->uuid, 40);
    for (unsigned i = 0; i < LUKS_SLOTS; i++) {
        const struct slot *slot = &luks->slot[i];
        uint8_t *to = header + SLOT_AT(i);
        put_be32(to, slot->active ? SLOT_ACTIVE : SLOT_UNUSED);
        put_be32(to + 4, slot->iterations);
        memcpy(to + 8, slot->salt, SALT);
        put_be32(to + 40, slot->at / LUKS_SECTOR);
        put_be32(to + 44, STRIPES);
    }
}

/* The stripes of `master` into the first slot's place. */
static bool fill_slot(struct luks *luks, const uint8_t *master, const void *key, size_t key_length,
                      uint8_t *area)
{
    struct slot *slot = &luks->slot[0];
    uint8_t *material = area + slot->at, mixed[LUKS_KEY_MAX], slot_key[LUKS_KEY_MAX];
    size_t last = (size_t)(STRIPES - 1) * luks->key_bytes;
    bool good =
        luks->crypto.RAND_bytes(material, (int)last) == 1 && mix_stripes(luks, material, mixed);
    for (unsigned k = 0; good && k < luks->key_bytes; k++)
        material[last + k] = master[k] ^ mixed[k];
    good = good &&
           derive(luks, key, key_length, slot->salt, slot->iterations, slot_key, luks->key_bytes) &&
           !crypt_material(luks, true, slot_key, material, material_length(luks));
    explicit_bzero(slot_key, sizeof(slot_key));
    explicit_bzero(mixed, sizeof(mixed));
    return good;
}

/* A header in memory with a fresh master key. */
static bool choose(struct luks *luks, const struct luks_options *options, uint8_t *master)
{
    uint32_t step = ALIGN_UP((uint32_t)(material_length(luks) / LUKS_SECTOR), ALIGN_SECTORS);
    const struct luks_crypto *crypto = &luks->crypto;
    for (unsigned i = 0; i < LUKS_SLOTS; i++)
        luks->slot[i].at = (ALIGN_SECTORS + i * step) * LUKS_SECTOR;
    luks->payload = (uint64_t)PAYLOAD_SECTORS * LUKS_SECTOR;
    luks->slot[0].active = true;
    luks->slot[0].iterations = iterations_for(luks, options->iterate_ms);
    /* Whoever has the key needs its digest for nothing: an eighth of the time is enough. */
    luks->digest_iterations = MAX(luks->slot[0].iterations / 8, ITERATIONS_MIN);
    return crypto->RAND_bytes(master, (int)luks->key_bytes) == 1 &&
           crypto->RAND_bytes(luks->digest_salt, SALT) == 1 &&
           crypto->RAND_bytes(luks->slot[0].salt, SALT) == 1 && make_uuid(luks, luks->uuid) &&
           derive(luks, master, luks->key_bytes, luks->digest_salt, luks->digest_iterations,
                  luks->digest, DIGEST);
}

struct err *luks_format(const struct luks_options *options, const void *key, size_t key_length,
                        uint8_t **area, size_t *length)
{
    struct luks *luks = xcalloc(1, sizeof(*luks));
    uint8_t master[LUKS_KEY_MAX];
    struct err *err = luks_crypto_load(&luks->crypto);
    strcpy(luks->name, "aes");
    strcpy(luks->mode, "xts-plain64");
    snprintf(luks->hash, sizeof(luks->hash), "%s", options->hash);
    luks->key_bytes = options->key_bits / 4; /* xts needs two */
    if (!err && !luks_hash(&luks->crypto, luks->hash))
        err = err_of(ERR_USAGE, "the hash is sha1, sha256 or sha512, not '%s'", options->hash);
    if (!err && !choose(luks, options, master))
        err = err_new("libcrypto gives no random numbers");
    *area = NULL;
    if (!err) {
        *length = luks->payload;
        *area = xcalloc(1, luks->payload);
        write_header(luks, *area);
        if (!fill_slot(luks, master, key, key_length, *area))
            err = err_new("libcrypto cannot encrypt");
    }
    explicit_bzero(master, sizeof(master));
    if (err) {
        free(*area);
        *area = NULL;
    }
    luks_close(luks);
    return err;
}

void luks_get_info(const struct luks *luks, struct luks_info *info)
{
    *info = (struct luks_info){.key_bytes = luks->key_bytes,
                               .digest_iterations = luks->digest_iterations};
    memcpy(info->cipher, luks->name, sizeof(info->cipher));
    memcpy(info->mode, luks->mode, sizeof(info->mode));
    memcpy(info->hash, luks->hash, sizeof(info->hash));
    memcpy(info->uuid, luks->uuid, sizeof(info->uuid));
    for (unsigned i = 0; i < LUKS_SLOTS; i++)
        info->slots_used += luks->slot[i].active;
}
