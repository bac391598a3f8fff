// Package bus carries hints between the brokers that share a store: through the
// database itself, or through a NATS server.
package bus

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/claudemesh/claudemesh/broker"
)

// Errors of the package.
var (
	ErrSpec = errors.New(`a bus is "postgres", nats://HOST:PORT or tls://HOST:PORT`)
	ErrAway = errors.New("the bus is away")
	ErrSize = errors.New("payload exceeds what the bus carries")
)

// Open returns the bus that spec names: "postgres" goes through the database
// at dbURL, a nats:// or tls:// URL through a NATS server. It connects in the
// background. ErrSpec.
func Open(spec, dbURL string, log *slog.Logger) (broker.Bus, error) {
	switch {
	case spec == "postgres":
		return Postgres(dbURL, log)
	case strings.HasPrefix(spec, "nats://"), strings.HasPrefix(spec, "tls://"):
		return NATS(spec, log)
	}
	return nil, ErrSpec // which does not repeat what may hold a password
}

// address names a node where its own name may not stand: a name may have any
// length and characters. 32 hex digits.
func address(node string) string {
	sum := sha256.Sum256([]byte(node))
	return hex.EncodeToString(sum[:16])
}

// fits refuses a payload that is too large.
func fits(payload []byte, most int) error {
	if len(payload) > most {
		return fmt.Errorf("%w: %d bytes of %d", ErrSize, len(payload), most)
	}
	return nil
}

// The least and the longest pause before a bus is dialled again.
const (
	pauseMin = 100 * time.Millisecond
	pauseMax = 5 * time.Second
)

// pause returns how long to wait after so many tries in vain, from 1: twice as
// long each time, and jittered by half, as all nodes lose a bus at once.
func pause(tries int) time.Duration {
	d := min(pauseMin<<min(tries-1, 10), pauseMax)
	return max(pauseMin, d/2+rand.N(d/2+1))
}

// wait returns when d has passed or ctx has ended.
func wait(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
