package e2e

import (
	"encoding/json"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/commandtest"
	"github.com/d-tsuji/flower/internal/pgdev/pgtest"
)

// asking is the environment of a command that asks a register.
func asking(s *server, more ...string) []string {
	return append([]string{"FLOWER_SERVER=" + s.url}, more...)
}

// From a failure to its repair, with nothing but register at a terminal.
func TestTerminal_FromAFailureToTheEnd(t *testing.T) {
	w := newWorld(t)
	register := w.register()
	w.watcher()
	var mended atomic.Bool
	p := newPeer(t, func(rw http.ResponseWriter, _ *http.Request) {
		if !mended.Load() {
			http.Error(rw, "out of order", http.StatusServiceUnavailable)
		}
	})
	w.define("nightly", task{program: "NoOp"}, p.calling("/load"), task{program: "NoOp"})
	env := asking(register)

	code, stdout, stderr := w.command("", env, "start", "nightly", "-p", "day=2026-11-24", "-note", "as planned", "-wait")
	require.Equal(t, 1, code, stderr)
	id, table, _ := strings.Cut(stdout, "\n")
	require.Equal(t, "3 2 0", w.statuses(id))
	require.Contains(t, table, "nightly  "+id+"  FAILED  1 of 3 finished")
	require.Contains(t, stderr, "nightly  failed  1 of 3 finished\n")

	require.Contains(t, w.done("", env, "flows", "-status", "failed", "-since", "1h"), id)
	require.NotContains(t, w.done("", env, "flows", "-status", "finished"), id)
	require.Contains(t, w.done("", env, "failures"), "503 Service Unavailable")
	require.Contains(t, w.done("", env, "flow", id[:30]), "out of order")
	var flow struct {
		Parameters      map[string]string
		Note            string
		WorkflowVersion int
	}
	require.NoError(t, json.Unmarshal([]byte(w.done("", env, "flow", id, "-json")), &flow))
	require.Equal(t, "2026-11-24 as planned", flow.Parameters["day"]+" "+flow.Note)
	require.Equal(t, 3, flow.WorkflowVersion, "of rows that came one by one")

	require.Equal(t, "   2 HTTPPostRequest  suspended → waiting, can go\n"+id+": 1 task changes, 2 stay as they are; this was a dry run: nothing was changed\n",
		w.done("", env, "rerun", id, "-dry-run"))
	require.Equal(t, "3 2 0", w.statuses(id))
	mended.Store(true)
	require.Contains(t, w.done("", env, "rerun", id, "-note", "mended", "-wait"), "FINISHED  3 of 3 finished")
	require.Equal(t, "3 3 3", w.statuses(id))

	code, _, stderr = w.command("", env, "skip", id, "2")
	require.Equal(t, 1, code)
	require.Contains(t, stderr, "has finished: there is nothing to skip")
	var who []string
	require.NoError(t, w.Select(&who, `SELECT way || ' ' || note FROM kr_event WHERE task_flow_id = $1 AND new_status = 0`, id))
	require.Equal(t, []string{"cli mended"}, who)
	w.sound()
}

// What becomes of a flow that is waited for is the exit code.
func TestTerminal_TheEndOfAFlowIsTheExitCode(t *testing.T) {
	w := newWorld(t)
	register := w.register()
	w.watcher()
	env := asking(register)
	for verb, want := range map[string]int{"hold": 3, "cancel": 4} {
		g := make(gate)
		w.define(verb, newPeer(t, g.wait).calling("/x"), task{program: "NoOp"})
		id := strings.TrimSpace(w.done("", env, "start", verb))
		w.await(id, "1 0")
		waiting := run(t, "register", env, "rerun", id, "-wait") // of nothing
		pgtest.Eventually(t, soon, "it waits", func() bool { return strings.Contains(waiting.Log.String(), verb+"  running") })
		w.done("", env, verb, id, "-note", "not now")
		if verb == "hold" { // what runs comes to its end
			close(g)
		}
		require.Equal(t, want, waiting.Exit())
	}
	g := make(gate)
	defer close(g)
	w.define("long", newPeer(t, g.wait).calling("/x"))
	code, _, stderr := w.command("", env, "start", "long", "-wait", "-timeout", "300ms")
	require.Equal(t, 5, code)
	require.Contains(t, stderr, "has not ended within 300ms; it goes on")
	waiting := run(t, "register", env, "start", "long", "-wait")
	pgtest.Eventually(t, soon, "it waits", func() bool { return strings.Contains(waiting.Log.String(), "long  ") })
	waiting.Signal(syscall.SIGINT)
	require.Equal(t, 130, waiting.Exit())
	require.Contains(t, waiting.Log.String(), "the flow goes on: register flow ")
}

// Whoever waits outlasts a restart of register.
func TestTerminal_ARestartIsWaitedFor(t *testing.T) {
	w := newWorld(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	_, port, err := net.SplitHostPort(l.Addr().String())
	require.NoError(t, err)
	require.NoError(t, l.Close())
	register := serving(run(t, "register", w.env(), "-webport", port))
	w.watcher()
	g := make(gate)
	w.define("long", newPeer(t, g.wait).calling("/x"))
	waiting := run(t, "register", asking(register), "start", "long", "-wait")
	pgtest.Eventually(t, soon, "it waits", func() bool { return strings.Contains(waiting.Log.String(), "long  ") })
	register.Signal(syscall.SIGKILL)
	<-register.Ended
	close(g)
	serving(run(t, "register", w.env(), "-webport", port))
	require.Zero(t, waiting.Exit())
}

// A log is followed line by line, to the end of the last attempt.
func TestTerminal_LogsAreFollowed(t *testing.T) {
	w := newWorld(t)
	register := w.register()
	w.watcher("-allow-command", "-command-shell")
	dir := t.TempDir()
	script, err := json.Marshal("cd " + dir + "; echo one; [ -e failed ] || { while [ ! -e go ]; do sleep 0.05; done; touch failed; echo failing >&2; exit 1; }; echo two")
	require.NoError(t, err)
	w.define("talk", task{program: "Command", parameters: `{"shell": true, "argv": [` + string(script) + `]}`, attempts: 2})
	env := asking(register)
	id := strings.TrimSpace(w.done("", env, "start", "talk"))

	printed := &commandtest.Lines{}
	follower := exec.CommandContext(t.Context(), filepath.Join(bin, "register"), "logs", id, "1", "-f")
	follower.Env, follower.Stdout, follower.Stderr = env, printed, printed
	require.NoError(t, follower.Start())
	pgtest.Eventually(t, soon, "the first line is printed", func() bool { return strings.Contains(printed.String(), "one\n") })
	require.NoError(t, os.WriteFile(filepath.Join(dir, "go"), nil, 0o600))
	require.NoError(t, follower.Wait(), printed.String())
	require.Equal(t, "one\nfailing\none\ntwo\n", withoutFlowers(printed.String()))
	require.Equal(t, "one\nfailing\n", withoutFlowers(w.done("", env, "logs", id, "1", "-attempt", "1")))
	require.Equal(t, "two\n", w.done("", env, "logs", id, "1", "-tail", "1"))
	code, _, stderr := w.command("", env, "logs", id, "2")
	require.Equal(t, 1, code)
	require.Contains(t, stderr, "has no task 2")
}

// withoutFlowers leaves out what the programs themselves say.
func withoutFlowers(log string) string {
	var kept strings.Builder
	for line := range strings.Lines(log) {
		if strings.HasPrefix(line, "one") || strings.HasPrefix(line, "two") || strings.HasPrefix(line, "failing") {
			kept.WriteString(line)
		}
	}
	return kept.String()
}

// Who may only read is told so.
func TestTerminal_Tokens(t *testing.T) {
	w := newWorld(t)
	made := w.done("", nil, "token", "-name", "eve", "-role", "reader")
	token := regexp.MustCompile(`flower_[\w-]+`).FindString(made)
	line := regexp.MustCompile(`eve reader [0-9a-f]+`).FindString(made)
	file := filepath.Join(t.TempDir(), "tokens")
	require.NoError(t, os.WriteFile(file, []byte(line+"\n"), 0o600))
	register := w.register("-tokens-file", file)
	code, _, stderr := w.command("", asking(register), "flows")
	require.Equal(t, 1, code)
	require.Contains(t, stderr, "(FLOWER_TOKEN, or -token-file)")
	w.done("", asking(register, "FLOWER_TOKEN="+token), "flows")
	code, _, stderr = w.command("", asking(register, "FLOWER_TOKEN="+token), "start", "sample")
	require.Equal(t, 1, code)
	require.Contains(t, stderr, "registrar")
}
