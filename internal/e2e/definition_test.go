package e2e

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// command runs a command of register to its end.
func (w *world) command(stdin string, env []string, args ...string) (code int, stdout, stderr string) {
	w.Helper()
	var out, said bytes.Buffer
	c := exec.CommandContext(w.Context(), filepath.Join(bin, "register"), args...)
	c.Env = append([]string{"PATH=" + os.Getenv("PATH"), "GORACE=halt_on_error=1"}, env...)
	c.Stdin, c.Stdout, c.Stderr = strings.NewReader(stdin), &out, &said
	err := c.Run()
	if failed, ok := errors.AsType[*exec.ExitError](err); ok {
		code = failed.ExitCode()
	} else {
		require.NoError(w, err)
	}
	return code, out.String(), said.String()
}

// done is command for what must succeed.
func (w *world) done(stdin string, env []string, args ...string) string {
	w.Helper()
	code, stdout, stderr := w.command(stdin, env, args...)
	require.Zero(w, code, "%s\n%s", stdout, stderr)
	return stdout
}

// A workflow from a file runs, and its flows say which version of it they run, whoever
// changed it.
func TestDefinitions_FromAFileToAFlow(t *testing.T) {
	w := newWorld(t)
	register := w.register()
	w.watcher()
	file := "taskId: nightly\ntasks:\n- {program: NoOp, title: load}\n- {program: EchoParamTimeSleep, parameters: {SLEEP_TIME_SECOND: 0.01}}\n"
	require.Equal(t, "nightly: created, 2 tasks\n1 created, 0 changed, 0 deleted, 0 unchanged\n", w.done(file, w.env(), "apply", "-f", "-"))
	first := register.post("nightly")
	w.await(first, "3 3")

	// By hand, and what a file says of that.
	w.exec(`UPDATE ms_task_definition SET parameters = '{"SLEEP_TIME_SECOND": 0.02}' WHERE task_id = 'nightly' AND task_seq = 2`)
	second := register.post("nightly")
	w.await(second, "3 3")
	drift := "nightly: changed\n  task 2 (EchoParamTimeSleep): parameters.SLEEP_TIME_SECOND: 0.02 → 0.01\n0 created, 1 changed, 0 deleted, 0 unchanged"
	require.Equal(t, drift+"; this was a dry run: nothing was changed\n", w.done(file, w.env(), "apply", "-f", "-", "-dry-run"))
	require.Equal(t, drift+"\n", w.done(file, w.env("USER=alice"), "apply", "-f", "-", "-note", "back"))
	third := register.post("nightly")
	w.await(third, "3 3")

	var versions []string
	require.NoError(t, w.Select(&versions, `SELECT format('%s by %s: %s', f.workflow_version, v.applied_by, coalesce(v.note, '-'))
		FROM kr_flow f JOIN ms_workflow_version v ON v.task_id = f.task_id AND v.version = f.workflow_version ORDER BY f.registered_ts`))
	require.Equal(t, []string{"1 by flower: -", "2 by flower: -", "3 by alice: back"}, versions)

	exported := w.done("", w.env(), "export", "nightly")
	require.Equal(t, "nightly: unchanged\n0 created, 0 changed, 0 deleted, 1 unchanged\n", w.done(exported, w.env(), "apply", "-f", "-"))
	code, _, stderr := w.command(strings.Replace(file, "NoOp", "NoOops", 1), w.env(), "apply", "-f", "-")
	require.Equal(t, 1, code)
	require.Equal(t, "-:3:13: there is no program \"NoOops\": did you mean NoOp?\nregister apply: 1 problem in the files; nothing was changed\n", stderr)
	w.sound()
}

// Neither the database nor its tables need be there: the command says so, and ends.
func TestDefinitions_WithoutADatabase(t *testing.T) {
	w := newWorld(t)
	code, _, stderr := w.command("", append(w.env(), "DB_PORT=1"), "export")
	require.Equal(t, 1, code)
	require.Contains(t, stderr, "the database is not available")
	w.exec(`DROP TABLE goose_db_version`)
	code, _, stderr = w.command("", w.env(), "export")
	require.Equal(t, 1, code)
	require.Contains(t, stderr, "register -migrate only migrates it", "who is told to start register may have done so with -migrate off")
}
