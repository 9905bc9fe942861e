package postgres

import (
	"context"
	"fmt"

	"github.com/d-tsuji/flower/internal/flow"
)

// What a task that has asked somebody knows of the answer is in kr_task_stat.pause: in
// callbacks the hashes of the tokens that whoever answers may show, of each request that
// was sent, since one of them may have been taken for a repetition of the first; and in
// answer what came. Both are written only under the lock of the row.

// expectSQL adds a hash, of a task that runs. Where there is an answer already nobody
// needs to be asked, unless that one has failed: then it goes, and who gave it.
//
//	$1 to $3  the task: flow, seq, claim_id
//	$4, $5    the hash; whether the answer has failed
const expectSQL = `
-- flower: expect a callback
WITH task AS MATERIALIZED (
    SELECT task_flow_id, task_exec_seq, (pause ? 'answer') IS TRUE AS answered,
           CASE WHEN $5 THEN '[]' ELSE coalesce(pause->'callbacks', '[]') END AS callbacks
    FROM   kr_task_stat
    WHERE  task_flow_id = $1 AND task_exec_seq = $2 AND exec_status = 1 AND claim_id = $3::uuid AND watcher_id IS NOT NULL
    FOR NO KEY UPDATE
), expected AS (
    UPDATE kr_task_stat t
    SET    pause = jsonb_build_object('callbacks',
                       (CASE WHEN jsonb_array_length(k.callbacks) < 100 THEN k.callbacks ELSE k.callbacks - 0 END) || to_jsonb($4::text))
    FROM   task k
    WHERE  t.task_flow_id = k.task_flow_id AND t.task_exec_seq = k.task_exec_seq AND ($5 OR NOT k.answered)
    RETURNING 1
)
SELECT EXISTS (SELECT FROM expected) FROM task`

// ExpectCallback lets whoever has the token of a hash answer a task, for as long as it
// waits. It is to be called before the token is given away. It reports false if the task
// has an answer, unless that one failed: then it is forgotten.
func (d *DB) ExpectCallback(ctx context.Context, of flow.Task, hash string, failed bool) (bool, error) {
	var rows []bool
	err := d.writer.selectAll(ctx, &rows, expectSQL, string(of.Flow), of.Seq, of.ClaimID, hash, failed)
	if err != nil {
		return false, translate(fmt.Sprintf("expect an answer for task %s", of.TaskKey), err)
	}
	if len(rows) == 0 {
		return false, fmt.Errorf("expect an answer for task %s: it was changed by hand or taken over", of.TaskKey)
	}
	return rows[0], nil
}

// answerSQL keeps an answer, once, and lets the task go on. A running task has sent its
// request, and not paused yet; settleSQL finds the answer. One that is held goes on when
// it is resumed.
//
//	$1, $2  the task; $3  the hash; $4  the answer
const answerSQL = `
-- flower: answer
WITH task AS MATERIALIZED (
    SELECT task_flow_id, task_exec_seq, task_id, gate > 0 AS limited, pause ? 'answer' AS answered,
           exec_status IN (0, 1) OR exec_status = 2 AND reason = 'held' AS waits
    FROM   kr_task_stat
    WHERE  task_flow_id = $1 AND task_exec_seq = $2 AND pause->'callbacks' ? $3
    FOR NO KEY UPDATE
), taken AS (
    UPDATE kr_task_stat t
    SET    pause = t.pause || jsonb_build_object('answer', jsonb_build_object('attempt', t.attempt, 'body', $4::text)),
           run_after = NULL
    FROM   task k
    WHERE  t.task_flow_id = k.task_flow_id AND t.task_exec_seq = k.task_exec_seq AND k.waits AND NOT k.answered
    RETURNING 1
)
SELECT CASE WHEN EXISTS (SELECT FROM taken) THEN 'taken' WHEN answered THEN 'repeated' ELSE 'late' END AS answered, task_id, limited FROM task`

type answeredRow struct {
	Answered   string `db:"answered"`
	WorkflowID string `db:"task_id"`
	Limited    bool   `db:"limited"`
}

// Answer gives a task the answer that it waits for, JSON, if the hash is that of a token
// which it has given away; else the error is flow.ErrNotFound. After flow.ErrLocked nothing
// has happened.
func (d *DB) Answer(ctx context.Context, key flow.TaskKey, hash, body string) (flow.Answered, error) {
	var rows []answeredRow
	if err := d.writer.selectAll(ctx, &rows, answerSQL, string(key.Flow), key.Seq, hash, body); err != nil {
		return "", translate(fmt.Sprintf("answer task %s", key), locked(err))
	}
	if len(rows) == 0 {
		return "", fmt.Errorf("answer task %s: %w", key, flow.ErrNotFound)
	}
	r := rows[0]
	if r.Answered == string(flow.AnswerRepeated) {
		d.entered(beginning) // as after an action, see perform: claims have passed over the task
	}
	if r.Limited && r.Answered == string(flow.AnswerTaken) {
		if _, err := d.admit(ctx, []string{r.WorkflowID}); err != nil {
			d.log.Error("a task that was answered was not admitted: a watcher will do it", "err", err)
		}
	}
	return flow.Answered(r.Answered), nil
}
