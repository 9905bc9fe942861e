package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/d-tsuji/flower/internal/cli"
	"github.com/d-tsuji/flower/internal/process"
	"github.com/d-tsuji/flower/internal/program"
	"github.com/d-tsuji/flower/internal/program/secret"
	"github.com/d-tsuji/flower/internal/watcher"
)

// programs are what tasks can run here: the watcher and they do not know each other.
type programs struct {
	program.Set
	all     program.Set // also those that are off
	secrets *secret.Store
}

func (p programs) OffWithout(name string) string { return p.all.OffWithout(name) }

func (p programs) Run(ctx context.Context, a watcher.Attempt) (json.RawMessage, error) {
	return p.Set.Run(ctx, program.Attempt{
		Task: a.Task, Log: a.Log, Stdout: a.Stdout, Stderr: a.Stderr, Outputs: a.Outputs, Flow: a.Flow, Secrets: p.secrets,
	})
}

// newPrograms returns the programs that tasks can run here, and says what should be known
// about them.
func newPrograms(cfg program.Config, secrets *secret.Store, log *slog.Logger) programs {
	if c := cfg.Command; c.Allow {
		process.Conceal() // the database's password, from what tasks run
		log = log.With("component", "watcher")
		if os.Getuid() == 0 {
			log.Warn("commands run as root, and can read and change everything: better run the watcher as another user")
		} else if dirs := c.Writable(); len(dirs) > 0 {
			log.Warn("commands can change what other commands run: better let -command-dirs be what this user cannot write to",
				"writable", dirs)
		}
		if dirs := c.Missing(); len(dirs) > 0 {
			log.Warn("directories of -command-dirs are not there: no command can be found in them", "missing", dirs)
		}
	}
	all := program.Default(cfg)
	return programs{all.Enabled(), all, secrets}
}

// programSettings adds what the programs may do.
func programSettings(flags *cli.Flags, cfg *program.Config) {
	flags.Group("Programs")
	var allow, dirs string
	flags.Var(cli.Text(&allow, ""), "http-allow NETWORK,…", "FLOWER_HTTP_ALLOW",
		"networks that HTTP tasks may reach, as in 10.0.0.0/8; empty is all but metadata services")
	flags.Var(cli.Duration(&cfg.HTTPTimeout, 30*time.Second, time.Second, 24*time.Hour), "http-timeout TIME", "FLOWER_HTTP_TIMEOUT",
		"how long a request may take, its answer included")
	flags.Var(cli.Text(&cfg.CallbackURL, ""), "callback-url URL", "FLOWER_CALLBACK_URL",
		"where register can be called by whoever answers a request later, as in http://flower.example.com:8000")
	c := &cfg.Command
	flags.Var(cli.Bool(&c.Allow), "allow-command", "FLOWER_ALLOW_COMMAND", "let tasks run commands on this machine")
	flags.Var(cli.Text(&dirs, program.DefaultCommandDirs), "command-dirs DIR,…", "FLOWER_COMMAND_DIRS",
		"where the program files of commands must lie")
	flags.Var(cli.Bool(&c.Shell), "command-shell", "FLOWER_COMMAND_SHELL", "let definitions have commands run by a shell")
	flags.Var(cli.Bytes(&c.Limits.Memory, 0, 1<<20, 1<<50), "command-memory SIZE", "FLOWER_COMMAND_MEMORY",
		"data that each process of a command may have, as in 512MiB; 0 is any")
	flags.Var(cli.Duration(&c.Limits.CPU, 0, 0, 365*24*time.Hour), "command-cpu TIME", "FLOWER_COMMAND_CPU",
		"processor time that each may use, in whole seconds; 0 is any")
	flags.Var(cli.Int(&c.Limits.Files, 0, 0, 1<<20), "command-files N", "FLOWER_COMMAND_FILES",
		"files that each may have open; 0 is as many as the watcher")
	flags.Needs("allow-command", "command-dirs", "command-shell", "command-memory", "command-cpu", "command-files")
	flags.Check(func() (err error) {
		if cfg.HTTPAllow, err = program.ParseAllow(allow); err != nil {
			return fmt.Errorf("-http-allow (FLOWER_HTTP_ALLOW): %w", err)
		}
		c.Dirs = strings.FieldsFunc(dirs, func(r rune) bool { return r == ',' })
		if err := c.Validate(); err != nil {
			return fmt.Errorf("-command-dirs (FLOWER_COMMAND_DIRS): %w", err)
		}
		return nil
	})
}
