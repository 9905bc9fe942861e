package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/pgdev/pgtest"
)

// asked collects the callbacks that somebody was asked for.
type asked struct {
	mu   sync.Mutex
	urls []string // guarded by mu, like what follows
	said []string // what calls were answered
}

func (a *asked) add(r *http.Request) (n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.urls = append(a.urls, r.Header.Get("Flower-Callback"))
	return len(a.urls)
}

func (a *asked) all() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return append([]string{}, a.urls...)
}

// callBack answers a task, from whatever goroutine.
func callBack(url, body string) (int, string, error) {
	resp, err := http.Post(url, "application/json", strings.NewReader(body)) //nolint:gosec,noctx // the URL is what the test got
	if err != nil {
		return 0, "", err
	}
	var answer struct{ Status, Code any }
	err = json.NewDecoder(resp.Body).Decode(&answer)
	code, _ := answer.Code.(string)
	return resp.StatusCode, code, errors.Join(err, resp.Body.Close())
}

func requireAnswer(t *testing.T, url, body string, status int, code string) {
	t.Helper()
	gotStatus, gotCode, err := callBack(url, body)
	require.NoError(t, err)
	require.Equal(t, status, gotStatus)
	require.Equal(t, code, gotCode)
}

// A task asks and waits without a worker, whatever becomes of the watcher; one call ends
// it, and only one.
func TestCallback(t *testing.T) {
	w := newWorld(t)
	var calls asked
	p := newPeer(t, func(rw http.ResponseWriter, r *http.Request) {
		calls.add(r)
		rw.WriteHeader(http.StatusAccepted)
	})
	w.define("job",
		task{program: "HTTPRequest", parameters: `{"url": "` + p.URL + `/jobs", "method": "POST", "body": {"day": 1}, "callback": true, "callback_field": "notify"}`},
		task{program: "Command", parameters: `{"argv": ["echo", "${{ outputs[1].body.rows }}"]}`})
	s := w.register()
	settings := []string{"-workers", "1", "-callback-url", s.url, "-allow-command"}
	victim := w.watcher(settings...)
	flow := s.post("job")
	w.pausedUntil(flow, 1)
	require.Equal(t, "0", w.busy(), "the only worker is free")
	var why string
	require.NoError(t, w.Get(&why, `SELECT wait_reason || ': ' || why FROM v_why_waiting WHERE task_flow_id = $1 AND task_exec_seq = 1`, flow))
	require.Equal(t, "callback: waits for the callback of POST "+p.URL+"/jobs", why)
	victim.Signal(syscall.SIGKILL)
	victim.Exit()
	w.watcher(settings...)

	url := calls.all()[0]
	require.True(t, strings.HasPrefix(url, s.url+"/callback/"+flow+"/1?token="), url)
	_, token, _ := strings.Cut(url, "token=")
	require.JSONEq(t, `{"day": 1, "notify": "`+url+`"}`, p.seen()[0].body)
	for place, text := range w.everything() {
		require.NotContains(t, text, token, "%s: whoever reads it could answer", place)
	}
	requireAnswer(t, url+"x", `{}`, http.StatusNotFound, "callback-not-found")
	requireAnswer(t, url, `{"rows": 7}`, http.StatusAccepted, "")
	w.await(flow, "3 3")
	requireAnswer(t, url, `{"rows": 8}`, http.StatusNotFound, "callback-not-found")
	require.JSONEq(t, `{"status": 202, "body": {"rows": 7}}`, w.output(flow, 1))
	require.Contains(t, w.output(flow, 2), `"stdout": "7"`)
	require.Len(t, calls.all(), 1)
	require.NotContains(t, s.Log.String(), token)
	require.NotContains(t, victim.Log.String(), token)
	w.sound()
}

// Whoever is asked calls before he answers; and a result that is an error is a failure,
// which is tried again with another token.
func TestCallback_AtOnce(t *testing.T) {
	w := newWorld(t)
	var calls asked
	p := newPeer(t, func(rw http.ResponseWriter, r *http.Request) {
		body := `{"error": "not today"}`
		if calls.add(r) == 2 {
			body = `["done"]`
		}
		status, code, err := callBack(r.Header.Get("Flower-Callback"), body)
		calls.mu.Lock()
		calls.said = append(calls.said, fmt.Sprint(status, code, err))
		calls.mu.Unlock()
		rw.WriteHeader(http.StatusAccepted)
	})
	w.define("job", task{program: "HTTPRequest", attempts: 2, parameters: `{"url": "` + p.URL + `/jobs", "callback": true}`})
	s := w.register()
	w.watcher("-callback-url", s.url)
	flow := s.post("job")
	w.await(flow, "3")
	calls.mu.Lock()
	require.Equal(t, []string{"202<nil>", "202<nil>"}, calls.said)
	calls.mu.Unlock()
	require.JSONEq(t, `{"status": 202, "body": ["done"]}`, w.output(flow, 1))
	urls := calls.all()
	require.Len(t, urls, 2)
	require.NotEqual(t, urls[0], urls[1])
	require.Equal(t, p.seen()[0].key, p.seen()[1].key)
	var failed string
	require.NoError(t, w.Get(&failed, `SELECT error FROM kr_task_attempt WHERE task_flow_id = $1`, flow))
	require.Equal(t, "GET "+p.URL+"/jobs: it called back with an error: not today", failed)
	w.sound()
}

// A watcher dies while it asks. It is asked again, with the same key: whoever recognises
// that calls the first URL, which is as good as the second.
func TestCallback_TheWatcherIsKilledWhileItAsks(t *testing.T) {
	w := newWorld(t)
	var calls asked
	p := newPeer(t, func(rw http.ResponseWriter, r *http.Request) {
		if calls.add(r) == 1 {
			<-r.Context().Done()
			return
		}
		rw.WriteHeader(http.StatusAccepted)
	})
	w.define("job", task{program: "HTTPRequest", parameters: `{"url": "` + p.URL + `/jobs", "callback": true}`}, task{program: "NoOp"})
	s := w.register()
	victim := w.watcher("-callback-url", s.url)
	flow := s.post("job")
	pgtest.Eventually(t, soon, "it has asked", func() bool { return len(calls.all()) == 1 })
	victim.Signal(syscall.SIGKILL)
	victim.Exit()
	w.watcher("-callback-url", s.url)
	pgtest.Eventually(t, 2*soon, "it was asked again", func() bool { return len(calls.all()) == 2 })
	require.Equal(t, p.seen()[0].key, p.seen()[1].key)
	requireAnswer(t, calls.all()[0], `1`, http.StatusAccepted, "")
	w.await(flow, "3 3")
	require.JSONEq(t, `{"status": 202, "body": 1}`, w.output(flow, 1))
	w.sound()
}

// Nobody calls.
func TestCallback_TimeIsUp(t *testing.T) {
	w := newWorld(t)
	var calls asked
	p := newPeer(t, func(rw http.ResponseWriter, r *http.Request) {
		calls.add(r)
		rw.WriteHeader(http.StatusAccepted)
	})
	w.define("job", task{program: "HTTPRequest", attempts: 2, parameters: `{"url": "` + p.URL + `/jobs", "callback": true, "callback_timeout": 1}`})
	w.define("nowhere", task{program: "HTTPRequest", parameters: `{"url": "` + p.URL + `/jobs", "callback": true}`})
	s := w.register()
	watcher := w.watcher("-callback-url", s.url)
	flow := s.post("job")
	w.await(flow, "2")
	require.Equal(t, "failed", w.rows(flow)[0].Reason)
	require.Regexp(t, `^GET http://.*/jobs: nobody has called back until 20\d\d-\d\d-\d\d \d\d:\d\d:\d\dZ$`, w.rows(flow)[0].Error)
	require.Len(t, calls.all(), 2, "it was asked again")
	requireAnswer(t, calls.all()[1], `1`, http.StatusConflict, "callback-late")
	require.Equal(t, "2", w.statuses(flow))
	watcher.Signal(syscall.SIGTERM)
	watcher.Exit()

	w.watcher()
	flow = s.post("nowhere")
	w.await(flow, "2")
	require.Contains(t, w.rows(flow)[0].Error, "start it with -callback-url (FLOWER_CALLBACK_URL)")
	w.sound()
}
