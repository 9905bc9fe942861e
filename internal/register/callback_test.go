package register

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/flow"
	"github.com/d-tsuji/flower/internal/request"
)

// waiting is a store with one task that waits, for a token. It keeps what came.
func waiting(key flow.TaskKey, token string, came *string) fakeStore {
	return fakeStore{answer: func(of flow.TaskKey, hash, body string) (flow.Answered, error) {
		if of != key || hash != flow.HashCallback(token) {
			return "", flow.ErrNotFound
		}
		*came = body
		return flow.AnswerTaken, nil
	}}
}

func TestCallback(t *testing.T) {
	t.Parallel()
	key := flow.TaskKey{Flow: `a/b "c"`, Seq: 3}
	path := "/callback/" + url.PathEscape(string(key.Flow)) + "/3?token=t0ken"
	for body, want := range map[string]string{
		"":    `null`,
		" \n": `null`,
		` {"n": 18446744073709551615, "x": "ü"} `: `{"n": 18446744073709551615, "x": "ü"}`,
		`{"error": "no"}`:                         `{"error": "no"}`,
		`7`:                                       `7`,
	} {
		var came string
		w := send(t, serving(waiting(key, "t0ken", &came)), "POST", path, body)
		require.Equal(t, http.StatusAccepted, w.Code, w.Body)
		require.JSONEq(t, `{"status": "accepted", "taskFlowId": "a/b \"c\"", "taskExecSeq": 3}`, w.Body.String())
		require.Equal(t, want, came)
	}
}

func TestCallback_Refused(t *testing.T) {
	t.Parallel()
	var came string
	h := serving(waiting(flow.TaskKey{Flow: "f", Seq: 1}, "t0ken", &came))
	for _, c := range []struct {
		path, body, code string
		status           int
	}{
		{"/callback/f/1?token=other", `1`, "callback-not-found", 404},
		{"/callback/f/1?token=", `1`, "callback-not-found", 404},
		{"/callback/f/1", `1`, "callback-not-found", 404},
		{"/callback/f/2?token=t0ken", `1`, "callback-not-found", 404},
		{"/callback/g/1?token=t0ken", `1`, "callback-not-found", 404},
		{"/callback/f/x?token=t0ken", `1`, "malformed-path", 400},
		{"/callback/f/99999999999?token=t0ken", `1`, "malformed-path", 400},
		{"/callback/%ff/1?token=t0ken", `1`, "malformed-path", 400},
		{"/callback/f?token=t0ken", `1`, "no-such-path", 404},
		{"/callback/f/1/2?token=t0ken", `1`, "no-such-path", 404},
		{"/callback/f/1?token=t0ken", `rows=7`, "malformed-body", 400},
		{"/callback/f/1?token=t0ken", `{"rows": `, "malformed-body", 400},
		{"/callback/f/1?token=t0ken", `1 2`, "malformed-body", 400},
		{"/callback/f/1?token=t0ken", `"\u0000"`, "malformed-body", 400},
		{"/callback/f/1?token=t0ken", `1e999`, "invalid-value", 422},
		{"/callback/f/1?token=t0ken", `"` + strings.Repeat("x", flow.MaxOutput) + `"`, "body-too-large", 413},
		{"/callback/f/1?token=t0ken", strings.Repeat(" ", request.MaxBody+1), "body-too-large", 413},
	} {
		w := send(t, h, "POST", c.path, c.body)
		require.Equal(t, c.status, w.Code, c.path)
		p := problemOf(t, w)
		require.Equal(t, c.code, p.Code, c.path)
		require.NotContains(t, p.Detail+p.Instance, "t0ken")
		require.NotContains(t, p.Detail, "taskId", "that is for another path")
	}
	require.Empty(t, came)
	for answered, code := range map[flow.Answered]string{flow.AnswerRepeated: "callback-answered", flow.AnswerLate: "callback-late"} {
		w := send(t, serving(fakeStore{answer: func(flow.TaskKey, string, string) (flow.Answered, error) { return answered, nil }}), "POST", "/callback/f/1?token=t", "1")
		require.Equal(t, http.StatusConflict, w.Code)
		require.Equal(t, code, problemOf(t, w).Code)
	}
	away := fakeStore{answer: func(flow.TaskKey, string, string) (flow.Answered, error) { return "", flow.ErrUnavailable }}
	w := send(t, serving(away), "POST", "/callback/f/1?token=t", "1")
	require.Equal(t, http.StatusServiceUnavailable, w.Code)
	require.Equal(t, "5", w.Header().Get("Retry-After"))
	require.Equal(t, http.StatusMethodNotAllowed, send(t, h, "GET", "/callback/f/1?token=t0ken", "").Code)
}

// Whoever was asked has no other right than to answer, and is let in by every address.
func TestCallback_IsServedEverywhere(t *testing.T) {
	t.Parallel()
	var log logBuffer
	var came string
	s := New(Config{Host: "0.0.0.0"}, waiting(flow.TaskKey{Flow: "f", Seq: 1}, "t0ken", &came), log.logger())
	h := s.Handler()
	require.Equal(t, http.StatusAccepted, send(t, h, "POST", "/callback/f/1?token=t0ken", "1").Code)
	require.Equal(t, http.StatusNotFound, send(t, h, "POST", "/callback/f/1?token=wr0ng", "1").Code)
	require.Equal(t, http.StatusForbidden, send(t, h, "GET", "/api/v1/flows/f", "").Code)
	require.Contains(t, log.String(), "task answered")
	require.NotContains(t, log.String(), "t0ken", "whoever reads the log could use it again")
	require.NotContains(t, log.String(), "wr0ng")
}

// FuzzCallback: whatever comes, what is kept of it is JSON of a size that an output can
// have.
func FuzzCallback(f *testing.F) {
	for _, seed := range []string{`{"rows": 7}`, ``, `null`, `[`, `{"a":"\ud83d"}`, "\xff", `1e999`, `"\u0000"`, `{} {}`, strings.Repeat(`[`, 200)} {
		f.Add([]byte(seed), "f", "1", "t0ken")
	}
	f.Fuzz(func(t *testing.T, body []byte, id, seq, token string) {
		var came string
		h := serving(fakeStore{answer: func(_ flow.TaskKey, _, body string) (flow.Answered, error) {
			came = body
			return flow.AnswerTaken, nil
		}})
		w := send(t, h, "POST", "/callback/"+url.PathEscape(id)+"/"+url.PathEscape(seq)+"?token="+url.QueryEscape(token), string(body))
		switch w.Code {
		case http.StatusAccepted:
			require.True(t, json.Valid([]byte(came)), came)
			require.LessOrEqual(t, len(came), maxAnswer)
			require.NotContains(t, came, "\x00")
		case 400, 404, 413, 414, 422:
			require.Empty(t, came)
			var p struct{ Detail string }
			text, err := io.ReadAll(w.Body)
			require.NoError(t, errors.Join(err, json.Unmarshal(text, &p)))
			require.NotEmpty(t, p.Detail)
		default:
			t.Fatalf("status %d: %s", w.Code, w.Body)
		}
	})
}
