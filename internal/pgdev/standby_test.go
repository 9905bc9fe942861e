//go:build unix

package pgdev_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/pgdev"
	"github.com/d-tsuji/flower/internal/pgdev/pgtest"
)

// A standby has what its primary has, is read-only, and takes over.
func TestStart_Standby(t *testing.T) {
	t.Parallel()
	if _, err := pgdev.FindBaseBackup(); err != nil {
		t.Skip(err)
	}
	primary := start(t, pgdev.Options{})
	do(t, primary.DSN, "CREATE TABLE before AS SELECT 1 AS one")
	standby := start(t, pgdev.Options{Standby: primary})
	require.Equal(t, "1", ask(t, standby.DSN, "SELECT one FROM before"))
	require.Equal(t, "true", ask(t, standby.DSN, "SELECT pg_is_in_recovery()"))
	do(t, primary.DSN, "CREATE TABLE after AS SELECT 2 AS two")
	pgtest.Eventually(t, within, "it follows", func() bool {
		return ask(t, standby.DSN, "SELECT to_regclass('after') IS NOT NULL") == "true"
	})
	primary.Stop()
	require.Equal(t, "true", ask(t, standby.DSN, "SELECT pg_promote()"))
	do(t, standby.DSN, "INSERT INTO after VALUES (3)")
}
