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

// staleRolesSQL reports whether Roles was called for this database, before its present
// version, and whoever asks may do so again.
const staleRolesSQL = `
SELECT EXISTS (SELECT FROM pg_class c JOIN pg_roles r ON r.oid = c.relowner
               WHERE c.oid = to_regclass('kr_task_stat') AND r.rolname = 'flower_owner' AND pg_has_role(r.oid, 'MEMBER'))
   AND coalesce(substring(obj_description(to_regclass('goose_db_version'), 'pg_class') FROM 'rights as of version ([0-9]+)')::bigint, 0) < $1`

// Roles gives the database's objects to an owner that cannot log in, and rights to the
// roles flower_reader, flower_operator, flower_admin, flower_register and flower_watcher,
// which it makes where they are missing. From then on Up does so, too.
func Roles(ctx context.Context, db *sql.DB, log *slog.Logger) error {
	return alone(ctx, db, func() error { return applyRoles(ctx, db, log) })
}

func applyRoles(ctx context.Context, db *sql.DB, log *slog.Logger) error {
	version, err := Latest()
	if err != nil {
		return err
	}
	mark := fmt.Sprintf(`COMMENT ON TABLE goose_db_version IS 'Kept by Flower: its migrations. The roles have their rights as of version %d.'`, version)
	if _, err := db.ExecContext(ctx, rolesSQL+mark); err != nil { // both or neither
		return fmt.Errorf("give the roles their rights: %w", err)
	}
	log.Info("the roles have their rights")
	return nil
}

// keepRoles calls applyRoles if Roles was called before, and a migration came after it: this
// one, or one whose process was killed before it got here.
func keepRoles(ctx context.Context, db *sql.DB, log *slog.Logger) error {
	version, err := Latest()
	if err != nil {
		return err
	}
	var stale bool
	if err := db.QueryRowContext(ctx, staleRolesSQL, version).Scan(&stale); err != nil {
		return fmt.Errorf("look whether there are roles: %w", err)
	}
	if !stale {
		return nil
	}
	return applyRoles(ctx, db, log)
}
