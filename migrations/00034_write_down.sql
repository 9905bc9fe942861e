-- +goose Up

-- What people at psql asked in vain: who changed what, and what a column means. And what
-- they could write that made a view fail, or an error that helps nobody.

-- An auditor reads in kr_event whatever decides what runs, when, and with which data. The
-- engine pays for none of it: the triggers are on columns that its statements do not name,
-- but for kr_task_delayed, which a finish does not meet, and kr_task_amended, whose short
-- condition costs the statement that finishes tasks 2 µs of a millisecond.

-- flower_task_reworded writes down which of the given columns of a row somebody has changed.
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION flower_task_reworded() RETURNS trigger
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    was jsonb := to_jsonb(OLD);
    now_is jsonb := to_jsonb(NEW);
BEGIN
    INSERT INTO kr_event (task_flow_id, task_exec_seq, change, note)
    SELECT NEW.task_flow_id, (now_is->>'task_exec_seq')::integer, jsonb_object_agg(key, jsonb_build_array(was->key, now_is->key)),
           nullif(current_setting('flower.reason', true), '')
    FROM unnest(TG_ARGV) key
    WHERE was->key IS DISTINCT FROM now_is->key
    HAVING count(*) > 0;
    RETURN NULL;
END $$;
-- +goose StatementEnd

-- How a task runs, and after what.
CREATE OR REPLACE TRIGGER kr_task_reworded
AFTER UPDATE OF task_id, task_seq, depends_task_exec_seq, depends_task_exec_seqs, task_priority, registered_ts, program, parameters,
    max_attempts, retry_delay, timeout, on_lost, run_if, description ON kr_task_stat
FOR EACH ROW WHEN (OLD.unmet IS NOT NULL)
EXECUTE FUNCTION flower_task_reworded('task_id', 'task_seq', 'depends_task_exec_seq', 'depends_task_exec_seqs', 'task_priority', 'registered_ts',
    'program', 'parameters', 'max_attempts', 'retry_delay', 'timeout', 'on_lost', 'run_if', 'description');

-- Not before when. The engine sets it as an attempt or a pause ends, and empties it when the
-- time has come; the guard, 5 s after a task was revoked.
CREATE TRIGGER kr_task_delayed AFTER UPDATE OF run_after ON kr_task_stat
FOR EACH ROW WHEN (OLD.run_after IS DISTINCT FROM NEW.run_after AND (OLD.run_after <= now()) IS NOT TRUE
    AND OLD.watcher_id IS NOT DISTINCT FROM NEW.watcher_id AND OLD.pause IS NOT DISTINCT FROM NEW.pause AND pg_trigger_depth() = 0)
EXECUTE FUNCTION flower_task_reworded('run_after');

-- What came of it. Together with exec_status it is what that change, which the guard writes
-- down, has left in the row; flower_act writes its own.
CREATE TRIGGER kr_task_amended AFTER UPDATE OF output, error, reason, finished_ts, suspended_ts ON kr_task_stat
FOR EACH ROW WHEN (OLD.exec_status = NEW.exec_status AND pg_trigger_depth() = 0 AND coalesce(current_setting('flower.action', true), '') = '')
EXECUTE FUNCTION flower_task_reworded('output', 'error', 'reason', 'finished_ts', 'suspended_ts');

CREATE TRIGGER kr_flow_amended AFTER UPDATE OF task_id, registered_ts, registered_by, note, parameters, idempotency_key, workflow_version ON kr_flow
FOR EACH ROW WHEN (pg_trigger_depth() = 0)
EXECUTE FUNCTION flower_task_reworded('task_id', 'registered_ts', 'registered_by', 'note', 'parameters', 'idempotency_key', 'workflow_version');

-- A failed task without suspended_ts was in no list of failures. No finish names the column.
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION flower_task_at_odds() RETURNS trigger
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    task text := format('task %s of flow %s', NEW.task_exec_seq, left(NEW.task_flow_id, 100));
BEGIN
    IF NEW.reason IS NOT NULL AND NEW.exec_status <> 2 THEN
        RAISE EXCEPTION '%: only a suspended task has a reason, and this one is at %', task, NEW.exec_status
            USING HINT = 'To stop it for that reason, set exec_status to 2 in the same statement.', ERRCODE = 'check_violation';
    END IF;
    IF TG_OP = 'UPDATE' THEN
        RAISE EXCEPTION '%: a suspended task has a suspended_ts, and no other one has; this one is at %', task, NEW.exec_status
            USING HINT = 'Set exec_status, to 2 to stop it, to 0 to run it: Flower does the rest.', ERRCODE = 'check_violation';
    END IF;
    RAISE EXCEPTION '%: watcher_id is kept by Flower', task
        USING HINT = 'Leave it empty.', ERRCODE = 'check_violation';
END $$;
-- +goose StatementEnd
CREATE TRIGGER kr_task_time_at_odds AFTER UPDATE OF suspended_ts ON kr_task_stat
FOR EACH ROW WHEN (OLD.exec_status = NEW.exec_status AND (NEW.suspended_ts IS NOT NULL) <> (NEW.exec_status = 2) AND pg_trigger_depth() = 0)
EXECUTE FUNCTION flower_task_at_odds();

-- A flow with another name than its tasks was shown nowhere.
-- +goose StatementBegin
CREATE FUNCTION flower_flow_renamed() RETURNS trigger
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    RAISE EXCEPTION 'flow %: a flow keeps its task_flow_id', left(OLD.task_flow_id, 100)
        USING HINT = 'Its tasks are found by it. Insert their rows anew, with the other one, and delete these.', ERRCODE = 'check_violation';
END $$;
-- +goose StatementEnd
CREATE TRIGGER kr_flow_renamed AFTER UPDATE OF task_flow_id ON kr_flow
FOR EACH ROW WHEN (OLD.task_flow_id <> NEW.task_flow_id)
EXECUTE FUNCTION flower_flow_renamed();

-- flower_tasks_recorded: somebody inserted or deleted tasks. A line for each flow; but one for
-- all flows of a statement that are over, so that kr_event does not grow for ever by what a
-- retention deletes every night.
-- +goose StatementBegin
CREATE FUNCTION flower_tasks_recorded() RETURNS trigger
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    IF TG_OP = 'INSERT' AND NOT EXISTS (SELECT FROM changed WHERE unmet IS NULL OR registered_ts <> now()) THEN
        RETURN NULL;  -- the engine, see flower_tasks_inserted
    END IF;
    INSERT INTO kr_event (task_flow_id, kind, change, note)
    WITH flows AS MATERIALIZED (
        SELECT task_flow_id, min(task_id) AS task_id, count(*) AS tasks, bool_and(exec_status IN (3, 9)) AS over,
               (array_agg(task_exec_seq ORDER BY task_exec_seq))[:100] AS seqs, (array_agg(exec_status ORDER BY task_exec_seq))[:100] AS statuses
        FROM changed GROUP BY task_flow_id
    ), lines AS (
        SELECT task_flow_id, jsonb_build_object('task_id', task_id, 'tasks', tasks, 'task_exec_seq', seqs, 'exec_status', statuses) AS what
        FROM flows WHERE NOT over OR (SELECT count(*) FROM flows WHERE over) = 1
        UNION ALL
        SELECT min(task_flow_id), jsonb_build_object('task_id', (array_agg(DISTINCT task_id))[:100], 'tasks', sum(tasks), 'flows', count(*))
        FROM flows WHERE over HAVING count(*) > 1
    )
    SELECT task_flow_id, lower(TG_OP),
           (SELECT jsonb_object_agg(key, CASE TG_OP WHEN 'DELETE' THEN jsonb_build_array(value, NULL) ELSE jsonb_build_array(NULL, value) END)
            FROM jsonb_each(what)),
           nullif(current_setting('flower.reason', true), '')
    FROM lines ORDER BY task_flow_id;
    RETURN NULL;
END $$;
-- +goose StatementEnd
CREATE TRIGGER kr_tasks_insert_recorded AFTER INSERT ON kr_task_stat
REFERENCING NEW TABLE AS changed
FOR EACH STATEMENT EXECUTE FUNCTION flower_tasks_recorded();
CREATE TRIGGER kr_tasks_delete_recorded AFTER DELETE ON kr_task_stat
REFERENCING OLD TABLE AS changed
FOR EACH STATEMENT EXECUTE FUNCTION flower_tasks_recorded();

COMMENT ON COLUMN kr_event.kind IS 'The action: rerun, cancel, hold, resume, approve, skip, finish; insert or delete, of tasks; empty if rows were changed by hand.';
COMMENT ON COLUMN kr_event.change IS 'Other columns that were changed: {"column": [old, new]}. Of tasks that were inserted or deleted how many, and of the first hundred a list of each column; or of how many flows, all of them over, of which task_flow_id is the first.';

-- flower_operate is what the functions for people call. It says so where parameters were
-- given, and no task takes them: one that waits does not run again.
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION flower_operate(action text, scope text, flow text, seq integer, why text, given_parameters jsonb DEFAULT NULL, given_output jsonb DEFAULT NULL)
RETURNS bigint
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    n       bigint;
    refused text[];
    found   boolean;
BEGIN
    PERFORM flower_because(why);
    SELECT count(*) FILTER (WHERE p.effect = 'change'), array_agg(p.why ORDER BY p.task_exec_seq) FILTER (WHERE p.effect = 'refuse'),
           bool_and(p.code NOT LIKE '%-not-found') IS NOT FALSE
    INTO   n, refused, found
    FROM   flower_act(action, scope, ARRAY[flow], ARRAY[seq], false, given_parameters, given_output) p;
    IF NOT found THEN
        RAISE EXCEPTION '%', rtrim(refused[1], '.') USING ERRCODE = 'no_data_found';
    ELSIF refused IS NOT NULL THEN
        RAISE EXCEPTION '%', refused[1] || CASE WHEN cardinality(refused) > 1 THEN format(' (And %s more.)', cardinality(refused) - 1) ELSE '' END
            USING ERRCODE = 'check_violation',
                  HINT = format('All of it: SELECT * FROM flower_plan(%s);', concat_ws(', ', quote_literal(action), quote_literal(flow),
                                'scope => ' || quote_literal(scope), 'seq => ' || seq));
    END IF;
    IF n = 0 AND given_parameters <> '{}' THEN
        RAISE NOTICE 'nothing runs again, so no task takes these parameters'
            USING HINT = 'A task that waits takes them by: UPDATE kr_task_stat SET parameters = parameters || ''{…}'' WHERE …';
    END IF;
    RETURN n;
END $$;
-- +goose StatementEnd

-- The largest limit that a definition may have was one too many to count with.
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION flower_admit_tasks(workflow varchar, by_flow boolean, room integer) RETURNS integer
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    task     record;
    admitted integer := 0;
BEGIN
    IF room <= 0 THEN
        RETURN 0;
    END IF;
    FOR task IN SELECT task_flow_id AS flow, task_exec_seq AS seq FROM flower_may_go(workflow, by_flow, CASE WHEN room < 2147483547 THEN room + 100 END) LOOP
        EXIT WHEN admitted = room;
        PERFORM FROM kr_task_stat
        WHERE task_flow_id = task.flow AND task_exec_seq = task.seq AND gate = 2 FOR NO KEY UPDATE SKIP LOCKED;
        CONTINUE WHEN NOT FOUND;
        UPDATE kr_task_stat SET gate = 3 WHERE task_flow_id = task.flow AND task_exec_seq = task.seq AND gate = 2;
        PERFORM flower_requeue(task.flow, task.seq);
        admitted := admitted + 1;
    END LOOP;
    RETURN admitted;
END $$;
-- +goose StatementEnd

-- No view could show a row with a time that has no end; and who was alive for ever kept
-- the tasks of a dead watcher.
UPDATE kr_watcher
SET    started_ts = CASE WHEN isfinite(started_ts) THEN started_ts ELSE now() END, stable_since = CASE WHEN isfinite(stable_since) THEN stable_since ELSE now() END,
       heartbeat_ts = CASE WHEN isfinite(heartbeat_ts) THEN heartbeat_ts ELSE now() END, lease_until = CASE WHEN isfinite(lease_until) THEN lease_until ELSE now() END
WHERE  NOT (isfinite(started_ts) AND isfinite(stable_since) AND isfinite(heartbeat_ts) AND isfinite(lease_until));
ALTER TABLE kr_watcher ADD CONSTRAINT kr_watcher_times_are_finite CHECK
    (isfinite(started_ts) AND isfinite(stable_since) AND isfinite(heartbeat_ts) AND isfinite(lease_until));
UPDATE kr_task_attempt SET started_ts = CASE WHEN isfinite(started_ts) THEN started_ts END, ended_ts = CASE WHEN isfinite(ended_ts) THEN ended_ts END
WHERE  NOT (isfinite(started_ts) AND isfinite(ended_ts));
ALTER TABLE kr_task_attempt ADD CONSTRAINT kr_task_attempt_times_are_finite CHECK (isfinite(started_ts) AND isfinite(ended_ts)) NOT VALID;  -- unseen, nobody waits

-- Who reads the name of a rule in an error knows what to do.
ALTER TABLE kr_task_stat RENAME CONSTRAINT kr_task_not_itself TO "a task does not depend on itself";
ALTER TABLE kr_task_stat RENAME CONSTRAINT kr_task_owner TO "watcher_id and claim_id are kept by Flower";
ALTER TABLE kr_task_stat RENAME CONSTRAINT kr_task_stat_task_flow_id_check TO "task_flow_id is not empty";
ALTER TABLE kr_task_stat RENAME CONSTRAINT kr_task_stat_task_exec_seq_check TO "task_exec_seq is 1 or more";
ALTER TABLE kr_task_stat RENAME CONSTRAINT kr_task_stat_parameters_check TO "parameters are a JSON object";
ALTER TABLE kr_task_stat RENAME CONSTRAINT kr_task_stat_max_attempts_check TO "max_attempts is 1 or more";
ALTER TABLE kr_task_stat RENAME CONSTRAINT kr_task_stat_retry_delay_check TO "retry_delay is not negative";
ALTER TABLE kr_task_stat RENAME CONSTRAINT kr_task_stat_timeout_check TO "timeout is more than 0, or NULL for none";
ALTER TABLE kr_task_stat RENAME CONSTRAINT kr_task_stat_on_lost_check TO "on_lost is rerun or suspend";
ALTER TABLE ms_task_definition RENAME CONSTRAINT ms_task_definition_task_id_check TO "task_id is not empty";
ALTER TABLE ms_task_definition RENAME CONSTRAINT ms_task_definition_task_seq_check TO "task_seq is 1 or more";
ALTER TABLE ms_task_definition RENAME CONSTRAINT ms_task_definition_program_check TO "program is not empty";
ALTER TABLE ms_task_definition RENAME CONSTRAINT ms_task_definition_task_priority_check TO "task_priority is from -20 to 19";
ALTER TABLE ms_task_definition RENAME CONSTRAINT ms_task_definition_parameters_check TO "parameters are a JSON object";
ALTER TABLE ms_task_definition RENAME CONSTRAINT ms_task_definition_depends_task_seqs_check TO "depends_task_seqs has no NULL in it";
ALTER TABLE ms_task_definition RENAME CONSTRAINT ms_task_definition_depends_from_1 TO "depends_task_seqs is written like {1,2}";
ALTER TABLE ms_task_definition RENAME CONSTRAINT ms_task_definition_max_attempts_check TO "max_attempts is 1 or more";
ALTER TABLE ms_task_definition RENAME CONSTRAINT ms_task_definition_retry_delay_check TO "retry_delay is not negative";
ALTER TABLE ms_task_definition RENAME CONSTRAINT ms_task_definition_timeout_check TO "timeout is more than 0, or NULL for none";
ALTER TABLE ms_task_definition RENAME CONSTRAINT ms_task_definition_on_lost_check TO "on_lost is rerun or suspend";
ALTER TABLE ms_task_definition RENAME CONSTRAINT ms_task_definition_run_if_check TO "run_if is not empty, or NULL for none";
ALTER TABLE ms_workflow RENAME CONSTRAINT ms_workflow_task_id_check TO "task_id is not empty";
ALTER TABLE ms_workflow RENAME CONSTRAINT ms_workflow_max_running_flows_check TO "max_running_flows is 1 or more, or NULL for any number";
ALTER TABLE ms_workflow RENAME CONSTRAINT ms_workflow_max_running_tasks_check TO "max_running_tasks is 1 or more, or NULL for any number";

-- \d+ has a word on every column.
-- +goose StatementBegin
DO $$
DECLARE
    c record;
BEGIN
    FOR c IN SELECT says, name, unnest(string_to_array(relations, ' ')) AS relation FROM (VALUES
        ('The flow.', 'task_flow_id', 'kr_event kr_flow kr_flow_slot kr_ready kr_task_attempt kr_task_log kr_unowned v_failed v_flow v_invariant v_queue v_running v_task v_task_log v_why_waiting'),
        ('The task, within its flow.', 'task_exec_seq', 'kr_ready kr_task_attempt kr_task_log kr_unowned v_failed v_invariant v_queue v_running v_task v_task_log v_why_waiting'),
        ('The workflow.', 'task_id', 'kr_flow kr_flow_slot ms_workflow_change ms_workflow_version v_failed v_failure_group v_flow v_queue v_running v_task v_why_waiting'),
        ('The task''s definition, as in ms_task_definition.', 'task_seq', 'v_failure_group v_task'),
        ('The first line of its description, else its program.', 'title', 'v_failed v_failure_group v_queue v_running v_task v_why_waiting'),
        ('What it runs.', 'program', 'v_failed v_failure_group v_queue v_running v_task'),
        ('How often it was started.', 'attempt', 'v_failed v_running v_task'),
        ('Which attempt, counted from 1.', 'attempt', 'kr_task_attempt kr_task_log v_task_log'),
        ('Why it is suspended, as in kr_task_stat.', 'reason', 'v_failed v_failure_group'),
        ('Why it ended, as in kr_task_stat; empty if it finished, was skipped or was handed back.', 'reason', 'kr_task_attempt'),
        ('The program''s error.', 'error', 'kr_task_attempt v_failed v_task'),
        ('What the program returned.', 'output', 'kr_task_attempt'),
        ('From -20 to 19; smaller is more urgent.', 'task_priority', 'kr_ready v_queue v_task'),
        ('When it was registered.', 'registered_ts', 'kr_flow kr_ready kr_task_stat v_flow'),
        ('When its present attempt was claimed.', 'started_ts', 'v_running v_task'),
        ('When it was claimed.', 'started_ts', 'kr_task_attempt'),
        ('When it ended, or was superseded.', 'ended_ts', 'kr_task_attempt'),
        ('Who ran it.', 'watcher_id', 'kr_task_attempt'),
        ('Its fence.', 'claim_id', 'kr_task_attempt'),
        ('The claim of the attempt.', 'claim_id', 'v_task_log'),
        ('Not to be claimed before.', 'run_after', 'v_why_waiting'),
        ('When it finished; empty while it has not.', 'finished_ts', 'kr_task_stat'),
        ('When it was suspended; empty if it is not.', 'suspended_ts', 'kr_task_stat'),
        ('A JSON object, handed to the program: those of the definition, with those of the request over them.', 'parameters', 'kr_task_stat'),
        ('How often the task is tried before a failure suspends it.', 'max_attempts', 'kr_task_stat v_task'),
        ('The pause before the second attempt; it doubles with each further one, up to an hour.', 'retry_delay', 'kr_task_stat'),
        ('How long one attempt may take; NULL is for ever.', 'timeout', 'kr_task_stat'),
        ('What becomes of the task when its watcher vanishes while it runs: rerun or suspend.', 'on_lost', 'kr_task_stat'),
        ('For people; the first line is the task''s title.', 'description', 'kr_task_stat'),
        ('For people.', 'description', 'ms_workflow'),
        ('Counts up, but not in the order of commits.', 'event_id', 'kr_event'),
        ('When it was changed.', 'event_ts', 'kr_event'),
        ('The task, within its flow; empty where the flow was changed, or tasks were inserted or deleted.', 'task_exec_seq', 'kr_event'),
        ('exec_status before; empty if it was not changed.', 'old_status', 'kr_event'),
        ('exec_status after; empty if it was not changed.', 'new_status', 'kr_event'),
        ('With what it was changed: the application_name of the connection.', 'application', 'kr_event ms_workflow_version'),
        ('From which address; empty for a local connection.', 'client', 'kr_event'),
        ('Who registered it: whoever asked the API, else the login of the database; empty if its rows were inserted by hand.', 'registered_by', 'kr_flow'),
        ('What the caller noted.', 'note', 'kr_flow'),
        ('Of the request, if it had one. A second request with it gets the same flow.', 'idempotency_key', 'kr_flow'),
        ('Who asked.', 'actor', 'kr_request'),
        ('Of the request.', 'idempotency_key', 'kr_request'),
        ('Counts from 1.', 'version', 'ms_workflow_version'),
        ('Names the watcher; a new one at each start.', 'watcher_id', 'kr_watcher v_watcher'),
        ('Its machine.', 'host', 'kr_watcher v_watcher'),
        ('Its process.', 'pid', 'kr_watcher v_watcher'),
        ('Of the program.', 'version', 'kr_watcher v_watcher'),
        ('What it can run; it claims nothing else.', 'programs', 'kr_watcher'),
        ('How many tasks it runs at a time, at most.', 'workers', 'kr_watcher'),
        ('How many it ran at its last heartbeat.', 'busy', 'kr_watcher'),
        ('It ends what runs, and claims nothing.', 'draining', 'kr_watcher'),
        ('When it was started.', 'started_ts', 'kr_watcher v_watcher'),
        ('Its last heartbeat; they come every 2 s.', 'heartbeat_ts', 'kr_watcher v_watcher'),
        ('Its tasks at 0.', 'waiting', 'v_flow'),
        ('Its tasks at 1.', 'running', 'v_flow'),
        ('Its tasks at 3.', 'finished', 'v_flow'),
        ('Its tasks at 9.', 'ignored', 'v_flow'),
        ('What should hold.', 'rule', 'v_invariant'),
        ('How it does not.', 'detail', 'v_invariant')
    ) AS v(says, name, relations) LOOP
        EXECUTE format('COMMENT ON COLUMN %I.%I IS %L', c.relation, c.name, c.says);
    END LOOP;
END $$;
-- +goose StatementEnd

-- +goose Down
-- +goose StatementBegin
DO $$
DECLARE
    c record;
BEGIN
    FOR c IN SELECT relation, unnest(string_to_array(names, ' ')) AS name FROM (VALUES
        ('kr_event', 'task_flow_id event_id event_ts task_exec_seq old_status new_status application client'),
        ('kr_flow', 'task_flow_id task_id registered_ts registered_by note idempotency_key'),
        ('kr_flow_slot', 'task_flow_id task_id'),
        ('kr_ready', 'task_flow_id task_exec_seq task_priority registered_ts'),
        ('kr_request', 'actor idempotency_key'),
        ('kr_task_attempt', 'task_flow_id task_exec_seq attempt reason error output started_ts ended_ts watcher_id claim_id'),
        ('kr_task_log', 'task_flow_id task_exec_seq attempt'),
        ('kr_task_stat', 'registered_ts finished_ts suspended_ts parameters max_attempts retry_delay timeout on_lost description'),
        ('kr_unowned', 'task_flow_id task_exec_seq'),
        ('kr_watcher', 'watcher_id host pid version programs workers busy draining started_ts heartbeat_ts'),
        ('ms_workflow', 'description'),
        ('ms_workflow_change', 'task_id'),
        ('ms_workflow_version', 'task_id application version'),
        ('v_failed', 'task_flow_id task_exec_seq task_id title program attempt reason error'),
        ('v_failure_group', 'task_id task_seq title program reason'),
        ('v_flow', 'task_flow_id task_id registered_ts waiting running finished ignored'),
        ('v_invariant', 'task_flow_id task_exec_seq rule detail'),
        ('v_queue', 'task_flow_id task_exec_seq task_id title program task_priority'),
        ('v_running', 'task_flow_id task_exec_seq task_id title program attempt started_ts'),
        ('v_task', 'task_flow_id task_exec_seq task_id task_seq title program attempt error task_priority started_ts max_attempts'),
        ('v_task_log', 'task_flow_id task_exec_seq attempt claim_id'),
        ('v_watcher', 'watcher_id host pid version started_ts heartbeat_ts'),
        ('v_why_waiting', 'task_flow_id task_exec_seq task_id title run_after')
    ) AS v(relation, names) LOOP
        EXECUTE format('COMMENT ON COLUMN %I.%I IS NULL', c.relation, c.name);
    END LOOP;
END $$;
-- +goose StatementEnd

ALTER TABLE kr_task_stat RENAME CONSTRAINT "a task does not depend on itself" TO kr_task_not_itself;
ALTER TABLE kr_task_stat RENAME CONSTRAINT "watcher_id and claim_id are kept by Flower" TO kr_task_owner;
ALTER TABLE kr_task_stat RENAME CONSTRAINT "task_flow_id is not empty" TO kr_task_stat_task_flow_id_check;
ALTER TABLE kr_task_stat RENAME CONSTRAINT "task_exec_seq is 1 or more" TO kr_task_stat_task_exec_seq_check;
ALTER TABLE kr_task_stat RENAME CONSTRAINT "parameters are a JSON object" TO kr_task_stat_parameters_check;
ALTER TABLE kr_task_stat RENAME CONSTRAINT "max_attempts is 1 or more" TO kr_task_stat_max_attempts_check;
ALTER TABLE kr_task_stat RENAME CONSTRAINT "retry_delay is not negative" TO kr_task_stat_retry_delay_check;
ALTER TABLE kr_task_stat RENAME CONSTRAINT "timeout is more than 0, or NULL for none" TO kr_task_stat_timeout_check;
ALTER TABLE kr_task_stat RENAME CONSTRAINT "on_lost is rerun or suspend" TO kr_task_stat_on_lost_check;
ALTER TABLE ms_task_definition RENAME CONSTRAINT "task_id is not empty" TO ms_task_definition_task_id_check;
ALTER TABLE ms_task_definition RENAME CONSTRAINT "task_seq is 1 or more" TO ms_task_definition_task_seq_check;
ALTER TABLE ms_task_definition RENAME CONSTRAINT "program is not empty" TO ms_task_definition_program_check;
ALTER TABLE ms_task_definition RENAME CONSTRAINT "task_priority is from -20 to 19" TO ms_task_definition_task_priority_check;
ALTER TABLE ms_task_definition RENAME CONSTRAINT "parameters are a JSON object" TO ms_task_definition_parameters_check;
ALTER TABLE ms_task_definition RENAME CONSTRAINT "depends_task_seqs has no NULL in it" TO ms_task_definition_depends_task_seqs_check;
ALTER TABLE ms_task_definition RENAME CONSTRAINT "depends_task_seqs is written like {1,2}" TO ms_task_definition_depends_from_1;
ALTER TABLE ms_task_definition RENAME CONSTRAINT "max_attempts is 1 or more" TO ms_task_definition_max_attempts_check;
ALTER TABLE ms_task_definition RENAME CONSTRAINT "retry_delay is not negative" TO ms_task_definition_retry_delay_check;
ALTER TABLE ms_task_definition RENAME CONSTRAINT "timeout is more than 0, or NULL for none" TO ms_task_definition_timeout_check;
ALTER TABLE ms_task_definition RENAME CONSTRAINT "on_lost is rerun or suspend" TO ms_task_definition_on_lost_check;
ALTER TABLE ms_task_definition RENAME CONSTRAINT "run_if is not empty, or NULL for none" TO ms_task_definition_run_if_check;
ALTER TABLE ms_workflow RENAME CONSTRAINT "task_id is not empty" TO ms_workflow_task_id_check;
ALTER TABLE ms_workflow RENAME CONSTRAINT "max_running_flows is 1 or more, or NULL for any number" TO ms_workflow_max_running_flows_check;
ALTER TABLE ms_workflow RENAME CONSTRAINT "max_running_tasks is 1 or more, or NULL for any number" TO ms_workflow_max_running_tasks_check;

ALTER TABLE kr_task_attempt DROP CONSTRAINT kr_task_attempt_times_are_finite;
ALTER TABLE kr_watcher DROP CONSTRAINT kr_watcher_times_are_finite;
COMMENT ON COLUMN kr_event.change IS 'Other columns that were changed: {"column": [old, new]}.';
COMMENT ON COLUMN kr_event.kind IS 'The action: rerun, cancel, hold, resume, approve, skip, finish; empty if rows were changed by hand.';
DROP TRIGGER kr_tasks_delete_recorded ON kr_task_stat;
DROP TRIGGER kr_tasks_insert_recorded ON kr_task_stat;
DROP FUNCTION flower_tasks_recorded();
DROP TRIGGER kr_task_time_at_odds ON kr_task_stat;
DROP TRIGGER kr_flow_renamed ON kr_flow;
DROP FUNCTION flower_flow_renamed();
DROP TRIGGER kr_flow_amended ON kr_flow;
DROP TRIGGER kr_task_amended ON kr_task_stat;
DROP TRIGGER kr_task_delayed ON kr_task_stat;
CREATE OR REPLACE TRIGGER kr_task_reworded
AFTER UPDATE OF program, parameters, task_priority, max_attempts, retry_delay, timeout, on_lost, run_if ON kr_task_stat
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
    WHERE o.key IN ('program', 'parameters', 'task_priority', 'max_attempts', 'retry_delay', 'timeout', 'on_lost', 'run_if')
    HAVING count(*) > 0;
    RETURN NULL;
END $$;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION flower_operate(action text, scope text, flow text, seq integer, why text, given_parameters jsonb DEFAULT NULL, given_output jsonb DEFAULT NULL)
RETURNS bigint
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    n       bigint;
    refused text[];
    found   boolean;
BEGIN
    PERFORM flower_because(why);
    SELECT count(*) FILTER (WHERE p.effect = 'change'), array_agg(p.why ORDER BY p.task_exec_seq) FILTER (WHERE p.effect = 'refuse'),
           bool_and(p.code NOT LIKE '%-not-found') IS NOT FALSE
    INTO   n, refused, found
    FROM   flower_act(action, scope, ARRAY[flow], ARRAY[seq], false, given_parameters, given_output) p;
    IF NOT found THEN
        RAISE EXCEPTION '%', rtrim(refused[1], '.') USING ERRCODE = 'no_data_found';
    ELSIF refused IS NOT NULL THEN
        RAISE EXCEPTION '%', refused[1] || CASE WHEN cardinality(refused) > 1 THEN format(' (And %s more.)', cardinality(refused) - 1) ELSE '' END
            USING ERRCODE = 'check_violation',
                  HINT = format('All of it: SELECT * FROM flower_plan(%s);', concat_ws(', ', quote_literal(action), quote_literal(flow),
                                'scope => ' || quote_literal(scope), 'seq => ' || seq));
    END IF;
    RETURN n;
END $$;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION flower_admit_tasks(workflow varchar, by_flow boolean, room integer) RETURNS integer
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    task     record;
    admitted integer := 0;
BEGIN
    IF room <= 0 THEN
        RETURN 0;
    END IF;
    FOR task IN SELECT task_flow_id AS flow, task_exec_seq AS seq FROM flower_may_go(workflow, by_flow, room + 100) LOOP
        EXIT WHEN admitted = room;
        PERFORM FROM kr_task_stat
        WHERE task_flow_id = task.flow AND task_exec_seq = task.seq AND gate = 2 FOR NO KEY UPDATE SKIP LOCKED;
        CONTINUE WHEN NOT FOUND;
        UPDATE kr_task_stat SET gate = 3 WHERE task_flow_id = task.flow AND task_exec_seq = task.seq AND gate = 2;
        PERFORM flower_requeue(task.flow, task.seq);
        admitted := admitted + 1;
    END LOOP;
    RETURN admitted;
END $$;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION flower_task_at_odds() RETURNS trigger
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    task text := format('task %s of flow %s', NEW.task_exec_seq, left(NEW.task_flow_id, 100));
BEGIN
    IF NEW.reason IS NOT NULL AND NEW.exec_status <> 2 THEN
        RAISE EXCEPTION '%: only a suspended task has a reason, and this one is at %', task, NEW.exec_status
            USING HINT = 'To stop it for that reason, set exec_status to 2 in the same statement.', ERRCODE = 'check_violation';
    END IF;
    RAISE EXCEPTION '%: watcher_id is kept by Flower', task
        USING HINT = 'Leave it empty.', ERRCODE = 'check_violation';
END $$;
-- +goose StatementEnd
