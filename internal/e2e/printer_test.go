package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/d-tsuji/flower/internal/postgres"
	"github.com/d-tsuji/flower/internal/watcher"
)

// printer is the main function of a watcher with one program, Print. It is this test's
// own binary under another name.
func printer() int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	log := slog.New(slog.NewJSONHandler(os.Stderr, nil))
	if err := watchPrinting(ctx, log); err != nil {
		log.Error("cannot go on", "err", err)
		return 1
	}
	return 0
}

func watchPrinting(ctx context.Context, log *slog.Logger) error {
	db, err := postgres.Open(postgres.Config{URL: os.Getenv("DATABASE_URL"), Application: "flower-watcher"}, log)
	if err != nil {
		return err
	}
	w, err := watcher.New(watcher.Config{
		Workers: 5, PollInterval: time.Second, ShutdownTimeout: 25 * time.Second, Host: "e2e", PID: os.Getpid(),
	}, db, printing{log}, log)
	if err != nil {
		return err
	}
	return errors.Join(w.Run(ctx), db.Close())
}

type printing struct{ log *slog.Logger }

func (printing) Names() []string { return []string{"Print"} }

func (printing) OffWithout(string) string { return "" }

// Run prints "line 1", "line 2" and so on, padded with dots, and tells the watcher's log
// each tenth of a second how far it is.
func (p printing) Run(ctx context.Context, a watcher.Attempt) (json.RawMessage, error) {
	var how struct {
		Lines, Width int
		PauseEvery   int           // lines
		Pause        time.Duration // nanoseconds
		Error        string
	}
	if err := json.Unmarshal(a.Task.Parameters, &how); err != nil {
		return nil, err
	}
	said := time.Now()
	for i := 1; i <= how.Lines; i++ {
		text := fmt.Sprintf("line %d", i)
		if _, err := io.WriteString(a.Stdout, text+strings.Repeat(".", max(0, how.Width-len(text)))+"\n"); err != nil {
			return nil, err
		}
		if how.PauseEvery == 0 || i%how.PauseEvery != 0 {
			continue
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(how.Pause):
		}
		if time.Since(said) > 100*time.Millisecond {
			said = time.Now()
			p.log.Info("printed", "flow", a.Task.Flow, "lines", i)
		}
	}
	if how.Error != "" {
		return nil, errors.New(how.Error)
	}
	return nil, nil
}
