package migrations

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
)

// What is in the schema where ours would be, and whether it has versions.
const (
	foundSQL = `
SELECT current_setting('server_encoding'), coalesce(current_schema(), ''), to_regclass(quote_ident(current_schema()) || '.goose_db_version') IS NOT NULL,
       coalesce((SELECT string_agg(c.relname, ',' ORDER BY c.relname) FROM pg_class c
                 WHERE c.relnamespace = current_schema()::regnamespace AND c.relname IN ('kr_task_stat', 'ms_task_definition')), '')`
	migratedSQL = `SELECT EXISTS (SELECT FROM goose_db_version WHERE version_id > 0)`
)

// refuseUnfit returns an error if the database cannot become ours. It may not have every
// character. Or somebody else uses our names in the schema: another program that keeps its
// versions with goose, which would be taken for ours, or the original, whose tables are not
// ours.
func refuseUnfit(ctx context.Context, db *sql.DB) error {
	var encoding, schema, tables string
	var versions, migrated bool
	err := db.QueryRowContext(ctx, foundSQL).Scan(&encoding, &schema, &versions, &tables)
	if err == nil && versions {
		err = db.QueryRowContext(ctx, migratedSQL).Scan(&migrated)
	}
	switch {
	case err != nil:
		return fmt.Errorf("look what is in the database: %w", err)
	case encoding != "UTF8":
		return fmt.Errorf("the database's encoding is %s, and Flower needs UTF8: CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0 makes such a one", encoding)
	case migrated && tables == "":
		return fmt.Errorf("schema %q: goose_db_version counts the migrations of another program, and Flower's tables are not there: "+
			"give Flower a database of its own, or a schema (CREATE SCHEMA flower, and search_path=flower in -database-url)", schema)
	case tables != "" && !migrated:
		table, _, _ := strings.Cut(tables, ",")
		return fmt.Errorf("schema %q: %[2]s is there, and not of this Flower: move it away (CREATE SCHEMA old; ALTER TABLE %[2]s SET SCHEMA old), "+
			"or give Flower a database of its own", schema, table)
	}
	return nil
}
