package main

import (
	"fmt"
	"log/slog"
	"os"

	"github.com/d-tsuji/flower/internal/cli"
	"github.com/d-tsuji/flower/internal/program/secret"
)

// secretSettings adds where secrets are.
func secretSettings(flags *cli.Flags, dir *string) {
	flags.Var(cli.Text(dir, ""), "secrets-dir DIRECTORY", "FLOWER_SECRETS_DIR",
		"a file for each secret that definitions may name; so may variables, "+secret.Prefix+"NAME")
}

// openSecrets reads the secrets, and says which of them cannot be used.
func openSecrets(dir string, log *slog.Logger) (*secret.Store, error) {
	secrets, warnings, err := secret.New(os.Environ(), dir)
	if err != nil {
		return nil, fmt.Errorf("-secrets-dir (FLOWER_SECRETS_DIR): %w", err)
	}
	for _, w := range warnings {
		log.Warn("a secret cannot be used", "component", "watcher", "err", w)
	}
	return secrets, nil
}
