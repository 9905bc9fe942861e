package api

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf16"

	"github.com/d-tsuji/flower/internal/request"
)

// curl is the command that posts to a path. It runs nothing else, whoever chose the ids in
// it: & and $ may stand in a path as they are, and a shell acts on them.
func (v view) curl(path string) string {
	word := v.site + path
	if strings.ContainsFunc(word, commands) {
		word = "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
	}
	return "curl -X POST " + word
}

// commands reports whether a shell may take a character for more than itself.
func commands(r rune) bool {
	return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune("/:.-_%@+,=", r))
}

// maxRepeated is how long a body may be, in bytes, that is printed to be sent again.
const maxRepeated = 4 << 10

// again says how to do what a preview has shown: by the same request, with its plan. With ***
// in the place of a secret it would not be the same, and one on a screen is no secret.
func (v view) again(plan string) string {
	body, ok := repeated(v.body, plan)
	if !ok {
		return fmt.Sprintf(`the same request, with "plan": %q instead of "dryRun"`, plan)
	}
	return v.curl(v.path) + " -d '" + body + "'"
}

// repeated returns the body of a preview with a plan in the place of dryRun, in one line. It
// returns false if that is not to be shown.
func repeated(body []byte, plan string) (string, bool) {
	v, err := request.Decode[any](body)
	if err != nil || len(body) > maxRepeated {
		return "", false
	}
	if open := request.Compact(v); !bytes.Equal(open, request.Compact(request.Mask(v))) {
		return "", false
	}
	var fields []string
	d := json.NewDecoder(bytes.NewReader(body))
	_, _ = d.Token() // the brace; that all of it can be read has been seen
	for d.More() {
		name, _ := d.Token()
		var value json.RawMessage
		if d.Decode(&value) != nil {
			return "", false
		}
		key := fmt.Sprint(name)
		if strings.EqualFold(key, "dryRun") || strings.EqualFold(key, "plan") { // any case was taken
			continue
		}
		var line bytes.Buffer
		if json.Compact(&line, value) != nil {
			return "", false
		}
		fields = append(fields, fmt.Sprintf("%q: %s", key, &line))
	}
	return plainJSON("{" + strings.Join(append(fields, fmt.Sprintf(`"plan": %q`, plan)), ", ") + "}"), true
}

// plainJSON writes JSON so that it can stand between a shell's quotes, and cannot command a
// terminal. What it escapes stands in strings alone, which stay what they are.
func plainJSON(text string) string {
	var b strings.Builder
	for _, r := range text {
		if r != '\'' && unicode.IsGraphic(r) {
			b.WriteRune(r)
			continue
		}
		for _, half := range utf16.Encode([]rune{r}) {
			fmt.Fprintf(&b, `\u%04x`, half)
		}
	}
	return b.String()
}
