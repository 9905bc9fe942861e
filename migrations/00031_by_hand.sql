-- +goose Up

-- What people write into the tables by hand, and was not taken as they meant it.

-- To set a limit lower than what runs failed: record "best" is not assigned yet.
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION flower_make_way(workflow varchar, by_flow boolean, too_many boolean) RETURNS boolean
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    best record;
    last record;
BEGIN
    IF NOT too_many THEN
        SELECT task_priority, registered_ts, task_flow_id, task_exec_seq INTO best FROM flower_may_go(workflow, by_flow, 1);
        -- One that somebody has locked could not take the place.
        PERFORM FROM kr_task_stat
        WHERE task_flow_id = best.task_flow_id AND task_exec_seq = best.task_exec_seq AND gate = 2 FOR NO KEY UPDATE SKIP LOCKED;
        IF NOT FOUND THEN
            RETURN false;
        END IF;
    END IF;
    SELECT task_priority, registered_ts, task_flow_id, task_exec_seq INTO last FROM kr_task_stat
    WHERE task_id = workflow AND gate = 3 AND exec_status = 0
    ORDER BY task_priority DESC, registered_ts DESC, task_flow_id DESC, task_exec_seq DESC
    LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    IF NOT too_many THEN  -- alone: with too_many the record "best" has no columns to speak of
        IF (best.task_priority, best.registered_ts, best.task_flow_id, best.task_exec_seq)
           > (last.task_priority, last.registered_ts, last.task_flow_id, last.task_exec_seq) THEN
            RETURN false;
        END IF;
    END IF;
    UPDATE kr_task_stat SET gate = 1 WHERE task_flow_id = last.task_flow_id AND task_exec_seq = last.task_exec_seq;
    PERFORM flower_requeue(last.task_flow_id, last.task_exec_seq);
    RETURN true;
END $$;
-- +goose StatementEnd

-- Whoever frees a running task writes watcher_id = NULL, too, as the engine does. It passed
-- for the engine's own change: no time, no reason, no event, and nobody released what waits
-- for it. The engine tells when a task ended, or that it has not started.
CREATE OR REPLACE TRIGGER kr_task_edited AFTER UPDATE OF exec_status, attempt, claim_id, watcher_id ON kr_task_stat
FOR EACH ROW WHEN (
    (OLD.exec_status <> NEW.exec_status OR OLD.attempt <> NEW.attempt
     OR OLD.claim_id IS DISTINCT FROM NEW.claim_id OR OLD.watcher_id IS DISTINCT FROM NEW.watcher_id)
    AND (OLD.exec_status = 0 AND NEW.exec_status = 1 AND NEW.unmet = 0 AND NEW.attempt = OLD.attempt + 1
         AND NEW.watcher_id IS NOT NULL AND NEW.claim_id IS NOT NULL
         AND NEW.claim_id IS DISTINCT FROM OLD.claim_id) IS NOT TRUE
    AND (OLD.exec_status = 1 AND NEW.exec_status IN (2, 3, 9) AND NEW.attempt = OLD.attempt
         AND OLD.watcher_id IS NOT NULL AND NEW.watcher_id IS NULL AND NEW.claim_id = OLD.claim_id
         AND CASE NEW.exec_status WHEN 3 THEN NEW.finished_ts IS NOT NULL WHEN 2 THEN NEW.suspended_ts IS NOT NULL
                                  ELSE NEW.started_ts IS NULL END) IS NOT TRUE
    AND (OLD.exec_status = NEW.exec_status AND NEW.exec_status <> 1 AND NEW.attempt = OLD.attempt
         AND NEW.claim_id IS NULL AND NEW.watcher_id IS NULL) IS NOT TRUE)
EXECUTE FUNCTION flower_task_edited();

-- +goose StatementBegin
CREATE OR REPLACE FUNCTION flower_task_edited() RETURNS trigger
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    owned    boolean := OLD.exec_status = 1 AND OLD.watcher_id IS NOT NULL;
    was_met  boolean := OLD.exec_status IN (3, 9);
    is_met   boolean := NEW.exec_status IN (3, 9);
    -- The end of a hold is no new run: the task goes on with the retries that it has left,
    -- under its idempotency key.
    resumed  boolean := OLD.exec_status = 2 AND OLD.reason IS NOT DISTINCT FROM 'held' AND NEW.exec_status = 0 AND OLD.failed_count < OLD.max_attempts;
    anew     boolean := NEW.exec_status = 0 AND NOT resumed OR was_met AND NOT is_met;
    children integer[];
    child    integer;
    state    smallint;
BEGIN
    -- The engine gives it back: what waits again goes into the queue.
    -- Where it has a run_after, kr_task_requeued fires as well, and both find that it waits.
    IF OLD.exec_status = 1 AND NEW.exec_status = 0 AND NEW.attempt = OLD.attempt
       AND NEW.watcher_id IS NULL AND OLD.watcher_id IS NOT NULL AND NEW.claim_id = OLD.claim_id AND NEW.started_ts IS NULL THEN
        PERFORM flower_requeue(NEW.task_flow_id, NEW.task_exec_seq);
        RETURN NULL;
    END IF;
    IF NEW.exec_status = 1 AND OLD.exec_status <> 1 THEN
        RAISE EXCEPTION 'task % of flow %: only a watcher sets exec_status to 1', NEW.task_exec_seq, left(NEW.task_flow_id, 100)
            USING HINT = 'Set it to 0: a watcher runs the task as soon as what it depends on has finished.',
                  ERRCODE = 'check_violation';
    END IF;
    IF NEW.attempt <> OLD.attempt
       OR (NEW.claim_id IS NOT NULL AND NEW.claim_id IS DISTINCT FROM OLD.claim_id)
       OR (NEW.watcher_id IS NOT NULL AND NEW.watcher_id IS DISTINCT FROM OLD.watcher_id)
       OR NEW.exec_status = OLD.exec_status THEN
        RAISE EXCEPTION 'task % of flow %: attempt, claim_id and watcher_id are kept by Flower', NEW.task_exec_seq, left(NEW.task_flow_id, 100)
            USING HINT = 'To stop a running task set exec_status to 2, to run it again set it to 0.',
                  ERRCODE = 'check_violation';
    END IF;

    IF NEW.exec_status = 0 AND OLD.attempt > 0 THEN
        INSERT INTO kr_task_attempt (task_flow_id, task_exec_seq, attempt, exec_status, started_ts, ended_ts,
                                     watcher_id, claim_id, reason, error, output)
        VALUES (OLD.task_flow_id, OLD.task_exec_seq, OLD.attempt, OLD.exec_status, OLD.started_ts,
                coalesce(OLD.finished_ts, OLD.suspended_ts, clock_timestamp()),
                OLD.watcher_id, OLD.claim_id, OLD.reason, OLD.error, OLD.output)
        ON CONFLICT DO NOTHING;
    END IF;

    -- Without its claim the superseded attempt can never write again. The program of a
    -- revoked claim is still being stopped: 5 s until the task may start beside it. What is
    -- true already, as flower_act writes it, is not written again.
    IF NEW.exec_status <> 0 OR owned OR NEW.hold OR NEW.run_after <= clock_timestamp()
       OR num_nonnulls(NEW.claim_id, NEW.watcher_id, NEW.started_ts, NEW.finished_ts, NEW.suspended_ts, NEW.reason, NEW.error, NEW.output) > 0
       OR NEW.attempt_base <> NEW.attempt OR NEW.failed_count <> 0 OR NEW.lost_count <> 0 THEN
        UPDATE kr_task_stat t
        SET claim_id = NULL,
            watcher_id = NULL,
            run_after = CASE WHEN owned THEN greatest(t.run_after, clock_timestamp() + interval '5 s')
                             WHEN t.run_after > clock_timestamp() THEN t.run_after END,
            started_ts = CASE WHEN t.exec_status <> 0 THEN t.started_ts END,
            finished_ts = CASE WHEN t.exec_status = 3 THEN clock_timestamp() END,
            suspended_ts = CASE WHEN t.exec_status = 2 THEN clock_timestamp() END,
            reason = CASE WHEN t.exec_status = 2
                          THEN coalesce(t.reason, CASE WHEN OLD.exec_status = 1 THEN 'cancelled' ELSE 'held' END) END,
            error = CASE WHEN t.exec_status <> 0 OR resumed AND NOT coalesce(t.pause ? 'ask', false) THEN t.error END,  -- a task that failed and is skipped keeps its error
            output = CASE WHEN t.exec_status <> 0 THEN t.output END,
            attempt_base = CASE WHEN anew THEN t.attempt ELSE t.attempt_base END,
            failed_count = CASE WHEN anew THEN 0 ELSE t.failed_count END,
            lost_count = CASE WHEN anew THEN 0 ELSE t.lost_count END,
            hold = t.hold AND t.exec_status <> 0
        WHERE t.task_flow_id = NEW.task_flow_id AND t.task_exec_seq = NEW.task_exec_seq;
    END IF;

    IF was_met <> is_met THEN
        SELECT t.dependents INTO children FROM kr_task_stat t
        WHERE t.task_flow_id = NEW.task_flow_id AND t.task_exec_seq = NEW.task_exec_seq;
        FOR child IN SELECT c FROM unnest(children) c ORDER BY 1 LOOP
            UPDATE kr_task_stat SET unmet = unmet + CASE WHEN is_met THEN -1 ELSE 1 END
            WHERE task_flow_id = NEW.task_flow_id AND task_exec_seq = child
            RETURNING exec_status INTO state;  -- of its newest version: a claim may have been waited for
            IF was_met AND state = 1 THEN
                RAISE EXCEPTION 'task % of flow %: task % depends on it and is running', NEW.task_exec_seq, left(NEW.task_flow_id, 100), child
                    USING HINT = format('Wait until task %s has ended, or change it too, in the same UPDATE.', child),
                          ERRCODE = 'check_violation';
            END IF;
            PERFORM flower_requeue(NEW.task_flow_id, child);
        END LOOP;
    END IF;
    PERFORM flower_requeue(NEW.task_flow_id, NEW.task_exec_seq);
    IF OLD.pause IS NOT NULL AND (OLD.exec_status <> 1 OR owned) THEN
        PERFORM flower_unpause(OLD, NEW);
    END IF;

    INSERT INTO kr_event (task_flow_id, task_exec_seq, old_status, new_status, note)
    VALUES (NEW.task_flow_id, NEW.task_exec_seq, OLD.exec_status, NEW.exec_status,
            nullif(current_setting('flower.reason', true), ''));
    PERFORM pg_notify('flower', '');
    RETURN NULL;
END $$;
-- +goose StatementEnd

-- A flow that is put back from a copy of its rows had no row in kr_flow, and was shown
-- nowhere. And a count of attempts that cannot be counted on stopped the claims of others.
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION flower_tasks_inserted() RETURNS trigger
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    f        record;
    restored varchar[];
BEGIN
    -- The engine counts what a task waits for, and registers now.
    IF NOT EXISTS (SELECT FROM inserted WHERE unmet IS NULL OR registered_ts <> now()) THEN
        RETURN NULL;
    END IF;
    -- A copy of rows that were deleted has everything that Flower keeps in them, but not
    -- their flow. A dump brings that before the rows.
    restored := ARRAY(SELECT g.flow FROM (SELECT DISTINCT task_flow_id AS flow FROM inserted WHERE unmet IS NOT NULL AND registered_ts <> now()) g
                      WHERE (EXISTS (SELECT FROM kr_flow k WHERE k.task_flow_id = g.flow)) IS NOT TRUE);
    IF restored = '{}' AND NOT EXISTS (SELECT FROM inserted WHERE unmet IS NULL) THEN
        RETURN NULL;
    END IF;
    SELECT task_flow_id, task_exec_seq, attempt INTO f FROM inserted WHERE attempt > 1000000000 LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'task % of flow %: attempt is %, which leaves no room to count', f.task_exec_seq, left(f.task_flow_id, 100), f.attempt
            USING HINT = 'Leave it out: Flower counts attempts from 0.', ERRCODE = 'check_violation';
    END IF;
    -- A lock for each flow; but one for all instead of thousands, which do not fit into
    -- the server's table of locks.
    IF (SELECT count(DISTINCT task_flow_id) FROM inserted WHERE (unmet IS NULL OR task_flow_id = ANY (restored))) <= 1000 THEN
        PERFORM flower_lock_flow(task_flow_id)
        FROM (SELECT DISTINCT task_flow_id FROM inserted WHERE (unmet IS NULL OR task_flow_id = ANY (restored)) ORDER BY 1) x;
    ELSE
        PERFORM pg_advisory_xact_lock(hashtextextended('flower: every flow', 0));
    END IF;

    UPDATE kr_task_stat t
    SET program = d.program, parameters = d.parameters || t.parameters, max_attempts = d.max_attempts,
        retry_delay = d.retry_delay, timeout = d.timeout, on_lost = d.on_lost, run_if = d.run_if,
        description = coalesce(t.description, d.description)
    FROM inserted n
    JOIN ms_task_definition d ON d.task_id = n.task_id AND d.task_seq = n.task_seq
    WHERE (n.unmet IS NULL OR n.task_flow_id = ANY (restored)) AND n.program IS NULL
      AND t.task_flow_id = n.task_flow_id AND t.task_exec_seq = n.task_exec_seq;

    UPDATE kr_task_stat t
    SET started_ts = CASE WHEN t.exec_status = 1 THEN coalesce(t.started_ts, clock_timestamp()) ELSE t.started_ts END,
        suspended_ts = CASE WHEN t.exec_status = 2 THEN coalesce(t.suspended_ts, clock_timestamp()) ELSE t.suspended_ts END,
        finished_ts = CASE WHEN t.exec_status = 3 THEN coalesce(t.finished_ts, clock_timestamp()) ELSE t.finished_ts END
    FROM inserted n
    WHERE (n.unmet IS NULL OR n.task_flow_id = ANY (restored)) AND n.exec_status IN (1, 2, 3)
      AND t.task_flow_id = n.task_flow_id AND t.task_exec_seq = n.task_exec_seq;

    INSERT INTO kr_flow (task_flow_id, task_id, registered_ts)
    SELECT DISTINCT ON (task_flow_id) task_flow_id, task_id, registered_ts
    FROM   inserted WHERE (unmet IS NULL OR task_flow_id = ANY (restored))
    ORDER  BY task_flow_id, task_exec_seq
    ON CONFLICT DO NOTHING;

    FOR f IN SELECT task_flow_id AS flow, array_agg(task_exec_seq ORDER BY task_exec_seq) AS seqs
             FROM inserted WHERE (unmet IS NULL OR task_flow_id = ANY (restored)) GROUP BY 1 ORDER BY 1
    LOOP
        PERFORM flower_link(f.flow, f.seqs);
    END LOOP;
    PERFORM pg_notify('flower', '');
    RETURN NULL;
END $$;
-- +goose StatementEnd

-- Times without an end, as in run_after = 'infinity': nothing that was due later, a retry
-- or a pause, was found any more, and no page could show such rows.
UPDATE kr_task_stat SET run_after = CASE WHEN run_after = 'infinity' THEN timestamptz '9999-12-31 00:00:00Z' END WHERE NOT isfinite(run_after);
UPDATE kr_task_stat
SET    registered_ts = CASE WHEN isfinite(registered_ts) THEN registered_ts ELSE now() END,
       started_ts = CASE WHEN isfinite(started_ts) THEN started_ts WHEN started_ts IS NOT NULL THEN now() END,
       finished_ts = CASE WHEN isfinite(finished_ts) THEN finished_ts WHEN finished_ts IS NOT NULL THEN now() END,
       suspended_ts = CASE WHEN isfinite(suspended_ts) THEN suspended_ts WHEN suspended_ts IS NOT NULL THEN now() END
WHERE  NOT (isfinite(registered_ts) AND isfinite(started_ts) AND isfinite(finished_ts) AND isfinite(suspended_ts));
UPDATE kr_flow SET registered_ts = now() WHERE NOT isfinite(registered_ts);
ALTER TABLE kr_task_stat ADD CONSTRAINT kr_task_times_are_finite CHECK
    (isfinite(registered_ts) AND isfinite(run_after) AND isfinite(started_ts) AND isfinite(finished_ts) AND isfinite(suspended_ts));
ALTER TABLE kr_flow ADD CONSTRAINT kr_flow_time_is_finite CHECK (isfinite(registered_ts));

-- Arrays that do not begin at 1, as in '[2:2]={5}', are not read by everybody.
UPDATE kr_task_stat
SET    depends_task_exec_seqs = ARRAY(SELECT unnest(depends_task_exec_seqs)), depends_task_exec_seq = (ARRAY(SELECT unnest(depends_task_exec_seqs)))[1]
WHERE  array_lower(depends_task_exec_seqs, 1) <> 1;
UPDATE ms_task_definition SET depends_task_seqs = ARRAY(SELECT unnest(depends_task_seqs)) WHERE array_lower(depends_task_seqs, 1) <> 1;
ALTER TABLE kr_task_stat DROP CONSTRAINT kr_task_dependencies, ADD CONSTRAINT kr_task_dependencies CHECK (depends_task_exec_seqs IS NULL
    OR (array_position(depends_task_exec_seqs, NULL) IS NULL
        AND task_exec_seq <> ALL (depends_task_exec_seqs)
        AND 0 < ALL (depends_task_exec_seqs)
        AND CASE WHEN cardinality(depends_task_exec_seqs) = 0 THEN depends_task_exec_seq <= 0
                 ELSE array_lower(depends_task_exec_seqs, 1) = 1 AND depends_task_exec_seqs[1] = depends_task_exec_seq END));
ALTER TABLE ms_task_definition ADD CONSTRAINT ms_task_definition_depends_from_1 CHECK (array_lower(depends_task_seqs, 1) = 1);

-- Who reads the name of a rule in an error knows what to do.
ALTER TABLE kr_task_stat RENAME CONSTRAINT kr_task_stat_exec_status_check TO "exec_status is 0, 1, 2, 3 or 9";
ALTER TABLE kr_task_stat RENAME CONSTRAINT kr_task_stat_task_priority_check TO "task_priority is from -20 to 19";
ALTER TABLE kr_task_stat RENAME CONSTRAINT kr_task_stat_reason_check TO "reason is failed, timeout, lost, invalid, cancelled or held";
ALTER TABLE kr_task_stat RENAME CONSTRAINT kr_task_dependencies TO "depends_task_exec_seq is the first of depends_task_exec_seqs";

-- What is registered while somebody has set a first limit, and not committed it, does not
-- know of it. So it is looked for once more when that is committed.
CREATE CONSTRAINT TRIGGER ms_workflow_limited_meanwhile
AFTER INSERT OR DELETE OR UPDATE OF task_id, max_running_flows, max_running_tasks ON ms_workflow
DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION flower_workflow_limited();

-- A task that is moved to another workflow is under that one's limits.
CREATE OR REPLACE TRIGGER kr_task_requeued AFTER UPDATE OF run_after, task_priority, registered_ts, task_id ON kr_task_stat
FOR EACH ROW WHEN (NEW.exec_status = 0 AND OLD.run_after IS DISTINCT FROM NEW.run_after
    OR OLD.task_priority <> NEW.task_priority OR OLD.registered_ts <> NEW.registered_ts OR OLD.task_id <> NEW.task_id)
EXECUTE FUNCTION flower_task_requeued();

-- Whoever has changed a definition, and registers it in the same transaction to see what
-- comes of it, kept all others from changing any.
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION flower_version(workflow varchar) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    last record;
    now_is jsonb;
    now_sha text;
BEGIN
    DELETE FROM ms_workflow_change WHERE task_id = workflow AND xact = pg_current_xact_id_if_assigned();
    IF FOUND THEN
        PERFORM pg_advisory_xact_lock(hashtextextended('flower: versions of ' || workflow, 0));
        -- A new statement, which sees what the one before us has committed.
        now_is := flower_definition(workflow);
        now_sha := encode(sha256(convert_to(now_is::text, 'UTF8')), 'hex');
        SELECT version, digest INTO last FROM ms_workflow_version WHERE task_id = workflow ORDER BY version DESC LIMIT 1;
        IF last.digest IS DISTINCT FROM now_sha THEN
            INSERT INTO ms_workflow_version (task_id, version, definition, digest)
            VALUES (workflow, coalesce(last.version, 0) + 1, now_is, now_sha);
        END IF;
    END IF;
    RETURN (SELECT CASE WHEN digest IS NOT NULL THEN version END
            FROM ms_workflow_version WHERE task_id = workflow ORDER BY version DESC LIMIT 1);
END $$;
-- +goose StatementEnd

-- +goose Down
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION flower_version(workflow varchar) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    last record;
    now_is jsonb;
    now_sha text;
BEGIN
    DELETE FROM ms_workflow_change WHERE task_id = workflow AND xact = pg_current_xact_id_if_assigned();
    IF FOUND THEN
        PERFORM pg_advisory_xact_lock(hashtextextended('flower: versions', 0));
        -- A new statement, which sees what the one before us has committed.
        now_is := flower_definition(workflow);
        now_sha := encode(sha256(convert_to(now_is::text, 'UTF8')), 'hex');
        SELECT version, digest INTO last FROM ms_workflow_version WHERE task_id = workflow ORDER BY version DESC LIMIT 1;
        IF last.digest IS DISTINCT FROM now_sha THEN
            INSERT INTO ms_workflow_version (task_id, version, definition, digest)
            VALUES (workflow, coalesce(last.version, 0) + 1, now_is, now_sha);
        END IF;
    END IF;
    RETURN (SELECT CASE WHEN digest IS NOT NULL THEN version END
            FROM ms_workflow_version WHERE task_id = workflow ORDER BY version DESC LIMIT 1);
END $$;
-- +goose StatementEnd

CREATE OR REPLACE TRIGGER kr_task_requeued AFTER UPDATE OF run_after, task_priority, registered_ts ON kr_task_stat
FOR EACH ROW WHEN (NEW.exec_status = 0 AND OLD.run_after IS DISTINCT FROM NEW.run_after
    OR OLD.task_priority <> NEW.task_priority OR OLD.registered_ts <> NEW.registered_ts)
EXECUTE FUNCTION flower_task_requeued();

DROP TRIGGER ms_workflow_limited_meanwhile ON ms_workflow;
ALTER TABLE ms_task_definition DROP CONSTRAINT ms_task_definition_depends_from_1;
ALTER TABLE kr_task_stat RENAME CONSTRAINT "exec_status is 0, 1, 2, 3 or 9" TO kr_task_stat_exec_status_check;
ALTER TABLE kr_task_stat RENAME CONSTRAINT "task_priority is from -20 to 19" TO kr_task_stat_task_priority_check;
ALTER TABLE kr_task_stat RENAME CONSTRAINT "reason is failed, timeout, lost, invalid, cancelled or held" TO kr_task_stat_reason_check;
ALTER TABLE kr_task_stat RENAME CONSTRAINT "depends_task_exec_seq is the first of depends_task_exec_seqs" TO kr_task_dependencies;
ALTER TABLE kr_task_stat DROP CONSTRAINT kr_task_dependencies, ADD CONSTRAINT kr_task_dependencies CHECK (depends_task_exec_seqs IS NULL
    OR (array_position(depends_task_exec_seqs, NULL) IS NULL
        AND task_exec_seq <> ALL (depends_task_exec_seqs)
        AND 0 < ALL (depends_task_exec_seqs)
        AND CASE WHEN cardinality(depends_task_exec_seqs) = 0 THEN depends_task_exec_seq <= 0
                 ELSE depends_task_exec_seqs[1] = depends_task_exec_seq END));
ALTER TABLE kr_flow DROP CONSTRAINT kr_flow_time_is_finite;
ALTER TABLE kr_task_stat DROP CONSTRAINT kr_task_times_are_finite;
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

CREATE OR REPLACE TRIGGER kr_task_edited AFTER UPDATE OF exec_status, attempt, claim_id, watcher_id ON kr_task_stat
FOR EACH ROW WHEN (
    (OLD.exec_status <> NEW.exec_status OR OLD.attempt <> NEW.attempt
     OR OLD.claim_id IS DISTINCT FROM NEW.claim_id OR OLD.watcher_id IS DISTINCT FROM NEW.watcher_id)
    AND (OLD.exec_status = 0 AND NEW.exec_status = 1 AND NEW.unmet = 0 AND NEW.attempt = OLD.attempt + 1
         AND NEW.watcher_id IS NOT NULL AND NEW.claim_id IS NOT NULL
         AND NEW.claim_id IS DISTINCT FROM OLD.claim_id) IS NOT TRUE
    AND (OLD.exec_status = 1 AND NEW.exec_status IN (2, 3, 9) AND NEW.attempt = OLD.attempt
         AND OLD.watcher_id IS NOT NULL AND NEW.watcher_id IS NULL AND NEW.claim_id = OLD.claim_id) IS NOT TRUE
    AND (OLD.exec_status = NEW.exec_status AND NEW.exec_status <> 1 AND NEW.attempt = OLD.attempt
         AND NEW.claim_id IS NULL AND NEW.watcher_id IS NULL) IS NOT TRUE)
EXECUTE FUNCTION flower_task_edited();

-- +goose StatementBegin
CREATE OR REPLACE FUNCTION flower_task_edited() RETURNS trigger
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    owned    boolean := OLD.exec_status = 1 AND OLD.watcher_id IS NOT NULL;
    was_met  boolean := OLD.exec_status IN (3, 9);
    is_met   boolean := NEW.exec_status IN (3, 9);
    -- The end of a hold is no new run: the task goes on with the retries that it has left,
    -- under its idempotency key.
    resumed  boolean := OLD.exec_status = 2 AND OLD.reason IS NOT DISTINCT FROM 'held' AND NEW.exec_status = 0 AND OLD.failed_count < OLD.max_attempts;
    anew     boolean := NEW.exec_status = 0 AND NOT resumed OR was_met AND NOT is_met;
    children integer[];
    child    integer;
    state    smallint;
BEGIN
    -- The engine gives it back, or somebody in its way: what waits again goes into the queue.
    -- Where it has a run_after, kr_task_requeued fires as well, and both find that it waits.
    IF OLD.exec_status = 1 AND NEW.exec_status = 0 AND NEW.attempt = OLD.attempt
       AND NEW.watcher_id IS NULL AND OLD.watcher_id IS NOT NULL AND NEW.claim_id = OLD.claim_id THEN
        PERFORM flower_requeue(NEW.task_flow_id, NEW.task_exec_seq);
        RETURN NULL;
    END IF;
    IF NEW.exec_status = 1 AND OLD.exec_status <> 1 THEN
        RAISE EXCEPTION 'task % of flow %: only a watcher sets exec_status to 1', NEW.task_exec_seq, left(NEW.task_flow_id, 100)
            USING HINT = 'Set it to 0: a watcher runs the task as soon as what it depends on has finished.',
                  ERRCODE = 'check_violation';
    END IF;
    IF NEW.attempt <> OLD.attempt
       OR (NEW.claim_id IS NOT NULL AND NEW.claim_id IS DISTINCT FROM OLD.claim_id)
       OR (NEW.watcher_id IS NOT NULL AND NEW.watcher_id IS DISTINCT FROM OLD.watcher_id)
       OR NEW.exec_status = OLD.exec_status THEN
        RAISE EXCEPTION 'task % of flow %: attempt, claim_id and watcher_id are kept by Flower', NEW.task_exec_seq, left(NEW.task_flow_id, 100)
            USING HINT = 'To stop a running task set exec_status to 2, to run it again set it to 0.',
                  ERRCODE = 'check_violation';
    END IF;

    IF NEW.exec_status = 0 AND OLD.attempt > 0 THEN
        INSERT INTO kr_task_attempt (task_flow_id, task_exec_seq, attempt, exec_status, started_ts, ended_ts,
                                     watcher_id, claim_id, reason, error, output)
        VALUES (OLD.task_flow_id, OLD.task_exec_seq, OLD.attempt, OLD.exec_status, OLD.started_ts,
                coalesce(OLD.finished_ts, OLD.suspended_ts, clock_timestamp()),
                OLD.watcher_id, OLD.claim_id, OLD.reason, OLD.error, OLD.output)
        ON CONFLICT DO NOTHING;
    END IF;

    -- Without its claim the superseded attempt can never write again. The program of a
    -- revoked claim is still being stopped: 5 s until the task may start beside it. What is
    -- true already, as flower_act writes it, is not written again.
    IF NEW.exec_status <> 0 OR owned OR NEW.hold OR NEW.run_after <= clock_timestamp()
       OR num_nonnulls(NEW.claim_id, NEW.watcher_id, NEW.started_ts, NEW.finished_ts, NEW.suspended_ts, NEW.reason, NEW.error, NEW.output) > 0
       OR NEW.attempt_base <> NEW.attempt OR NEW.failed_count <> 0 OR NEW.lost_count <> 0 THEN
        UPDATE kr_task_stat t
        SET claim_id = NULL,
            watcher_id = NULL,
            run_after = CASE WHEN owned THEN greatest(t.run_after, clock_timestamp() + interval '5 s')
                             WHEN t.run_after > clock_timestamp() THEN t.run_after END,
            started_ts = CASE WHEN t.exec_status <> 0 THEN t.started_ts END,
            finished_ts = CASE WHEN t.exec_status = 3 THEN clock_timestamp() END,
            suspended_ts = CASE WHEN t.exec_status = 2 THEN clock_timestamp() END,
            reason = CASE WHEN t.exec_status = 2
                          THEN coalesce(t.reason, CASE WHEN OLD.exec_status = 1 THEN 'cancelled' ELSE 'held' END) END,
            error = CASE WHEN t.exec_status <> 0 OR resumed AND NOT coalesce(t.pause ? 'ask', false) THEN t.error END,  -- a task that failed and is skipped keeps its error
            output = CASE WHEN t.exec_status <> 0 THEN t.output END,
            attempt_base = CASE WHEN anew THEN t.attempt ELSE t.attempt_base END,
            failed_count = CASE WHEN anew THEN 0 ELSE t.failed_count END,
            lost_count = CASE WHEN anew THEN 0 ELSE t.lost_count END,
            hold = t.hold AND t.exec_status <> 0
        WHERE t.task_flow_id = NEW.task_flow_id AND t.task_exec_seq = NEW.task_exec_seq;
    END IF;

    IF was_met <> is_met THEN
        SELECT t.dependents INTO children FROM kr_task_stat t
        WHERE t.task_flow_id = NEW.task_flow_id AND t.task_exec_seq = NEW.task_exec_seq;
        FOR child IN SELECT c FROM unnest(children) c ORDER BY 1 LOOP
            UPDATE kr_task_stat SET unmet = unmet + CASE WHEN is_met THEN -1 ELSE 1 END
            WHERE task_flow_id = NEW.task_flow_id AND task_exec_seq = child
            RETURNING exec_status INTO state;  -- of its newest version: a claim may have been waited for
            IF was_met AND state = 1 THEN
                RAISE EXCEPTION 'task % of flow %: task % depends on it and is running', NEW.task_exec_seq, left(NEW.task_flow_id, 100), child
                    USING HINT = format('Wait until task %s has ended, or change it too, in the same UPDATE.', child),
                          ERRCODE = 'check_violation';
            END IF;
            PERFORM flower_requeue(NEW.task_flow_id, child);
        END LOOP;
    END IF;
    PERFORM flower_requeue(NEW.task_flow_id, NEW.task_exec_seq);
    IF OLD.pause IS NOT NULL AND (OLD.exec_status <> 1 OR owned) THEN
        PERFORM flower_unpause(OLD, NEW);
    END IF;

    INSERT INTO kr_event (task_flow_id, task_exec_seq, old_status, new_status, note)
    VALUES (NEW.task_flow_id, NEW.task_exec_seq, OLD.exec_status, NEW.exec_status,
            nullif(current_setting('flower.reason', true), ''));
    PERFORM pg_notify('flower', '');
    RETURN NULL;
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE OR REPLACE FUNCTION flower_make_way(workflow varchar, by_flow boolean, too_many boolean) RETURNS boolean
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    best record;
    last record;
BEGIN
    IF NOT too_many THEN
        SELECT task_priority, registered_ts, task_flow_id, task_exec_seq INTO best FROM flower_may_go(workflow, by_flow, 1);
        -- One that somebody has locked could not take the place.
        PERFORM FROM kr_task_stat
        WHERE task_flow_id = best.task_flow_id AND task_exec_seq = best.task_exec_seq AND gate = 2 FOR NO KEY UPDATE SKIP LOCKED;
        IF NOT FOUND THEN
            RETURN false;
        END IF;
    END IF;
    SELECT task_priority, registered_ts, task_flow_id, task_exec_seq INTO last FROM kr_task_stat
    WHERE task_id = workflow AND gate = 3 AND exec_status = 0
    ORDER BY task_priority DESC, registered_ts DESC, task_flow_id DESC, task_exec_seq DESC
    LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED;
    IF NOT FOUND OR NOT too_many AND (best.task_priority, best.registered_ts, best.task_flow_id, best.task_exec_seq)
                                   > (last.task_priority, last.registered_ts, last.task_flow_id, last.task_exec_seq) THEN
        RETURN false;
    END IF;
    UPDATE kr_task_stat SET gate = 1 WHERE task_flow_id = last.task_flow_id AND task_exec_seq = last.task_exec_seq;
    PERFORM flower_requeue(last.task_flow_id, last.task_exec_seq);
    RETURN true;
END $$;
-- +goose StatementEnd
