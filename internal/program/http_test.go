package program

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/flow"
)

// newServer starts a server whose handler has the whole body of a request already: only
// then does a server notice that its client went away.
func newServer(t *testing.T, handler func(w http.ResponseWriter, r *http.Request)) *httptest.Server {
	t.Helper()
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return // the client is gone
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		handler(w, r)
	}))
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.Start()
	t.Cleanup(server.Close)
	return server
}

// post runs HTTPPostRequest.
func post(t *testing.T, parameters map[string]any) (string, error) {
	t.Helper()
	output, err := Default(Config{}).Run(t.Context(), Attempt{Task: newTask("HTTPPostRequest", mustJSON(t, parameters))})
	return string(output), err
}

// answers is a handler that always answers the same.
func answers(status int, body string) func(http.ResponseWriter, *http.Request) {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

func TestHTTPPost_SendsTheBodyAsItIs(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ given, sent, contentType string }{
		{``, ``, ``},
		{`"BODY": null,`, ``, ``},
		{`"BODY": "",`, ``, ``},
		{`"BODY": "{\"a\": 1}",`, `{"a": 1}`, "application/json"},
		{`"BODY":  { "b":"<ü>",  "a":[1.50, null] } ,`, `{ "b":"<ü>",  "a":[1.50, null] }`, "application/json"},
		{`"BODY": [1, 2],`, `[1, 2]`, "application/json"},
		{`"BODY": 12,`, `12`, "application/json"},
		{`"BODY": true,`, `true`, "application/json"},
		{`"BODY": "null",`, `null`, "application/json"},
		{`"BODY": "a=1&b=\n\u0000ü",`, "a=1&b=\n\x00ü", "text/plain; charset=utf-8"},
	} {
		t.Run(c.given, func(t *testing.T) {
			t.Parallel()
			var request *http.Request
			server := newServer(t, func(_ http.ResponseWriter, r *http.Request) { request = r })
			parameters := `{` + c.given + `"URL": "` + server.URL + `/a%2fb?q=1&q=%20"}`
			_, err := Default(Config{}).Run(t.Context(), Attempt{Task: newTask("HTTPPostRequest", parameters)})
			require.NoError(t, err)

			body, err := io.ReadAll(request.Body)
			require.NoError(t, err)
			require.Equal(t, c.sent, string(body))
			require.Equal(t, http.MethodPost, request.Method)
			require.Equal(t, "/a%2fb?q=1&q=%20", request.RequestURI)
			require.Equal(t, c.contentType, request.Header.Get("Content-Type"))
			require.Equal(t, "f1:2:0", request.Header.Get("Idempotency-Key"))
			require.Equal(t, int64(len(c.sent)), request.ContentLength)
			require.Empty(t, request.Header.Get("Authorization"))
		})
	}
}

func TestHTTPPost_IdempotencyKeyOfAnyFlowID(t *testing.T) {
	t.Parallel()
	for id, want := range map[flow.ID]string{
		"0199-ab":     "0199-ab:2:1",
		"a\r\nX: y":   "a%0D%0AX%3A+y%3A2%3A1",
		"日本 \x00 50%": "%E6%97%A5%E6%9C%AC+%00+50%25%3A2%3A1",
	} {
		var header http.Header
		server := newServer(t, func(_ http.ResponseWriter, r *http.Request) { header = r.Header })
		task := newTask("HTTPPostRequest", mustJSON(t, map[string]any{"URL": server.URL}))
		task.Flow, task.AttemptBase = id, 1
		_, err := Default(Config{}).Run(t.Context(), Attempt{Task: task})
		require.NoError(t, err)
		require.Equal(t, want, header.Get("Idempotency-Key"))
	}
}

func TestHTTPPost_UserInfoIsSentAsBasicAuthentication(t *testing.T) {
	t.Parallel()
	var user, password string
	server := newServer(t, func(_ http.ResponseWriter, r *http.Request) { user, password, _ = r.BasicAuth() })
	_, err := post(t, map[string]any{"URL": strings.Replace(server.URL, "://", "://me:p%40ss@", 1)})
	require.NoError(t, err)
	require.Equal(t, "me", user)
	require.Equal(t, "p@ss", password)
}

func TestHTTPPost_DoesNotFollowRedirects(t *testing.T) {
	t.Parallel()
	for _, status := range []int{301, 302, 303, 307, 308} {
		var requests atomic.Int32
		server := newServer(t, func(w http.ResponseWriter, r *http.Request) {
			requests.Add(1)
			w.Header().Set("Location", "/again?token=s3cret://%zz")
			w.WriteHeader(status)
		})
		_, err := post(t, map[string]any{"URL": server.URL})
		require.ErrorContains(t, err, "redirects are not followed")
		require.NotContains(t, err.Error(), "s3cret")
		require.Equal(t, int32(1), requests.Load())
	}
}

// Some servers repeat what they were asked, and so do some errors.
func TestHTTPPost_Stops(t *testing.T) {
	t.Parallel()
	stop := errors.New("stop")
	for name, begin := range map[string]func(w http.ResponseWriter){
		"before the answer": func(http.ResponseWriter) {},
		"in the answer":     func(w http.ResponseWriter) { _, _ = io.WriteString(w, "so far"); w.(http.Flusher).Flush() },
		"in an error":       func(w http.ResponseWriter) { w.WriteHeader(500); w.(http.Flusher).Flush() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithCancelCause(t.Context())
			server := newServer(t, func(w http.ResponseWriter, r *http.Request) {
				begin(w)
				cancel(stop)
				<-r.Context().Done()
			})
			_, err := Default(Config{}).Run(ctx, Attempt{Task: newTask("HTTPPostRequest", mustJSON(t, map[string]any{"URL": server.URL}))})
			require.ErrorIs(t, err, stop)
			require.EqualError(t, err, "POST "+server.URL+": stop")
		})
	}
}

func TestHTTPPost_OwnTimeout(t *testing.T) {
	t.Parallel()
	hangs := func(status int, text string) string {
		return newServer(t, func(w http.ResponseWriter, r *http.Request) {
			if status > 0 {
				w.WriteHeader(status)
				_, _ = io.WriteString(w, text)
				w.(http.Flusher).Flush()
			}
			<-r.Context().Done()
		}).URL
	}
	set := Default(Config{HTTPTimeout: 100 * time.Millisecond})
	for url, want := range map[string]string{
		hangs(0, ""):          "no complete answer within 100ms",
		hangs(200, "so far"):  "no complete answer within 100ms",
		hangs(502, "oh well"): "502 Bad Gateway: oh well",
	} {
		_, err := set.Run(t.Context(), Attempt{Task: newTask("HTTPPostRequest", mustJSON(t, map[string]any{"URL": url}))})
		require.EqualError(t, err, "POST "+url+": "+want)
		// The task's own timeout is another thing, and the watcher tells them apart.
		require.NotErrorIs(t, err, context.DeadlineExceeded)
	}
}

// An answer that makes something else of the connection, although nobody asked for it, ends
// the request: no timeout and no cancellation would end what follows.
func TestHTTPPost_SwitchingProtocols(t *testing.T) {
	t.Parallel()
	conns := make(chan net.Conn, 1)
	server := newServer(t, func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := w.(http.Hijacker).Hijack()
		if err == nil {
			_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: other\r\n\r\n")
		}
		conns <- conn
	})
	_, err := post(t, map[string]any{"URL": server.URL})
	require.EqualError(t, err, "POST "+server.URL+": 101 Switching Protocols")
	conn := <-conns
	_, err = conn.Read(make([]byte, 1))
	require.ErrorIs(t, err, io.EOF, "the connection is closed")
	require.NoError(t, conn.Close())
}

func TestHTTPPost_OneAttemptSendsOneRequest(t *testing.T) {
	t.Parallel()
	var requests atomic.Int32
	server := newServer(t, func(http.ResponseWriter, *http.Request) {
		if requests.Add(1) > 1 {
			panic(http.ErrAbortHandler)
		}
	})
	set := Default(Config{})
	task := newTask("HTTPPostRequest", mustJSON(t, map[string]any{"URL": server.URL}))
	_, err := set.Run(t.Context(), Attempt{Task: task})
	require.NoError(t, err)
	_, err = set.Run(t.Context(), Attempt{Task: task})
	require.EqualError(t, err, "POST "+server.URL+": EOF")
	require.Equal(t, int32(2), requests.Load())
}

func TestHTTPPost_Settings(t *testing.T) {
	t.Parallel()
	p := newHTTPPost(newDialer(nil), 0)
	require.Equal(t, 30*time.Second, p.timeout)
	require.Nil(t, p.transport.Proxy, "a proxy would hide the target from the guard")
	require.Equal(t, 5*time.Second, newDialer(nil).Timeout)
	require.Equal(t, 5*time.Second, p.transport.TLSHandshakeTimeout)
}

// FuzzAnswer gives answerOutput and statusError whatever a server may say, and repeats
// it, since what is long is cut.
