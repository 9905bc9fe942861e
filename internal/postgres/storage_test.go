package postgres

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/flow"
)

func TestStorage(t *testing.T) {
	t.Parallel()
	w := open(t)
	for range 3 {
		register(t, w, def(), def(1))
	}
	mustExec(t, w.psql, `ANALYZE`)
	s, err := w.Storage(t.Context())
	require.NoError(t, err)
	require.Equal(t, value[int64](t, w, `SELECT max(version_id) FROM goose_db_version`), s.Schema)
	require.NotEmpty(t, s.Postgres)
	byName := map[string]flow.TableSize{}
	total := int64(0)
	for _, table := range s.Tables {
		require.Regexp(t, `^(kr|ms)_[a-z_]+$`, table.Name)
		require.NotEmpty(t, table.Means, table.Name)
		byName[table.Name] = table
		total += table.Bytes
	}
	require.Equal(t, int64(6), byName["kr_task_stat"].Rows)
	require.Equal(t, int64(3), byName["kr_flow"].Rows)
	require.Equal(t, value[int64](t, w, `SELECT pg_total_relation_size('kr_task_stat')`), byName["kr_task_stat"].Bytes)
	require.Greater(t, s.Size, total)
}
