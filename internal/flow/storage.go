package flow

import "time"

// Storage is what the database holds, and what it is.
type Storage struct {
	AsOf     time.Time // the database's clock
	Postgres string    // its version
	Schema   int64     // of ours
	Size     int64     // bytes, of the whole database
	Tables   []TableSize
}

// TableSize is a table with all that belongs to it.
type TableSize struct {
	Name  string
	Rows  int64 // as the planner estimates; negative: it does not know yet
	Bytes int64 // with indexes
	Means string
}
