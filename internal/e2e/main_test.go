// Package e2e tests the two programs as their users meet them: as processes, by HTTP, by
// SQL and by signals, on a real PostgreSQL. It holds them to what the original promised,
// point by point, and to each of the faults that the original had.
package e2e

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"

	"github.com/d-tsuji/flower/internal/commandtest"
	"github.com/d-tsuji/flower/internal/pgdev/pgtest"
)

// bin has register, watcher, and printer: a watcher whose tasks print.
var bin string

func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == "printer" {
		os.Exit(printer())
	}
	// Most of the time these tests wait for processes. The command line, which is read
	// later, counts more.
	_ = flag.Set("test.parallel", "12")
	goleak.VerifyTestMain(withPrograms{m})
}

// withPrograms runs tests that need the programs and databases.
type withPrograms struct{ m *testing.M }

func (w withPrograms) Run() int {
	var err error
	if bin, err = os.MkdirTemp("", "flower-e2e-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = os.RemoveAll(bin) }()
	if err := commandtest.Build(bin); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	self, err := os.Executable()
	if err == nil {
		err = os.Symlink(self, filepath.Join(bin, "printer"))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return pgtest.Run(w.m)
}
