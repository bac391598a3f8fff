package addrtest_test

import (
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/claudemesh/claudemesh/internal/addrtest"
)

func TestVacant(t *testing.T) {
	addr := addrtest.New()
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	var closing atomic.Bool
	time.AfterFunc(50*time.Millisecond, func() {
		closing.Store(true)
		_ = ln.Close()
	})
	if !addrtest.Vacant(addr) {
		t.Error("not vacant, though nothing listens any more")
	}
	if !closing.Load() {
		t.Error("vacant, while something listens")
	}
}
