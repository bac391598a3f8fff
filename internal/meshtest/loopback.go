package meshtest

import (
	"fmt"
	"math/rand/v2"
	"net"

	"github.com/claudemesh/claudemesh/internal/wire"
)

// Loopback returns the socket URL of a broker at a LoopbackAddr.
func Loopback() string { return "ws://" + LoopbackAddr() + wire.PathWS }

// LoopbackAddr returns a free port of loopback, outside of the range from which
// systems take the ports that nobody asked for: what is stopped and started
// again there finds it free.
func LoopbackAddr() string {
	for {
		host := fmt.Sprintf("127.0.0.1:%d", 10_000+rand.N(20_000))
		if ln, err := net.Listen("tcp", host); err == nil {
			_ = ln.Close()
			return host
		}
	}
}
