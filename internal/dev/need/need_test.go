package main

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestWhatIsThereIsNotInstalled(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	require.NoError(t, run([]string{"postgres"}, &out)) // the other tests need it, too
	require.Empty(t, out.String())
}

func TestUnknownNeed(t *testing.T) {
	t.Parallel()
	require.ErrorContains(t, run([]string{"perl"}, nil), `"perl" is not known here`)
}

// Without apt-get we say what is needed, and how to go on without installing it.
func TestNoPackageManager(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	t.Setenv("PG_BINDIR", t.TempDir())
	require.EqualError(t, run([]string{"postgres"}, nil),
		"this needs a PostgreSQL server: install it, or set PG_BINDIR to the directory of its initdb and postgres")
}
