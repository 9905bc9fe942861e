-- +goose Up

-- Whenever the engine changes an exec_status, PostgreSQL looks at the condition of each
-- trigger on that column, a tenth of what a task costs with three of them. Now it is one:
-- the guard does what kr_task_requeued and kr_task_unpaused did for a change of exec_status.

DROP TRIGGER kr_task_unpaused ON kr_task_stat;
DROP FUNCTION flower_task_unpaused();

-- flower_unpause: somebody changed exec_status of a task that pauses. What was held goes on
-- where it was; of what asked, the approval is kept for the program; else the pause is over.
-- +goose StatementBegin
CREATE FUNCTION flower_unpause(before kr_task_stat, after kr_task_stat) RETURNS void
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    held     boolean := before.exec_status = 2 AND before.reason IS NOT DISTINCT FROM 'held';
    resumed  boolean := held AND after.exec_status = 0;
    approval jsonb;
BEGIN
    IF held AND before.pause ? 'ask' THEN
        approval := jsonb_strip_nulls(jsonb_build_object('approved_by', flower_actor(), 'at', clock_timestamp(),
                                                         'note', nullif(current_setting('flower.reason', true), '')));
    END IF;
    UPDATE kr_task_stat t
    SET pause = CASE WHEN after.exec_status = 2 OR resumed AND approval IS NULL THEN t.pause
                     WHEN resumed THEN t.pause - 'ask' || jsonb_build_object('approval', approval) END,
        attempt_base = CASE WHEN resumed THEN before.attempt_base ELSE t.attempt_base END,
        output = CASE WHEN after.exec_status = 3 THEN coalesce(t.output, approval) ELSE t.output END
    WHERE task_flow_id = after.task_flow_id AND task_exec_seq = after.task_exec_seq;
END $$;
-- +goose StatementEnd

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

DROP TRIGGER kr_task_requeued ON kr_task_stat;
CREATE TRIGGER kr_task_requeued AFTER UPDATE OF run_after, task_priority, registered_ts ON kr_task_stat
FOR EACH ROW WHEN (NEW.exec_status = 0 AND OLD.run_after IS DISTINCT FROM NEW.run_after
    OR OLD.task_priority <> NEW.task_priority OR OLD.registered_ts <> NEW.registered_ts)
EXECUTE FUNCTION flower_task_requeued();

-- +goose Down
DROP TRIGGER kr_task_requeued ON kr_task_stat;
CREATE TRIGGER kr_task_requeued AFTER UPDATE OF exec_status, run_after, task_priority, registered_ts ON kr_task_stat
FOR EACH ROW WHEN (NEW.exec_status = 0 AND (OLD.exec_status = 1 OR OLD.run_after IS DISTINCT FROM NEW.run_after)
    OR OLD.task_priority <> NEW.task_priority OR OLD.registered_ts <> NEW.registered_ts)
EXECUTE FUNCTION flower_task_requeued();

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

    INSERT INTO kr_event (task_flow_id, task_exec_seq, old_status, new_status, note)
    VALUES (NEW.task_flow_id, NEW.task_exec_seq, OLD.exec_status, NEW.exec_status,
            nullif(current_setting('flower.reason', true), ''));
    PERFORM pg_notify('flower', '');
    RETURN NULL;
END $$;
-- +goose StatementEnd

DROP FUNCTION flower_unpause(kr_task_stat, kr_task_stat);
-- +goose StatementBegin
CREATE FUNCTION flower_task_unpaused() RETURNS trigger
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    held     boolean := OLD.exec_status = 2 AND OLD.reason IS NOT DISTINCT FROM 'held';
    resumed  boolean := held AND NEW.exec_status = 0;
    approval jsonb;
BEGIN
    IF held AND OLD.pause ? 'ask' THEN
        approval := jsonb_strip_nulls(jsonb_build_object('approved_by', flower_actor(), 'at', clock_timestamp(),
                                                         'note', nullif(current_setting('flower.reason', true), '')));
    END IF;
    UPDATE kr_task_stat t
    SET pause = CASE WHEN NEW.exec_status = 2 OR resumed AND approval IS NULL THEN t.pause
                     WHEN resumed THEN t.pause - 'ask' || jsonb_build_object('approval', approval) END,
        attempt_base = CASE WHEN resumed THEN OLD.attempt_base ELSE t.attempt_base END,
        output = CASE WHEN NEW.exec_status = 3 THEN coalesce(t.output, approval) ELSE t.output END
    WHERE task_flow_id = NEW.task_flow_id AND task_exec_seq = NEW.task_exec_seq;
    RETURN NULL;
END $$;
-- +goose StatementEnd
CREATE TRIGGER kr_task_unpaused AFTER UPDATE OF exec_status ON kr_task_stat
FOR EACH ROW WHEN (OLD.pause IS NOT NULL AND OLD.exec_status <> NEW.exec_status AND NEW.exec_status <> 1
    AND (OLD.exec_status <> 1 OR NEW.watcher_id IS NOT NULL))
EXECUTE FUNCTION flower_task_unpaused();
