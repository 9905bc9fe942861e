package postgres

import (
	"bytes"
	"database/sql"
	"database/sql/driver"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/lib/pq"

	"github.com/d-tsuji/flower/internal/flow"
)

// maxRows is how many rows of an answer are kept.
const maxRows = 100

// resultRows is what a statement came to.
type resultRows interface {
	driver.RowsColumnTypeDatabaseTypeName
	Result() driver.Result // after the last row
	Tag() string           // likewise: "INSERT", "CREATE TABLE"
}

// outputOf reads the answer of a statement to its end and makes it an output:
//
//	{"row_count": 2, "rows": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}]}
//
// row_count is how many rows the statement returned, or else changed. Of the rows the first
// maxRows are kept, and no more than flow.MaxOutput has room for: whatever the statement
// did is done, and must not become a failure for the size of its answer. Where rows were
// left out, "truncated" is true.
func outputOf(rows resultRows) (output json.RawMessage, tag string, err error) {
	o := newOutput(rows)
	dest := make([]driver.Value, len(o.names))
	for {
		switch err := rows.Next(dest); {
		case errors.Is(err, io.EOF):
			changed, _ := rows.Result().RowsAffected() // an error: it is nothing that counts
			if changed == 0 {
				changed = countIn(rows.Tag())
			}
			return o.json(changed), rows.Tag(), nil
		case err != nil:
			return nil, "", err
		}
		if o.add(dest); o.truncated {
			dest = nil // the rest is only counted
		}
	}
}

// countIn reads the number of rows from a tag that lib/pq does not know: "MERGE 2".
func countIn(tag string) int64 {
	n, _ := strconv.ParseInt(tag[strings.LastIndexByte(tag, ' ')+1:], 10, 64)
	return n
}

// rowOutput gathers rows as JSON.
type rowOutput struct {
	names, types []string
	rows         bytes.Buffer
	seen, kept   int64
	truncated    bool
}

func newOutput(rows resultRows) *rowOutput {
	o := &rowOutput{}
	used := map[string]int{}
	for i, name := range rows.Columns() {
		// Two columns may have one name, two members of an object may not.
		if used[name]++; used[name] > 1 {
			name += "_" + strconv.Itoa(used[name])
		}
		o.names = append(o.names, string(encode(name)))
		o.types = append(o.types, rows.ColumnTypeDatabaseTypeName(i))
	}
	return o
}

// maxRow is how large a row may come to be looked at, in bytes. As JSON it may be smaller,
// without spaces; one that is far too large is not copied for that.
const maxRow = 16 * flow.MaxOutput

func sizeOf(values []driver.Value) (n int) {
	for _, v := range values {
		switch v := v.(type) {
		case []byte:
			n += len(v)
		case string:
			n += len(v)
		}
	}
	return n
}

// add adds a row, if it has its place.
func (o *rowOutput) add(values []driver.Value) {
	o.seen++
	if o.truncated || o.kept == maxRows || sizeOf(values) > maxRow {
		o.truncated = true
		return
	}
	const around = len(`{"row_count":9223372036854775807,"rows":[],"truncated":true}`)
	before := o.rows.Len()
	members := make([][]byte, len(values))
	for i, v := range values {
		members[i] = fmt.Appendf(nil, "%s:%s", o.names[i], encode(jsonOf(v, o.types[i])))
	}
	fmt.Fprintf(&o.rows, "{%s},", bytes.Join(members, []byte(",")))
	if o.rows.Len()+around > flow.MaxOutput {
		o.rows.Truncate(before)
		o.truncated = true
		return
	}
	o.kept++
}

func (o *rowOutput) json(changed int64) json.RawMessage {
	count := max(changed, o.seen)
	rows := bytes.TrimSuffix(o.rows.Bytes(), []byte(","))
	mark := ""
	if o.truncated {
		mark = `,"truncated":true`
	}
	return fmt.Appendf(nil, `{"row_count":%d,"rows":[%s]%s}`, count, rows, mark)
}

// encode marshals v without the escapes that are for HTML, which would only take room.
func encode(v any) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return []byte("null") // no value of jsonOf fails
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}

// jsonOf makes a value of the driver's what PostgreSQL's to_json makes of it, but for
// composite types and arrays of arrays, which are text. Numbers keep all their digits.
func jsonOf(v driver.Value, kind string) any {
	switch v := v.(type) {
	case float64:
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return textOf(strconv.FormatFloat(v, 'f', -1, 64))
		}
	case time.Time:
		return timeText(v, kind)
	case []byte:
		if kind == "BYTEA" {
			return `\x` + hex.EncodeToString(v)
		}
		return ofText(string(v), kind)
	}
	return v
}

// textOf writes what is no number as PostgreSQL does.
func textOf(s string) string {
	return strings.NewReplacer("+Inf", "Infinity", "-Inf", "-Infinity").Replace(s)
}

// ofText is jsonOf for a value that came as text.
func ofText(text, kind string) any {
	switch kind {
	case "JSON", "JSONB":
		return json.RawMessage(text)
	case "NUMERIC", "INT2", "INT4", "INT8", "FLOAT4", "FLOAT8":
		if json.Valid([]byte(text)) { // NaN is not
			return json.Number(text)
		}
	case "BOOL":
		return text == "t"
	}
	element, isArray := strings.CutPrefix(kind, "_")
	if !isArray {
		return text
	}
	var texts []sql.NullString
	if err := pq.Array(&texts).Scan(text); err != nil {
		return text
	}
	items := make([]any, len(texts))
	for i, t := range texts {
		if t.Valid {
			items[i] = ofText(t.String, element)
		}
	}
	return items
}

// timeText writes a time in ISO 8601, as to_json does.
func timeText(t time.Time, kind string) string {
	layout := map[string]string{
		"DATE":      "2006-01-02",
		"TIME":      "15:04:05.999999",
		"TIMETZ":    "15:04:05.999999-07:00",
		"TIMESTAMP": "2006-01-02T15:04:05.999999",
	}[kind]
	switch {
	case layout == "":
		layout = "2006-01-02T15:04:05.999999-07:00"
	case layout[:2] == "15" && t.Day() == 2: // lib/pq makes midnight of the next day of 24:00
		return "24" + t.Format(layout)[2:]
	}
	return t.Format(layout)
}
