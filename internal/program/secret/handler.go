package secret

import (
	"context"
	"encoding/json"
	"log/slog"
)

// handler masks what is logged.
type handler struct {
	store *Store
	to    slog.Handler
}

// Handler returns a handler of log lines that masks them and passes them on.
func (s *Store) Handler(to slog.Handler) slog.Handler { return handler{s, to} }

func (h handler) Enabled(ctx context.Context, l slog.Level) bool { return h.to.Enabled(ctx, l) }

func (h handler) Handle(ctx context.Context, r slog.Record) error {
	m := h.store.masks()
	if m == nil {
		return h.to.Handle(ctx, r)
	}
	masked := slog.NewRecord(r.Time, r.Level, m.text(r.Message), r.PC)
	r.Attrs(func(a slog.Attr) bool {
		masked.AddAttrs(m.attr(a))
		return true
	})
	return h.to.Handle(ctx, masked)
}

func (h handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	if m := h.store.masks(); m != nil {
		attrs = m.attrs(attrs)
	}
	return handler{h.store, h.to.WithAttrs(attrs)}
}

func (h handler) WithGroup(name string) slog.Handler { return handler{h.store, h.to.WithGroup(name)} }

func (m *mask) attrs(attrs []slog.Attr) []slog.Attr {
	masked := make([]slog.Attr, len(attrs))
	for i, a := range attrs {
		masked[i] = m.attr(a)
	}
	return masked
}

// attr masks a fact, whatever its type: what has a secret in it becomes a text.
func (m *mask) attr(a slog.Attr) slog.Attr {
	a.Key, a.Value = m.text(a.Key), a.Value.Resolve()
	switch a.Value.Kind() {
	case slog.KindGroup:
		a.Value = slog.GroupValue(m.attrs(a.Value.Group())...)
		return a
	case slog.KindAny:
		switch v := a.Value.Any().(type) {
		case error: // written as its text
		case []byte:
			a.Value = slog.StringValue(string(v))
		default: // written as JSON, or as Go does it
			raw, err := json.Marshal(v)
			if text := m.text(string(raw)); err == nil && text != string(raw) {
				a.Value = slog.StringValue(text)
			}
		}
	}
	if text := a.Value.String(); m.text(text) != text {
		a.Value = slog.StringValue(m.text(text))
	}
	return a
}
