package broker

import (
	"log/slog"
	"time"

	"github.com/claudemesh/claudemesh/internal/audit"
	"github.com/claudemesh/claudemesh/internal/wire"
)

// Limits bound what peers may ask of a broker. The zero value of each field
// means its default (docs/operations.md lists them).
type Limits struct {
	MessageBytes int // one WebSocket message; default 128 KiB
	BodyBytes    int // ciphertext of one message; default 40 KiB, which holds a padded 32 KiB body
	Wraps        int // recipients of one group message; default 256

	Window      int // pushes in flight per connection; default 32
	WindowBytes int // their bytes; default 512 KiB
	OutFrames   int // frames waiting for a connection before it gets no new pushes; default 64
	OutBytes    int // their bytes; default 256 KiB
	OutMax      int // bytes waiting at which a connection is closed as too slow; default 1 MiB

	SendsPerMinute int // per member; default 60
	SendBurst      int // default 20
	BytesPerMinute int // per member; default 1 MiB

	QueueMessages int64 // per recipient; default 1000, a quarter of it per sender
	QueueBytes    int64 // per recipient; default 16 MiB, likewise
	MeshMessages  int64 // per mesh; default 100,000
	MeshBytes     int64 // per mesh; default 1 GiB
	DiskHighWater int   // percent of the disk in use at which sends are refused; default 90

	PreAuthPerAddress int // unauthenticated sockets; default 20
	PreAuth           int // in all; default 1000
	FailuresPerMinute int // failed joins and invite look-ups per address; default 10

	HelloTimeout time.Duration // default 5 s
	WriteTimeout time.Duration // default 10 s
	Lease        time.Duration // default 30 s
	Attempts     int           // failed attempts before a delivery bounces; default 10
	PingEvery    time.Duration // default 30 s
	GoneAfter    time.Duration // silence after which a connection is closed; default 75 s
	Grace        time.Duration // a dropped session still counts as online; default 30 s
	ForgetAfter  time.Duration // an unseen session; default 30 days
	MaxAge       time.Duration // longest lifetime of a message; default 30 days
}

// WithDefaults returns the limits with every zero field set to its default.
func (l Limits) WithDefaults() Limits {
	def(&l.MessageBytes, wire.MaxMessageBytes)
	def(&l.BodyBytes, 40<<10)
	def(&l.Wraps, wire.MaxWraps)
	def(&l.Window, 32)
	def(&l.WindowBytes, 512<<10)
	def(&l.OutFrames, 64)
	def(&l.OutBytes, 256<<10)
	def(&l.OutMax, 1<<20)
	def(&l.SendsPerMinute, 60)
	def(&l.SendBurst, 20)
	def(&l.BytesPerMinute, 1<<20)
	def(&l.QueueMessages, 1000)
	def(&l.QueueBytes, 16<<20)
	def(&l.MeshMessages, 100_000)
	def(&l.MeshBytes, 1<<30)
	def(&l.DiskHighWater, 90)
	def(&l.PreAuthPerAddress, 20)
	def(&l.PreAuth, 1000)
	def(&l.FailuresPerMinute, 10)
	def(&l.HelloTimeout, 5*time.Second)
	def(&l.WriteTimeout, 10*time.Second)
	def(&l.Lease, 30*time.Second)
	def(&l.Attempts, 10)
	def(&l.PingEvery, 30*time.Second)
	def(&l.GoneAfter, 75*time.Second)
	def(&l.Grace, 30*time.Second)
	def(&l.ForgetAfter, 30*24*time.Hour)
	def(&l.MaxAge, 30*24*time.Hour)
	return l
}

func def[T comparable](v *T, d T) {
	var zero T
	if *v == zero {
		*v = d
	}
}

// Config configures a Broker. The zero value of every field but Store works.
type Config struct {
	Store Store
	// Open lets anyone found a mesh; otherwise the admin token is asked for.
	Open bool
	// AdminToken replaces the stored token when it is set.
	AdminToken string
	// PublicURL is how clients reach the broker ("https://mesh.example.com"), for
	// the page of an invite. Empty: taken from the request.
	PublicURL string
	// ClientIPHeader names the header in which a proxy in front of the broker
	// puts the client's address. Empty: the connection's own address.
	ClientIPHeader string
	// DiskUsage returns how full the store's disk is, in percent. Nil: not looked at.
	DiskUsage func() (percent int, err error)
	Limits    Limits
	// Audit is told what happened to members, and what was refused to whom: never what
	// a message says. Nil: nobody is. It is called from many goroutines.
	Audit func(audit.Entry)
	// Cluster makes this broker one of several on one store, which must be a ClusterStore.
	Cluster ClusterConfig
	Version string
	Logger  *slog.Logger // nil discards
	Now     func() time.Time
}

func (c Config) withDefaults() Config {
	c.Limits = c.Limits.WithDefaults()
	def(&c.Version, "dev")
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.DiskUsage == nil {
		c.DiskUsage = func() (int, error) { return 0, nil }
	}
	return c
}
