-- +goose Up

-- Every definition that a workflow has had. A transaction that changes one, whoever wrote
-- it and with however many statements, makes one new version when it commits: triggers note
-- which workflows it changes, and a deferred one compares each with its last version. So
-- the highest version is always what the tables say, in the same snapshot, and whoever
-- reads a definition to register a flow reads the number with it.
CREATE TABLE ms_workflow_version (
    task_id     varchar(256) COLLATE "C" NOT NULL,
    version     integer      NOT NULL CHECK (version > 0),
    definition  jsonb,
    digest      text,
    applied_ts  timestamptz  NOT NULL DEFAULT clock_timestamp(),
    applied_by  text         NOT NULL DEFAULT coalesce(nullif(current_setting('flower.actor', true), ''), session_user),
    application text         NOT NULL DEFAULT current_setting('application_name'),
    note        text         DEFAULT nullif(current_setting('flower.reason', true), ''),
    PRIMARY KEY (task_id, version)
);
COMMENT ON TABLE ms_workflow_version IS 'Kept by Flower: every definition that a workflow has had, changes by hand included. The highest version is the present one.';
COMMENT ON COLUMN ms_workflow_version.definition IS 'As in a file for "register apply", all times in seconds. NULL: the workflow was deleted.';
COMMENT ON COLUMN ms_workflow_version.digest IS 'SHA-256 of the definition: the same for the same content.';
COMMENT ON COLUMN ms_workflow_version.applied_ts IS 'When it was changed.';
COMMENT ON COLUMN ms_workflow_version.applied_by IS 'Who changed it: the one who asked the API, else the login of the database.';
COMMENT ON COLUMN ms_workflow_version.note IS 'Why, from: SET LOCAL flower.reason = ''…'' in the same transaction.';

ALTER TABLE kr_flow ADD COLUMN workflow_version integer;
COMMENT ON COLUMN kr_flow.workflow_version IS
    'Of ms_workflow_version: the definition that the flow was registered with. Of a flow inserted by hand the one of that time; NULL if there was none.';

CREATE TABLE ms_workflow_change (
    task_id varchar(256) COLLATE "C" NOT NULL,
    xact    xid8         NOT NULL DEFAULT pg_current_xact_id(),
    PRIMARY KEY (task_id, xact)
);
COMMENT ON TABLE ms_workflow_change IS 'Kept by Flower: workflows that a transaction under way has changed. Empty for everybody else.';
COMMENT ON COLUMN ms_workflow_change.xact IS 'Which transaction.';

-- flower_definition is a workflow as a file has it; NULL if it has no tasks. A column of
-- the definition that is missing here would be missing in the versions: a test compares.
CREATE FUNCTION flower_definition(workflow varchar) RETURNS jsonb
LANGUAGE sql STABLE
RETURN (
    SELECT jsonb_strip_nulls(jsonb_build_object('taskId', workflow, 'description', w.description,
               'maxRunningFlows', w.max_running_flows, 'maxRunningTasks', w.max_running_tasks))
           || jsonb_build_object('tasks', t.tasks)
    FROM (SELECT jsonb_agg(jsonb_strip_nulls(jsonb_build_object('seq', d.task_seq, 'description', d.description, 'program', d.program,
                     'dependsOn', d.depends_task_seqs, 'priority', d.task_priority, 'maxAttempts', d.max_attempts,
                     'retryDelay', trim_scale(round(extract(epoch FROM d.retry_delay), 3)),
                     'timeout', trim_scale(round(extract(epoch FROM d.timeout), 3)), 'onLost', d.on_lost, 'runIf', d.run_if))
                 || jsonb_build_object('parameters', d.parameters) ORDER BY d.task_seq) AS tasks  -- a null in there is a value
          FROM ms_task_definition d WHERE d.task_id = workflow) t
    LEFT JOIN ms_workflow w ON w.task_id = workflow
    WHERE t.tasks IS NOT NULL);

-- flower_version returns the number of a workflow's present definition, NULL if it has
-- none. What this transaction has changed is recorded first. One at a time, whatever the
-- workflow: nobody holds that lock for longer than a commit takes.
-- +goose StatementBegin
CREATE FUNCTION flower_version(workflow varchar) RETURNS integer
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

-- flower_workflow_changed notes which workflows a statement has changed.
-- +goose StatementBegin
CREATE FUNCTION flower_workflow_changed() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    IF TG_OP = 'TRUNCATE' THEN
        INSERT INTO ms_workflow_change (task_id) SELECT DISTINCT task_id FROM ms_workflow_version ON CONFLICT DO NOTHING;
    ELSE
        INSERT INTO ms_workflow_change (task_id) SELECT DISTINCT task_id FROM changed ON CONFLICT DO NOTHING;
    END IF;
    RETURN NULL;
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE FUNCTION flower_workflow_recorded() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    PERFORM flower_version(NEW.task_id);
    RETURN NULL;
END $$;
-- +goose StatementEnd

CREATE CONSTRAINT TRIGGER ms_workflow_recorded AFTER INSERT ON ms_workflow_change
DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION flower_workflow_recorded();

CREATE TRIGGER ms_task_definition_added AFTER INSERT ON ms_task_definition
REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION flower_workflow_changed();
CREATE TRIGGER ms_task_definition_left AFTER UPDATE ON ms_task_definition
REFERENCING OLD TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION flower_workflow_changed();
CREATE TRIGGER ms_task_definition_changed AFTER UPDATE ON ms_task_definition
REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION flower_workflow_changed();
CREATE TRIGGER ms_task_definition_deleted AFTER DELETE ON ms_task_definition
REFERENCING OLD TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION flower_workflow_changed();
CREATE TRIGGER ms_task_definition_truncated AFTER TRUNCATE ON ms_task_definition
FOR EACH STATEMENT EXECUTE FUNCTION flower_workflow_changed();

CREATE TRIGGER ms_workflow_added AFTER INSERT ON ms_workflow
REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION flower_workflow_changed();
CREATE TRIGGER ms_workflow_left AFTER UPDATE ON ms_workflow
REFERENCING OLD TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION flower_workflow_changed();
CREATE TRIGGER ms_workflow_changed AFTER UPDATE ON ms_workflow
REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION flower_workflow_changed();
CREATE TRIGGER ms_workflow_deleted AFTER DELETE ON ms_workflow
REFERENCING OLD TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION flower_workflow_changed();
CREATE TRIGGER ms_workflow_truncated AFTER TRUNCATE ON ms_workflow
FOR EACH STATEMENT EXECUTE FUNCTION flower_workflow_changed();

-- flower_flow_versioned: a flow that was inserted by hand. Registrations bring the number
-- with them.
-- +goose StatementBegin
CREATE FUNCTION flower_flow_versioned() RETURNS trigger
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    NEW.workflow_version := flower_version(NEW.task_id);
    RETURN NEW;
END $$;
-- +goose StatementEnd

CREATE TRIGGER kr_flow_versioned BEFORE INSERT ON kr_flow
FOR EACH ROW WHEN (NEW.workflow_version IS NULL) EXECUTE FUNCTION flower_flow_versioned();

INSERT INTO ms_workflow_version (task_id, version, definition, digest, note)
SELECT w.task_id, 1, d.definition, encode(sha256(convert_to(d.definition::text, 'UTF8')), 'hex'), 'as it was when versions began'
FROM   (SELECT DISTINCT task_id FROM ms_task_definition) w
CROSS  JOIN LATERAL (SELECT flower_definition(w.task_id) AS definition) d;

-- +goose Down
DROP TRIGGER kr_flow_versioned ON kr_flow;
DROP TRIGGER ms_workflow_truncated ON ms_workflow;
DROP TRIGGER ms_workflow_deleted ON ms_workflow;
DROP TRIGGER ms_workflow_changed ON ms_workflow;
DROP TRIGGER ms_workflow_left ON ms_workflow;
DROP TRIGGER ms_workflow_added ON ms_workflow;
DROP TRIGGER ms_task_definition_truncated ON ms_task_definition;
DROP TRIGGER ms_task_definition_deleted ON ms_task_definition;
DROP TRIGGER ms_task_definition_changed ON ms_task_definition;
DROP TRIGGER ms_task_definition_left ON ms_task_definition;
DROP TRIGGER ms_task_definition_added ON ms_task_definition;
ALTER TABLE kr_flow DROP COLUMN workflow_version;
DROP TABLE ms_workflow_change, ms_workflow_version;
DROP FUNCTION flower_flow_versioned(), flower_workflow_recorded(), flower_workflow_changed(), flower_version(varchar), flower_definition(varchar);
