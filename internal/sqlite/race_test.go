//go:build race

package sqlite_test

// slow says that SQLite runs some fifty times slower than it does without the
// race detector.
const slow = true
