-- Roles of the database for people and programs, for those who want them:
--
--   register -migrate roles        as a superuser, or as the owner if it may create roles (since
--                                  PostgreSQL 16: and made these, or has them WITH ADMIN OPTION)
--
-- Without this, one role owns everything and everybody logs in as that. With it, the owner
-- is a role that cannot log in, and others have what they need:
--
--   flower_reader     reads everything but what may hold secrets: no column of jsonb
--   flower_operator   and reads those, and changes tasks: by hand, and by flower_rerun & co.
--   flower_admin      and changes definitions and limits, and deletes old versions
--   flower_register   what the program register needs: an admin's rights, and to make flows
--   flower_watcher    what the program watcher needs
--   flower_owner      owns everything; its members may migrate
--
-- None of them can log in. CREATE ROLE alice LOGIN PASSWORD '…' IN ROLE flower_operator.
--
-- It is safe to repeat, and repeated after each migration, which may bring new tables and
-- functions. It goes by their names: kr_, ms_ and v_ for tables and views, flower_ for
-- functions and types. What is new belongs to the owner alone until it is named below.

DO $$
DECLARE
    here   constant text := current_schema();
    people constant text := 'flower_reader, flower_operator, flower_admin, flower_register, flower_watcher';
    one    record;
    name   text;
BEGIN
    IF to_regclass('kr_task_stat') IS NULL THEN
        RAISE EXCEPTION 'there are no tables of Flower here' USING HINT = 'Migrate first.';
    END IF;

    -- The roles. They belong to the whole server: another database may have made them.
    FOREACH name IN ARRAY string_to_array('flower_owner, ' || people, ', ') LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name) THEN
            BEGIN
                EXECUTE format('CREATE ROLE %I NOLOGIN', name);
            EXCEPTION WHEN duplicate_object OR unique_violation THEN  -- at the same time
                NULL;
            END;
        END IF;
    END LOOP;
    FOR one IN SELECT * FROM (VALUES ('flower_reader', 'flower_operator'), ('flower_operator', 'flower_admin'),
                                     ('flower_admin', 'flower_register'), ('flower_reader', 'flower_watcher'),
                                     -- whoever runs this, and whoever owned it so far and logs in as that
                                     ('flower_owner', current_user::text),
                                     ('flower_owner', (SELECT pg_get_userbyid(relowner)::text FROM pg_class WHERE oid = 'kr_task_stat'::regclass))
                      ) AS m(role, member)
    LOOP
        -- Since PostgreSQL 16 whoever made a role is a member of it, and has not got its rights.
        IF NOT pg_has_role(one.member, one.role, 'USAGE') THEN
            EXECUTE format('GRANT %I TO %I', one.role, one.member);
        END IF;
    END LOOP;

    -- Nothing for PUBLIC, and no place for a table that hides one of ours.
    EXECUTE format('REVOKE ALL ON DATABASE %I FROM PUBLIC', current_database());
    EXECUTE format('GRANT CONNECT ON DATABASE %I TO %s, flower_owner', current_database(), people);
    EXECUTE format('REVOKE ALL ON SCHEMA %I FROM PUBLIC', here);
    EXECUTE format('GRANT USAGE ON SCHEMA %I TO %s', here, people);
    EXECUTE format('GRANT USAGE, CREATE ON SCHEMA %I TO flower_owner', here);

    -- Tables and views: all of them the owner's, and for reading.
    FOR one IN SELECT c.oid::regclass AS what, c.relkind, c.relowner <> 'flower_owner'::regrole AS foreign_,
                      (SELECT string_agg(quote_ident(a.attname), ', ') FROM pg_attribute a
                       WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.atttypid <> 'jsonb'::regtype) AS harmless
               FROM pg_class c
               WHERE c.relnamespace = here::regnamespace AND c.relkind IN ('r', 'v', 'p')
                 AND (c.relname ~ '^(kr|ms|v)_' OR c.relname = 'goose_db_version')
    LOOP
        IF one.foreign_ THEN
            EXECUTE format('ALTER %s %s OWNER TO flower_owner', CASE one.relkind WHEN 'v' THEN 'VIEW' ELSE 'TABLE' END, one.what);
        END IF;
        EXECUTE format('REVOKE ALL ON %s FROM PUBLIC, %s', one.what, people);
        EXECUTE format('GRANT SELECT (%s) ON %s TO flower_reader', one.harmless, one.what);
        IF one.relkind = 'v' THEN
            EXECUTE format('GRANT SELECT ON %s TO flower_reader', one.what);
        ELSE
            EXECUTE format('GRANT SELECT ON %s TO flower_operator, flower_watcher', one.what);
        END IF;
    END LOOP;

    -- Functions: what changes something works with the owner's rights, looks in this schema
    -- alone (a temporary table comes last, or it would hide ours), and is nobody's to call
    -- but for those named below. What reads is everybody's, with their own rights.
    FOR one IN SELECT p.oid::regprocedure AS what, p.proowner <> 'flower_owner'::regrole AS foreign_, p.provolatile = 'v' AS changes,
                      p.proname IN ('flower_because', 'flower_operate', 'flower_rerun', 'flower_cancel', 'flower_hold', 'flower_resume',
                                    'flower_skip', 'flower_finish', 'flower_approve') AS for_operators,
                      p.proname IN ('flower_planned', 'flower_meant') AS for_readers  -- they read jsonb, and show nothing of it
               FROM pg_proc p WHERE p.pronamespace = here::regnamespace AND p.proname ~ '^flower_'
    LOOP
        IF one.foreign_ THEN
            EXECUTE format('ALTER FUNCTION %s OWNER TO flower_owner', one.what);
        END IF;
        EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC, %s', one.what, people);
        IF one.for_operators THEN
            EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO flower_operator', one.what);
        ELSIF one.changes OR one.for_readers THEN
            EXECUTE format('ALTER FUNCTION %s SECURITY DEFINER SET search_path = %I, pg_temp', one.what, here);
        END IF;
        IF NOT one.changes AND NOT one.for_operators THEN
            EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO flower_reader', one.what);
        END IF;
    END LOOP;
    FOR one IN SELECT t.oid::regtype AS what FROM pg_type t JOIN pg_class c ON c.oid = t.typrelid
               WHERE t.typnamespace = here::regnamespace AND t.typname ~ '^flower_' AND c.relkind = 'c' AND t.typowner <> 'flower_owner'::regrole
    LOOP
        EXECUTE format('ALTER TYPE %s OWNER TO flower_owner', one.what);
    END LOOP;

    -- What the two programs call.
    FOR one IN SELECT p.oid::regprocedure AS what, g.who FROM (VALUES
                   ('flower_act', 'flower_operator, flower_watcher'), ('flower_lock_tasks', 'flower_operator'), ('flower_register', 'flower_operator'),
                   ('flower_admit', 'flower_register, flower_watcher'), ('flower_version', 'flower_admin, flower_register, flower_watcher'),
                   ('flower_recount', 'flower_watcher'),
                   -- a task of the program Flow that runs again runs again what failed in its flow
                   ('flower_rerun', 'flower_watcher'), ('flower_operate', 'flower_watcher'), ('flower_because', 'flower_watcher')) AS g(name, who)
               JOIN pg_proc p ON p.pronamespace = here::regnamespace AND p.proname = g.name
    LOOP
        EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO %s', one.what, one.who);
    END LOOP;

    -- Tables that somebody writes; where a row says columns, those alone.
    FOR one IN SELECT * FROM (VALUES
            ('flower_operator', 'kr_task_stat', 'UPDATE (exec_status, task_priority, parameters, reason, error, hold, run_after, run_if)'),
            ('flower_admin', 'ms_task_definition', 'INSERT, UPDATE, DELETE'),
            ('flower_admin', 'ms_workflow', 'INSERT, UPDATE, DELETE'),
            ('flower_admin', 'ms_workflow_version', 'DELETE'),  -- the last one stays

            ('flower_register', 'kr_flow', 'INSERT, UPDATE (replayed_ts)'),
            ('flower_register', 'kr_task_stat', 'INSERT, UPDATE (pause)'),  -- a callback leaves its answer there
            ('flower_register', 'kr_ready', 'INSERT'),
            ('flower_register', 'kr_request', 'INSERT, UPDATE, DELETE'),

            ('flower_watcher', 'kr_flow', 'INSERT, UPDATE (replayed_ts)'),
            ('flower_watcher', 'kr_task_stat', 'INSERT, UPDATE'),
            ('flower_watcher', 'kr_ready', 'INSERT, UPDATE, DELETE'),
            ('flower_watcher', 'kr_task_attempt', 'INSERT, UPDATE'),
            ('flower_watcher', 'kr_task_log', 'INSERT, UPDATE, DELETE'),
            ('flower_watcher', 'kr_watcher', 'INSERT, UPDATE, DELETE'),
            ('flower_watcher', 'kr_check', 'INSERT, UPDATE'),
            ('flower_watcher', 'kr_unowned', 'DELETE'),
            ('flower_watcher', 'kr_tally', 'INSERT, UPDATE, DELETE')) AS g(who, what, rights)
    LOOP
        IF to_regclass(quote_ident(here) || '.' || one.what) IS NOT NULL THEN  -- of an older or a newer schema
            EXECUTE format('GRANT %s ON %I.%I TO %I', one.rights, here, one.what, one.who);
        END IF;
    END LOOP;
END $$;
