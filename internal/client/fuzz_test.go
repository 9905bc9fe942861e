package client

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/cli"
)

// FuzzCommands has whatever stands on a command line, and whatever a server answers to it:
// an exit code and a sentence, and nothing that commands a terminal.
func FuzzCommands(f *testing.F) {
	const state = `{"taskFlowId": "f", "taskId": "w", "status": "finished", "counts": {}, "changed": 1, "tasks": [{"taskExecSeq": 1, "title": "\u001b[31m"}]}`
	for _, line := range []string{
		"flows\n-status\nfailed\n-since\n24h", "flow\n01a20f06", "failures\n-json", "logs\nf\n1", "logs\nf\n99999999999999999999", "rerun\nf\n-dry-run",
		"rerun\nf\n3\n-scope\nonly\n-p\na=1", "cancel\nf\n-note\n\x00", "skip\nf\n-1", "finish\nf\n1\n-output\n{", "approve\nf\n1", "start\nw\n-p\nx", "start\nw\n-priority\n20",
		"start\nw\n-p\n=\n-key\n\xff", "start\n-wait\n-timeout\n1ns\nw", "hold\n../..\n-json", "resume\n\x1b[2J", "-help", "flows\n-help", "nonsense", "", "flows\n-server\n::",
		"flows\n-token-file\n/nonexistent", "flow\n%2f", "start\nw\n-p\na=1\n-p\na=2",
	} {
		for _, answer := range []string{state, "", "{", `{"detail": "\u001b[31mno", "code": "x", "candidates": ["a\u0007"], "errors": [{"location": "l", "message": "m\u009b"}]}`, "<html>"} {
			f.Add(line, answer, uint16(200))
			f.Add(line, answer, uint16(404))
		}
	}
	f.Fuzz(func(t *testing.T, line, answer string, status uint16) {
		args := strings.Split(line, "\n")
		if !slices.ContainsFunc(Commands(), func(c cli.Command) bool { return c.Name == args[0] }) {
			return // it is for the program itself
		}
		for _, arg := range args { // what waits, or leads elsewhere
			if arg == "-f" || arg == "--f" || strings.Contains(arg, "-server") || strings.Contains(arg, "-wait") || strings.HasPrefix(arg, "@") {
				return
			}
		}
		code := 200 + int(status)%300
		if code == 429 || code >= 502 || code == 204 || code == 304 {
			return // it is tried again, for a while; these have no body
		}
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(code)
			_, _ = w.Write([]byte(answer))
		}))
		defer s.Close()
		exit, stdout, stderr := execute(t.Context(), map[string]string{"FLOWER_SERVER": s.URL}, args...)
		require.Contains(t, []int{0, 1, 2, 3, 4, 5}, exit)
		if exit != 0 && exit < 3 {
			require.NotEmpty(t, stdout+stderr)
		}
		require.NotContains(t, stderr, "\x1b", "%q", args)
		require.NotContains(t, stderr, "goroutine ", "%q", args)
	})
}
