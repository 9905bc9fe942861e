package program

import (
	"bytes"
	"strings"
	"unicode"
)

// tail keeps the end of what is written to it, max bytes.
type tail struct {
	max  int
	b    []byte // at most twice as much
	over bool   // there was more
}

func (t *tail) Write(p []byte) (int, error) {
	n := len(p)
	p = p[max(0, n-t.max):]
	t.over = t.over || len(t.b)+n > t.max
	if len(t.b)+len(p) > 2*t.max {
		t.b = append(t.b[:0], t.b[len(t.b)-min(len(t.b), t.max):]...)
	}
	t.b = append(t.b, p...)
	return n, nil
}

// text returns it as a text that the database takes and a person can read.
func (t *tail) text() string {
	end := string(t.b[max(0, len(t.b)-t.max):])
	if t.over {
		end = wholeRunes(end)
	}
	return printable(end)
}

// marked is text for an error, with an ellipsis where it was cut: there may be the rest of a
// secret.
func (t *tail) marked() string {
	text := t.text()
	if t.over && text != "" {
		return "…" + text
	}
	return text
}

// printable is readable for several lines.
func printable(s string) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case r == '\n', r == '\t':
			return r
		case unicode.IsControl(r), unicode.Is(unicode.Bidi_Control, r):
			return -1
		}
		return r
	}, strings.ToValidUTF8(s, "\uFFFD"))
	return strings.TrimSpace(s)
}

// lastLine keeps the last line with something on it, max bytes of it.
type lastLine struct {
	max       int
	now, last []byte
	cut, over bool // of now and last: there was more
}

// Write looks at lines from the end: of a gigabyte of them, all but the last ones pass
// without being looked at.
func (l *lastLine) Write(p []byte) (int, error) {
	end := bytes.LastIndexByte(p, '\n')
	if end < 0 {
		l.add(p)
		return len(p), nil
	}
	for lines := p[:end]; ; {
		i := bytes.LastIndexByte(lines, '\n')
		line := lines[i+1:]
		if i < 0 { // it goes on with what came before
			l.add(line)
			l.end()
			break
		}
		if len(bytes.TrimSpace(line)) > 0 {
			l.now, l.cut = l.now[:0], false
			l.add(line)
			l.end()
			break
		}
		lines = lines[:i]
	}
	l.add(p[end+1:])
	return len(p), nil
}

func (l *lastLine) add(part []byte) {
	n := min(len(part), l.max-len(l.now))
	l.cut = l.cut || len(part) > n
	l.now = append(l.now, part[:n]...)
}

func (l *lastLine) end() {
	if len(bytes.TrimSpace(l.now)) > 0 {
		l.now, l.last = l.last[:0], l.now
		l.over = l.cut
	}
	l.now, l.cut = l.now[:0], false
}

// line returns it, and whether that is all of it.
func (l *lastLine) line() (text string, whole bool) {
	l.end()
	return string(bytes.TrimSpace(l.last)), !l.over
}
