package meshtest

import (
	"github.com/claudemesh/claudemesh/internal/addrtest"
	"github.com/claudemesh/claudemesh/internal/wire"
)

// Loopback returns the socket URL of a broker at an address of its own.
func Loopback() string { return "ws://" + addrtest.New() + wire.PathWS }
