package claudecode

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/claudemesh/claudemesh/internal/wholefile"
)

// stampName is the file that says which plugin was written. It is written last.
const stampName = "stamp.json"

// stamp is what was written: by which version, for which command, and its sum.
type stamp struct {
	Version string   `json:"version"`
	Command []string `json:"command"`
	Sum     string   `json:"sum"`
}

// folder is the marketplace in a configuration directory.
func folder(configDir string) string { return filepath.Join(configDir, "claude") }

// Refresh brings the plugin that install wrote into configDir up to this binary,
// whose version is product: for the command that it was installed with. It
// leaves alone what is not there, and what a newer binary wrote: older ones may
// still run. Sessions load the change with /reload-plugins or their next start.
func Refresh(configDir, product string) error {
	have, err := readStamp(folder(configDir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	version := pluginVersion(product)
	if len(have.Command) == 0 || newer(have.Version, version) {
		return nil
	}
	files := render(have.Command, version)
	if have.Sum == sum(files) {
		return nil
	}
	return write(folder(configDir), stamp{version, have.Command, sum(files)}, files)
}

func readStamp(dir string) (s stamp, err error) {
	data, err := os.ReadFile(filepath.Join(dir, stampName))
	if err != nil {
		return s, err
	}
	if err := json.Unmarshal(data, &s); err != nil {
		return s, fmt.Errorf("%s is malformed; run: claudemesh install", filepath.Join(dir, stampName))
	}
	return s, nil
}

// write makes dir hold these files and no others of a plugin. A running Claude
// Code reads the folder, and so each file is replaced whole where it stands
// instead of the folder: at no moment is there none.
func write(dir string, s stamp, files []file) error {
	keep := map[string]bool{}
	for _, f := range files {
		path := filepath.Join(dir, filepath.FromSlash(f.path))
		keep[path] = true
		if have, err := os.ReadFile(path); err == nil && bytes.Equal(have, f.data) {
			continue
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return err
		}
		if err := replaceFile(path, f.data, 0o600); err != nil {
			return err
		}
	}
	if err := clear(filepath.Join(dir, ServerName), keep); err != nil {
		return err
	}
	return replaceFile(filepath.Join(dir, stampName), []byte(quoteJSON(s)+"\n"), 0o600)
}

// clear removes the files of another version, and what a crash left.
func clear(dir string, keep map[string]bool) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || keep[path] {
			return err
		}
		if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) { // another process may be at it too
			return err
		}
		return nil
	})
}

// written says whether dir holds exactly this plugin.
func written(dir string, s stamp, files []file) bool {
	have, err := readStamp(dir)
	if err != nil || have.Sum != s.Sum || have.Version != s.Version {
		return false
	}
	for _, f := range files {
		data, err := os.ReadFile(filepath.Join(dir, filepath.FromSlash(f.path)))
		if err != nil || !bytes.Equal(data, f.data) {
			return false
		}
	}
	return true
}

// replaceFile writes a file whole. Behind a symbolic link it is the link's target
// that is replaced.
func replaceFile(path string, data []byte, mode fs.FileMode) error {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	return wholefile.ReplaceAs(path, data, mode)
}

// newer compares versions of pluginVersion. What stands behind a dash tells
// only a release from what came before it.
func newer(a, b string) bool {
	x, preX, _ := strings.Cut(a, "-")
	y, preY, _ := strings.Cut(b, "-")
	xs, ys := strings.Split(x, "."), strings.Split(y, ".")
	for i := range min(len(xs), len(ys)) {
		m, _ := strconv.Atoi(xs[i])
		n, _ := strconv.Atoi(ys[i])
		if m != n {
			return m > n
		}
	}
	return preX == "" && preY != ""
}
