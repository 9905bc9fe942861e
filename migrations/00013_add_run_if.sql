-- +goose Up

-- run_if: a task's own condition. It is evaluated by the watcher that has claimed the task,
-- before the program is run, since it may look at what earlier tasks have returned.
ALTER TABLE ms_task_definition ADD COLUMN run_if text CHECK (run_if <> '');
ALTER TABLE kr_task_stat ADD COLUMN run_if text;
COMMENT ON COLUMN ms_task_definition.run_if IS
    'A condition, such as outputs[1].rows > 0. Where it is false when the task''s turn comes, the task is skipped, and what follows goes on.';
COMMENT ON COLUMN ms_task_definition.parameters IS
    'A JSON object, handed to the program. A value may have expressions in it, such as ${{ outputs[1].path }}, which are evaluated when the task runs.';
COMMENT ON COLUMN kr_task_stat.run_if IS 'A condition: where it is false when the task was claimed, the task is skipped. Set it to NULL to run the task anyway.';
COMMENT ON COLUMN kr_task_stat.error IS 'The program''s error, of the last attempt that failed; of a task that was skipped by its condition, that.';

-- A fourth end of an attempt, by the engine: skipped, 1 to 9.
CREATE OR REPLACE TRIGGER kr_task_edited AFTER UPDATE OF exec_status, attempt, claim_id, watcher_id ON kr_task_stat
FOR EACH ROW WHEN (
    (OLD.exec_status <> NEW.exec_status OR OLD.attempt <> NEW.attempt
     OR OLD.claim_id IS DISTINCT FROM NEW.claim_id OR OLD.watcher_id IS DISTINCT FROM NEW.watcher_id)
    AND (OLD.exec_status = 0 AND NEW.exec_status = 1 AND NEW.unmet = 0 AND NEW.attempt = OLD.attempt + 1
         AND NEW.watcher_id IS NOT NULL AND NEW.claim_id IS NOT NULL
         AND NEW.claim_id IS DISTINCT FROM OLD.claim_id) IS NOT TRUE
    AND (OLD.exec_status = 1 AND NEW.exec_status IN (0, 2, 3, 9) AND NEW.attempt = OLD.attempt
         AND OLD.watcher_id IS NOT NULL AND NEW.watcher_id IS NULL AND NEW.claim_id = OLD.claim_id) IS NOT TRUE
    AND (OLD.exec_status = NEW.exec_status AND NEW.exec_status <> 1 AND NEW.attempt = OLD.attempt
         AND NEW.claim_id IS NULL AND NEW.watcher_id IS NULL) IS NOT TRUE)
EXECUTE FUNCTION flower_task_edited();

-- The condition is one more thing that says how a task runs.
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION flower_task_reworded() RETURNS trigger
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    INSERT INTO kr_event (task_flow_id, task_exec_seq, change, note)
    SELECT NEW.task_flow_id, NEW.task_exec_seq, jsonb_object_agg(o.key, jsonb_build_array(o.value, n.value)),
           nullif(current_setting('flower.reason', true), '')
    FROM jsonb_each(to_jsonb(OLD)) o
    JOIN jsonb_each(to_jsonb(NEW)) n ON n.key = o.key AND n.value IS DISTINCT FROM o.value
    WHERE o.key IN ('program', 'parameters', 'task_priority', 'max_attempts', 'retry_delay', 'timeout', 'on_lost', 'run_if')
    HAVING count(*) > 0;
    RETURN NULL;
END $$;
-- +goose StatementEnd

CREATE OR REPLACE TRIGGER kr_task_reworded
AFTER UPDATE OF program, parameters, task_priority, max_attempts, retry_delay, timeout, on_lost, run_if ON kr_task_stat
FOR EACH ROW WHEN (OLD.unmet IS NOT NULL)
EXECUTE FUNCTION flower_task_reworded();

-- Rows put in by hand get it from their definition, too.
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION flower_tasks_inserted() RETURNS trigger
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    f record;
BEGIN
    IF NOT EXISTS (SELECT FROM inserted WHERE unmet IS NULL) THEN
        RETURN NULL;
    END IF;
    -- A lock for each flow; but one for all instead of thousands, which do not fit into
    -- the server's table of locks.
    IF (SELECT count(DISTINCT task_flow_id) FROM inserted WHERE unmet IS NULL) <= 1000 THEN
        PERFORM flower_lock_flow(task_flow_id)
        FROM (SELECT DISTINCT task_flow_id FROM inserted WHERE unmet IS NULL ORDER BY 1) x;
    ELSE
        PERFORM pg_advisory_xact_lock(hashtextextended('flower: every flow', 0));
    END IF;

    UPDATE kr_task_stat t
    SET program = d.program, parameters = d.parameters || t.parameters, max_attempts = d.max_attempts,
        retry_delay = d.retry_delay, timeout = d.timeout, on_lost = d.on_lost, run_if = d.run_if,
        description = coalesce(t.description, d.description)
    FROM inserted n
    JOIN ms_task_definition d ON d.task_id = n.task_id AND d.task_seq = n.task_seq
    WHERE n.unmet IS NULL AND n.program IS NULL
      AND t.task_flow_id = n.task_flow_id AND t.task_exec_seq = n.task_exec_seq;

    UPDATE kr_task_stat t
    SET suspended_ts = CASE WHEN t.exec_status = 2 THEN coalesce(t.suspended_ts, clock_timestamp()) ELSE t.suspended_ts END,
        finished_ts = CASE WHEN t.exec_status = 3 THEN coalesce(t.finished_ts, clock_timestamp()) ELSE t.finished_ts END
    FROM inserted n
    WHERE n.unmet IS NULL AND n.exec_status IN (2, 3)
      AND t.task_flow_id = n.task_flow_id AND t.task_exec_seq = n.task_exec_seq;

    INSERT INTO kr_flow (task_flow_id, task_id, registered_ts)
    SELECT DISTINCT ON (task_flow_id) task_flow_id, task_id, registered_ts
    FROM   inserted WHERE unmet IS NULL
    ORDER  BY task_flow_id, task_exec_seq
    ON CONFLICT DO NOTHING;

    FOR f IN SELECT task_flow_id AS flow, array_agg(task_exec_seq ORDER BY task_exec_seq) AS seqs
             FROM inserted WHERE unmet IS NULL GROUP BY 1 ORDER BY 1
    LOOP
        PERFORM flower_link(f.flow, f.seqs);
    END LOOP;
    PERFORM pg_notify('flower', '');
    RETURN NULL;
END $$;
-- +goose StatementEnd

-- +goose Down
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION flower_tasks_inserted() RETURNS trigger
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    f record;
BEGIN
    IF NOT EXISTS (SELECT FROM inserted WHERE unmet IS NULL) THEN
        RETURN NULL;
    END IF;
    -- A lock for each flow; but one for all instead of thousands, which do not fit into
    -- the server's table of locks.
    IF (SELECT count(DISTINCT task_flow_id) FROM inserted WHERE unmet IS NULL) <= 1000 THEN
        PERFORM flower_lock_flow(task_flow_id)
        FROM (SELECT DISTINCT task_flow_id FROM inserted WHERE unmet IS NULL ORDER BY 1) x;
    ELSE
        PERFORM pg_advisory_xact_lock(hashtextextended('flower: every flow', 0));
    END IF;

    UPDATE kr_task_stat t
    SET program = d.program, parameters = d.parameters || t.parameters, max_attempts = d.max_attempts,
        retry_delay = d.retry_delay, timeout = d.timeout, on_lost = d.on_lost,
        description = coalesce(t.description, d.description)
    FROM inserted n
    JOIN ms_task_definition d ON d.task_id = n.task_id AND d.task_seq = n.task_seq
    WHERE n.unmet IS NULL AND n.program IS NULL
      AND t.task_flow_id = n.task_flow_id AND t.task_exec_seq = n.task_exec_seq;

    UPDATE kr_task_stat t
    SET suspended_ts = CASE WHEN t.exec_status = 2 THEN coalesce(t.suspended_ts, clock_timestamp()) ELSE t.suspended_ts END,
        finished_ts = CASE WHEN t.exec_status = 3 THEN coalesce(t.finished_ts, clock_timestamp()) ELSE t.finished_ts END
    FROM inserted n
    WHERE n.unmet IS NULL AND n.exec_status IN (2, 3)
      AND t.task_flow_id = n.task_flow_id AND t.task_exec_seq = n.task_exec_seq;

    INSERT INTO kr_flow (task_flow_id, task_id, registered_ts)
    SELECT DISTINCT ON (task_flow_id) task_flow_id, task_id, registered_ts
    FROM   inserted WHERE unmet IS NULL
    ORDER  BY task_flow_id, task_exec_seq
    ON CONFLICT DO NOTHING;

    FOR f IN SELECT task_flow_id AS flow, array_agg(task_exec_seq ORDER BY task_exec_seq) AS seqs
             FROM inserted WHERE unmet IS NULL GROUP BY 1 ORDER BY 1
    LOOP
        PERFORM flower_link(f.flow, f.seqs);
    END LOOP;
    PERFORM pg_notify('flower', '');
    RETURN NULL;
END $$;
-- +goose StatementEnd
CREATE OR REPLACE TRIGGER kr_task_reworded
AFTER UPDATE OF program, parameters, task_priority, max_attempts, retry_delay, timeout, on_lost ON kr_task_stat
FOR EACH ROW WHEN (OLD.unmet IS NOT NULL)
EXECUTE FUNCTION flower_task_reworded();
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION flower_task_reworded() RETURNS trigger
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    INSERT INTO kr_event (task_flow_id, task_exec_seq, change, note)
    SELECT NEW.task_flow_id, NEW.task_exec_seq, jsonb_object_agg(o.key, jsonb_build_array(o.value, n.value)),
           nullif(current_setting('flower.reason', true), '')
    FROM jsonb_each(to_jsonb(OLD)) o
    JOIN jsonb_each(to_jsonb(NEW)) n ON n.key = o.key AND n.value IS DISTINCT FROM o.value
    WHERE o.key IN ('program', 'parameters', 'task_priority', 'max_attempts', 'retry_delay', 'timeout', 'on_lost')
    HAVING count(*) > 0;
    RETURN NULL;
END $$;
-- +goose StatementEnd
CREATE OR REPLACE TRIGGER kr_task_edited AFTER UPDATE OF exec_status, attempt, claim_id, watcher_id ON kr_task_stat
FOR EACH ROW WHEN (
    (OLD.exec_status <> NEW.exec_status OR OLD.attempt <> NEW.attempt
     OR OLD.claim_id IS DISTINCT FROM NEW.claim_id OR OLD.watcher_id IS DISTINCT FROM NEW.watcher_id)
    AND (OLD.exec_status = 0 AND NEW.exec_status = 1 AND NEW.unmet = 0 AND NEW.attempt = OLD.attempt + 1
         AND NEW.watcher_id IS NOT NULL AND NEW.claim_id IS NOT NULL
         AND NEW.claim_id IS DISTINCT FROM OLD.claim_id) IS NOT TRUE
    AND (OLD.exec_status = 1 AND NEW.exec_status IN (0, 2, 3) AND NEW.attempt = OLD.attempt
         AND OLD.watcher_id IS NOT NULL AND NEW.watcher_id IS NULL AND NEW.claim_id = OLD.claim_id) IS NOT TRUE
    AND (OLD.exec_status = NEW.exec_status AND NEW.exec_status <> 1 AND NEW.attempt = OLD.attempt
         AND NEW.claim_id IS NULL AND NEW.watcher_id IS NULL) IS NOT TRUE)
EXECUTE FUNCTION flower_task_edited();
COMMENT ON COLUMN kr_task_stat.error IS 'The program''s error, of the last attempt that failed.';
COMMENT ON COLUMN ms_task_definition.parameters IS 'A JSON object, handed to the program.';
ALTER TABLE kr_task_stat DROP COLUMN run_if;
ALTER TABLE ms_task_definition DROP COLUMN run_if;
