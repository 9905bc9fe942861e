-- +goose Up

-- What tasks print and say, a row per line, written while they run. Rows are only added,
-- but for those of an attempt that prints more than is kept of it: its newest lines are
-- there while it runs, and go again when they are not among the last ones any more.
--
-- line_no is chosen by whoever writes, so that a statement whose answer was lost can be
-- repeated. claim_id tells two attempts apart that have one number, as after a failover to
-- a standby that had not got the first one. There is no foreign key: it would lock the
-- task's row for each line. The index serves whoever reads the log of a task, and nothing
-- else.
CREATE TABLE kr_task_log (
    task_flow_id  varchar(256) COLLATE "C" NOT NULL,
    task_exec_seq integer     NOT NULL,
    attempt       integer     NOT NULL,
    claim_id      uuid        NOT NULL,
    line_no       bigint      NOT NULL,
    line_ts       timestamptz NOT NULL,
    stream        text        NOT NULL CHECK (stream IN ('stdout', 'stderr', 'log', 'flower')),
    text          text        NOT NULL,
    PRIMARY KEY (task_flow_id, task_exec_seq, attempt, line_no, claim_id)
) WITH (fillfactor = 100);
COMMENT ON TABLE kr_task_log IS
    'What tasks print and say, a row per line; of an attempt that prints very much, the beginning and the end. Goes with its task. Old lines may be deleted at any time.';
COMMENT ON COLUMN kr_task_log.claim_id IS 'The claim of the attempt.';
COMMENT ON COLUMN kr_task_log.line_no IS 'Counts what the attempt printed, from 1, also what is not kept.';
COMMENT ON COLUMN kr_task_log.line_ts IS 'When it was printed.';
COMMENT ON COLUMN kr_task_log.stream IS 'stdout or stderr of what the task runs; log: what the program says; flower: in place of lines that are not kept, it says how many.';
COMMENT ON COLUMN kr_task_log.text IS 'The line; cut after 8 KiB.';

CREATE VIEW v_task_log AS
SELECT task_flow_id, task_exec_seq, attempt, line_no, line_ts, stream, text, claim_id
FROM   kr_task_log;
COMMENT ON VIEW v_task_log IS 'What tasks print and say, live. SELECT line_ts, stream, text FROM v_task_log WHERE task_flow_id = ''…'' AND task_exec_seq = 1 ORDER BY attempt, line_no;';
COMMENT ON COLUMN v_task_log.line_no IS 'Counts what the attempt printed, from 1. A gap is lines that are not kept, or, while the task runs and prints a lot, not there yet.';
COMMENT ON COLUMN v_task_log.line_ts IS 'When it was printed.';
COMMENT ON COLUMN v_task_log.stream IS 'stdout, stderr, log (what the program says) or flower (lines are missing here).';
COMMENT ON COLUMN v_task_log.text IS 'The line; cut after 8 KiB.';

-- The log goes with its task. Otherwise the two functions are as they were.
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION flower_tasks_deleted() RETURNS trigger
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    f record;
BEGIN
    DELETE FROM kr_ready r USING deleted d
    WHERE r.task_priority = d.task_priority AND r.registered_ts = d.registered_ts
      AND r.task_flow_id = d.task_flow_id AND r.task_exec_seq = d.task_exec_seq;
    DELETE FROM kr_task_attempt a USING deleted d
    WHERE a.task_flow_id = d.task_flow_id AND a.task_exec_seq = d.task_exec_seq;
    DELETE FROM kr_task_log l USING deleted d
    WHERE l.task_flow_id = d.task_flow_id AND l.task_exec_seq = d.task_exec_seq;

    UPDATE kr_task_stat t
    SET dependents = ARRAY(SELECT c FROM unnest(t.dependents) c WHERE c <> ALL (gone.children))
    FROM (SELECT d.task_flow_id, p AS parent, array_agg(d.task_exec_seq) AS children
          FROM deleted d, unnest(flower_parents(d.depends_task_exec_seq, d.depends_task_exec_seqs)) p
          GROUP BY 1, 2) gone
    WHERE t.task_flow_id = gone.task_flow_id AND t.task_exec_seq = gone.parent;

    FOR f IN WITH orphan AS (
                 SELECT d.task_flow_id, c AS seq, count(*) AS n
                 FROM deleted d, unnest(d.dependents) c
                 WHERE d.exec_status IN (3, 9) GROUP BY 1, 2
             ), updated AS (
                 UPDATE kr_task_stat t SET unmet = t.unmet + o.n
                 FROM orphan o WHERE t.task_flow_id = o.task_flow_id AND t.task_exec_seq = o.seq
                 RETURNING t.task_flow_id, t.task_exec_seq
             )
             SELECT task_flow_id AS flow, task_exec_seq AS seq FROM updated
    LOOP
        PERFORM flower_requeue(f.flow, f.seq);
    END LOOP;

    DELETE FROM kr_flow k USING (SELECT DISTINCT task_flow_id FROM deleted) d
    WHERE k.task_flow_id = d.task_flow_id
      AND NOT EXISTS (SELECT FROM kr_task_stat t WHERE t.task_flow_id = k.task_flow_id);
    RETURN NULL;
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE OR REPLACE FUNCTION flower_tasks_truncated() RETURNS trigger
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    TRUNCATE kr_ready, kr_task_attempt, kr_task_log, kr_flow;
    RETURN NULL;
END $$;
-- +goose StatementEnd

-- +goose Down
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION flower_tasks_deleted() RETURNS trigger
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    f record;
BEGIN
    DELETE FROM kr_ready r USING deleted d
    WHERE r.task_priority = d.task_priority AND r.registered_ts = d.registered_ts
      AND r.task_flow_id = d.task_flow_id AND r.task_exec_seq = d.task_exec_seq;
    DELETE FROM kr_task_attempt a USING deleted d
    WHERE a.task_flow_id = d.task_flow_id AND a.task_exec_seq = d.task_exec_seq;

    UPDATE kr_task_stat t
    SET dependents = ARRAY(SELECT c FROM unnest(t.dependents) c WHERE c <> ALL (gone.children))
    FROM (SELECT d.task_flow_id, p AS parent, array_agg(d.task_exec_seq) AS children
          FROM deleted d, unnest(flower_parents(d.depends_task_exec_seq, d.depends_task_exec_seqs)) p
          GROUP BY 1, 2) gone
    WHERE t.task_flow_id = gone.task_flow_id AND t.task_exec_seq = gone.parent;

    FOR f IN WITH orphan AS (
                 SELECT d.task_flow_id, c AS seq, count(*) AS n
                 FROM deleted d, unnest(d.dependents) c
                 WHERE d.exec_status IN (3, 9) GROUP BY 1, 2
             ), updated AS (
                 UPDATE kr_task_stat t SET unmet = t.unmet + o.n
                 FROM orphan o WHERE t.task_flow_id = o.task_flow_id AND t.task_exec_seq = o.seq
                 RETURNING t.task_flow_id, t.task_exec_seq
             )
             SELECT task_flow_id AS flow, task_exec_seq AS seq FROM updated
    LOOP
        PERFORM flower_requeue(f.flow, f.seq);
    END LOOP;

    DELETE FROM kr_flow k USING (SELECT DISTINCT task_flow_id FROM deleted) d
    WHERE k.task_flow_id = d.task_flow_id
      AND NOT EXISTS (SELECT FROM kr_task_stat t WHERE t.task_flow_id = k.task_flow_id);
    RETURN NULL;
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE OR REPLACE FUNCTION flower_tasks_truncated() RETURNS trigger
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    TRUNCATE kr_ready, kr_task_attempt, kr_flow;
    RETURN NULL;
END $$;
-- +goose StatementEnd

DROP VIEW v_task_log;
DROP TABLE kr_task_log;
