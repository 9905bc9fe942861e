package postgres

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// When an answer is lost, lib/pq reports a bad connection and database/sql runs the
// statement again on another one: nothing that writes may go through a pool alone.
func TestSource_NoWriteGoesThroughThePoolAlone(t *testing.T) {
	t.Parallel()
	files, err := parser.ParseDir(token.NewFileSet(), ".", func(f fs.FileInfo) bool { return !strings.HasSuffix(f.Name(), "_test.go") }, 0) //nolint:staticcheck // one package, no build tags
	require.NoError(t, err)
	var all []*ast.File
	for _, f := range files["postgres"].Files {
		all = append(all, f)
	}
	found, calls := writesOfPools(all)
	require.Empty(t, found)
	require.GreaterOrEqual(t, calls, 2, "the test looks at what there is")
}

// The test above can fail.
func TestSource_FindsAWrite(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]int{
		`d.pool.SelectContext(ctx, &rows, readSQL)`:                           0,
		`d.pool.SelectContext(ctx, &rows, writeSQL)`:                          1,
		`d.slow.GetContext(ctx, &rows, writeSQL, 1)`:                          1,
		`d.pool.ExecContext(ctx, "DELETE FROM x")`:                            1,
		`d.pool.ExecContext(ctx, "SELECT " + call)`:                           1,
		`d.pool.QueryContext(ctx, text())`:                                    1, // nobody knows
		`pool.Exec("update x")`:                                               1,
		`d.writer.selectAll(ctx, &rows, writeSQL)`:                            0,
		`tx.ExecContext(ctx, writeSQL)`:                                       0,
		`d.inTx(ctx, func(tx *sqlx.Tx) error { return tx.Select(writeSQL) })`: 0,
	} {
		f, err := parser.ParseFile(token.NewFileSet(), "x.go", `package postgres
			const readSQL = "SELECT 1"
			const writeSQL = "WITH x AS (" + "INSERT INTO y)" + readSQL
			const call = "flower_recount(1)"
			func f() { `+text+` }`, 0)
		require.NoError(t, err, text)
		found, _ := writesOfPools([]*ast.File{f})
		require.Len(t, found, want, text)
	}
}

var writes = regexp.MustCompile(`(?i)\b(INSERT|UPDATE|DELETE|TRUNCATE|MERGE|COPY|flower_re\w+|flower_link|pg_notify)\b`)

// writesOfPools returns statements that write, or may, and are given to a pool, and the
// number of calls of pools that it looked at.
func writesOfPools(files []*ast.File) (found []string, calls int) {
	texts := map[string]ast.Expr{}
	for _, f := range files {
		for _, d := range f.Decls {
			g, ok := d.(*ast.GenDecl)
			if !ok || g.Tok != token.CONST {
				continue
			}
			for _, s := range g.Specs {
				v := s.(*ast.ValueSpec)
				for i := range v.Values {
					texts[v.Names[i].Name] = v.Values[i]
				}
			}
		}
	}
	for _, f := range files {
		ast.Inspect(f, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			statement, ok := statementOfPool(call)
			if !ok {
				return true
			}
			calls++
			if text, known := evaluate(statement, texts); !known || writes.MatchString(text) {
				found = append(found, text)
			}
			return true
		})
	}
	return found, calls
}

// statementOfPool returns the SQL of a call such as d.pool.SelectContext(ctx, &rows, sql, …).
func statementOfPool(call *ast.CallExpr) (ast.Expr, bool) {
	method, ok := call.Fun.(*ast.SelectorExpr)
	if !ok {
		return nil, false
	}
	name := ""
	switch x := method.X.(type) {
	case *ast.Ident:
		name = x.Name
	case *ast.SelectorExpr:
		name = x.Sel.Name
	}
	if name != "pool" && name != "slow" {
		return nil, false
	}
	verb, withContext := strings.CutSuffix(method.Sel.Name, "Context")
	place := map[string]int{"Exec": 0, "Query": 0, "Queryx": 0, "QueryRow": 0, "QueryRowx": 0, "Get": 1, "Select": 1, "NamedExec": 0, "NamedQuery": 0}
	i, sends := place[verb]
	if withContext {
		i++
	}
	if !sends || i >= len(call.Args) {
		return nil, false
	}
	return call.Args[i], true
}

// evaluate returns the text of an expression of constants.
func evaluate(e ast.Expr, texts map[string]ast.Expr) (string, bool) {
	switch e := e.(type) {
	case *ast.BasicLit:
		text, err := strconv.Unquote(e.Value)
		return text, err == nil
	case *ast.Ident:
		if text, known := texts[e.Name]; known {
			return evaluate(text, texts)
		}
	case *ast.BinaryExpr:
		left, known := evaluate(e.X, texts)
		right, alsoKnown := evaluate(e.Y, texts)
		return left + right, known && alsoKnown
	case *ast.ParenExpr:
		return evaluate(e.X, texts)
	}
	return "", false
}
