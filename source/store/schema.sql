-- The tables of the SQLite store: step 1 of migrations.py. Once released, change them by a new step, not here.
--
-- A front end may write with plain SQL: INSERT INTO tasks (id, task_type, params) is enough. Triggers derive the rest.
-- Times are UTC text, YYYY-MM-DDTHH:MM:SS.mmmZ, always by this database's clock. The tables are STRICT: one value of a
-- wrong type (a priority 'high') would otherwise stop every worker that reads it.

CREATE TABLE tasks (
    id TEXT PRIMARY KEY NOT NULL CHECK (id <> ''),
    task_type TEXT NOT NULL,
    params TEXT NOT NULL,
    status TEXT NOT NULL DEFAULT 'Queued'
        CHECK (status IN ('Queued', 'In Progress', 'Complete', 'Failed', 'Cancelled')),
    dependant_on TEXT,
    output_location TEXT,
    created_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
    updated_at TEXT DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
    generation_started_at TEXT,
    generation_processed_at TEXT,
    project_id TEXT NOT NULL DEFAULT 'default_project_id',
    worker_id TEXT,
    claimed_at TEXT,
    claim_number INTEGER NOT NULL DEFAULT 0,
    attempts INTEGER NOT NULL DEFAULT 0,
    lease_expires_at TEXT,
    -- compared as text, so another spelling would run too early or never
    run_after TEXT CHECK (run_after GLOB '[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]T[0-9][0-9]:[0-9][0-9]:[0-9][0-9]*Z'),
    priority INTEGER NOT NULL DEFAULT 0,
    waiting INTEGER NOT NULL DEFAULT 0 CHECK (waiting IN (0, 1)),
    paused INTEGER NOT NULL DEFAULT 0 CHECK (paused IN (0, 1)),
    parent_id TEXT,
    child_key TEXT,
    model TEXT,
    progress TEXT,
    result_data TEXT,
    error_message TEXT,
    error_class TEXT,
    cancel_requested INTEGER NOT NULL DEFAULT 0 CHECK (cancel_requested IN (0, 1)),
    -- nobody can be "In Progress" without a worker and something that ends it: a lease, or the last child
    CHECK (status <> 'In Progress' OR (worker_id IS NOT NULL AND claimed_at IS NOT NULL
                                       AND (lease_expires_at IS NOT NULL OR waiting = 1)))
) STRICT;

-- What claims read: queued rows only, so that a long history costs nothing.
CREATE INDEX tasks_claim ON tasks (status, priority DESC, created_at) WHERE status = 'Queued' AND paused = 0;
CREATE INDEX tasks_claim_model ON tasks (status, model, priority DESC, created_at)
    WHERE status = 'Queued' AND paused = 0;
CREATE INDEX tasks_lease ON tasks (lease_expires_at) WHERE status = 'In Progress' AND waiting = 0;
CREATE INDEX tasks_waiting ON tasks (id) WHERE status = 'In Progress' AND waiting = 1;
CREATE UNIQUE INDEX tasks_children ON tasks (parent_id, child_key) WHERE parent_id IS NOT NULL;
CREATE INDEX tasks_open_children ON tasks (parent_id)
    WHERE parent_id IS NOT NULL AND status IN ('Queued', 'In Progress');
CREATE INDEX tasks_by_status ON tasks (status, created_at);
CREATE INDEX tasks_by_age ON tasks (created_at);

-- dependant_on, one row per dependency
CREATE TABLE task_dependencies (
    task_id TEXT NOT NULL REFERENCES tasks (id) ON DELETE CASCADE,
    depends_on TEXT NOT NULL,
    position INTEGER NOT NULL,
    PRIMARY KEY (task_id, depends_on)
) STRICT, WITHOUT ROWID;
CREATE INDEX task_dependencies_dependants ON task_dependencies (depends_on);

CREATE TABLE task_events (
    id INTEGER PRIMARY KEY,
    task_id TEXT NOT NULL REFERENCES tasks (id) ON DELETE CASCADE,
    at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
    name TEXT NOT NULL,
    worker_id TEXT,
    claim_number INTEGER,
    detail TEXT
) STRICT;
CREATE INDEX task_events_by_task ON task_events (task_id);

CREATE TABLE workers (
    id TEXT PRIMARY KEY NOT NULL,
    status TEXT NOT NULL,
    last_heartbeat TEXT,
    current_model TEXT,
    created_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
) STRICT;

CREATE TRIGGER tasks_queued AFTER INSERT ON tasks WHEN NEW.status = 'Queued'
BEGIN
    INSERT INTO task_events (task_id, name) VALUES (NEW.id, 'queued');
END;

-- The model a row asks for, as source/store/types.py reads it, for rows inserted without one.
CREATE TRIGGER tasks_model AFTER INSERT ON tasks WHEN NEW.model IS NULL AND json_valid(NEW.params)
BEGIN
    UPDATE tasks SET model = (
        SELECT json_extract(NEW.params, path)
        FROM (SELECT column1 AS path
              FROM (VALUES ('$.model_name'), ('$.orchestrator_details.model_name'), ('$.model')))
        WHERE json_type(NEW.params, path) = 'text' AND json_extract(NEW.params, path) <> ''
        LIMIT 1
    ) WHERE id = NEW.id;
END;

-- Front ends may write the priority into the params.
CREATE TRIGGER tasks_priority AFTER INSERT ON tasks
WHEN NEW.priority = 0 AND json_valid(NEW.params) AND json_type(NEW.params, '$.priority') = 'integer'
BEGIN
    UPDATE tasks SET priority = json_extract(NEW.params, '$.priority') WHERE id = NEW.id;
END;

-- A JSON array of ids, or one bare id.
CREATE VIEW task_dependency_lists AS
SELECT id,
       CASE WHEN dependant_on IS NULL OR trim(dependant_on) = '' THEN '[]'
            WHEN NOT json_valid(dependant_on) THEN json_array(dependant_on)
            WHEN json_type(dependant_on) = 'array' THEN dependant_on
            WHEN json_type(dependant_on) = 'text' THEN json_array(json_extract(dependant_on, '$'))
            WHEN json_type(dependant_on) = 'null' THEN '[]'
            ELSE json_array(dependant_on) END AS ids
FROM tasks;

CREATE TRIGGER tasks_dependencies_added AFTER INSERT ON tasks WHEN NEW.dependant_on IS NOT NULL
BEGIN
    INSERT OR IGNORE INTO task_dependencies (task_id, depends_on, position)
    SELECT NEW.id, CAST(entry.value AS TEXT), entry.key
    FROM task_dependency_lists AS list, json_each(list.ids) AS entry
    WHERE list.id = NEW.id AND entry.value IS NOT NULL;
END;

CREATE TRIGGER tasks_dependencies_changed AFTER UPDATE OF dependant_on ON tasks
BEGIN
    DELETE FROM task_dependencies WHERE task_id = NEW.id;
    INSERT OR IGNORE INTO task_dependencies (task_id, depends_on, position)
    SELECT NEW.id, CAST(entry.value AS TEXT), entry.key
    FROM task_dependency_lists AS list, json_each(list.ids) AS entry
    WHERE list.id = NEW.id AND entry.value IS NOT NULL;
END;

CREATE TRIGGER tasks_final BEFORE UPDATE OF status ON tasks
WHEN OLD.status IN ('Complete', 'Cancelled') AND NEW.status <> OLD.status
BEGIN
    SELECT RAISE(ABORT, 'a Complete or Cancelled task is final');
END;
