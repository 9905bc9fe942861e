package secret

import (
	"bytes"
	"io"
	"sync"
)

// longLine is how much of a line is kept until its end comes, or more where a secret is
// long. A longer line is passed on in parts.
const longLine = 64 << 10

// Writer masks what is written to it, line by line, and passes it on.
type Writer struct {
	store *Store
	to    io.Writer

	mu     sync.Mutex
	line   []byte // what came of a line; guarded by mu
	closed bool   // guarded by mu
}

// Writer returns one. It must be closed, or the last line is lost if it has no end.
func (s *Store) Writer(to io.Writer) *Writer { return &Writer{store: s, to: to} }

// Write passes whole lines on. What comes after Close is dropped.
func (w *Writer) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return len(b), nil
	}
	m := w.store.masks()
	if m == nil && len(w.line) == 0 {
		return w.to.Write(b)
	}
	n := len(b)
	most := longLine
	if m != nil {
		most = max(longLine, 2*m.longest)
	}
	for len(b) > 0 {
		part := b[:min(len(b), most)]
		if end := bytes.LastIndexByte(part, '\n'); end >= 0 {
			part = part[:end+1]
		}
		w.line, b = append(w.line, part...), b[len(part):]
		if part[len(part)-1] != '\n' && len(w.line) < most {
			continue
		}
		if err := w.pass(m); err != nil {
			return n, err
		}
	}
	return n, nil
}

// pass masks what is there and passes it on. The caller holds mu.
func (w *Writer) pass(m *mask) error {
	text := m.text(string(w.line))
	w.line = w.line[:0]
	_, err := io.WriteString(w.to, text)
	return err
}

// Close passes on what came without an end of line.
func (w *Writer) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	if len(w.line) == 0 {
		return nil
	}
	return w.pass(w.store.masks())
}
