-- +goose Up

CREATE TABLE ms_task_definition (
    task_id           varchar(256) COLLATE "C" NOT NULL CHECK (task_id <> ''),
    task_seq          integer      NOT NULL CHECK (task_seq > 0),
    program           varchar(256) NOT NULL CHECK (program <> ''),
    task_priority     integer      NOT NULL DEFAULT 0 CHECK (task_priority BETWEEN -20 AND 19),
    parameters        jsonb        NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(parameters) = 'object'),
    depends_task_seqs integer[]    CHECK (array_position(depends_task_seqs, NULL) IS NULL),
    max_attempts      integer      NOT NULL DEFAULT 1 CHECK (max_attempts > 0),
    retry_delay       interval     NOT NULL DEFAULT '10 s' CHECK (retry_delay >= '0 s'),
    timeout           interval     CHECK (timeout > '0 s'),
    on_lost           text         NOT NULL DEFAULT 'rerun' CHECK (on_lost IN ('rerun', 'suspend')),
    description       text,
    PRIMARY KEY (task_id, task_seq)
);

COMMENT ON TABLE ms_task_definition IS
    'Workflows: the rows of one task_id are the tasks of one workflow. Read when a flow is registered; editing them never changes a flow that exists.';
COMMENT ON COLUMN ms_task_definition.task_id IS 'Names the workflow, not a task: all tasks of a workflow share it.';
COMMENT ON COLUMN ms_task_definition.task_seq IS 'Names the task within its workflow, and its place in the chain.';
COMMENT ON COLUMN ms_task_definition.program IS 'What the task runs, by name. "watcher -programs" lists the names.';
COMMENT ON COLUMN ms_task_definition.task_priority IS 'From -20 to 19; smaller is more urgent, like Unix nice.';
COMMENT ON COLUMN ms_task_definition.parameters IS 'A JSON object, handed to the program.';
COMMENT ON COLUMN ms_task_definition.depends_task_seqs IS
    'What must be finished first: NULL is the task with the next smaller task_seq (a chain), {} is nothing, {1,2} are those (a join).';
COMMENT ON COLUMN ms_task_definition.max_attempts IS 'How often the task is tried before a failure suspends it.';
COMMENT ON COLUMN ms_task_definition.retry_delay IS 'The pause before the second attempt; it doubles with each further one, up to an hour.';
COMMENT ON COLUMN ms_task_definition.timeout IS 'How long one attempt may take; NULL is for ever.';
COMMENT ON COLUMN ms_task_definition.on_lost IS
    'What becomes of the task when its watcher vanishes while it runs: "rerun" it, or "suspend" it because it must not run twice.';
COMMENT ON COLUMN ms_task_definition.description IS 'For people; the first line is the task''s title.';

-- fillfactor: a claim and a finish each write a new version of the row. With room in
-- the page, and with no index on a column that they change, they touch no index (HOT).
CREATE TABLE kr_task_stat (
    task_flow_id           varchar(256) COLLATE "C" NOT NULL CHECK (task_flow_id <> ''),
    task_exec_seq          integer      NOT NULL CHECK (task_exec_seq > 0),
    depends_task_exec_seq  integer      NOT NULL DEFAULT 0,
    task_id                varchar(256) COLLATE "C" NOT NULL,
    task_seq               integer      NOT NULL,
    exec_status            smallint     NOT NULL DEFAULT 0 CHECK (exec_status IN (0, 1, 2, 3, 9)),
    task_priority          integer      NOT NULL DEFAULT 0 CHECK (task_priority BETWEEN -20 AND 19),
    registered_ts          timestamptz  NOT NULL DEFAULT now(),
    started_ts             timestamptz,
    finished_ts            timestamptz,
    suspended_ts           timestamptz,
    attempt                integer      NOT NULL DEFAULT 0,
    attempt_base           integer      NOT NULL DEFAULT 0,
    failed_count           integer      NOT NULL DEFAULT 0,
    lost_count             integer      NOT NULL DEFAULT 0,
    unmet                  integer,
    claim_id               uuid,
    watcher_id             uuid,
    run_after              timestamptz,
    reason                 text CHECK (reason IN ('failed', 'timeout', 'lost', 'invalid', 'cancelled', 'held')),
    error                  text,
    output                 jsonb,
    depends_task_exec_seqs integer[],
    dependents             integer[]    NOT NULL DEFAULT '{}',
    program                varchar(256),
    parameters             jsonb        NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(parameters) = 'object'),
    max_attempts           integer      NOT NULL DEFAULT 1 CHECK (max_attempts > 0),
    retry_delay            interval     NOT NULL DEFAULT '10 s' CHECK (retry_delay >= '0 s'),
    timeout                interval     CHECK (timeout > '0 s'),
    on_lost                text         NOT NULL DEFAULT 'rerun' CHECK (on_lost IN ('rerun', 'suspend')),
    hold                   boolean      NOT NULL DEFAULT false,
    description            text,
    PRIMARY KEY (task_flow_id, task_exec_seq),
    -- The old column shows the first of the set; without a set it is the set.
    CONSTRAINT kr_task_dependencies CHECK (depends_task_exec_seqs IS NULL
        OR (array_position(depends_task_exec_seqs, NULL) IS NULL
            AND task_exec_seq <> ALL (depends_task_exec_seqs)
            AND 0 < ALL (depends_task_exec_seqs)
            AND CASE WHEN cardinality(depends_task_exec_seqs) = 0 THEN depends_task_exec_seq <= 0
                     ELSE depends_task_exec_seqs[1] = depends_task_exec_seq END)),
    CONSTRAINT kr_task_not_itself CHECK (depends_task_exec_seq <> task_exec_seq),
    CONSTRAINT kr_task_owner CHECK (watcher_id IS NULL OR claim_id IS NOT NULL)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.05);

-- Of rows that wait for a time. Only a retry, a rescue or a person sets run_after, so
-- that the index costs the others nothing.
CREATE INDEX kr_task_run_after ON kr_task_stat (run_after) WHERE run_after IS NOT NULL;
-- Of suspended rows, for people who look for failures.
CREATE INDEX kr_task_suspended ON kr_task_stat (suspended_ts) WHERE suspended_ts IS NOT NULL;

COMMENT ON TABLE kr_task_stat IS
    'Tasks and their state: the rows of one task_flow_id are one flow, an execution of a workflow. Set exec_status by hand to 0 (run it, again), 2 (stop it), 3 (it is done) or 9 (skip it); Flower keeps everything else right.';
COMMENT ON COLUMN kr_task_stat.task_flow_id IS 'Names the flow: a UUID where Flower made it, any text in rows inserted by hand.';
COMMENT ON COLUMN kr_task_stat.task_exec_seq IS 'Names the task within its flow; a task comes after what it depends on.';
COMMENT ON COLUMN kr_task_stat.depends_task_exec_seq IS 'The task_exec_seq that must be finished first; 0 or less is none. The first of them where there are several.';
COMMENT ON COLUMN kr_task_stat.task_id IS 'The workflow, as in ms_task_definition.';
COMMENT ON COLUMN kr_task_stat.task_seq IS 'The task''s definition, as in ms_task_definition.';
COMMENT ON COLUMN kr_task_stat.exec_status IS '0 Wait, 1 Running (set by a watcher only), 2 Suspend (see reason), 3 Finish, 9 Ignore (skipped; satisfies what depends on it, as 3 does).';
COMMENT ON COLUMN kr_task_stat.task_priority IS 'From -20 to 19; smaller is more urgent. Then the flow registered earlier goes first.';
COMMENT ON COLUMN kr_task_stat.started_ts IS 'When the present attempt was claimed; empty while the task waits.';
COMMENT ON COLUMN kr_task_stat.attempt IS 'How often the task was started. Never falls.';
COMMENT ON COLUMN kr_task_stat.attempt_base IS 'attempt when the task was last reset by hand. The idempotency key handed to programs is made of it.';
COMMENT ON COLUMN kr_task_stat.failed_count IS 'Attempts that failed since the last reset by hand; max_attempts of them suspend the task.';
COMMENT ON COLUMN kr_task_stat.lost_count IS 'Attempts lost with their watcher since the last reset by hand. The third one suspends the task.';
COMMENT ON COLUMN kr_task_stat.unmet IS 'Kept by Flower: how many of the tasks that this one depends on are not at 3 or 9.';
COMMENT ON COLUMN kr_task_stat.claim_id IS 'Kept by Flower: the fence of the last attempt. A result counts only with this id.';
COMMENT ON COLUMN kr_task_stat.watcher_id IS 'Kept by Flower: who runs the task now. A running task without one belongs to somebody else and is left alone.';
COMMENT ON COLUMN kr_task_stat.run_after IS 'Not to be claimed before: the pause before a retry, or set by hand.';
COMMENT ON COLUMN kr_task_stat.reason IS 'Why the task is suspended: failed, timeout, lost (its watcher vanished), invalid (it cannot run as it stands), cancelled, held.';
COMMENT ON COLUMN kr_task_stat.error IS 'The program''s error, of the last attempt that failed.';
COMMENT ON COLUMN kr_task_stat.output IS 'What the program returned, at most 64 KiB.';
COMMENT ON COLUMN kr_task_stat.depends_task_exec_seqs IS 'Everything that must be finished first; NULL is just depends_task_exec_seq.';
COMMENT ON COLUMN kr_task_stat.dependents IS 'Kept by Flower: the tasks that depend on this one.';
COMMENT ON COLUMN kr_task_stat.program IS 'This and what follows is a copy of the definition, made at registration. May be edited for this task alone.';
COMMENT ON COLUMN kr_task_stat.hold IS 'Set on a running task: if it would wait again (retry, rescue, hand-back), it is held instead.';

-- What can be claimed now, in the order of claims: waiting, nothing unmet, not to wait
-- for a time. Whoever changes a row of kr_task_stat changes its entry here in the same
-- transaction, with the task's row locked first. The engine's two hot statements do it
-- themselves, the triggers do it for everybody else.
CREATE TABLE kr_ready (
    task_priority integer      NOT NULL,
    registered_ts timestamptz  NOT NULL,
    task_flow_id  varchar(256) COLLATE "C" NOT NULL,
    task_exec_seq integer      NOT NULL,
    PRIMARY KEY (task_priority, registered_ts, task_flow_id, task_exec_seq)
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000);
COMMENT ON TABLE kr_ready IS 'Kept by Flower: the queue of tasks that can be claimed now, in the order of claims.';

CREATE TABLE kr_flow (
    task_flow_id    varchar(256) COLLATE "C" PRIMARY KEY,
    task_id         varchar(256) COLLATE "C" NOT NULL,
    registered_ts   timestamptz NOT NULL DEFAULT now(),
    registered_by   text,
    note            text,
    parameters      jsonb,
    idempotency_key text,
    fingerprint     text,
    replayed_ts     timestamptz
);
CREATE UNIQUE INDEX kr_flow_idempotency ON kr_flow (idempotency_key) WHERE idempotency_key IS NOT NULL;
CREATE INDEX kr_flow_registered ON kr_flow (registered_ts, task_flow_id);
COMMENT ON TABLE kr_flow IS 'Flows, and how each was registered. Flows inserted by hand get a row by themselves.';
COMMENT ON COLUMN kr_flow.parameters IS 'Given with the request, merged over those of every task.';
COMMENT ON COLUMN kr_flow.fingerprint IS 'Hash of the request, to tell a repeated one from another with the same key.';
COMMENT ON COLUMN kr_flow.replayed_ts IS 'When a request was last repeated with the same idempotency key.';

CREATE TABLE kr_task_attempt (
    task_flow_id  varchar(256) COLLATE "C" NOT NULL,
    task_exec_seq integer     NOT NULL,
    attempt       integer     NOT NULL,
    exec_status   smallint    NOT NULL,
    started_ts    timestamptz,
    ended_ts      timestamptz,
    watcher_id    uuid,
    claim_id      uuid,
    reason        text,
    error         text,
    output        jsonb,
    PRIMARY KEY (task_flow_id, task_exec_seq, attempt)
);
COMMENT ON TABLE kr_task_attempt IS 'Superseded attempts: one goes here when its task is set back to 0 by a retry, a rescue or a person.';
COMMENT ON COLUMN kr_task_attempt.exec_status IS 'What the attempt came to: 1 if it was still running, 2 if it failed or was stopped, 3 if it had finished, 9 if it was skipped.';

CREATE TABLE kr_event (
    event_id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    event_ts      timestamptz NOT NULL DEFAULT clock_timestamp(),
    task_flow_id  varchar(256) COLLATE "C" NOT NULL,
    task_exec_seq integer,
    old_status    smallint,
    new_status    smallint,
    change        jsonb,
    note          text,
    actor         text NOT NULL DEFAULT session_user,
    application   text NOT NULL DEFAULT current_setting('application_name'),
    client        text DEFAULT host(inet_client_addr())
);
CREATE INDEX kr_event_flow ON kr_event (task_flow_id, task_exec_seq);
COMMENT ON TABLE kr_event IS 'Who changed what by hand. Only ever added to.';
COMMENT ON COLUMN kr_event.change IS 'Other columns that were changed: {"column": [old, new]}.';
COMMENT ON COLUMN kr_event.note IS 'Why, from: SET LOCAL flower.reason = ''…'' in the same transaction.';

CREATE TABLE kr_watcher (
    watcher_id   uuid PRIMARY KEY,
    host         text        NOT NULL,
    pid          integer     NOT NULL,
    version      text        NOT NULL,
    programs     text[]      NOT NULL,
    workers      integer     NOT NULL,
    busy         integer     NOT NULL DEFAULT 0,
    draining     boolean     NOT NULL DEFAULT false,
    started_ts   timestamptz NOT NULL DEFAULT clock_timestamp(),
    stable_since timestamptz NOT NULL DEFAULT clock_timestamp(),
    heartbeat_ts timestamptz NOT NULL DEFAULT clock_timestamp(),
    lease_until  timestamptz NOT NULL
) WITH (fillfactor = 50);
COMMENT ON TABLE kr_watcher IS 'Watchers that run. A row is gone when its watcher has left or was declared dead.';
COMMENT ON COLUMN kr_watcher.stable_since IS 'Since when its heartbeats have come in time. Only a watcher that was stable for a lease may declare another one dead.';
COMMENT ON COLUMN kr_watcher.lease_until IS 'Others may take over its tasks after this time.';

-- +goose Down
DROP TABLE kr_watcher, kr_event, kr_task_attempt, kr_flow, kr_ready, kr_task_stat, ms_task_definition;
