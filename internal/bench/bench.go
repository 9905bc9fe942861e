package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"slices"
	"time"

	"github.com/d-tsuji/flower/internal/pgdev"
	"github.com/d-tsuji/flower/internal/postgres"
	"github.com/d-tsuji/flower/migrations"
)

type options struct {
	scale    float64
	workers  int
	rounds   int
	dsn      string
	jsonFile string
	peers    peers
}

// settings of the private server: durable, with room in memory, so that what is measured
// is the engine.
var settings = []string{
	"shared_buffers=1GB", "max_wal_size=8GB", "checkpoint_timeout=30min", "fsync=on", "synchronous_commit=on",
	"full_page_writes=on", "max_connections=100", "track_io_timing=off",
}

type bench struct {
	options
	server  *pgdev.Server // nil: given by -dsn
	admin   *sql.DB
	now     workload
	out     *os.File // JSON lines; nil: none
	version string
}

func start(ctx context.Context, o options) (*bench, error) {
	b := &bench{options: o}
	if o.dsn == "" {
		s, err := pgdev.Start(ctx, pgdev.Options{Durable: true, Conf: settings})
		if err != nil {
			return nil, err
		}
		b.server, b.dsn = s, s.DSN
	}
	admin, err := sql.Open("postgres", b.dsn)
	if err != nil {
		return nil, err
	}
	b.admin = admin
	if err := admin.QueryRowContext(ctx, "SHOW server_version").Scan(&b.version); err != nil {
		return nil, fmt.Errorf("ask the server: %w", err)
	}
	if o.jsonFile != "" {
		if b.out, err = os.OpenFile(o.jsonFile, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644); err != nil {
			return nil, err
		}
	}
	return b, nil
}

func (b *bench) close() {
	_ = b.admin.Close()
	if b.out != nil {
		_ = b.out.Close()
	}
	if b.server != nil {
		b.server.Stop()
	}
}

func (b *bench) printSettings() {
	fmt.Printf("PostgreSQL %s, %s, %d cores; %d workers, median of %d rounds, scale %g\n", b.version, runtime.Version(),
		runtime.NumCPU(), b.workers, b.rounds, b.scale)
	if b.server != nil {
		fmt.Println(settings)
	}
}

func (b *bench) begin(w workload) {
	b.now = w
	fmt.Printf("\n%s  %s\n", w.name, w.about)
}

// n scales the size of a workload.
func (b *bench) n(full int) int { return max(1, int(float64(full)*b.scale)) }

// figure is one result.
type figure struct {
	Workload string  `json:"workload"`
	Name     string  `json:"name"`
	Value    float64 `json:"value"`
	Unit     string  `json:"unit"`
	Of       string  `json:"of,omitempty"`    // what it is compared with
	Ratio    float64 `json:"ratio,omitempty"` // of the value to that
	Least    float64 `json:"least,omitempty"` // of the rounds
	Most     float64 `json:"most,omitempty"`
}

func (b *bench) report(f figure) {
	f.Workload = b.now.name
	line := fmt.Sprintf("  %-44s %10.4g %-8s", f.Name, f.Value, f.Unit)
	if f.Of != "" {
		line += fmt.Sprintf(" %6.2f of %s", f.Ratio, f.Of)
	}
	if f.Most > f.Least {
		line += fmt.Sprintf("   (%.4g to %.4g)", f.Least, f.Most)
	}
	fmt.Println(line)
	if b.out != nil {
		text, _ := json.Marshal(f) // numbers and strings
		_, _ = b.out.Write(append(text, '\n'))
	}
}

// inTurn measures several things in turn, b.rounds times, so that a machine whose speed
// moves slows all of them alike, and reports the median of each: in the unit, and as a
// ratio to the first, which is called of.
func (b *bench) inTurn(unit, of string, first thing, others ...thing) error {
	things := append([]thing{first}, others...)
	values := make([][]float64, len(things))
	for range b.rounds {
		for i, t := range things {
			v, err := t.measure()
			if err != nil {
				return fmt.Errorf("%s: %w", t.name, err)
			}
			values[i] = append(values[i], v)
		}
	}
	var base float64
	for i, t := range things {
		slices.Sort(values[i])
		f := figure{Name: t.name, Value: values[i][len(values[i])/2], Unit: unit, Least: values[i][0], Most: values[i][len(values[i])-1]}
		if i == 0 {
			base = f.Value
		} else {
			f.Of, f.Ratio = of, f.Value/base
		}
		b.report(f)
	}
	return nil
}

type thing struct {
	name    string
	measure func() (float64, error)
}

// database makes a fresh database with Flower's schema and gives it to f.
func (b *bench) database(ctx context.Context, f func(*sql.DB, postgres.Config) error) error {
	const name = "flower_bench"
	if _, err := b.admin.ExecContext(ctx, "DROP DATABASE IF EXISTS "+name+" WITH (FORCE)"); err != nil {
		return err
	}
	if _, err := b.admin.ExecContext(ctx, "CREATE DATABASE "+name); err != nil {
		return err
	}
	cfg := postgres.Config{URL: b.dsn + " dbname=" + name, Application: "flower-bench"}
	db, err := sql.Open("postgres", cfg.URL)
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }()
	if err := migrations.Up(ctx, db, slog.New(slog.DiscardHandler)); err != nil {
		return err
	}
	return f(db, cfg)
}

// perSecond times f, which does n things.
func perSecond(n int, f func() error) (float64, error) {
	begun := time.Now()
	err := f()
	return float64(n) / time.Since(begun).Seconds(), err
}
