package migrations

import (
	"context"
	"database/sql"
	_ "embed"
	"fmt"
	"log/slog"
)

// rolesSQL is for those who want roles of the database. It is no migration: it can be
// repeated, and must be after each one.
//
//go:embed roles/roles.sql
var rolesSQL string

// hasRolesSQL reports whether Roles was called for this database.
const hasRolesSQL = `
SELECT EXISTS (SELECT FROM pg_class c JOIN pg_roles r ON r.oid = c.relowner
               WHERE c.oid = to_regclass('kr_task_stat') AND r.rolname = 'flower_owner')`

// Roles gives the database's objects to an owner that cannot log in, and rights to the
// roles flower_reader, flower_operator, flower_admin, flower_register and flower_watcher,
// which it makes where they are missing. From then on Up does so, too.
func Roles(ctx context.Context, db *sql.DB, log *slog.Logger) error {
	return alone(ctx, db, func() error { return applyRoles(ctx, db, log) })
}

func applyRoles(ctx context.Context, db *sql.DB, log *slog.Logger) error {
	if _, err := db.ExecContext(ctx, rolesSQL); err != nil {
		return fmt.Errorf("give the roles their rights: %w", err)
	}
	log.Info("the roles have their rights")
	return nil
}

// keepRoles calls applyRoles if Roles was called before, and something has changed since.
func keepRoles(ctx context.Context, db *sql.DB, log *slog.Logger) error {
	var has bool
	if err := db.QueryRowContext(ctx, hasRolesSQL).Scan(&has); err != nil {
		return fmt.Errorf("look whether there are roles: %w", err)
	}
	if !has {
		return nil
	}
	return applyRoles(ctx, db, log)
}
