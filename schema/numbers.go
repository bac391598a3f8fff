package schema

import (
	"slices"

	"github.com/claudemesh/claudemesh/internal/wire"
)

// The numbers that stand for names in the hot tables. They are in databases:
// never change one.
const (
	StateQueued = iota
	StateDelivered
	StateBounced
)

// States are the names of the states by their numbers.
var States = [...]wire.State{wire.StateQueued, wire.StateDelivered, wire.StateBounced}

// Modes are the names of the modes by their numbers, from 1.
var Modes = [...]wire.Mode{1: wire.ModeDM, 2: wire.ModeGroup, 3: wire.ModeBroadcast, 4: wire.ModeReceipt}

// ModeNumber returns 0 for an unknown mode.
func ModeNumber(m wire.Mode) int { return max(0, slices.Index(Modes[1:], m)+1) }
