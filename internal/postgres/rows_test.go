package postgres

import (
	"database/sql/driver"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// A value that has no place in an output takes no more memory than the driver has used for
// it: a row can have a gigabyte, and the watcher has other tasks.
//
//nolint:paralleltest // it counts what everybody allocates
func TestRowOutput_LargeValuesAreNotCopied(t *testing.T) {
	const large = 64 << 20
	text := strings.Repeat(`"`, large)
	for kind, value := range map[string]driver.Value{"TEXT": []byte(text), "JSONB": []byte(text), "BYTEA": []byte(text), "_TEXT": []byte("{" + text), "": text} {
		o := &rowOutput{names: []string{`"a"`}, types: []string{kind}}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		o.add([]driver.Value{value})
		runtime.ReadMemStats(&after)
		require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(large/8), kind)
		require.JSONEq(t, `{"row_count": 1, "rows": [], "truncated": true}`, string(o.json(0)))
	}
}

// What gets smaller as JSON may come with more than an output has room for.
func TestRowOutput_SpacesOfJSONDoNotCount(t *testing.T) {
	t.Parallel()
	o := &rowOutput{names: []string{`"a"`}, types: []string{"JSON"}}
	o.add([]driver.Value{[]byte(`{"x": ` + strings.Repeat(" ", 300<<10) + `1}`)})
	require.JSONEq(t, `{"row_count": 1, "rows": [{"a": {"x": 1}}]}`, string(o.json(0)))
}
