package program_test

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/d-tsuji/flower/internal/flow"
	"github.com/d-tsuji/flower/internal/program"
)

// greet is a whole program.
type greet struct{}

func (greet) Parameters() []program.Parameter {
	return []program.Parameter{{Name: "WHO", Type: program.String, Required: true, Description: "Whom to greet."}}
}

func (greet) Run(_ context.Context, in program.Input) (json.RawMessage, error) {
	return json.Marshal("hello, " + in.Params.String("WHO"))
}

// A program is a type with two methods, put into a set under the name that task
// definitions use.
func Example() {
	programs := program.Default(program.Config{})
	programs["Greet"] = greet{}

	task := flow.Task{Program: "Greet", Parameters: json.RawMessage(`{"WHO": "world"}`)}
	output, err := programs.Run(context.Background(), program.Attempt{Task: task})
	fmt.Println(string(output), err)

	fmt.Println(programs.Check("Greet", json.RawMessage(`{"WHOM": "world"}`)))
	// Output:
	// "hello, world" <nil>
	// parameter "WHO": it is missing, and must be a string; this program does not know "WHOM"
}
