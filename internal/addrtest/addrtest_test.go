package addrtest_test

import (
	"net"
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
	closed := make(chan error)
	time.AfterFunc(50*time.Millisecond, func() { closed <- ln.Close() })
	got := make(chan bool)
	go func() { got <- addrtest.Vacant(addr) }()
	select {
	case <-got:
		t.Fatal("vacant, while something listens")
	case err := <-closed:
		if err != nil {
			t.Fatal(err)
		}
	}
	if !<-got {
		t.Error("not vacant, though nothing listens any more")
	}
}
