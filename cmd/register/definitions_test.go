package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/cli"
	"github.com/d-tsuji/flower/internal/pgdev/pgtest"
)

// execCommand runs a command of register with what it reads, and returns what it writes.
func execCommand(t *testing.T, db *pgtest.DB, stdin string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, err output
	vars := map[string]string{"DATABASE_URL": db.URL, "USER": "alice"}
	code = cli.Exec(t.Context(), &cli.Env{
		Name: "register", Args: args, Stdin: strings.NewReader(stdin), Stdout: &out, Stderr: &err,
		Getenv: func(name string) string { return vars[name] },
	}, cli.WithCommands(run, commands...))
	return code, out.String(), err.String()
}

// done is execCommand for what must succeed.
func done(t *testing.T, db *pgtest.DB, stdin string, args ...string) string {
	t.Helper()
	code, stdout, stderr := execCommand(t, db, stdin, args...)
	require.Zero(t, code, stderr)
	require.Empty(t, stderr)
	return stdout
}

func write(t *testing.T, path, text string) {
	t.Helper()
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o777))
	require.NoError(t, os.WriteFile(path, []byte(text), 0o666))
}

const (
	nightly = "taskId: nightly\ntasks:\n- program: Test1\n- program: Test2\n"
	weekly  = "taskId: weekly\nmaxRunningFlows: 1\ntasks:\n- {program: EchoParamTimeSleep, parameters: {SLEEP_TIME_SECOND: 1}}\n"
)

func TestApply_MakesWorkflowsWhatFilesSay(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	dir := t.TempDir()
	write(t, filepath.Join(dir, "nightly.yaml"), nightly)
	write(t, filepath.Join(dir, "deep", "er", "weekly.yml"), weekly)
	write(t, filepath.Join(dir, ".git", "x.yaml"), "nonsense")
	write(t, filepath.Join(dir, "README.md"), "nonsense")

	const created = "nightly: created, 2 tasks\nweekly: created, 1 task\n"
	require.Equal(t, created+"2 created, 0 changed, 0 deleted, 0 unchanged; this was a dry run: nothing was changed\n",
		done(t, db, "", "apply", "-f", dir, "-dry-run"))
	require.Equal(t, created+"2 created, 0 changed, 0 deleted, 0 unchanged\n", done(t, db, "", "apply", "-f", dir, "-note", "a try"))
	require.Equal(t, "nightly: unchanged\nweekly: unchanged\n0 created, 0 changed, 0 deleted, 2 unchanged\n", done(t, db, "", "apply", "-f", dir))

	changed := strings.Replace(nightly, "Test2", "Test3", 1)
	require.Equal(t, "nightly: changed\n  task 2 (Test3): program: \"Test2\" → \"Test3\"\n0 created, 1 changed, 0 deleted, 0 unchanged\n",
		done(t, db, changed, "apply", "-f", "-"))
	var report struct {
		DryRun    bool
		Workflows []struct {
			TaskID, What string
			Version      int
			Changes      []struct{ What, Field string }
		}
	}
	require.NoError(t, json.Unmarshal([]byte(done(t, db, "", "apply", "-f", filepath.Join(dir, "nightly.yaml"), "-f", dir, "-json")), &report))
	require.Len(t, report.Workflows, 2)
	require.Equal(t, "changed", report.Workflows[0].What)
	require.Equal(t, 3, report.Workflows[0].Version)
	require.Equal(t, "program", report.Workflows[0].Changes[0].Field)

	var who []string
	require.NoError(t, db.Select(&who, `SELECT applied_by || ': ' || coalesce(note, '-') FROM ms_workflow_version WHERE task_id = 'nightly' ORDER BY version`))
	require.Equal(t, []string{"alice: a try", "alice: -", "alice: -"}, who)

	out := done(t, db, "", "apply", "-f", dir, "-prune", "-dry-run")
	require.Contains(t, out, "sample: deleted, 3 tasks\n")
	require.Contains(t, out, "weekly: unchanged\n")
	done(t, db, "", "apply", "-f", dir, "-prune")
	require.Contains(t, done(t, db, "", "export"), "taskId: nightly\n")
	require.NotContains(t, done(t, db, "", "export"), "taskId: sample\n")
}

func TestApply_TellsEveryProblemAndChangesNothing(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	dir := t.TempDir()
	a, b := filepath.Join(dir, "a.yaml"), filepath.Join(dir, "b.json")
	write(t, a, nightly)
	write(t, b, `{"taskId": "b", "tasks": [
	{"program": "Tset1", "dependsOn": [3]},
	{"program": "EchoParamTimeSleep", "parameters": {"SLEEP_TIME_SECOND": "soon"}, "dependsOn": []},
	{"program": "NoOp", "runIf": "params.x >", "dependsOn": [2]}]}`)
	code, stdout, stderr := execCommand(t, db, "", "apply", "-f", dir)
	require.Equal(t, 1, code)
	require.Empty(t, stdout)
	require.Equal(t, b+`:2:14: there is no program "Tset1": did you mean Test1?
`+b+`:3:72: parameter "SLEEP_TIME_SECOND": "soon" is not a number of seconds from 0 to 86400
`+b+`:4:31: runIf: ${{ params.x > }}: it ends too early (line 1, column 10)
register apply: 3 problems in the files; nothing was changed
`, stderr)
	var n int
	require.NoError(t, db.Get(&n, `SELECT count(*) FROM ms_task_definition WHERE task_id = 'nightly'`))
	require.Zero(t, n)

	// Programs of a watcher that register does not know.
	const own = "taskId: own\ntasks: [{program: Ours}]"
	code, _, stderr = execCommand(t, db, own, "apply", "-f", "-")
	require.Equal(t, 1, code)
	require.Contains(t, stderr, `-:2:19: there is no program "Ours"`)
	done(t, db, own, "apply", "-f", "-", "-any-program", "-dry-run")
	_, err := db.Exec(`INSERT INTO kr_watcher (watcher_id, host, pid, version, programs, workers, lease_until)
	                   VALUES (gen_random_uuid(), 'h', 1, 'v', '{Ours}', 1, now() + interval '1 minute')`)
	require.NoError(t, err)
	done(t, db, own, "apply", "-f", "-")
}

func TestApply_RefusesWhatCannotBeMeant(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	dir := t.TempDir()
	for _, c := range []struct {
		code   int
		stdin  string
		args   []string
		stderr string
	}{
		{2, "", []string{"apply"}, "-f is missing"},
		{2, "", []string{"apply", dir}, "unexpected argument"},
		{2, "", []string{"apply", "-f", ""}, "flag -f is given, and is empty"},
		{1, "", []string{"apply", "-f", dir}, "it has no .yaml, .yml or .json file"},
		{1, "", []string{"apply", "-f", filepath.Join(dir, "none.yaml")}, "no such file"},
		{1, "", []string{"apply", "-f", "-", "-prune"}, "there is no workflow in the files; nothing was changed"},
		{1, strings.Repeat("#", 17<<20), []string{"apply", "-f", "-"}, "read -: it is larger than 16 MiB"},
		{1, "", []string{"export", "sample", "nope"}, `there is no workflow "nope"`},
		{2, "", []string{"export", "-format", "xml"}, "yaml, json"},
	} {
		code, stdout, stderr := execCommand(t, db, c.stdin, c.args...)
		require.Equal(t, c.code, code, c.args)
		require.Empty(t, stdout, c.args)
		require.Contains(t, stderr, c.stderr, c.args)
		require.Equal(t, 1, strings.Count(stderr, "\n"), c.args)
	}
}

// What was exported changes nothing when it is applied, and makes the same elsewhere.
// Somebody edits the same at psql, and no database is there: what to do is said, too.
func TestApply_SaysWhatToDo(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	done(t, db, nightly, "apply", "-f", "-")
	tx, err := db.Begin()
	require.NoError(t, err)
	_, err = tx.Exec(`UPDATE ms_task_definition SET timeout = '1 min' WHERE task_id = 'nightly'`)
	require.NoError(t, err)
	code, _, stderr := execCommand(t, db, strings.Replace(nightly, "Test2", "Test3", 1), "apply", "-f", "-")
	require.Equal(t, 1, code)
	require.Contains(t, stderr, "somebody else is changing the same, in a transaction that is not committed, at psql perhaps: nothing was changed; try again when that has ended\n")
	require.NoError(t, tx.Rollback())

	code, _, stderr = execCommand(t, db, nightly, "apply", "-f", "-", "-database-url", "host=127.0.0.1 port=1")
	require.Equal(t, 1, code)
	require.Contains(t, stderr, "connection refused (-database-url or DATABASE_URL says where it is)\n")
}

func TestExport_AppliesBackToNoChange(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	for _, sql := range []string{
		`INSERT INTO ms_task_definition (task_id, task_seq, program, parameters, depends_task_seqs, max_attempts, retry_delay, timeout, on_lost, description, run_if, task_priority)
		 VALUES ('../odd "name"', 7, 'Ours', '{"b": 1.50, "a": ["x\ny ", null, true], "<<": "yes"}', '{}', 3, '1 day 00:00:00.25', '00:01:30', 'suspend', E'load\n\norders\n', 'true', -3)`,
		`INSERT INTO ms_workflow (task_id, description, max_running_tasks) VALUES ('../odd "name"', E'a\n  b\n', 3)`,
	} {
		_, err := db.Exec(sql)
		require.NoError(t, err)
	}
	other := pgtest.New(t)
	for _, format := range []string{"yaml", "json"} {
		dir := filepath.Join(t.TempDir(), "new")
		names := strings.Fields(done(t, db, "", "export", "-o", dir, "-format", format))
		require.Contains(t, names, filepath.Join(dir, "%2E.%2Fodd%20%22name%22."+format))
		for _, from := range [][]string{{"-f", dir}, {"-f", "-"}} {
			text := done(t, db, "", "export", "-format", format)
			out := done(t, db, text, append([]string{"apply", "-any-program", "-prune"}, from...)...)
			require.Contains(t, out, "0 created, 0 changed, 0 deleted, ")
			done(t, other, text, append([]string{"apply", "-any-program", "-prune"}, from...)...)
			require.Equal(t, text, done(t, other, "", "export", "-format", format))
		}
	}
	require.Equal(t, "taskId: sample-fails\n", done(t, db, "", "export", "sample-fails")[:21])
}

func TestCommands_AreInTheHelp(t *testing.T) {
	t.Parallel()
	_, out := execute(t.Context(), nil, "-help")
	require.NotContains(t, out.String(), "Commands", "run alone has none")
	for _, c := range commands {
		env := &cli.Env{Name: "register", Args: []string{c.Name, "-help"}, Stdout: out, Stderr: out, Getenv: func(string) string { return "" }}
		require.Zero(t, cli.Exec(t.Context(), env, cli.WithCommands(run, commands...)), c.Name)
		require.Contains(t, out.String(), "Usage: register "+c.Name+" [flags]")
	}
}
