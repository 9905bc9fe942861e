package program

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/d-tsuji/flower/internal/flow"
)

// OwnDatabase is the name of the connection to Flower's own database.
const OwnDatabase = "flower"

// Database is where the program SQL runs statements.
type Database interface {
	// Run runs one statement in a session of its own, and returns what the program does.
	// When ctx ends, it ends the statement, and returns the context's cause.
	Run(ctx context.Context, s Statement) (output json.RawMessage, err error)
}

// Statement is a statement of a task.
type Statement struct {
	Task flow.Task
	Text string
	Args []json.RawMessage // for $1, $2 …

	// Transactional: the statement's transaction records the task as finished, too, and
	// does nothing at all if the task is another claim's by then. The result of such an
	// attempt is to be given to the dispatcher like any other.
	Transactional bool

	// Mask takes secrets out of the output: of a transactional one, which is recorded before
	// it is returned.
	Mask func(output json.RawMessage) json.RawMessage

	Notices io.Writer // what the server says meanwhile
}

// sqlProgram runs a SQL statement on one of the databases that its watcher has.
type sqlProgram struct{ databases map[string]Database }

func (sqlProgram) Parameters() []Parameter {
	return []Parameter{
		{
			Name: "connection", Type: String, Default: json.RawMessage(`"` + OwnDatabase + `"`), Fixed: true,
			Description: "The database: " + OwnDatabase + " is Flower's own; the watcher's -sql-connections names others.",
		},
		{
			Name: "statement", Type: String, Required: true, Fixed: true,
			Description: "One SQL statement, with $1, $2 … for values.",
		},
		{
			Name: "args", Type: Array,
			Description: "The values for $1, $2 …. Strings, numbers and booleans go as text, arrays and objects as JSON; " +
				"the statement says what type they become.",
		},
		{
			Name: "transactional", Type: Boolean, Default: json.RawMessage("false"), Fixed: true,
			Description: "In " + OwnDatabase + " only: commit the statement together with the end of its task, so that it takes effect exactly once.",
		},
	}
}

func (p sqlProgram) OffWithout() string {
	if len(p.databases) == 0 {
		return "-sql-connections"
	}
	return ""
}

func (sqlProgram) Check(v Values) error {
	switch text := v.String("statement"); {
	case v.Open("statement"): // only then is it known
	case strings.TrimSpace(text) == "":
		return invalid("statement", "it is empty")
	case strings.Contains(text, "\x00"): // where the protocol ends it
		return invalid("statement", "it has the character U+0000")
	}
	switch {
	case v.Open("transactional"), v.Open("connection"):
	case v.Bool("transactional") && v.String("connection") != OwnDatabase:
		return invalid("transactional", "it is possible with the connection "+OwnDatabase+" only, where the task is")
	}
	return nil
}

func (p sqlProgram) Run(ctx context.Context, in Input) (json.RawMessage, error) {
	name := in.Params.String("connection")
	db, known := p.databases[name]
	if !known {
		return nil, invalid("connection", quote(name)+" is not one of those that this watcher has (-sql-connections): "+
			strings.Join(slices.Sorted(maps.Keys(p.databases)), ", "))
	}
	var args []json.RawMessage
	if raw := in.Params.JSON("args"); raw != nil {
		if err := json.Unmarshal(raw, &args); err != nil {
			return nil, err // it is an array
		}
	}
	output, err := db.Run(ctx, Statement{
		Task: in.Task, Text: in.Params.String("statement"), Args: args,
		Transactional: in.Params.Bool("transactional"), Mask: in.Secrets.MaskJSON, Notices: in.Stderr,
	})
	if err != nil {
		return nil, fmt.Errorf("connection %s: %w", name, err)
	}
	return output, nil
}
