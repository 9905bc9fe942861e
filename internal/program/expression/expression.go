package expression

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/expr-lang/expr"
	"github.com/expr-lang/expr/file"
	"github.com/expr-lang/expr/vm"
)

// Env is what an expression sees.
type Env struct {
	Params  map[string]any    `expr:"params"`  // given with the request
	Outputs map[int]any       `expr:"outputs"` // of tasks before this one, by task_seq
	Flow    Flow              `expr:"flow"`
	Secrets map[string]string `expr:"secrets"` // those that are used
}

// Flow is what an expression may know of the flow, and of the task in it.
type Flow struct {
	ID         string    `expr:"id" json:"id"`
	Workflow   string    `expr:"workflow" json:"workflow"`
	Seq        int       `expr:"seq" json:"seq"`               // task_exec_seq
	Attempt    int       `expr:"attempt" json:"attempt"`       // 1 for the first
	Registered time.Time `expr:"registered" json:"registered"` // in UTC
}

// weigh is called by an expression itself, for each value that it makes. No expression can
// call it by this name.
const weigh = "weigh value"

// valueEnv is what an expression in a parameter sees, and what it is weighed by.
type valueEnv struct {
	Env
	Weigh func(...any) (any, error) `expr:"weigh value"`
}

// conditionEnv is what a condition sees: no secrets, since whether a task runs is for all
// to see.
type conditionEnv struct {
	Params  map[string]any            `expr:"params"`
	Outputs map[int]any               `expr:"outputs"`
	Flow    Flow                      `expr:"flow"`
	Weigh   func(...any) (any, error) `expr:"weigh value"`
}

// Uses is what must be known before something can be evaluated.
type Uses struct {
	Outputs []int    // task_seqs
	Secrets []string // names
	Flow    bool     // how the flow was registered: the request's parameters, when
}

// Add joins what two use.
func (u *Uses) Add(more Uses) {
	u.Outputs = append(u.Outputs, more.Outputs...)
	u.Secrets = append(u.Secrets, more.Secrets...)
	u.Flow = u.Flow || more.Flow
}

// Error says what is wrong with an expression, in one line.
type Error struct {
	Expression string
	Problem    string
}

func (e *Error) Error() string { return show(e.Expression) + ": " + e.Problem }

// show quotes an expression in an error: one line, and not longer than is needed to
// recognise it.
func show(text string) string {
	const most = 120
	text = strings.Join(strings.FieldsFunc(text, func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) }), " ")
	if runes := []rune(text); len(runes) > most {
		text = string(runes[:most]) + "…"
	}
	return Begin + " " + text + " " + end
}

// expression is a compiled one. It never changes.
type expression struct {
	text    string
	program *vm.Program
	uses    Uses
}

// Limits. A definition is typed by people: what is longer belongs into a program.
const (
	maxLength   = 2000    // bytes of an expression
	maxNodes    = 1000    // of its syntax tree
	maxElements = 100_000 // that it lists with .. and []
	maxBytes    = 4 << 20 // of all values that are made for a parameter, with 16 for each turn of a loop
	maxTime     = 5 * time.Second
	maxValue    = 1 << 20 // bytes of a parameter in the end
)

// cache has expressions that were compiled, which takes far longer than to evaluate them:
// each registration checks all of its workflow.
var cache = struct {
	mu sync.Mutex
	of map[cacheKey]*expression // guarded by mu
}{of: make(map[cacheKey]*expression)}

type cacheKey struct {
	env  reflect.Type
	text string
}

const maxCached = 10_000

// compiled returns an expression, env being an empty one of what it may see.
func compiled(text string, env any) (*expression, error) {
	key := cacheKey{reflect.TypeOf(env), text}
	cache.mu.Lock()
	x := cache.of[key]
	cache.mu.Unlock()
	if x != nil {
		return x, nil
	}
	x, err := compile(text, env)
	if err != nil {
		return nil, err
	}
	cache.mu.Lock()
	defer cache.mu.Unlock()
	if len(cache.of) >= maxCached {
		clear(cache.of) // it fills again soon with what is in use
	}
	cache.of[key] = x
	return x, nil
}

// compile checks an expression.
func compile(text string, env any) (x *expression, err error) {
	defer func() {
		if p := recover(); p != nil {
			x, err = nil, &Error{text, fmt.Sprintf("it cannot be read: %v", p)}
		}
	}()
	if len(text) > maxLength {
		return nil, &Error{text, fmt.Sprintf("it has %d bytes, and %d are allowed", len(text), maxLength)}
	}
	x = &expression{text: text}
	look := &inspection{x: x}
	options := append(functions(),
		expr.Env(env),
		expr.Patch(look),
		expr.MaxNodes(maxNodes),
		expr.Optimize(false), // it computes what is constant here and now, and nobody weighs it
	)
	x.program, err = expr.Compile(text, options...)
	if problem := look.end(); problem != "" { // says more than what came of it
		return nil, &Error{text, problem}
	}
	if err != nil {
		return nil, &Error{text, problemOf(err)}
	}
	return x, nil
}

// words puts what expr says into the words of those who write definitions.
var words = strings.NewReplacer(
	"type expression.Flow", "flow",
	"interface conversion: interface {} is", "a value is",
	"unexpected token EOF", "it ends too early",
	"<nil>", "null",
	"runtime error: integer divide by zero", "it divides by 0",
	"memory budget exceeded", fmt.Sprintf("it lists more than %d elements", maxElements),
)

// problemOf takes an error's message without the picture that expr draws below it.
func problemOf(err error) string {
	var at *file.Error
	if !errors.As(err, &at) {
		return err.Error()
	}
	message := strings.Join(strings.Fields(words.Replace(at.Message)), " ")
	if at.Line == 0 {
		return message
	}
	return fmt.Sprintf("%s (line %d, column %d)", message, at.Line, at.Column+1)
}

// run evaluates, env having the budget to weigh by, and pays for what it comes to as well.
func (x *expression) run(b *budget, env any) (any, error) {
	machine := vm.VM{MemoryBudget: maxElements}
	v, err := machine.Run(x.program, env)
	if err == nil {
		err = b.take(v)
	}
	if b.ctx.Err() != nil && b.outer.Err() != nil {
		return nil, context.Cause(b.outer)
	}
	if err != nil {
		return nil, &Error{x.text, problemOf(err)}
	}
	return v, nil
}

// Condition is a run_if.
type Condition struct{ x *expression }

// ParseCondition checks a condition. It may stand in ${{ }}, and need not.
func ParseCondition(text string) (*Condition, error) {
	bare := strings.TrimSpace(text)
	if inner, is := strings.CutPrefix(bare, Begin); is && length(inner) == len(inner)-len(end) {
		bare = strings.TrimSuffix(inner, end)
	}
	bare = strings.TrimSpace(bare)
	x, err := compiled(bare, conditionEnv{})
	if err != nil {
		return nil, err
	}
	if t := x.program.Node().Type(); t != nil && t.Kind() != reflect.Bool && t.Kind() != reflect.Interface {
		return nil, notBoolean(bare, reflect.Zero(t).Interface())
	}
	return &Condition{x}, nil
}

// String returns the condition as an error shows it.
func (c *Condition) String() string { return show(c.x.text) }

// Uses returns what the condition must know.
func (c *Condition) Uses() Uses { return c.x.uses }

// Holds evaluates the condition. Where ctx ends the error is its cause.
func (c *Condition) Holds(ctx context.Context, env Env) (bool, error) {
	b, stop := newBudget(ctx)
	defer stop()
	v, err := c.x.run(b, conditionEnv{env.Params, env.Outputs, env.Flow, b.weigh})
	if err != nil {
		return false, err
	}
	holds, is := v.(bool)
	if !is {
		return false, notBoolean(c.x.text, v)
	}
	return holds, nil
}

func notBoolean(text string, v any) error {
	return &Error{text, "it is neither true nor false, but " + kind(v)}
}
