// Package brokerfile is the two small files between a broker and who runs it on
// the same machine: the admin token, which the broker reads, and the run file, in
// which it says, while it serves, which process it is and where it listens.
package brokerfile

import (
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/claudemesh/claudemesh/internal/process"
	"github.com/claudemesh/claudemesh/internal/wholefile"
	"github.com/claudemesh/claudemesh/internal/wire"
)

// maxFile bounds what is read of either file, in bytes.
const maxFile = 4096

// ReadToken reads a file that holds one admin token, and white space around it.
func ReadToken(path string) (string, error) {
	raw, err := read(path)
	if err != nil {
		return "", err
	}
	token := strings.TrimSpace(string(raw))
	if token == "" || strings.ContainsAny(token, " \t\r\n") {
		return "", fmt.Errorf("%s does not hold one token", path)
	}
	return token, nil
}

// Running is a broker that serves.
type Running struct {
	process.Process
	URL     string `json:"url"` // where peers connect: ws:// or wss://
	Version string `json:"version"`
}

// Write makes or replaces a run file. The broker's lock on its database is the file's.
func (r Running) Write(path string) error {
	data, err := wire.Marshal(r)
	if err != nil {
		return err
	}
	return wholefile.Replace(path, data)
}

// ReadRunning returns the broker that wrote a run file, and whether it is alive. A
// file that is absent or makes no sense is that of no broker; so is one that a
// process left which is gone, whoever has its number now.
func ReadRunning(path string) (r Running, alive bool) {
	raw, err := read(path)
	if err != nil || wire.Unmarshal(raw, &r) != nil || !r.Alive() {
		return Running{}, false
	}
	return r, true
}

func read(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(raw) > maxFile {
		err = fmt.Errorf("%s is larger than %d bytes", path, maxFile)
	}
	return raw, err
}
