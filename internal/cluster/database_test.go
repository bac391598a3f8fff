//go:build unix

package cluster

import (
	"fmt"
	"net/url"
	"testing"

	"github.com/claudemesh/claudemesh/internal/clustertest"
	"github.com/claudemesh/claudemesh/internal/natstest"
	"github.com/claudemesh/claudemesh/internal/pgtest"
)

// TestDatabaseRestarts crashes the database, which recovers from its log.
func TestDatabaseRestarts(t *testing.T) {
	onEach(t, func(t *testing.T, bus string) {
		s := pgtest.Start(t, pgtest.Options{})
		c := three(t, s.Database(t), bus)
		trial(t, c, clustertest.Pick(3, 20), func(int) { clustertest.Must(t, s.Restart(pgtest.Immediate)) })
	})
}

// TestFailover kills the database and promotes its synchronous standby. The
// nodes know both, and write where one can.
func TestFailover(t *testing.T) {
	for n := range clustertest.Pick(1, 3) {
		t.Run(fmt.Sprint(n+1), func(t *testing.T) {
			primary := pgtest.Start(t, pgtest.Options{TCP: true})
			db := primary.Database(t)
			standby := primary.Standby(t)
			u, err := url.Parse(db)
			clustertest.Must(t, err)
			both := fmt.Sprintf("postgres://postgres@%s,%s%s?sslmode=disable&target_session_attrs=read-write", primary.Addr, standby.Addr, u.Path)
			c := three(t, both, natstest.New(t, nil).URL)
			trial(t, c, 1, func(int) {
				clustertest.Must(t, primary.Kill())
				standby.Promote(t)
			})
		})
	}
}
