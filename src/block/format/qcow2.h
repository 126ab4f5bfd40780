/*
 * qcow2, versions 2 and 3: what the parts of the driver share.
 *
 * Specification: docs/interop/qcow2.txt of QEMU. A crash or a power cut at any moment leaves leaked
 * clusters at most, because of three rules. (1) A table entry reaches the file after a flush of
 * what it points to and of its reference count. (2) A count goes down only after a flush of the
 * entry that was taken away: until then the cluster is in `gone` and nobody gets it. (3) Tables
 * that move (L1, reference table) are complete and flushed before the header names them.
 *
 * Tables are looked up and changed under `lock`; the data of clusters moves outside of it: see
 * qcow2_ops.c. Calls that have the node alone (open, check, resize, snapshots, close) take no lock.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_BLOCK_FORMAT_QCOW2_H
#define TENON_BLOCK_FORMAT_QCOW2_H

#include "base/bytes.h"
#include "base/list.h"
#include "base/lock.h"
#include "base/spare.h"
#include "block/core/driver.h"

#define QCOW2_MAGIC 0x514649fbu
#define QCOW2_OFFSET_MASK 0x00fffffffffffe00ull
#define QCOW2_COPIED (1ull << 63)
#define QCOW2_COMPRESSED (1ull << 62)
#define QCOW2_ZERO 1ull
#define QCOW2_L1_MAX MIB(32)      /* bytes */
#define QCOW2_REFTABLE_MAX MIB(8) /* bytes */
#define QCOW2_GONE_MAX 4096       /* more wait for calls that are under way only */
#define QCOW2_SNAPSHOTS_MAX 65536
#define QCOW2_SPARE_MAX 16u

#define QCOW2_INCOMPAT_DIRTY (1ull << 0)
#define QCOW2_INCOMPAT_CORRUPT (1ull << 1)
#define QCOW2_INCOMPAT_DATA_FILE (1ull << 2)
#define QCOW2_INCOMPAT_COMPRESSION (1ull << 3)
#define QCOW2_INCOMPAT_EXTENDED_L2 (1ull << 4)
#define QCOW2_COMPAT_LAZY (1ull << 0)
#define QCOW2_AUTOCLEAR_BITMAPS (1ull << 0)
#define QCOW2_AUTOCLEAR_RAW_DATA (1ull << 1)
#define QCOW2_EXT_BITMAPS 0x23852875u
#define QCOW2_EXT_CRYPTO 0x0537be77u
#define QCOW2_CRYPT_LUKS 2u
#define QCOW2_EXT_DATA_FILE 0x44415441u

/* Slices of tables in memory, found by their offset in the file. */
struct qcow2_slice {
    uint64_t offset; /* 0: empty */
    uint64_t used;
    bool dirty;
};

struct qcow2_cache {
    struct qcow2_slice *slice;
    uint8_t *data;
    unsigned sets;
    uint64_t clock;
    unsigned dirty;
};

struct qcow2_snapshot {
    uint64_t l1_offset;
    uint32_t l1_size;
    struct image_snapshot say;
    uint32_t extra_size;
    uint8_t *extra; /* beyond what we know; kept */
};

/* A data call under way, on its stack. */
struct qcow2_op {
    struct list link;
    uint64_t began;      /* q->sequence then */
    uint64_t first, end; /* guest bytes of the clusters that it gives a place; end 0: none */
};

/* A cluster that loses a reference after the next flush. */
struct qcow2_gone {
    uint64_t cluster;  /* its number; 0: done */
    uint64_t sequence; /* calls that began before may still use it */
};

/* What one thread needs to unpack a cluster. */
struct qcow2_unpacker {
    bool busy;
    uint64_t used;
    uint8_t *plain; /* the cluster that it unpacked last ... */
    uint64_t entry; /* ... from this L2 entry; 0: none */
    uint8_t *packed;
    void *inflater, *unzstd;
};

/* What an L2 entry says. */
enum qcow2_kind {
    QCOW2_UNALLOCATED,
    QCOW2_ZERO_PLAIN,
    QCOW2_ZERO_ALLOCATED,
    QCOW2_NORMAL,
    QCOW2_PACKED /* compressed */
};

struct qcow2 {
    struct image *image;
    struct image *file;
    struct image *data;      /* where guest clusters lie: `file`, or an external data file */
    char *data_name;         /* of that, as the image says; owned; untrusted */
    bool external;           /* the latter: each cluster at its guest offset, without counts */
    struct lock lock;        /* LOCK_NODE */
    pthread_cond_t progress; /* a claim was released, a flush went on */
    struct list ops;         /* in the order of their beginning */
    uint64_t sequence;
    bool frozen;   /* a flush makes stable what the L2 slices name: they stay as they are */
    bool flushing; /* a flush is under way */
    uint64_t flush_begun, flush_ended;
    int flush_result;
    unsigned version, cluster_bits, refcount_order;
    unsigned entry_bits; /* log2 of an L2 entry's bytes: 3, or 4 if it is extended */
    uint64_t cluster_size;
    uint32_t slice_size;
    uint64_t incompatible, compatible, autoclear;
    unsigned compression; /* 0 zlib, 1 zstd */
    uint32_t header_length;
    bool prepared;         /* for writing: what it has of bitmaps is marked */
    bool lazy_dirty;       /* it is marked dirty for the sake of lazy counts, and of nothing else */
    uint32_t bitmap_count; /* in the file's directory of dirty bitmaps ... */
    uint64_t bitmap_at, bitmap_size, bitmap_bits;

    uint32_t crypt_method; /* 0: none */
    struct luks *luks;     /* the data node's */
    uint64_t crypt_at, crypt_size;

    uint64_t l1_offset;
    uint32_t l1_size;                /* entries */
    uint64_t *l1;                    /* host order */
    uint32_t l1_dirty, l1_dirty_end; /* entries that the file does not have yet; equal: none */
    uint64_t reftable_offset;
    uint32_t reftable_size; /* entries */
    uint64_t *reftable;     /* host order */
    uint32_t reftable_used; /* behind these entries there is none that names a block */

    struct qcow2_cache l2, refs;
    uint64_t hint;      /* no free cluster before this number */
    uint64_t virgin;    /* from this byte the file was never written: it reads as zeros */
    bool ragged;        /* a new cluster was written in part: the file may end within it */
    uint64_t pack_next; /* byte where the next compressed cluster may go; 0: none */
    struct qcow2_gone *gone;
    size_t gone_count, gone_room;

    uint8_t *cluster;                  /* a cluster of scratch, under the lock */
    uint8_t *scratch[QCOW2_SPARE_MAX]; /* others that no call uses */
    unsigned scratch_count;
    struct qcow2_unpacker unpacker[QCOW2_SPARE_MAX];
    struct spare zlib, zstd; /* compressors */

    uint64_t snapshots_offset;
    uint32_t snapshot_count;
    struct qcow2_snapshot *snapshot;
};

/* Are its reference counts written when it is closed, and before that only as it happens? */
static inline bool qcow2_lazy(const struct qcow2 *q)
{
    return q->prepared && q->compatible & QCOW2_COMPAT_LAZY &&
           !(q->image->flags & IMAGE_OPEN_SCRATCH);
}

/* qcow2_cache.c */
int qcow2_cache_init(struct qcow2_cache *cache, uint32_t slice_size, uint64_t bytes);
void qcow2_cache_fini(struct qcow2_cache *cache);
/* The slice at this offset of the file; the pointer holds until the next call for this cache. */
int qcow2_l2_slice(struct qcow2 *q, uint64_t offset, uint8_t **data);
int qcow2_ref_slice(struct qcow2 *q, uint64_t offset, uint8_t **data);
void qcow2_cache_dirty(struct qcow2 *q, struct qcow2_cache *cache, const uint8_t *data);
/* The clusters from `offset` are no tables any more, or new ones: nothing in memory of them. */
void qcow2_forget(struct qcow2 *q, uint64_t offset, uint64_t length);
int qcow2_sync(struct qcow2 *q); /* the file, if order matters */
int qcow2_write_refs(struct qcow2 *q);
int qcow2_write_l2(struct qcow2 *q); /* and L1 */
/* Everything, in order; then the clusters that are gone become free. Without leaving the lock. */
int qcow2_flush_all(struct qcow2 *q);
/* The same under the lock, which it leaves while the disk works. One at a time. */
int qcow2_flush_shared(struct qcow2 *q);

/* qcow2_ops.c, under the lock but for qcow2_flush */
void qcow2_ops_init(struct qcow2 *q);
void qcow2_ops_fini(struct qcow2 *q);
void qcow2_op_begin(struct qcow2 *q, struct qcow2_op *op);
void qcow2_op_end(struct qcow2 *q, struct qcow2_op *op);
/* Before tables change: until nobody gives places to these clusters. True: it left the lock. */
bool qcow2_wait_for_claims(struct qcow2 *q, uint64_t offset, uint64_t length);
void qcow2_claim(struct qcow2_op *op, uint64_t first, uint64_t length);
void qcow2_release(struct qcow2 *q, struct qcow2_op *op);
uint64_t qcow2_oldest_op(const struct qcow2 *q);
/* A cluster of memory; NULL: there is none. */
uint8_t *qcow2_scratch_take(struct qcow2 *q);
void qcow2_scratch_give(struct qcow2 *q, uint8_t *take_scratch);
int qcow2_flush(struct image *image);
/* Before a call that changes tables, outside of the lock: a flush when many clusters wait for one.
 */
int qcow2_bound_gone(struct qcow2 *q);

/* qcow2_refs.c */
int qcow2_ref_get(struct qcow2 *q, uint64_t cluster, uint64_t *count);
int qcow2_ref_add(struct qcow2 *q, uint64_t cluster, int delta);
int qcow2_ref_set(struct qcow2 *q, uint64_t cluster, uint64_t count);
uint64_t qcow2_ref_max(const struct qcow2 *q);
/* Up to `wanted` clusters in a row with a count of one: *got of them from byte *offset; *virgin:
 * nothing was ever written there. */
int qcow2_alloc(struct qcow2 *q, uint64_t wanted, uint64_t *offset, uint64_t *got, bool *virgin);
/* Exactly `count` clusters in a row. */
int qcow2_alloc_run(struct qcow2 *q, uint64_t count, uint64_t *offset);
/* They were never referred to: free at once. */
void qcow2_unalloc(struct qcow2 *q, uint64_t offset, uint64_t count);
/* A reference is taken away from the tables: the count follows after the next flush. */
int qcow2_gone(struct qcow2 *q, uint64_t offset);
/* The host clusters of an L2 entry. */
int qcow2_gone_entry(struct qcow2 *q, uint64_t entry);
/* The first `count` of the list become free, as far as no call may use them. `shared`: leaves the
 * lock while it punches holes. */
int qcow2_commit_gone(struct qcow2 *q, size_t count, bool shared);
/* Whether these clusters were never written, which they will be now. */
bool qcow2_take_virgin(struct qcow2 *q, uint64_t offset, uint64_t length);
bool qcow2_overlaps_metadata(const struct qcow2 *q, uint64_t offset, uint64_t length);

/* qcow2_map.c */
enum qcow2_kind qcow2_kind(const struct qcow2 *q, uint64_t entry);
/* The slice with the entry of a guest offset; *slice NULL: no table. */
int qcow2_map(struct qcow2 *q, uint64_t offset, uint8_t **slice, unsigned *index);
int qcow2_map_write(struct qcow2 *q, uint64_t offset, uint8_t **slice, unsigned *index);
unsigned qcow2_slice_entries(const struct qcow2 *q);
static inline uint64_t qcow2_entry(const struct qcow2 *q, const uint8_t *table, uint64_t index)
{
    return get_be64(table + (index << q->entry_bits));
}
/* log2 of the bytes that an L2 table covers. */
static inline unsigned qcow2_table_bits(const struct qcow2 *q)
{
    return 2 * q->cluster_bits - q->entry_bits;
}
/* Where a packed cluster lies: first byte and number of bytes, whole sectors. */
void qcow2_packed_range(const struct qcow2 *q, uint64_t entry, uint64_t *offset, uint64_t *length);
int qcow2_write_l1_entry(struct qcow2 *q, uint64_t index);
/* The entries that the file does not have yet. What they name is stable. */
int qcow2_write_l1(struct qcow2 *q);

/* qcow2_packed.c */
/* Under the lock, which it leaves meanwhile: `length` bytes from byte `inside` of a cluster. */
int qcow2_unpack(struct qcow2 *q, uint64_t entry, void *out, uint64_t inside, uint64_t length);
/* Nothing that was unpacked before holds. */
void qcow2_unpacked_forget(struct qcow2 *q);
uint32_t qcow2_compress_unit(const struct image *image);
int qcow2_compress(struct image *image, const void *unit, void *out, size_t *out_length);
int qcow2_write_packed(struct image *image, uint64_t offset, const void *data, size_t length);
void qcow2_packed_init(struct qcow2 *q);
void qcow2_packed_fini(struct qcow2 *q);

/* What a stretch of the disk is; the lookups of one run of clusters. Under the lock. */
struct qcow2_run {
    enum qcow2_kind kind;
    uint64_t entry;  /* of its first cluster */
    uint64_t host;   /* of the asked byte, if it has one */
    uint64_t length; /* bytes from the asked offset */
    bool copied;     /* all its clusters are ours alone */
};
int qcow2_find_run(struct qcow2 *q, uint64_t offset, uint64_t length, struct qcow2_run *run);

/* qcow2_io.c */
int qcow2_pread(struct image *image, void *buffer, uint64_t offset, uint64_t length);
int qcow2_pwrite(struct image *image, const void *buffer, uint64_t offset, uint64_t length);
/*
 * Under the lock, which it leaves: data that fills whole units (a cluster, a subcluster) together
 * with what the disk has around it; `host` is where the first unit lies. `blank`: what is around it
 * is zero in the file already.
 */
int qcow2_write_fresh(struct qcow2 *q, const uint8_t *data, uint64_t offset, uint64_t length,
                      uint64_t host, uint64_t unit, bool blank);
/* qcow2_alloc, or the place in an external data file. */
int qcow2_place(struct qcow2 *q, uint64_t start, uint64_t count, uint64_t *host, uint64_t *got,
                bool *virgin);

/* Sets `count` entries from the guest offset to clusters that follow each other from `host`. Not
 * for extended ones. */
int qcow2_link(struct qcow2 *q, uint64_t offset, uint64_t count, uint64_t host);

/* qcow2_extended.c */
int qcow2_find_run_extended(struct qcow2 *q, uint64_t offset, uint64_t length, const uint8_t *slice,
                            unsigned index, struct qcow2_run *run);
/* A stretch that may not be written in place; nobody else claims its cluster. */
int qcow2_write_extended(struct qcow2 *q, struct qcow2_op *op, const uint8_t *data, uint64_t offset,
                         const struct qcow2_run *run, uint64_t *done);
/* Makes a cluster zero; *gone: the entry whose clusters it lost. False: it was so. */
bool qcow2_zero_extended(struct qcow2 *q, uint8_t *slice, unsigned index, bool unmap,
                         uint64_t *gone);

/* qcow2_zero.c */
int qcow2_zero(struct image *image, uint64_t offset, uint64_t length, bool unmap);
int qcow2_discard(struct image *image, uint64_t offset, uint64_t length);
int qcow2_extent(struct image *image, uint64_t offset, uint64_t length, struct image_extent *out);

/* qcow2_bitmap.c, with the node alone */
struct err *qcow2_bitmaps_load(struct qcow2 *q);
/* Before the first write: who finds them after a crash is not to believe them. */
int qcow2_bitmaps_in_use(struct qcow2 *q);
int qcow2_bitmaps_store(struct qcow2 *q);
/* Calls `use` with every stretch of the file that belongs to them; not `all`: but for those that
 * bitmaps which are not consistent keep. */
int qcow2_bitmaps_ranges(struct qcow2 *q, bool all,
                         int (*use)(void *opaque, uint64_t offset, uint64_t length), void *opaque);
bool qcow2_bitmaps_persist(const struct image *image);

/* qcow2_create.c */
struct err *qcow2_create(struct image *file, const struct image_create *create);
extern const char *const qcow2_create_options[];
struct err *qcow2_measure(const struct image_create *create, struct image_measure *measure);
struct err *qcow2_resize(struct image *image, uint64_t size);

/* qcow2_check.c */
struct err *qcow2_check(struct image *image, bool repair, struct image_check *check);

/* qcow2_snapshot.c */
struct err *qcow2_snapshots_load(struct qcow2 *q);
void qcow2_snapshots_free(struct qcow2 *q);
unsigned qcow2_snapshot_count(const struct image *image);
void qcow2_snapshot_get(const struct image *image, unsigned index, struct image_snapshot *out);
struct err *qcow2_snapshot_create(struct image *image, const char *name);
struct err *qcow2_snapshot_apply(struct image *image, const char *name);
struct err *qcow2_snapshot_delete(struct image *image, const char *name);
struct err *qcow2_snapshot_load(struct image *image, const char *name);

/* qcow2_crypt.c: clusters that LUKS encrypts */
struct err *qcow2_crypt_open(struct qcow2 *q);
void qcow2_crypt_close(struct qcow2 *q);
bool qcow2_locked(const struct image *image);
struct err *qcow2_unlock(struct image *image, const void *key, size_t length);
bool qcow2_wants_key(const struct image_create *create);
/* The header and key material of a new image; *area NULL: it is not to be encrypted. */
struct err *qcow2_crypt_create(const struct image_create *create, uint8_t **area, size_t *length);

/* qcow2_amend.c */
/* The header anew, with what `q` has. */
int qcow2_rewrite_header(struct qcow2 *q, unsigned version, const char *backing,
                         const char *format);
struct err *qcow2_set_backing_name(struct image *image, const char *name, const char *format);
struct err *qcow2_amend(struct image *image, const struct image_option *option, unsigned count);
/* The layer has nothing there any more: whole clusters. */
int qcow2_drop(struct qcow2 *q, uint64_t offset, uint64_t end);
struct err *qcow2_empty(struct image *image);

/* qcow2.c */
/* Rewrites fields of the header in place. */
int qcow2_write_header_u64(struct qcow2 *q, unsigned at, uint64_t value);
int qcow2_header_write(struct qcow2 *q, unsigned at, const void *bytes, size_t length);
int qcow2_set_incompatible(struct qcow2 *q, uint64_t bits);
/* All counts are in the file, and the image is not dirty any more. The tables are written before.
 */
int qcow2_set_clean(struct qcow2 *q);

#endif
