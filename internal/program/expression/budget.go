package expression

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"reflect"
	"regexp"
	"strings"

	"github.com/expr-lang/expr"
	"github.com/expr-lang/expr/ast"
)

// allowed are the functions of the language, beside reduce and groupBy, which are always
// there. Not among them are those that look outside (now) or have another result each time
// (keys), those that make much of little (repeat, uniq, flatten), and what nobody has missed.
var allowed = []string{
	"all", "any", "one", "none", "filter", "find", "findIndex", "map", "count", "sum", "sortBy",
	"len", "first", "last", "take", "get", "concat", "reverse", "sort",
	"trim", "trimPrefix", "trimSuffix", "upper", "lower", "split", "join",
	"indexOf", "lastIndexOf", "hasPrefix", "hasSuffix", "toBase64", "fromBase64",
	"int", "float", "abs", "ceil", "floor", "round", "max", "min",
	"date", "duration", "timezone",
}

// functions has the language's functions, with some of our own instead of expr's.
func functions() []expr.Option {
	options := []expr.Option{
		expr.DisableAllBuiltins(),
		expr.Function("toJSON", func(args ...any) (any, error) { return jsonOf(args[0]) }, new(func(any) string)),
		expr.Function("fromJSON", fromJSON, new(func(string) any)),
		expr.Function("string", func(args ...any) (any, error) { return text(args[0]) }, new(func(any) string)),
		expr.Function("urlEncode", urlEncode, new(func(string) string)),
		expr.Function("replace", replace, new(func(string, string, string) string)),
	}
	for _, name := range allowed {
		options = append(options, expr.EnableBuiltin(name))
	}
	return options
}

func fromJSON(args ...any) (any, error) {
	s, is := args[0].(string)
	if !is {
		return nil, fmt.Errorf("fromJSON takes a string, not %s", kind(args[0]))
	}
	return Decode(json.RawMessage(s))
}

// urlEncode makes a text fit for the query of a URL.
func urlEncode(args ...any) (any, error) {
	s, is := args[0].(string)
	if !is {
		return nil, fmt.Errorf("urlEncode takes a string, not %s", kind(args[0]))
	}
	return url.QueryEscape(s), nil
}

// replace is strings.ReplaceAll, which could make a text as long as the product of two.
func replace(args ...any) (any, error) {
	var texts [3]string
	for i, arg := range args {
		s, is := arg.(string)
		if !is {
			return nil, fmt.Errorf("replace takes strings, not %s", kind(arg))
		}
		texts[i] = s
	}
	s, old, by := texts[0], texts[1], texts[2]
	if len(s)+strings.Count(s, old)*len(by) > maxBytes {
		return nil, errTooLarge
	}
	return strings.ReplaceAll(s, old, by), nil
}

// budget bounds an evaluation.
type budget struct {
	outer context.Context
	ctx   context.Context // ends after maxTime at the latest
	left  int             // bytes
}

func newBudget(ctx context.Context) (b *budget, stop func()) {
	limited, stop := context.WithTimeout(ctx, maxTime)
	return &budget{outer: ctx, ctx: limited, left: maxBytes}, stop
}

var (
	errTooLarge = fmt.Errorf("it makes more than %d MiB of data", maxBytes>>20)
	errTooLong  = fmt.Errorf("it takes longer than %s", maxTime)
)

func (b *budget) weigh(args ...any) (any, error) { return args[0], b.take(args[0]) }

// take accounts for a value.
func (b *budget) take(v any) error {
	if b.left = weight(v, b.left); b.left < 0 {
		return errTooLarge
	}
	if b.ctx.Err() != nil {
		return errTooLong
	}
	return nil
}

// weight returns what is left when v was paid for. It stops where nothing is, since the
// parts of a value may be the same one many times.
func weight(v any, left int) int {
	left -= 16
	switch v := v.(type) {
	case string:
		left -= len(v)
	case json.Number:
		left -= len(v)
	case []byte:
		left -= len(v)
	case []int:
		left -= 8 * len(v)
	case []string:
		for _, s := range v {
			left -= 16 + len(s)
		}
	case []any:
		for _, e := range v {
			if left = weight(e, left); left < 0 {
				break
			}
		}
	case map[string]any:
		for k, e := range v {
			if left = weight(e, left-len(k)); left < 0 {
				break
			}
		}
	}
	return left
}

// inspection goes through a syntax tree, a node after what it is made of. It notes what
// the expression uses, and has each value that can be large weighed.
type inspection struct {
	x     *expression
	err   string
	whole map[string]int // how often a name stands without one of its parts
}

// Visit is called for each node.
func (i *inspection) Visit(node *ast.Node) {
	switch n := (*node).(type) {
	case *ast.IdentifierNode:
		i.name(n.Value)
	case *ast.MemberNode:
		i.member(n)
	case *ast.PredicateNode:
		n.Node = weighed(n.Node)
	case *ast.VariableDeclaratorNode:
		n.Value = weighed(n.Value)
	case *ast.BinaryNode:
		if t := n.Type(); n.Operator == "+" && (t == nil || t.Kind() != reflect.Int && t.Kind() != reflect.Float64) {
			*node = weighed(n)
		}
	case *ast.BuiltinNode, *ast.CallNode, *ast.ArrayNode, *ast.MapNode:
		*node = weighed(n)
	}
}

func weighed(n ast.Node) ast.Node {
	call := &ast.CallNode{Callee: &ast.IdentifierNode{Value: weigh}, Arguments: []ast.Node{n}}
	call.SetLocation(n.Location())
	call.Callee.SetLocation(n.Location())
	return call
}

func (i *inspection) name(name string) {
	switch name {
	case "params":
		i.x.uses.Flow = true
	case "outputs", "secrets", "flow":
		if i.whole == nil {
			i.whole = make(map[string]int)
		}
		i.whole[name]++
	case "$env": // all at once
		i.err = "unknown name $env"
	}
}

// secretName has no dots and slashes: a secret may be a file.
var secretName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,99}$`)

// member notes which output or secret is meant, after its name was seen.
func (i *inspection) member(n *ast.MemberNode) {
	of, is := n.Node.(*ast.IdentifierNode)
	if !is {
		return
	}
	switch key := n.Property.(type) {
	case *ast.IntegerNode:
		if of.Value == "outputs" {
			i.whole[of.Value]--
			i.x.uses.Outputs = append(i.x.uses.Outputs, key.Value)
		}
	case *ast.StringNode:
		switch {
		case of.Value == "flow" && key.Value != "registered":
			i.whole[of.Value]--
		case of.Value == "secrets" && secretName.MatchString(key.Value):
			i.whole[of.Value]--
			i.x.uses.Secrets = append(i.x.uses.Secrets, key.Value)
		}
	}
}

// end sums up, and says what is wrong with what was seen.
func (i *inspection) end() (problem string) {
	i.x.uses.Flow = i.x.uses.Flow || i.whole["flow"] > 0
	switch {
	case i.err != "":
		return i.err
	case i.whole["outputs"] > 0:
		return "outputs needs the task_seq of a task, as in outputs[1]"
	case i.whole["secrets"] > 0:
		return "secrets needs a name of letters, digits and _, as in secrets.TOKEN"
	}
	return ""
}
