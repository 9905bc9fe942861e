package api_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/api"
	"github.com/d-tsuji/flower/internal/definition"
)

const nightlyYAML = `
description: the night's work
maxRunningFlows: 1
tasks:
  - program: Test1
  - program: EchoParamTimeSleep
    parameters: {SLEEP_TIME_SECOND: 1, API_TOKEN: s3cret}
`

// put puts a workflow, which must succeed.
func (w *world) put(path, body string, headers ...string) api.EditedWorkflow {
	w.t.Helper()
	rec := w.send("PUT", path, body, headers...)
	require.Equal(w.t, http.StatusOK, rec.Code, rec.Body.String())
	return decode[api.EditedWorkflow](w.t, rec.Body.Bytes())
}

func TestPutWorkflow_MakesItWhatABodySays(t *testing.T) {
	t.Parallel()
	w := open(t)
	const path = "/api/v1/workflows/nightly"
	for _, dry := range []bool{true, false} {
		query := "?note=a+try"
		if dry {
			query += "&dryRun=true"
		}
		e := w.put(path+query, nightlyYAML)
		require.Equal(t, "created", e.What)
		require.Equal(t, dry, e.DryRun)
		require.Equal(t, dry, e.Version == nil)
	}
	flow := get[api.FlowDetail](w, "/api/v1/flows/"+w.register("nightly"))
	require.Equal(t, 1, *flow.WorkflowVersion)

	// As JSON, whatever its Content-Type says; what is there, changed.
	rec := w.send("GET", path+"/definition", "")
	require.Equal(t, http.StatusOK, rec.Code)
	require.Equal(t, `"1"`, rec.Header().Get("ETag"))
	require.Contains(t, rec.Body.String(), "s3cret", "it is for whoever edits it")
	changed := strings.Replace(rec.Body.String(), `"maxRunningFlows":1`, `"maxRunningFlows":2`, 1)
	changed = strings.Replace(changed, "s3cret", "another", 1)
	rec = w.send("PUT", path, changed, "If-Match", `"1"`)
	require.Equal(t, http.StatusOK, rec.Code, rec.Body.String())
	require.Equal(t, `"2"`, rec.Header().Get("ETag"))
	require.NotContains(t, rec.Body.String(), "another")
	e := decode[api.EditedWorkflow](t, rec.Body.Bytes())
	require.Equal(t, "changed", e.What)
	require.Equal(t, []string{"maxRunningFlows", "parameters.API_TOKEN"}, []string{*e.Changes[0].Field, *e.Changes[1].Field})
	require.Equal(t, "1 2", string(e.Changes[0].Old)+" "+string(e.Changes[0].New))
	require.JSONEq(t, changed, w.send("GET", path+"/definition?format=json", "").Body.String())

	text := w.send("GET", path+"/definition?format=yaml", "").Body.String()
	rec = w.send("PUT", path+"?format=text", text, "Content-Type", "application/yaml")
	require.Equal(t, "nightly: unchanged\n0 created, 0 changed, 0 deleted, 1 unchanged\n", rec.Body.String())
	require.Equal(t, 2, get[api.Workflow](w, path).Version)
	require.Equal(t, `"2"`, w.send("GET", path, "").Header().Get("ETag"))
}

func TestPutWorkflow_TellsEveryMistake(t *testing.T) {
	t.Parallel()
	w := open(t)
	const path = "/api/v1/workflows/nightly"
	p := w.fails("workflow-broken", "PUT", path, "\n\ntasks:\n- program: Tset1\n  dependsOn: [2]\n- {program: EchoParamTimeSleep, parameters: {SLEEP_TIME_SECOND: soon}}\n- {}\n")
	require.Equal(t, "body:7:3: the task has no program: it says what runs", p.Detail)
	p = w.fails("workflow-broken", "PUT", path, "tasks:\n- program: Tset1\n- {program: EchoParamTimeSleep, parameters: {SLEEP_TIME_SECOND: soon}}\n")
	require.Equal(t, `body:2:12: there is no program "Tset1": did you mean Test1? (and 1 more)`, p.Detail)
	require.Len(t, p.Errors, 2)
	require.Equal(t, "body:3:65", p.Errors[1].Location)
	for _, body := range []string{
		"taskId: other\ntasks: [{program: NoOp}]", "[", `{"tasks": [`, "- tasks: [{program: NoOp}]\n- tasks: [{program: NoOp}]", "~", "\xff", "tasks: [{program: \"\\0\"}]",
		"tasks: [{program: NoOp, parameters: {n: 1e999999}}]", `{"tasks": [{"program": "NoOp", "dependsOn": [1]}]}`,
	} {
		w.fails("workflow-broken", "PUT", path, body)
	}
	w.fails("malformed-body", "PUT", path, "")
	w.fails("body-too-large", "PUT", path, strings.Repeat("#", 2<<20))
	w.fails("unknown-field", "PUT", path+"?dryrun=1", nightlyYAML)
	w.fails("workflow-not-found", "GET", path, "")
	require.Equal(t, http.StatusOK, w.send("PUT", path+"?anyProgram=true", "tasks: [{program: Ours}]").Code)
}

func TestPutWorkflow_OnlyWhatWasMeant(t *testing.T) {
	t.Parallel()
	w := open(t)
	const path = "/api/v1/workflows/nightly"
	p := w.fails("version-changed", "PUT", path, nightlyYAML, "If-Match", "*")
	require.Equal(t, `workflow "nightly" does not exist now; the edit is for one that exists`, p.Detail)
	require.Equal(t, http.StatusPreconditionFailed, p.Status)
	w.fails("version-changed", "PUT", path, nightlyYAML, "If-Match", `"1"`)
	w.put(path, nightlyYAML, "If-None-Match", "*")
	w.fails("version-changed", "PUT", path, nightlyYAML, "If-None-Match", "*")
	w.fails("version-changed", "PUT", path, nightlyYAML, "If-Match", `W/"2"`)
	w.put(path, nightlyYAML, "If-Match", "*")
	w.put(path, nightlyYAML, "If-Match", `W/"1"`)
	w.fails("malformed-header", "PUT", path, nightlyYAML, "If-Match", "x")
	w.fails("malformed-header", "PUT", path, nightlyYAML, "If-Match", "")
	w.fails("malformed-header", "PUT", path, nightlyYAML, "If-None-Match", "")
	w.fails("malformed-header", "DELETE", path, "", "If-Match", "")
	w.fails("malformed-header", "PUT", path, nightlyYAML, "If-Match", `"1"`, "If-None-Match", "*")
	w.fails("malformed-header", "PUT", path, nightlyYAML, "If-None-Match", `"1"`)
	w.fails("version-changed", "DELETE", path, "", "If-Match", `"2"`)
	require.Equal(t, http.StatusOK, w.send("DELETE", path, "", "If-Match", `"1"`).Code)
}

func TestVersions_KeepWhatWas(t *testing.T) {
	t.Parallel()
	w := open(t)
	const path = "/api/v1/workflows/nightly"
	w.put(path, nightlyYAML)
	w.exec(`UPDATE ms_task_definition SET task_priority = 1 WHERE task_id = 'nightly'`)
	require.Equal(t, "nightly: deleted, 2 tasks\n0 created, 0 changed, 1 deleted, 0 unchanged; this was a dry run: nothing was changed\n",
		w.send("DELETE", path+"?dryRun=true&format=text", "").Body.String())
	for _, query := range []string{"?dryRun", "?dryRun=", "?dryRun=yes"} { // whoever asks for one must not get a real one
		w.fails("invalid-filter", "DELETE", path+query, "")
		w.fails("invalid-filter", "PUT", path+query, nightlyYAML)
		w.fails("invalid-filter", "POST", "/api/v1/workflows"+query, "taskId: other"+nightlyYAML)
	}
	require.Equal(t, 2, get[api.Workflow](w, path).Version)
	rec := w.send("DELETE", path+"?note=gone", "")
	require.Equal(t, http.StatusOK, rec.Code)
	require.Nil(t, decode[api.EditedWorkflow](t, rec.Body.Bytes()).Version)
	w.fails("workflow-not-found", "DELETE", path, "")
	w.fails("workflow-not-found", "GET", path+"/definition", "")

	l := get[api.VersionList](w, path+"/versions?limit=2")
	require.Equal(t, "2", *l.NextCursor)
	require.Equal(t, []int{3, 2}, []int{l.Items[0].Version, l.Items[1].Version})
	require.Equal(t, "null", string(l.Items[0].Definition))
	require.Equal(t, "gone", *l.Items[0].Note)
	require.Equal(t, "anonymous@192.0.2.1 flower-test", l.Items[0].AppliedBy+" "+l.Items[0].Application)
	require.Equal(t, "flower pgtest", l.Items[1].AppliedBy+" "+l.Items[1].Application)
	l = get[api.VersionList](w, path+"/versions?cursor=2")
	require.Len(t, l.Items, 1)
	require.Nil(t, l.NextCursor)
	require.NotContains(t, string(l.Items[0].Definition), "s3cret")
	var d struct{ MaxRunningFlows int }
	require.NoError(t, json.Unmarshal(l.Items[0].Definition, &d))
	require.Equal(t, 1, d.MaxRunningFlows)
	w.fails("workflow-not-found", "GET", "/api/v1/workflows/nope/versions", "")
	require.Contains(t, w.send("GET", path+"/versions?format=text", "").Body.String(), "deleted gone")
}

func TestApplyWorkflows_AllOrNone(t *testing.T) {
	t.Parallel()
	w := open(t)
	body := "taskId: a" + strings.ReplaceAll(nightlyYAML, "night", "a") + "---\ntaskId: b" + nightlyYAML
	w.fails("workflow-broken", "POST", "/api/v1/workflows", strings.Replace(body, "Test1", "Tset1", 1))
	w.fails("workflow-broken", "POST", "/api/v1/workflows?prune=true", "---\n")
	w.fails("workflow-not-found", "GET", "/api/v1/workflows/b", "")
	rec := w.send("POST", "/api/v1/workflows?prune=true&dryRun=true", body)
	require.Equal(t, http.StatusOK, rec.Code, rec.Body.String())
	answer := decode[api.EditedWorkflows](t, rec.Body.Bytes())
	require.Len(t, answer.Items, 6)
	require.Equal(t, "deleted", answer.Items[2].What)
	rec = w.send("POST", "/api/v1/workflows?format=text", body)
	require.Equal(t, "a: created, 2 tasks\nb: created, 2 tasks\n2 created, 0 changed, 0 deleted, 0 unchanged\n", rec.Body.String())
}

func TestWorkflowSchema_IsServed(t *testing.T) {
	t.Parallel()
	w := open(t)
	require.JSONEq(t, string(definition.Schema), w.send("GET", "/api/v1/schema/workflow.json", "").Body.String())
}
