package meshtest

import (
	"fmt"
	"math/rand/v2"
	"net"
)

// Loopback returns the socket URL of a free port of loopback, outside of the range from
// which systems take the ports that nobody asked for: what is stopped and started
// again there finds it free.
func Loopback() string {
	for {
		host := fmt.Sprintf("127.0.0.1:%d", 10_000+rand.N(20_000))
		if ln, err := net.Listen("tcp", host); err == nil {
			_ = ln.Close()
			return "ws://" + host + "/ws"
		}
	}
}
