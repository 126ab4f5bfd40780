/*
 * tenond's state in sqlite. See store.h.
 *
 * The journal is a write-ahead log that is synced at checkpoints: a crash of the daemon loses
 * nothing, one of the host perhaps the last moments, which recovery finds again from the VMs
 * themselves.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "daemon/store.h"

#include <sqlite3.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#define VERSION 1

struct store {
    sqlite3 *db;
};

static const char schema[] =
    "CREATE TABLE IF NOT EXISTS vm (name TEXT PRIMARY KEY, config TEXT NOT NULL,"
    " created INTEGER NOT NULL, pid INTEGER NOT NULL DEFAULT 0,"
    " started INTEGER NOT NULL DEFAULT 0, last TEXT) WITHOUT ROWID;"
    "CREATE TABLE IF NOT EXISTS token (name TEXT PRIMARY KEY, role TEXT NOT NULL, vms TEXT,"
    " created INTEGER NOT NULL, expires INTEGER NOT NULL, hash BLOB NOT NULL UNIQUE)"
    " WITHOUT ROWID;"
    "CREATE TABLE IF NOT EXISTS setting (key TEXT PRIMARY KEY, value TEXT NOT NULL)"
    " WITHOUT ROWID;";

static struct err *failed(struct store *store)
{
    return err_new("state: %s", sqlite3_errmsg(store->db));
}

static struct err *execute(struct store *store, const char *sql)
{
    return sqlite3_exec(store->db, sql, NULL, NULL, NULL) == SQLITE_OK ? NULL : failed(store);
}

/*
 * Prepares `sql` and binds its parameters by `types`: t text (NULL allowed), i int64_t, h a hash.
 */
static struct err *prepare(struct store *store, sqlite3_stmt **statement, const char *sql,
                           const char *types, ...)
{
    va_list args;

    if (sqlite3_prepare_v2(store->db, sql, -1, statement, NULL) != SQLITE_OK)
        return failed(store);
    va_start(args, types);
    for (int i = 0; types[i]; i++) {
        if (types[i] == 't')
            sqlite3_bind_text(*statement, i + 1, va_arg(args, const char *), -1, SQLITE_TRANSIENT);
        else if (types[i] == 'i')
            sqlite3_bind_int64(*statement, i + 1, va_arg(args, int64_t));
        else
            sqlite3_bind_blob(*statement, i + 1, va_arg(args, const void *), TOKEN_HASH_SIZE,
                              SQLITE_TRANSIENT);
    }
    va_end(args);
    return NULL;
}

/* Ends a statement; `status` is of its last step. */
static struct err *finish(struct store *store, sqlite3_stmt *statement, int status)
{
    struct err *err = status == SQLITE_DONE || status == SQLITE_ROW ? NULL : failed(store);

    sqlite3_finalize(statement);
    return err;
}

/* A change, by the same parameters. */
#define CHANGE(store, ...)                                                                         \
    do {                                                                                           \
        sqlite3_stmt *change_;                                                                     \
        TRY(prepare(store, &change_, __VA_ARGS__));                                                \
        TRY(finish(store, change_, sqlite3_step(change_)));                                        \
    } while (0)

static const char *column_text(sqlite3_stmt *statement, int column)
{
    return (const char *)sqlite3_column_text(statement, column);
}

static char *copy_text(sqlite3_stmt *statement, int column)
{
    const char *text = column_text(statement, column);

    return text ? xstrdup(text) : NULL;
}

static json_t *column_json(sqlite3_stmt *statement, int column)
{
    const char *text = column_text(statement, column);

    return text ? json_loads(text, 0, NULL) : NULL;
}

static struct err *check_version(struct store *store)
{
    scoped(free_cleanup) char *text = NULL;

    TRY(store_get(store, "version", &text));
    if (!text)
        return store_set(store, "version", "1");
    if (atoi(text) > VERSION)
        return err_new("state: it was written by a later tenond (version %s, this one knows %d)",
                       text, VERSION);
    return NULL;
}

struct err *store_open(const char *path, struct store **result)
{
    struct store *store = xcalloc(1, sizeof(*store));
    struct err *err = NULL;

    if (sqlite3_open_v2(path, &store->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, NULL) !=
        SQLITE_OK)
        err = failed(store);
    if (!err) {
        sqlite3_busy_timeout(store->db, 2000);
        err = execute(store, "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;"
                             " PRAGMA trusted_schema=OFF;");
    }
    if (!err)
        err = execute(store, schema);
    if (!err)
        err = check_version(store);
    if (err) {
        store_close(store);
        return err_wrap(err, "'%s'", path);
    }
    *result = store;
    return NULL;
}

void store_close(struct store *store)
{
    if (!store)
        return;
    sqlite3_close(store->db);
    free(store);
}

struct err *store_begin(struct store *store)
{
    return execute(store, "BEGIN");
}

struct err *store_commit(struct store *store)
{
    return execute(store, "COMMIT");
}

/* ---- VMs ---- */

struct err *store_vm_put(struct store *store, const char *name, const json_t *config,
                         uint64_t created_ns)
{
    scoped(free_cleanup) char *text = json_dumps(config, JSON_COMPACT);

    CHANGE(store,
           "INSERT INTO vm (name, config, created) VALUES (?1, ?2, ?3)"
           " ON CONFLICT (name) DO UPDATE SET config = ?2",
           "tti", name, text, (int64_t)created_ns);
    return NULL;
}

struct err *store_vm_process(struct store *store, const char *name,
                             const struct store_process *process)
{
    CHANGE(store, "UPDATE vm SET pid = ?2, started = ?3 WHERE name = ?1", "tii", name,
           (int64_t)process->pid, (int64_t)process->started);
    return NULL;
}

struct err *store_vm_last(struct store *store, const char *name, const json_t *last)
{
    scoped(free_cleanup) char *text = last ? json_dumps(last, JSON_COMPACT) : NULL;

    CHANGE(store, "UPDATE vm SET last = ?2 WHERE name = ?1", "tt", name, text);
    return NULL;
}

struct err *store_vm_delete(struct store *store, const char *name)
{
    CHANGE(store, "DELETE FROM vm WHERE name = ?1", "t", name);
    return NULL;
}

struct err *store_vms(struct store *store, store_vm_each *each, void *opaque)
{
    struct err *err = NULL;
    sqlite3_stmt *row;
    int status = SQLITE_DONE;

    TRY(prepare(store, &row,
                "SELECT name, config, created, pid, started, last FROM vm ORDER BY name", ""));
    while (!err && (status = sqlite3_step(row)) == SQLITE_ROW) {
        json_t *config = column_json(row, 1), *last = column_json(row, 5);
        const struct store_process process = {(pid_t)sqlite3_column_int64(row, 3),
                                              (uint64_t)sqlite3_column_int64(row, 4)};
        err = each(opaque, column_text(row, 0), config, (uint64_t)sqlite3_column_int64(row, 2),
                   &process, last);
        json_decref(config);
        json_decref(last);
    }
    struct err *end = finish(store, row, status);
    if (err)
        err_free(end);
    return err ? err : end;
}

/* ---- tokens ---- */

#define TOKEN_COLUMNS "name, role, vms, created, expires, hash"

static void read_token(sqlite3_stmt *row, struct store_token *token)
{
    const void *hash = sqlite3_column_blob(row, 5);

    *token = (struct store_token){
        .name = copy_text(row, 0),
        .role = copy_text(row, 1),
        .vms = copy_text(row, 2),
        .created_ns = (uint64_t)sqlite3_column_int64(row, 3),
        .expires_ns = (uint64_t)sqlite3_column_int64(row, 4),
    };
    if (hash && sqlite3_column_bytes(row, 5) == TOKEN_HASH_SIZE)
        memcpy(token->hash, hash, TOKEN_HASH_SIZE);
}

void store_token_fini(struct store_token *token)
{
    free(token->name);
    free(token->role);
    free(token->vms);
    *token = (struct store_token){0};
}

struct err *store_token_add(struct store *store, const struct store_token *token)
{
    sqlite3_stmt *change;

    TRY(prepare(store, &change, "INSERT INTO token (" TOKEN_COLUMNS ") VALUES (?, ?, ?, ?, ?, ?)",
                "tttiih", token->name, token->role, token->vms, (int64_t)token->created_ns,
                (int64_t)token->expires_ns, token->hash));
    int status = sqlite3_step(change);
    struct err *err = finish(store, change, status);
    if (err && status == SQLITE_CONSTRAINT) {
        err_free(err);
        err = err_of(ERR_BUSY, "there is a token '%s' already", token->name);
    }
    return err;
}

struct err *store_token_remove(struct store *store, const char *name, bool *found)
{
    CHANGE(store, "DELETE FROM token WHERE name = ?1", "t", name);
    *found = sqlite3_changes(store->db) > 0;
    return NULL;
}

struct err *store_token_find(struct store *store, const uint8_t hash[TOKEN_HASH_SIZE],
                             struct store_token *token, bool *found)
{
    sqlite3_stmt *row;

    TRY(prepare(store, &row, "SELECT " TOKEN_COLUMNS " FROM token WHERE hash = ?1", "h", hash));
    int status = sqlite3_step(row);
    *found = status == SQLITE_ROW;
    if (*found)
        read_token(row, token);
    return finish(store, row, status);
}

struct err *store_tokens(struct store *store, void (*each)(void *opaque, struct store_token *token),
                         void *opaque)
{
    sqlite3_stmt *row;
    int status;

    TRY(prepare(store, &row, "SELECT " TOKEN_COLUMNS " FROM token ORDER BY name", ""));
    while ((status = sqlite3_step(row)) == SQLITE_ROW) {
        struct store_token token;
        read_token(row, &token);
        each(opaque, &token);
        store_token_fini(&token);
    }
    return finish(store, row, status);
}

/* ---- settings ---- */

struct err *store_set(struct store *store, const char *key, const char *value)
{
    CHANGE(store,
           "INSERT INTO setting (key, value) VALUES (?1, ?2)"
           " ON CONFLICT (key) DO UPDATE SET value = ?2",
           "tt", key, value);
    return NULL;
}

struct err *store_get(struct store *store, const char *key, char **value)
{
    sqlite3_stmt *row;

    *value = NULL;
    TRY(prepare(store, &row, "SELECT value FROM setting WHERE key = ?1", "t", key));
    int status = sqlite3_step(row);
    if (status == SQLITE_ROW)
        *value = copy_text(row, 0);
    return finish(store, row, status);
}
