package localbroker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"

	"github.com/claudemesh/claudemesh/internal/brokerfile"
)

const (
	maxLog   = 1 << 20 // bytes at which a start puts the log aside
	attempts = 3       // starts until one gets its port: another program may take it in between
)

// kept are the variables of the environment that the broker is given: what a
// service manager would give, and none of a shell's secrets.
var kept = []string{"HOME", "PATH", "TMPDIR", "TZ", "SystemRoot", "TEMP", "TMP"}

// Start runs the broker in the background, apart from this process's terminal and
// group, and waits until it is ready. It listens where it did last, else on a free
// port of loopback; the caller remembers which.
func (b *Broker) Start(ctx context.Context, program string) (brokerfile.Running, error) {
	if err := b.prepare(); err != nil {
		return brokerfile.Running{}, err
	}
	var err error
	for range attempts {
		var listen string
		if listen, err = b.choose(ctx); err != nil {
			return brokerfile.Running{}, err
		}
		var r brokerfile.Running
		if r, err = b.startAt(ctx, program, listen); err == nil || !taken(listen) {
			return r, err
		}
	}
	return brokerfile.Running{}, err
}

func (b *Broker) startAt(ctx context.Context, program, listen string) (brokerfile.Running, error) {
	log, err := b.openLog()
	if err != nil {
		return brokerfile.Running{}, err
	}
	defer log.Close()
	args := b.command(program, listen)
	cmd := exec.Command(args[0], args[1:]...) // it outlives ctx
	cmd.Dir, cmd.Stdout, cmd.Stderr, cmd.SysProcAttr = b.dir, log, log, detached()
	for _, name := range kept {
		if v, ok := os.LookupEnv(name); ok {
			cmd.Env = append(cmd.Env, name+"="+v)
		}
	}
	from, err := log.Seek(0, io.SeekEnd)
	if err != nil {
		return brokerfile.Running{}, err
	}
	keepFiles()
	if err := cmd.Start(); err != nil {
		return brokerfile.Running{}, err
	}
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }() // until the broker ends, or this process does
	r, err := b.Ready(ctx, ended)
	if err == nil {
		return r, nil
	}
	select {
	case <-ended:
		return r, fmt.Errorf("%w: %s", err, b.lastWords(from))
	default: // one that is not ready in time, or is not wanted any more, must not stay
		_ = cmd.Process.Kill()
		<-ended
		return r, err
	}
}

// taken reports whether something listens at an address.
func taken(listen string) bool {
	ln, err := net.Listen("tcp", listen)
	return err != nil || ln.Close() != nil
}

// openLog opens the log at its end. One that has grown is put aside.
func (b *Broker) openLog() (*os.File, error) {
	if st, err := os.Stat(b.LogPath()); err == nil && st.Size() > maxLog {
		if err := os.Rename(b.LogPath(), b.LogPath()+".1"); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	return os.OpenFile(b.LogPath(), os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600)
}

// lastWords is the last line that the broker wrote since its start.
func (b *Broker) lastWords(from int64) string {
	f, err := os.Open(b.LogPath())
	if err != nil {
		return ""
	}
	defer f.Close()
	raw, _ := io.ReadAll(io.NewSectionReader(f, from, 64<<10))
	raw = bytes.TrimSpace(raw)
	return string(raw[bytes.LastIndexByte(raw, '\n')+1:])
}
