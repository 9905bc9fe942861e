package e2e

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Data goes from the request and from one task to the next, and decides what is run.
func TestDataFromTaskToTask(t *testing.T) {
	w := newWorld(t)
	p := newPeer(t, func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/orders" {
			_, _ = rw.Write([]byte(`{"rows": [{"id": 7, "total": 12.5}, {"id": 8, "total": 1}], "note": "${{ secrets.NOBODY }}"}`))
		}
	})
	w.define("data",
		p.calling("/orders"),
		task{program: "HTTPPostRequest", parameters: `{"URL": "` + p.URL + `/${{ params.day }}/${{ outputs[1].body.rows[0].id }}",
			"BODY": {"rows": "${{ filter(outputs[1].body.rows, .total > 10) }}", "note": "${{ outputs[1].body.note }}", "text": "flow ${{ flow.id }}"}}`},
		p.calling("/refund"),
		task{program: "HTTPPostRequest", parameters: `{"URL": "` + p.URL + `/end", "BODY": {"refund": "${{ outputs[3]?.status ?? 'none' }}", "raw": "${{ outputs[3] }}"}}`},
	)
	w.exec(`UPDATE ms_task_definition SET run_if = 'any(outputs[1].body.rows, .total < 0)' WHERE task_id = 'data' AND task_seq = 3`)
	s := w.register()
	watcher := w.watcher()
	flow := s.flowOf(s.send(http.MethodPost, "/register", "", `{"taskId": "data", "parameters": {"day": "monday"}}`), "data")
	w.await(flow, "3 3 9 3")
	w.sound()
	calls := p.seen()
	require.Len(t, calls, 3)
	require.Equal(t, "/monday/7", calls[1].path)
	require.JSONEq(t, `{"rows": [{"id": 7, "total": 12.5}], "note": "${{ secrets.NOBODY }}", "text": "flow `+flow+`"}`, calls[1].body)
	require.JSONEq(t, `{"refund": "none", "raw": null}`, calls[2].body)

	skipped := w.rows(flow)[2]
	const why = "run_if is false: ${{ any(outputs[1].body.rows, .total < 0) }}"
	require.Equal(t, why, skipped.Error)
	require.Equal(t, 1, skipped.Attempt)
	require.Nil(t, skipped.Started)
	require.Equal(t, why, watcher.Await("task skipped", "seq=3")["why"])
	text := s.send(http.MethodGet, "/api/v1/flows/"+flow+"?format=text", "", "").text
	require.Regexp(t, `⊘ 3 HTTPPostRequest +skipped +run_if is false: `, text)
	require.Contains(t, text, "FINISHED  4 of 4 finished")

	// Somebody wants it all the same: now, and what comes after it again.
	w.exec(`UPDATE kr_task_stat SET exec_status = 0, run_if = NULL WHERE task_flow_id = $1 AND task_exec_seq = 3`, flow)
	w.await(flow, "3 3 3 3")
	require.Equal(t, 1, p.at("/refund"))
	require.Equal(t, 1, p.at("/end"), "what had finished stays")

	// Rows by hand have expressions and conditions, too.
	w.exec(`INSERT INTO kr_task_stat (task_flow_id, task_exec_seq, depends_task_exec_seq, task_id, task_seq, parameters)
		VALUES ('by hand', 1, 0, 'data', 1, '{}'), ('by hand', 2, 1, 'data', 3, '{}'), ('by hand', 3, 2, 'data', 4, '{"BODY": "${{ flow.id }}: ${{ params ?? \"no\" }}"}')`)
	w.await("by hand", "3 9 3")
	calls = p.seen()
	require.JSONEq(t, `"by hand: no"`, mustJSON(t, calls[len(calls)-1].body))
}

func mustJSON(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	require.NoError(t, err)
	return string(b)
}

// What is wrong with expressions is said when a flow is registered, or else by its task.
func TestDataThatIsWrong(t *testing.T) {
	w := newWorld(t)
	s := w.register()
	w.watcher()
	for definition, want := range map[string]string{
		`{"URL": "http://h/${{ outputs[2].x }}"}`:    `task_seq 1 (HTTPPostRequest): parameter \"URL\": outputs[2]: no task with that task_seq comes before this one`,
		`{"URL": "http://h/${{ output }}"}`:          `parameter \"URL\": ${{ output }}: unknown name output (line 1, column 1)`,
		`{"URL": "http://h/", "BODY": "${{ 1 + }}"}`: `parameter \"BODY\": ${{ 1 + }}: it ends too early (line 1, column 3)`,
	} {
		w.exec(`DELETE FROM ms_task_definition WHERE task_id = 'wrong'`)
		w.define("wrong", task{program: "HTTPPostRequest", parameters: definition})
		a := s.send(http.MethodPost, "/register/wrong", "", "")
		require.Equal(t, http.StatusUnprocessableEntity, a.status)
		require.Contains(t, a.text, want)
	}
	w.exec(`UPDATE ms_task_definition SET parameters = '{"URL": "http://h/"}', run_if = 'secrets.A == 1' WHERE task_id = 'wrong'`)
	require.Contains(t, s.send(http.MethodPost, "/register/wrong", "", "").text, `run_if: ${{ secrets.A == 1 }}: unknown name secrets (line 1, column 1)`)

	// A request is data.
	w.define("nap", task{program: "EchoParamTimeSleep", parameters: `{"SLEEP_TIME_SECOND": 0}`})
	for _, parameters := range []string{`{"x": "${{ secrets.A }}"}`, `{"x": [{"y": "\u0024{{ 1 }}"}]}`, `{"${{ x": 1}`} {
		a := s.send(http.MethodPost, "/register", "", `{"taskId": "nap", "parameters": `+parameters+`}`)
		require.Equal(t, http.StatusUnprocessableEntity, a.status, parameters)
		require.Contains(t, a.text, "an expression, ${{ … }}, can stand in a definition only, not in a request")
	}
	var flows int
	require.NoError(t, w.Get(&flows, `SELECT count(*) FROM kr_flow`))
	require.Zero(t, flows)

	w.define("fails", task{program: "NoOp"}, task{program: "EchoParamTimeSleep", parameters: `{"SLEEP_TIME_SECOND": "${{ outputs[1].seconds }}"}`})
	flow := s.post("fails")
	w.await(flow, "3 2")
	failed := w.rows(flow)[1]
	require.Equal(t, "invalid", failed.Reason)
	require.Equal(t, `parameter "SLEEP_TIME_SECOND": ${{ outputs[1].seconds }}: cannot fetch seconds from null (line 1, column 12)`, failed.Error)
	require.True(t, strings.HasPrefix(failed.Error, "parameter"))
}
