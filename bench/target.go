package main

import (
	"context"
	"slices"
)

// handlers are what a client tells the load generator. Both get a payload that
// was sent; neither keeps it.
type handlers struct {
	acked func(payload []byte) // the server took the message
	got   func(payload []byte) // the message came; the client acknowledges it afterwards
	fail  func(error)          // the run is spoilt
}

// client is one peer's connection to a target.
type client interface {
	// send gives a message away and does not wait for its acknowledgement.
	send(to int, payload []byte)
	close()
}

// target is a message system that runs in a process of its own.
type target interface {
	booter
	// start boots it and makes it ready for peers.
	start(ctx context.Context, dir string) error
	// dial connects peer i of n; messages for it come when dial returns.
	dial(ctx context.Context, i, n int, h handlers) (client, error)
	pid() int
}

// booter starts a server's process.
type booter interface {
	// boot starts it with its files in dir; it takes connections when boot returns.
	boot(ctx context.Context, dir string) error
	// stop ends the process, also one that did not start well.
	stop()
}

// contender is what the run compares: ours, or a target under the load of this
// program.
type contender struct {
	name    string
	promise string // when it acknowledges
	absent  func() string
	// messages and rounds of one that is too slow for the usual numbers; 0: the usual.
	messages, rounds int
	skip             []string // modes it is not asked for
	target           func() target
	run              func(ctx context.Context, mode string, o options) (result, error)
}

func (c contender) measure(ctx context.Context, mode string, o options) (result, error) {
	if c.messages > 0 {
		o.messages = min(o.messages, c.messages)
	}
	if c.rounds > 0 {
		o.pingpongs = min(o.pingpongs, c.rounds)
	}
	if c.run != nil {
		return c.run(ctx, mode, o)
	}
	return measure(ctx, c.target(), mode, o)
}

func (c contender) does(mode string) bool { return !slices.Contains(c.skip, mode) }

// Names of the contenders.
const (
	nameOurs      = "claudemesh"
	nameJS        = "jetstream"
	nameJSAlways  = "jetstream-always"
	nameMosquitto = "mosquitto"
	nameRedis     = "redis"
)

// contenders lists all of them; ours is first.
func contenders(o *ours) []contender {
	present := func() string { return "" }
	return []contender{
		{name: nameOurs, promise: "WebSocket; acknowledges after fsync", absent: o.absent, run: o.run},
		{name: nameJS, promise: "WebSocket, file storage; acknowledges before fsync (every 2 minutes)", absent: present,
			target: func() target { return &jetStream{} }},
		{name: nameJSAlways, promise: "WebSocket, file storage; acknowledges after fsync of each message", absent: present,
			messages: 20, rounds: 200, skip: []string{"open", "backlog", "start"}, target: func() target { return &jetStream{always: true} }},
		{name: nameMosquitto, promise: "WebSocket, QoS 1; acknowledges before any write to disk", absent: absent("mosquitto"),
			target: func() target { return &mosquitto{} }},
		{name: nameRedis, promise: "TCP, appendfsync always; acknowledges after fsync", absent: absent("redis-server"),
			target: func() target { return &redisServer{} }},
	}
}
