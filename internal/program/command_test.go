package program

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/flow"
	"github.com/d-tsuji/flower/internal/process"
)

var testCommands = CommandConfig{Allow: true, Shell: true, Dirs: strings.Split(DefaultCommandDirs, ",")}

// runCommand runs Command and returns its output, and what it printed.
func runCommand(t *testing.T, cfg CommandConfig, parameters string) (output, printed string, err error) {
	t.Helper()
	var both bytes.Buffer
	got, err := Default(Config{Command: cfg}).Run(t.Context(), Attempt{Task: newTask("Command", parameters), Stdout: &both})
	return string(got), both.String(), err
}

func TestCommand_Output(t *testing.T) {
	t.Parallel()
	for parameters, want := range map[string]string{
		`{"argv": ["true"]}`:                                                 `{"exit_code":0,"stdout":""}`,
		`{"argv": ["/usr/bin/echo", "a", "b c"]}`:                            `{"exit_code":0,"stdout":"a b c"}`,
		`{"argv": ["printf", "one\ntwo\n{\"n\": [1.50, null]}\n\n \n"]}`:     `{"exit_code":0,"stdout":"one\ntwo\n{\"n\": [1.50, null]}","json":{"n":[1.50,null]}}`,
		`{"argv": ["printf", "42"]}`:                                         `{"exit_code":0,"stdout":"42","json":42}`,
		`{"argv": ["printf", "{\"n\": 1}\nbye"]}`:                            `{"exit_code":0,"stdout":"{\"n\": 1}\nbye"}`,
		`{"argv": ["printf", "{\"n\": \"\\\\u0000\"}"]}`:                     `{"exit_code":0,"stdout":"{\"n\": \"\\u0000\"}"}`,
		`{"argv": ["printf", "a\\0b\\377c\\033[1m\\tx"]}`:                    `{"exit_code":0,"stdout":"ab` + "\uFFFD" + `c[1m\tx"}`,
		`{"argv": ["cat"], "stdin": "given"}`:                                `{"exit_code":0,"stdout":"given"}`,
		`{"argv": ["cat"], "stdin": {"a":  1}}`:                              `{"exit_code":0,"stdout":"{\"a\":  1}","json":{"a":1}}`,
		`{"argv": ["cat"]}`:                                                  `{"exit_code":0,"stdout":""}`,
		`{"argv": ["pwd"], "dir": "/usr/../usr"}`:                            `{"exit_code":0,"stdout":"/usr"}`,
		`{"argv": ["expr", 2, "+", 2.0]}`:                                    "",
		`{"argv": ["printf", "%s|", "a", 5, "", "$HOME", "*", "-n"]}`:        `{"exit_code":0,"stdout":"a|5||$HOME|*|-n|"}`,
		`{"argv": ["echo \"$#\" \"$1\" $((2 + 3))", "it's"], "shell": true}`: `{"exit_code":0,"stdout":"1 it's 5"}`,
		`{"argv": ["sh", "-e", "/dev/stdin"], "stdin": "echo script"}`:       `{"exit_code":0,"stdout":"script"}`,
	} {
		t.Run(parameters, func(t *testing.T) {
			t.Parallel()
			output, _, err := runCommand(t, testCommands, parameters)
			if want == "" {
				require.Error(t, err)
				return
			}
			require.NoError(t, err)
			require.Equal(t, want, output)
		})
	}
}

func TestCommand_EndOfLongOutput(t *testing.T) {
	t.Parallel()
	output, printed, err := runCommand(t, testCommands, `{"argv": ["seq", "100000"]}`)
	require.NoError(t, err)
	var got struct {
		Stdout string
		JSON   int
	}
	require.NoError(t, json.Unmarshal([]byte(output), &got))
	require.Equal(t, 100000, got.JSON)
	require.True(t, strings.HasSuffix(got.Stdout, "99999\n100000"))
	require.InDelta(t, maxStdout, len(got.Stdout), 10)
	require.Equal(t, 588895, len(printed), "all of it is printed")

	_, _, err = runCommand(t, testCommands, `{"shell": true, "argv": ["printf '{\"n\": \"'; head -c 70000 /dev/zero | tr '\\0' x; echo '\"}'"]}`)
	require.EqualError(t, err, "its last line begins like JSON and has more than 65536 bytes, too much for an output: "+
		"let it store that elsewhere, and print where")
	output, _, err = runCommand(t, testCommands, `{"shell": true, "argv": ["head -c 70000 /dev/zero | tr '\\0' '\\001'; head -c 70000 /dev/zero | tr '\\0' 1"]}`)
	require.NoError(t, err)
	require.NotContains(t, output, "json")
}

func TestCommand_Failures(t *testing.T) {
	t.Parallel()
	for script, want := range map[string]string{
		`echo out; echo "no such\ncustomer" >&2; exit 3`: "it ended with exit code 3: no such\ncustomer",
		`echo so far; exit 4`:                            "it ended with exit code 4; the end of its output: so far",
		`exit 255`:                                       "it ended with exit code 255",
		`kill -SEGV $$`:                                  "it was ended by signal 11 (segmentation fault)",
		`printf 'a\0b\377\033[31m' >&2; false`:           "it ended with exit code 1: ab\uFFFD[31m",
	} {
		t.Run(script, func(t *testing.T) {
			t.Parallel()
			_, _, err := runCommand(t, testCommands, mustJSON(t, map[string]any{"shell": true, "argv": []string{script}}))
			require.EqualError(t, err, want)
			require.NotErrorAs(t, err, new(*flow.InvalidError), "it may be tried again")
		})
	}
	_, _, err := runCommand(t, testCommands, `{"shell": true, "argv": ["yes é | head -c 1000000 >&2; exit 1"]}`)
	require.Less(t, len(err.Error()), 3<<10)
	require.True(t, utf8.ValidString(err.Error()))
}

// The first line of an error is what lists show, and what puts failures together.
func TestCommand_TheFirstLineOfAnErrorSaysWhy(t *testing.T) {
	t.Parallel()
	const trace = "Traceback (most recent call last):\n  File \"load.py\", line 3, in <module>\n    load(day)\n"
	frames := strings.Repeat("  File \"load.py\", line 3, in <module>\n", 100)
	for _, c := range []struct{ said, want string }{
		{"no such\ncustomer", "no such\ncustomer"},
		{"one line", "one line"},
		{trace + "KeyError: 'day'\n", "KeyError: 'day'\n" + trace + "KeyError: 'day'"},
		{"INFO loads\n" + trace + "Oh: no\n  why\n", "Oh: no\nINFO loads\n" + trace + "Oh: no\n  why"},
		{"Traceback (most recent call last):", "Traceback (most recent call last):"},
		{trace + frames + "KeyError: 'day'\n\n", "KeyError: 'day'\n…"},
		{strings.Repeat("x", 3000) + "\n\tat Main", "…xxx"},
		{"Exception: a\n\tat A\nCaused by: b\n\tat B\n", "Exception: a\n\tat A\nCaused by: b\n\tat B"},
	} {
		t.Run(c.want, func(t *testing.T) {
			t.Parallel()
			_, _, err := runCommand(t, testCommands, mustJSON(t, map[string]any{"argv": []string{"cat >&2; exit 1"}, "shell": true, "stdin": c.said}))
			require.ErrorContains(t, err, "it ended with exit code 1: "+c.want)
			require.LessOrEqual(t, len(err.Error()), maxStderr+512)
		})
	}
}

// What a caller of register says is data, whatever it looks like.
func TestCommand_DataStaysData(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, text := range []string{
		";touch x", "$(touch x)", "`touch x`", "\ntouch x\n", "--option", "-n", "' \" \\ *", "é\u202e\x1b[31m", "", strings.Repeat("x", 100_000),
	} {
		parameters := map[string]any{
			"argv": []any{`printf %s "$FLOWER_PARAM_text" > a; cat > b; printf %s "$1" > c`, text}, "shell": true, "dir": dir,
			"stdin": text, "text": text, "not a name": text, "env": map[string]string{"A": text},
		}
		_, _, err := runCommand(t, testCommands, mustJSON(t, parameters))
		require.NoError(t, err)
		for _, name := range []string{"a", "b", "c"} {
			got, err := os.ReadFile(filepath.Join(dir, name))
			require.NoError(t, err)
			require.Equal(t, text, string(got))
		}
	}
	require.NoFileExists(t, filepath.Join(dir, "x"))
}

// The environment is made of nothing: the watcher's has the database's password.
func TestCommand_Environment(t *testing.T) {
	t.Setenv("DB_PASS", "s3cret")
	task := newTask("Command", `{"argv": ["env"], "env": {"NAME": "a b", "LANG": "C"}, "date": "2026-01-02", "n": 1.50, "o": {"a": [1]},
		"none": null, "with space": 1, "1": 2, "PATH": "/tmp"}`)
	task.AttemptBase = 2
	output, err := allPrograms(t, nil).Run(t.Context(), Attempt{Task: task})
	require.NoError(t, err)
	var got struct{ Stdout string }
	require.NoError(t, json.Unmarshal(output, &got))
	vars := map[string]string{}
	for line := range strings.SplitSeq(got.Stdout, "\n") {
		name, value, _ := strings.Cut(line, "=")
		vars[name] = value
	}
	require.Equal(t, vars["HOME"], vars["TMPDIR"])
	require.True(t, strings.HasPrefix(vars["HOME"], os.TempDir()+"/flower-command-"))
	require.NoDirExists(t, vars["HOME"])
	delete(vars, "HOME")
	delete(vars, "TMPDIR")
	require.Equal(t, map[string]string{
		"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C", "NAME": "a b",
		"FLOWER_FLOW": "f1", "FLOWER_SEQ": "2", "FLOWER_ATTEMPT": "3", "FLOWER_IDEMPOTENCY_KEY": "f1:2:2",
		"FLOWER_PARAM_date": "2026-01-02", "FLOWER_PARAM_n": "1.50", "FLOWER_PARAM_o": `{"a": [1]}`, "FLOWER_PARAM_PATH": "/tmp",
	}, vars)
}

func TestCommand_WrongParameters(t *testing.T) {
	t.Parallel()
	for parameters, want := range map[string]string{
		`{}`:                                                `"argv": it is missing, and must be a JSON array of strings`,
		`{"argv": "ls"}`:                                    `"argv": a string is not a JSON array of strings`,
		`{"argv": ["ls", true]}`:                            `"argv": item 2 is a boolean, not a string`,
		`{"argv": []}`:                                      `"argv": its first item is missing: a program file`,
		`{"argv": ["", "x"]}`:                               `"argv": its first item is missing: a program file`,
		`{"argv": ["", "x"], "shell": true}`:                `"argv": its first item is missing: a program file`,
		`{"argv": ["./ls"]}`:                                `"argv": "./ls" must begin with a slash, or have none`,
		`{"argv": ["../bin/ls"]}`:                           `"argv": "../bin/ls" must begin with a slash, or have none`,
		`{"argv": ["ls", "a\u0000b"]}`:                      `"argv": U+0000 cannot be in an argument`,
		`{"argv": ["sh", "-c", "ls"]}`:                      `"argv": it gives a shell a text to run: set shell to true, and let the text be the first item`,
		`{"argv": ["/bin/bash", "-ec", "ls"]}`:              `"argv": it gives a shell a text to run: set shell to true, and let the text be the first item`,
		`{"argv": ["${{ params.x }}"]}`:                     `"argv": its first item decides what is run: it cannot hold an expression (other items can, and env)`,
		`{"argv": ["echo ${{ params.x }}"], "shell": true}`: `"argv": its first item decides what is run: it cannot hold an expression (other items can, and env)`,
		`{"argv": ["ls"], "env": []}`:                       `"env": an array is not a JSON object of strings`,
		`{"argv": ["ls"], "env": {"A": {}}}`:                `"env": "A" is an object, not a string`,
		`{"argv": ["ls"], "env": {"A B": "x"}}`:             `"env": "A B" is not the name of a variable`,
		`{"argv": ["ls"], "env": {"": "x"}}`:                `"env": "" is not the name of a variable`,
		`{"argv": ["ls"], "env": {"A=B": "x"}}`:             `"env": "A=B" is not the name of a variable`,
		`{"argv": ["ls"], "env": {"FLOWER_SEQ": "1"}}`:      `"env": "FLOWER_SEQ": names that begin with FLOWER_ are Flower's`,
		`{"argv": ["ls"], "env": {"A": "\u0000"}}`:          `"env": "A": U+0000 cannot be in a variable`,
		`{"argv": ["ls"], "dir": "tmp"}`:                    `"dir": "tmp" must begin with a slash`,
		`{"argv": ["ls"], "dir": "/a\u0000"}`:               `"dir": "/a\x00" must begin with a slash`,
		`{"argv": ["ls"], "dir": {}}`:                       `"dir": an object is not a string`,
		`{"argv": ["ls"], "shell": "yes"}`:                  `"shell": "yes" is not true or false`,
	} {
		_, _, err := runCommand(t, testCommands, parameters)
		requireInvalid(t, err, "parameter "+want)
		// The same is said at registration.
		w := flow.Workflow{ID: "w", Tasks: []flow.TaskDefinition{{Seq: 1, Program: "Command", Parameters: json.RawMessage(parameters)}}}
		requireInvalid(t, Default(Config{}).CheckWorkflow(w, nil), `workflow "w": task_seq 1 (Command): parameter `+want)
	}
}

func TestCommand_AtRegistration(t *testing.T) {
	t.Parallel()
	check := func(definition, request string) error {
		w := flow.Workflow{ID: "w", Tasks: []flow.TaskDefinition{
			{Seq: 1, Program: "NoOp"}, {Seq: 2, Program: "Command", Parameters: json.RawMessage(definition)},
		}}
		return Default(Config{}).CheckWorkflow(w, json.RawMessage(request))
	}
	require.NoError(t, check(`{"argv": ["echo", "${{ outputs[1].n }}"], "env": {"N": "${{ params.n }}"}}`, `{"stdin": "x", "n": 1}`))
	require.NoError(t, check(`{"argv": ["sh", "/opt/jobs/load.sh", "${{ params.x }}"]}`, ``))
	for _, request := range []string{`{"argv": ["rm"]}`, `{"env": {"LD_PRELOAD": "x"}}`, `{"dir": "/"}`, `{"shell": true}`} {
		require.ErrorContains(t, check(`{"argv": ["true"]}`, request), "only the definition can set it, and the request does")
	}
	require.ErrorContains(t, check(`{"argv": ["true"], "evn": {}}`, ``), `parameter "evn": this program does not know it; it knows argv, dir, env, shell, stdin`)
}

// What may be run here is the watcher's to say.
func TestCommand_WhatTheWatcherAllows(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(dir, "sub"), 0o755))
	for name, mode := range map[string]os.FileMode{"job": 0o755, "data": 0o644, "sub/job": 0o755} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\necho \"$0 $1\"\n"), mode))
	}
	cfg := CommandConfig{Allow: true, Dirs: []string{dir}}
	for argv, want := range map[string]string{
		"job":               dir + "/job x",
		dir + "/job":        dir + "/job x",
		dir + "//sub/./job": dir + "/sub/job x",
	} {
		output, _, err := runCommand(t, cfg, mustJSON(t, map[string]any{"argv": []string{argv, "x"}}))
		require.NoError(t, err)
		require.Equal(t, `{"exit_code":0,"stdout":"`+want+`"}`, output)
	}
	for argv, want := range map[string]string{
		"sub":                 `there is no program file "sub" in the directories of the watcher's setting -command-dirs: ` + dir,
		"data":                `"` + dir + `/data" is not executable: chmod +x makes it so`,
		"ls":                  `there is no program file "ls" in the directories of the watcher's setting -command-dirs: ` + dir,
		"/bin/ls":             `"/bin/ls" is not in a directory of the watcher's setting -command-dirs: ` + dir,
		dir:                   `"` + dir + `" is not in a directory of the watcher's setting -command-dirs: ` + dir,
		dir + "/../../bin/ls": "",
		dir + "x/../job":      "",
	} {
		_, _, err := runCommand(t, cfg, mustJSON(t, map[string]any{"argv": []string{argv}}))
		if want == "" {
			require.ErrorContains(t, err, "is not in a directory of the watcher's setting -command-dirs: "+dir)
			continue
		}
		requireInvalid(t, err, `parameter "argv": `+want)
	}
	_, _, err := runCommand(t, cfg, `{"argv": ["ls"], "shell": true}`)
	requireInvalid(t, err, `parameter "shell": this watcher does not allow it: start it with -command-shell`)
	_, _, err = runCommand(t, cfg, mustJSON(t, map[string]any{"argv": []string{dir + "/data"}}))
	require.EqualError(t, err, "cannot start "+dir+"/data: permission denied")
}

func TestCommand_Stops(t *testing.T) {
	t.Parallel()
	stop := errors.New("stop")
	ctx, cancel := context.WithCancelCause(t.Context())
	task := newTask("Command", `{"shell": true, "argv": ["trap '' TERM; echo ready; sleep 3600 & wait; wait"]}`)
	begin := time.Now()
	_, err := allPrograms(t, nil).Run(ctx, Attempt{Task: task, Stdout: onLine(func() { begin = time.Now(); cancel(stop) })})
	require.Equal(t, stop, err)
	require.Less(t, time.Since(begin), termGrace+2*time.Second)
}

func TestCommandConfig(t *testing.T) {
	t.Parallel()
	require.NoError(t, Config{Command: testCommands}.Validate())
	require.EqualError(t, Config{Command: CommandConfig{Dirs: []string{"/bin", "jobs"}}}.Validate(),
		`"jobs": a directory of commands must begin with a slash`)
	dir := t.TempDir()
	require.Equal(t, []string{dir}, CommandConfig{Dirs: []string{dir, "/no/such"}}.Writable())
	require.Equal(t, []string{"/no/such", "/dev/null"}, CommandConfig{Dirs: []string{dir, "/no/such", "/dev/null"}}.Missing())

	limited := testCommands
	limited.Limits = process.Limits{Files: 17}
	output, _, err := runCommand(t, limited, `{"shell": true, "argv": ["ulimit -n"]}`)
	require.NoError(t, err)
	require.Equal(t, `{"exit_code":0,"stdout":"17","json":17}`, output)
}

func TestTail(t *testing.T) {
	t.Parallel()
	for _, size := range []int{0, 1, 9, 10, 11, 25, 1000} {
		var text strings.Builder
		for i := range size {
			fmt.Fprint(&text, i%10)
		}
		for _, step := range []int{1, 3, 10, 11, 1000} {
			kept := tail{max: 10}
			for rest := text.String(); rest != ""; {
				n := min(step, len(rest))
				wrote, err := kept.Write([]byte(rest[:n]))
				require.NoError(t, err)
				require.Equal(t, n, wrote)
				rest = rest[n:]
			}
			require.Equal(t, text.String()[max(0, size-10):], kept.text(), "%d in steps of %d", size, step)
			require.Equal(t, size > 10, strings.HasPrefix(kept.marked(), "…"), "%d in steps of %d", size, step)
			require.LessOrEqual(t, len(kept.b), 20)
		}
	}
}

// What begins within a character begins with the next one.
func TestTail_WholeCharacters(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"0123456789": "0123456789", "é123456789": "…123456789", "aé12345678": "…é12345678", "€23456789": "…23456789",
		"a🌷123456789": "…123456789", "0\xff\x80\x80\x80\x80\x80\x80\x80\x80\x80": "…\uFFFD",
		"0\n\n\n\n\n\n\n\n\n\n": "", "\n\n\n\n\n\n\n\n\n": "",
	} {
		kept := tail{max: 10}
		_, err := kept.Write([]byte(text))
		require.NoError(t, err)
		require.Equal(t, want, kept.marked(), "%q", text)
	}
}

func TestLastLine(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"": "", "\n\n": "", "a": "a", "a\n": "a", "a\nb": "b", "a\nb\n\n  \n": "b", "a\n b \r\n": "b", "0123456789\n": "0123456789",
		"01234567890": "0123456789…", "01234567890\nb": "b", "b\n01234567890\n\n": "0123456789…", "a\n\n\n\n": "a", "a\nb\n \n \n ": "b",
	} {
		for step := 1; step <= len(text)+1; step++ {
			l := lastLine{max: 10}
			for rest := []byte(text); len(rest) > 0; {
				n, err := l.Write(rest[:min(step, len(rest))])
				require.NoError(t, err)
				rest = rest[n:]
			}
			got, whole := l.line()
			if !whole {
				got += "…"
			}
			require.Equal(t, want, got, "%q in steps of %d", text, step)
		}
	}
}

// A command that prints a gigabyte harms nobody: neither memory nor the processor.
func TestCommand_PrintsAGigabyte(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("it takes some seconds")
	}
	task := newTask("Command", `{"shell": true, "argv": ["yes | head -c 1000000000"]}`)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	output, err := allPrograms(t, nil).Run(t.Context(), Attempt{Task: task})
	runtime.ReadMemStats(&after)
	require.NoError(t, err)
	require.Less(t, len(output), 16<<10)
	require.Less(t, after.HeapAlloc, before.HeapAlloc+64<<20)
}
