package move

import "strings"

// InBatches makes a move's transactions small.
func (o Options) InBatches(rows int) Options {
	o.batch = rows
	return o
}

// Columns returns what is moved of each table of the SQLite schema.
func Columns() map[string][]string {
	out := make(map[string][]string)
	for _, t := range tables {
		switch t {
		case number: // in counter and sqlite_sequence
		case delivery:
			out[t.name] = t.columns[:deliveryMode]
		default:
			out[t.name] = t.columns
		}
	}
	return out
}

// PostgresColumns returns what is written to each table of the Postgres schema.
func PostgresColumns() map[string][]string {
	out := Columns()
	out["message"] = message.columns[:messageNonce]
	out["body"], out["delivery"], out["outcome"] = bodyColumns, queuedColumns, settledColumns
	out["mesh"] = append(strings.Fields("outcast_version"), out["mesh"]...) // see setNumbers
	return out
}
