package mailbox

import (
	"context"
	"database/sql"
	"os"
	"path/filepath"
	"testing"
)

// What no test can see but a power cut would: the settings of every connection.
func TestConnectionSettings(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "p")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	box, err := Open(ctx, filepath.Join(dir, "a b%.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer box.Close()
	d := box.(*disk)
	conns := map[string]*sql.Conn{"writer": d.w.conn.Raw(), "poller": d.poll.conn.Raw()}
	if conns["reader"], err = d.readDB.Conn(ctx); err != nil {
		t.Fatal(err)
	}
	defer conns["reader"].Close()
	for name, conn := range conns {
		want := map[string]string{"journal_mode": "wal", "synchronous": "2", "busy_timeout": "10000", "foreign_keys": "1",
			"page_size": "8192", "query_only": "1"}
		if name == "writer" {
			want["query_only"] = "0"
		}
		for pragma, value := range want {
			var got string
			if err := conn.QueryRowContext(ctx, "PRAGMA "+pragma).Scan(&got); err != nil || got != value {
				t.Errorf("%s: %s is %s (%v), want %s", name, pragma, got, err, value)
			}
		}
	}
	if n := d.writeDB.Stats().MaxOpenConnections; n != 1 {
		t.Errorf("%d writers", n)
	}
}
