-- +goose Up

-- What operators do to a flow, as functions for psql. Each is one UPDATE that anybody
-- may write by hand; the triggers do the rest either way. Each returns how many tasks it
-- changed. why goes to kr_event.

-- flower_rerun runs again what failed, and then what follows. Tasks that somebody holds
-- stay held.
-- +goose StatementBegin
CREATE FUNCTION flower_rerun(flow text, why text DEFAULT NULL) RETURNS bigint
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    n bigint;
BEGIN
    PERFORM flower_because(why);
    UPDATE kr_task_stat SET exec_status = 0
    WHERE  task_flow_id = flow AND exec_status = 2 AND reason IS DISTINCT FROM 'held';
    GET DIAGNOSTICS n = ROW_COUNT;
    RETURN n;
END $$;
-- +goose StatementEnd

-- flower_hold keeps every waiting task from starting and lets running ones end; should
-- one of these wait again, for a retry or because its watcher vanished, it is held, too.
-- One UPDATE over both states, so that nothing slips through between them.
-- +goose StatementBegin
CREATE FUNCTION flower_hold(flow text, why text DEFAULT NULL) RETURNS bigint
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    n bigint;
BEGIN
    PERFORM flower_because(why);
    UPDATE kr_task_stat
    SET    exec_status = CASE exec_status WHEN 0 THEN 2 ELSE exec_status END, hold = true
    WHERE  task_flow_id = flow AND exec_status IN (0, 1) AND NOT hold;
    GET DIAGNOSTICS n = ROW_COUNT;
    RETURN n;
END $$;
-- +goose StatementEnd

-- flower_resume undoes flower_hold.
-- +goose StatementBegin
CREATE FUNCTION flower_resume(flow text, why text DEFAULT NULL) RETURNS bigint
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    n bigint;
BEGIN
    PERFORM flower_because(why);
    UPDATE kr_task_stat
    SET    exec_status = CASE exec_status WHEN 2 THEN 0 ELSE exec_status END, hold = false
    WHERE  task_flow_id = flow AND (exec_status = 2 AND reason = 'held' OR exec_status = 1 AND hold);
    GET DIAGNOSTICS n = ROW_COUNT;
    RETURN n;
END $$;
-- +goose StatementEnd

-- flower_cancel stops what runs and keeps everything else of the flow from starting.
-- +goose StatementBegin
CREATE FUNCTION flower_cancel(flow text, why text DEFAULT NULL) RETURNS bigint
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    n bigint;
BEGIN
    PERFORM flower_because(why);
    UPDATE kr_task_stat SET exec_status = 2, reason = 'cancelled', error = why
    WHERE  task_flow_id = flow AND exec_status IN (0, 1);
    GET DIAGNOSTICS n = ROW_COUNT;
    RETURN n;
END $$;
-- +goose StatementEnd

-- flower_skip counts a task as done, without running it: what depends on it can go.
-- +goose StatementBegin
CREATE FUNCTION flower_skip(flow text, seq integer, why text DEFAULT NULL) RETURNS bigint
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    n bigint;
BEGIN
    PERFORM flower_because(why);
    UPDATE kr_task_stat SET exec_status = 9
    WHERE  task_flow_id = flow AND task_exec_seq = seq AND exec_status IN (0, 1, 2);
    GET DIAGNOSTICS n = ROW_COUNT;
    RETURN n;
END $$;
-- +goose StatementEnd

-- flower_because sets the reason of the changes that follow in this transaction.
-- +goose StatementBegin
CREATE FUNCTION flower_because(why text) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    IF why IS NOT NULL THEN
        PERFORM set_config('flower.reason', why, true);
    END IF;
END $$;
-- +goose StatementEnd

COMMENT ON FUNCTION flower_rerun(text, text) IS 'Run again what failed in a flow, and then what follows. Returns how many tasks were set to 0.';
COMMENT ON FUNCTION flower_hold(text, text) IS 'Keep a flow''s waiting tasks from starting; running ones may end.';
COMMENT ON FUNCTION flower_resume(text, text) IS 'Undo flower_hold.';
COMMENT ON FUNCTION flower_cancel(text, text) IS 'Stop a flow: what runs is cancelled, what waits is suspended.';
COMMENT ON FUNCTION flower_skip(text, integer, text) IS 'Count a task as done without running it.';

-- +goose Down
DROP FUNCTION flower_skip(text, integer, text), flower_cancel(text, text), flower_resume(text, text), flower_hold(text, text),
    flower_rerun(text, text), flower_because(text);
