package e2e

import (
	"flag"
	"fmt"
	"os"
	"testing"

	"github.com/d-tsuji/flower/internal/commandtest"
	"github.com/d-tsuji/flower/internal/pgdev/pgtest"
)

// bin has register and watcher.
var bin string

func TestMain(m *testing.M) {
	// A browser keeps more than one core busy. The command line, which is read later,
	// counts more.
	_ = flag.Set("test.parallel", "2")
	os.Exit(pgtest.Run(withPrograms{m}))
}

// withPrograms runs tests that need the programs and a browser.
type withPrograms struct{ m *testing.M }

func (w withPrograms) Run() int {
	var err error
	if bin, err = os.MkdirTemp("", "flower-web-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = os.RemoveAll(bin) }()
	if err := commandtest.Build(bin); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer stopBrowser()
	return w.m.Run()
}
