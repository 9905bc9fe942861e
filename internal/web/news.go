package web

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/d-tsuji/flower/internal/flow"
)

// news is what every page says, read at most once in a while however many pages are open.
type news struct {
	mu        sync.Mutex
	at        time.Time      // when it was read; guarded by mu
	of        int64          // the generation that it is of; guarded by mu
	attention flow.Attention // guarded by mu
}

// newsAge is how old it may be.
const newsAge = time.Second

// attention returns what needs a person.
func (s *Site) attention(ctx context.Context) (flow.Attention, error) {
	s.news.mu.Lock()
	defer s.news.mu.Unlock()
	generation := s.generation.Load()
	if time.Since(s.news.at) < newsAge && s.news.of == generation {
		return s.news.attention, nil
	}
	a, err := s.store.Attention(ctx)
	if err == nil {
		s.news.at, s.news.of, s.news.attention = time.Now(), generation, a
	}
	return a, err
}

// tell puts into a page what needs a person, on whatever page. Where it cannot be found out
// it says nothing: the page itself fails if the database is away.
func (s *Site) tell(ctx context.Context, sh *shell) {
	a, err := s.attention(ctx)
	if err != nil {
		return
	}
	sh.Banner = newBanner(a)
	if a.Failed.N > 0 {
		sh.Failures = number(a.Failed)
	}
}

// newBanner says what is worst. What tasks say by themselves is not said here.
func newBanner(a flow.Attention) *banner {
	switch {
	case a.NoWatcher && a.CanGo.N > 0:
		verb := "can go and nothing runs. Start one, with register's -dbhost or DATABASE_URL:"
		return &banner{Text: fmt.Sprintf("No watcher is connected. %s %s", counted(a.CanGo, "task", "tasks"), verb), Remedy: "watcher"}
	case len(a.Strangers) > 0:
		return &banner{Text: fmt.Sprintf("No live watcher has the program %s. Its tasks will be suspended as invalid.", strings.Join(a.Strangers, ", "))}
	case len(a.Check.Broken) > 0:
		return &banner{
			Text:   fmt.Sprintf("A rule of the database is broken: %s. Watchers repair it within a minute or two, as a rule:", a.Check.Broken[0].Rule),
			Remedy: "SELECT * FROM v_invariant;",
		}
	}
	return nil
}

// counted writes a count that may be "1,000+".
func counted(c flow.Count, one, many string) string {
	if c.More {
		return number(c) + " " + many
	}
	return plural(c.N, one, many)
}

// number writes a count: 7, 1,000+.
func number(c flow.Count) string {
	text := thousands(c.N)
	if c.More {
		text += "+"
	}
	return text
}

// thousands writes 12,345.
func thousands(n int) string {
	text := fmt.Sprint(n)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}
