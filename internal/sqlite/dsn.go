package sqlite

import (
	"bytes"
	"context"
	"database/sql"
	"fmt"
	"io"
	"net/url"
	"os"
	"strconv"
	"strings"

	_ "modernc.org/sqlite" // the driver
)

// minVersion is the first SQLite without the WAL-reset bug, a rare corruption
// when two connections write or checkpoint at the same moment.
const minVersion = "3.51.3"

// The settings of every connection. The _pragma list runs before the _journal_mode
// key, and so the page size (8 KiB: a sixth less CPU per row than 4 KiB) is set
// before the journal mode writes a new file's first page. The WAL is kept at
// its size between checkpoints: overwriting is half the price of appending.
const (
	commonQuery = "_busy_timeout=5000&_journal_mode=WAL&_synchronous=FULL&_foreign_keys=ON&_dqs=0" +
		"&_pragma=page_size(8192)&_pragma=wal_autocheckpoint(1000)&_pragma=temp_store(MEMORY)"
	writerQuery = commonQuery + "&_txlock=immediate&_pragma=cache_size(-8192)"
	readerQuery = commonQuery + "&_query_only=1"
	// toolQuery opens a database that must exist, for the functions that work
	// beside a running broker.
	toolQuery = "mode=rw&_busy_timeout=5000&_foreign_keys=ON&_dqs=0&_synchronous=FULL"
)

// dsn builds the data source name: the file: form, since SQLite would strip the
// query from a plain path, with the path percent-encoded.
func dsn(path, query string) string {
	u := url.URL{Scheme: "file", OmitHost: true, Path: path}
	return u.String() + "?" + query
}

func openPool(path, query string, conns int) (*sql.DB, error) {
	db, err := sql.Open("sqlite", dsn(path, query))
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(conns)
	db.SetMaxIdleConns(conns)
	return db, nil
}

// magic begins every SQLite file.
var magic = []byte("SQLite format 3\x00")

// checkHeader refuses a file that is not a SQLite database before SQLite may
// touch it. An empty file is a new database.
func checkHeader(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	head := make([]byte, len(magic))
	n, err := io.ReadFull(f, head)
	if n == 0 && err == io.EOF {
		// SQLite would take it for a new database and delete the WAL of the old one.
		if wal, err := os.Stat(path + "-wal"); err == nil && wal.Size() > 0 {
			return fmt.Errorf("%s: %w: it is empty beside a write-ahead log", path, ErrCorrupt)
		}
		return nil
	}
	if !bytes.Equal(head[:n], magic) && !hasJournal(path) {
		return fmt.Errorf("%s: %w: it is not a SQLite database", path, ErrCorrupt)
	}
	return nil
}

// journalMagic begins every rollback journal.
var journalMagic = []byte{0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7}

// hasJournal reports whether SQLite will bring the file back to what it was before a
// write that was cut off: of a new file, to nothing.
func hasJournal(path string) bool {
	f, err := os.Open(path + "-journal")
	if err != nil {
		return false
	}
	defer f.Close()
	head := make([]byte, len(journalMagic))
	_, err = io.ReadFull(f, head)
	return err == nil && bytes.Equal(head, journalMagic)
}

// checkVersion refuses to run on a SQLite that is too old to trust.
func checkVersion(ctx context.Context, db *sql.DB) error {
	var v string
	if err := db.QueryRowContext(ctx, "SELECT sqlite_version()").Scan(&v); err != nil {
		return translate(err)
	}
	if versionNumber(v) < versionNumber(minVersion) {
		return fmt.Errorf("SQLite %s is linked, at least %s is needed", v, minVersion)
	}
	return nil
}

// versionNumber turns 3.51.3 into 3051003.
func versionNumber(v string) int {
	n := 0
	for _, part := range strings.SplitN(v, ".", 3) {
		d, _ := strconv.Atoi(part)
		n = n*1000 + d
	}
	return n
}
