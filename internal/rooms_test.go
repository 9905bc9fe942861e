// Package internal_test keeps the arrows between the rooms of this repository.
package internal_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const module = "github.com/d-tsuji/flower/"

// rooms has every package and what it may import of ours. Arrows go one way: the rooms
// know internal/flow and declare what else they need as a small interface, and cmd
// passes what has it. Tests may import more, except what no test needs: a main.
//
// A broken arrow is mended by moving code; a new room gets a line here, in .golangci.yml
// if it is one of the rooms that know flow alone, and in the pictures of README and CONTRIBUTING.
var rooms = map[string][]string{
	"cmd/register": {"internal/access", "internal/api", "internal/cli", "internal/client", "internal/definition", "internal/flow", "internal/metrics", "internal/postgres", "internal/program", "internal/register", "internal/web"},
	"cmd/watcher":  {"internal/cli", "internal/metrics", "internal/postgres", "internal/process", "internal/program", "internal/program/secret", "internal/watcher"},

	"internal/access":             {"internal/reload"},
	"internal/api":                {"internal/access", "internal/definition", "internal/flow", "internal/problem", "internal/request"},
	"internal/cli":                {"internal/flow", "internal/postgres"}, // what both mains share: flags, environment, logger
	"internal/client":             {"internal/cli"},
	"internal/definition":         {"internal/flow"},
	"internal/flow":               {},
	"internal/metrics":            {"internal/flow"},
	"internal/postgres":           {"internal/flow", "internal/postgres/pqguard", "migrations"},
	"internal/postgres/pqguard":   {},
	"internal/problem":            {"internal/access", "internal/flow"}, // what HTTP answers on failure
	"internal/process":            {},
	"internal/program":            {"internal/flow", "internal/process", "internal/program/expression", "internal/program/secret"},
	"internal/program/expression": {},
	"internal/program/secret":     {"internal/flow"},
	"internal/register":           {"internal/access", "internal/flow", "internal/problem", "internal/reload", "internal/request"},
	"internal/reload":             {},                                                       // what is read again when its files change
	"internal/request":            {"internal/access", "internal/flow", "internal/problem"}, // what comes in by HTTP
	"internal/watcher":            {"internal/flow"},
	"internal/web":                {"internal/access", "internal/definition", "internal/flow", "internal/problem", "internal/request"},
	"migrations":                  {},

	// For tests, measurements and local runs only.
	"internal/bench":        {"internal/cli", "internal/flow", "internal/pgdev", "internal/postgres", "internal/register", "internal/watcher", "migrations"},
	"internal/chromium":     {},
	"internal/commandtest":  {"internal/pgdev/pgtest"},
	"internal/dev":          {"internal/pgdev"},
	"internal/dev/need":     {"internal/chromium", "internal/pgdev"},
	"internal/enginetest":   {},
	"internal/pgdev":        {},
	"internal/pgdev/pgtest": {"internal/pgdev", "migrations"},
	"internal/pgdev/with":   {"internal/pgdev", "internal/pgdev/pgtest"},
}

func TestArrowsBetweenRooms(t *testing.T) {
	t.Parallel()
	for room, imports := range imports(t) {
		allowed, known := rooms[room]
		if !known {
			t.Errorf("%s is a room that this test does not know: give it a line, with what it may import", room)
			continue
		}
		for _, path := range imports {
			imported, ours := strings.CutPrefix(path, module)
			if ours && !slices.Contains(allowed, imported) {
				t.Errorf("%s imports %s, and may import of ours: %s", room, imported, strings.Join(allowed, ", "))
			}
		}
	}
}

// imports returns what each room imports, its tests not counted. It reads the files of
// all systems, and itself, so that go test knows when its answer is out of date.
func imports(t *testing.T) map[string][]string {
	t.Helper()
	found := map[string][]string{}
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && path != ".." && (d.Name()[0] == '.' || d.Name() == "bin" || d.Name() == "testdata" || isModule(path)):
			return filepath.SkipDir
		case d.IsDir() || filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go"):
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		room := filepath.ToSlash(filepath.Dir(path))[len("../"):]
		paths := found[room]
		for _, spec := range file.Imports {
			paths = append(paths, strings.Trim(spec.Path.Value, `"`))
		}
		found[room] = paths
		return nil
	})
	require.NoError(t, err)
	require.NotEmpty(t, found)
	return found
}

// isModule reports whether a folder is a module of its own, which is not ours to keep.
func isModule(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, "go.mod"))
	return err == nil
}

// The pure room stays pure, also by way of what it imports.
func TestFlowIsPure(t *testing.T) {
	t.Parallel()
	for _, p := range dependencies(t, "./internal/flow") {
		switch p.ImportPath {
		case "database/sql", "net", "os/exec", "log/slog", "math/rand", "math/rand/v2", "crypto/rand":
			t.Errorf("internal/flow imports %s, itself or through another package: it must be pure", p.ImportPath)
		}
	}
}

// What is linked into the two programs is a decision, not an accident: a new module
// gets a line here, and the commit says what it saves and what was looked at.
var modules = []string{
	"code.dny.dev/ssrf",
	"github.com/KimMachineGun/automemlimit",
	"github.com/beorn7/perks",
	"github.com/cespare/xxhash/v2",
	"github.com/containerd/errdefs",
	"github.com/containerd/errdefs/pkg",
	"github.com/danielgtaylor/huma/v2",
	"github.com/distribution/reference",
	"github.com/docker/go-connections",
	"github.com/docker/go-units",
	"github.com/expr-lang/expr",
	"github.com/felixge/httpsnoop",
	"github.com/go-logr/logr",
	"github.com/go-logr/stdr",
	"github.com/google/uuid",
	"github.com/gorilla/mux",
	"github.com/jmoiron/sqlx",
	"github.com/lib/pq",
	"github.com/lmittmann/tint",
	"github.com/mfridman/interpolate",
	"github.com/moby/docker-image-spec",
	"github.com/moby/moby/api",
	"github.com/moby/moby/client",
	"github.com/munnerz/goautoneg",
	"github.com/opencontainers/go-digest",
	"github.com/opencontainers/image-spec",
	"github.com/pbnjay/memory",
	"github.com/pressly/goose/v3",
	"github.com/prometheus/client_golang",
	"github.com/prometheus/client_model",
	"github.com/prometheus/common",
	"github.com/prometheus/procfs",
	"github.com/sethvargo/go-retry",
	"go.opentelemetry.io/auto/sdk",
	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp",
	"go.opentelemetry.io/otel",
	"go.opentelemetry.io/otel/log",
	"go.opentelemetry.io/otel/metric",
	"go.opentelemetry.io/otel/trace",
	"go.uber.org/multierr",
	"go.yaml.in/yaml/v3",
	"golang.org/x/sync",
	"golang.org/x/sys",
	"google.golang.org/protobuf",
}

func TestModulesOfThePrograms(t *testing.T) {
	t.Parallel()
	linked := map[string]bool{}
	for _, p := range dependencies(t, "./cmd/...") {
		if p.Module != nil && !p.Module.Main {
			linked[p.Module.Path] = true
		}
	}
	for path := range linked {
		if !slices.Contains(modules, path) {
			t.Errorf("module %s is linked into the programs and not in the list", path)
		}
	}
	for _, path := range modules {
		if !linked[path] {
			t.Errorf("module %s is in the list and not linked into the programs", path)
		}
	}
}

type goPackage struct {
	ImportPath string
	Module     *struct {
		Path string
		Main bool
	}
}

// dependencies returns the packages that are linked into those of a pattern.
func dependencies(t *testing.T, pattern string) []goPackage {
	t.Helper()
	c := exec.CommandContext(t.Context(), "go", "list", "-deps", "-json=ImportPath,Module", pattern)
	c.Dir = ".."
	text, err := c.Output()
	if failed, ok := errors.AsType[*exec.ExitError](err); ok {
		t.Logf("%s", failed.Stderr)
	}
	require.NoError(t, err)

	var packages []goPackage
	for in := json.NewDecoder(bytes.NewReader(text)); ; {
		var p goPackage
		if err := in.Decode(&p); errors.Is(err, io.EOF) {
			return packages
		} else if err != nil {
			t.Fatal(err)
		}
		packages = append(packages, p)
	}
}
