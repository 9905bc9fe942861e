//go:build unix

package pgdev_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/pgdev"
	"github.com/d-tsuji/flower/internal/pgdev/pgtest"
)

func TestStart_CancelledBefore(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	dir := openDir(t)
	_, err := pgdev.Start(ctx, pgdev.Options{DataDir: filepath.Join(dir, "data")})
	require.ErrorIs(t, err, context.Canceled)
	require.Empty(t, list(t, dir))
}

// A start that is cancelled while initdb works leaves nothing, and the next one is not
// disturbed.
func TestStart_CancelledInInitdb(t *testing.T) {
	t.Parallel()
	dir := openDir(t)
	o := pgdev.Options{DataDir: filepath.Join(dir, "data")}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	failed := make(chan error)
	go func() {
		s, err := pgdev.Start(ctx, o)
		if s != nil {
			s.Stop()
		}
		failed <- err
	}()
	pgtest.Eventually(t, within, "initdb is at work", func() bool { return len(list(t, o.DataDir+".new")) > 3 })
	cancel()
	require.ErrorIs(t, <-failed, context.Canceled)
	require.Empty(t, list(t, dir))

	start(t, o)
}

// fakeServer makes a directory with an initdb that says something, and a postgres that
// makes a file and never answers.
func fakeServer(t *testing.T) (bin, started string) {
	t.Helper()
	bin = openDirIn(t, disk)
	started = filepath.Join(openDir(t), "started")
	require.NoError(t, os.Chmod(filepath.Dir(started), 0o777))
	script(t, filepath.Join(bin, "initdb"), `echo "looking for my glasses"; touch "$2/PG_VERSION"`)
	// Not a script to the end: it could not hear a signal that the shell above it ignores.
	copyTestBinary(t, filepath.Join(bin, "fake"))
	script(t, filepath.Join(bin, "postgres"),
		envHelper+`=mute `+noWait+` exec "`+filepath.Join(bin, "fake")+`" "`+started+`"`)
	return bin, started
}

func TestStart_CancelledWhileWaiting(t *testing.T) {
	t.Parallel()
	bin, started := fakeServer(t)
	ctx, cancel := context.WithCancel(t.Context())
	failed := make(chan error)
	go func() {
		_, err := pgdev.Start(ctx, pgdev.Options{BinDir: bin})
		failed <- err
	}()
	pgtest.Eventually(t, within, "the server has started", func() bool { return exists(started) })
	cancel()
	require.ErrorIs(t, <-failed, context.Canceled)
}

func TestStart_WaitsNoLongerThanAsked(t *testing.T) {
	t.Parallel()
	bin, _ := fakeServer(t)
	_, err := pgdev.Start(t.Context(), pgdev.Options{BinDir: bin, Wait: 100 * time.Millisecond})
	require.ErrorContains(t, err, "no answer within 100ms")
	require.ErrorContains(t, err, "looking for my glasses", "the log's end")
}
