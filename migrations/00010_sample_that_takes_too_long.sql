-- +goose Up

-- What cannot work is refused when it is registered now: the sample of a failure fails
-- while it runs instead. A sample that somebody has changed is theirs.
UPDATE ms_task_definition
SET    parameters = '{"SLEEP_TIME_SECOND": 60}', timeout = '1 s',
       description = 'invoice: fails, since it takes longer than its timeout'
WHERE  task_id = 'sample-fails' AND task_seq = 3 AND program = 'EchoParamTimeSleep'
       AND parameters = '{"SLEEP_TIME_SECOND": "soon"}' AND timeout IS NULL;

-- +goose Down
UPDATE ms_task_definition
SET    parameters = '{"SLEEP_TIME_SECOND": "soon"}', timeout = NULL,
       description = 'invoice: fails, since "soon" is not a number of seconds'
WHERE  task_id = 'sample-fails' AND task_seq = 3 AND program = 'EchoParamTimeSleep'
       AND parameters = '{"SLEEP_TIME_SECOND": 60}' AND timeout = '1 s';
