package program

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/d-tsuji/flower/internal/flow"
	"github.com/d-tsuji/flower/internal/pgdev/pgtest"
	"github.com/d-tsuji/flower/internal/process"
)

func TestMain(m *testing.M) {
	process.Supervise()
	goleak.VerifyTestMain(withDatabases{m})
}

// withDatabases runs tests that need databases.
type withDatabases struct{ m *testing.M }

func (w withDatabases) Run() int { return pgtest.Run(w.m) }

// fake is a program made of what a test needs.
type fake struct {
	parameters []Parameter
	run        func(ctx context.Context, in Input) (json.RawMessage, error)
}

func (f fake) Parameters() []Parameter { return f.parameters }

func (f fake) Run(ctx context.Context, in Input) (json.RawMessage, error) { return f.run(ctx, in) }

func newTask(program, parameters string) flow.Task {
	return flow.Task{
		TaskKey:    flow.TaskKey{Flow: "f1", Seq: 2},
		WorkflowID: "w",
		Program:    program,
		Parameters: json.RawMessage(parameters),
		Attempt:    3,
	}
}

func requireInvalid(t *testing.T, err error, text string) {
	t.Helper()
	var invalid *flow.InvalidError
	require.ErrorAs(t, err, &invalid)
	require.Equal(t, text, err.Error())
}

func TestDefault_Names(t *testing.T) {
	t.Parallel()
	require.Equal(t,
		[]string{
			"Approve", "Command", "Container", "EchoParamTimeSleep", "EchoRandomTimeSleep", "Flow", "HTTPPostRequest", "HTTPRequest", "NoOp",
			"SQL", "Test1", "Test2", "Test3", "Wait",
		},
		Default(Config{}).Names())
	require.Equal(t,
		[]string{
			"Approve", "EchoParamTimeSleep", "EchoRandomTimeSleep", "Flow", "HTTPPostRequest", "HTTPRequest", "NoOp", "Test1", "Test2", "Test3", "Wait",
		},
		Default(Config{}).Enabled().Names())
	require.Equal(t, Default(Config{}).Names(), Default(Config{
		Command: CommandConfig{Allow: true}, SQL: map[string]Database{OwnDatabase: nil}, Container: ContainerConfig{Allow: true},
	}).Enabled().Names())
}

func TestRun_GivesTheProgramItsInputAndReturnsWhatItReturns(t *testing.T) {
	t.Parallel()
	failure := errors.New("it rains")
	task := newTask("P", `{"N": "7", "UNKNOWN": 1}`)
	set := Set{"P": fake{
		parameters: []Parameter{{Name: "N", Type: Integer}},
		run: func(_ context.Context, in Input) (json.RawMessage, error) {
			require.Equal(t, task, in.Task)
			require.Equal(t, Values{"N": int64(7)}, in.Params)
			in.Log.Info("working")
			return json.RawMessage(`1`), failure
		},
	}}
	var lines bytes.Buffer
	output, err := set.Run(t.Context(), Attempt{Task: task, Log: slog.New(slog.NewTextHandler(&lines, nil))})
	require.Equal(t, failure, err)
	require.JSONEq(t, `1`, string(output))
	require.Contains(t, lines.String(), "msg=working component=program flow=f1 seq=2 task=w program=P attempt=3\n")
}

func TestRun_UnknownProgram(t *testing.T) {
	t.Parallel()
	set := Set{"B": noOp{}, "A": noOp{}}
	for name, shown := range map[string]string{
		"C":                          `"C"`,
		"":                           `""`,
		"a":                          `"a"`,
		"../x":                       `"../x"`,
		"String":                     `"String"`,
		"A\n\x1b[31m\x00\u202e\xff":  `"A\n\x1b[31m\x00\u202e\xff"`,
		strings.Repeat("long", 1000): `"` + strings.Repeat("long", 16) + `…"`,
	} {
		want := "program " + shown + ": there is none of that name; known are A, B"
		_, err := set.Run(t.Context(), Attempt{Task: newTask(name, `{}`)})
		requireInvalid(t, err, want)
		requireInvalid(t, set.Check(name, nil), want)
	}
}

func TestRun_DoesNotStartWhatIsOver(t *testing.T) {
	t.Parallel()
	over := errors.New("over")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(over)
	set := Set{"P": fake{run: func(context.Context, Input) (json.RawMessage, error) {
		panic("it was started")
	}}}
	_, err := set.Run(ctx, Attempt{Task: newTask("P", `{}`)})
	require.Equal(t, over, err)
}

func TestRun_LetsPanicsThrough(t *testing.T) {
	t.Parallel()
	set := Set{"P": fake{run: func(_ context.Context, in Input) (json.RawMessage, error) {
		return nil, errors.New(in.Params.String("UNDECLARED"))
	}}}
	require.PanicsWithValue(t, `program: it does not declare the parameter "UNDECLARED" that it reads`, func() {
		_, _ = set.Run(t.Context(), Attempt{Task: newTask("P", `{}`)})
	})
}

func TestConfig_Validate(t *testing.T) {
	t.Parallel()
	require.NoError(t, Config{}.Validate())
	require.NoError(t, Config{HTTPTimeout: time.Minute, HTTPAllow: []netip.Prefix{netip.MustParsePrefix("::/0")}}.Validate())
	require.EqualError(t, Config{HTTPTimeout: -time.Second}.Validate(), "HTTP timeout -1s: must not be negative")
	require.Error(t, Config{HTTPAllow: make([]netip.Prefix, 1)}.Validate())
}
