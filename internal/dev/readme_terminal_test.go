package main

import (
	"bufio"
	"context"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// command is a command in the checkout. It, and whatever it has started, is killed when
// the test has lasted for far too long.
func (r *reader) command(name string, args ...string) *exec.Cmd {
	ctx, cancel := context.WithTimeout(context.Background(), 8*time.Minute)
	r.t.Cleanup(cancel)
	c := exec.CommandContext(ctx, name, args...)
	c.Dir, c.Env = r.dir, r.env
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	c.Cancel = func() error { return syscall.Kill(-c.Process.Pid, syscall.SIGKILL) }
	c.WaitDelay = 10 * time.Second
	return c
}

// mark ends what a block has printed.
const mark = "-- end of block --"

// A terminal is a program that reads commands and prints what comes of them.
type terminal struct {
	t   *testing.T
	in  io.Writer
	out *bufio.Reader
}

func (r *reader) open(name string, args ...string) *terminal {
	r.t.Helper()
	c := r.command(name, args...)
	in, err := c.StdinPipe()
	require.NoError(r.t, err)
	out, theirs, err := os.Pipe()
	require.NoError(r.t, err)
	c.Stdout, c.Stderr = theirs, theirs
	require.NoError(r.t, c.Start())
	require.NoError(r.t, theirs.Close())
	r.t.Cleanup(func() {
		_ = in.Close()
		_ = syscall.Kill(-c.Process.Pid, syscall.SIGKILL) // what it has left in the background
		_ = c.Wait()
		_ = out.Close()
	})
	return &terminal{r.t, in, bufio.NewReader(out)}
}

// do returns what commands print, the last of which prints the mark and an exit code,
// and whether that is 0.
func (x *terminal) do(commands string) (string, bool) {
	x.t.Helper()
	_, err := io.WriteString(x.in, commands)
	require.NoError(x.t, err)
	var text strings.Builder
	for {
		line, err := x.out.ReadString('\n')
		require.NoError(x.t, err, "it ended, or was killed since it did not end:\n%s", &text)
		if code, end := strings.CutPrefix(line, mark); end {
			return text.String(), strings.TrimSpace(code) == "0"
		}
		text.WriteString(line)
	}
}

// varying is what differs from run to run, by what stands for it in a pattern.
var varying = []struct{ shown, like string }{
	{`[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}`, `[0-9a-f-]{36}`},
	{`\d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ`, `\d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ`},
	{`\b\d+\.\d+s\b`, `[0-9.hm]+s`},
	{`--[-+]*`, `--[-+]*`}, // psql's line, as wide as the columns
	{`…`, `(?s:.*?)`},
	{`\s+`, `\s+`},
}

// pattern matches what looks like shown.
func pattern(shown string) *regexp.Regexp {
	var all []string
	for _, v := range varying {
		all = append(all, "("+v.shown+")")
	}
	var like strings.Builder
	end := 0
	shown = strings.TrimSpace(shown)
	for _, m := range regexp.MustCompile(strings.Join(all, "|")).FindAllStringSubmatchIndex(shown, -1) {
		like.WriteString(regexp.QuoteMeta(shown[end:m[0]]))
		for i, v := range varying {
			if m[2*i+2] >= 0 {
				like.WriteString(v.like)
			}
		}
		end = m[1]
	}
	return regexp.MustCompile(`^` + like.String() + regexp.QuoteMeta(shown[end:]) + `$`)
}

func TestPatternTellsWhatDiffers(t *testing.T) {
	t.Parallel()
	like := pattern("a  01a20f06-fa5e-7b09-b1f9-0c4bb1e6e7ae took 1.1s\n---+--\n 1 | b…\n(1 row)")
	require.True(t, like.MatchString("a 01a20f07-0000-7b09-b1f9-0c4bb1e6e7ae took 1m02s\n-----+-----\n   1 | bcd \n(1 row)"))
	for _, other := range []string{
		"b  01a20f06-fa5e-7b09-b1f9-0c4bb1e6e7ae took 1.1s\n---+--\n 1 | b…\n(1 row)",
		"a  01a20f06-fa5e-7b09-b1f9-0c4bb1e6e7ae took 1.1s\n---+--\n 2 | b…\n(1 row)",
		"a  01a20f06-fa5e-7b09-b1f9-0c4bb1e6e7ae took 1.1s\n---+--\n 1 | b…\n(1 row)\nmore",
		"a  some-id took 1.1s\n---+--\n 1 | b…\n(1 row)",
	} {
		require.False(t, like.MatchString(other), other)
	}
}
