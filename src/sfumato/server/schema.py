"""The tables, as the steps that lead to them. A step that has shipped is never changed: the next one follows it."""

MIGRATIONS: tuple[str, ...] = (
    """
    CREATE TABLE jobs (
        seq INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL UNIQUE,
        kind TEXT NOT NULL,
        state TEXT NOT NULL CHECK (state IN ('queued', 'running', 'done', 'failed', 'cancelled')),
        title TEXT NOT NULL,
        api TEXT NOT NULL,
        client TEXT NOT NULL,
        priority INTEGER NOT NULL,
        place REAL NOT NULL,           -- in the queue, among those of one priority and client
        request TEXT NOT NULL,         -- resolved, JSON
        work TEXT NOT NULL,            -- what else the worker must know, JSON
        search TEXT NOT NULL,          -- title and prompts, in lower case
        created REAL NOT NULL,         -- seconds since 1970, as all times
        started REAL,
        ended REAL,
        attempt INTEGER NOT NULL DEFAULT 0,   -- rises with every claim: what an older one reports is not believed
        tries INTEGER NOT NULL DEFAULT 0,     -- claims that did not end in an orderly way
        owner TEXT,                    -- the boot of the server that claimed it
        lease REAL,
        cancel INTEGER NOT NULL DEFAULT 0,
        error TEXT,
        result TEXT,
        retry_of TEXT,
        idempotency TEXT UNIQUE,
        body TEXT                      -- sha256 of what was posted under that key
    ) STRICT;
    CREATE INDEX jobs_waiting ON jobs (state, priority, place);
    CREATE INDEX jobs_client ON jobs (client, state);
    CREATE TABLE turns (client TEXT PRIMARY KEY, turn INTEGER NOT NULL) STRICT;
    CREATE TABLE pictures (
        seq INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL UNIQUE,
        job TEXT REFERENCES jobs (id) ON DELETE SET NULL,
        place INTEGER NOT NULL,
        sha256 TEXT NOT NULL,
        width INTEGER NOT NULL,
        height INTEGER NOT NULL,
        seed TEXT NOT NULL,            -- up to 2^64 - 1, which an SQLite integer does not hold
        prompt TEXT NOT NULL,
        search TEXT NOT NULL,
        created REAL NOT NULL,
        favourite INTEGER NOT NULL DEFAULT 0,
        deleted REAL,
        file TEXT NOT NULL UNIQUE,
        record TEXT NOT NULL,
        UNIQUE (job, place)
    ) STRICT;
    CREATE INDEX pictures_pixels ON pictures (sha256);
    CREATE TABLE uploads (
        id TEXT PRIMARY KEY,
        pixels TEXT NOT NULL,          -- sha256 of the pixels alone; the id differs where other shapes have the same
        width INTEGER NOT NULL,
        height INTEGER NOT NULL,
        mode TEXT NOT NULL,
        file TEXT NOT NULL UNIQUE,
        reading TEXT,
        created REAL NOT NULL
    ) STRICT;
    CREATE TABLE facts (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
    """,
)
