package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/cli"
)

// list runs watcher -programs, which needs no database.
func list(t *testing.T, vars map[string]string, args ...string) (code int, printed string) {
	t.Helper()
	var out bytes.Buffer
	env := &cli.Env{
		Name: "watcher", Args: append([]string{"-programs"}, args...), Stdout: &out, Stderr: &out,
		Getenv: func(name string) string { return vars[name] },
	}
	return cli.Exec(t.Context(), env, run), out.String()
}

func TestSQLSettings(t *testing.T) {
	t.Parallel()
	code, printed := list(t, nil)
	require.Zero(t, code)
	require.Contains(t, printed, "SQL (off: the watcher needs -sql-connections)\n")

	url := map[string]string{"FLOWER_SQL_CONNECTION_CRM_2": "postgres://u:s3cret@db/crm?sslmode=require"}
	for _, args := range [][]string{
		{"-sql-connections", "flower"},
		{"-sql-connections", "crm_2"},
		{"-sql-connections", "flower, crm_2", "-sql-role", "reports", "-sql-sessions", "10"},
	} {
		code, printed = list(t, url, args...)
		require.Zero(t, code, printed)
		require.Contains(t, printed, "\nSQL\n", args)
		code, printed = list(t, url, append(args, "-print-config")...)
		require.Zero(t, code, printed)
		require.NotContains(t, printed, "s3cret")
	}

	for _, c := range []struct {
		vars map[string]string
		args string
		want string
	}{
		{nil, "-sql-connections crm", "FLOWER_SQL_CONNECTION_CRM has no URL for it"},
		{nil, "-sql-connections CRM", "not a name of small letters"},
		{nil, "-sql-connections flower -db-pooler", "not possible with -db-pooler"},
		{nil, "-sql-role reports", "-sql-role (FLOWER_SQL_ROLE) is for flower"},
		{url, "-sql-connections crm_2 -sql-role reports", "-sql-role (FLOWER_SQL_ROLE) is for flower"},
		{nil, "-sql-connections flower -sql-sessions 0", "from 1 to 1000"},
		{map[string]string{"FLOWER_SQL_CONNECTION_X": "mysql://u:s3cret@h/d"}, "-sql-connections x", "FLOWER_SQL_CONNECTION_X: database URL: must begin with postgres://"},
		{map[string]string{"FLOWER_SQL_CONNECTION_X": "postgres://u:s3cret@h:x/d"}, "-sql-connections x", "FLOWER_SQL_CONNECTION_X: database URL: must look like"},
		{map[string]string{"FLOWER_SQL_CONNECTION_X": "s3cret"}, "-sql-connections x", "FLOWER_SQL_CONNECTION_X: the connection string must be pairs"},
	} {
		code, printed = list(t, c.vars, strings.Fields(c.args)...)
		require.Equal(t, cli.ExitUsage, code, c.args)
		require.Contains(t, printed, c.want)
		require.NotContains(t, printed, "s3cret")
		require.Equal(t, 1, strings.Count(printed, "\n"), printed)
	}
}
