package secret

import (
	"encoding/base64"
	"encoding/json"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// stars are what stands in the place of a secret.
const stars = "***"

// mask finds secrets in texts. It never changes.
type mask struct {
	begins  [1 << 16 / 64]uint64 // whether one of the patterns begins with two bytes
	byBegin map[uint16][]string  // the patterns, the longest first
	all     []string
	longest int
}

func newMask(values map[string]bool) *mask {
	m := &mask{byBegin: make(map[uint16][]string)}
	patterns := make(map[string]bool)
	for value := range values {
		for _, p := range forms(value) {
			// A line within it, or what base64 leaves of a short one.
			if len(p) >= MinLength {
				patterns[p] = true
			}
		}
	}
	m.all = slices.SortedFunc(maps.Keys(patterns), func(a, b string) int { return len(b) - len(a) })
	for _, p := range m.all {
		at := begin(p)
		m.begins[at>>6] |= 1 << (at & 63)
		m.byBegin[at] = append(m.byBegin[at], p)
		m.longest = max(m.longest, len(p))
	}
	return m
}

func begin(s string) uint16 { return uint16(s[0])<<8 | uint16(s[1]) }

// forms returns how a secret may be written. None of them has a line break in it.
func forms(value string) []string {
	quoted := strconv.Quote(value)
	// In one line, with single blanks, Flower's programs repeat what they were told.
	all := []string{quoted[1 : len(quoted)-1], strings.Join(strings.Fields(value), " ")}
	for _, html := range []bool{false, true} {
		once := inJSON(value, html)
		all = append(all, once, inJSON(once, html)) // JSON is often a text within JSON
	}
	all = append(all,
		url.QueryEscape(value), url.PathEscape(value), url.UserPassword("", value).String()[1:])
	for line := range strings.Lines(value) {
		all = append(all, strings.Trim(line, "\r\n"))
	}
	for _, e := range []*base64.Encoding{base64.StdEncoding, base64.URLEncoding} {
		all = append(all, withinBase64(e, value)...)
	}
	encoded := base64.StdEncoding.EncodeToString([]byte(value))
	for _, width := range []int{64, 76} { // as PEM and the command base64 break it into lines
		for line := range slices.Chunk([]byte(encoded), width) {
			all = append(all, string(line))
		}
	}
	return all
}

// inJSON is how JSON writes a text, with or without a thought of HTML.
func inJSON(text string, html bool) string {
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(html)
	_ = e.Encode(text) // a text always can be
	return strings.TrimSuffix(b.String(), "\"\n")[1:]
}

// withinBase64 returns what a text becomes within a longer one in base64: three different
// texts, since three bytes become four letters. Letters that also depend on what is beside
// it are left out.
func withinBase64(e *base64.Encoding, value string) []string {
	var all []string
	for before := range 3 {
		text := e.WithPadding(base64.NoPadding).EncodeToString([]byte(strings.Repeat("\x00", before) + value))
		bits := 8 * before
		first := (bits + 5) / 6
		last := (bits + 8*len(value)) / 6
		all = append(all, text[first:last])
	}
	return all
}

// span is a part of a text.
type span struct{ from, to int }

// spans returns where secrets are in a text, in order, none touching another.
func (m *mask) spans(text string) []span {
	var found []span
	for i := 0; i+1 < len(text); i++ {
		at := begin(text[i:])
		if m.begins[at>>6]&(1<<(at&63)) == 0 {
			continue
		}
		for _, p := range m.byBegin[at] {
			if !strings.HasPrefix(text[i:], p) {
				continue
			}
			if n := len(found); n > 0 && i <= found[n-1].to {
				found[n-1].to = max(found[n-1].to, i+len(p))
			} else {
				found = append(found, span{i, i + len(p)})
			}
			break
		}
	}
	return found
}

// replaced returns a text with stars for parts of it.
func replaced(text string, parts []span) string {
	if len(parts) == 0 {
		return text
	}
	var b strings.Builder
	last := 0
	for _, p := range parts {
		b.WriteString(text[last:p.from])
		b.WriteString(stars)
		last = p.to
	}
	b.WriteString(text[last:])
	return b.String()
}

// text masks a whole text.
func (m *mask) text(text string) string {
	if m == nil {
		return text
	}
	return m.cuts(replaced(text, m.spans(text)))
}

// leastCut is how much of a secret is masked where a text was cut: less of it gives
// nothing away, and would be found in ordinary words.
const leastCut = 6

// ellipsis is what Flower's programs put where they cut a text. One without may have been
// cut at its ends if it is as long as longText, which nobody is stricter than: of a short
// one a part of a secret such as "postgres-4711" is just a word.
const (
	ellipsis = "…"
	longText = 1000
)

// cuts masks what is left of a secret where a text was cut: its beginning before the cut,
// its end behind it.
func (m *mask) cuts(text string) string {
	pieces := strings.Split(text, ellipsis)
	if len(pieces) == 1 && len(text) < longText {
		return text
	}
	for i, piece := range pieces {
		before, after := 0, 0
		for _, p := range m.all {
			if i > 0 || len(text) >= longText {
				before = max(before, overlap(len(p), len(piece), func(n int) bool { return strings.HasPrefix(piece, p[len(p)-n:]) }))
			}
			if i < len(pieces)-1 || len(text) >= longText {
				after = max(after, overlap(len(p), len(piece), func(n int) bool { return strings.HasSuffix(piece, p[:n]) }))
			}
		}
		if before+after > len(piece) {
			pieces[i] = stars
			continue
		}
		if after > 0 {
			piece = piece[:len(piece)-after] + stars
		}
		if before > 0 {
			piece = stars + piece[before:]
		}
		pieces[i] = piece
	}
	return strings.Join(pieces, ellipsis)
}

// overlap returns the largest part of a pattern, but not all of it, that a piece ends with.
func overlap(pattern, piece int, at func(n int) bool) int {
	for n := min(pattern-1, piece); n >= leastCut; n-- {
		if at(n) {
			return n
		}
	}
	return 0
}

// Mask returns a text with stars instead of secrets.
func (s *Store) Mask(text string) string { return s.masks().text(text) }

// MaskJSON returns a JSON value with stars instead of secrets, in its strings, its keys and
// its numbers. What is not JSON is masked as a text.
func (s *Store) MaskJSON(raw json.RawMessage) json.RawMessage {
	m := s.masks()
	if m == nil || raw == nil {
		return raw
	}
	var v any
	d := json.NewDecoder(strings.NewReader(string(raw)))
	d.UseNumber()
	if !json.Valid(raw) || d.Decode(&v) != nil {
		return json.RawMessage(m.text(string(raw)))
	}
	v, changed := m.value(v)
	if !changed {
		return raw
	}
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		panic(err) // no value that was decoded from JSON fails
	}
	return json.RawMessage(strings.TrimSuffix(b.String(), "\n"))
}

func (m *mask) value(v any) (masked any, changed bool) {
	switch v := v.(type) {
	case string:
		text := m.text(v)
		return text, text != v
	case json.Number:
		if text := m.text(string(v)); text != string(v) {
			return text, true
		}
	case []any:
		for i, e := range v {
			one, is := m.value(e)
			v[i], changed = one, changed || is
		}
		return v, changed
	case map[string]any:
		object := make(map[string]any, len(v))
		for key, e := range v {
			one, is := m.value(e)
			k := m.text(key)
			object[k], changed = one, changed || is || k != key
		}
		return object, changed
	}
	return v, false
}
