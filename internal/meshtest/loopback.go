package meshtest

import (
	"fmt"
	"math/rand/v2"
	"net"
	"runtime"

	"github.com/claudemesh/claudemesh/internal/wire"
)

// Loopback returns the socket URL of a broker at a LoopbackAddr.
func Loopback() string { return "ws://" + LoopbackAddr() + wire.PathWS }

// LoopbackAddr returns a free port of loopback, outside of the range from which
// systems take the ports that nobody asked for: what is stopped and started
// again there finds it free. On Linux, where all of 127.0.0.0/8 is loopback, it
// is on an address of its own too: tests of many packages run at once, and what
// one has stopped must not be found free by another.
func LoopbackAddr() string {
	for {
		ip := "127.0.0.1"
		if runtime.GOOS == "linux" {
			ip = fmt.Sprintf("127.%d.%d.%d", 1+rand.N(254), rand.N(256), 1+rand.N(254))
		}
		host := fmt.Sprintf("%s:%d", ip, 10_000+rand.N(20_000))
		if ln, err := net.Listen("tcp", host); err == nil {
			_ = ln.Close()
			return host
		}
	}
}
