package reload

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// text is a file's, of which "broken" makes no sense.
func text(path string) func() (string, error) {
	return func() (string, error) {
		b, err := os.ReadFile(path)
		if err == nil && string(b) == "broken" {
			err = errors.New("this makes no sense")
		}
		return string(b), err
	}
}

func TestFiles_ReadsAgainWhatHasChanged(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "file")
		require.NoError(t, os.WriteFile(path, []byte("one"), 0o600))
		var log bytes.Buffer
		f, err := Open([]string{path}, text(path), slog.New(slog.NewTextHandler(&log, nil)))
		require.NoError(t, err)
		require.Equal(t, "one", f.Get())

		require.NoError(t, os.WriteFile(path, []byte("two, longer"), 0o600))
		require.Equal(t, "one", f.Get(), "nobody looks more often than once a second")
		time.Sleep(pause)
		require.Equal(t, "two, longer", f.Get())

		// Swapped, as by a rename; of the same size, and written at the same time.
		other := filepath.Join(t.TempDir(), "other")
		require.NoError(t, os.WriteFile(other, []byte("TWO, longer"), 0o600))
		info, err := os.Stat(path)
		require.NoError(t, err)
		require.NoError(t, os.Chtimes(other, info.ModTime(), info.ModTime()))
		require.NoError(t, os.Rename(other, path))
		time.Sleep(pause)
		require.Equal(t, "TWO, longer", f.Get())
	})
}

func TestFiles_KeepsWhatWorks(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "file")
		require.NoError(t, os.WriteFile(path, []byte("good"), 0o600))
		var log bytes.Buffer
		f, err := Open([]string{path}, text(path), slog.New(slog.NewTextHandler(&log, nil)))
		require.NoError(t, err)

		for _, damage := range []func() error{
			func() error { return os.WriteFile(path, []byte("broken"), 0o600) },
			func() error { return os.Remove(path) },
		} {
			log.Reset()
			require.NoError(t, damage())
			for range 5 {
				time.Sleep(pause)
				require.Equal(t, "good", f.Get())
			}
			require.Equal(t, 1, strings.Count(log.String(), "level=ERROR"), "said once: %s", log.String())
		}
		require.NoError(t, os.WriteFile(path, []byte("mended"), 0o600))
		time.Sleep(pause)
		require.Equal(t, "mended", f.Get())
	})
}

func TestOpen_WantsFilesThatWork(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "none")
	_, err := Open([]string{path}, text(path), slog.New(slog.DiscardHandler))
	require.ErrorIs(t, err, os.ErrNotExist)
}

// What has not changed is not read again, unless somebody wants it to be.
func TestFiles_ReadsNothingElse(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "file")
		require.NoError(t, os.WriteFile(path, []byte("one"), 0o600))
		var log bytes.Buffer
		reads := 0
		f, err := Open([]string{path}, func() (int, error) { reads++; return reads, nil }, slog.New(slog.NewTextHandler(&log, nil)))
		require.NoError(t, err)
		pass := func(want int) {
			t.Helper()
			for range 5 {
				time.Sleep(pause)
				require.Equal(t, want, f.Get())
			}
			require.Equal(t, want-1, strings.Count(log.String(), `msg="read again"`), log.String())
		}
		pass(1)
		require.NoError(t, os.WriteFile(path, []byte("two, longer"), 0o600))
		pass(2)
		f.Reload()
		pass(3)
		require.NoError(t, os.WriteFile(path, []byte("3"), 0o600))
		time.Sleep(pause / 2)
		require.Equal(t, 3, f.Get(), "somebody has looked a moment ago")
		pass(4)
	})
}

// One of several files is enough, and whether the others are there does not matter.
func TestFiles_LooksAtEach(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		paths := []string{filepath.Join(dir, "none"), filepath.Join(dir, "some")}
		reads := 0
		f, err := Open(paths, func() (int, error) { reads++; return reads, nil }, slog.New(slog.DiscardHandler))
		require.NoError(t, err)
		for i, path := range []string{paths[1], paths[0], paths[1]} {
			require.NoError(t, os.WriteFile(path, bytes.Repeat([]byte("x"), i), 0o600))
			time.Sleep(pause)
			require.Equal(t, i+2, f.Get(), path)
		}
	})
}

// What was wrong may be mended elsewhere than in the file.
func TestFiles_TriesAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "file")
		require.NoError(t, os.WriteFile(path, []byte("one"), 0o600))
		var log bytes.Buffer
		value, wrong := 1, error(nil)
		f, err := Open([]string{path}, func() (int, error) { return value, wrong }, slog.New(slog.NewTextHandler(&log, nil)))
		require.NoError(t, err)
		value, wrong = 2, errors.New("permission denied")
		f.Reload()
		for range 5 {
			time.Sleep(pause)
			require.Equal(t, 1, f.Get())
		}
		wrong = errors.New("it is too large")
		time.Sleep(pause)
		require.Equal(t, 1, f.Get())
		for _, text := range []string{"permission denied", "it is too large"} {
			require.Equal(t, 1, strings.Count(log.String(), text), log.String())
		}
		wrong = nil
		time.Sleep(pause)
		require.Equal(t, 2, f.Get())
	})
}
