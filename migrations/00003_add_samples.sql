-- +goose Up

-- Workflows to try Flower out with. Yours are rows like these.
INSERT INTO ms_task_definition (task_id, task_seq, program, task_priority, parameters, depends_task_seqs, description)
VALUES
    ('sample', 1, 'Test1', 10, '{}', NULL, 'a chain of three: each waits for the one before'),
    ('sample', 2, 'Test2', 10, '{}', NULL, NULL),
    ('sample', 3, 'Test3', 10, '{}', NULL, NULL),

    ('sample-diamond', 1, 'NoOp', 10, '{}', '{}', 'begin'),
    ('sample-diamond', 2, 'EchoRandomTimeSleep', 10, '{}', '{1}', 'extract orders'),
    ('sample-diamond', 3, 'EchoRandomTimeSleep', 10, '{}', '{1}', 'extract customers'),
    ('sample-diamond', 4, 'EchoRandomTimeSleep', 10, '{}', '{1}', 'extract stock'),
    ('sample-diamond', 5, 'EchoRandomTimeSleep', 10, '{}', '{2,3}', 'join orders and customers'),
    ('sample-diamond', 6, 'EchoRandomTimeSleep', 10, '{}', '{3,4}', 'join customers and stock'),
    ('sample-diamond', 7, 'EchoRandomTimeSleep', 10, '{}', '{5,6}', 'build the report'),
    ('sample-diamond', 8, 'NoOp', 10, '{}', '{7}', 'end'),

    ('sample-fails', 1, 'Test1', 10, '{}', NULL, 'extract'),
    ('sample-fails', 2, 'Test2', 10, '{}', NULL, 'load'),
    ('sample-fails', 3, 'EchoParamTimeSleep', 10, '{"SLEEP_TIME_SECOND": "soon"}', NULL,
     'invoice: fails, since "soon" is not a number of seconds'),
    ('sample-fails', 4, 'Test3', 10, '{}', NULL, 'report')
ON CONFLICT DO NOTHING;

-- +goose Down
DELETE FROM ms_task_definition WHERE task_id IN ('sample', 'sample-diamond', 'sample-fails');
