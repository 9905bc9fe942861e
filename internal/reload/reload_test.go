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

		// Swapped, as by a rename; the same size.
		other := filepath.Join(t.TempDir(), "other")
		require.NoError(t, os.WriteFile(other, []byte("TWO, longer"), 0o600))
		require.NoError(t, os.Rename(other, path))
		f.Reload()
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
