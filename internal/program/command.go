package program

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/d-tsuji/flower/internal/flow"
	"github.com/d-tsuji/flower/internal/process"
	"github.com/d-tsuji/flower/internal/program/expression"
)

// CommandConfig says whether commands may be run, and which.
type CommandConfig struct {
	Allow  bool
	Shell  bool     // also a shell, on what a definition says
	Dirs   []string // where program files lie, absolute; a name is looked for in that order
	Limits process.Limits
}

// DefaultCommandDirs is where program files lie unless somebody says otherwise.
const DefaultCommandDirs = "/usr/local/bin,/usr/bin,/bin"

// Validate checks the settings.
func (c CommandConfig) Validate() error {
	for _, dir := range c.Dirs {
		if !filepath.IsAbs(dir) {
			return fmt.Errorf("%q: a directory of commands must begin with a slash", dir)
		}
	}
	return nil
}

// Writable returns the directories that whoever runs commands could change.
func (c CommandConfig) Writable() []string {
	return slices.DeleteFunc(slices.Clone(c.Dirs), func(dir string) bool { return !process.CanWrite(dir) })
}

// Missing returns the directories that are not there, in which no program file can lie.
func (c CommandConfig) Missing() []string {
	return slices.DeleteFunc(slices.Clone(c.Dirs), func(dir string) bool {
		info, err := os.Stat(dir)
		return err == nil && info.IsDir()
	})
}

const (
	// termGrace is between SIGTERM and SIGKILL: a watcher that stops gives programs 2 s
	// once it has cancelled them, and must then record what came of it.
	termGrace = 1500 * time.Millisecond

	maxStdout   = 4 << 10 // bytes of the end of its output that are kept
	maxStderr   = 2 << 10 // bytes of the end of what it complained about
	paramPrefix = "FLOWER_PARAM_"
)

// command runs a program file with arguments. What a request says reaches it as data
// alone, by environment and standard input: never as arguments, and never through a shell.
type command struct{ cfg CommandConfig }

func (c command) OffWithout() string {
	if c.cfg.Allow {
		return ""
	}
	return "-allow-command"
}

func (command) Parameters() []Parameter {
	return []Parameter{
		{
			Name: "argv", Type: Strings, Required: true, Fixed: true,
			Description: "What to run: a program file and its arguments. The file lies in one of the watcher's -command-dirs; " +
				"a name without a slash is looked for there.",
		},
		{
			Name: "env", Type: Map, Fixed: true,
			Description: "Variables of its environment, beside PATH, HOME, TMPDIR, LANG and FLOWER_….",
		},
		{
			Name: "dir", Type: String, Fixed: true,
			Description: "Where it runs, an absolute path. By default an empty directory of its own, which is removed afterwards.",
		},
		{
			Name:        "stdin",
			Type:        Any,
			Description: "What it can read: a string as it is, any other value as JSON.",
		},
		{
			Name: "shell", Type: Boolean, Fixed: true, Default: json.RawMessage(`false`),
			Description: "The first of argv is the text of a script for /bin/sh, the others are its $1, $2 and so on. " +
				"The watcher must allow it, by -command-shell.",
		},
	}
}

var (
	variableName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
	shellName    = regexp.MustCompile(`^(ba|da|z|k|mk|c|tc|fi|a)?sh$`)
	shellOption  = regexp.MustCompile(`^-[a-z]*c[a-z]*$`)
)

// Check has the rules that hold on every watcher.
func (command) Check(v Values) error {
	argv, env, dir := v.Strings("argv"), v.Map("env"), v.String("dir")
	for _, text := range argv {
		if strings.Contains(text, "\x00") {
			return invalid("argv", "U+0000 cannot be in an argument")
		}
	}
	const decides = "its first item decides what is run: it cannot hold an expression (other items can, and env)"
	switch {
	case v.Open("argv"):
		return invalid("argv", decides)
	case len(argv) == 0 || argv[0] == "":
		return invalid("argv", "its first item is missing: a program file")
	case strings.Contains(argv[0], expression.Begin):
		return invalid("argv", decides)
	case v.Bool("shell"):
	case shellName.MatchString(filepath.Base(argv[0])) && slices.ContainsFunc(argv[1:], shellOption.MatchString):
		return invalid("argv", "it gives a shell a text to run: set shell to true, and let the text be the first item")
	case strings.Contains(argv[0], "/") && !filepath.IsAbs(argv[0]):
		return invalid("argv", quote(argv[0])+" must begin with a slash, or have none")
	}
	for _, name := range slices.Sorted(maps.Keys(env)) {
		switch {
		case !variableName.MatchString(name):
			return invalid("env", quote(name)+" is not the name of a variable")
		case strings.HasPrefix(name, "FLOWER_"):
			return invalid("env", quote(name)+": names that begin with FLOWER_ are Flower's")
		case strings.Contains(env[name], "\x00"):
			return invalid("env", quote(name)+": U+0000 cannot be in a variable")
		}
	}
	if dir != "" && !filepath.IsAbs(dir) || strings.Contains(dir, "\x00") {
		return invalid("dir", quote(dir)+" must begin with a slash")
	}
	return nil
}

func (c command) Run(ctx context.Context, in Input) (json.RawMessage, error) {
	path, args, err := c.file(in.Params.Strings("argv"), in.Params.Bool("shell"))
	if err != nil {
		return nil, err
	}
	var stdout, stderr tail
	stdout.max, stderr.max = maxStdout, maxStderr
	last := lastLine{max: flow.MaxOutput}
	exit, err := process.Run(ctx, process.Command{
		Path: path, Args: args, Env: c.environ(in),
		Dir:     in.Params.String("dir"),
		Stdin:   string(textOf(in.Params.JSON("stdin"))),
		Scratch: os.TempDir(),
		Limits:  c.cfg.Limits, Grace: termGrace,
		Stdout: io.MultiWriter(in.Stdout, &stdout, &last),
		Stderr: io.MultiWriter(in.Stderr, &stderr),
	})
	if err != nil {
		return nil, err
	}
	if exit != (process.Exit{}) {
		return nil, exitError(exit, stderr.marked(), stdout.marked())
	}
	return commandOutput(stdout.text(), &last)
}

// file finds what to run.
func (c command) file(argv []string, shell bool) (path string, args []string, err error) {
	if shell {
		if !c.cfg.Shell {
			return "", nil, invalid("shell", "this watcher does not allow it: start it with -command-shell")
		}
		return "/bin/sh", append([]string{"sh", "-c", argv[0], "sh"}, argv[1:]...), nil
	}
	there, dirs := "", strings.Join(c.cfg.Dirs, ", ")
	if filepath.IsAbs(argv[0]) {
		path := filepath.Clean(argv[0])
		if !slices.ContainsFunc(c.cfg.Dirs, func(dir string) bool {
			return strings.HasPrefix(path, strings.TrimSuffix(filepath.Clean(dir), "/")+"/")
		}) {
			return "", nil, invalid("argv", fmt.Sprintf("%s is not in a directory of the watcher's setting -command-dirs: %s", quote(path), dirs))
		}
		return path, argv, nil
	}
	for _, dir := range c.cfg.Dirs {
		path := filepath.Join(dir, argv[0])
		f, err := os.Stat(path)
		switch {
		case err != nil || !f.Mode().IsRegular():
		case f.Mode()&0o111 != 0:
			return path, argv, nil
		default:
			there = cmp.Or(there, path)
		}
	}
	if there != "" {
		return "", nil, invalid("argv", quote(there)+" is not executable: chmod +x makes it so")
	}
	return "", nil, invalid("argv", fmt.Sprintf("there is no program file %s in the directories of the watcher's setting -command-dirs: %s",
		quote(argv[0]), dirs))
}

// environ is all that the command finds in its environment, but for HOME and TMPDIR.
func (c command) environ(in Input) []string {
	vars := variables(in.Task)
	vars["PATH"], vars["LANG"] = strings.Join(c.cfg.Dirs, ":"), "C.UTF-8"
	given, _ := members(in.Task.Parameters) // they were read before
	for _, p := range c.Parameters() {
		delete(given, p.Name)
	}
	for name, value := range given {
		if text := string(textOf(value)); variableName.MatchString(name) && !isNull(value) && !strings.Contains(text, "\x00") {
			vars[paramPrefix+name] = text
		}
	}
	maps.Copy(vars, in.Params.Map("env"))
	return assignments(vars)
}

// exitError says how a command failed, and what it said last. Its first line is what lists
// show.
func exitError(exit process.Exit, stderr, stdout string) error {
	text := fmt.Sprintf("it ended with exit code %d", exit.Code)
	if exit.Signal != 0 {
		text = fmt.Sprintf("it was ended by signal %d (%s)", exit.Signal, exit.Signal)
	}
	switch {
	case stderr != "":
		text += ": " + causeFirst(stderr)
	case stdout != "":
		text += "; the end of its output: " + stdout
	}
	return errors.New(text)
}

// causeFirst puts a line before what somebody said that says more than the first one: the last
// that is not indented, where the first is the middle of something (see tail.marked), or there
// is a Python traceback, which has the exception at its end.
func causeFirst(said string) string {
	if !strings.HasPrefix(said, "…") && !strings.Contains(said, "Traceback (most recent call last):") {
		return said
	}
	lines := strings.Split(said, "\n")
	for _, line := range slices.Backward(lines[1:]) {
		if line != "" && !unicode.IsSpace(rune(line[0])) {
			return cut(line, 400) + "\n" + said
		}
	}
	return said
}

// commandOutput is the output of a command that succeeded:
//
//	{"exit_code": 0, "stdout": "the last 4 KiB", "json": the last line, if it is JSON}
func commandOutput(stdout string, last *lastLine) (json.RawMessage, error) {
	type output struct {
		ExitCode int    `json:"exit_code"`
		Stdout   string `json:"stdout"`
		JSON     any    `json:"json,omitempty"`
	}
	line, whole := last.line()
	if !whole && strings.HasPrefix(line, "{") || !whole && strings.HasPrefix(line, "[") {
		return nil, fmt.Errorf("its last line begins like JSON and has more than %d bytes, too much for an output: "+
			"let it store that elsewhere, and print where", last.max)
	}
	out := output{Stdout: stdout}
	if v, ok := storable([]byte(line)); ok && whole {
		out.JSON = v
	}
	return encode(out), nil
}
