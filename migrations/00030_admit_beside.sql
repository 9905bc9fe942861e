-- +goose Up

-- Whoever has changed a limit and has not committed yet, to look at what it would do, keeps
-- that workflow's row. The engine waited for it with everything that it was about to say:
-- flows that were registered, results that were recorded, and other workflows' tasks. It
-- passes the row over now: the change itself admits, when it is committed, and so does
-- whoever looks next. Those who admit at the same time wait for each other before (see
-- limits.go).
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION flower_admit(workflow varchar) RETURNS integer
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    most     record;
    room     integer;
    admitted integer := 0;
BEGIN
    SELECT max_running_flows AS flows, max_running_tasks AS tasks INTO most
    FROM ms_workflow WHERE task_id = workflow FOR NO KEY UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN 0;
    END IF;
    IF most.flows IS NOT NULL THEN
        PERFORM flower_admit_flows(workflow, most.flows);
    END IF;
    LOOP
        room := most.tasks - (SELECT count(*) FROM kr_task_stat WHERE task_id = workflow AND gate = 3);
        admitted := admitted + flower_admit_tasks(workflow, most.flows IS NOT NULL, room);
        EXIT WHEN room IS NULL OR NOT flower_make_way(workflow, most.flows IS NOT NULL, room < 0);
    END LOOP;
    RETURN admitted;
END $$;
-- +goose StatementEnd

-- +goose Down

-- +goose StatementBegin
CREATE OR REPLACE FUNCTION flower_admit(workflow varchar) RETURNS integer
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    most     record;
    room     integer;
    admitted integer := 0;
BEGIN
    SELECT max_running_flows AS flows, max_running_tasks AS tasks INTO most
    FROM ms_workflow WHERE task_id = workflow FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RETURN 0;
    END IF;
    IF most.flows IS NOT NULL THEN
        PERFORM flower_admit_flows(workflow, most.flows);
    END IF;
    LOOP
        room := most.tasks - (SELECT count(*) FROM kr_task_stat WHERE task_id = workflow AND gate = 3);
        admitted := admitted + flower_admit_tasks(workflow, most.flows IS NOT NULL, room);
        EXIT WHEN room IS NULL OR NOT flower_make_way(workflow, most.flows IS NOT NULL, room < 0);
    END LOOP;
    RETURN admitted;
END $$;
-- +goose StatementEnd
