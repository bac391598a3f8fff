package postgres

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/claudemesh/claudemesh/broker"
)

// codeFenced is what the function fence raises.
const codeFenced = "CM001"

// code returns the SQLSTATE of a server's error, or "".
func code(err error) string {
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		return e.Code
	}
	return ""
}

// passing reports whether the same may succeed when it is tried again: the
// connection or the server was lost, or another transaction stood in the way.
// SQLSTATEs: https://www.postgresql.org/docs/current/errcodes-appendix.html
func passing(err error) bool {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return false
	}
	c := code(err)
	switch {
	case c == "": // the driver's own: the network, or an unexpected end
		return !isOurs(err)
	case strings.HasPrefix(c, "08"), // connection exceptions
		strings.HasPrefix(c, "57P"), // shut down, crashed, starting up, database dropped
		c == "40001", c == "40P01",  // serialization failure, deadlock
		c == "25P03", c == "25006", // idle in transaction; read-only: a standby that is being promoted
		c == "53300", c == "55P03", c == "57014": // too many connections, lock and statement timeout
		return true
	}
	return false
}

// isOurs reports whether an error is one that a method returns by contract, or
// that no server had a part in.
func isOurs(err error) bool {
	for _, e := range []error{
		broker.ErrNotFound, broker.ErrMeshExists, broker.ErrNameTaken, broker.ErrConflict, broker.ErrStaleMembers,
		broker.ErrInviteExpired, broker.ErrInviteUsedUp, broker.ErrInviteClosed, broker.ErrIDReused,
		broker.ErrStorageFull, broker.ErrClosed, broker.ErrFenced, errData, pgx.ErrNoRows,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// errData is a row that no broker wrote, or an argument that cannot be stored.
var errData = errors.New("bad data")

// translate turns the server's errors into those of broker.Store.
func translate(err error) error {
	switch c := code(err); {
	case err == nil:
		return nil
	case c == codeFenced:
		return broker.ErrFenced
	case c == "53100": // disk full
		return fmt.Errorf("%w: %w", broker.ErrStorageFull, err)
	case errors.Is(err, pgx.ErrNoRows):
		return broker.ErrNotFound
	}
	return err
}
