package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/cli"
)

// exchange is what a fake register was asked.
type exchange struct {
	method, path, key, auth string
	body                    map[string]any
}

// fake answers as a register would.
type fake struct {
	*httptest.Server
	asked  []exchange
	answer map[string][]string // by method and path: one after the other, the last again and again
}

func newFake(t *testing.T, answer map[string][]string) *fake {
	t.Helper()
	f := &fake{answer: answer}
	f.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		x := exchange{method: r.Method, path: r.URL.EscapedPath(), key: r.Header.Get("Idempotency-Key"), auth: r.Header.Get("Authorization")}
		_ = json.NewDecoder(r.Body).Decode(&x.body)
		if r.URL.RawQuery != "" {
			x.path += "?" + r.URL.RawQuery
		}
		f.asked = append(f.asked, x)
		answers := f.answer[r.Method+" "+r.URL.EscapedPath()]
		if len(answers) == 0 {
			w.WriteHeader(http.StatusNotFound)
			fmt.Fprint(w, `{"code": "no-such-path", "detail": "there is nothing at `+r.URL.Path+`"}`)
			return
		}
		if len(answers) > 1 {
			f.answer[r.Method+" "+r.URL.EscapedPath()] = answers[1:]
		}
		status := 200
		body := answers[0]
		if _, err := fmt.Sscanf(body, "%d ", &status); err == nil {
			body = body[4:]
		}
		w.WriteHeader(status)
		fmt.Fprint(w, body)
	}))
	t.Cleanup(f.Close)
	return f
}

// call runs a command, and returns its exit code and what it prints.
func (f *fake) call(ctx context.Context, args ...string) (code int, stdout, stderr string) {
	return execute(ctx, map[string]string{"FLOWER_SERVER": f.URL + "/"}, args...)
}

func execute(ctx context.Context, vars map[string]string, args ...string) (code int, stdout, stderr string) {
	var out, err bytes.Buffer
	env := &cli.Env{
		Name: "register", Args: args, Stdout: &out, Stderr: &err,
		Getenv: func(name string) string { return vars[name] },
	}
	code = cli.Exec(ctx, env, cli.WithCommands(nil, Commands()...))
	return code, out.String(), err.String()
}

const flowID = "01a20f06-fa5e-7b09-b1f9-0c4bb1e6e7ae"

func state(status string, finished int) string {
	return fmt.Sprintf(`{"taskFlowId": %q, "taskId": "nightly", "status": %q, "counts": {"waiting": 1, "running": 1, "finished": %d},
		"tasks": [{"taskExecSeq": 3, "title": "load", "status": "running"}]}`, flowID, status, finished)
}

func TestCommands_AskWhatTheyShould(t *testing.T) {
	t.Parallel()
	flow := "GET /api/v1/flows/" + flowID
	const plan = `{"dryRun": true, "changed": 1, "tasks": [{"taskFlowId": "` + flowID + `", "taskExecSeq": 3, "title": "load", "from": "suspended", "to": "waiting"}], "canGo": [3], "kept": 2}`
	answers := func() map[string][]string {
		a := map[string][]string{
			"GET /api/v1/flows": {"a table\n"}, "GET /api/v1/failures": {"groups\n"}, "POST /api/v1/flows": {`{"taskFlowId": "` + flowID + `"}`},
			flow: {state("failed", 1)}, "GET /api/v1/flows/01a20f": {state("failed", 1)}, "GET /api/v1/flows/a%2Fb%20%C3%A9": {"odd\n"},
		}
		for _, verb := range []string{"rerun", "cancel", "hold", "resume", "tasks/3/hold", "tasks/3/resume", "tasks/3/cancel", "tasks/3/approve", "tasks/3/skip", "tasks/3/finish"} {
			a["POST /api/v1/flows/"+flowID+"/"+verb] = []string{plan}
		}
		return a
	}
	const effect = "   3 load  suspended → waiting, can go\n" + flowID + ": 1 task changes, 2 stay as they are; this was a dry run: nothing was changed\n"
	for name, c := range map[string]struct {
		args   []string
		last   string // what is asked last
		body   string
		stdout string
	}{
		"flows": {[]string{"flows"}, "GET /api/v1/flows?format=text", "", "a table\n"},
		"filters": {
			[]string{"flows", "-status", "failed,held", "-task", "a b", "-since", "24h", "-limit", "7", "-json"},
			"GET /api/v1/flows?format=json&limit=7&since=24h&status=failed%2Cheld&taskId=a+b", "", "a table\n",
		},
		"failures":  {[]string{"failures", "-since", "7d"}, "GET /api/v1/failures?format=text&since=7d", "", "groups\n"},
		"an odd id": {[]string{"flow", "a/b é"}, "GET /api/v1/flows/a%2Fb%20%C3%A9?format=text&include=tasks", "", "odd\n"},
		"rerun": {
			[]string{"rerun", "01a20f", "-dry-run", "-note", "why"},
			"POST /api/v1/flows/" + flowID + "/rerun", `{"dryRun": true, "note": "why"}`, effect,
		},
		"rerun from": {
			[]string{"rerun", flowID, "3", "-p", "n=1", "-p", "day=2026-11-24", "-p", `o={"a":1}`},
			"POST /api/v1/flows/" + flowID + "/rerun", `{"scope": "from", "from": 3, "parameters": {"n": 1, "day": "2026-11-24", "o": {"a": 1}}}`, effect,
		},
		"rerun only": {[]string{"rerun", flowID, "3", "-scope", "only"}, "POST /api/v1/flows/" + flowID + "/rerun", `{"scope": "only", "from": 3}`, effect},
		"cancel":     {[]string{"cancel", "01a20f"}, "POST /api/v1/flows/" + flowID + "/cancel", `{}`, effect},
		"hold":       {[]string{"hold", flowID}, "POST /api/v1/flows/" + flowID + "/hold", `{}`, effect},
		"hold one":   {[]string{"hold", flowID, "3"}, "POST /api/v1/flows/" + flowID + "/tasks/3/hold", `{}`, effect},
		"resume":     {[]string{"resume", flowID, "3"}, "POST /api/v1/flows/" + flowID + "/tasks/3/resume", `{}`, effect},
		"reject":     {[]string{"cancel", flowID, "3"}, "POST /api/v1/flows/" + flowID + "/tasks/3/cancel", `{}`, effect},
		"approve": {
			[]string{"approve", "01a20f", "3", "-note", "the figures are right"},
			"POST /api/v1/flows/" + flowID + "/tasks/3/approve", `{"note": "the figures are right"}`, effect,
		},
		"skip":   {[]string{"skip", flowID, "3"}, "POST /api/v1/flows/" + flowID + "/tasks/3/skip", `{}`, effect},
		"finish": {[]string{"finish", flowID, "3"}, "POST /api/v1/flows/" + flowID + "/tasks/3/finish", `{}`, effect},
		"start": {
			[]string{"start", "nightly", "-p", "s=x", "-priority", "-3", "-note", "why", "-key", "k"},
			"POST /api/v1/flows", `{"taskId": "nightly", "parameters": {"s": "x"}, "priority": -3, "note": "why"}`, flowID + "\n",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFake(t, answers())
			code, stdout, stderr := f.call(t.Context(), c.args...)
			require.Zero(t, code, stderr)
			require.Equal(t, c.stdout, stdout)
			last := f.asked[len(f.asked)-1]
			require.Equal(t, c.last, last.method+" "+last.path)
			if c.body != "" {
				got, err := json.Marshal(last.body)
				require.NoError(t, err)
				require.JSONEq(t, c.body, string(got))
			}
		})
	}
}

func TestClient_BringsItsToken(t *testing.T) {
	t.Parallel()
	f := newFake(t, map[string][]string{"GET /api/v1/flows": {"a table\n"}})
	file := filepath.Join(t.TempDir(), "token")
	require.NoError(t, os.WriteFile(file, []byte("from-file\n"), 0o600))
	for _, vars := range []map[string]string{
		{"FLOWER_TOKEN": "from-file"},
		{"FLOWER_TOKEN_FILE": file},
		{"FLOWER_TOKEN": "from-file", "FLOWER_TOKEN_FILE": "not read"},
	} {
		vars["FLOWER_SERVER"] = f.URL
		code, _, stderr := execute(t.Context(), vars, "flows")
		require.Zero(t, code, stderr)
		require.Equal(t, "Bearer from-file", f.asked[len(f.asked)-1].auth)
	}
	code, _, stderr := execute(t.Context(), map[string]string{"FLOWER_SERVER": f.URL, "FLOWER_TOKEN_FILE": file + ".none"}, "flows")
	require.Equal(t, 1, code)
	require.Contains(t, stderr, "read the token: ")
}

func TestClient_SaysWhatWasRefused(t *testing.T) {
	t.Parallel()
	f := newFake(t, map[string][]string{
		"GET /api/v1/flows":           {`401 {"code": "unauthenticated", "detail": "a token is needed"}`},
		"GET /api/v1/flows/" + flowID: {state("running", 1)},
		"POST /api/v1/flows/" + flowID + "/rerun": {`409 {"code": "task-running", "detail": "Task 3 (\u001b[2J) runs.",
			"errors": [{"location": "tasks/3", "message": "it runs"}]}`},
		"GET /api/v1/failures":                     {`502 <html>`},
		"POST /api/v1/flows/" + flowID + "/cancel": {`500 {"detail": "the log has the details under this request's id", "requestId": "r7"}`},
	})
	for _, c := range []struct {
		args   []string
		stderr string
	}{
		{[]string{"flows"}, "register flows: a token is needed (FLOWER_TOKEN, or -token-file)\n"},
		{[]string{"rerun", flowID}, "register rerun: Task 3 (?[2J) runs.\n  tasks/3: it runs\n"},
		{[]string{"cancel", flowID}, "register cancel: the log has the details under this request's id: r7\n"},
		{[]string{"failures"}, fmt.Sprintf("register failures: %s answers 502 Bad Gateway, and not as a register does\n", strings.TrimPrefix(f.URL, "http://"))},
		{[]string{"flow", "nope"}, "register flow: there is nothing at /api/v1/flows/nope\n"},
	} {
		code, stdout, stderr := f.call(t.Context(), c.args...)
		require.Equal(t, 1, code)
		require.Empty(t, stdout)
		require.Equal(t, c.stderr, stderr)
	}
	code, _, stderr := execute(t.Context(), map[string]string{"FLOWER_SERVER": "http://127.0.0.1:1"}, "flows")
	require.Equal(t, 1, code)
	require.Equal(t, "register flows: no register answers at http://127.0.0.1:1: dial tcp 127.0.0.1:1: connect: connection refused (-server says where it is)\n", stderr)
}

// Whatever is there answers with a page of its own, and 200.
func TestCommands_APageIsNoAnswer(t *testing.T) {
	t.Parallel()
	there := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<!doctype html><title>Sign in") }))
	t.Cleanup(there.Close)
	for _, args := range [][]string{{"flows"}, {"flow", flowID, "-json"}, {"start", "sample"}} {
		code, stdout, stderr := execute(t.Context(), map[string]string{"FLOWER_SERVER": there.URL}, args...)
		require.Equal(t, 1, code, args)
		require.Empty(t, stdout)
		require.Contains(t, stderr, "answers 200 OK, and not as a register does")
	}
}

// A cancel reaches flows that tasks of the flow have registered.
func TestCancel_NamesTheOtherFlows(t *testing.T) {
	t.Parallel()
	f := newFake(t, map[string][]string{
		"GET /api/v1/flows/" + flowID: {state("running", 1)},
		"POST /api/v1/flows/" + flowID + "/cancel": {`{"changed": 2, "tasks": [{"taskFlowId": "` + flowID + `", "taskExecSeq": 3, "title": "load", "from": "running", "to": "suspended"},
			{"taskFlowId": "another", "taskExecSeq": 1, "title": "extract", "from": "waiting", "to": "suspended"}]}`},
	})
	code, stdout, stderr := f.call(t.Context(), "cancel", flowID)
	require.Zero(t, code, stderr)
	require.Equal(t, "   3 load     running → suspended\n   1 extract  waiting → suspended, of flow another\n"+
		flowID+": 2 tasks change, 0 stay as they are\n", stdout)
}

// What an action is for a task whose status it does not change is said in words.
func TestActions_SayWhatNoStatusSays(t *testing.T) {
	t.Parallel()
	for verb, want := range map[string]string{
		"hold":   "running → running, held if it would wait again",
		"resume": "running → running, held no more",
		"cancel": "suspended → cancelled",
	} {
		from, _, _ := strings.Cut(want, " ")
		f := newFake(t, map[string][]string{
			"GET /api/v1/flows/" + flowID: {state("running", 1)},
			"POST /api/v1/flows/" + flowID + "/" + verb: {`{"changed": 1, "tasks": [{"taskFlowId": "` + flowID + `", "taskExecSeq": 3, "title": "load", "from": "` +
				from + `", "to": "` + from + `"}]}`},
		})
		_, stdout, stderr := f.call(t.Context(), verb, flowID)
		require.Equal(t, "   3 load  "+want+"\n"+flowID+": 1 task changes, 0 stay as they are\n", stdout, stderr)
	}
}

// A scope that needs a task says so in the words of the command.
func TestRerun_ScopeWithoutATask(t *testing.T) {
	t.Parallel()
	f := newFake(t, nil)
	for _, scope := range []string{"from", "only"} {
		code, _, stderr := f.call(t.Context(), "rerun", flowID, "-scope", scope)
		require.Equal(t, 2, code)
		require.Equal(t, "register rerun: -scope "+scope+" needs SEQ: the arguments are ID SEQ (register rerun -help lists all settings)\n", stderr)
	}
}

// What takes requests and does not answer may do so later, like one that is not there.
func TestClient_SaysThatNobodyAnswers(t *testing.T) {
	t.Parallel()
	c, err := settings{server: "http://localhost:8000"}.client()
	require.NoError(t, err)
	ctx, cancel := context.WithTimeoutCause(t.Context(), 0, errSilent)
	defer cancel()
	err = c.get(ctx, &struct{}{}, nil, "flows")
	require.EqualError(t, err, "no register answers at http://localhost:8000: no answer within 1m0s (-server says where it is)")
	refused, ok := errors.AsType[*refusal](err)
	require.True(t, ok && refused.temporary)

	ctx, cancel = context.WithTimeoutCause(t.Context(), 0, errTimeout)
	defer cancel()
	require.ErrorIs(t, c.get(ctx, &struct{}{}, nil, "flows"), errTimeout)
}

// fullDisk takes nothing any more.
type fullDisk struct{}

func (fullDisk) Write([]byte) (int, error) { return 0, errors.New("the disk is full") }

// A script whose disk is full must not take what it got for the whole.
func TestCommands_WhatCannotBeWrittenIsAnError(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{
		{"flows"},
		{"flow", "f"},
		{"logs", "f", "3", "-f"},
		{"start", "nightly"},
		{"start", "nightly", "-json"},
		{"rerun", "f"},
		{"rerun", "f", "-json"},
	} {
		f := newFake(t, map[string][]string{
			"GET /api/v1/flows": {"a table\n"}, "POST /api/v1/flows": {state("queued", 0)},
			"GET /api/v1/flows/f": {state("failed", 1)}, "GET /api/v1/flows/" + flowID: {state("failed", 1)},
			"POST /api/v1/flows/" + flowID + "/rerun": {`{"changed": 1, "tasks": []}`},
			"GET /api/v1/flows/f/tasks/3/log":         {page(1, true, false, 1, "a")}, // and it never ends
		})
		var stderr bytes.Buffer
		env := &cli.Env{
			Name: "register", Args: append(args, "-server", f.URL), Stdout: fullDisk{}, Stderr: &stderr,
			Getenv: func(string) string { return "" },
		}
		require.Equal(t, 1, cli.Exec(t.Context(), env, cli.WithCommands(nil, Commands()...)), "%s: %s", args, &stderr)
		require.Contains(t, stderr.String(), "the disk is full")
		if args[0] == "start" {
			require.Contains(t, stderr.String(), "flow "+flowID+" was registered")
		}
	}
}

func TestCommands_WrongUsageIsExitCode2(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{
		{"flow"},
		{"flow", "a", "b"},
		{"skip", "a"},
		{"skip", "a", "b"},
		{"rerun", "a", "-scope", "some"},
		{"start", "a", "-p", "x"},
		{"start", "a", "-p", "x=1", "-p", "x=2"},
		{"start", "a", "-priority", "20"},
		{"start", "a", "-timeout", "5s"},
		{"start", "a", "-key", ""},
		{"rerun", "a", "-timeout", "5s"},
		{"rerun", "a", "-dry-run", "-wait"},
		{"flows", "-server", "localhost:8000"},
		{"flows", "-limit"},
	} {
		code, stdout, stderr := execute(t.Context(), map[string]string{"FLOWER_SERVER": newFake(t, map[string][]string{"GET /api/v1/flows/a": {state("failed", 1)}}).URL}, args...)
		require.Equal(t, 2, code, "%s: %s", args, stderr)
		require.Empty(t, stdout)
		require.Equal(t, 1, strings.Count(stderr, "\n"), stderr)
	}
}

func TestStart_WaitsForTheEndWhichIsItsExitCode(t *testing.T) {
	t.Parallel()
	for status, want := range map[string]int{"finished": 0, "failed": 1, "held": 3, "cancelled": 4, "odd": 5} {
		t.Run(status, func(t *testing.T) {
			t.Parallel()
			f := newFake(t, map[string][]string{
				"POST /api/v1/flows": {`503 {"detail": "away"}`, `{"taskFlowId": "` + flowID + `"}`},
				"GET /api/v1/flows/" + flowID: {
					state("queued", 0), `503 {"detail": "away"}`, state("running", 1), state("running", 1), state(status, 2), `503 {"detail": "away"}`, "the end\n",
				},
			})
			code, stdout, stderr := f.call(t.Context(), "start", "nightly", "-wait")
			require.Equal(t, want, code, stderr)
			require.Equal(t, flowID+"\nthe end\n", stdout)
			require.Contains(t, stderr, "nightly  queued  0 of 2 finished  running: 3 load\nnightly  running  1 of 3 finished  running: 3 load\nnightly  "+status+"  2 of 4 finished")
			require.NotEmpty(t, f.asked[0].key)
			require.Equal(t, f.asked[0].key, f.asked[1].key, "the same request, again")
		})
	}
}

func TestStart_WaitsNoLongerThanItShall(t *testing.T) {
	t.Parallel()
	f := newFake(t, map[string][]string{
		"POST /api/v1/flows":          {`{"taskFlowId": "` + flowID + `"}`},
		"GET /api/v1/flows/" + flowID: {state("running", 1)},
	})
	code, stdout, stderr := f.call(t.Context(), "start", "nightly", "-wait", "-timeout", "100ms")
	require.Equal(t, 5, code)
	require.Equal(t, flowID+"\n", stdout)
	require.Contains(t, stderr, "register start: flow "+flowID+" has not ended within 100ms; it goes on\n")

	ctx, stop := context.WithCancel(t.Context())
	f.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			stop() // Ctrl-C, while it waits
		}
		fmt.Fprint(w, state("running", 1))
	})
	code, _, stderr = f.call(ctx, "start", "nightly", "-wait")
	require.Equal(t, cli.ExitInterrupted, code)
	require.Equal(t, "register start: the flow goes on: register flow "+flowID+"\n", stderr)
}

// page is a part of a log: its lines, one after the other up to the last, or none.
func page(attempt int, running, more bool, last int, lines ...string) string {
	items := []map[string]any{}
	for i, l := range lines {
		items = append(items, map[string]any{"lineNo": last - len(lines) + 1 + i, "text": l})
	}
	text, _ := json.Marshal(map[string]any{"attempt": attempt, "running": running, "more": more, "lastLine": last, "items": items})
	return string(text)
}

func TestLogs_GoOnUntilTheTaskHasEnded(t *testing.T) {
	t.Parallel()
	const log, task = "GET /api/v1/flows/f/tasks/3/log", "GET /api/v1/flows/f/tasks/3"
	for name, c := range map[string]struct {
		args   []string
		log    []string
		task   []string
		stdout string
		asked  []string // of the log
	}{
		"all": {
			nil,
			[]string{page(1, true, true, 2, "a", "b\x1b"), page(1, true, false, 3, "c")},
			nil, "a\nb\x1b\nc\n",
			[]string{"?after=0&format=json&tail=10000", "?after=2&attempt=1&format=json&tail=10000"},
		},
		"the last": {[]string{"-tail", "1"}, []string{page(1, false, true, 9, "i")}, nil, "i\n", []string{"?format=json&tail=1"}},
		"an attempt": {
			[]string{"-attempt", "1", "-f"},
			[]string{page(1, false, false, 1, "a"), page(1, false, false, 1)},
			[]string{`{"status": "running", "attempt": 2}`},
			"a\n",
			[]string{"?after=0&attempt=1&format=json&tail=10000", "?after=1&attempt=1&format=json&tail=10000"},
		},
		"followed": {
			[]string{"-f", "-tail", "1"},
			[]string{
				page(0, false, false, 0), page(1, true, true, 7, "g"), page(1, true, false, 7), page(1, true, false, 8, "h"),
				"503 {}", page(1, false, false, 9, "i"), page(1, false, false, 9), page(2, false, false, 1, "A"), page(2, false, false, 2, "B"),
				page(3, false, false, 1, "X"), page(3, false, false, 2, "Y"),
			},
			[]string{`{"status": "waiting"}`, `{"status": "running", "attempt": 3}`, `{"status": "running", "attempt": 3}`, `{"status": "finished", "attempt": 3}`},
			"g\nh\ni\nA\nB\nX\nY\n",
			[]string{
				"?format=json&tail=1", "?after=0&format=json&tail=10000", "?after=7&attempt=1&format=json&tail=10000", "?after=7&attempt=1&format=json&tail=10000",
				"?after=8&attempt=1&format=json&tail=10000", "?after=8&attempt=1&format=json&tail=10000", "?after=9&attempt=1&format=json&tail=10000",
				"?after=0&attempt=2&format=json&tail=10000", "?after=1&attempt=2&format=json&tail=10000",
				"?after=0&attempt=3&format=json&tail=10000", "?after=1&attempt=3&format=json&tail=10000",
			},
		},
		"with lines that come late": {
			[]string{"-f"},
			[]string{
				page(1, true, false, 2, "a", "b"), page(1, true, false, 5, "e"), page(1, true, false, 6, "f"), page(1, true, false, 9, "i"), page(1, false, false, 9), page(1, false, false, 9),
				page(1, false, true, 8, "h"), page(1, false, true, 7, "f", "g"), page(1, false, false, 9, "h", "i"),
				page(2, false, false, 1, "A"), page(2, false, false, 1),
			},
			[]string{`{"status": "running", "attempt": 2}`, `{"status": "finished", "attempt": 2}`},
			"a\nb\ne\nf\ni\n… once more from line 3 on, with what was not written while it ran:\nf\ng\nh\ni\nA\n",
			[]string{
				"?after=0&format=json&tail=10000", "?after=2&attempt=1&format=json&tail=10000", "?after=5&attempt=1&format=json&tail=10000",
				"?after=6&attempt=1&format=json&tail=10000", "?after=9&attempt=1&format=json&tail=10000", "?after=9&attempt=1&format=json&tail=10000",
				"?after=7&attempt=1&format=json&tail=1", "?after=2&attempt=1&format=json&tail=10000", "?after=7&attempt=1&format=json&tail=10000",
				"?after=0&attempt=2&format=json&tail=10000", "?after=1&attempt=2&format=json&tail=10000",
			},
		},
		"with lines that never come": {
			[]string{"-f"},
			[]string{page(1, true, false, 2, "a", "b"), page(1, true, false, 5, "e"), page(1, false, false, 5), page(1, false, false, 5), page(1, false, false, 5, "e")},
			[]string{`{"status": "suspended", "attempt": 1}`},
			"a\nb\ne\n",
			[]string{
				"?after=0&format=json&tail=10000", "?after=2&attempt=1&format=json&tail=10000", "?after=5&attempt=1&format=json&tail=10000",
				"?after=5&attempt=1&format=json&tail=10000", "?after=3&attempt=1&format=json&tail=1",
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFake(t, map[string][]string{log: c.log, task: c.task})
			code, stdout, stderr := f.call(t.Context(), append([]string{"logs", "f", "3"}, c.args...)...)
			require.Zero(t, code, stderr)
			require.Equal(t, c.stdout, stdout)
			var asked []string
			for _, x := range f.asked {
				if query, ok := strings.CutPrefix(x.path, "/api/v1/flows/f/tasks/3/log"); ok {
					asked = append(asked, query)
				}
			}
			require.Equal(t, c.asked, asked)
		})
	}
}

// A flag beats a variable, also where each says it in a way of its own.
func TestCommands_WhichTokenCounts(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "token")
	require.NoError(t, os.WriteFile(file, []byte("of-the-file\n"), 0o600))
	empty := filepath.Join(t.TempDir(), "empty")
	require.NoError(t, os.WriteFile(empty, []byte("\n"), 0o600))
	more := filepath.Join(t.TempDir(), "more")
	require.NoError(t, os.WriteFile(more, []byte("The token, shown this once:\n  flower_x\n"), 0o600))
	f := newFake(t, map[string][]string{"GET /api/v1/flows": {"a table\n"}})
	for name, c := range map[string]struct {
		vars map[string]string
		args []string
		want string // the token, or what is said
	}{
		"none":                    {nil, nil, ""},
		"a variable":              {map[string]string{"FLOWER_TOKEN": "v"}, nil, "v"},
		"a variable's line":       {map[string]string{"FLOWER_TOKEN": "v\n"}, nil, "v"},
		"a variable for a file":   {map[string]string{"FLOWER_TOKEN_FILE": file}, nil, "of-the-file"},
		"a flag beside a file's":  {map[string]string{"FLOWER_TOKEN_FILE": file}, []string{"-token", "t"}, "t"},
		"a file beside another's": {map[string]string{"FLOWER_TOKEN": "v"}, []string{"-token-file", file}, "of-the-file"},
		"a file with more in it":  {nil, []string{"-token-file", more}, "this is no token: "},
		"two flags":               {nil, []string{"-token", "t", "-token-file", file}, "t"},
		"two variables":           {map[string]string{"FLOWER_TOKEN": "v", "FLOWER_TOKEN_FILE": file}, nil, "v"},
		"no file":                 {nil, []string{"-token-file", file + ".no"}, "read the token: open"},
		"an empty file":           {nil, []string{"-token-file", empty}, "is empty"},
	} {
		f.asked = nil
		vars := map[string]string{"FLOWER_SERVER": f.URL}
		maps.Copy(vars, c.vars)
		code, _, stderr := execute(t.Context(), vars, append([]string{"flows"}, c.args...)...)
		if code != 0 {
			require.Contains(t, stderr, c.want, name)
			continue
		}
		want := ""
		if c.want != "" {
			want = "Bearer " + c.want
		}
		require.Equal(t, want, f.asked[0].auth, name)
	}
}

// A POST that is sent on becomes a GET, and its answer that of another question.
func TestCommands_ARedirectIsNoAnswer(t *testing.T) {
	t.Parallel()
	var there int
	elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		there++
		fmt.Fprint(w, `{"items": []}`)
	}))
	t.Cleanup(elsewhere.Close)
	for _, status := range []int{301, 302, 303, 307, 308} {
		here := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, elsewhere.URL+r.URL.Path+"?state=s3cret", status)
		}))
		for _, args := range [][]string{{"start", "sample"}, {"flows"}, {"cancel", flowID}} {
			code, stdout, stderr := execute(t.Context(), map[string]string{"FLOWER_SERVER": here.URL, "FLOWER_TOKEN": "t"}, args...)
			require.Equal(t, 1, code, args)
			require.Empty(t, stdout)
			require.Contains(t, stderr, "sends on to "+elsewhere.URL+"/api/v1/flows")
			require.Contains(t, stderr, "-server")
			require.NotContains(t, stderr, "s3cret")
		}
		here.Close()
	}
	require.Zero(t, there, "nobody else gets the token")
}
