package main

import (
	"cmp"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/commandtest"
	"github.com/d-tsuji/flower/internal/pgdev/pgtest"
)

// top is the checkout.
const top = "../.."

// notRun are the commands of the pages that cannot be run here, by page. It says why, in
// a comment before each; a new block without such a comment is run.
var notRun = map[string][]string{
	"README.md": {
		"git clone https://github.com/d-tsuji/flower && cd flower",
		"make demo",
		"docker-compose up --build",
		"make test",
	},
	"internal/program/README.md": {
		"curl -X POST \"$FLOWER_CALLBACK\" -d '{\"rows\": 7}'",
		"DATABASE_URL=$(cat .flower/database-url) bin/watcher -allow-container -container-mount /srv/in,/srv/out:rw",
	},
}

// TestReadme does what each page says, in a copy of the checkout, and requires what it
// shows. A sh block goes to a shell, a sql block to psql, a go block into the file that
// its first line names. A text block is what the block before it prints. Each page has a
// make run of its own, since people begin with the one that they need: README.md starts
// it, the others say that it must run.
func TestReadme(t *testing.T) {
	t.Parallel()
	skipped := map[string][]string{}
	for _, page := range pages(t) {
		all := blocks(t, page, readTop(t, page))
		for _, b := range all {
			if b.notRun {
				skipped[page] = append(skipped[page], b.code)
			}
		}
		all = slices.DeleteFunc(all, func(b block) bool { return b.notRun })
		if len(all) > 0 {
			t.Run(page, func(t *testing.T) {
				t.Parallel()
				followPage(t, page, all)
			})
		}
	}
	require.Equal(t, notRun, skipped)
}

func followPage(t *testing.T, page string, all []block) {
	t.Helper()
	r := newReader(t, page)
	if page != "README.md" {
		require.Regexp(t, "\\[`make run`\\]\\([./]+/README.md#start\\)(?s:.*)`make psql`", readTop(t, page), "%s does not say what must run", page)
		all = slices.Concat([]block{{page: page, code: "make run"}, {page: page, code: "make psql"}}, all)
	}
	for _, b := range all {
		r.follow(b)
	}
	r.seen, _ = r.psql.do("SELECT 'broken: ' || count(*) FROM v_invariant;\n\\echo " + mark + " 0\n")
	require.Contains(t, r.seen, "broken: 0\n")
	r.interrupt()
}

// block is a fenced part of a page.
type block struct {
	page   string
	line   int
	lang   string
	code   string
	shows  string // what it prints; empty: the page does not say
	notRun bool
}

// A block that only looks at something may be run again, until what it shows has come.
// Flower's functions change something.
var looks, changes = regexp.MustCompile(`^(SELECT [^;\\]*;$|grep |curl -s "[^"]*"$)`), regexp.MustCompile(`\bflower_`)

func (b block) String() string { return fmt.Sprintf("%s:%d", b.page, b.line) }

func (b block) looks() bool { return looks.MatchString(b.code) && !changes.MatchString(b.code) }

func blocks(t *testing.T, page, text string) (all []block) {
	t.Helper()
	var open *block
	var before string // the last line that is not empty
	for i, line := range strings.Split(text, "\n") {
		lang, fence := strings.CutPrefix(line, "```")
		switch {
		case open == nil && fence:
			open = &block{page: page, line: i + 1, lang: lang, notRun: strings.HasPrefix(before, "<!-- not run: ")}
		case open == nil:
			before = cmp.Or(strings.TrimSpace(line), before)
		case !fence:
			open.code += line + "\n"
		default:
			switch open.code = strings.TrimSuffix(open.code, "\n"); open.lang {
			case "": // a picture
			case "sh", "sql", "go":
				all = append(all, *open)
			case "text":
				require.NotEmpty(t, all, open)
				all[len(all)-1].shows = open.code
			default:
				t.Fatalf("%s: what is to be done with a block of %s?", open, open.lang)
			}
			open, before = nil, "```"
		}
	}
	return all
}

// A reader follows a page.
type reader struct {
	t         *testing.T
	page      string
	dir       string // the checkout
	env       []string
	port      int
	second    int       // where a page starts another register
	run       *exec.Cmd // make run
	ended     chan struct{}
	out       *buffer // of make run
	sh, psql  *terminal
	lookingAt block
	seen      string // what the last command has printed
}

func newReader(t *testing.T, page string) *reader {
	t.Helper()
	for _, name := range []string{"make", "psql", "curl"} {
		_, err := exec.LookPath(name)
		require.NoError(t, err, "the pages need it")
	}
	r := &reader{t: t, page: page, dir: checkout(t), env: newcomersEnviron(), port: commandtest.FreePort(t), second: commandtest.FreePort(t), out: &buffer{}, ended: make(chan struct{})}
	for _, name := range []string{"cmd", "internal", "migrations"} {
		require.NoError(t, os.CopyFS(filepath.Join(r.dir, name), os.DirFS(filepath.Join(top, name))))
	}
	for _, name := range []string{"Makefile", "go.mod", "go.sum"} {
		require.NoError(t, os.WriteFile(filepath.Join(r.dir, name), []byte(readTop(t, name)), 0o644))
	}
	// On a terminal curl shows no progress.
	home := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(home, ".curlrc"), []byte("silent\nshow-error\n"), 0o644))
	r.env = append(r.env, "CURL_HOME="+home)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("%s:\n%s\nprinted:\n%s\nmake run printed:\n%s", r.lookingAt, r.lookingAt.code, r.seen, r.out)
		}
	})
	r.sh = r.open("sh")
	return r
}

// newcomersEnviron is our environment without what may have been set for make, Flower or
// psql.
func newcomersEnviron() []string {
	env := slices.DeleteFunc(os.Environ(), func(s string) bool {
		for _, prefix := range []string{"MAKE", "MFLAGS", "PORT=", "DATABASE_URL=", "DB_", "FLOWER_", "PG", "PSQL", "WORKER_", "POLLING_"} {
			if strings.HasPrefix(s, prefix) && !strings.HasPrefix(s, "PG_BINDIR=") {
				return true
			}
		}
		return false
	})
	return append(env, "PSQLRC=/dev/null", "LC_ALL=C.UTF-8")
}

func (r *reader) follow(b block) {
	r.t.Helper()
	here := strings.NewReplacer("localhost:8000", fmt.Sprintf("localhost:%d", r.port),
		"localhost:8001", fmt.Sprintf("localhost:%d", r.second), "-webport 8001", fmt.Sprintf("-webport %d", r.second))
	b.code, b.shows = here.Replace(b.code), here.Replace(b.shows)
	r.lookingAt, r.seen = b, ""
	switch {
	case b.code == "make run":
		r.makeRun()
	case b.code == "make psql":
		r.psql = r.open("make", "psql")
	case b.lang == "go":
		r.write(b)
	case b.lang == "sql":
		require.NotNil(r.t, r.psql, "%s: psql was not opened", b)
		r.do(r.psql, b, b.code+"\n\\echo "+mark+" 0\n")
	default:
		file := filepath.Join(r.t.TempDir(), "block")
		require.NoError(r.t, os.WriteFile(file, []byte(b.code+"\n"), 0o644))
		r.do(r.sh, b, fmt.Sprintf(". %s </dev/null; code=$?; echo; echo %s $code\n", file, mark))
	}
}

// do gives a block to a terminal and requires what the page shows.
func (r *reader) do(x *terminal, b block, commands string) {
	r.t.Helper()
	var ok bool
	if b.shows == "" {
		r.seen, ok = x.do(commands)
		require.True(r.t, ok && !strings.Contains(r.seen, "ERROR"), "%s fails", b)
		return
	}
	want := pattern(b.shows)
	met := func() bool {
		r.seen, ok = x.do(commands)
		return ok && want.MatchString(strings.TrimSpace(r.seen))
	}
	if b.looks() {
		pgtest.Eventually(r.t, time.Minute, fmt.Sprintf("what %s shows", b), met)
		return
	}
	require.True(r.t, met(), "%s prints something else than it shows:\n%s", b, b.shows)
}

// write makes the file that a go block is, and the edit that goes with it.
func (r *reader) write(b block) {
	r.t.Helper()
	first, _, _ := strings.Cut(b.code, "\n")
	file, named := strings.CutPrefix(first, "// ")
	require.True(r.t, named, "%s names no file", b)
	require.NoError(r.t, os.WriteFile(filepath.Join(r.dir, file), []byte(b.code+"\n"), 0o644))

	edit := regexp.MustCompile("Add the line `([^`]+)` to `Default` in `([^`]+)`").FindStringSubmatch(readTop(r.t, r.page))
	require.NotNil(r.t, edit)
	registry := filepath.Join(r.dir, edit[2])
	text, err := os.ReadFile(registry)
	require.NoError(r.t, err)
	edited := strings.Replace(string(text), "return Set{\n", "return Set{\n"+edit[1]+"\n", 1)
	require.NotEqual(r.t, string(text), edited, "Default looks otherwise")
	require.NoError(r.t, os.WriteFile(registry, []byte(edited), 0o644))
}

// makeRun starts make run and waits until it says what to try.
func (r *reader) makeRun() {
	r.t.Helper()
	r.run = r.command("make", "run", "PORT="+strconv.Itoa(r.port))
	r.run.Stdout, r.run.Stderr = r.out, r.out
	require.NoError(r.t, r.run.Start())
	go func() {
		defer close(r.ended)
		_ = r.run.Wait() // ProcessState says more
	}()
	r.t.Cleanup(r.ctrlC)
	pgtest.Eventually(r.t, 5*time.Minute, "make run says what to try", func() bool {
		select {
		case <-r.ended:
			r.t.Fatal("make run ended")
		default:
		}
		return strings.Contains(r.out.String(), "Flower runs on ")
	})
	require.Regexp(r.t, `(?m)^sample .* FINISHED  3 of 3 finished `, r.out.String())
}

// ctrlC is what the terminal of make run does then. It waits for the end.
func (r *reader) ctrlC() {
	select {
	case <-r.ended:
	default:
		_ = syscall.Kill(-r.run.Process.Pid, syscall.SIGINT)
		<-r.ended
	}
}

// interrupt requires that Ctrl-C stops make run, and what it has started.
func (r *reader) interrupt() {
	r.t.Helper()
	r.ctrlC()
	require.Contains(r.t, r.out.String(), "Stopping watcher, register and the database")
	require.NotContains(r.t, r.out.String(), "cannot go on")
	require.NotContains(r.t, r.out.String(), "make: ***")
	require.NoFileExists(r.t, filepath.Join(r.dir, urlFile))
}

func readTop(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(top, name))
	require.NoError(t, err)
	return string(text)
}
