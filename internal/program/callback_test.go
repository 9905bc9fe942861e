package program

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/flow"
)

// fakeCallbacks notes what is expected; with an answer that is there, nothing is.
type fakeCallbacks struct {
	hashes   []string
	answered bool
	failed   bool // it was told that the last answer has failed
	err      error
}

func (f *fakeCallbacks) ExpectCallback(_ context.Context, _ flow.Task, hash string, failed bool) (bool, error) {
	f.failed = failed
	if f.err != nil || f.answered {
		return false, f.err
	}
	f.hashes = append(f.hashes, hash)
	return true, nil
}

var askedAt = time.Date(2026, 11, 24, 19, 30, 0, 0, time.UTC)

// ask runs one attempt at a request with a callback.
func ask(t *testing.T, f *fakeCallbacks, parameters map[string]any, attempt int, at time.Time, pause *flow.Pause) (string, error) {
	t.Helper()
	parameters["callback"] = true
	task := newTask("HTTPRequest", mustJSON(t, parameters))
	task.Attempt, task.StartedAt, task.Pause = attempt, at, pause
	output, err := Default(Config{Callbacks: f, CallbackURL: "http://flower.example.com:8000/base/"}).Run(t.Context(), Attempt{Task: task})
	return string(output), err
}

// pauseIn is the pause that an attempt came to.
func pauseIn(t *testing.T, err error) flow.Pause {
	t.Helper()
	var pause *flow.Pause
	require.ErrorAs(t, err, &pause)
	return *pause
}

func TestCallback_AsksAndPauses(t *testing.T) {
	t.Parallel()
	var f fakeCallbacks
	var got *http.Request
	var body string
	server := newServer(t, func(w http.ResponseWriter, r *http.Request) {
		require.Len(t, f.hashes, 1, "the token is known before anybody can use it")
		b, _ := io.ReadAll(r.Body)
		got, body = r, string(b)
		w.WriteHeader(http.StatusAccepted)
	})
	_, err := ask(t, &f, map[string]any{
		"url": server.URL + "/jobs?key=k3y", "method": "POST", "body": map[string]any{"n": 1.50}, "callback_field": "notify", "callback_timeout": "90m",
	}, 3, askedAt, nil)
	require.Equal(t, &flow.Pause{
		Callback: true, Until: askedAt.Add(90 * time.Minute), State: json.RawMessage(`{"attempt":3}`),
		Why: "waits for the callback of POST " + server.URL + "/jobs",
	}, err)

	callback := got.Header.Get("Flower-Callback")
	u, parseErr := url.Parse(callback)
	require.NoError(t, parseErr)
	require.Equal(t, "http://flower.example.com:8000/base/callback/f1/2", strings.Split(callback, "?")[0])
	token := u.Query().Get("token")
	require.GreaterOrEqual(t, len(token), 26)
	require.Equal(t, []string{flow.HashCallback(token)}, f.hashes)
	require.JSONEq(t, `{"n": 1.5, "notify": "`+callback+`"}`, body)
	require.NotContains(t, fmt.Sprint(err), token)
	require.Equal(t, "f1:2:0", got.Header.Get("Idempotency-Key"))
}

// Another status than 202 is what it always is.
func TestCallback_AnsweredAtOnce(t *testing.T) {
	t.Parallel()
	server := newServer(t, answers(200, `{"a": 1}`))
	output, err := ask(t, &fakeCallbacks{}, map[string]any{"url": server.URL}, 1, askedAt, nil)
	require.NoError(t, err)
	require.JSONEq(t, `{"status": 200, "body": {"a": 1}}`, output)

	server = newServer(t, answers(202, ``))
	_, err = ask(t, &fakeCallbacks{}, map[string]any{"url": server.URL, "expect_status": 200}, 1, askedAt, nil)
	pauseIn(t, err)
	output, err = request(t, map[string]any{"url": server.URL})
	require.NoError(t, err, "without callback, 202 is a success like others")
	require.JSONEq(t, `{"status": 202, "body": ""}`, output)

	// Whoever refuses repeats what he was asked.
	server = newServer(t, func(w http.ResponseWriter, r *http.Request) {
		http.Error(w, "cannot call "+r.Header.Get("Flower-Callback"), http.StatusBadRequest)
	})
	_, err = ask(t, &fakeCallbacks{}, map[string]any{"url": server.URL}, 1, askedAt, nil)
	require.EqualError(t, err, "GET "+server.URL+": 400 Bad Request: cannot call http://flower.example.com:8000/base/callback/f1/2?token=…")
}

func TestCallback_TheResult(t *testing.T) {
	t.Parallel()
	for body, want := range map[string]string{ // the output; or if it begins with !, the end of the error
		`{"rows": 7}`:                    `{"status": 202, "body": {"rows": 7}}`,
		`null`:                           `{"status": 202, "body": null}`,
		`[{"error": "x"}]`:               `{"status": 202, "body": [{"error": "x"}]}`,
		`{"error": null, "x": 1}`:        `{"status": 202, "body": {"error": null, "x": 1}}`,
		`{"error": ""}`:                  `{"status": 202, "body": {"error": ""}}`,
		`{"error": false}`:               `{"status": 202, "body": {"error": false}}`,
		`{"error": "no such\ncustomer"}`: `!no such customer`,
		`{"error": {"code": 5}}`:         `!{"code": 5}`,
		`{"error": true}`:                `!true`,
	} {
		pause := &flow.Pause{Callback: true, Until: askedAt.Add(time.Hour), Answer: &flow.Answer{Attempt: 1, Body: body}}
		output, err := ask(t, &fakeCallbacks{}, map[string]any{"url": "http://127.0.0.1:1/x"}, 2, askedAt, pause)
		if failure, fails := strings.CutPrefix(want, "!"); fails {
			require.EqualError(t, err, "GET http://127.0.0.1:1/x: it called back with an error: "+failure)
			require.NotErrorAs(t, err, new(*flow.InvalidError), "it may be tried again")
			continue
		}
		require.NoError(t, err, body)
		require.JSONEq(t, want, output)
	}
}

// A failure that was told once, and one that nobody has called, are tried again by asking
// again; a result is never lost.
func TestCallback_TriedAgain(t *testing.T) {
	t.Parallel()
	sent := 0
	server := newServer(t, func(w http.ResponseWriter, _ *http.Request) { sent++; w.WriteHeader(http.StatusAccepted) })
	parameters := map[string]any{"url": server.URL}
	until := askedAt.Add(24 * time.Hour)
	waits := func(attempt int, answer *flow.Answer) *flow.Pause {
		return &flow.Pause{Callback: true, Until: until, State: encode(asked{attempt}), Answer: answer}
	}
	var f fakeCallbacks
	_, err := ask(t, &f, parameters, 3, until, waits(1, &flow.Answer{Attempt: 1, Body: `{"error": "x"}`}))
	pauseIn(t, err)
	require.Equal(t, 1, sent)
	require.True(t, f.failed)
	_, err = ask(t, &f, parameters, 3, until, waits(1, &flow.Answer{Attempt: 1, Body: `1`}))
	require.NoError(t, err, "the attempt before was lost")
	require.Equal(t, 1, sent)

	// Somebody was curious; and then the time is up.
	_, err = ask(t, &f, parameters, 2, until.Add(-time.Second), waits(1, nil))
	require.Equal(t, until, pauseIn(t, err).Until)
	_, err = ask(t, &f, parameters, 3, until, waits(2, nil))
	require.EqualError(t, err, "GET "+server.URL+": nobody has called back until 2026-11-25 19:30:00Z")
	require.Equal(t, 1, sent)
	_, err = ask(t, &f, parameters, 4, until, waits(2, nil))
	require.Equal(t, until.Add(24*time.Hour), pauseIn(t, err).Until)
	require.Equal(t, 2, sent)
	require.False(t, f.failed, "who was asked before may still answer")

	// The watcher died before it could pause.
	_, err = ask(t, &f, parameters, 2, askedAt, &flow.Pause{})
	pauseIn(t, err)
	require.Equal(t, 3, sent)

	// An answer that has come meanwhile.
	f.answered = true
	_, err = ask(t, &f, parameters, 2, askedAt, &flow.Pause{})
	pauseIn(t, err)
	require.Equal(t, 3, sent)
	f.err = errors.New("taken over")
	_, err = ask(t, &f, parameters, 2, askedAt, nil)
	require.ErrorIs(t, err, f.err)
	require.Equal(t, 3, sent)
}

func TestCallback_Refused(t *testing.T) {
	t.Parallel()
	_, err := request(t, map[string]any{"url": "http://127.0.0.1:1/", "callback": true})
	requireInvalid(t, err, `parameter "callback": this watcher does not know where register can be called: `+
		`start it with -callback-url (FLOWER_CALLBACK_URL), as in http://flower.example.com:8000`)
	for parameters, want := range map[string]string{
		`"callback": "yes"`:                                    `"callback": "yes" is not true or false`,
		`"callback": true, "callback_timeout": "soon"`:         `"callback_timeout": "soon" is not a time like 90s, 2h30m or 45, of at most ten years`,
		`"callback": true, "callback_timeout": 0`:              `"callback_timeout": it must be longer than nothing`,
		`"callback_field": "a"`:                                `"callback_field": it is for a request with callback`,
		`"callback": true, "callback_field": "a", "body": [1]`: `"callback_field": it is a field of the body, which is an array, not an object`,
		`"headers": {"flower-callback": "x"}`:                  `"headers": "flower-callback" is Flower's to set`,
	} {
		w := flow.Workflow{ID: "w", Tasks: []flow.TaskDefinition{{Seq: 1, Program: "HTTPRequest", Parameters: json.RawMessage(`{"url": "http://h/", ` + parameters + `}`)}}}
		requireInvalid(t, Default(Config{}).CheckWorkflow(w, nil), `workflow "w": task_seq 1 (HTTPRequest): parameter `+want)
	}
	w := flow.Workflow{ID: "w", Tasks: []flow.TaskDefinition{{Seq: 1, Program: "HTTPRequest", Parameters: json.RawMessage(
		`{"url": "http://h/", "callback": "${{ params.later }}", "callback_field": "a", "callback_timeout": "${{ params.n }}h", "body": "${{ params.body }}"}`)}}}
	require.NoError(t, Default(Config{}).CheckWorkflow(w, nil))
	require.ErrorContains(t, Default(Config{}).CheckWorkflow(w, json.RawMessage(`{"callback": false}`)), "only the definition can set it")

	for url, want := range map[string]string{
		"":                          "",
		"https://flower.example/f/": "",
		"flower.example:8000":       "callback URL (-callback-url, FLOWER_CALLBACK_URL): ",
		"http://me:pw@flower/":      "callback URL (-callback-url, FLOWER_CALLBACK_URL): it must have neither user nor query",
	} {
		err := Config{CallbackURL: url}.Validate()
		if want == "" {
			require.NoError(t, err)
			continue
		}
		require.ErrorContains(t, err, want)
	}
}

// Whatever is called back with, the task has an output that the database takes, or an
// error that people can read.
func FuzzCallback(f *testing.F) {
	for _, seed := range []string{`{"rows": 7}`, `{"error": "x"}`, `{"error": {"a": [1]}}`, `null`, `"\u0000"`, `1e999`, `[`, "", "\xff"} {
		f.Add(seed)
	}
	m := message{method: "GET", target: &url.URL{Scheme: "http", Host: "h"}}
	f.Fuzz(func(t *testing.T, body string) {
		output, err := m.called(&flow.Answer{Attempt: 1, Body: body})
		if err != nil {
			require.LessOrEqual(t, len(err.Error()), 3<<10)
			return
		}
		require.True(t, json.Valid(output))
		require.LessOrEqual(t, len(output), flow.MaxOutput)
		_, ok := storable(output)
		require.True(t, ok, "the database would not take it")
	})
}
