package program_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/program"
)

func TestJSON_NamesEveryProgramAndParameter(t *testing.T) {
	t.Parallel()
	set := program.Default(program.Config{})
	var list struct {
		Items []struct {
			Name       string
			Parameters []program.Parameter
		}
	}
	require.NoError(t, json.Unmarshal(set.JSON(), &list))
	require.Len(t, list.Items, len(set))
	for i, name := range set.Names() {
		require.Equal(t, name, list.Items[i].Name)
		require.NotNil(t, list.Items[i].Parameters)
		require.Equal(t, append([]program.Parameter{}, set[name].Parameters()...), list.Items[i].Parameters)
	}
}

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
