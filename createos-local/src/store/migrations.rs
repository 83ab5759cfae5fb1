//! The one list of schema changes. Entry `n` takes a database from version `n` to `n + 1`;
//! an entry that was released is never edited.

use rusqlite::Connection;

use super::StoreError;

pub(super) const MIGRATIONS: &[&str] = &[
    // Times are microseconds since 1970. Lists and maps are JSON text.
    // The two partial indexes make names and addresses unique among living sandboxes only,
    // so that both are free again after the end (api.md 7.2).
    "CREATE TABLE sandboxes (
        id              TEXT PRIMARY KEY NOT NULL,
        name            TEXT NOT NULL,
        status          TEXT NOT NULL,
        shape           TEXT NOT NULL,
        rootfs          TEXT NOT NULL,
        vcpu            INTEGER NOT NULL,
        mem_mib         INTEGER NOT NULL,
        disk_mib        INTEGER NOT NULL,
        cpu_percent     INTEGER NOT NULL,
        max_processes   INTEGER NOT NULL,
        ip              TEXT NOT NULL,
        region          TEXT NOT NULL,
        envs            TEXT NOT NULL,
        egress          TEXT NOT NULL,
        ssh_pubkeys     TEXT NOT NULL,
        ingress_enabled INTEGER NOT NULL,
        created_at      INTEGER NOT NULL,
        running_at      INTEGER,
        last_resumed_at INTEGER,
        ended_at        INTEGER,
        spawn_us        INTEGER,
        reason          TEXT
    ) STRICT;
    CREATE UNIQUE INDEX sandboxes_living_name ON sandboxes (name)
        WHERE status NOT IN ('destroyed', 'failed');
    CREATE UNIQUE INDEX sandboxes_living_ip ON sandboxes (ip)
        WHERE status NOT IN ('destroyed', 'failed');
    CREATE INDEX sandboxes_age ON sandboxes (created_at DESC, id DESC);
    CREATE TABLE meta (
        key   TEXT PRIMARY KEY NOT NULL,
        value TEXT NOT NULL
    ) STRICT;",
    // At most one token per sandbox, kept as its digest.
    "CREATE TABLE access_tokens (
        sandbox    TEXT PRIMARY KEY NOT NULL REFERENCES sandboxes (id) ON DELETE CASCADE,
        digest     BLOB NOT NULL UNIQUE,
        hint       TEXT NOT NULL,
        created_at INTEGER NOT NULL,
        rotated_at INTEGER
    ) STRICT;",
    "ALTER TABLE sandboxes ADD COLUMN nesting INTEGER NOT NULL DEFAULT 0;",
    // How a paused sandbox is kept; where a fork came from, and whether its files are still
    // to be copied from there.
    "ALTER TABLE sandboxes ADD COLUMN paused_at INTEGER;
    ALTER TABLE sandboxes ADD COLUMN saved TEXT;
    ALTER TABLE sandboxes ADD COLUMN auto_pause_after_seconds INTEGER;
    ALTER TABLE sandboxes ADD COLUMN forked_from TEXT;
    ALTER TABLE sandboxes ADD COLUMN awaits_copy INTEGER NOT NULL DEFAULT 0;",
    // Templates and their build logs. A deleted one keeps its row, so that its name is known
    // to have been one; the name is free for another.
    "CREATE TABLE templates (
        id         TEXT PRIMARY KEY NOT NULL,
        name       TEXT NOT NULL,
        base       TEXT NOT NULL,
        dockerfile TEXT NOT NULL,
        status     TEXT NOT NULL,
        size_bytes INTEGER NOT NULL DEFAULT 0,
        config     TEXT NOT NULL DEFAULT '{}',
        created_at INTEGER NOT NULL,
        built_at   INTEGER,
        deleted_at INTEGER
    ) STRICT;
    CREATE UNIQUE INDEX templates_name ON templates (name) WHERE deleted_at IS NULL;
    CREATE INDEX templates_age ON templates (created_at DESC, id DESC);
    CREATE TABLE template_log (
        template TEXT NOT NULL REFERENCES templates (id) ON DELETE CASCADE,
        place    INTEGER NOT NULL,
        at       INTEGER NOT NULL,
        level    TEXT NOT NULL,
        line     TEXT NOT NULL,
        PRIMARY KEY (template, place)
    ) STRICT, WITHOUT ROWID;
    ALTER TABLE sandboxes ADD COLUMN image TEXT NOT NULL DEFAULT '{}';",
    // A place on a network is free again with the beginning of the sandbox's end. It is
    // linked once packets have a way to it.
    "CREATE TABLE networks (
        id         TEXT PRIMARY KEY NOT NULL,
        name       TEXT NOT NULL UNIQUE COLLATE NOCASE,
        slot       INTEGER NOT NULL UNIQUE,
        subnet     TEXT NOT NULL UNIQUE,
        prefix     INTEGER NOT NULL,
        last_given TEXT,
        created_at INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE memberships (
        sandbox TEXT NOT NULL REFERENCES sandboxes (id) ON DELETE CASCADE,
        network TEXT NOT NULL REFERENCES networks (id),
        ip      TEXT NOT NULL UNIQUE,
        linked  INTEGER NOT NULL DEFAULT 0,
        PRIMARY KEY (sandbox, network)
    ) STRICT;
    CREATE INDEX memberships_network ON memberships (network);
    CREATE TRIGGER memberships_begin AFTER UPDATE OF status ON sandboxes
        WHEN NEW.status = 'running'
        BEGIN UPDATE memberships SET linked = 1 WHERE sandbox = NEW.id; END;
    CREATE TRIGGER memberships_end AFTER UPDATE OF status ON sandboxes
        WHEN NEW.status IN ('destroying', 'destroyed', 'failed')
        BEGIN DELETE FROM memberships WHERE sandbox = NEW.id; END;",
    "CREATE TABLE devices (
        id         TEXT PRIMARY KEY NOT NULL,
        name       TEXT NOT NULL,
        pubkey     TEXT NOT NULL UNIQUE,
        hostname   TEXT,
        os         TEXT,
        ip         TEXT NOT NULL UNIQUE,
        created_at INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE device_networks (
        device      TEXT NOT NULL REFERENCES devices (id) ON DELETE CASCADE,
        network     TEXT NOT NULL REFERENCES networks (id) ON DELETE CASCADE,
        attached_at INTEGER NOT NULL,
        PRIMARY KEY (device, network)
    ) STRICT;",
    // S3 disks and where they are attached. Keys are encrypted.
    "CREATE TABLE s3_disks (
        id         TEXT PRIMARY KEY NOT NULL,
        name       TEXT NOT NULL UNIQUE,
        config     TEXT NOT NULL,
        keys       BLOB NOT NULL,
        created_at INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE attachments (
        sandbox    TEXT NOT NULL REFERENCES sandboxes (id) ON DELETE CASCADE,
        disk       TEXT NOT NULL REFERENCES s3_disks (id) ON DELETE CASCADE,
        mount_path TEXT NOT NULL,
        sub_path   TEXT NOT NULL,
        PRIMARY KEY (sandbox, mount_path)
    ) STRICT;
    CREATE INDEX attachments_of_disk ON attachments (disk);",
    // What a sandbox may send (-1: as much as it likes), and what went each way.
    "CREATE TABLE traffic (
        sandbox  TEXT PRIMARY KEY NOT NULL REFERENCES sandboxes (id) ON DELETE CASCADE,
        quota    INTEGER NOT NULL,
        sent     INTEGER NOT NULL,
        received INTEGER NOT NULL
    ) STRICT;",
    // What ran, from when to when, and how large it was. One that runs has no end yet.
    "CREATE TABLE runs (
        sandbox     TEXT NOT NULL,
        cpu_percent INTEGER NOT NULL,
        mem_mib     INTEGER NOT NULL,
        begun       INTEGER NOT NULL,
        ended       INTEGER
    ) STRICT;
    CREATE INDEX runs_ended ON runs (ended);
    CREATE INDEX runs_open ON runs (sandbox) WHERE ended IS NULL;
    CREATE TRIGGER runs_begin AFTER UPDATE OF status ON sandboxes
        WHEN NEW.status = 'running' AND OLD.status <> 'running'
        BEGIN INSERT INTO runs (sandbox, cpu_percent, mem_mib, begun) VALUES (NEW.id,
            NEW.cpu_percent, NEW.mem_mib, CAST(unixepoch('subsec') * 1000000 AS INTEGER)); END;
    CREATE TRIGGER runs_end AFTER UPDATE OF status ON sandboxes
        WHEN NEW.status <> 'running' AND OLD.status = 'running'
        BEGIN UPDATE runs SET ended = max(begun, CAST(unixepoch('subsec') * 1000000 AS INTEGER))
            WHERE sandbox = NEW.id AND ended IS NULL; END;",
    // When something was last heard of a device.
    "ALTER TABLE devices ADD COLUMN seen INTEGER;",
];

/// Brings a database to the newest version, one transaction per step.
pub(super) fn migrate(connection: &mut Connection) -> Result<(), StoreError> {
    let supported = MIGRATIONS.len();
    let found: usize = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if found > supported {
        return Err(StoreError::NewerVersion { found, supported });
    }
    for (version, step) in MIGRATIONS.iter().enumerate().skip(found) {
        let transaction = connection.transaction()?;
        transaction.execute_batch(step)?;
        transaction.pragma_update(None, "user_version", version + 1)?;
        transaction.commit()?;
    }
    Ok(())
}
