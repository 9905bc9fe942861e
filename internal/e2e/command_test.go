package e2e

import (
	"bytes"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/pgdev/pgtest"
)

// shell makes a task that runs a shell's script, whose $1 is an argument.
func shell(script, argument string) task {
	text, _ := json.Marshal(map[string]any{"shell": true, "argv": []string{script, argument}})
	return task{program: "Command", parameters: string(text)}
}

// commands starts a watcher that may run them.
func (w *world) commands(args ...string) *process {
	w.Helper()
	return w.watcher(append([]string{"-allow-command", "-command-shell"}, args...)...)
}

// family is the script of a command that starts processes of all sorts, which have its
// argument among theirs: in its process group and outside of it, with and without a
// parent, some of which do not care about SIGTERM.
const family = `
trap '' TERM
sleep 1000.$1 &
setsid sleep 1001.$1 &
( ( setsid setsid sleep 1002.$1 & ) & )
nohup sleep 1003.$1 > /dev/null 2>&1 &
sleep 1004.$1`

// relatives returns the processes that have a mark among their arguments.
func relatives(t *testing.T, mark string) (pids []int) {
	t.Helper()
	names, err := filepath.Glob("/proc/[0-9]*")
	require.NoError(t, err)
	for _, name := range names {
		text, err := os.ReadFile(name + "/cmdline")
		if err == nil && bytes.HasPrefix(text, []byte("sleep\x00")) && bytes.Contains(text, []byte(mark)) {
			pid, err := strconv.Atoi(filepath.Base(name))
			require.NoError(t, err)
			pids = append(pids, pid)
		}
	}
	return pids
}

// newFamily registers a flow of it, and waits until all have started.
func (w *world) newFamily(s *server, timeout string) (flow, mark string) {
	w.Helper()
	mark = strconv.FormatInt(time.Now().UnixNano(), 10)
	w.Cleanup(func() {
		for _, pid := range relatives(w.T, mark) {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	})
	row := shell(family, mark)
	row.timeout = timeout
	w.define(mark, row)
	flow = s.post(mark)
	pgtest.Eventually(w.T, soon, "all have started", func() bool { return len(relatives(w.T, mark)) == 5 })
	return flow, mark
}

func (w *world) noneIsLeft(mark string) {
	w.Helper()
	pgtest.Eventually(w.T, soon, "none is left", func() bool { return len(relatives(w.T, mark)) == 0 })
}

func TestCommand(t *testing.T) {
	w := newWorld(t)
	w.define("etl",
		task{program: "Command", parameters: `{"argv": ["env"]}`},
		shell(`read -r all; echo "$all"; echo "for $1 on $FLOWER_PARAM_day" >&2; echo '{"rows": 7}'`, "load"),
		shell(`echo "no such customer" >&2; exit 3`, ""))
	s := w.register()
	w.commands("-command-files", "64")
	a := s.send(http.MethodPost, "/register/etl", "", `{"parameters": {"day": "$(date)", "stdin": "read"}}`)
	flow := s.flowOf(a, "etl")
	w.await(flow, "3 3 2")
	rows := w.rows(flow)
	require.Equal(t, "it ended with exit code 3: no such customer", rows[2].Error)
	require.Equal(t, "failed", rows[2].Reason)

	var outputs []string
	require.NoError(t, w.Select(&outputs, `SELECT output::text FROM kr_task_stat WHERE task_flow_id = $1 AND output IS NOT NULL ORDER BY task_exec_seq`, flow))
	require.JSONEq(t, `{"exit_code": 0, "stdout": "read\n{\"rows\": 7}", "json": {"rows": 7}}`, outputs[1])
	require.Contains(t, outputs[0], `\nFLOWER_FLOW=`+flow+`\n`)
	require.Contains(t, outputs[0], `FLOWER_IDEMPOTENCY_KEY=`+flow+`:1:0\n`)
	require.NotContains(t, outputs[0], "DB_", "nothing of the watcher's environment")
	var lines []string
	require.NoError(t, w.Select(&lines, `SELECT stream || ': ' || text FROM v_task_log WHERE task_flow_id = $1 AND task_exec_seq = 2`, flow))
	require.ElementsMatch(t, []string{"stderr: for load on $(date)", "stdout: read", `stdout: {"rows": 7}`}, lines)

	// It is repaired as any other failure is.
	w.exec(`UPDATE kr_task_stat SET exec_status = 0, parameters = '{"argv": ["true"]}' WHERE task_flow_id = $1 AND exec_status = 2`, flow)
	w.await(flow, "3 3 3")
}

// Whatever is wrong with a command is answered to whoever registers it; what is fixed is
// not a caller's to replace.
func TestCommand_RefusedAtRegistration(t *testing.T) {
	w := newWorld(t)
	w.define("good", task{program: "Command", parameters: `{"argv": ["true"]}`})
	w.define("bad", task{program: "NoOp"}, task{program: "Command", parameters: `{"argv": "rm -rf /"}`})
	w.define("unknown", task{program: "Command", parameters: `{"argv": ["true"], "enw": {}}`})
	s := w.register()
	for _, c := range []struct{ body, want string }{
		{`{"taskId": "bad"}`, `workflow "bad": task_seq 2 (Command): parameter "argv": a string is not a JSON array of strings`},
		{`{"taskId": "unknown"}`, `workflow "unknown": task_seq 1 (Command): parameter "enw": this program does not know it; it knows argv, dir, env, shell, stdin`},
		{`{"taskId": "good", "parameters": {"argv": ["id"]}}`, `workflow "good": task_seq 1 (Command): parameter "argv": only the definition can set it, and the request does`},
		{`{"taskId": "good", "parameters": {"stdin": "${{ secrets.X }}"}}`, `parameter "stdin": an expression, ${{ … }}, can stand in a definition only, not in a request`},
	} {
		a := s.send(http.MethodPost, "/register", "", c.body)
		require.Equal(t, http.StatusUnprocessableEntity, a.status)
		var got struct{ Status, Description string }
		require.NoError(t, json.Unmarshal([]byte(a.text), &got))
		require.Equal(t, "failed", got.Status)
		require.Equal(t, c.want, got.Description)
	}
	var rows int
	require.NoError(t, w.Get(&rows, `SELECT (SELECT count(*) FROM kr_flow) + (SELECT count(*) FROM kr_task_stat)`))
	require.Zero(t, rows)
}

// Without -allow-command nothing is run, and the reason names the setting. It is claimed
// by whoever has it.
func TestCommand_IsOffUnlessAllowed(t *testing.T) {
	w := newWorld(t)
	w.define("one", task{program: "Command", parameters: `{"argv": ["true"]}`})
	w.define("shell", shell("true", ""))
	s := w.register()
	w.watcher()
	flow := s.post("one")
	w.await(flow, "2")
	require.Equal(t, `no watcher may run the program "Command": start one with -allow-command`, w.rows(flow)[0].Error)

	w.watcher("-allow-command")
	w.exec(`UPDATE kr_task_stat SET exec_status = 0 WHERE exec_status = 2`)
	w.await(flow, "3")
	flow = s.post("shell")
	w.await(flow, "2")
	require.Equal(t, `parameter "shell": this watcher does not allow it: start it with -command-shell`, w.rows(flow)[0].Error)
	require.Equal(t, "invalid", w.rows(flow)[0].Reason)
}

func TestCommand_TimeoutAndCancel(t *testing.T) {
	w := newWorld(t)
	s := w.register()
	w.commands()
	slow, slowMark := w.newFamily(s, "2s")
	flow, mark := w.newFamily(s, "")
	w.await(slow, "2")
	require.Empty(t, relatives(t, slowMark), "all are gone before the result is recorded")
	require.Equal(t, "timeout", w.rows(slow)[0].Reason)

	w.exec(`SELECT flower_cancel($1, 'enough')`, flow)
	w.noneIsLeft(mark)
	require.Equal(t, "cancelled", w.rows(flow)[0].Reason)
	require.Equal(t, "2", w.statuses(flow))
	w.sound()
}

// A watcher that stops hands its task back, and leaves nothing of it running.
func TestCommand_EndsWithItsWatcher(t *testing.T) {
	w := newWorld(t)
	s := w.register()
	watcher := w.commands("-shutdown-timeout", "300ms")
	flow, mark := w.newFamily(s, "")
	watcher.Signal(syscall.SIGTERM)
	clean := watcher.Exit() == 0 // else this machine was too busy to stop five processes in 3 s
	w.noneIsLeft(mark)
	if clean {
		require.Equal(t, "0", w.statuses(flow))
	}

	// A second signal ends it at once, and takes as little care of its commands.
	watcher = w.commands()
	pgtest.Eventually(t, soon, "it runs again", func() bool { return len(relatives(t, mark)) == 5 })
	watcher.Signal(syscall.SIGTERM)
	watcher.Await("stopping: waiting for running tasks")
	watcher.Signal(syscall.SIGTERM)
	require.Equal(t, -1, watcher.Exit())
	w.noneIsLeft(mark)
}

// Not even a watcher that is killed, with all of its process group, leaves a process of a
// command behind.
func TestCommand_NobodyOutlivesAKilledWatcher(t *testing.T) {
	w := newWorld(t)
	s := w.register()
	watcher := w.commands()
	_, first := w.newFamily(s, "")
	_, second := w.newFamily(s, "")
	watcher.Signal(syscall.SIGKILL)
	require.Equal(t, -1, watcher.Exit())
	killed := time.Now()
	w.noneIsLeft(first)
	w.noneIsLeft(second)
	t.Logf("the last process was gone %s after its watcher", time.Since(killed).Round(time.Millisecond))
}
