package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/d-tsuji/flower/internal/cli"
	"github.com/d-tsuji/flower/internal/definition"
	"github.com/d-tsuji/flower/internal/flow"
	"github.com/d-tsuji/flower/internal/postgres"
	"github.com/d-tsuji/flower/internal/program"
)

// applyConfig is what register apply can be told.
type applyConfig struct {
	database      postgres.Config
	files         []string
	dryRun, prune bool
	anyProgram    bool
	asJSON        bool
	by, note      string
}

func apply(ctx context.Context, env *cli.Env) error {
	var cfg applyConfig
	flags := cli.NewFlags(env.Name, "makes workflows what files say, all of them or none",
		"register apply -f definitions/ -dry-run", "register apply -f definitions/ -note 'as agreed'")
	flags.Group("Definitions")
	flags.Var(cli.Repeated(&cfg.files), "f FILE", "", "a file, a folder, or - for standard input; may be given several times")
	flags.Var(cli.Bool(&cfg.dryRun), "dry-run", "", "show what would change, and change nothing")
	flags.Var(cli.Bool(&cfg.prune), "prune", "", "delete the workflows that no file has")
	flags.Var(cli.Bool(&cfg.anyProgram), "any-program", "", "take programs that are known neither here nor to a watcher that runs")
	flags.Var(cli.Text(&cfg.note, ""), "note TEXT", "", "why, kept with the new versions")
	flags.Var(cli.Text(&cfg.by, ""), "by NAME", "USER", "who, kept likewise; else the login of the database")
	flags.Var(cli.Bool(&cfg.asJSON), "json", "", "print JSON, for scripts")
	databaseOf(flags, &cfg.database)
	flags.NotEmpty("f") // it would be the folder that one is in
	flags.ExitCodes("0 done, 1 failed, and nothing was changed, 2 wrong usage")
	flags.Check(func() error {
		if len(cfg.files) == 0 {
			return errors.New("-f is missing: a file, a folder, or - for standard input")
		}
		return nil
	})
	if err := flags.Parse(env); err != nil {
		return err
	}
	sources, problems, err := definition.Load(cfg.files, env.Stdin)
	if err != nil {
		return err
	}
	return withDatabase(ctx, cfg.database, func(db *postgres.DB) error {
		return cfg.apply(ctx, env, db, sources, problems)
	})
}

func (cfg applyConfig) apply(ctx context.Context, env *cli.Env, db *postgres.DB, sources []definition.Source, problems definition.Problems) error {
	programs := program.Default(program.Config{})
	elsewhere, err := db.WatcherPrograms(ctx)
	if err != nil {
		return err
	}
	edit := flow.DefinitionEdit{Prune: cfg.prune, Actor: cfg.by, Note: cfg.note, DryRun: cfg.dryRun}
	for _, s := range sources {
		edit.Put = append(edit.Put, s.Definition)
		for _, t := range s.Tasks {
			if cfg.anyProgram {
				elsewhere = append(elsewhere, t.Program)
			}
		}
	}
	problems = append(problems, definition.Check(sources, programs, elsewhere)...)
	if len(problems) > 0 {
		problems.Sort()
		fmt.Fprintln(env.Stderr, problems.Error())
		return fmt.Errorf("%s in the files; nothing was changed", count(len(problems), "problem"))
	}
	if len(edit.Put) == 0 {
		return errors.New("there is no workflow in the files; nothing was changed") // and -prune would delete all
	}
	edited, err := db.EditDefinitions(ctx, edit)
	switch {
	case errors.Is(err, flow.ErrLocked):
		return fmt.Errorf("%w, at psql perhaps: nothing was changed; try again when that has ended", flow.ErrLocked)
	case err != nil:
		return err
	}
	if cfg.asJSON {
		return definition.WriteJSON(env.Stdout, cfg.dryRun, edited)
	}
	return definition.WriteText(env.Stdout, cfg.dryRun, edited)
}

func export(ctx context.Context, env *cli.Env) error {
	var database postgres.Config
	var ids []string
	var dir, format string
	flags := cli.NewFlags(env.Name, "writes workflows as files, which register apply reads",
		"register export nightly > nightly.yaml", "register export -o definitions/")
	flags.Args("[TASK…]", &ids)
	flags.Group("Definitions")
	flags.Var(cli.Text(&dir, ""), "o DIR", "", "write a file for each workflow into this folder, not to standard output")
	flags.Var(cli.OneOf(&format, definition.YAML, definition.YAML, definition.JSON), "format FORMAT", "", "yaml or json")
	databaseOf(flags, &database)
	flags.ExitCodes("0 done, 1 failed, 2 wrong usage")
	if err := flags.Parse(env); err != nil {
		return err
	}
	return withDatabase(ctx, database, func(db *postgres.DB) error {
		workflows, err := chosen(ctx, db, ids)
		switch {
		case err != nil:
			return err
		case dir != "":
			return writeFiles(env.Stdout, dir, format, workflows)
		}
		return definition.Write(env.Stdout, format, workflows...)
	})
}

// chosen reads workflows by their ids, all if there are none, in the order of their ids.
func chosen(ctx context.Context, db *postgres.DB, names []string) ([]flow.Definition, error) {
	var ids []flow.WorkflowID
	for _, name := range names {
		ids = append(ids, flow.WorkflowID(name))
	}
	found, err := db.Definitions(ctx, ids)
	if err != nil {
		return nil, err
	}
	for _, id := range ids {
		if _, there := found[id]; !there {
			return nil, fmt.Errorf("there is no workflow %q", id)
		}
	}
	var workflows []flow.Definition
	for _, w := range found {
		workflows = append(workflows, w)
	}
	slices.SortFunc(workflows, func(a, b flow.Definition) int { return strings.Compare(string(a.ID), string(b.ID)) })
	return workflows, nil
}

func writeFiles(stdout io.Writer, dir, format string, workflows []flow.Definition) error {
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return err
	}
	for _, w := range workflows {
		text, err := definition.Format(format, w)
		if err != nil {
			return err
		}
		name := filepath.Join(dir, definition.FileName(string(w.ID), format))
		if err := os.WriteFile(name, text, 0o666); err != nil {
			return err
		}
		fmt.Fprintln(stdout, name)
	}
	return nil
}

func databaseOf(flags *cli.Flags, c *postgres.Config) {
	c.Application = "flower-register"
	flags.Database(c)
}

// withDatabase runs f with a database that is there, and has the tables that it needs.
func withDatabase(ctx context.Context, cfg postgres.Config, f func(db *postgres.DB) error) error {
	db, err := postgres.Open(cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	err = db.Ready(ctx)
	switch {
	case err == nil:
		err = f(db)
	case errors.Is(err, flow.ErrUnavailable):
		err = fmt.Errorf("%w (-database-url or DATABASE_URL says where it is)", err)
	}
	return errors.Join(err, db.Close())
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
