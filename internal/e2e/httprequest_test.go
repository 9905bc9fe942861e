package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// A request is repeated with the same key until it succeeds, and with another one after a
// rerun by hand.
func TestHTTPRequest(t *testing.T) {
	w := newWorld(t)
	var p *peer
	p = newPeer(t, func(rw http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/flaky" && p.at("/flaky") < 3:
			rw.WriteHeader(http.StatusServiceUnavailable)
		case r.URL.Path == "/gone":
			rw.WriteHeader(http.StatusGone)
		default:
			fmt.Fprintf(rw, `{"method": %q, "token": %q}`, r.Method, r.Header.Get("X-Token"))
		}
	})
	get := task{program: "HTTPRequest", parameters: `{"url": "` + p.URL + `/flaky", "headers": {"X-Token": "abc"}}`, attempts: 3}
	put := task{program: "HTTPRequest", parameters: `{"url": "` + p.URL + `/put", "method": "PUT", "body": {"a": [1, 2]}}`}
	gone := task{program: "HTTPRequest", parameters: `{"url": "` + p.URL + `/gone", "method": "DELETE", "expect_status": [204, 410]}`}
	w.define("calls", get, put, gone)
	s := w.register()
	w.watcher("-http-allow", "127.0.0.0/8")
	a := s.send(http.MethodPost, "/register/calls", "", `{"parameters": {"body": "given by the caller"}}`)
	flow := s.flowOf(a, "calls")
	w.await(flow, "3 3 3")

	var outputs []string
	require.NoError(t, w.Select(&outputs, `SELECT output::text FROM kr_task_stat WHERE task_flow_id = $1 ORDER BY task_exec_seq`, flow))
	require.JSONEq(t, `{"status": 200, "body": {"method": "GET", "token": "abc"}}`, outputs[0])
	require.JSONEq(t, `{"status": 200, "body": {"method": "PUT", "token": ""}}`, outputs[1])
	require.JSONEq(t, `{"status": 410, "body": ""}`, outputs[2])

	calls := p.seen()
	require.Len(t, calls, 5)
	for _, c := range calls[:3] {
		require.Equal(t, flow+":1:0", c.key)
	}
	require.Equal(t, "given by the caller", calls[3].body)
	w.exec(`UPDATE kr_task_stat SET exec_status = 0 WHERE task_flow_id = $1 AND task_exec_seq = 2`, flow)
	w.await(flow, "3 3 3")
	require.Equal(t, flow+":2:0", calls[3].key)
	require.Equal(t, flow+":2:1", p.seen()[5].key)
}

func TestHTTPRequest_GoesWhereTheWatcherAllows(t *testing.T) {
	w := newWorld(t)
	p := newPeer(t, func(http.ResponseWriter, *http.Request) {})
	w.define("call", task{program: "HTTPRequest", parameters: `{"url": "` + p.URL + `/"}`})
	s := w.register()
	w.watcher("-http-allow", "192.0.2.0/24")
	flow := s.post("call")
	w.await(flow, "2")
	require.Contains(t, w.rows(flow)[0].Error, "which the watcher's setting -http-allow does not contain")
	require.Equal(t, "invalid", w.rows(flow)[0].Reason)
	require.Empty(t, p.seen())
}

func oneLine(text string) string { return strings.Join(strings.Fields(text), " ") }

// What tasks can run is listed alike by both programs.
func TestPrograms(t *testing.T) {
	w := newWorld(t)
	a := w.register().send(http.MethodGet, "/api/v1/programs", "", "")
	require.Equal(t, http.StatusOK, a.status)
	var list struct {
		Items []struct {
			Name       string
			Parameters []struct{ Name, Type, Description string }
		}
	}
	require.NoError(t, json.Unmarshal([]byte(a.text), &list))
	require.Len(t, list.Items, 14)
	printed, err := exec.CommandContext(t.Context(), filepath.Join(bin, "watcher"), "-programs").Output()
	require.NoError(t, err)
	for _, p := range list.Items {
		require.Regexp(t, `(?m)^`+p.Name+`( |$)`, string(printed))
		for _, parameter := range p.Parameters {
			require.Contains(t, string(printed), "\n  "+parameter.Name+" ("+parameter.Type)
			require.Contains(t, oneLine(string(printed)), oneLine(parameter.Description))
		}
	}
}
