// Package addrtest names loopback addresses for the servers of tests, which are
// stopped and started there again.
package addrtest

import (
	"fmt"
	"math/rand/v2"
	"net"
	"runtime"
	"time"
)

const (
	// Outside of the range from which systems take the ports that nobody asked for.
	firstPort, ports = 10_000, 20_000

	patience  = 10 * time.Second
	lookEvery = 5 * time.Millisecond
)

// New returns an address, host:port, at which nothing listens. On Linux, where all
// of 127.0.0.0/8 is loopback, the host is one of its own: tests of many packages
// run at once, and what one has stopped must not be found free by another.
func New() string {
	for {
		host := "127.0.0.1"
		if runtime.GOOS == "linux" {
			host = fmt.Sprintf("127.%d.%d.%d", 1+rand.N(254), rand.N(256), 1+rand.N(254))
		}
		if addr := fmt.Sprintf("%s:%d", host, firstPort+rand.N(ports)); !taken(addr) {
			return addr
		}
	}
}

// Vacant waits until nothing listens at addr, at most 10 s, and reports whether it is so: what a
// process has closed, another that it is just starting may hold for a moment.
func Vacant(addr string) bool {
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	for end := time.Now().Add(patience); taken(addr); <-look.C {
		if time.Now().After(end) {
			return false
		}
	}
	return true
}

// taken dials: a listener, made to find out, would be such a thing that is held for a moment.
func taken(addr string) bool {
	conn, err := net.DialTimeout("tcp", addr, time.Second)
	if err == nil {
		_ = conn.Close()
	}
	return err == nil
}
