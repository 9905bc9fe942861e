package migrations_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/pgdev"
	"github.com/d-tsuji/flower/internal/pgdev/pgtest"
)

// What the README says of a dump of the data alone.
const (
	emptySQL = `SET session_replication_role = replica; DELETE FROM ms_task_definition; DELETE FROM ms_workflow_version`
	dumpData = "pg_dump -a --disable-triggers -T goose_db_version"
)

func TestUp_DataAloneGoesIntoANewSchema(t *testing.T) {
	t.Parallel()
	readme, err := os.ReadFile("../README.md")
	require.NoError(t, err)
	words := strings.Join(strings.Fields(string(readme)), " ")
	require.Contains(t, words, emptySQL)
	require.Contains(t, words, dumpData)

	from, to := pgtest.New(t), pgtest.New(t)
	_, err = from.Exec(`
		DELETE FROM ms_task_definition WHERE task_id <> 'sample';
		UPDATE ms_task_definition SET description = 'another' WHERE task_seq = 2;
		SELECT flower_register('sample');
		UPDATE kr_task_stat SET exec_status = 3 WHERE task_exec_seq = 1;
		UPDATE kr_task_stat SET exec_status = 2, reason = 'failed', error = 'E' WHERE task_exec_seq = 2`)
	require.NoError(t, err)
	restore(t, from, to)

	for _, sql := range []string{
		`SELECT * FROM ms_task_definition ORDER BY 1, 2`,
		`SELECT * FROM ms_workflow_version ORDER BY 1, 2`,
		`SELECT * FROM kr_task_stat ORDER BY 1, 2`,
		`SELECT * FROM kr_event ORDER BY event_id`,
	} {
		require.Equal(t, rowsOf(t, from, sql), rowsOf(t, to, sql), sql)
		require.NotEmpty(t, rowsOf(t, to, sql), sql)
	}
	require.Empty(t, rowsOf(t, to, `SELECT * FROM v_invariant`))
	_, err = to.Exec(`UPDATE kr_task_stat SET exec_status = 0 WHERE exec_status = 2`)
	require.NoError(t, err, "it goes on")
	require.Len(t, rowsOf(t, to, `SELECT * FROM kr_ready`), 1)
}

// restore brings the data of one database into another by the programs of PostgreSQL.
func restore(t *testing.T, from, to *pgtest.DB) {
	t.Helper()
	bin, err := pgdev.FindBinDir()
	require.NoError(t, err)
	if _, err := os.Stat(filepath.Join(bin, "pg_dump")); err != nil {
		t.Skip("this PostgreSQL came without pg_dump")
	}
	shell := exec.CommandContext(t.Context(), "sh", "-c", `psql -Xqv ON_ERROR_STOP=1 "$2" -c "$3" && `+dumpData+` "$1" | psql -Xqv ON_ERROR_STOP=1 "$2"`,
		"sh", from.URL, to.URL, emptySQL)
	shell.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"))
	out, err := shell.CombinedOutput()
	require.NoError(t, err, string(out))
}

// rowsOf returns rows as text.
func rowsOf(t *testing.T, db *pgtest.DB, sql string) []string {
	t.Helper()
	var rows []string
	require.NoError(t, db.Select(&rows, `SELECT x::text FROM (`+sql+`) x`))
	return rows
}
