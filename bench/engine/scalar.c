/*
 * Scalar rows: integer kernels as compilers make them, pointer chases, unaligned access.
 *
 * SHA-256 follows FIPS 180-4. The others are textbook kernels.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "rows.h"

#include <stdlib.h>
#include <string.h>

#define ALWAYS_CALL __attribute__((noinline, noclone))

/* ---- integer loop ---- */

static uint64_t int_loop(void)
{
    uint64_t x = 88172645463325252u;
    uint64_t sum = 0;

    for (int i = 0; i < 300000; i++) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        sum += x & 0xffff;
        if (x & 0x10000)
            sum ^= 0x5555;
    }
    return mix(sum, x);
}

/* ---- sort ---- */

#define SORTED 10000

static uint32_t sort_input[SORTED];
static uint32_t sort_work[SORTED];

static void sort_setup(void)
{
    uint64_t seed = 1;

    for (int i = 0; i < SORTED; i++)
        sort_input[i] = next_random(&seed);
}

static void quick_sort(uint32_t *a, int low, int high)
{
    while (low < high) {
        uint32_t pivot = a[low + (high - low) / 2];
        int i = low;
        int j = high;

        while (i <= j) {
            while (a[i] < pivot)
                i++;
            while (a[j] > pivot)
                j--;
            if (i <= j) {
                uint32_t t = a[i];

                a[i++] = a[j];
                a[j--] = t;
            }
        }
        quick_sort(a, low, j);
        low = i;
    }
}

static uint64_t sort(void)
{
    uint64_t sum = 0;

    memcpy(sort_work, sort_input, sizeof(sort_work));
    quick_sort(sort_work, 0, SORTED - 1);
    for (int i = 0; i < SORTED; i++)
        sum = mix(sum, sort_work[i]);
    return sum;
}

/* ---- hash table ---- */

#define HASH_BITS 14

static uint64_t hash_keys[1 << HASH_BITS];
static uint32_t hash_values[1 << HASH_BITS];

static unsigned hash_slot(uint64_t key)
{
    unsigned slot = (unsigned)(key * 0x9e3779b97f4a7c15u >> (64 - HASH_BITS));

    while (hash_keys[slot] && hash_keys[slot] != key)
        slot = (slot + 1) & ((1 << HASH_BITS) - 1);
    return slot;
}

static uint64_t hash(void)
{
    uint64_t seed = 7;
    uint64_t sum = 0;

    for (int i = 0; i < 1 << HASH_BITS; i++) {
        hash_keys[i] = 0;
        hash_values[i] = 0;
    }
    for (int i = 0; i < 20000; i++) {
        uint64_t key = next_random(&seed) % 9000 + 1;
        unsigned slot = hash_slot(key);

        hash_keys[slot] = key;
        sum += ++hash_values[slot];
    }
    return sum;
}

/* ---- SHA-256 ---- */

static uint32_t sha_constants[64];
static const uint32_t sha_start[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                      0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
static uint8_t sha_text[16384];

/* Fractional bits of the cube root of each of the first 64 primes, by integer bisection. */
static void sha_setup(void)
{
    uint64_t seed = 3;
    int found = 0;

    for (unsigned prime = 2; found < 64; prime++) {
        unsigned __int128 wanted = (unsigned __int128)prime << 96;
        uint64_t root = 0;
        bool is_prime = true;

        for (unsigned d = 2; d * d <= prime; d++)
            is_prime = is_prime && prime % d;
        if (!is_prime)
            continue;
        for (uint64_t bit = 1ull << 35; bit; bit >>= 1) {
            unsigned __int128 t = root | bit;

            if (t * t * t <= wanted)
                root |= bit;
        }
        sha_constants[found++] = (uint32_t)root;
    }
    for (unsigned i = 0; i < sizeof(sha_text); i++)
        sha_text[i] = (uint8_t)next_random(&seed);
}

static inline uint32_t ror(uint32_t x, unsigned n)
{
    return x >> n | x << (32 - n);
}

static void sha_block(uint32_t *h, const uint8_t *text)
{
    uint32_t w[64];
    uint32_t s[8];

    for (int i = 0; i < 16; i++) {
        memcpy(&w[i], text + 4 * i, 4);
        w[i] = __builtin_bswap32(w[i]);
    }
    for (int i = 16; i < 64; i++)
        w[i] = w[i - 16] + w[i - 7] + (ror(w[i - 15], 7) ^ ror(w[i - 15], 18) ^ w[i - 15] >> 3) +
               (ror(w[i - 2], 17) ^ ror(w[i - 2], 19) ^ w[i - 2] >> 10);
    memcpy(s, h, sizeof(s));
    for (int i = 0; i < 64; i++) {
        uint32_t t1 = s[7] + (ror(s[4], 6) ^ ror(s[4], 11) ^ ror(s[4], 25)) +
                      ((s[4] & s[5]) ^ (~s[4] & s[6])) + sha_constants[i] + w[i];
        uint32_t t2 = (ror(s[0], 2) ^ ror(s[0], 13) ^ ror(s[0], 22)) +
                      ((s[0] & s[1]) ^ (s[0] & s[2]) ^ (s[1] & s[2]));

        memmove(s + 1, s, 7 * sizeof(s[0]));
        s[4] += t1;
        s[0] = t1 + t2;
    }
    for (int i = 0; i < 8; i++)
        h[i] += s[i];
}

static uint64_t sha256(void)
{
    uint32_t h[8];
    uint64_t sum = 0;

    memcpy(h, sha_start, sizeof(h));
    for (unsigned i = 0; i < sizeof(sha_text); i += 64)
        sha_block(h, sha_text + i);
    for (int i = 0; i < 8; i++)
        sum = mix(sum, h[i]);
    return sum;
}

/* ---- recursive calls ---- */

static ALWAYS_CALL uint64_t ackermann(uint64_t m, uint64_t n)
{
    if (!m)
        return n + 1;
    return ackermann(m - 1, n ? ackermann(m, n - 1) : 1);
}

static ALWAYS_CALL unsigned fibonacci(unsigned n)
{
    return n < 2 ? n : fibonacci(n - 1) + fibonacci(n - 2);
}

static uint64_t recursion(void)
{
    return mix(fibonacci(21), ackermann(2, 60));
}

/* ---- a bytecode interpreter with a switch ---- */

enum code { LOAD, ADD, SUB, MUL, XOR, SHIFT, COPY, DECREMENT, BRANCH, STOP };

static const uint8_t program[] = {
    LOAD,   0, 17, LOAD, 1, 3, LOAD, 2, 200, LOAD,  3, 99, /* set up */
    ADD,    0, 1,  MUL,  0, 3, XOR,  1, 0,   SHIFT, 1, 5,  SUB,       3, 1,
    COPY,   4, 0,                                                           /* offset 12 */
    ADD,    4, 3,  XOR,  3, 4, ADD,  1, 4,   MUL,   3, 1,  DECREMENT, 2, 0, /* loop */
    BRANCH, 2, 12, STOP, 0, 0,
};

static ALWAYS_CALL uint64_t interpret(const uint8_t *code)
{
    uint64_t r[8] = {0};
    const uint8_t *at = code;

    for (;; at += 3) {
        uint64_t *a = &r[at[1] & 7];
        uint64_t b = r[at[2] & 7];

        switch ((enum code)at[0]) {
        case LOAD:
            *a = at[2];
            break;
        case ADD:
            *a += b;
            break;
        case SUB:
            *a -= b;
            break;
        case MUL:
            *a *= b | 1;
            break;
        case XOR:
            *a ^= b;
            break;
        case SHIFT:
            *a = *a >> at[2] | *a << (64 - at[2]);
            break;
        case COPY:
            *a = b;
            break;
        case DECREMENT:
            *a -= 1;
            break;
        case BRANCH:
            if (*a)
                at = code + at[2] - 3;
            break;
        case STOP:
            return mix(r[0], mix(r[1], mix(r[3], r[4])));
        }
    }
}

static uint64_t interpreter(void)
{
    uint64_t sum = 0;

    for (int i = 0; i < 20; i++)
        sum = mix(sum, interpret(program));
    return sum;
}

/* ---- indirect calls ---- */

static ALWAYS_CALL uint64_t call_add(uint64_t x)
{
    return x + 0x1234567;
}
static ALWAYS_CALL uint64_t call_rotate(uint64_t x)
{
    return x << 9 | x >> 55;
}
static ALWAYS_CALL uint64_t call_xor(uint64_t x)
{
    return x ^ 0xf0f0f0f0f0f0f0f;
}
static ALWAYS_CALL uint64_t call_multiply(uint64_t x)
{
    return x * 2862933555777941757u;
}
static ALWAYS_CALL uint64_t call_swap(uint64_t x)
{
    return __builtin_bswap64(x);
}
static ALWAYS_CALL uint64_t call_not(uint64_t x)
{
    return ~x;
}
static ALWAYS_CALL uint64_t call_shift(uint64_t x)
{
    return x ^ x >> 11;
}
static ALWAYS_CALL uint64_t call_next(uint64_t x)
{
    return x + 1;
}

static uint64_t (*const volatile call_table[])(uint64_t) = {
    call_add, call_rotate, call_xor, call_multiply, call_swap, call_not, call_shift, call_next};

static uint64_t indirect_calls(void)
{
    uint64_t seed = 5;
    uint64_t x = 1;

    for (int i = 0; i < 50000; i++)
        x = call_table[next_random(&seed) >> 29](x);
    return x;
}

/* ---- binary search tree ---- */

#define TREE_NODES 4000

struct node {
    struct node *child[2];
    uint32_t key;
};

static struct node tree_nodes[TREE_NODES];

static uint64_t tree_sum(const struct node *node, uint64_t sum)
{
    if (!node)
        return sum;
    return tree_sum(node->child[1], mix(tree_sum(node->child[0], sum), node->key));
}

static uint64_t binary_tree(void)
{
    struct node *root = NULL;
    uint64_t seed = 11;

    for (int i = 0; i < TREE_NODES; i++) {
        struct node *fresh = &tree_nodes[i];
        struct node **at = &root;

        fresh->child[0] = fresh->child[1] = NULL;
        fresh->key = next_random(&seed);
        while (*at)
            at = &(*at)->child[fresh->key > (*at)->key];
        *at = fresh;
    }
    return tree_sum(root, 0);
}

/* ---- LZ compression and expansion ---- */

#define LZ_SIZE 32768

static uint8_t lz_plain[LZ_SIZE];
static uint8_t lz_packed[LZ_SIZE * 2];
static uint8_t lz_again[LZ_SIZE];
static uint16_t lz_last[4096]; /* position + 1 at which a hash of four bytes was seen */

static void lz_setup(void)
{
    static const char *const words[] = {"the ",    "machine ", "reads ", "a ",  "page ", "and ",
                                        "writes ", "it ",      "back, ", "or ", "so.\n", "never "};
    uint64_t seed = 13;
    unsigned at = 0;

    while (at < LZ_SIZE) {
        const char *word = words[next_random(&seed) % 12];

        while (*word && at < LZ_SIZE)
            lz_plain[at++] = (uint8_t)*word++;
        if (at < LZ_SIZE && next_random(&seed) % 4 == 0)
            lz_plain[at++] = (uint8_t)next_random(&seed);
    }
}

/* A token is 0, byte (a literal) or length 4 to 255, distance in two bytes. */
static unsigned lz_pack(void)
{
    unsigned in = 0;
    unsigned out = 0;

    memset(lz_last, 0, sizeof(lz_last));
    while (in < LZ_SIZE) {
        unsigned length = 0;
        unsigned from = 0;

        if (in + 4 <= LZ_SIZE) {
            uint32_t four;
            uint16_t *last;

            memcpy(&four, lz_plain + in, 4);
            last = &lz_last[four * 2654435761u >> 20];
            from = *last;
            *last = (uint16_t)(in + 1);
            if (from--)
                while (length < 255 && in + length < LZ_SIZE &&
                       lz_plain[from + length] == lz_plain[in + length])
                    length++;
        }
        if (length >= 4) {
            lz_packed[out++] = (uint8_t)length;
            lz_packed[out++] = (uint8_t)(in - from);
            lz_packed[out++] = (uint8_t)((in - from) >> 8);
            in += length;
        } else {
            lz_packed[out++] = 0;
            lz_packed[out++] = lz_plain[in++];
        }
    }
    return out;
}

static void lz_expand(unsigned size)
{
    unsigned in = 0;
    unsigned out = 0;

    while (in < size) {
        unsigned length = lz_packed[in++];

        if (length) {
            unsigned from = out - (lz_packed[in] | (unsigned)lz_packed[in + 1] << 8);

            in += 2;
            while (length--)
                lz_again[out++] = lz_again[from++];
        } else {
            lz_again[out++] = lz_packed[in++];
        }
    }
}

static uint64_t lz(void)
{
    unsigned size = lz_pack();
    uint64_t sum = size;

    memset(lz_again, 0, sizeof(lz_again));
    lz_expand(size);
    if (memcmp(lz_plain, lz_again, LZ_SIZE))
        return 0;
    for (unsigned i = 0; i < size; i++)
        sum = mix(sum, lz_packed[i]);
    return sum;
}

/* ---- pointer chases ---- */

/* Links lines of 64 bytes into one random cycle (Sattolo's shuffle). */
static uint32_t *chase_cycle(unsigned bytes)
{
    unsigned lines = bytes / 64;
    uint32_t *order = malloc(lines * sizeof(*order));
    uint32_t *links = own_memory(bytes);
    uint64_t seed = 17;

    if (!order)
        die("memory for a chase");
    for (unsigned i = 0; i < lines; i++)
        order[i] = i;
    for (unsigned i = lines - 1; i > 0; i--) {
        unsigned j = next_random(&seed) % i;
        uint32_t t = order[i];

        order[i] = order[j];
        order[j] = t;
    }
    for (unsigned i = 0; i < lines; i++)
        links[order[i] * 16] = order[(i + 1) % lines] * 16;
    free(order);
    return links;
}

static uint64_t chase(const uint32_t *links, unsigned steps)
{
    uint32_t at = 0;
    uint64_t sum = 0;

    for (unsigned i = 0; i < steps; i++) {
        at = links[at];
        sum += at;
    }
    return mix(sum, at);
}

static const uint32_t *small_links;
static const uint32_t *large_links;

static void chase_small_setup(void)
{
    small_links = chase_cycle(16 << 10);
}
static void chase_large_setup(void)
{
    large_links = chase_cycle(64 << 20);
}
static uint64_t chase_small(void)
{
    return chase(small_links, 100000);
}
static uint64_t chase_large(void)
{
    return chase(large_links, 20000);
}

/* ---- unaligned and page-crossing access ---- */

#define PAGE 4096u
#define PAGES 8u

static uint8_t *fixed_pages; /* only read by the units */
static uint8_t *pages;       /* a unit writes before it reads */

static void pages_setup(void)
{
    uint64_t seed = 29;

    if (pages)
        return;
    fixed_pages = own_memory(PAGES * PAGE);
    pages = own_memory(PAGES * PAGE);
    for (unsigned i = 0; i < PAGES * PAGE; i++) {
        fixed_pages[i] = (uint8_t)next_random(&seed);
        pages[i] = 0;
    }
}

/* A read, a write and a read of what was written, eight bytes each. */
static inline uint64_t touch(unsigned offset, uint64_t x)
{
    uint64_t value;

    memcpy(&value, fixed_pages + offset, sizeof(value));
    x += value ^ x >> 31;
    memcpy(pages + offset, &x, sizeof(x));
    barrier();
    memcpy(&value, pages + offset, sizeof(value));
    return value + offset;
}

static uint64_t unaligned(void)
{
    uint64_t x = 1;

    for (unsigned page = 0; page < PAGES; page++)
        for (unsigned i = 1; i < PAGE - 8; i += 11)
            x = touch(page * PAGE + i, x);
    return x;
}

static uint64_t page_crossing(void)
{
    uint64_t x = 1;

    for (unsigned turn = 0; turn < 100; turn++)
        for (unsigned page = 1; page < PAGES; page++)
            x = touch(page * PAGE - 1 - turn % 7, x);
    return x;
}

const struct row scalar_rows[] = {
    {"int-loop", "scalar", 1, NULL, int_loop, false},
    {"sort", "scalar", 1, sort_setup, sort, false},
    {"hash", "scalar", 1, NULL, hash, false},
    {"sha256", "scalar", 1, sha_setup, sha256, false},
    {"recursion", "scalar", 1, NULL, recursion, false},
    {"interpreter", "scalar", 1, NULL, interpreter, false},
    {"indirect-calls", "scalar", 1, NULL, indirect_calls, false},
    {"binary-tree", "scalar", 1, NULL, binary_tree, false},
    {"lz", "scalar", 1, lz_setup, lz, false},
    {"chase-16k", "scalar", 1, chase_small_setup, chase_small, false},
    {"chase-64m", "scalar", 1, chase_large_setup, chase_large, false},
    {"unaligned", "scalar", 1, pages_setup, unaligned, false},
    {"page-crossing", "scalar", 1, pages_setup, page_crossing, false},
    {0},
};
