// Package localbroker keeps one claudemesh-broker for one user on one machine: on
// loopback, in the background, with everything of it in one directory.
package localbroker

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/gofrs/flock"

	"github.com/claudemesh/claudemesh/internal/brokerfile"
	"github.com/claudemesh/claudemesh/internal/wholefile"
	"github.com/claudemesh/claudemesh/internal/wire"
)

// Program is the name of the broker's program.
const Program = "claudemesh-broker"

const (
	defaultListen = "127.0.0.1:7900"
	readyWithin   = time.Minute      // from a start to readiness, on the slowest machine
	stopWithin    = 10 * time.Second // the broker gives its connections 8 s
	vacantWithin  = 2 * time.Second
	lookEvery     = 50 * time.Millisecond
)

// Errors of a Broker.
var (
	ErrNoProgram = errors.New("there is no " + Program + " beside claudemesh or on PATH")
	ErrNotReady  = errors.New("the local broker does not get ready")
	ErrStays     = errors.New("the local broker does not stop")
)

// Broker is the local broker. What changes it is called under Lock.
type Broker struct{ dir string }

// In returns the broker whose files are in a directory, which need not exist yet.
func In(dir string) *Broker { return &Broker{dir} }

// Dir is the directory of everything that it keeps.
func (b *Broker) Dir() string { return b.dir }

// Database is its file.
func (b *Broker) Database() string { return filepath.Join(b.dir, "mesh.db") }

// TokenPath is the file of its admin token, which founds meshes at it.
func (b *Broker) TokenPath() string { return filepath.Join(b.dir, "admin-token") }

// LogPath is the file of its log while no service manager keeps it.
func (b *Broker) LogPath() string { return filepath.Join(b.dir, "broker.log") }

func (b *Broker) runPath() string { return filepath.Join(b.dir, "run.json") }
func (b *Broker) urlPath() string { return filepath.Join(b.dir, "url") }

// Lock waits until no other process changes the broker. The lock stands beside the
// directory, which Remove deletes.
func (b *Broker) Lock(ctx context.Context) (release func() error, err error) {
	l := flock.New(b.dir+".lock", flock.SetPermissions(0o600))
	if _, err := l.TryLockContext(ctx, lookEvery); err != nil {
		return nil, fmt.Errorf("lock %s: %w", l.Path(), err)
	}
	return l.Close, nil
}

// Running returns the broker's process, and whether there is one.
func (b *Broker) Running() (brokerfile.Running, bool) { return brokerfile.ReadRunning(b.runPath()) }

// Exists reports whether there is a database.
func (b *Broker) Exists() bool {
	_, err := os.Stat(b.Database())
	return err == nil
}

// URL is where peers reach it, running or not; "" before its first start.
func (b *Broker) URL() string {
	raw, _ := os.ReadFile(b.urlPath())
	text := strings.TrimSpace(string(raw))
	if u, err := url.Parse(text); err != nil || !isLoopback(u.Hostname()) || u.Port() == "" {
		return ""
	}
	return text
}

// Remember makes an address that of the next start.
func (b *Broker) Remember(url string) error {
	return wholefile.Replace(b.urlPath(), []byte(url+"\n"))
}

// Remove deletes the directory with the database. The broker has been stopped.
func (b *Broker) Remove() error { return os.RemoveAll(b.dir) }

// Find returns the path of the broker's program: beside the program self, else on
// PATH. ErrNoProgram.
func Find(self string) (string, error) {
	name := Program
	if runtime.GOOS == "windows" {
		name += ".exe"
	}
	dirs := []string{filepath.Dir(self)}
	if real, err := filepath.EvalSymlinks(self); err == nil {
		dirs = append(dirs, filepath.Dir(real))
	}
	for _, dir := range dirs {
		if path, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return path, nil
		}
	}
	if path, err := exec.LookPath(Program); err == nil {
		return filepath.Abs(path)
	}
	return "", ErrNoProgram
}

// command is how the broker is run. No secret stands in it.
func (b *Broker) command(program, listen string) []string {
	return []string{
		program, "--db", b.Database(), "--listen", listen, "--admin-token-file", b.TokenPath(), "--run-file", b.runPath(),
	}
}

// prepare makes the directory and draws the admin token, once.
func (b *Broker) prepare() error {
	if err := os.MkdirAll(b.dir, 0o700); err != nil {
		return err
	}
	if _, err := brokerfile.ReadToken(b.TokenPath()); err == nil || !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return wholefile.Replace(b.TokenPath(), []byte(rand.Text()+"\n"))
}

// listen is where the broker listens, or is to.
func (b *Broker) listen(ctx context.Context) (string, error) {
	if r, ok := b.Running(); ok {
		if u, err := url.Parse(r.URL); err == nil {
			return u.Host, nil
		}
	}
	return b.choose(ctx)
}

// choose returns an address that is free now: the one of the last start, the
// usual one, or any.
func (b *Broker) choose(ctx context.Context) (string, error) {
	want := []string{defaultListen, "127.0.0.1:0"}
	if u, err := url.Parse(b.URL()); err == nil && u.Host != "" {
		b.vacant(ctx, u.Host)
		want = append([]string{u.Host}, want...)
	}
	var err error
	for _, listen := range want {
		var ln net.Listener
		if ln, err = net.Listen("tcp", listen); err == nil {
			return ln.Addr().String(), ln.Close()
		}
	}
	return "", err
}

// vacant waits a little for an address: the threads of a broker that has just ended
// may hold its port for a moment.
func (b *Broker) vacant(ctx context.Context, listen string) {
	ctx, cancel := context.WithTimeout(ctx, vacantWithin)
	defer cancel()
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for taken(listen) {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// Ready waits until the broker takes messages. ended, which may be nil, says that
// its process is gone. ErrNotReady.
func (b *Broker) Ready(ctx context.Context, ended <-chan struct{}) (brokerfile.Running, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, readyWithin, fmt.Errorf("%w within %s", ErrNotReady, readyWithin))
	defer cancel()
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		if r, ok := b.Running(); ok && answers(ctx, r.URL) {
			return r, nil
		}
		select {
		case <-tick.C:
		case <-ended:
			return brokerfile.Running{}, ErrNotReady
		case <-ctx.Done():
			return brokerfile.Running{}, context.Cause(ctx)
		}
	}
}

// answers asks the broker at a socket URL whether it is ready.
func answers(ctx context.Context, socket string) bool {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	base := "http" + strings.TrimPrefix(strings.TrimSuffix(socket, wire.PathWS), "ws")
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+"/health/ready", nil)
	if err != nil {
		return false
	}
	req.Close = true                               // one question a connection
	c := http.Client{Transport: &http.Transport{}} // past any proxy
	resp, err := c.Do(req)
	if err != nil {
		return false
	}
	_ = resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

// Stop ends the broker, whoever started it, and returns what ran, if anything did.
// ErrStays after 10 s.
func (b *Broker) Stop(ctx context.Context) (was brokerfile.Running, ran bool, err error) {
	r, ok := b.Running()
	if !ok {
		return r, false, nil
	}
	if err := terminate(r.PID); err != nil && r.Alive() {
		return r, true, fmt.Errorf("stop process %d: %w", r.PID, err)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, stopWithin, fmt.Errorf("%w within %s; its process is %d", ErrStays, stopWithin, r.PID))
	defer cancel()
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for r.Alive() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return r, true, context.Cause(ctx)
		}
	}
	return r, true, nil
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}
