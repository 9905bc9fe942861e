package program_test

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/program"
)

func words(text string) string { return strings.Join(strings.Fields(text), " ") }

func TestList_NamesEveryProgramAndParameter(t *testing.T) {
	t.Parallel()
	var text strings.Builder
	set := program.Default(program.Config{})
	require.NoError(t, set.List(&text))
	for name, p := range set {
		require.Regexp(t, `(?m)^`+name+`( \(off: .+\))?$`, text.String())
		for _, parameter := range p.Parameters() {
			require.Contains(t, text.String(), "\n  "+parameter.Name+" ("+string(parameter.Type))
			require.Contains(t, words(text.String()), words(parameter.Description))
		}
	}
	require.Contains(t, text.String(), "\nSQL (off: the watcher needs -sql-connections)\n")
	require.Contains(t, text.String(), "\n  SLEEP_TIME_SECOND (number, required)\n      How long to sleep. A number of seconds from 0 to 86400.\n")
	require.Contains(t, text.String(), "\n  method (string, default \"GET\", fixed)\n      How to ask. One of GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS.\n")
	for line := range strings.Lines(text.String()) {
		require.LessOrEqual(t, utf8.RuneCountInString(line), 101, line)
	}
}
