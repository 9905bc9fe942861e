// Command need makes sure that this machine has what a target of the Makefile needs. On
// Debian and its like it installs what is missing, saying so, as root or with sudo;
// elsewhere it says what to install.
//
//	go run ./internal/dev/need postgres gcc
package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"

	"github.com/d-tsuji/flower/internal/chromium"
	"github.com/d-tsuji/flower/internal/pgdev"
)

func main() {
	if err := run(os.Args[1:], os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "need:", err)
		os.Exit(1)
	}
}

// A thing is what can be asked for on the command line.
type thing struct {
	is       string   // in words
	packages []string // Debian's
	missing  func() bool
	hint     string // for who must do it by hand
}

var things = map[string]thing{
	"postgres": {
		is:       "a PostgreSQL server",
		packages: []string{"postgresql"},
		missing:  func() bool { _, err := pgdev.FindBinDir(); return err != nil },
		hint:     "or set PG_BINDIR to the directory of its initdb and postgres",
	},
	"pgbouncer": {
		is:       "PgBouncer, for the tests of a pooler",
		packages: []string{"pgbouncer"},
		missing:  func() bool { _, err := pgdev.FindPooler(); return err != nil },
		hint:     "or test without",
	},
	"chromium": {
		is: "Chromium, for the tests of the pages",
		// It needs fonts: one that is fit to be shown, one for code, one for Japanese.
		packages: []string{"chromium", "fonts-inter", "fonts-dejavu-core", "fonts-ipafont-gothic"},
		missing:  func() bool { _, err := chromium.Find(); return err != nil },
		hint:     "or set " + chromium.Env + " to it, or test without",
	},
	"curl": {
		is:       "curl",
		packages: []string{"curl"},
		missing:  func() bool { _, err := exec.LookPath("curl"); return err != nil },
		hint:     "which the README's commands use",
	},
	"gcc": {
		is:       "a C compiler, for Go's race detector",
		packages: []string{"gcc", "libc6-dev"},
		missing:  func() bool { return !compiles() },
		hint:     "or set CC to one",
	},
}

// compiles reports whether the C compiler is there and finds the C library's headers.
func compiles() bool {
	cc := os.Getenv("CC")
	if cc == "" {
		cc = "gcc"
	}
	c := exec.Command(cc, "-E", "-o", os.DevNull, "-x", "c", "-")
	c.Stdin = strings.NewReader("#include <stdlib.h>\n")
	return c.Run() == nil
}

func run(names []string, out io.Writer) error {
	for _, name := range names {
		t, known := things[name]
		if !known {
			return fmt.Errorf("%q is not known here; postgres, pgbouncer, chromium, curl and gcc are", name)
		}
		if !t.missing() {
			continue
		}
		if err := install(t, out); err != nil {
			return err
		}
		if t.missing() {
			return fmt.Errorf("installed %s, and still find no %s", strings.Join(t.packages, " "), t.is)
		}
	}
	return nil
}

// script installs the packages that are its arguments. Debian's PostgreSQL package makes
// a cluster and starts it on port 5432 when it is installed, and that of PgBouncer starts
// one on 6432, now and at each boot; we want their programs alone, and a machine that is
// otherwise as it was.
const script = `set -e
export DEBIAN_FRONTEND=noninteractive
common=/etc/postgresql-common/createcluster.d
mkdir -p $common
echo 'create_main_cluster = false' >$common/flower.conf
policy=/usr/sbin/policy-rc.d made=
if [ ! -e $policy ]; then made=$policy; printf '#!/bin/sh\nexit 101\n' >$policy; chmod 755 $policy; fi
trap 'rm -f $common/flower.conf $made' EXIT
apt-get -q update || echo 'going on with the package lists that are there'
apt-get -q install -y --no-install-recommends -o DPkg::Lock::Timeout=300 "$@"
case " $* " in *" pgbouncer "*) systemctl disable pgbouncer >/dev/null 2>&1 || true;; esac`

func install(t thing, out io.Writer) error {
	packages := strings.Join(t.packages, " ")
	if _, err := exec.LookPath("apt-get"); err != nil {
		return fmt.Errorf("this needs %s: install it, %s", t.is, t.hint)
	}
	byHand := fmt.Errorf("this needs %s, and only root can install it: apt-get install %s, %s", t.is, packages, t.hint)
	command := slices.Concat([]string{"sh", "-c", script, "sh"}, t.packages)
	with := "apt-get"
	if os.Geteuid() != 0 {
		if _, err := exec.LookPath("sudo"); err != nil {
			return byHand
		}
		command, with = append([]string{"sudo"}, command...), "sudo apt-get"
	}
	fmt.Fprintf(out, "This needs %s: installing %s with %s …\n", t.is, packages, with)
	text, err := exec.Command(command[0], command[1:]...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w\n%s: %w\n%s", byHand, with, err, text)
	}
	return nil
}
