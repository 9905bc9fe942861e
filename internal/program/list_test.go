package program_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/program"
)

func TestList_NamesEveryProgramAndParameter(t *testing.T) {
	t.Parallel()
	var text strings.Builder
	set := program.Default(program.Config{})
	require.NoError(t, set.List(&text))
	for name, p := range set {
		require.Regexp(t, `(?m)^`+name+`( \(off: .+\))?$`, text.String())
		for _, parameter := range p.Parameters() {
			require.Contains(t, text.String(), "  "+parameter.Name+" ")
			require.Contains(t, text.String(), parameter.Description)
		}
	}
	require.Contains(t, text.String(), "\nSQL (off: the watcher needs -sql-connections)\n")
	require.Regexp(t, `(?m)^  SLEEP_TIME_SECOND +number +required +\S`, text.String())
}
