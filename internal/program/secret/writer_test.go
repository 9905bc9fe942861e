package secret

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/url"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// However it is cut into writes, a secret does not come through.
func TestWriter(t *testing.T) {
	t.Parallel()
	s := newStore(t, "FLOWER_SECRET_X="+canary)
	text := "first\n" + canary + "\nsay " + canary + "! and " + canary + "\n\nlast " + canary
	want := "first\n***\nsay ***! and ***\n\nlast ***"
	for _, size := range []int{1, 2, 3, 7, 10, 64, 1000} {
		var got bytes.Buffer
		w := s.Writer(&got)
		for rest := []byte(text); len(rest) > 0; {
			n := min(size, len(rest))
			written, err := w.Write(rest[:n])
			require.NoError(t, err)
			require.Equal(t, n, written)
			rest = rest[n:]
		}
		require.NoError(t, w.Close())
		require.Equal(t, want, got.String(), size)
		_, err := w.Write([]byte("late\n"))
		require.NoError(t, err)
		require.Equal(t, want, got.String(), "what comes after the end is dropped")
	}
}

// A line without an end takes no memory, and hides no secret where it is parted.
func TestWriter_LongLines(t *testing.T) {
	t.Parallel()
	for _, size := range []int{20, longLine} { // of the secret
		random := rand.New(rand.NewPCG(1, 2))
		value := ""
		for len(value) < size {
			value += strconv.Itoa(random.IntN(1e9))
		}
		value = value[:size]
		s := newStore(t, "FLOWER_SECRET_X="+value)
		for _, before := range []int{longLine - 10, longLine - size, longLine, 3*longLine - 8, 2*size - size/2 - 1} {
			if before < 0 {
				continue
			}
			var got bytes.Buffer
			w := s.Writer(&got)
			_, err := w.Write([]byte(strings.Repeat(".", before)))
			require.NoError(t, err)
			_, err = w.Write([]byte(value + strings.Repeat(".", 5*size) + "\n"))
			require.NoError(t, err)
			require.LessOrEqual(t, len(w.line), 2*max(longLine, 2*size))
			require.NoError(t, w.Close())
			left := strings.ReplaceAll(strings.ReplaceAll(got.String(), ".", ""), "*", "")
			require.LessOrEqual(t, len(left), 2*leastCut, "%d %d: %q", size, before, left[:min(len(left), 100)])
		}
	}
}

func TestWriter_WithoutSecrets(t *testing.T) {
	t.Parallel()
	var got bytes.Buffer
	w := newStore(t).Writer(&got)
	_, err := w.Write([]byte("no end"))
	require.NoError(t, err)
	require.Equal(t, "no end", got.String(), "at once")
	require.NoError(t, w.Close())
}

type failing struct{}

func (failing) Write([]byte) (int, error) { return 0, errors.New("full") }

func TestWriter_PassesErrorsOn(t *testing.T) {
	t.Parallel()
	w := newStore(t, "FLOWER_SECRET_X="+canary).Writer(failing{})
	_, err := w.Write([]byte("a\n"))
	require.EqualError(t, err, "full")
}

type valuer struct{ value any }

func (v valuer) LogValue() slog.Value { return slog.AnyValue(v.value) }

func TestHandler(t *testing.T) {
	t.Parallel()
	s := newStore(t, "FLOWER_SECRET_X="+canary, "FLOWER_SECRET_PIN=1234567890")
	type fact struct {
		Name string
		Of   map[string]any
	}
	for _, make := range []func(*bytes.Buffer) slog.Handler{
		func(b *bytes.Buffer) slog.Handler { return slog.NewJSONHandler(b, nil) },
		func(b *bytes.Buffer) slog.Handler { return slog.NewTextHandler(b, nil) },
	} {
		var b bytes.Buffer
		log := slog.New(s.Handler(make(&b)))
		log.With("with", canary).WithGroup("group").Info("message "+canary,
			"text", "a "+canary, "pin", 1234567890, "err", fmt.Errorf("it failed: %w", errors.New(canary)), canary, 1,
			"any", fact{canary, map[string]any{"x": canary}}, "bytes", []byte(canary), "url", &url.URL{Scheme: "http", Host: "h", RawQuery: url.QueryEscape(canary)},
			slog.Group("inner", "x", canary), "valuer", valuer{[]any{canary}}, "number", 7, "flag", true, "nothing", nil)
		line := b.String()
		require.GreaterOrEqual(t, strings.Count(line, stars), 12, line)
		for form, text := range written(canary) {
			require.NotContains(t, line, text, form)
		}
		require.NotContains(t, line, "1234567890")
		require.NotContains(t, line, "cAn4ry")
		require.Contains(t, line, "7")
		require.Contains(t, line, "it failed: ***")
	}
	require.False(t, s.Handler(slog.NewTextHandler(&bytes.Buffer{}, nil)).Enabled(context.Background(), slog.LevelDebug))
}
